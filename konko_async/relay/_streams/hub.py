"""Resumable streams: one upstream call and any number of readers, who may come and go."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from konko_async import ChatStream, KonkoError
from konko_async.relay._errors import (
    StoreUnavailableError,
    StreamLostError,
    StreamTooLongError,
)
from konko_async.relay._formats.base import Format, StopReason
from konko_async.relay._formats.sse_frames import frames, numbered
from konko_async.relay._stores.base import Page, StreamInfo, StreamStore
from konko_async.relay._stores.memory import MemoryStore
from konko_async.relay._stores.store_health import StreamStoreHealth
from konko_async.relay._streams.cancel_scope import Scope
from konko_async.relay._streams.source import Timing, note_failure, note_fault

__all__ = ["HubSource", "StreamHub", "StreamRun"]

LEASE = 30.0  # seconds after which a writer or a reader that says nothing counts as dead
# Three times per lease: one renewal that is late or lost does not count as a death.
_RENEW = LEASE / 3
_SHORTEST = 0.05  # seconds between two looks at whether anybody still reads
_RETRY = 1.0  # seconds between two tries while a store fails
_FOR_EVER = 1e9  # seconds


class StreamRun:
    """One upstream call, written to a store whether or not anybody reads.

    Attributes:
        info: as the store has it.
        store: where the stream is: the one given, or one of its own since that went away.
        detached: whether it is one of its own.
        readers: those of this process.
        on_end: called once nothing of it is under way upstream any more, or None.
        health: where failures of the store are noted.
    """

    def __init__(
        self,
        stream: ChatStream,
        format: Format,
        info: StreamInfo,
        store: StreamStore,
        linger: float,
    ) -> None:
        self.info = info
        self.store = store
        self.health = StreamStoreHealth()
        # What has arrived so far: if the store goes away, this process's readers miss nothing.
        # A MemoryStore cannot go away, so nothing is kept twice for it.
        self._copy: list[bytes] | None = None if type(store) is MemoryStore else []
        self.detached = False
        self.readers: set[HubSource] = set()
        self.on_end: Callable[[], object] | None = None
        self._stream = stream
        self._format = format
        self._linger = linger
        self._timing = Timing()
        self._reason: StopReason | None = None
        self._scope = Scope()
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._waiting = 0  # how many wait for the first delta; no reader attends before it
        self._left = loop.time()  # when the last of them stopped waiting
        self._opened: asyncio.Future[None] = loop.create_future()

    async def opened(self) -> None:
        """Wait for the first delta, or for the stream's stop.

        Raises:
            KonkoError: the call failed before.
        """
        self._waiting += 1
        try:
            # All who wait share one future: one that leaves must not cancel it for the others.
            await asyncio.shield(self._opened)
        finally:
            self._waiting -= 1
            self._left = self._clock()

    def stop(self, reason: StopReason) -> None:
        """End the stream for all who read it; upstream is cancelled at once."""
        if self._reason is None:
            self._reason = reason
            self._scope.interrupt()

    async def run(self) -> None:
        """Write the whole stream; returns when it has ended, however it did."""
        warden = asyncio.create_task(self._guard())
        last: list[bytes] | None = None
        try:
            last = await self._relayed()
        finally:
            warden.cancel()
            try:
                # wait() raises nothing of the warden's: however it ended, the call is closed.
                await asyncio.wait([warden])
                await self._stream.close()
            finally:
                # Its slot is free from here on; a store that is slow keeps nobody waiting.
                if self.on_end is not None:
                    self.on_end()
            # Without last events this task was cancelled itself, as asyncio.run() does at its end:
            # readers get the event of a shutdown, rather than wait for the lease to end.
            await self._finish(self._format.stop("shutdown") if last is None else last)
            # Whoever still waits for the first delta is let go, and reads the last events.
            self._open()

    async def _relayed(self) -> list[bytes]:
        """Write all but the last events; return those."""
        stream, written, name = self._stream, self._format, self.info.id
        with self._scope:
            try:
                # A stop may have come before this task ran: the scope was not entered, and could
                # not be interrupted.
                if self._reason is None:
                    await stream.__aenter__()
                    await self._append(written.begin(name))
                    self._open()
                    while (batch := await stream.read()) is not None:
                        payloads = written.take(batch)
                        if payloads:
                            await self._append(payloads)
                    return written.end(await stream.completion(), self._timing.stats(stream))
            except Exception as error:  # noqa: BLE001 - a store's own; readers get an event
                return self._failed(error)
        self._open()
        return written.stop(self._reason or "stopped")

    async def _append(self, payloads: list[bytes]) -> None:
        # Into the copy first: what the store then fails to take is not lost to our readers.
        if self._copy is not None:
            self._copy += payloads
        try:
            await self.store.append(self.info.id, payloads)
        # A cap is the answer of a store that works; there is nothing to detach from.
        except StreamTooLongError:
            raise
        except Exception as error:
            if not await self.detach(error):
                raise

    async def detach(self, error: Exception) -> bool:
        """Continue without the store, which failed: no other process can resume the answer.

        Returns:
            Whether there is a store now that this process's readers can read from.
        """
        # Taken at once: the writer, the warden and every reader may find the store gone, and the
        # first of them moves the stream.
        copy, self._copy = self._copy, None
        if copy is None:
            return self.detached
        if not isinstance(error, StreamLostError):  # that is the answer of a store that works
            self.health.failed(error)
        # A MemoryStore's methods never suspend, so nobody sees a stream that is half moved.
        own = MemoryStore()
        # No lease: the writer is in this process, and its end is seen by all. No key:
        # chats are looked up in the shared store, never in this one.
        await own.create(msgspec.structs.replace(self.info, key=None), lease=_FOR_EVER)
        await own.append(self.info.id, copy)
        self.store, self.detached = own, True
        # They may be waiting in the store that went away.
        for reader in list(self.readers):
            reader.moved()
        return True

    def _failed(self, error: Exception) -> list[bytes]:
        if not isinstance(error, KonkoError):
            note_fault(error)
            error = KonkoError("the store of streams failed")
        note_failure(error, self._stream.request_id)
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()  # retrieved here, as the waiting call may have left
        return self._format.fail(error)

    def _open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    async def _finish(self, last: list[bytes]) -> None:
        try:
            await self.store.finish(self.info.id, last)
        except Exception as error:  # noqa: BLE001 - a store's own; the lease ends anyway
            note_fault(error)

    async def _guard(self) -> None:
        """Stop the stream on request, or when it has had no readers for too long."""
        wait = min(self._linger, _RENEW)
        while self._reason is None:
            try:
                told = await self.store.watch(self.info.id, wait=wait, lease=LEASE)
            except StreamLostError as error:
                if await self.detach(error):  # a store that was restarted, and has kept nothing
                    continue
                self.stop("abandoned")
                return
            except Exception as error:  # noqa: BLE001 - a store's own; it may come back
                self.health.failed(error)
                # watch() did not wait: without a delay, this would spin until the store is back.
                await asyncio.sleep(_RETRY)
                continue
            # Readers attend once there is something to read. Those that wait for the first delta
            # are no absentees, and their leaving starts the linger anew.
            unread = 0 if self._waiting else min(told.unread, self._clock() - self._left)
            if told.stop:
                self.stop("stopped")
            elif unread >= self._linger:
                self.stop("abandoned")
            # Until the linger would be over, but never so long that the writer's lease ends.
            wait = min(max(self._linger - unread, _SHORTEST), _RENEW)


class HubSource:
    """One reader of a stream that is kept.

    Args:
        store: of the stream.
        info: of the stream.
        after: the number of the last event that the reader has.
        fail: makes the stream's event for a failure.
        stop: makes the stream's event for an end by this side.
        run: the upstream call, if it is this process that makes it.

    Attributes:
        headers: the format's, and ``X-Stream-Id``.
    """

    def __init__(
        self,
        store: StreamStore,
        info: StreamInfo,
        after: int,
        *,
        fail: Callable[[KonkoError], list[bytes]],
        stop: Callable[[StopReason], list[bytes]],
        run: StreamRun | None = None,
    ) -> None:
        self.headers: Mapping[str, str] = {**info.headers, "X-Stream-Id": info.id}
        self._given = store
        self._id = info.id
        self._after = after
        self._say_failed = fail
        self._say_stopped = stop
        self._run = run
        # Names this reader in the store, where every process notes its own.
        self._reader = secrets.token_hex(8)
        self._attended: float | None = None  # when the lease was renewed
        if run is not None:
            run.readers.add(self)
        self._ended = False
        self._reason: StopReason | None = None
        self._scope = Scope()
        self._clock = asyncio.get_running_loop().time

    @property
    def _store(self) -> StreamStore:
        return self._given if self._run is None else self._run.store

    async def read(self) -> bytes | None:
        """Wait for events; those missed come first. None at the end."""
        if self._ended:
            return None
        while self._reason is None:
            # Remembered: the failure of a store that the stream has left by now is not the
            # stream's.
            store, page, failed = self._store, None, None
            with self._scope:
                try:
                    page = await self._page()
                except Exception as error:  # noqa: BLE001 - a store's own; the reader learns of it
                    failed = error
            # Outside the scope: moving the stream to another store interrupts every reader's scope.
            if failed and store is self._store and not await self._survives(failed):
                return self._lost(failed)
            if page is None:  # stopped; or the stream is in another store now
                # A store that the stream was moved to does not know this reader yet.
                self._attended = None
                continue
            self._ended = page.finished
            if page.payloads:
                self._after += len(page.payloads)
                return numbered(page.payloads, self._id, page.first)
            if page.finished:
                return None
        self._ended = True
        # Without an id: the event is not in the log, and a reader that comes back by its last id
        # must still get what was there.
        return frames(self._say_stopped(self._reason))

    def moved(self) -> None:
        """Look where the stream is now."""
        self._scope.interrupt()

    def _lost(self, error: Exception) -> bytes:
        self._ended = True
        if not isinstance(error, KonkoError):
            note_fault(error)
            error = StreamLostError("the store failed")
        return frames(self._say_failed(error))

    async def _page(self) -> Page:
        # Before the read, which may wait: the writer has to see that somebody is there. The read
        # waits no longer than until the lease is to be renewed.
        await self._attend()
        return await self._store.read(self._id, self._after, wait=_RENEW)

    async def _survives(self, error: Exception) -> bool:
        """Whether the stream survives its store, as only those do that this process writes."""
        return self._run is not None and not self._run.detached and await self._run.detach(error)

    async def _attend(self) -> None:
        now = self._clock()
        if self._attended is None or now - self._attended >= _RENEW:
            self._attended = now
            await self._store.attend(self._id, self._reader, lease=LEASE)

    def stop(self, reason: StopReason) -> None:
        """End the stream if it is this process that makes the call, else this reader's part."""
        if self._run is not None:
            self._run.stop(reason)
        else:
            # Another process writes it, and carries on: this one shuts down, say.
            self._reason = self._reason or reason
            self._scope.interrupt()

    async def close(self) -> None:
        """Leave; the stream continues for as long as it lingers. Idempotent."""
        self._ended = True
        if self._run is not None:
            self._run.readers.discard(self)
        if self._attended is not None:
            self._attended = None
            try:
                await self._store.leave(self._id, self._reader)
            except Exception as error:  # noqa: BLE001 - a store's own; the lease ends by itself
                note_fault(error)


