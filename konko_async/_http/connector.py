"""How connections are made: bounded, timed, and with probes that notice a dead peer."""

from __future__ import annotations

import asyncio
import math
import socket
import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import aiohttp

from konko_async._core.deadline import Deadline, DeadlineQueue
from konko_async._core.forks import lineage
from konko_async._http.aiohttp_internals import HookedConnector, silence, take_idle
from konko_async._http.write_batcher import WriteBatcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from konko_async._core.config import KeepAlive, Settings
    from konko_async._core.pipeline import Call
    from konko_async._http.aiohttp_internals import Connect

__all__ = ["Connecting", "Connector", "connecting", "dropped", "notice_loss", "socket_options"]

POOL_SECONDS = 60.0  # that an idle connection stays in the pool
DNS_SECONDS = 300  # that a resolved name is kept
# Connections that are made to one host at once. More overflow the queues that servers listen with
# (128 is usual), which costs a second each; and each is 3 kB of coroutines while it is made.
_AT_ONCE = 128


class Connecting:
    """The making of a connection for one attempt, if it needs a new one.

    Timers and transports keep copies of the context in which they were made, some of them for
    good: so this holds the call but not the request, whose prompt may be large.

    Attributes:
        call: of the attempt.
        patience: seconds that making the connection may take (``Timeout.connect``), or None.
        seconds: what it took, the wait for a slot included; None where a pooled one served.
    """

    __slots__ = ("call", "patience", "seconds")

    def __init__(self, call: Call, patience: float | None) -> None:
        self.call = call
        self.patience = patience
        self.seconds: float | None = None


connecting: ContextVar[Connecting | None] = ContextVar("konko_async_connecting", default=None)
"""What a new connection is made for, in the task that makes it."""


class _Slots(asyncio.Semaphore):
    """Bounds the connections that are made to one host at once.

    Attributes:
        made_at: ``loop.time()`` at which the last one was made.
    """

    made_at = -math.inf

    async def take(self, deadlines: DeadlineQueue, patience: float | None) -> None:
        """Wait for a slot, as long as connections are made: a host that is down fails all at once.

        Args:
            deadlines: of the running loop.
            patience: seconds to wait after the last connection was made, or None.

        Raises:
            TimeoutError: none was made for so long.
        """
        if patience is None or not self.locked():
            await self.acquire()
            return
        loop = deadlines.loop
        since = loop.time()
        while True:
            try:
                with Deadline(deadlines, max(since, self.made_at) + patience):
                    await self.acquire()
            except TimeoutError:
                if loop.time() >= self.made_at + patience:
                    raise
            else:
                return


class Connector(HookedConnector):
    """Bounds and times the making of new connections; reused ones cost nothing here.

    Args:
        loop: the running loop.
        keepalive: when the operating system probes silent connections.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, keepalive: KeepAlive | None) -> None:
        super().__init__(loop, **socket_options(keepalive))
        self.outbox = WriteBatcher(loop)
        self._deadlines = DeadlineQueue(loop)
        self._slots: WeakValueDictionary[Any, _Slots] = WeakValueDictionary()

    def __del__(self, *_: object) -> None:
        # The transport, which owns this connector, warns of it in our words when it is collected.
        # Where a stream of it lives on, aiohttp's finaliser would warn again and cut that stream.
        pass

    async def make(self, address: tuple[str | None, int | None], connect: Connect) -> Any:
        """Make a connection to a host and port, within the connect timeout of what it is for."""
        wanted = connecting.get()
        if wanted is None:
            return await connect()
        loop = asyncio.get_running_loop()
        started = loop.time()
        wanted.call.doing = "connecting"
        patience = wanted.patience
        slots = self._slots_of(address)
        try:
            await slots.take(self._deadlines, patience)
            try:
                until = None if patience is None else loop.time() + patience
                with Deadline(self._deadlines, until):
                    made = await connect()
            finally:
                slots.release()
        except TimeoutError as error:
            failed = error
        else:
            slots.made_at = loop.time()
            return made
        finally:
            wanted.seconds = loop.time() - started
            wanted.call.doing = "waiting for the answer"
        raise aiohttp.ConnectionTimeoutError(str(failed))

    def _slots_of(self, address: tuple[str | None, int | None]) -> _Slots:
        slots = self._slots.get(address)
        if slots is None:
            slots = self._slots[address] = _Slots(_AT_ONCE)
        return slots


def socket_options(keepalive: KeepAlive | None) -> dict[str, Any]:
    """Return the options of a connector of ours, as ``aiohttp.TCPConnector`` takes them.

    Args:
        keepalive: when the operating system probes silent connections; None: never.
    """
    return {
        "limit": 0,  # the limits of a client bound its calls; here they would only queue twice
        "keepalive_timeout": POOL_SECONDS,
        "ttl_dns_cache": DNS_SECONDS,
        "socket_factory": _socket_factory(keepalive),
    }


def _socket_factory(keepalive: KeepAlive | None) -> Callable[[Any], socket.socket]:
    """Return what makes sockets whose peer's silent death is noticed."""
    options: list[tuple[int, int, int]] = []
    if keepalive is not None:
        options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1))
        # Each platform has some of them, under its own names (macOS calls the first KEEPALIVE).
        idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
        for option, value in (
            (idle, keepalive.idle),
            (getattr(socket, "TCP_KEEPINTVL", None), keepalive.interval),
            (getattr(socket, "TCP_KEEPCNT", None), keepalive.count),
        ):
            if option is not None:  # pragma: no branch - the platforms of the tests have all three
                options.append((socket.IPPROTO_TCP, option, value))

    def make(address: Any) -> socket.socket:
        family, kind, protocol, *_ = address
        made = socket.socket(family=family, type=kind, proto=protocol)
        try:
            for level, option, value in options:
                made.setsockopt(level, option, value)
        except OSError:
            made.close()
            raise
        return made

    return make


def notice_loss(response: aiohttp.ClientResponse) -> None:
    """Report the loss of a connection to the reader of its body, where aiohttp forgets to.

    For connections that are not our own; those report it by themselves.
    """
    connection = response.connection
    lost = None if connection is None else getattr(connection.protocol, "closed", None)
    if lost is None:
        return
    content = response.content

    def report(ended: asyncio.Future[None]) -> None:
        failed = not ended.cancelled() and ended.exception() is not None  # it has been looked at
        if not content.is_eof() and content.exception() is None:
            content.set_exception(
                aiohttp.ClientPayloadError("reset" if failed else "the connection was closed")
            )

    lost.add_done_callback(report)
    # The connection may serve many more: what this answer hung onto it goes with its end.
    content.on_eof(lambda: lost.remove_done_callback(report))


def dropped(
    session: aiohttp.ClientSession,
    loop: asyncio.AbstractEventLoop,
    forks: int,
    settings: Settings,
) -> None:
    """Warn of a client that nobody closed, and let go of its connections.

    Called by a weak reference, before any finaliser of what is collected: aiohttp's would warn
    first, in its own words, of the session and of the connector.
    """
    connector = session.connector
    if connector is None or session.closed:
        return
    warnings.warn(
        "unclosed AsyncKonko: use 'async with AsyncKonko(...) as client', or "
        "'await client.close()' when it is not needed any more",
        ResourceWarning,
        source=settings,
        stacklevel=2,
    )
    session.detach()
    forked = forks != lineage.forks
    if loop.is_running() and not forked:
        # Streams still being read keep their connection. The collector may run in any thread.
        for protocol in take_idle(connector):
            loop.call_soon_threadsafe(protocol.close)
    else:
        silence(connector, None if forked else loop)
