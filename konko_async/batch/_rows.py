"""Records to rows: what is asked of which endpoint, under which id."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, Literal

import msgspec

from konko_async import ConfigurationError
from konko_async.batch._splitter import Piece
from konko_async.batch._template import Template

__all__ = ["ENDPOINTS", "Format", "Recipe", "Row", "RowError", "RowReader", "row_key"]

Format = Literal["openai", "jsonl", "csv", "texts"]

ENDPOINTS: Final = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt",
    "/v1/embeddings": "input",
}
_NO_BYTES = b""
_canonical = msgspec.json.Encoder(order="sorted").encode


class RowError(ValueError):
    """A record that is no row; its text says why, its ``custom_id`` whose it would have been."""

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
    """

    index: int
    line: int
    custom_id: str
    url: str
    body: dict[str, Any]
    named: bool = True


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How records become requests; part of what a resumed run must not change unnoticed.

    Attributes:
        format: of the input.
        prompt: template of the user's message (or prompt, or input) for rows that are not requests.
        model: for rows that name none.
        system: a system message before it.
        params: further parameters, for rows that do not set them.
        endpoint: that rows go to which name none.
    """

    format: Format
    prompt: str | None = None
    model: str | None = None
    system: str | None = None
    params: dict[str, Any] = {}
    endpoint: str = "/v1/chat/completions"

    def digest(self) -> bytes:
        """Return what tells this recipe from others."""
        return _canonical(self)


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
    digest = blake2b(row.url.encode(), digest_size=16)
    digest.update(_canonical(row.body))
    return digest.digest()


class RowReader:
    """Reads rows out of records.

    Args:
        recipe: how.
        columns: the header of a CSV file.
        delimiter: between its fields.

    Raises:
        ConfigurationError: the recipe is contradictory or not enough.
    """

    def __init__(
        self, recipe: Recipe, *, columns: list[str] | None = None, delimiter: str = ","
    ) -> None:
        self._recipe = recipe
        self._template = None if recipe.prompt is None else Template(recipe.prompt)
        self._columns = columns or []
        self._delimiter = delimiter
        readers: dict[str, Callable[[Piece, int], Row]] = {
            "openai": self._openai,
            "jsonl": self._plain,
            "csv": self._csv,
            "texts": self._text,
        }
        self._read = readers[recipe.format]
        _check(recipe, self._template, self._columns)

    def read(self, piece: Piece, index: int) -> Row:
        """Return the row.

        Raises:
            RowError: it is none.
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
            error.custom_id = _find_id(piece, self._recipe.format)
            raise
        return row

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
        named, custom_id = _name(fields, index)
        body = {name: value for name, value in fields.items() if name not in {"custom_id", "id"}}
        return Row(index, piece.line, custom_id, url, body, named)

    def _csv(self, piece: Piece, index: int) -> Row:
        try:
            text = _data(piece).decode()
        except UnicodeDecodeError as error:
            raise RowError(f"not UTF-8: {error.reason} at byte {error.start}") from None
        try:
            values = next(csv.reader([text], delimiter=self._delimiter, strict=True))
        except (csv.Error, StopIteration) as error:
            raise RowError(f"not CSV: {error}") from None
        if len(values) != len(self._columns):
            raise RowError(f"{len(values)} fields, where the header has {len(self._columns)}")
        return self._filled(piece, index, dict(zip(self._columns, values, strict=True)))

    def _text(self, piece: Piece, index: int) -> Row:
        try:
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
        named, custom_id = _name(fields, index)
        return Row(index, piece.line, custom_id, recipe.endpoint, {wanted: asked}, named)


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
        for name in template.names:
            if name not in columns:
                raise ConfigurationError(
                    f"the prompt asks for {{{name}}}; the columns are {', '.join(columns)}"
                )


def _data(piece: Piece) -> bytes:
    if piece.data is None:
        raise RowError("it is longer than max_line_bytes")
    return piece.data


def _endpoint(url: str) -> str:
    """The endpoint of a URL with or without /v1."""
    full = url if url.startswith("/v1/") else f"/v1{url}"
    if full not in ENDPOINTS:
        raise RowError(f"url must be one of {', '.join(ENDPOINTS)}, not {url[:60]!r}")
    return full


def _name(fields: Mapping[str, Any], index: int) -> tuple[bool, str]:
    """Whether the row brings its id, and the id."""
    for field in ("custom_id", "id"):
        value = fields.get(field)
        if isinstance(value, str) and value:
            return True, value
        if isinstance(value, int) and not isinstance(value, bool):
            return True, str(value)
    return False, f"row-{index + 1}"


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
    for word in (b"NaN", b"Infinity"):
        if word in data:
            return RowError(f"{word.decode()} is not JSON: {error}")
    return RowError(str(error))


def _find_id(piece: Piece, form: Format) -> str | None:
    """The custom_id of a record that is no row, if it can be made out."""
    if form not in {"openai", "jsonl"} or piece.data is None:
        return piece.name
    try:
        found = _decode_id(piece.data).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, str) else None