class StreamHub:
    """The resumable streams of one process.

    Args:
        store: keeps them.
        linger: seconds that a stream continues without readers. Default 60.
        on_idle: called after each end of a stream.
        health: where failures of the store are noted.
    """

    def __init__(
        self,
        store: StreamStore,
        *,
        linger: float = 60.0,
        on_idle: Callable[[], object] | None = None,
        health: StreamStoreHealth | None = None,
    ) -> None:
        self._health = health or StreamStoreHealth()
        self._store = store
        self._linger = linger
        self._on_idle = on_idle
        self._runs: dict[str, tuple[StreamRun, asyncio.Task[None]]] = {}

    async def start(
        self,
        stream: ChatStream,
        format: Format,
        *,
        owner: str,
        key: str | None = None,
        name: str = "openai",
        on_end: Callable[[], object] | None = None,
    ) -> StreamRun:
        """Begin to relay a stream, in a task of its own.

        Args:
            stream: not open yet.
            format: one for this stream alone.
            owner: the identity that may read and stop it.
            key: what the owner calls it, or None.
            name: of the format.
            on_end: called when nothing of it is under way upstream any more; idempotent.

        Raises:
            StoreFullError: the store takes no more.
            StoreUnavailableError: the store fails.
        """
        info = StreamInfo(
            id=secrets.token_urlsafe(16),
            owner=owner,
            key=key,
            format=name,
            headers=dict(format.headers),
        )
        earlier = await self._health.use(self._store.create(info, lease=LEASE))
        # Only now that the new stream has the key: a call that resumes the chat meanwhile finds the
        # new one, not one that is about to end.
        if earlier is not None:
            await self._supersede(earlier)
        run = StreamRun(stream, format, info, self._store, self._linger)
        run.health = self._health
        run.on_end = on_end
        # Whoever is to resume a stream needs its id, which cannot be guessed: a task's name shows
        # up in debug output, so it has the beginning only.
        task = asyncio.create_task(run.run(), name=f"konko_async.relay {info.id[:4]}…")

        def ended(_: object) -> None:
            del self._runs[info.id]
            # Again: of a task that is cancelled before its first step, no finally runs.
            if on_end is not None:
                on_end()
            if self._on_idle is not None:
                self._on_idle()

        self._runs[info.id] = run, task
        task.add_done_callback(ended)
        return run

    async def _supersede(self, stream_id: str) -> None:
        """End the stream that had a key until now, here or in another process."""
        run, _ = self._runs.get(stream_id, (None, None))
        if run is not None:
            run.stop("stopped")
            return
        with suppress(StoreUnavailableError):  # else the old answer lingers, then ends
            await self._health.use(self._store.request_stop(stream_id))

    def source(
        self,
        info: StreamInfo,
        after: int,
        fail: Callable[[KonkoError], list[bytes]],
        stop: Callable[[StopReason], list[bytes]],
    ) -> HubSource:
        """Return a reader of a stream, from the event after number ``after`` on."""
        run, _ = self._runs.get(info.id, (None, None))
        return HubSource(self._store, info, after, fail=fail, stop=stop, run=run)

    def stop(self, stream_id: str, owner: str) -> bool:
        """End a stream that this process writes; returns whether there is one of this owner."""
        run, _ = self._runs.get(stream_id, (None, None))
        if run is None or run.info.owner != owner:
            return False
        run.stop("stopped")
        return True

    async def close(self) -> None:
        """End all streams of this process with the event of a shutdown."""
        runs = list(self._runs.values())
        for run, _ in runs:
            run.stop("shutdown")
        if runs:
            await asyncio.shield(asyncio.wait([task for _, task in runs]))
