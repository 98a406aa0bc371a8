"""Turns records into rows: a request, its endpoint, and its id."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, Literal

import msgspec

from konko_async import ConfigurationError
from konko_async.batch._input.prompt_template import Template
from konko_async.batch._input.record_splitter import Piece
from konko_async.batch._input.table import split_fields

__all__ = ["ENDPOINTS", "Format", "Recipe", "Row", "RowError", "RowReader", "row_key"]

Format = Literal["openai", "jsonl", "csv", "lines", "texts"]

# Each path with the field that its body must have.
ENDPOINTS: Final = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
}
_NO_BYTES = b""
# Searched only once decoding has failed, to name a cause that the decoder does not.
_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_TRANSPORT: Final = frozenset({"stream", "stream_options", "timeout"})
"""Fields of a body that say how the answer travels, not what is asked."""
# Sorted, since the order of its fields does not change what a body asks.
_canonical = msgspec.json.Encoder(order="sorted").encode


class RowError(ValueError):
    """A record that is not a request; its text says why, its ``custom_id`` which row it was."""

    custom_id: str | None = None


class Row(msgspec.Struct, gc=False):
    """One request of a batch.

    Attributes:
        index: its place in the input, from 0; invalid records count too.
        line: number of its first line, from 1.
        custom_id: the user's name for it, or one that was made.
        url: the endpoint.
        body: the request.
        named: whether the user gave the custom_id.
        from_id: whether it is that of a field ``id``, which may not have been meant as one.
        asked: tells this request from the others of the row: of other steps, or those before.
        fields: of the record, where further steps need them.
        seconds: that the calls which answered it took so far.
    """

    index: int
    line: int
    custom_id: str
    url: str
    body: dict[str, Any]
    named: bool = True
    from_id: bool = False
    asked: int = 0
    fields: dict[str, Any] | None = None
    seconds: float = 0.0


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How records become requests; part of what a resumed run must not change unnoticed.

    Attributes:
        format: of the input.
        prompt: template of the user's message (or prompt, or input) for rows that are not requests.
        model: for rows that name none.
        system: a system message before it.
        params: further parameters, for rows that do not set them.
        endpoint: for rows that name none.
        id_column: field that names a row; None: ``custom_id``, or ``id``.
        steps: what the steps of each row are; empty where it has one request.
    """

    format: Format
    prompt: str | None = None
    model: str | None = None
    system: str | None = None
    params: dict[str, Any] = {}
    endpoint: str = "/v1/chat/completions"
    id_column: str | None = None
    steps: list[dict[str, Any]] = []

    def digest(self) -> bytes:
        """Return a hash of this recipe; how answers travel is not part of it."""
        kept = {name: value for name, value in self.params.items() if name not in _TRANSPORT}
        found = {**msgspec.structs.asdict(self), "params": kept}
        if self.id_column is None:  # as journals of earlier versions have it
            del found["id_column"]
        if not self.steps:
            del found["steps"]
        return _canonical(found)

    def parts(self) -> dict[str, str]:
        """Return a short hash of each part, to find which has changed."""
        params = {name: value for name, value in self.params.items() if name not in _TRANSPORT}
        found = {
            "format": self.format,
            "prompt": self.prompt,
            "model": self.model,
            "system message": self.system,
            "parameters": params,
            "endpoint": self.endpoint,
            **({"steps": self.steps} if self.steps else {}),
        }
        return {
            name: blake2b(_canonical(value), digest_size=4).hexdigest()
            for name, value in found.items()
        }


class _BatchLine(msgspec.Struct, gc=False):
    custom_id: str
    url: str
    body: dict[str, Any]
    method: str = "POST"


class _MaybeId(msgspec.Struct, gc=False):
    custom_id: Any = None


_decode_line = msgspec.json.Decoder(_BatchLine).decode
_decode_any = msgspec.json.Decoder().decode
_decode_id = msgspec.json.Decoder(_MaybeId).decode


def row_key(row: Row) -> bytes:
    """Return the 16 bytes that stand for what a row asks: its endpoint and body, not its name."""
    body = row.body
    if not _TRANSPORT.isdisjoint(body):
        body = {name: value for name, value in body.items() if name not in _TRANSPORT}
    digest = blake2b(row.url.encode(), digest_size=16)
    digest.update(_canonical(body))
    return digest.digest()


