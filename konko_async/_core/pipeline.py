"""The path of a call: frozen requests go in through the middleware, responses come back.

Outermost first: telemetry, fallbacks, the user's middleware, answer cache, retry, hedging, the
user's ``per_attempt`` middleware, circuit breaker, limits (rate and concurrency, admitted in one
step), transport.
One signal returns through the :class:`Response`: :meth:`Response.finish` is called when the answer
has been read or given up, and runs the :meth:`Response.on_close` callbacks exactly once.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import msgspec

from konko_async.errors import ConfigurationError

if TYPE_CHECKING:
    from konko_async._core.policies import Priority, Timeout
    from konko_async._records import Attempt
    from konko_async.wire import Usage

__all__ = [
    "AttemptTimes",
    "Call",
    "Handler",
    "Instrumentation",
    "Middleware",
    "Operation",
    "Request",
    "Response",
    "Target",
    "Upload",
    "compose",
    "direct",
    "per_attempt",
]


class Upload(Protocol):
    """A body that is read while it is sent, anew for each attempt."""

    content_type: str
    length: int

    def chunks(self) -> AsyncIterator[bytes]:
        """Read it from its beginning."""


class Operation(Protocol):
    """An endpoint: how its request is encoded and its answer read."""

    name: str
    method: str

    def encode(self, params: Any) -> bytes | Upload | None:
        """Return the body for ``params``."""

    def sink(self, params: Any) -> Any:
        """Return what takes a whole answer's parts as they come: a list, or a file's writer.

        Raises:
            OSError: the file cannot be opened.
        """

    def decode(self, body: bytes, answer: Any, params: Any = None) -> Any:
        """Return the struct of a whole answer to these parameters; raises ResponseDecodeError."""

    def open_stream(
        self, request: Request, answer: Any, response: Response, first_token_due: float | None
    ) -> Any:
        """Return the reader of a streamed answer, which ends ``response``."""


class Target(Protocol):
    """Another server or key that a request goes to; a ``Fallback`` is one."""

    @property
    def base_url(self) -> str | None:
        """Such as ``https://api.example.com/v1``; None for the client's own."""

    @property
    def api_key(self) -> Any:
        """A ``Secret``, or None."""


class NamedServer(Protocol):
    """One of several endpoints of a client."""

    @property
    def name(self) -> str:
        """By which records know it."""

    @property
    def base_url(self) -> str:
        """Where it is."""


class Call(msgspec.Struct, eq=False):
    """What one call shares over its attempts; changed only on the loop that runs it.

    Attributes:
        started: ``loop.time()`` at which the call began.
        deadline: ``loop.time()`` at which ``Timeout.total`` ends it, or None.
        loop: that runs it. To ask for the running loop is a call of the kernel on Python 3.11.
        attempts: the history so far.
        queued: seconds spent waiting for limits, over all attempts.
        waiting: how many of its attempts wait for limits now.
        doing: what the call is waiting for, in words, for the note on a cancellation.
        open_responses: streams that were opened and have not been handed on yet.
        tried: the endpoints that its attempts went to; only where there are several.
        affinity: the id of what it belongs to, such as a conversation, or None; also only there.
    """

    # A struct, as making one in C costs a tenth of doing so in Python; so are those below.
    started: float
    deadline: float | None
    loop: asyncio.AbstractEventLoop
    attempts: list[Attempt] = []
    queued: float = 0.0
    waiting: int = 0
    doing: str = "starting"
    open_responses: list[Response] = []
    tried: tuple[object, ...] = ()
    affinity: str | None = None

    def hand_on(self, kept: Response | None) -> None:
        """Close what middleware lost on its way: only what the caller gets holds a connection.

        Args:
            kept: the response that the caller gets; None if the call failed.
        """
        # Middleware may drop a response (a retry of its own, an exception after call_next) and know
        # nothing of connections.
        lost = [response for response in self.open_responses if response is not kept]
        self.open_responses.clear()
        for response in lost:
            response.close()


class AttemptTimes(msgspec.Struct, eq=False):
    """What one attempt has waited for; filled in while it is made, and read when it has ended.

    It stands beside the request, which never changes, and copies of a request share it.

    Attributes:
        queued: seconds that it waited for the limits.
        connect: seconds that making a new connection took, its wait for a slot included, or None
            for a pooled one.
        endpoint: what it goes to, where there are several endpoints; else None.
    """

    queued: float = 0.0
    connect: float | None = None
    endpoint: NamedServer | None = None


