"""The relay in ``aiohttp.web``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web
from aiohttp.http import StreamWriter

from konko_async import ChatStream
from konko_async.relay._formats.base import Format
from konko_async.relay._formats.openai import OpenAIFormat
from konko_async.relay._http import STREAM_HEADERS, RelayReply, RelayRequest, error_reply
from konko_async.relay._lifecycle.aiohttp_lifespan import (
    CLIENT,
    DRAIN,
    client_context,
    drained,
    error_middleware,
)
from konko_async.relay._lifecycle.aiohttp_server import listening
from konko_async.relay._streams.cancel_scope import ReaderGoneError, ReaderWatch
from konko_async.relay._streams.pump import Delivery, pump
from konko_async.relay._streams.source import Source
from konko_async.relay._streams.tool_run_source import source_of

if TYPE_CHECKING:
    from konko_async.relay._service import RelayService
    from konko_async.tools import ToolRun

__all__ = [
    "CLIENT",
    "DRAIN",
    "add_routes",
    "client_context",
    "drained",
    "error_middleware",
    "listening",
    "stream_response",
    "while_connected",
]

T = TypeVar("T")

_TOO_SLOW = 408


class _AiohttpSink:
    """One browser's connection."""

    __slots__ = ("_chunked", "_request", "_writer", "write")

    def __init__(self, request: web.Request, response: web.StreamResponse, writer: Any) -> None:
        self._request = request
        self.write = response.write  # itself: one more coroutine would cost each token
        self._writer = writer
        self._chunked = type(writer) is StreamWriter and writer.chunked

    def gone(self) -> bool:
        return _gone(self._request)

    def writable(self) -> bool:
        transport = self._request.transport
        return (
            self._chunked
            and self._writer.output_size > 0  # aiohttp keeps the head back for the first frames
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        )

    def write_now(self, frames: bytes) -> None:
        data = b"%x\r\n%b\r\n" % (len(frames), frames)
        self._writer.output_size += len(data)  # which access logs tell
        self._writer.transport.write(data)


def _gone(request: web.Request) -> bool:
    """Whether the browser has left: aiohttp lets handlers run on."""
    transport = request.transport
    return transport is None or transport.is_closing()


async def _send(
    request: web.Request,
    source: Source,
    headers: dict[str, str],
    delivery: Delivery | None,
    *,
    early: bool,
) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    try:
        writer = await response.prepare(request)
        browser = _AiohttpSink(request, response, writer)
        if await pump(source, browser, delivery, early=early) == "done":
            await response.write_eof()
            return response
    # The browser left after the last look, before the head or the last chunk was written.
    except ConnectionError:
        pass
    if request.transport is not None:
        # Connected, but taking nothing: closing would wait until it has taken what is left.
        request.transport.abort()
    return response


async def stream_response(
    request: web.Request,
    stream: ChatStream | ToolRun[Any],
    *,
    format: Format | None = None,
    delivery: Delivery | None = None,
    open_early: bool = False,
) -> web.StreamResponse:
    """Answer a request with a stream; for handlers of your own.

    Waits for the first delta, unless told otherwise, so that a failure before it is a status. If
    the browser leaves, at any time, the upstream call is cancelled within a second. Where the
    application is :func:`drained`, the stream ends well when the server is shut down.

    Args:
        request: whose answer it is.
        stream: from ``client.chat.completions.stream(...)``, open or not; it is closed. Or from
            ``run_tools(...)``, not begun yet.
        format: of the events. Default ``OpenAIFormat()``.
        delivery: heartbeats, coalescing, patience. Default ``Delivery()``.
        open_early: answer 200 and send heartbeats before the first token. Default False.

    Returns:
        The response, sent; return it from the handler.

    Example:
        >>> async def chat(request: web.Request) -> web.StreamResponse:
        ...     stream = client.chat.completions.stream(model=MODEL, messages=[...])
        ...     return await stream_response(request, stream)
    """
    delivery = delivery or Delivery()
    source = source_of(stream, format or OpenAIFormat())
    drain = request.config_dict.get(DRAIN)
    try:
        # From before the first delta: a shutdown ends streams that still wait for theirs.
        with nullcontext() if drain is None else drain.watch(source):
            with ReaderWatch(lambda: _gone(request), delivery.look):
                failure = None if open_early else await source.open()
            if failure is not None:
                return _whole(error_reply(failure))
            headers = {**STREAM_HEADERS, **source.headers}
            return await _send(request, source, headers, delivery, early=open_early)
    except ReaderGoneError:
        return web.Response(status=499)  # nobody gets it
    finally:
        # pump() closes it as well; this is for all the ways that do not get there.
        await source.close()


