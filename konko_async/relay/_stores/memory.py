"""Streams kept in this process's memory."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Sequence

import msgspec

from konko_async.errors import ConfigurationError
from konko_async.relay._errors import StoreFullError, StreamLostError, StreamTooLongError
from konko_async.relay._stores.base import Page, StreamInfo, Watched

__all__ = ["MemoryStore"]

MIB = 1024 * 1024
_PER_EVENT = 64  # bytes that an event takes beside its payload
_PAGE = 256  # events handed out at once
_PER_STREAM = 1000  # bytes of a stream's own, measured, beside its id, owner, key and headers
_REMEMBERED = 10_000  # ids of streams that were thrown away, so that readers learn that they were
_REMEMBERED_BYTES = 4 * MIB  # of those ids and their owners


class _Waiters:
    """Who waits for a stream's next event, or for its stop.

    One timer, re-armed when it fires: one per wait, and each event ends a wait, would cost more
    than the event itself.
    """

    __slots__ = ("_due", "_loop", "_timer")

    def __init__(self) -> None:
        self._due: dict[asyncio.Future[None], float] = {}  # when each has waited for long enough
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Wake all who wait."""
        for future in self._due:
            if not future.done():
                future.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Wait until woken, or for so many seconds."""
        future = self._loop.create_future()
        self._due[future] = due = self._loop.time() + seconds
        if due < math.inf and (self._timer is None or self._timer.when() > due):
            self._arm(due)
        try:
            await future
        finally:
            del self._due[future]

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        """Let go who has waited for long enough."""
        self._timer = None
        now = self._loop.time()
        for future, due in self._due.items():
            if due <= now and not future.done():
                future.set_result(None)
        later = [due for due in self._due.values() if now < due < math.inf]
        if later:
            self._arm(min(later))


class _Log:
    """One stream."""

    __slots__ = (
        "changed", "created", "due", "finished", "info", "left", "payloads", "readers", "size",
        "stop", "stopping", "upkeep",
    )  # fmt: skip

    def __init__(self, info: StreamInfo, now: float, lease: float) -> None:
        self.info = info
        self.payloads: list[bytes] = []
        self.size = 0  # of the events
        self.upkeep = _PER_STREAM + _length(info)
        self.finished = False
        self.due = now + lease  # when the writer counts as dead; once finished, when it goes
        self.left = now  # when the last reader left
        self.readers: dict[str, float] = {}
        self.stop = False
        self.changed = _Waiters()
        self.stopping = _Waiters()

    def unread(self, now: float) -> float:
        for reader, until in list(self.readers.items()):
            if until <= now:
                del self.readers[reader]
                # A reader that died has left when its lease ended, not when that is found out.
                self.left = max(self.left, until)
        return 0.0 if self.readers else now - self.left


class MemoryStore:
    """A :class:`StreamStore` for one process and one event loop.

    Args:
        keep: seconds that a finished stream is kept. Default 300.
        max_streams: kept at once; for a new one the oldest finished one is dropped. Default 10,000.
        max_stream_bytes: of one stream. Default 8 MiB.
        max_bytes: of all, their ids, owners, keys and headers included; to make room the oldest
            finished ones are dropped. Default 256 MiB.

    Attributes:
        streams: how many are kept.
        size: bytes of all, as ``max_bytes`` counts them.

    Raises:
        ConfigurationError: a limit is not above 0.
    """

    def __init__(
        self,
        *,
        keep: float = 300.0,
        max_streams: int = 10_000,
        max_stream_bytes: int = 8 * MIB,
        max_bytes: int = 256 * MIB,
    ) -> None:
        if min(keep, max_streams, max_stream_bytes, max_bytes) <= 0:
            raise ConfigurationError("MemoryStore: all limits must be above 0")
        self._keep = keep
        self._max_streams = max_streams
        self._max_stream_bytes = max_stream_bytes
        self._max_bytes = max_bytes
        self._logs: dict[str, _Log] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._finished: deque[str] = deque()  # oldest first
        self._gone: OrderedDict[str, StreamInfo] = OrderedDict()
        self._gone_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.size = 0

    @property
    def streams(self) -> int:
        """How many are kept."""
        return len(self._logs)

    # -- the writer's side ---------------------------------------------------------------------

    async def create(self, info: StreamInfo, *, lease: float) -> str | None:
        """Begin a stream; returns the active one that had its key until now."""
        if info.id in self._logs or info.id in self._gone:
            raise ConfigurationError("there is a stream of this id already")
        self._purge()
        log = _Log(info, _now(), lease)
        while len(self._logs) >= self._max_streams or self.size + log.upkeep > self._max_bytes:
            # Active streams are never thrown away: their readers may ask for any event of them.
            if not self._finished:
                raise StoreFullError("too many streams are being written")
            self._throw_away(self._finished.popleft())
        self._logs[info.id] = log
        self.size += log.upkeep
        if info.key is None:
            return None
        earlier = self._keys.get((info.owner, info.key))
        self._keys[info.owner, info.key] = info.id
        return earlier

    async def append(self, stream_id: str, payloads: Sequence[bytes]) -> int:
        """Add events; all readers that wait are woken."""
        log = self._logs.get(stream_id)
        if log is None or log.finished:
            raise StreamLostError("there is no such stream to write to")
        size = _size(payloads)
        if log.size + size > self._max_stream_bytes:
            raise StreamTooLongError("the stream is longer than is kept")
        while self.size + size > self._max_bytes:
            if not self._finished:
                raise StreamTooLongError("the streams together are longer than is kept")
            self._throw_away(self._finished.popleft())
        self._add(log, payloads, size)
        return len(log.payloads)

    async def finish(self, stream_id: str, payloads: Sequence[bytes]) -> None:
        """Add the last events, in spite of any cap, and end the stream."""
        log = self._logs.get(stream_id)
        if log is None or log.finished:
            return
        log.finished = True
        log.info = msgspec.structs.replace(log.info, state="finished")
        log.due = _now() + self._keep
        self._free_key(log.info)
        self._finished.append(stream_id)
        self._add(log, payloads, _size(payloads))
        # The writer may be waiting in watch(), which has nothing more to wait for.
        log.stopping.wake()
        self._arm()

    async def watch(self, stream_id: str, *, wait: float, lease: float) -> Watched:
        """Wait, as its writer, until somebody stops the stream; renews the lease."""
        log = self._known(stream_id)
        # Never shortened: once the stream has finished, due is when it is thrown away.
        log.due = max(log.due, _now() + lease)
        if not log.stop and not log.finished:
            await log.stopping.wait(wait)
        return Watched(log.stop, log.unread(_now()))

    # -- the readers' side ---------------------------------------------------------------------

    async def info(self, stream_id: str) -> StreamInfo | None:
        """Return what is known of a stream."""
        self._purge()
        log = self._logs.get(stream_id)
        return self._gone.get(stream_id) if log is None else log.info

    async def find(self, owner: str, key: str) -> str | None:
        """Return the id of the owner's latest active stream of that key."""
        return self._keys.get((owner, key))

    async def read(self, stream_id: str, after: int, *, wait: float) -> Page:
        """Return the events after number ``after``, waiting for one if there is none."""
        log = self._known(stream_id)
        if after >= len(log.payloads) and not log.finished and wait > 0:
            now = _now()
            # No longer than the writer's lease: if that ends, nothing more will come.
            await log.changed.wait(min(wait, max(log.due - now, 0)))
        end = min(after + _PAGE, len(log.payloads))
        payloads = log.payloads[after:end]
        # What a dead writer has written is still read, then its readers learn that it is lost.
        if not payloads and not log.finished and log.due <= _now():
            raise StreamLostError("the process that wrote this stream has ended")
        return Page(after + 1, payloads, log.finished and end >= len(log.payloads))

    async def attend(self, stream_id: str, reader: str, *, lease: float) -> None:
        """Note that a reader is there, for ``lease`` seconds from now unless renewed."""
        self._known(stream_id).readers[reader] = _now() + lease

    async def leave(self, stream_id: str, reader: str) -> None:
        """Note that a reader has left."""
        log = self._logs.get(stream_id)
        if log is not None and log.readers.pop(reader, None) is not None:
            log.left = _now()

    async def request_stop(self, stream_id: str) -> None:
        """Ask the writer to end the stream."""
        log = self._logs.get(stream_id)
        if log is not None and not log.finished:
            log.stop = True
            log.stopping.wake()

    # -- keeping house -------------------------------------------------------------------------

    def _known(self, stream_id: str) -> _Log:
        self._purge()
        log = self._logs.get(stream_id)
        if log is None:
            raise StreamLostError("there is no such stream")
        return log

    def _add(self, log: _Log, payloads: Sequence[bytes], size: int) -> None:
        log.payloads.extend(payloads)
        log.size += size
        self.size += size
        log.changed.wake()

    def _free_key(self, info: StreamInfo) -> None:
        if info.key is not None and self._keys.get((info.owner, info.key)) == info.id:
            del self._keys[info.owner, info.key]

    def _throw_away(self, stream_id: str) -> None:
        log = self._logs.pop(stream_id)
        self.size -= log.size + log.upkeep
        self._free_key(log.info)
        # Its key and its headers are forgotten with it.
        gone = StreamInfo(id=stream_id, owner=log.info.owner, state="expired")
        self._gone[stream_id] = gone
        self._gone_bytes += _length(gone)
        while len(self._gone) > _REMEMBERED or self._gone_bytes > _REMEMBERED_BYTES:
            self._gone_bytes -= _length(self._gone.popitem(last=False)[1])
        # Readers that wait here learn that there is nothing to wait for.
        log.changed.wake()

    def _purge(self) -> None:
        now = _now()
        while self._finished and self._logs[self._finished[0]].due <= now:
            self._throw_away(self._finished.popleft())

    def _arm(self) -> None:
        """Expire by timer, not on the next request: nothing is kept for longer than promised."""
        if self._timer is None and self._finished:
            due = self._logs[self._finished[0]].due
            self._timer = asyncio.get_running_loop().call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._purge()
        self._arm()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _length(info: StreamInfo) -> int:
    headers = sum(len(name) + len(value) for name, value in info.headers.items())
    return len(info.id) + len(info.owner) + len(info.key or "") + headers


def _size(payloads: Sequence[bytes]) -> int:
    return sum(map(len, payloads)) + _PER_EVENT * len(payloads)
