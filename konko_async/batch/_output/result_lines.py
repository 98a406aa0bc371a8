"""Lines of the output: OpenAI's batch result format, and reading them back."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from konko_async import APIError, APIStatusError, KonkoError
from konko_async.batch._errors import AnswerError
from konko_async.batch._input.row_parser import Row, row_key
from konko_async.batch._output.answers import Used, flaws, read_usage
from konko_async.batch._typed.asked import read_asked

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
# An invalid record asks nothing that a key could stand for.
_NO_KEY: Final = "0" * 32
# Ten digits, as row numbers have 32 bits.
_ID = re.compile(r"batch_req_([0-9a-f]{32})_(\d{1,10})")
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")
_encode = msgspec.json.Encoder().encode


class Stored(msgspec.Struct, gc=False):
    """What a line of the output says.

    Attributes:
        index: the row's place in the input.
        key: of what it asked, in hexadecimal.
        failed: whether it failed.
        invalid: whether it could not be sent.
        model: that answered.
        used: by its answer.
    """

    index: int
    key: str
    failed: bool
    invalid: bool = False
    model: str | None = None
    used: Used = msgspec.field(default_factory=Used)


class _ResultLine(msgspec.Struct, gc=False):
    id: str
    custom_id: str | None
    response: dict[str, Any] | None
    value: Any = msgspec.UNSET
    steps: Any = msgspec.UNSET
    error: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_ResultLine).decode


def success_line(
    row: Row,
    completion: Any,
    more: dict[str, Any] | None = None,
    asked: dict[str, int] | None = None,
    *,
    from_cache: bool = False,
) -> tuple[bytes, Any]:
    """Return the line of a row that was answered, and the ``usage`` in it.

    Args:
        row: that was answered.
        completion: the answer.
        more: further fields of the line.
        asked: what answers before this one used: of steps, or that did not fit.
        from_cache: whether the answer came from the answer cache.
    """
    # What the server sent, with fields that this client has no name for.
    body = completion.raw
    if isinstance(body, dict):
        body.pop("_request_id", None)  # of an answer put together from a stream
    request_id = completion.request_id or ""
    response = {"status_code": 200, "request_id": request_id, "body": body}
    if from_cache:
        # In the line, as the costs of lines behind the last checkpoint are worked out again.
        response["from_cache"] = True
    if asked is not None:
        response["before"] = asked
    line = _line(
        f"batch_req_{row_key(row).hex()}_{row.index}",
        row.custom_id,
        response,
        None,
        more,
    )
    return line, body.get("usage") if isinstance(body, dict) else None


def failure_line(row: Row, error: KonkoError) -> bytes:
    """Return the line of a row that failed: with the server's answer, if it gave one."""
    response = None
    if isinstance(error, APIStatusError):
        response = {
            "status_code": error.status_code,
            "request_id": error.request_id or "",
            "body": error.body,
        }
    elif isinstance(error, AnswerError):
        response = {"status_code": 200, "request_id": error.request_id or "", "body": error.body}
    details: dict[str, Any] = {"code": error_code(error), "message": error.message}
    details["attempts"] = len(error.attempts)
    if isinstance(error, APIError) and error.partial is not None:
        details["partial"] = msgspec.to_builtins(error.partial)
    return _line(f"batch_req_{row_key(row).hex()}_{row.index}", row.custom_id, response, details)


def invalid_line(index: int, line: int, custom_id: str | None, problem: str) -> bytes:
    """Return the line of a record that could not be sent."""
    details = {"code": "invalid_row", "message": f"line {line}: {problem}"}
    return _line(f"batch_req_{_NO_KEY}_{index}", custom_id, None, details)


def _line(
    name: str,
    custom_id: str | None,
    response: dict[str, Any] | None,
    error: dict[str, Any] | None,
    more: dict[str, Any] | None = None,
) -> bytes:
    # ``error`` has to come last: WENT_WELL is how a line ends.
    line: dict[str, Any] = {"id": name, "custom_id": custom_id, "response": response}
    if more:
        line |= more
    line["error"] = error
    return _encode(line) + b"\n"


def error_code(error: KonkoError) -> str:
    """Return the server's code for an error, or the class's name in OpenAI's spelling."""
    code = getattr(error, "code", None)
    if isinstance(code, str) and code:
        return code
    name = type(error).__name__.removeprefix("API").removesuffix("Error")
    return _WORD.sub("_", name).lower()


def read_line(line: bytes) -> Stored | None:
    """Return what a line of the output says; None if no batch wrote it, or it is torn."""
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
    if isinstance(body, dict) and entry.response is not None:
        model, usage = body.get("model"), body.get("usage")
        stored.model = model if isinstance(model, str) else None
        # The endpoint is not in the line; embeddings are recognised by their ``data``.
        url = "/v1/embeddings" if "data" in body else ""
        found = () if stored.failed else flaws(url, body)
        cached = entry.response.get("from_cache") is True
        known = usage if isinstance(usage, dict) else None
        stored.used = read_usage(known, found, from_cache=cached)
        read_asked(entry.response, stored.used)
    return stored


def may_be_torn(line: bytes) -> bool:
    """Whether a last line without its end may be the beginning of one of ours."""
    begins = b'{"id":"batch_req_'
    return not line.endswith(b"\n") and begins.startswith(line[: len(begins)])


def renamed(line: bytes, row: Row) -> bytes:
    """Return a line for the same request at another place in the input, or under another id."""
    entry = _decode(line)
    entry.id = f"batch_req_{row_key(row).hex()}_{row.index}"
    entry.custom_id = row.custom_id
    # _ResultLine has the fields in the order of _line(), so that WENT_WELL still fits.
    return _encode(entry) + b"\n"
