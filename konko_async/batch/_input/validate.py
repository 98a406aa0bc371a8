"""Checks a whole input before anything is sent, and estimates what a run would take."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final
from zlib import crc32

from konko_async import RateLimit
from konko_async.batch._errors import BatchInputError
from konko_async.batch._input.record_splitter import Piece
from konko_async.batch._input.row_parser import Row, RowError, RowReader
from konko_async.batch._input.source import RecordSource
from konko_async.batch._output.answers import Used
from konko_async.batch._output.journal import Checked
from konko_async.batch._pricing import Prices
from konko_async.batch._report import Estimate
from konko_async.limits import estimate_tokens

__all__ = ["Estimator", "Ids", "check_input", "read_row", "token_guess"]

# The number that estimate_tokens() assumes too: it is taken off its estimate again.
_DEFAULT_ANSWER: Final = 256
# As many as BatchInputError documents: an input of nothing but errors must not fill the memory.
_PROBLEMS: Final = 100
# Each row may name a model of its own, and the counts go into the journal: they are bounded.
_MODELS: Final = 1000
_TICK: Final = 1000

Invalid = Callable[[int, Piece, RowError], object]


class Ids:
    """The ids seen so far, by their hashes, in a temporary file: memory does not grow.

    The file has no name that others could open, and vanishes with the process.
    """

    def __init__(self) -> None:
        self._base = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        # Nothing here has to survive a crash, so no journal and no sync; a cache of 1 MiB.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1024"):
            self._base.execute(f"PRAGMA {pragma}")
        self._base.execute("CREATE TABLE ids (hash INTEGER PRIMARY KEY, seen INTEGER)")
        # One transaction for all: otherwise each insert would be one by itself.
        self._base.execute("BEGIN")

    def first(self, custom_id: str, line: int) -> int | None:
        """Note an id; returns the line on which it was before, None if it is new."""
        # Two ids may share a 64-bit hash: the CRC tells them apart from one id that comes twice.
        short, check = hash(custom_id), crc32(custom_id.encode("utf-8", "surrogatepass"))
        try:
            self._base.execute("INSERT INTO ids VALUES (?, ?)", (short, line << 32 | check))
        except sqlite3.IntegrityError:
            found: int
            (found,) = self._base.execute(
                "SELECT seen FROM ids WHERE hash = ?", (short,)
            ).fetchone()
            return found >> 32 if found & 0xFFFFFFFF == check else None
        return None

    def close(self) -> None:
        """Drop the file."""
        self._base.close()


def check_input(
    source: RecordSource,
    reader: RowReader,
    *,
    shown: str,
    invalid: Invalid | None,
    tick: Callable[[], object],
    each: Callable[[Row], object] | None = None,
) -> Checked:
    """Read every row once.

    Args:
        source: the records.
        reader: makes rows of them.
        shown: the input's name, for errors.
        invalid: called with each invalid record; None: they are an error.
        tick: called now and then.
        each: called with each row.

    Raises:
        BatchInputError: there are no rows, or (without ``invalid``) invalid ones.
    """
    checked, problems = Checked(0), _Problems(shown, invalid)
    with closing(Ids()) as ids:
        for index, piece in enumerate(source.pieces()):
            checked.rows += 1
            try:
                row = read_row(reader, ids, piece, index)
            except RowError as error:
                problems.add(index, piece, error)
            else:
                _count_model(checked.models, row.body["model"])
                if each is not None:
                    each(row)
            if index % _TICK == 0:
                tick()
    if not checked.rows:
        raise BatchInputError(f"{shown}: the input has no rows")
    checked.invalid = problems.count
    checked.numbered = reader.numbered
    problems.raise_first()
    if source.changed():
        raise BatchInputError(f"{shown}: the input was changed while it was read")
    return checked


class _Problems:
    """Collects the first invalid records, or passes all of them on."""

    def __init__(self, shown: str, invalid: Invalid | None) -> None:
        self._shown = shown
        self._invalid = invalid
        self._first: list[tuple[int, str]] = []
        self.count = 0

    def add(self, index: int, piece: Piece, error: RowError) -> None:
        self.count += 1
        if self._invalid is not None:
            self._invalid(index, piece, error)
        elif len(self._first) < _PROBLEMS:
            text = str(error)
            if piece.name is not None and not text.startswith(piece.name):
                text = f"{piece.name}: {text}"
            self._first.append((piece.line, text))

    def raise_first(self) -> None:
        if self._first:
            advice = "nothing was sent (skip_invalid=True runs the others)"
            raise BatchInputError.of(self._shown, self._first, self.count, advice)


def _count_model(models: dict[str, int], model: str) -> None:
    if model in models or len(models) < _MODELS:
        models[model] = models.get(model, 0) + 1


def read_row(reader: RowReader, ids: Ids, piece: Piece, index: int) -> Row:
    """Read a row, and see that its id is new.

    Raises:
        RowError: it is invalid, or has an id that another row has.
    """
    row = reader.read(piece, index)
    first = ids.first(row.custom_id, piece.line)
    if first is not None and row.from_id:
        # A data set's own "id", which need not name a row: rows are numbered instead.
        reader.numbered = True
        row = reader.read(piece, index)
        first = ids.first(row.custom_id, piece.line)
    if first is not None:
        raise RowError(f"custom_id {row.custom_id[:60]!r} is that of line {first} too")
    return row


def token_guess(body: dict[str, Any]) -> tuple[int, int]:
    """Return the tokens of a request as they are guessed: its prompt, its longest answer."""
    total = estimate_tokens(body)
    # Embeddings have no completion tokens.
    if "input" in body:
        return total, 0
    longest = body.get("max_completion_tokens") or body.get("max_tokens")
    if not isinstance(longest, int):
        longest = _DEFAULT_ANSWER
    choices = body.get("n")
    # ``n`` answers are requested at once, and each may be that long.
    answer = longest * (choices if isinstance(choices, int) and choices > 0 else 1)
    return max(total - answer, 0), answer


class Estimator:
    """Adds up what rows would take.

    Args:
        prices: of the models.
        limit: the client's limits.
    """

    def __init__(self, prices: Prices, limit: RateLimit) -> None:
        self._prices = prices
        self._limit = limit
        self._prompt = self._answer = self._rows = 0
        self._cost = 0.0
        self._models: dict[str, list[int]] = {}  # rows, tokens
        self._unpriced: dict[str, None] = {}

    def add(self, row: Row) -> None:
        """Add a row."""
        prompt, answer = token_guess(row.body)
        model = row.body["model"]
        self._rows += 1
        self._prompt += prompt
        self._answer += answer
        cost = self._prices.cost(model, Used(prompt, answer))
        if cost is None:
            self._unpriced.setdefault(model)
        else:
            self._cost += cost
        sums = self._models.setdefault(model, [0, 0])
        sums[0] += 1
        sums[1] += prompt + answer

    def estimate(self) -> Estimate:
        """Return the sums."""
        return Estimate(
            rows=self._rows,
            prompt_tokens=self._prompt,
            max_tokens=self._answer,
            cost=None if self._unpriced else self._cost,
            currency=self._prices.currency,
            unpriced_models=tuple(self._unpriced),
            seconds=self._seconds(),
            models={model: rows for model, (rows, _tokens) in self._models.items()},
        )

    def _seconds(self) -> float | None:
        """How long it takes at the limits, which are kept per model: models run side by side."""
        limit, longest = self._limit, None
        for rows, tokens in self._models.values():
            for amount, rate in (
                (rows, limit.requests_per_minute),
                (tokens, limit.tokens_per_minute),
            ):
                if rate is not None:
                    longest = max(longest or 0.0, amount / rate * limit.window)
        return longest
