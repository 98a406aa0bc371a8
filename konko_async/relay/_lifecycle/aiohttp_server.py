"""Serves an ``aiohttp.web`` application; cuts connections whose request head does not arrive.

aiohttp waits for the head of a request for as long as the connection lives. Whoever opens many
connections and sends a byte now and then holds a socket and a task for each.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web

from konko_async.errors import ConfigurationError

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

__all__ = ["listening"]

_KEEP_ALIVE: Final = 75.0  # seconds that a connection may idle between requests, as in nginx
_LONGEST_LINGER: Final = (
    10.0  # aiohttp's default, in seconds, for the rest of a body that is not read
)
_MANY: Final = 64  # connections without a whole head at once: more than browsers open
# Raw bytes: while the head is incomplete, there is no request that aiohttp could answer.
_TOO_SLOW: Final = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 82\r\n\r\n"
    b'{"error":{"message":"the request\'s head did not arrive in time","type":"timeout"}}'
)


class _Crowd:
    """How many connections of a server wait for a head.

    A slow one gets a 408. Where there are many, that would only be work for the one that
    opened them: they are closed without a word.
    """

    __slots__ = ("_crowded", "_loop", "_waiting", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._waiting = 0
        self._crowded = -math.inf  # when there were many

    def come(self) -> None:
        self._waiting += 1
        if self._waiting > _MANY:
            self._crowded = self._loop.time()

    def go(self) -> None:
        self._waiting -= 1

    def says(self) -> bool:
        """Whether a connection that is cut now gets a 408."""
        # After twice the time limit, all connections of the last crowd have been cut.
        return self._loop.time() - self._crowded > 2 * self.seconds


class _Guard(asyncio.Protocol):
    """Stands between a socket and aiohttp's protocol, and looks at the clock.

    Every connection is either serving a request, or waits for a head: from its beginning on, and
    from the first byte behind a request. Bytes do not buy time, so dripping them does not help.
    """

    __slots__ = ("_begun", "_crowd", "_inner", "_loop", "_serving", "_timer", "_transport")

    def __init__(self, inner: asyncio.Protocol, crowd: _Crowd) -> None:
        self._inner = inner
        self._crowd = crowd
        self._loop = asyncio.get_running_loop()
        self._serving = 0
        self._begun = False  # whether anything of the head has come
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not an instance of it
        self._arm()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        # The first byte behind a request begins the next head. Until it comes, the connection is
        # idle, which is for keepalive_timeout to end.
        if not self._serving:
            self._begun = True
            if self._timer is None:
                self._arm()
        self._inner.data_received(data)

    def serve(self) -> None:
        """Note that a request's head is complete; its body has a time limit of its own."""
        self._serving += 1
        self._begun = False
        self._disarm()

    def served(self) -> None:
        """Note that it has been answered."""
        self._serving -= 1

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._inner.connection_lost(exc)

    def _arm(self) -> None:
        self._crowd.come()
        self._timer = self._loop.call_later(self._crowd.seconds, self._cut)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._crowd.go()

    def _cut(self) -> None:
        self._timer = None
        self._crowd.go()
        if self._transport is None or self._transport.is_closing():
            return
        # Where nothing has come, nobody waits for an answer: browsers open connections in advance.
        if self._begun and self._crowd.says():
            self._transport.write(_TOO_SLOW)
        self._transport.close()


@web.middleware
async def _whole(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Report to the connection's guard that the request's head is complete."""
    transport = request.transport
    guard = None if transport is None else transport.get_protocol()
    # The connection came in by another server of the same application.
    if not isinstance(guard, _Guard):
        return await handler(request)
    guard.serve()
    try:
        return await handler(request)
    finally:
        guard.served()


@asynccontextmanager
async def listening(
    app: web.Application,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    head_timeout: float = 10.0,
    shutdown_timeout: float = 1.0,
) -> AsyncIterator[int]:
    """Serve an application until the end of the block.

    Connections whose request head is not whole in time are closed, with status 408 where something
    of it had come (and without a word where there are many of them at once). Without it, or another
    server's own limit, they stay forever.

    Args:
        app: not started yet.
        host: address to listen on.
        port: 0: any that is free.
        head_timeout: seconds for the head of a request. Default 10.
        shutdown_timeout: seconds that handlers may continue at the end. Default 1.

    Yields:
        The port.

    Raises:
        ConfigurationError: ``head_timeout`` is not above 0.
        OSError: the address cannot be listened on.

    Example:
        >>> async with listening(app, "127.0.0.1", 8080):
        ...     await asyncio.Event().wait()
    """
    # Refuses NaN, too, which ``<= 0`` would let through.
    if not head_timeout > 0:
        raise ConfigurationError("listening: head_timeout must be above 0")
    # Outermost: the time that other middlewares take is not the head's.
    app.middlewares.insert(0, _whole)
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=_KEEP_ALIVE,
        # The rest of a body that was refused must not be taken for a head that is slow.
        lingering_time=min(_LONGEST_LINGER, head_timeout / 2),
        shutdown_timeout=shutdown_timeout,
    )
    await runner.setup()
    try:
        make = runner.server
        assert make is not None  # noqa: S101 - it has been set up
        loop, crowd = asyncio.get_running_loop(), _Crowd(head_timeout)
        server = await loop.create_server(lambda: _Guard(make(), crowd), host, port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            # No new connections, while cleanup() waits for those that are open.
            server.close()
    finally:
        await runner.cleanup()
