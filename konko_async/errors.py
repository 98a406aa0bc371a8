"""Every exception that leaves this package.

::

    KonkoError
    ├─ ConfigurationError             a missing key, a bad option: raised before any I/O
    ├─ APIError                       .message .request_id .attempts .partial
    │  ├─ APIConnectionError          .request_sent
    │  │  └─ APITimeoutError          .phase: connect | first_token | total
    │  ├─ APIStatusError              .status_code .headers .body .code .type .param .retry_after
    │  │  ├─ BadRequestError 400      AuthenticationError 401    PermissionDeniedError 403
    │  │  ├─ NotFoundError 404        ConflictError 409          UnprocessableEntityError 422
    │  │  ├─ RateLimitError 429       InternalServerError ≥500
    │  ├─ ResponseDecodeError         .body: the first bytes; .offset
    │  │  ├─ StructuredOutputError    .completion .reason .path: not what response_format= asked for
    │  │  │  └─ LengthFinishReasonError   ContentFilterFinishReasonError: it ended too early
    │  │  └─ ToolArgumentsError       .name .path: the model called a tool with wrong arguments
    │  └─ StreamError                 .partial
    │     └─ StreamTruncatedError     StreamStalledError     StreamServerError (.code .type)
    ├─ ToolRunError (tools/)          .messages .calls .rounds .usage: run_tools() stopped
    │  ├─ ToolLimitError              .limit: which limit it was
    │  └─ ToolFailedError             .call; the tool's exception is its __cause__
    ├─ RateLimitTimeoutError          .would_have_waited
    ├─ RateLimitStoreError            the store of the shared limits is unavailable
    └─ CircuitOpenError               .retry_after

No exception of aiohttp, tenacity, msgspec or json reaches the caller, and none is chained to one of
these: the ``repr`` of an aiohttp exception shows the Authorization header.
``asyncio.CancelledError`` always passes unchanged.
"""

from __future__ import annotations

import functools
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from konko_async._records import Attempt, HTTPResponse

__all__ = [
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadRequestError",
    "CircuitOpenError",
    "ConfigurationError",
    "ConflictError",
    "ContentFilterFinishReasonError",
    "InternalServerError",
    "KonkoError",
    "LengthFinishReasonError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "RateLimitStoreError",
    "RateLimitTimeoutError",
    "ResponseDecodeError",
    "StreamError",
    "StreamServerError",
    "StreamStalledError",
    "StreamTruncatedError",
    "StructuredOutputError",
    "ToolArgumentsError",
    "UnprocessableEntityError",
]

# The fields of Timeout but for `idle`: silence within a stream is a StreamStalledError, as there
# are tokens to keep in `partial` by then.
Phase = Literal["connect", "first_token", "total"]
Unparsed = Literal["invalid", "length", "refusal", "content_filter", "empty", "tool_calls"]


def _rebuild(cls: type[KonkoError], args: tuple[Any, ...], state: dict[str, Any]) -> KonkoError:
    # Without __init__: most constructors have keywords that are required, and `args` holds only the
    # message.
    error = cls.__new__(cls, *args)
    # TimeoutErrors are OSErrors, whose __new__ leaves `args` empty where a subclass has an __init__
    # of its own.
    error.args = args
    error.__dict__.update(state)
    return error


