"""What the page asks for: rows, details, comparisons, sums and exports. Blocking, for threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from konko_async.batch import RowLatencies
from konko_async.viewer._index import FILTERS, LineIndex, Query
from konko_async.viewer._rows import custom_id, details, facts, needle, summary
from konko_async.viewer._stats import Stats

__all__ = ["InvalidQueryError", "OutputService"]

_STEP: Final = 0.25  # seconds that one question may take
_QUERIES: Final = 8  # that are remembered
_MOST: Final = 500  # rows in one answer
_DIFFERENT: Final = "different"
_LONGEST_SEARCH: Final = 1000


class InvalidQueryError(ValueError):
    """A question that has no answer."""


class _InputLines:
    """The records of the input, if they are lines of JSON."""

    def __init__(self, path: str) -> None:
        self._index = LineIndex(path)
        self._rows: list[int] | None = None

    def record(self, row: int | None) -> bytes | None:
        """Return the record of a row; None if it is not known."""
        index = self._index
        index.advance(_STEP)
        if row is None or row >= index.rows:
            return None
        (line,) = index.read(row, row + 1)
        return line

    def close(self) -> None:
        """Close the file."""
        self._index.close()


class OutputService:
    """Answers questions about one output, or two side by side.

    Args:
        paths: of the outputs; at most two.
        source: the input, or None.

    Raises:
        OSError: one cannot be opened.
    """

    def __init__(self, paths: list[str], source: str | None) -> None:
        self._names = [Path(path).name for path in paths]
        self._indexes = [LineIndex(path) for path in paths]
        self._latencies = [RowLatencies(path) for path in paths]
        self._stats = [
            Stats(index, latencies)
            for index, latencies in zip(self._indexes, self._latencies, strict=True)
        ]
        self._input = None if source is None else _InputLines(source)
        self._queries: dict[tuple[str, str], Query] = {}
        self._ids: dict[bytes, int] = {}  # of the second output, with their places
        self._ids_of = (0, 0)  # generation and rows that are in it

    def close(self) -> None:
        """Close the files."""
        for index in self._indexes:
            index.close()
        if self._input is not None:
            self._input.close()

    def state(self) -> dict[str, Any]:
        """Return how far the outputs are known."""
        for index in self._indexes:
            index.advance(_STEP / len(self._indexes))
        return {
            "files": [
                {
                    "name": name, "rows": index.rows, "failed": index.failed,
                    "complete": index.complete, "generation": index.generation,
                }
                for name, index in zip(self._names, self._indexes, strict=True)
            ],
            "input": self._input is not None,
        }  # fmt: skip

    def _look_for_latencies(self) -> None:
        for latencies in self._latencies:
            latencies.advance()

    def _query(self, name: str, text: str) -> Query:
        if name not in {*FILTERS, _DIFFERENT} or (name == _DIFFERENT and len(self._indexes) == 1):
            raise InvalidQueryError("there is no such filter")
        if len(text) > _LONGEST_SEARCH:
            raise InvalidQueryError("the search is too long")
        key = name, text
        query = self._queries.pop(key, None)
        if query is None:
            more: Callable[[bytes], bool] | None = None
            if name == _DIFFERENT:
                more = self._differs
            query = Query(self._indexes[0], name, needle(text) if text else b"", more)
            while len(self._queries) >= _QUERIES:
                del self._queries[next(iter(self._queries))]
        self._queries[key] = query
        return query

    def rows(self, name: str, text: str, first: int, count: int) -> dict[str, Any]:
        """Return rows that fit, and how many there are as far as is known."""
        index = self._indexes[0]
        index.advance(_STEP / 2)
        query = self._query(name, text)
        query.advance(_STEP)
        found = []
        for place in query.rows(first, min(count, _MOST)):
            (line,) = index.read(place, place + 1)
            row = summary(place, line)
            if len(self._indexes) > 1:
                other = self._other(line)
                row["other"] = None if other is None else facts(other[1]).text == facts(line).text
            found.append(row)
        complete = query.complete and index.complete
        return {"first": first, "rows": found, "total": query.total, "complete": complete}

    def row(self, place: int) -> dict[str, Any]:
        """Return all of a row, and of its counterpart in the second output."""
        lines = self._indexes[0].read(place, place + 1)
        if not lines:
            raise InvalidQueryError("there is no such row")
        record = None if self._input is None else self._input.record(facts(lines[0]).row)
        self._look_for_latencies()
        found = [details(place, lines[0], record, self._latencies[0])]
        if len(self._indexes) > 1:
            other = self._other(lines[0])
            latencies = self._latencies[1]
            found.append({} if other is None else details(*other, None, latencies))
        return {"rows": found}

    def stats(self) -> dict[str, Any]:
        """Return the sums of each output."""
        found = []
        self._look_for_latencies()
        for name, index, stats in zip(self._names, self._indexes, self._stats, strict=True):
            index.advance(_STEP / 4)
            stats.advance(_STEP)
            found.append({"name": name, **stats.to_dict()})
        return {"files": found}

    def export(self, name: str, text: str) -> Iterator[bytes]:
        """Yield the lines that fit, all of them."""
        index, query = self._indexes[0], self._query(name, text)
        first = 0
        while True:
            index.advance(_STEP)
            query.advance(_STEP)
            for place in query.rows(first, _MOST):
                first += 1
                yield index.read(place, place + 1)[0] + b"\n"
            if first >= query.total and query.complete and index.complete:
                return

    # -- two outputs -----------------------------------------------------------------------------

    def _other(self, line: bytes) -> tuple[int, bytes] | None:
        """Return the line of the second output with the same id, and its place."""
        index = self._indexes[1]
        generation, known = self._ids_of
        if generation != index.generation:
            self._ids.clear()
            known = 0
        while known < index.rows:
            first, last = index.blocks(known)
            for place, other in enumerate(index.read(first, last), first):
                self._ids[custom_id(other)] = place
            known = last
        self._ids_of = index.generation, known
        found = self._ids.get(custom_id(line))
        return None if found is None else (found, index.read(found, found + 1)[0])

    def _differs(self, line: bytes) -> bool:
        other = self._other(line)
        if other is None:
            return True
        one, two = facts(line), facts(other[1])
        return (one.ok, one.text) != (two.ok, two.text)


def find_input(output: str, named: str | None) -> str | None:
    """Return the path of the input of an output, where it can be found and is JSON lines."""
    endings = (".jsonl", ".ndjson")
    if named is None:
        named = _journal_input(f"{output}.journal")
        if named is None:
            return None
        places = [Path(output).parent / named, Path(named)]
        named = next((str(place) for place in places if place.is_file()), None)
    return named if named is not None and named.lower().endswith(endings) else None


def _journal_input(path: str) -> str | None:
    """Return the name of the input as a journal's first line has it."""
    import msgspec  # noqa: PLC0415 - once per output

    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a text
            line = file.readline(1 << 20)
        name = msgspec.json.decode(line[9:]).get("input")
    except (OSError, msgspec.DecodeError, AttributeError):
        return None
    return name if isinstance(name, str) and name == os.path.basename(name) else None  # noqa: PTH119 - a text