class RowReader:
    """Reads rows out of records.

    Args:
        recipe: how records become requests.
        columns: the header of a table.
        delimiter: between its fields.

    Attributes:
        columns: the header of a table.
        numbered: whether ``id`` does not name rows, as two have the same.

    Raises:
        ConfigurationError: the recipe is contradictory or not enough.
    """

    def __init__(
        self, recipe: Recipe, *, columns: list[str] | None = None, delimiter: str = ","
    ) -> None:
        self._recipe = recipe
        # A text file of prompts needs no template: each line is one.
        prompt = "{text}" if recipe.prompt is None and recipe.format == "lines" else recipe.prompt
        self._template = None if prompt is None else Template(prompt)
        self.numbered = False
        self.columns = columns or []
        self._delimiter = delimiter
        readers: dict[str, Callable[[Piece, int], Row]] = {
            "openai": self._openai,
            "jsonl": self._plain,
            "csv": self._csv,
            "lines": self._line,
            "texts": self._text,
        }
        self._read = readers[recipe.format]
        _check(recipe, self._template, self.columns)

    def read(self, piece: Piece, index: int) -> Row:
        """Return the row.

        Raises:
            RowError: the record is not a request.
        """
        try:
            row = self._read(piece, index)
            body = row.body
            if self._recipe.params:
                body = row.body = {**self._recipe.params, **body}
            if "model" not in body and self._recipe.model is not None:
                body["model"] = self._recipe.model
            _check_body(row)
        except RowError as error:
            # The line in the output has to name the row that failed,
            # even if nothing else of it can be read.
            error.custom_id = _find_id(piece, self._recipe.format)
            raise
        return row

    def fields(self, piece: Piece) -> dict[str, Any]:
        """Return a record's own fields, as far as it can be read; those of a request are none."""
        form, data = self._recipe.format, piece.data
        if data is None or piece.problem is not None or form == "openai":
            return {}
        if form == "jsonl":
            try:
                found = _decode_any(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return {}
            return found if isinstance(found, dict) else {"text": found}
        text = data.decode("utf-8", "replace")
        if form == "csv":
            # A row with too many or too few fields is invalid, and has its error instead.
            return dict(zip(self.columns, split_fields(text, self._delimiter), strict=False))
        return {"text": text, "name": piece.name} if form == "texts" else {"text": text}

    def _openai(self, piece: Piece, index: int) -> Row:
        try:
            line = _decode_line(_data(piece))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _bad_json(piece, error) from None
        if line.method != "POST":
            raise RowError(f'method must be "POST", not {line.method[:20]!r}')
        return Row(index, piece.line, line.custom_id, _endpoint(line.url), line.body)

    def _plain(self, piece: Piece, index: int) -> Row:
        try:
            fields = _decode_any(_data(piece))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _bad_json(piece, error) from None
        if isinstance(fields, str):
            fields = {"text": fields}
        if not isinstance(fields, dict):
            raise RowError("a line must be a JSON object or text")
        if self._template is None:
            return self._request(piece, index, fields)
        return self._filled(piece, index, fields)

    def _request(self, piece: Piece, index: int, fields: dict[str, Any]) -> Row:
        """A line that is the body of a request itself."""
        url = self._recipe.endpoint
        wanted = ENDPOINTS[url]
        if wanted not in fields:
            raise RowError(f'it has no "{wanted}"; give prompt="...{{field}}..." to make requests')
        left_out = {"custom_id", "id", self._recipe.id_column}
        body = {name: value for name, value in fields.items() if name not in left_out}
        return self._named(piece, index, fields, url, body)

    def _named(
        self, piece: Piece, index: int, fields: Mapping[str, Any], url: str, body: dict[str, Any]
    ) -> Row:
        """Make a row, with the id that its fields give it, or its number."""
        own = self._recipe.id_column
        names = (own,) if own is not None else ("custom_id", "id")
        for name in names:
            value = fields.get(name)
            text = value if isinstance(value, str) else ""
            # True and False are integers in Python, but name no row.
            if isinstance(value, int) and not isinstance(value, bool):
                text = str(value)
            # Once two rows have had the same "id", it names none of them.
            if text and not (self.numbered and name == "id" and own is None):
                from_id = name == "id" and own is None
                return Row(index, piece.line, text, url, body, True, from_id)
        if own is not None:
            raise RowError(f"it has no {own!r:.60}, which id_column= names")
        return Row(index, piece.line, f"row-{index + 1}", url, body, False)

    def _csv(self, piece: Piece, index: int) -> Row:
        values = split_fields(_utf8(piece), self._delimiter)
        if len(values) != len(self.columns):
            raise RowError(f"{len(values)} fields, where the header has {len(self.columns)}")
        return self._filled(piece, index, dict(zip(self.columns, values, strict=True)))

    def _line(self, piece: Piece, index: int) -> Row:
        """A line of a text file."""
        return self._filled(piece, index, {"text": _utf8(piece)})

    def _text(self, piece: Piece, index: int) -> Row:
        try:
            # A whole file does not pass through the Splitter, which
            # takes the BOM off the other formats.
            text = _data(piece).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise RowError(f"{piece.name}: not UTF-8: {error.reason}") from None
        if not text.strip():
            raise RowError(f"{piece.name}: the file is empty")
        fields = {"text": text, "name": piece.name, "custom_id": piece.name}
        return self._filled(piece, index, fields)

    def _filled(self, piece: Piece, index: int, fields: Mapping[str, Any]) -> Row:
        assert self._template is not None  # noqa: S101 - _check() saw to it
        recipe = self._recipe
        try:
            prompt = self._template.fill(fields)
        except ValueError as error:
            raise RowError(str(error)) from None
        wanted = ENDPOINTS[recipe.endpoint]
        asked: Any = prompt
        if wanted == "messages":
            asked = [{"role": "user", "content": prompt}]
            if recipe.system is not None:
                asked.insert(0, {"role": "system", "content": recipe.system})
        row = self._named(piece, index, fields, recipe.endpoint, {wanted: asked})
        if recipe.steps:
            row.fields = dict(fields)
        return row


def _check(recipe: Recipe, template: Template | None, columns: list[str]) -> None:
    if recipe.endpoint not in ENDPOINTS:
        raise ConfigurationError(
            f"endpoint must be one of {', '.join(ENDPOINTS)}, not {recipe.endpoint!r:.60}"
        )
    if template is None and recipe.format in {"csv", "texts"}:
        raise ConfigurationError(
            f'a {recipe.format} input needs a prompt such as prompt="Summarise: {{text}}"'
        )
    if template is not None and recipe.format == "openai":
        raise ConfigurationError(
            "the input holds whole requests (OpenAI's batch format): a prompt cannot be applied"
        )
    if template is None and recipe.system is not None:
        raise ConfigurationError("system= goes with prompt=: these rows are whole requests")
    if template is not None and recipe.format == "csv":
        template.check(columns)
    if columns and recipe.id_column is not None and recipe.id_column not in columns:
        raise ConfigurationError(
            f"there is no column {recipe.id_column!r:.60}; the columns are {', '.join(columns)}"
        )


def _data(piece: Piece) -> bytes:
    if piece.problem is not None:
        raise RowError(piece.problem)
    if piece.data is None:
        raise RowError("it is longer than max_line_bytes")
    return piece.data


def _utf8(piece: Piece) -> str:
    try:
        return _data(piece).decode()
    except UnicodeDecodeError as error:
        raise RowError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def _endpoint(url: str) -> str:
    """The endpoint of a URL with or without /v1."""
    full = url if url.startswith("/v1/") else f"/v1{url}"
    if full not in ENDPOINTS:
        raise RowError(f"url must be one of {', '.join(ENDPOINTS)}, not {url[:60]!r}")
    return full


def _check_body(row: Row) -> None:
    body = row.body
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise RowError("no model: neither the row nor model= names one")
    wanted = ENDPOINTS[row.url]
    if not body.get(wanted):
        raise RowError(f'the body has no "{wanted}", which {row.url} needs')


def _bad_json(piece: Piece, error: Exception) -> RowError:
    data = piece.data or _NO_BYTES
    if isinstance(error, msgspec.ValidationError):
        return RowError(str(error))
    if isinstance(error, RecursionError):
        return RowError("nested too deeply")
    if isinstance(error, UnicodeDecodeError) or "utf-8" in str(error).lower():
        return RowError("not UTF-8")
    surrogate = _SURROGATE.search(data)
    if surrogate is not None:
        half = surrogate[0].decode()
        return RowError(f"a lone surrogate ({half}): half of a character that was cut in two")
    for word in (b"NaN", b"Infinity"):
        if word in data:
            return RowError(f"{word.decode()} is not JSON: {error}")
    return RowError(str(error))


def _find_id(piece: Piece, form: Format) -> str | None:
    """The custom_id of an invalid record, if it can be read."""
    if form not in {"openai", "jsonl"} or piece.data is None:
        # The fields of a table cannot be told apart where the record is damaged.
        return piece.name
    try:
        found = _decode_id(piece.data).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, str) else None
