"""Lines of the output: OpenAI's batch result format, and reading them back."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from konko_async import APIError, APIStatusError, KonkoError
from konko_async.batch._rows import Row, row_key

__all__ = [
    "Stored",
    "error_code",
    "failure_line",
    "invalid_line",
    "may_be_torn",
    "read_line",
    "renamed",
    "success_line",
]

# How every line of a row that went well ends; failed rows are found by it without decoding.
WENT_WELL: Final = b'"error":null}'
_NO_KEY: Final = "0" * 32
_ID = re.compile(r"batch_req_([0-9a-f]{32})_(\d{1,10})")
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
_encode = msgspec.json.Encoder().encode


class Stored(msgspec.Struct, gc=False):
    """What a line of the output tells.

    Attributes:
        index: the row's place in the input.
        key: of what it asked, in hexadecimal.
        failed: whether it failed.
        invalid: whether it could not be sent.
        model: that answered.
        prompt_tokens: used; None where the server told none.
        completion_tokens: likewise.
    """

    index: int
    key: str
    failed: bool
    invalid: bool = False
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Line(msgspec.Struct, gc=False):
    id: str
    custom_id: str | None
    response: dict[str, Any] | None
    error: dict[str, Any] | None


_decode = msgspec.json.Decoder(_Line).decode


def success_line(row: Row, completion: Any) -> bytes:
    """Return the line of a row that was answered."""
    body = completion.raw
    if isinstance(body, dict):
        body.pop("_request_id", None)  # of an answer put together from a stream
    request_id = completion.request_id or ""
    return _line(
        f"batch_req_{row_key(row).hex()}_{row.index}",
        row.custom_id,
        {"status_code": 200, "request_id": request_id, "body": body},
        None,
    )


def failure_line(row: Row, error: KonkoError) -> bytes:
    """Return the line of a row that failed: with the server's answer, if it gave one."""
    response = None
    if isinstance(error, APIStatusError):
        response = {
            "status_code": error.status_code,
            "request_id": error.request_id or "",
            "body": error.body,
        }
    told: dict[str, Any] = {"code": error_code(error), "message": error.message}
    told["attempts"] = len(error.attempts)
    if isinstance(error, APIError) and error.partial is not None:
        told["partial"] = msgspec.to_builtins(error.partial)
    return _line(f"batch_req_{row_key(row).hex()}_{row.index}", row.custom_id, response, told)


def invalid_line(index: int, line: int, custom_id: str | None, problem: str) -> bytes:
    """Return the line of a record that could not be sent."""
    told = {"code": "invalid_row", "message": f"line {line}: {problem}"}
    return _line(f"batch_req_{_NO_KEY}_{index}", custom_id, None, told)


def _line(
    name: str, custom_id: str | None, response: dict[str, Any] | None, error: dict[str, Any] | None
) -> bytes:
    line = {"id": name, "custom_id": custom_id, "response": response, "error": error}
    return _encode(line) + b"\n"


def error_code(error: KonkoError) -> str:
    """Return the server's code for an error, or the class's name in OpenAI's spelling."""
    code = getattr(error, "code", None)
    if isinstance(code, str) and code:
        return code
    name = type(error).__name__.removeprefix("API").removesuffix("Error")
    return _WORD.sub("_", name).lower()


def read_line(line: bytes) -> Stored | None:
    """Return what a line of the output tells; None if it is none of ours, or torn."""
    try:
        entry = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    match = _ID.fullmatch(entry.id)
    if match is None:
        return None
    stored = Stored(int(match[2]), match[1], failed=entry.error is not None)
    stored.invalid = match[1] == _NO_KEY
    body = None if entry.response is None else entry.response.get("body")
    if isinstance(body, dict) and not stored.failed:
        model, usage = body.get("model"), body.get("usage")
        stored.model = model if isinstance(model, str) else None
        if isinstance(usage, dict):
            stored.prompt_tokens = _count(usage.get("prompt_tokens"))
            stored.completion_tokens = _count(usage.get("completion_tokens"))
    return stored


def may_be_torn(line: bytes) -> bool:
    """Whether a last line without its end may be the beginning of one of ours."""
    begins = b'{"id":"batch_req_'
    return not line.endswith(b"\n") and begins.startswith(line[: len(begins)])


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def renamed(line: bytes, row: Row) -> bytes:
    """Return a line for the same request at another place in the input, or under another id."""
    entry = _decode(line)
    entry.id = f"batch_req_{row_key(row).hex()}_{row.index}"
    entry.custom_id = row.custom_id
    return _encode(entry) + b"\n"
