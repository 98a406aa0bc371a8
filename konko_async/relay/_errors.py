"""What a browser is told of a failure: enough to act on, nothing that is not its business.

Messages of the model's server are not passed on: they name hosts, keys and organisations.
"""

from __future__ import annotations

import math
import re

import msgspec

from konko_async.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    CircuitOpenError,
    KonkoError,
    NotFoundError,
    RateLimitError,
    RateLimitTimeoutError,
    ResponseDecodeError,
    StreamServerError,
    StreamStalledError,
    StreamTruncatedError,
    UnprocessableEntityError,
)
from konko_async.tools import ToolFailedError, ToolLimitError

__all__ = [
    "PublicError",
    "RefusalError",
    "StoreFullError",
    "StreamLostError",
    "StreamTooLongError",
    "described",
    "public_error",
]

_CODE = re.compile(r"[a-z][a-z_]{0,63}")  # a word of an API, and nothing that could be a secret
_OVERLOADED = (503, 529)
_LONGEST_WAIT = 3600  # seconds


class RefusalError(KonkoError):
    """A request that the relay does not pass on.

    Attributes:
        status: HTTP status.
        type: of the error object.
        param: the field at fault, or None.
        retry_after: seconds, or None.
    """

    status: int
    type: str
    param: str | None
    retry_after: float | None

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.retry_after = retry_after


class StoreFullError(KonkoError):
    """The store takes no more streams now."""


class StreamTooLongError(KonkoError):
    """A stream is longer than its store keeps."""


class StreamLostError(KonkoError):
    """A stream is not there, or whoever wrote it is no more."""


class PublicError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error as browsers see it; encoded, it is the error object.

    Attributes:
        message: one of ours.
        type: one of ours, for programs.
        code: the server's, where it is a plain word, or None.
        param: the field at fault, or None.
        retry_after: seconds to wait, or None.
    """

    message: str
    type: str
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None


_UPSTREAM = (502, "upstream_error", "the model's server failed")
_BY_KIND: tuple[tuple[type[KonkoError], tuple[int, str, str]], ...] = (
    (RateLimitError, (429, "rate_limited", "the model's server is busy; try again later")),
    (APITimeoutError, (504, "timeout", "the model did not answer in time")),
    (StreamStalledError, (504, "timeout", "the model fell silent")),
    (StreamTruncatedError, (502, "stream_truncated", "the answer was cut off")),
    (StreamServerError, _UPSTREAM),
    (APIConnectionError, (502, "upstream_error", "the model's server cannot be reached")),
    (ResponseDecodeError, (502, "upstream_error", "the model's server sent no valid answer")),
    (BadRequestError, (400, "invalid_request_error", "the model's server refused the request")),
    (
        UnprocessableEntityError,
        (400, "invalid_request_error", "the model's server refused the request"),
    ),
    (APIStatusError, _UPSTREAM),
    (ToolLimitError, (502, "tool_limit", "the model called tools without coming to an end")),
    (ToolFailedError, (500, "tool_failed", "a tool failed")),
    (RateLimitTimeoutError, (503, "overloaded", "too many calls are waiting; try again later")),
    (CircuitOpenError, (503, "overloaded", "the model's server is failing; try again later")),
    (StoreFullError, (503, "overloaded", "too many streams are kept; try again later")),
    (StreamTooLongError, (502, "too_long", "the answer is longer than is kept")),
    (StreamLostError, (502, "stream_lost", "the stream is no more")),
)
_NO_MODEL = (502, "model_unavailable", "the model's server does not have this model")
_NO_MODEL_CODES = frozenset({"model_not_found", "model_not_available", "model_not_supported"})
_INTERNAL = (500, "internal_error", "the relay failed")


def described(error: KonkoError) -> tuple[int, PublicError]:
    """Return the HTTP status of a failure and what a browser is told of it.

    Args:
        error: any of ours. Its message, host, headers, body and partial answer stay here.
    """
    if isinstance(error, RefusalError):
        wait = _seconds(error.retry_after)
        return error.status, PublicError(error.message, error.type, None, error.param, wait)
    found = next((told for kind, told in _BY_KIND if isinstance(error, kind)), _INTERNAL)
    code = _word(getattr(error, "code", None))
    wait = getattr(error, "retry_after", None) or getattr(error, "would_have_waited", None)
    if isinstance(error, RateLimitError) and code == "insufficient_quota":
        found = _UPSTREAM  # ours, not the browser's: waiting does not help
    elif isinstance(error, APIStatusError) and _lacks_model(error, code):
        found = _NO_MODEL
    elif isinstance(error, ToolLimitError) and error.limit == "total_timeout":
        found = (504, "timeout", "the answer and its tools took too long")
    elif isinstance(error, APIStatusError) and error.status_code in _OVERLOADED:
        found = (503, "overloaded", "the model's server is overloaded")
    status, kind, message = found
    return status, PublicError(message, kind, code, None, _seconds(wait))


def _lacks_model(error: APIStatusError, code: str | None) -> bool:
    return code in _NO_MODEL_CODES or (isinstance(error, NotFoundError) and error.param == "model")


def public_error(error: KonkoError) -> PublicError:
    """Return what a browser is told of a failure."""
    return described(error)[1]


def _word(code: object) -> str | None:
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def _seconds(wait: float | None) -> float | None:
    if wait is None or not 0 <= wait < math.inf:
        return None
    return round(min(wait, _LONGEST_WAIT), 3)
