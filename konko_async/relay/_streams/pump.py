"""Pumps frames from a source to a reader: heartbeats, coalescing, write time-outs."""

from __future__ import annotations

import asyncio
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from konko_async.errors import ConfigurationError
from konko_async.relay._formats.sse_frames import PING
from konko_async.relay._streams.cancel_scope import ReaderGoneError, ReaderWatch
from konko_async.relay._streams.source import DirectSource, Outlet, Source

__all__ = ["Delivery", "Outcome", "ReaderGoneError", "Sink", "pump"]

Outcome = Literal["done", "gone"]


class Sink(Protocol):
    """The reader's end of a pump, which each adapter implements."""

    async def write(self, frames: bytes) -> None:
        """Write whole frames at once; waits while the reader's buffers are full.

        Raises:
            ConnectionError: the reader has left.
        """

    def gone(self) -> bool:
        """Whether the reader has left; cheap, as it is called several times a second."""


@runtime_checkable
class _QuickSink(Sink, Outlet, Protocol):
    """A sink that can also be written to by no task."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How frames are handed to a reader.

    Attributes:
        heartbeat: seconds of silence after which a comment is sent. Default 15; None: none.
        flush_every: seconds; what arrives sooner after a write is written together with what
            follows; the first after a pause never waits. Default None: everything at once.
        look: seconds between looks at whether the reader has left. Default 0.25.
        write_timeout: seconds that one write may take before the reader counts as gone.
            Default 120; None: no limit.

    Raises:
        ConfigurationError: a value is not above 0.
    """

    heartbeat: float | None = 15.0
    flush_every: float | None = None
    look: float = 0.25
    write_timeout: float | None = 120.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            # Without looks, a disconnect would go unnoticed for as long as nothing is written.
            if value is None and name != "look":
                continue
            # bool is an int: True would pass for one second.
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ConfigurationError(f"Delivery: {name} must be seconds above 0")


class _Pumping(ReaderWatch):
    """Looks after one reader while its stream is being pumped."""

    __slots__ = ("_delivery", "_pinging", "_since", "_sink", "_writing")

    def __init__(self, sink: Sink, delivery: Delivery) -> None:
        super().__init__(sink.gone, delivery.look)
        self._sink: Any = sink
        self._delivery = delivery
        self._since = self._loop.time()  # when the last write ended, or this one began
        self._writing = False
        self._pinging: asyncio.Task[None] | None = None

    async def write(self, frames: bytes) -> None:
        # A heartbeat may be written in part: frames must not overtake it.
        if self._pinging is not None:
            await self.settle()
        self._writing, self._since = True, self._loop.time()
        await self._sink.write(frames)
        self._writing, self._since = False, self._loop.time()

    def writable(self) -> bool:
        return self._pinging is None and self._sink.writable()

    def write_now(self, frames: bytes) -> None:
        self._sink.write_now(frames)
        self._since = self._loop.time()

    def _hopeless(self, now: float) -> bool:
        silent = now - self._since
        # The reader takes nothing. A heartbeat would only queue up behind what it has not taken.
        if self._writing:
            patience = self._delivery.write_timeout
            return patience is not None and silent >= patience
        heartbeat = self._delivery.heartbeat
        if heartbeat is not None and silent >= heartbeat:
            # A heartbeat is a write like any other: the time-out of writes holds for it, too.
            self._writing, self._since = True, now
            # The pump's own task is waiting for the source; a task per silence costs nothing.
            self._pinging = self._loop.create_task(self._ping())
        return False

    async def _ping(self) -> None:
        await self._sink.write(PING)
        self._writing, self._since = False, self._loop.time()

    async def settle(self, *, cancel: bool = False) -> None:
        """Wait for a heartbeat that is being written."""
        ping = self._pinging
        if ping is None:
            return
        if cancel:
            ping.cancel()
        await asyncio.wait([ping])
        self._pinging = None
        # Looked at in any case: asyncio logs exceptions that nobody has retrieved.
        failed = not ping.cancelled() and ping.exception() is not None
        if failed and not cancel:
            raise ReaderGoneError("the reader has left")


async def pump(
    source: Source, sink: Sink, delivery: Delivery | None = None, *, early: bool = False
) -> Outcome:
    """Write all frames of a source to a sink; the source is closed in the end.

    The reader is looked at by one timer per stream, also while nothing is written and while a
    write waits for a reader that takes nothing.

    Args:
        source: of the frames.
        sink: where they go.
        delivery: heartbeats, coalescing, patience. Default ``Delivery()``.
        early: begin with a heartbeat, so that the reader sees that something is under way.

    Returns:
        ``"gone"`` if the reader left before the end.
    """
    delivery = delivery or Delivery()
    pumping = _Pumping(sink, delivery)
    try:
        with pumping:
            if early:
                await pumping.write(PING)
            pause = delivery.flush_every
            if pause is None and isinstance(sink, _QuickSink) and isinstance(source, DirectSource):
                source.outlet = pumping
            while (frames := await source.read()) is not None:
                await pumping.write(frames)
                if pause is not None:
                    # What arrives meanwhile comes with the next read; until then it stays upstream,
                    # so the back-pressure is the same.
                    await asyncio.sleep(pause)
    # ReaderGoneError is one; a server's own write raises others, such as ConnectionResetError.
    except ConnectionError:
        return "gone"
    finally:
        try:
            # Ends before the adapter does anything else with the connection that it writes to. The
            # source is closed whatever comes of it: that is what cancels the upstream call.
            await pumping.settle(cancel=True)
        finally:
            await source.close()
    return "done"
