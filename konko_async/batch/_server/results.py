"""Reads the files that the server writes for a job, and says what became of each row."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from konko_async import APIStatusError, KonkoError
from konko_async.batch._calls.caller import TypedCompletion, check_answer, read_typed
from konko_async.batch._errors import AnswerError, BatchOutputError
from konko_async.batch._input.row_parser import Row
from konko_async.batch._output.answers import flaws
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.store import lines_from
from konko_async.batch._typed.typed_rows import RowType

__all__ = ["ServerAnswer", "ServerRowError", "UnansweredRowError", "answer_of", "read_results"]

_NAME = re.compile(r"([0-9a-f]{32})-(\d{1,10})")
_OK: Final = 200
_FIRST_ERROR: Final = 300
_SHOWN: Final = 500  # characters of a server's message
_UNANSWERED: Final = frozenset({"batch_expired", "batch_cancelled"})


class UnansweredRowError(KonkoError):
    """The server did not come to this row before the job ended."""


class ServerRowError(KonkoError):
    """The server says that a row failed, without an HTTP status.

    Attributes:
        code: of the error, as the server has it.
    """

    code: str

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class _ServerResponse(msgspec.Struct, gc=False):
    status_code: int = _OK
    request_id: str | None = None
    body: Any = None


class _ServerLine(msgspec.Struct, gc=False):
    custom_id: str
    response: _ServerResponse | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_ServerLine).decode


class ServerAnswer:
    """A body that a job has brought, with what is read of a completion.

    Attributes:
        raw: the body.
        request_id: of the request, as the server has it.
    """

    __slots__ = ("raw", "request_id")

    from_cache = False

    def __init__(self, raw: dict[str, Any], request_id: str | None) -> None:
        self.raw = raw
        self.request_id = request_id

    @property
    def usage(self) -> Any:
        """What it used."""
        return self.raw.get("usage")

    @property
    def choices(self) -> Any:
        """Its choices."""
        return self.raw.get("choices")

    @property
    def data(self) -> Any:
        """Its vectors."""
        return self.raw.get("data")


def read_results(path: str, files: Filesystem) -> Iterator[tuple[str, int, _ServerLine] | None]:
    """Yield for each line the row's key and number, and the line; None for one of no row.

    Raises:
        BatchOutputError: the file cannot be read.
    """
    try:
        descriptor = files.open(path, os.O_RDONLY)
    except OSError as error:
        problem = f"{path} cannot be read: {error.strerror}"
    else:
        try:
            for text in lines_from(descriptor, 0):
                yield _read(text)
        finally:
            os.close(descriptor)
        return
    raise BatchOutputError(problem)


def _read(text: bytes) -> tuple[str, int, _ServerLine] | None:
    try:
        line = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    match = _NAME.fullmatch(line.custom_id)
    return None if match is None else (match[1], int(match[2]), line)


def answer_of(
    row: Row, line: _ServerLine, fail_on: frozenset[str], typed: RowType | None
) -> ServerAnswer | TypedCompletion:
    """Return the answer to a row.

    Raises:
        KonkoError: the row failed; an UnansweredRowError: it was not worked on.
        AnswerError: the answer has no choices, a flaw that ``fail_on`` names, or not the type.
    """
    response = line.response
    if response is None:
        raise _without_response(line.error)
    if not _OK <= response.status_code < _FIRST_ERROR:
        raise _with_status(response)
    if not isinstance(response.body, dict):
        raise AnswerError("the answer has no choices", code="no_choices", retryable=True)
    answer = ServerAnswer(response.body, response.request_id)
    check_answer(answer, flaws(row.url, answer), fail_on)
    if typed is None or not typed.wanted(row.body):
        return answer
    return TypedCompletion(answer, read_typed(typed, answer, retryable=True))


def _without_response(error: Any) -> KonkoError:
    found = error if isinstance(error, dict) else {}
    code = found.get("code")
    message = str(found.get("message") or "the server gave no answer to this row")[:_SHOWN]
    if code in _UNANSWERED or not found:
        return UnansweredRowError(message)
    return ServerRowError(message, code=str(code or "server_row")[:64])


def _with_status(response: _ServerResponse) -> APIStatusError:
    body = response.body
    found = body.get("error") if isinstance(body, dict) else None
    found = found if isinstance(found, dict) else {"message": found or body}
    texts = {name: found[name] for name in ("code", "type", "param") if found.get(name)}
    message = str(found.get("message") or "no reason was given")[:_SHOWN]
    return APIStatusError.for_status(
        response.status_code,
        f"HTTP {response.status_code}: {message}",
        body=body,
        request_id=response.request_id,
        **{name: str(text) for name, text in texts.items()},
    )