# An HTTPException: aiohttp logs nothing for it, but a traceback for any other exception.
class _GoneError(web.HTTPClientError):
    status_code = 499  # nginx's status for a client that has closed the connection


async def while_connected(request: web.Request, awaitable: Awaitable[T]) -> T:
    """Wait for something for as long as the browser does; for handlers of your own.

    If the browser leaves, what is awaited is cancelled within a second, and with it the upstream
    call.

    Args:
        request: the one that is being answered.
        awaitable: such as ``client.chat.completions.create(...)``, or a run of ``run_tools()``.

    Returns:
        What it returned.

    Raises:
        HTTPException: the browser left, with status 499; nobody gets it, and nothing is logged.

    Example:
        >>> async def title(request: web.Request) -> web.Response:
        ...     asked = client.chat.completions.create(model=MODEL, messages=[...])
        ...     completion = await while_connected(request, asked)
    """
    try:
        with ReaderWatch(lambda: _gone(request), Delivery().look):
            return await awaitable
    except ReaderGoneError:
        raise _GoneError from None
    raise AssertionError("unreachable")  # pragma: no cover - a ReaderWatch swallows nothing


def _whole(reply: RelayReply) -> web.Response:
    return web.Response(status=reply.status, headers=reply.headers, body=reply.body)


async def _answer(request: web.Request, reply: RelayReply) -> web.Response:
    response = _whole(reply)
    if reply.status == _TOO_SLOW:
        await response.prepare(request)
        await response.write_eof()
        request.protocol.force_close()  # aiohttp would wait for the rest of the body
    return response


async def _body(request: web.Request) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_any():
        yield piece


def _neutral(request: web.Request, prefix: str) -> RelayRequest:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        name = name.lower()  # noqa: PLW2901 - the same name in lower case
        # As RFC 9110, 5.3 combines fields of one name.
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    transport = request.transport
    local = None if transport is None else transport.get_extra_info("sockname")
    return RelayRequest(
        method=request.method,
        path=request.path[len(prefix) :] or "/",
        query=dict(request.query),
        headers=headers,
        body=lambda: _body(request),
        gone=lambda: _gone(request),
        local=local[0] if isinstance(local, tuple) else None,
        peer=request.remote,
        native=request,
    )


def add_routes(app: web.Application, service: RelayService, prefix: str = "") -> None:
    """Serve a relay's endpoints.

    Args:
        app: takes the routes, and closes the service when it is cleaned up.
        service: answers.
        prefix: of all paths, such as ``/relay``; without a slash at its end.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            reply = await service.handle(_neutral(request, prefix))
        except ReaderGoneError:
            return web.Response(status=499)  # nobody gets it
        try:
            if reply.source is None:
                return await _answer(request, reply)
            return await _send(
                request, reply.source, reply.headers, service.options.delivery, early=reply.early
            )
        finally:
            await reply.close()

    async def close(_: web.Application) -> None:
        await service.close()

    for path in service.paths:
        # Every method, as the service answers preflights, and 405 in its own words.
        app.router.add_route("*", prefix + path, handle)
    app.on_shutdown.append(close)