class KonkoError(Exception):
    """Base of everything that this package raises.

    Attributes:
        message: what went wrong, where, and what to do about it.
        attempts: one record per attempt that was made, oldest first; empty before any I/O.
    """

    message: str
    # Not an argument of the constructors: the telemetry of a call sets it when the error leaves the
    # call (middleware/_telemetry).
    attempts: tuple[Attempt, ...] = ()

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by state: errors cross process borders in batch work."""
        return _rebuild, (type(self), self.args, self.__dict__)


# A ValueError as well, because that is what Python raises for a bad argument.
class ConfigurationError(KonkoError, ValueError):
    """A missing key, a bad option or a bad argument; raised before any request is sent."""


class APIError(KonkoError):
    """Something failed between this process and the server's answer.

    Attributes:
        request_id: the server's ``x-request-id``, if one arrived.
        partial: for streams cut after the first delta, a completion of what had arrived.
        headers: the answer's headers, names in lower case; empty if none arrived.
    """

    request_id: str | None
    partial: Any | None
    # One object for all errors without a response; read-only, so that none can write into the
    # headers of the others.
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self, message: str, *, request_id: str | None = None, partial: Any | None = None
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.partial = partial


class APIConnectionError(APIError):
    """No usable HTTP answer: refused, reset, DNS, TLS, or a broken protocol.

    Attributes:
        request_sent: False when it is certain that no byte of the request reached a server, so
            that it charges no request or token budget.
        retryable: False for failures that a repetition cannot repair, such as a bad certificate.
    """

    request_sent: bool
    retryable: bool

    def __init__(
        self,
        message: str,
        *,
        request_id: str | None = None,
        partial: Any | None = None,
        request_sent: bool = True,
        retryable: bool = True,
    ) -> None:
        super().__init__(message, request_id=request_id, partial=partial)
        self.request_sent = request_sent
        self.retryable = retryable


# A TimeoutError as well: code that also uses asyncio.timeout() has one thing to catch.
class APITimeoutError(APIConnectionError, TimeoutError):
    """A deadline of :class:`~konko_async.Timeout` passed.

    Attributes:
        phase: ``connect`` (DNS, TCP and TLS), ``first_token`` (until the first delta, or the head
            of a whole answer) or ``total`` (the whole call with all its attempts).
    """

    phase: Phase

    def __init__(
        self,
        message: str,
        *,
        phase: Phase,
        request_id: str | None = None,
        partial: Any | None = None,
        request_sent: bool = True,
        retryable: bool | None = None,
    ) -> None:
        # `total` spans all attempts of a call, so no time is left for another one.
        retryable = phase != "total" if retryable is None else retryable
        super().__init__(
            message,
            request_id=request_id,
            partial=partial,
            request_sent=request_sent,
            retryable=retryable,
        )
        self.phase = phase


class APIStatusError(APIError):
    """The server answered with an error status (or named one inside a 200 stream).

    Attributes:
        status_code: the HTTP status.
        headers: the answer's headers, names in lower case.
        body: the body, as decoded JSON or as text; at most 64 KiB of it.
        content: the body's bytes, as much of them.
        code: ``error.code`` of the body, if any.
        type: ``error.type`` of the body, if any.
        param: ``error.param`` of the body, if any.
        retry_after: seconds the server asked to wait, if it did.
    """

    status_code: int
    headers: Mapping[str, str]
    body: Any
    content: bytes = b""
    code: str | None
    type: str | None
    param: str | None
    retry_after: float | None

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        code: str | None = None,
        type: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.status_code = status_code
        self.headers = {} if headers is None else headers
        self.body = body
        self.code = code
        self.type = type
        self.param = param
        self.retry_after = retry_after

    @property
    def response(self) -> HTTPResponse:
        """The HTTP response: status, headers and body."""
        from konko_async._records import HTTPResponse  # noqa: PLC0415 - `--help` needs errors only

        return HTTPResponse(self.status_code, self.headers, self.content)

    @classmethod
    def for_status(cls, status_code: int, message: str, **details: Any) -> APIStatusError:
        """Make the subclass that stands for ``status_code``; ``details`` as in the constructor."""
        kind = _BY_STATUS.get(status_code)
        if kind is None:
            # Gateways answer with codes of their own, such as 529: from 500 on all of them are
            # failures of the server. An unknown 4xx gets no narrower class.
            kind = InternalServerError if status_code >= _FIRST_SERVER_ERROR else APIStatusError
        return kind(message, status_code=status_code, **details)


class BadRequestError(APIStatusError):
    """400: the server does not accept the request."""


class AuthenticationError(APIStatusError):
    """401: the key is missing, wrong or expired."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404: no such model or path."""


class ConflictError(APIStatusError):
    """409: the request collides with another."""


class UnprocessableEntityError(APIStatusError):
    """422: the request is well-formed but does not make sense to the server."""


class RateLimitError(APIStatusError):
    """429: too many requests or tokens, or (``code == "insufficient_quota"``) no credit left."""


class InternalServerError(APIStatusError):
    """500 and above: the server failed."""


_FIRST_SERVER_ERROR = 500
# Below the classes, which it holds; for_status() looks it up when it is called.
_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}


class ResponseDecodeError(APIError):
    """The answer is not the JSON or SSE that was promised.

    Attributes:
        body: the first bytes of what arrived (at most 4 KiB).
        offset: byte offset of the fault in the body, or None where it has no position.
        retryable: True when the body looks cut short, so that a repetition may help.
    """

    body: bytes
    offset: int | None
    retryable: bool

    def __init__(
        self,
        message: str,
        *,
        body: bytes = b"",
        offset: int | None = None,
        # A complete body that does not fit would most likely come again; only one that was cut off
        # is worth a retry.
        retryable: bool = False,
        request_id: str | None = None,
        partial: Any | None = None,
    ) -> None:
        super().__init__(message, request_id=request_id, partial=partial)
        self.body = body
        self.offset = offset
        self.retryable = retryable


