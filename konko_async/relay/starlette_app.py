"""The relay in Starlette and FastAPI (extra ``starlette``)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl

from konko_async import AsyncKonko, ChatStream, KonkoError
from konko_async.errors import ConfigurationError
from konko_async.relay._errors import RefusalError
from konko_async.relay._formats.base import Format
from konko_async.relay._formats.openai import OpenAIFormat
from konko_async.relay._http import STREAM_HEADERS, RelayReply, RelayRequest, error_reply
from konko_async.relay._lifecycle.drain import Drain
from konko_async.relay._lifecycle.signals import (
    holding_hypercorn,
    holding_signals,
    is_hypercorn,
)
from konko_async.relay._streams.cancel_scope import ReaderGoneError, ReaderWatch
from konko_async.relay._streams.pump import Delivery, pump
from konko_async.relay._streams.source import DirectSource, Source
from konko_async.relay._streams.tool_run_source import source_of

try:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute, Route

    from konko_async.relay._lifecycle.starlette_disconnect import while_connected
except ModuleNotFoundError as missing:
    raise ConfigurationError(
        f"konko_async.relay.starlette_app needs {missing.name}: "
        "pip install 'konko-async[starlette]'"
    ) from None

if TYPE_CHECKING:
    from starlette.background import BackgroundTask
    from starlette.types import ASGIApp, Receive, Scope, Send

    from konko_async.relay._service import RelayService
    from konko_async.tools import ToolRun

__all__ = [
    "DrainMiddleware",
    "StreamResponse",
    "error_response",
    "lifespan",
    "routes",
    "while_connected",
]

_ALWAYS_SERVED = ("/healthz", "/readyz")


class _AsgiBrowser:
    """One browser's connection: reads the body, then listens for the browser's leaving.

    ASGI reports that only to callers of ``receive()``; ``send()`` may succeed forever.
    """

    __slots__ = ("_gone", "_listener", "_receive", "_send")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._gone = False
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])

    def listen(self) -> None:
        """Begin to listen; what is left of a body is dropped."""
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True

    async def body(self) -> AsyncIterator[bytes]:
        """Read the body.

        Raises:
            ReaderGoneError: the browser left in the middle of it.
        """
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._gone = True
                raise ReaderGoneError("the reader has left")
            more = message.get("more_body", False)
            yield message.get("body", b"")
        self.listen()

    def gone(self) -> bool:
        return self._gone

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self._tell({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, frames: bytes) -> None:
        await self._tell({"type": "http.response.body", "body": frames, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self._tell({"type": "http.response.body", "body": body, "more_body": False})

    async def _tell(self, message: dict[str, Any]) -> None:
        try:
            await self._send(message)
        except OSError:  # for a browser that has left, from version 2.4 of ASGI on
            self._gone = True
            raise ReaderGoneError("the reader has left") from None


class StreamResponse(Response):
    """A response that hands a stream to a browser; for handlers of your own.

    It waits for the first delta before it begins, unless told otherwise, so that a failure before
    it is a status. If the browser leaves, at any time, the upstream call is cancelled within a
    second; if it reads slowly, so do we.

    Args:
        stream: from ``client.chat.completions.stream(...)``, open or not; it is closed. Or from
            ``run_tools(...)``, not begun yet.
        format: of the events. Default ``OpenAIFormat()``.
        delivery: heartbeats, coalescing, patience. Default ``Delivery()``.
        open_early: answer 200 and send heartbeats before the first token. Default False.
        drain: lets the stream end well when the server is shut down; the one of ``lifespan()``.
            Default None: that one, where the lifespan's state has it.
        headers: further ones.
        background: run after the response, as for Starlette's own.

    Example:
        >>> @app.post("/chat")
        ... async def chat(question: Question) -> StreamResponse:
        ...     return StreamResponse(client.chat.completions.stream(model=..., messages=[...]))
    """

    media_type = None

    def __init__(
        self,
        stream: ChatStream | ToolRun[Any],
        *,
        format: Format | None = None,
        delivery: Delivery | None = None,
        open_early: bool = False,
        drain: Drain | None = None,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
    ) -> None:
        # Without super().__init__(), which would set an empty body, and its Content-Length of 0.
        self.status_code = 200
        self.background = background
        self._stream = stream
        self._format = format or OpenAIFormat()
        self._delivery = delivery or Delivery()
        self._open_early = open_early
        self._drain = drain
        self._own = {**STREAM_HEADERS, **self._format.headers}
        self.init_headers({**self._own, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        drain = self._drain or scope.get("state", {}).get("drain")
        source = source_of(self._stream, self._format)
        try:
            async with _AsgiBrowser(receive, send) as browser:
                browser.listen()
                with nullcontext() if drain is None else drain.watch(source):
                    await self._serve(browser, source, drain)
        except ReaderGoneError:
            pass  # there is nobody to answer
        finally:
            await source.close()
        if self.background is not None:
            await self.background()

    async def _serve(
        self, browser: _AsgiBrowser, source: DirectSource, drain: Drain | None
    ) -> None:
        with ReaderWatch(browser.gone, self._delivery.look):
            try:
                # Refuses by itself, as there may be no DrainMiddleware. A stream that has begun may
                # finish like all others.
                if drain is not None and not source.started:
                    drain.check()
                failure = None if self._open_early else await source.open()
            except RefusalError as error:
                failure = error
        if failure is not None:
            await self._fail(browser, failure)
            return
        await browser.start(200, self.raw_headers)
        await _pump(browser, source, self._delivery, early=self._open_early)

    async def _fail(self, browser: _AsgiBrowser, failure: KonkoError) -> None:
        reply = error_reply(failure)
        ours = {name.lower().encode("latin-1") for name in (*self._own, *reply.headers)}
        # What the handler set for the client goes with an error, too; what describes the stream
        # does not.
        more = [header for header in self.raw_headers if header[0] not in ours]  # such as cookies
        await browser.start(reply.status, _raw(reply.headers, len(reply.body)) + more)
        await browser.end(reply.body)


async def _pump(browser: _AsgiBrowser, source: Source, delivery: Delivery, *, early: bool) -> None:
    if await pump(source, browser, delivery, early=early) == "done" and not browser.gone():
        await browser.end()


def _raw(headers: Mapping[str, str], length: int | None) -> list[tuple[bytes, bytes]]:
    raw = [(name.lower().encode("latin-1"), v.encode("latin-1")) for name, v in headers.items()]
    return raw if length is None else [*raw, (b"content-length", b"%d" % length)]


# -- endpoints -----------------------------------------------------------------------------------


class _RelayApp:
    """An ASGI application that a relay's service answers."""

    def __init__(self, service: RelayService, prefix: str) -> None:
        self._service = service
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with _AsgiBrowser(receive, send) as browser:
            # The browser listens in a task of its own; the service looks at it meanwhile.
            with contextlib.suppress(ReaderGoneError):
                reply = await self._service.handle(_neutral(scope, browser, self._prefix))
                try:
                    await self._send(browser, reply)
                finally:
                    await reply.close()

    async def _send(self, browser: _AsgiBrowser, reply: RelayReply) -> None:
        if reply.source is None:
            length = len(reply.body) if reply.status >= 200 and reply.status != 204 else None  # noqa: PLR2004 - RFC 9110, 8.6
            await browser.start(reply.status, _raw(reply.headers, length))
            await browser.end(reply.body)
            return
        browser.listen()
        await browser.start(reply.status, _raw(reply.headers, None))
        await _pump(browser, reply.source, self._service.options.delivery, early=reply.early)


