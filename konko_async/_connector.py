"""How connections are made, how their failure gets to whoever reads, how dead ones are let go."""

from __future__ import annotations

import asyncio
import functools
import math
import socket
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler

from konko_async._deadline import Deadline
from konko_async._http import Outbox

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

    from konko_async._pipeline import Request

__all__ = ["Connector", "connecting", "count", "notice_loss", "silence"]

_KEEPALIVE = 60.0  # seconds that an idle connection stays in the pool
# Connections that are made to one host at once. More overflow the queues that servers listen with
# (128 is usual), which costs a second each; and each is 3 kB of coroutines while it is made.
_AT_ONCE = 128

connecting: ContextVar[list[Request] | None] = ContextVar("konko_async_connecting", default=None)
"""The request that a new connection is made for, if one is: an empty list says no more."""


class _Protocol(ResponseHandler):
    """Tells the reader of a body when its connection is gone.

    aiohttp forgets to in two cases, and the reader waits for ever: where the body breaks HTTP's
    rules after the head was read (a chunk's size that is no number, in its C parser), and where the
    session is closed meanwhile.
    """

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Take the failure to the body as well."""
        self._tell(exc)
        super().set_exception(exc, *cause)

    def close(self) -> None:
        """Close the connection; the body hears of it."""
        self._tell(aiohttp.ClientConnectionError("closed"))
        super().close()

    def abort(self) -> None:
        """Close the connection at once; the body hears of it."""
        self._tell(aiohttp.ClientConnectionError("closed"))
        super().abort()

    def _tell(self, error: BaseException) -> None:
        """Give an error to the body, unless that has ended or knows already."""
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(error)


class _Turns(asyncio.Semaphore):
    """Bounds the connections that are made to one host at once.

    Attributes:
        made_at: ``loop.time()`` at which the last one was there.
    """

    made_at = -math.inf

    async def take(self, patience: float | None) -> None:
        """Wait for a turn, as long as connections are made: a host that is down fails all at once.

        Args:
            patience: seconds to wait after the last connection was made, or None.

        Raises:
            TimeoutError: none was made for so long.
        """
        if patience is None or not self.locked():
            await self.acquire()
            return
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            try:
                with Deadline(loop, max(since, self.made_at) + patience):
                    await self.acquire()
            except TimeoutError:
                if loop.time() >= self.made_at + patience:
                    raise
            else:
                return


class Connector(aiohttp.TCPConnector):
    """Bounds and times the making of new connections; reused ones cost nothing here."""

    def __init__(self) -> None:
        super().__init__(
            limit=0, keepalive_timeout=_KEEPALIVE, ttl_dns_cache=300, socket_factory=_socket
        )
        factory: Any = functools.partial(_Protocol, loop=self._loop)
        self._factory = factory
        self.outbox = Outbox(self._loop)
        self._turns: WeakValueDictionary[Any, _Turns] = WeakValueDictionary()

    async def _create_connection(
        self,
        req: Any,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        asking = connecting.get()
        if not asking:
            return await super()._create_connection(req, traces, timeout)
        request = asking[0]
        loop = asyncio.get_running_loop()
        started = loop.time()
        request.call.doing = "connecting"
        patience = request.timeout.connect
        turns = self._turns_of(req)
        try:
            await turns.take(patience)
            try:
                with Deadline(loop, None if patience is None else loop.time() + patience):
                    made = await super()._create_connection(req, traces, timeout)
            finally:
                turns.release()
        except TimeoutError as error:
            failed = error
        else:
            turns.made_at = loop.time()
            return made
        finally:
            request.connect = loop.time() - started
            request.call.doing = "waiting for the answer"
        raise aiohttp.ConnectionTimeoutError(str(failed))

    def _turns_of(self, req: Any) -> _Turns:
        key = (req.url.raw_host, req.url.port)
        turns = self._turns.get(key)
        if turns is None:
            turns = self._turns[key] = _Turns(_AT_ONCE)
        return turns


def _socket(address: Any) -> socket.socket:
    """Make a socket whose peer's silent death is noticed."""
    family, kind, protocol, *_ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return made


def notice_loss(response: aiohttp.ClientResponse) -> None:
    """Do for a connection of the user's session what :class:`_Protocol` does for our own."""
    connection = response.connection
    lost = None if connection is None else getattr(connection.protocol, "closed", None)
    if lost is None:
        return
    content = response.content

    def tell(ended: asyncio.Future[None]) -> None:
        failed = not ended.cancelled() and ended.exception() is not None  # it has been looked at
        if not content.is_eof() and content.exception() is None:
            content.set_exception(
                aiohttp.ClientPayloadError("reset" if failed else "the connection was closed")
            )

    lost.add_done_callback(tell)
    # The connection may serve many more: what this answer hung onto it goes with its end.
    content.on_eof(lambda: lost.remove_done_callback(tell))


def count(connector: aiohttp.BaseConnector) -> tuple[int, int]:
    """Return how many connections carry a call (or are being made for one), and how many idle."""
    pooled = [protocol for entries in connector._conns.values() for protocol, _ in entries]  # noqa: SLF001 - there is no public way
    idle = sum(protocol.is_connected() for protocol in pooled)
    return len(connector._acquired), idle  # noqa: SLF001 - as above


def silence(connector: aiohttp.BaseConnector, loop: asyncio.AbstractEventLoop | None) -> None:
    """Close the connector of a loop that does not run: nothing can be closed through the loop.

    Args:
        connector: of the session that is given up.
        loop: the loop; None after a fork. Its sockets then belong to the parent, which goes on
            talking through them: closing the copies here says nothing to the peer.
    """
    pooled = [protocol for entries in connector._conns.values() for protocol, _ in entries]  # noqa: SLF001 - there is no public way
    for protocol in (*pooled, *connector._acquired):  # noqa: SLF001 - as above
        _drop(getattr(protocol, "transport", None), loop)
    connector._conns.clear()  # noqa: SLF001 - as above
    connector._acquired.clear()  # noqa: SLF001 - as above
    connector._closed = True  # noqa: SLF001 - nothing warns of an unclosed connector now


def _drop(transport: Any, loop: Any) -> None:
    """Close the socket below a transport of asyncio's whose loop no longer runs."""
    if transport is None:
        return
    tls = getattr(transport, "_ssl_protocol", None)
    if tls is not None:
        transport._closed = True  # noqa: SLF001 - keeps its finaliser silent
    below = transport if tls is None else tls._transport  # noqa: SLF001 - no public way
    raw = getattr(below, "_sock", None)
    if raw is None:  # uvloop closes its own with the loop
        return
    if loop is not None and not loop.is_closed():
        # A loop that only rests must not meet another socket under this number later.
        loop._remove_reader(raw.fileno())  # noqa: SLF001 - the public way refuses transports
        loop._remove_writer(raw.fileno())  # noqa: SLF001 - as above
    raw.close()
    below._closing = True  # noqa: SLF001 - the loop asks, before it gives out this number again
    below._sock = None  # noqa: SLF001 - keeps its finaliser silent