class Request(msgspec.Struct, eq=False):
    """One attempt's request; never changed, only copied by :meth:`replace`.

    Attributes:
        operation: the endpoint.
        path: below the base URL, such as ``/chat/completions``.
        params: the wire struct (or dict, where ``extra_body`` was given) that becomes the body.
        model: the model's id, or None where the endpoint has none.
        stream: whether the answer is to be streamed.
        headers: further headers of this request.
        query: further query parameters.
        timeout: the deadlines.
        priority: ``interactive`` or ``batch``.
        call: what the attempts share.
        content: the body; by default ``params``, encoded once for all attempts.
        attempt: number of this attempt, from 1.
        hedge: whether it runs beside another attempt that is slow.
        times: what the attempt waits for, as far as known.
        target: another origin and key to send to (a ``Fallback``), or None for the client's own.
    """

    operation: Operation
    path: str
    params: Any
    model: str | None
    stream: bool
    headers: Mapping[str, str]
    query: Mapping[str, str] | None
    timeout: Timeout
    priority: Priority
    call: Call
    content: bytes | Upload | None = None
    attempt: int = 1
    hedge: bool = False
    times: AttemptTimes = msgspec.field(default_factory=AttemptTimes)
    target: Target | None = None

    def __post_init__(self) -> None:
        # Here, so that all attempts of a call share one encoding of the body.
        if self.content is None:
            self.content = self.operation.encode(self.params)

    @property
    def queued(self) -> float:
        """Seconds that this attempt has waited for the limits."""
        return self.times.queued

    @property
    def connect(self) -> float | None:
        """Seconds that making a new connection took; None for a pooled one."""
        return self.times.connect

    def replace(self, **changes: Any) -> Request:
        """Return a copy with these attributes changed; new ``params`` are encoded anew.

        Raises:
            TypeError: there is no such attribute.
        """
        params = changes.get("params", self.params)
        if params is not self.params and changes.get("content") is None:
            # Not left to __post_init__, which msgspec calls for copies only from 0.21 on.
            changes["content"] = self.operation.encode(params)
        return msgspec.structs.replace(self, **changes)

    def __repr__(self) -> str:
        return (
            f"<Request {self.operation.method} {self.path} model={self.model!r} "
            f"attempt={self.attempt}>"
        )


class Response(msgspec.Struct, eq=False):
    """An answer: whole (``result``) or open (``stream``), and what is to happen when it ends.

    Attributes:
        status: HTTP status, 200 to 299.
        headers: the answer's headers, case-insensitive.
        request_id: ``x-request-id``.
        base_url: where it came from, as records show it; None until its attempt is recorded.
        result: the decoded struct of a whole answer, or None.
        stream: the opened stream, its first delta already there, or None.
        usage: tokens used, once known.
        first_token_at: ``loop.time()`` of the first delta (or of the whole answer).
        closed: whether it has ended, in any way.
        outcome: how: ``ok``, ``error``, ``cancelled`` or ``closed``.
        error_type: name of the exception class that ended an open stream, or None.
        cached: whether it came from the answer cache, and not from a server.
    """

    status: int
    headers: Mapping[str, str]
    request_id: str | None = None
    base_url: str | None = None
    result: Any = None
    stream: Any = None
    usage: Usage | None = None
    first_token_at: float | None = None
    cached: bool = False
    closed: bool = False
    outcome: str = "ok"
    error_type: str | None = None
    _callbacks: list[Callable[[Response], object]] = []

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.outcome if self.closed else 'open'}>"

    @property
    def model(self) -> str | None:
        """The model that answered, if known."""
        result = self.result if self.stream is None else self.stream.accumulated
        return getattr(result, "model", None) or None

    def on_close(self, callback: Callable[[Response], object]) -> None:
        """Call ``callback(response)`` when the answer ends; at once if it has ended."""
        if self.closed:
            callback(self)
        else:
            self._callbacks.append(callback)

    def finish(
        self, outcome: str = "ok", usage: Usage | None = None, error_type: str | None = None
    ) -> None:
        """Mark the end and run the callbacks, once.

        Args:
            outcome: ``ok``, ``error``, ``cancelled`` or ``closed``.
            usage: tokens used, if known.
            error_type: name of the class of the error that ended it, if one did.
        """
        if self.closed:
            return
        self.closed = True
        self.outcome = outcome
        self.error_type = error_type
        if usage is not None:
            self.usage = usage
        # Taken out first: a callback that closes the response again must not run the others twice.
        callbacks, self._callbacks = self._callbacks, []
        for callback in reversed(callbacks):  # innermost layers let go first
            callback(self)

    def close(self) -> None:
        """Give the answer up: the connection and every permit are free afterwards; idempotent."""
        # The stream first: its end calls finish() with what it knows of usage; the call below is
        # for responses without one.
        if self.stream is not None:
            self.stream.close()
        self.finish("closed")

    async def aclose(self) -> None:
        """Do what :meth:`close` does."""
        self.close()