def _neutral(scope: Scope, browser: _AsgiBrowser, prefix: str) -> RelayRequest:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    # Nobody reads the body of these, and a disconnect is reported after the body only.
    if scope["method"] not in {"POST", "PUT", "PATCH"}:
        browser.listen()
    server, peer = scope.get("server"), scope.get("client")
    query = scope.get("query_string", b"").decode("latin-1")
    return RelayRequest(
        method=scope["method"],
        path=_path(scope)[len(prefix) :] or "/",
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers=headers,
        body=browser.body,
        gone=browser.gone,
        local=server[0] if server else None,
        peer=peer[0] if peer else None,
        native=Request(scope),
    )


def _path(scope: Scope) -> str:
    """Return the path below where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    # Servers and frameworks differ on whether the path includes root_path.
    below = path.startswith(f"{root}/") and bool(root)
    return path[len(root) :] if below else path


def routes(service: RelayService, prefix: str = "") -> list[BaseRoute]:
    """Return the routes of a relay's endpoints.

    Args:
        service: answers; give it to ``lifespan(service=...)``, too, which closes it.
        prefix: of all paths, such as ``/relay``; without a slash at its end.

    Returns:
        For ``Starlette(routes=...)``, ``Mount(...)``, or FastAPI's ``app.routes.extend(...)``.
    """
    endpoint = _RelayApp(service, prefix)
    return [Route(prefix + path, endpoint) for path in service.paths]


async def error_response(request: Request, error: Exception) -> Response:
    """Answer a failed call with the status and the public error that stand for it.

    Example:
        >>> app.add_exception_handler(KonkoError, error_response)
    """
    del request
    if not isinstance(error, KonkoError):
        # Registered for more than KonkoError: whatever else it gets is the framework's to handle.
        raise error
    reply = error_reply(error)
    return Response(reply.body, reply.status, reply.headers)


# -- lifetime ------------------------------------------------------------------------------------


def lifespan(
    client: AsyncKonko | Callable[[], AsyncKonko],
    *,
    service: RelayService | None = None,
    drain: Drain | None = None,
    hold_signals: bool = True,
) -> Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]:
    """Return a lifespan: one client per application, and an end with notice.

    Handlers find the client as ``request.state.client`` (and as ``request.app.state.client``), and
    the drain as ``request.state.drain``.

    Args:
        client: closed in the end; or what makes it, so that the application can be started again.
        service: a relay's; drained and closed.
        drain: ends streams when the server is shut down. Default ``Drain()``.
        hold_signals: drain before the server hears of SIGTERM and SIGINT. Else the server comes
            first: uvicorn then waits for its connections until they close by themselves, and tells
            the application afterwards, when there is nothing left to drain. Default True.

    Example:
        >>> app = FastAPI(lifespan=lifespan(AsyncKonko))
    """
    drain = drain or Drain()
    if service is not None:
        drain.add(service)

    @contextlib.asynccontextmanager
    async def run(app: Any) -> AsyncIterator[dict[str, Any]]:
        drain.reopen()
        made = client if isinstance(client, AsyncKonko) else client()
        async with made:
            app.state.client, app.state.drain = made, drain
            hold = holding_hypercorn if is_hypercorn() else holding_signals
            with hold(drain) if hold_signals else nullcontext():
                yield {"client": made, "drain": drain}
                # While the client is open. Where a signal was held back, the drain is over by now,
                # and this returns at once; elsewhere it takes place here.
                await drain.run()

    return run


class DrainMiddleware:
    """Refuses new requests with 503 and ``Retry-After`` once the server drains; plain ASGI.

    For applications with handlers of their own; a relay's service refuses by itself.

    Args:
        app: the application.
        drain: the one of ``lifespan()``.
        always: paths that are served nevertheless. Default ``/healthz`` and ``/readyz``.

    Example:
        >>> app.add_middleware(DrainMiddleware, drain=drain)
    """

    def __init__(
        self, app: ASGIApp, drain: Drain, *, always: tuple[str, ...] = _ALWAYS_SERVED
    ) -> None:
        self._app = app
        self._drain = drain
        self._always = always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and self._drain.draining and _path(scope) not in self._always:
            try:
                self._drain.check()
            except RefusalError as error:
                reply = error_reply(error)
            await Response(reply.body, reply.status, reply.headers)(scope, receive, send)
            return
        await self._app(scope, receive, send)
