"""What a table says of an answer: a line of the run's output as columns. No I/O."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any, Final

import msgspec

__all__ = [
    "COLUMNS",
    "column_type",
    "default_columns",
    "read_answer",
    "renamed_columns",
    "row_of_line",
]

COLUMNS: Final[dict[str, str]] = {
    "custom_id": "string",
    "answer": "string",
    "error": "string",
    "finish_reason": "string",
    "model": "string",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "request_id": "string",
    "response": "string",
    "embedding": "embedding",
    "value": "string",
    "steps": "string",
}
"""The columns of an answer, each with the type that it has in Parquet and Arrow."""

_OURS: Final = "konko_"
_VALUE: Final = "value."  # before the name of a field of a typed answer
_INT64: Final = range(-(2**63), 2**63)
_NAME: Final = 50  # where the row's number begins: {"id":"batch_req_<32 digits>_<number>"


class _AnsweredMessage(msgspec.Struct, gc=False):
    content: Any = None


class _AnsweredChoice(msgspec.Struct, gc=False):
    message: _AnsweredMessage | None = None
    text: str | None = None
    finish_reason: Any = None


class _Item(msgspec.Struct, gc=False):
    embedding: Any = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Any = None
    completion_tokens: Any = None


class _Body(msgspec.Struct, gc=False):
    model: Any = None
    choices: list[_AnsweredChoice] | None = None
    data: list[_Item] | None = None
    usage: _Usage | None = None


class _AnsweredResponse(msgspec.Struct, gc=False):
    body: msgspec.Raw = msgspec.Raw(b"null")
    request_id: Any = None


class _Line(msgspec.Struct, gc=False):
    custom_id: str | None = None
    response: _AnsweredResponse | None = None
    error: dict[str, Any] | None = None
    value: Any = None
    steps: Any = None


_read: Final = msgspec.json.Decoder(_Line).decode
_read_body: Final = msgspec.json.Decoder(_Body).decode


def renamed_columns(own: Collection[str]) -> dict[str, str]:
    """Return other names for columns of the answer whose names the rows have taken."""
    return {name: f"{_OURS}{name}" for name in COLUMNS if name in own and name != "custom_id"}


def column_type(name: str) -> str | None:
    """Return the type of a column of the answer, also under its other name; None: it is none."""
    if name.startswith(_VALUE):
        return "string"
    return COLUMNS.get(name.removeprefix(_OURS))


def default_columns(own: Collection[str], *, embeddings: bool) -> list[str]:
    """Return the columns of a table that names none: the row's own, then those of the answer."""
    said = "embedding" if embeddings else "answer"
    names = ["custom_id", said, "error", "finish_reason", "prompt_tokens", "completion_tokens"]
    renamed = renamed_columns(own)
    ours = (renamed.get(name, name) for name in names)
    return [*own, *(name for name in ours if name not in own)]


def row_of_line(line: bytes) -> int:
    """Return the number of the row that a line of the output is of."""
    return int(line[_NAME : line.index(b'"', _NAME)])


def read_answer(line: bytes) -> dict[str, Any]:
    """Return the columns of a line, but for those that are null."""
    entry = _read(line)
    found: dict[str, Any] = {"custom_id": entry.custom_id}
    if entry.error is not None:
        code, message = entry.error.get("code"), entry.error.get("message")
        found["error"] = f"{code}: {message}"
    response = entry.response
    if response is None:
        return found
    found["request_id"] = _text(response.request_id)
    body = bytes(response.body)
    found["response"] = body.decode()
    _read_value(entry, found)
    if entry.error is None:
        # What is of an unusual form is in the column "response" as it came.
        with contextlib.suppress(msgspec.ValidationError):
            _read_success(_read_body(body), found)
    return found


def _read_value(entry: _Line, found: dict[str, Any]) -> None:
    """Add the value of a typed answer, as a whole and by its fields; and the results of steps."""
    for name in ("value", "steps"):
        whole = getattr(entry, name)
        if whole is not None:
            found[name] = _text(whole)
    if isinstance(entry.value, dict):
        for name, part in entry.value.items():
            if isinstance(part, float) and part.is_integer():
                part = int(part)  # noqa: PLW2901 - 2.0 is an integer in JSON Schema
            # Larger numbers stand in the column "value" alone: no table has a type for them.
            if not isinstance(part, int) or part in _INT64:
                found[f"{_VALUE}{name}"] = part


def _read_success(body: _Body, found: dict[str, Any]) -> None:
    found["model"] = _text(body.model)
    if body.choices:
        choice = body.choices[0]
        content = choice.text if choice.message is None else choice.message.content
        found["answer"] = _text(content)
        found["finish_reason"] = _text(choice.finish_reason)
    if body.data and isinstance(body.data[0].embedding, list):
        found["embedding"] = body.data[0].embedding
    if body.usage is not None:
        for name in ("prompt_tokens", "completion_tokens"):
            value = getattr(body.usage, name)
            found[name] = value if isinstance(value, int) else None


def _text(value: Any) -> str | None:
    """Return a text; of what is none, its JSON."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
