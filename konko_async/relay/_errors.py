"""Maps failures to the status and the error object that a browser gets.

Messages of the model's server are not passed on: they name hosts, keys and organisations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

from konko_async.errors import APIError, KonkoError, StreamStalledError, StreamTruncatedError
from konko_async.middleware import classify
from konko_async.tools import ToolFailedError, ToolLimitError

__all__ = [
    "PublicError",
    "RefusalError",
    "StoreFullError",
    "StoreUnavailableError",
    "StreamLostError",
    "StreamTooLongError",
    "described",
    "public_error",
]

_CODE = re.compile(r"[a-z][a-z_]{0,63}")  # a word of an API, and nothing that could be a secret
_LONGEST_WAIT = 3600  # seconds; a server's longer Retry-After is cut to this


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


class StoreUnavailableError(KonkoError):
    """The store of streams cannot be reached, or fails.

    Attributes:
        retry_after: seconds; until then it may be back.
    """

    retry_after = 5.0


class StreamTooLongError(KonkoError):
    """A stream is longer than its store keeps."""


class StreamLostError(KonkoError):
    """A stream does not exist, or its writer died."""


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


_Described = tuple[int, str, str]
_UPSTREAM: _Described = (502, "upstream_error", "the model's server failed")
_INTERNAL: _Described = (500, "internal_error", "the relay failed")

# Failures of this side, and of streams; all others are looked up by what they mean.
_BY_TYPE: tuple[tuple[type[KonkoError], _Described], ...] = (
    (StreamStalledError, (504, "timeout", "the model fell silent")),
    (StreamTruncatedError, (502, "stream_truncated", "the answer was cut off")),
    (ToolLimitError, (502, "tool_limit", "the model called tools without coming to an end")),
    (ToolFailedError, (500, "tool_failed", "a tool failed")),
    (StoreFullError, (503, "overloaded", "too many streams are kept; try again later")),
    (
        StoreUnavailableError,
        (503, "overloaded", "streams cannot be kept at the moment; try again later"),
    ),
    (StreamTooLongError, (502, "too_long", "the answer is longer than is kept")),
    (StreamLostError, (502, "stream_lost", "the stream is no more")),
)
_BY_KIND: Mapping[str, _Described] = {
    "connection": (502, "upstream_error", "the model's server cannot be reached"),
    "timeout": (504, "timeout", "the model did not answer in time"),
    "deadline": (504, "timeout", "the model did not answer in time"),
    "cut_off": (502, "stream_truncated", "the answer was cut off"),
    "unreadable": (502, "upstream_error", "the model's server sent no valid answer"),
    "circuit_open": (503, "overloaded", "the model's server is failing; try again later"),
    "local_limit": (503, "overloaded", "too many calls are waiting; try again later"),
    "rate_limit": (429, "rate_limited", "the model's server is busy; try again later"),
    "overloaded": (503, "overloaded", "the model's server is overloaded"),
    "missing_model": (
        502,
        "model_unavailable",
        "the model's server does not have this model",
    ),
    "too_long": (400, "invalid_request_error", "the model's server refused the request"),
    "refused": (400, "invalid_request_error", "the model's server refused the request"),
    "invalid_request": (400, "invalid_request_error", "the model's server refused the request"),
}
# Of the relay's own account: waiting does not help, and pages can say so whatever the server sent.
_OUR_ACCOUNT: Mapping[str, str] = {
    "out_of_credit": "insufficient_quota",
    "authentication": "invalid_api_key",
}


def described(error: KonkoError) -> tuple[int, PublicError]:
    """Return the HTTP status and the error object for a failure.

    Args:
        error: any of ours. Its message, host, headers, body and partial answer stay here.
    """
    if isinstance(error, RefusalError):
        wait = _seconds(error.retry_after)
        return error.status, PublicError(error.message, error.type, None, error.param, wait)
    kind: str = classify(error).kind
    if kind == "not_found" and getattr(error, "param", None) == "model":
        kind = "missing_model"  # OpenAI's way to say it: the path is right
    code = _word(getattr(error, "code", None))
    # The second is of calls that this side's limits turned away.
    wait = getattr(error, "retry_after", None) or getattr(error, "would_have_waited", None)
    found = next((told for known, told in _BY_TYPE if isinstance(error, known)), None)
    if isinstance(error, ToolLimitError) and error.limit == "total_timeout":
        found = (504, "timeout", "the answer and its tools took too long")
    elif found is None:
        found = _BY_KIND.get(kind, _UPSTREAM if isinstance(error, APIError) else _INTERNAL)
    if kind in _OUR_ACCOUNT:
        # No Retry-After: clients would retry what only the operator can repair.
        code, wait = code or _OUR_ACCOUNT[kind], None
    status, type_, message = found
    return status, PublicError(message, type_, code, None, _seconds(wait))


def public_error(error: KonkoError) -> PublicError:
    """Return the error object for a failure."""
    return described(error)[1]


def _word(code: object) -> str | None:
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def _seconds(wait: float | None) -> float | None:
    if wait is None or not 0 <= wait < math.inf:
        return None
    return round(min(wait, _LONGEST_WAIT), 3)