class StructuredOutputError(ResponseDecodeError):
    """The answer is not what ``response_format=`` asked for. Nothing is repeated by itself.

    Attributes:
        completion: the whole answer, with ``.parsed`` where other choices fit.
        reason: ``invalid`` (no JSON, or a value that does not fit), ``length`` (cut by max_tokens),
            ``refusal`` (``message.refusal`` says why), ``content_filter``, ``empty``, or
            ``tool_calls`` (``.parsed`` of an answer that calls tools instead).
        path: the value that does not fit, such as ``$.items[2].price``; None if there is no JSON.
        expected: what was expected there, in msgspec's words.
        index: the choice.
    """

    completion: Any
    reason: Unparsed
    path: str | None
    expected: str | None
    index: int

    def __init__(
        self,
        message: str,
        *,
        completion: Any = None,
        reason: Unparsed = "invalid",
        path: str | None = None,
        expected: str | None = None,
        index: int = 0,
        body: bytes = b"",
    ) -> None:
        # getattr, as `completion` may be None, and then there is no request id.
        super().__init__(message, body=body, request_id=getattr(completion, "request_id", None))
        self.completion = completion
        self.reason = reason
        self.path = path
        self.expected = expected
        self.index = index


class _FinishReasonError(StructuredOutputError):
    """An answer that ended before it was complete.

    Where ``openai`` is imported, it is of openai's class of the same name as well, so that code
    that catches that one goes on working.
    """

    says: ClassVar[str]

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Make one that is openai's as well."""
        theirs = getattr(sys.modules.get("openai"), cls.__name__, None)
        if isinstance(theirs, type) and not issubclass(cls, theirs):
            made: type[Self] = _both(cls, theirs)  # type: ignore[arg-type]  # classes can be hashed
            return super().__new__(made)
        return super().__new__(cls)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as this package's class: the other process may not have openai."""
        kind = next(base for base in type(self).__mro__ if base.__module__ == __name__)
        return _rebuild, (kind, self.args, self.__dict__)


class LengthFinishReasonError(_FinishReasonError):
    """The answer was cut by ``max_tokens`` (or the model's own limit) before it was complete."""

    says = "Could not parse response content as the length limit was reached"


class ContentFilterFinishReasonError(_FinishReasonError):
    """The answer was stopped by a content filter."""

    says = "Could not parse response content as the request was rejected by the content filter"


@functools.cache
def _both(ours: type[Any], theirs: type[Any]) -> type[Any]:
    def init(self: Exception, *arguments: Any) -> None:
        Exception.__init__(self, *arguments)

    # Theirs is constructed in another way, and its attributes are among ours.
    plain = type(theirs.__name__, (theirs,), {"__init__": init})
    return type(
        ours.__name__, (ours, plain), {"__doc__": ours.__doc__, "__module__": "konko_async"}
    )


class ToolArgumentsError(ResponseDecodeError):
    """The model called a tool with arguments that it does not take.

    Attributes:
        name: the tool.
        path: the argument that does not fit, such as ``$.days``; None if there is no JSON.
        expected: what was expected there, in msgspec's words.
    """

    name: str
    path: str | None
    expected: str | None

    def __init__(
        self,
        message: str,
        *,
        name: str = "",
        path: str | None = None,
        expected: str | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message, body=body)
        self.name = name
        self.path = path
        self.expected = expected


class StreamError(APIError):
    """A stream failed after it had begun; ``partial`` holds what had arrived."""


class StreamTruncatedError(StreamError):
    """The stream ended without ``[DONE]`` and without a finish_reason."""


class StreamStalledError(StreamError):
    """No token came for longer than ``Timeout.idle`` (comments do not count as tokens)."""


class StreamServerError(StreamError):
    """The server sent an error inside a 200 stream.

    Attributes:
        code: ``error.code`` of the event, if any.
        type: ``error.type`` of the event, if any.
        body: the event's data as decoded JSON, or text.
    """

    code: str | None
    type: str | None
    body: Any

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        type: str | None = None,
        body: Any = None,
        request_id: str | None = None,
        partial: Any | None = None,
    ) -> None:
        super().__init__(message, request_id=request_id, partial=partial)
        self.code = code
        self.type = type
        self.body = body


class RateLimitTimeoutError(KonkoError, TimeoutError):
    """The local limiter could not admit the call before its deadline; nothing was sent.

    Attributes:
        would_have_waited: seconds until the call would have been admitted, as estimated when it
            was refused; ``inf`` if it never would.
    """

    would_have_waited: float

    def __init__(self, message: str, *, would_have_waited: float) -> None:
        super().__init__(message)
        self.would_have_waited = would_have_waited


class RateLimitStoreError(KonkoError):
    """The store of the shared limits is unavailable, and ``on_store_failure`` is ``"closed"``.

    Nothing was sent. Other choices go on without the store; see :class:`~konko_async.RateLimit`.
    """


class CircuitOpenError(KonkoError):
    """The circuit breaker of this origin is open; nothing was sent.

    Attributes:
        retry_after: seconds until the next probe is let through.
    """

    retry_after: float

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after