Handler = Callable[[Request], Awaitable[Response]]
C = TypeVar("C", bound=Callable[..., Any])


@runtime_checkable
class Middleware(Protocol):
    """A layer around calls; a plain function with this signature works too."""

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Handle ``request``, usually by ``return await call_next(request)``."""


@runtime_checkable
class Instrumentation(Middleware, Protocol):
    """A middleware that sees whole calls and each of their attempts.

    It stands outermost, outside fallbacks too.
    """

    def layers(self, base_url: str) -> tuple[Middleware, Middleware | None]:
        """Return what goes around each call, and what goes around each attempt, if anything does.

        Args:
            base_url: where requests of this client go that have no target of their own.
        """


class _PerAttempt:
    """Marks a middleware that belongs inside retry."""

    __slots__ = ("middleware",)

    def __init__(self, middleware: Middleware) -> None:
        self.middleware = middleware


def per_attempt(middleware: Middleware) -> Middleware:
    """Put a middleware inside retry, so that it sees every attempt, hedges included.

    Args:
        middleware: an object or function ``async (request, call_next) -> response``.

    Returns:
        A marker to be put in ``AsyncKonko(middleware=[...])``.

    Raises:
        ConfigurationError: it is not a middleware.
    """
    check_middleware(middleware)
    return _PerAttempt(middleware)  # type: ignore[return-value]  # taken apart by split()


def check_middleware(middleware: Any) -> None:
    """Reject what cannot be a middleware when the client is made, not at its first call.

    Raises:
        ConfigurationError: not callable with (request, call_next), or not async.
    """
    name = getattr(middleware, "__name__", type(middleware).__name__)
    if not callable(middleware) or inspect.isclass(middleware):
        raise ConfigurationError(f"middleware {name} is not callable; pass an instance or function")
    # A partial or an object may return an awaitable without being marked as a coroutine function.
    if inspect.isroutine(middleware) and not inspect.iscoroutinefunction(middleware):
        raise ConfigurationError(
            f"middleware {name} must be 'async def (request, call_next)', awaiting call_next"
        )
    try:
        # A wrong signature would otherwise fail at the first call, far from where the client was
        # made.
        inspect.signature(middleware).bind(None, None)
    except TypeError:
        raise ConfigurationError(
            f"middleware {name} must take two arguments, (request, call_next)"
        ) from None


def split(
    middleware: Sequence[Middleware], base_url: str
) -> tuple[list[Middleware], list[Middleware], list[Middleware]]:
    """Check the user's middleware and part it: (around all, outside retry, inside retry)."""
    around: list[Middleware] = []
    attempts: list[Middleware] = []
    outer: list[Middleware] = []
    inner: list[Middleware] = []
    for item in middleware:
        if isinstance(item, _PerAttempt):
            inner.append(item.middleware)
            continue
        check_middleware(item)
        if isinstance(item, Instrumentation):
            call, attempt = item.layers(base_url)
            around.append(call)
            attempts += [attempt] if attempt is not None else []
        else:
            outer.append(item)
    return around, outer, attempts + inner


def direct(call: C) -> C:
    """Return what a call of ``call`` ends in: an object's method, so that it is looked up once."""
    if inspect.isroutine(call):
        return call
    method: C = call.__call__  # type: ignore[operator]  # mypy takes it for a function
    return method


def compose(layers: Sequence[Middleware], innermost: Handler) -> Handler:
    """Fold layers, outermost first, around ``innermost``; done once per client."""
    handler = direct(innermost)
    for layer in reversed(layers):
        handler = _bind(layer, handler)
    return handler


def _bind(layer: Middleware, call_next: Handler) -> Handler:
    call = direct(layer)

    # Not a coroutine function of its own: each layer costs one frame per call, not two.
    def handle(request: Request) -> Awaitable[Response]:
        return call(request, call_next)

    return handle


def remaining(call: Call) -> float | None:
    """Seconds until the call's total deadline, or None if it has none."""
    if call.deadline is None:
        return None
    return call.deadline - call.loop.time()
