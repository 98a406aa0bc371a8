"""One upstream call, any number of readers, who may come and go."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping

from konko_async import ChatStream, KonkoError
from konko_async.relay._errors import StreamLostError
from konko_async.relay._format import Format, StopReason
from konko_async.relay._frames import frames, numbered
from konko_async.relay._scope import Scope
from konko_async.relay._source import Timing, note_failure, note_fault
from konko_async.relay._store import StreamInfo, StreamStore

__all__ = ["HubSource", "Run", "StreamHub"]

LEASE = 30.0  # seconds after which a writer or a reader that says nothing counts as dead
_RENEW = LEASE / 3
_SHORTEST = 0.05  # seconds between two looks at whether anybody still reads
_RETRY = 1.0  # seconds, where a store fails


class Run:
    """One upstream call, written to a store whoever reads.

    Attributes:
        info: as the store has it.
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
        self._stream = stream
        self._format = format
        self._store = store
        self._linger = linger
        self._timing = Timing()
        self._reason: StopReason | None = None
        self._scope = Scope()
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._waiting = 0  # how many wait for the first delta; no reader attends before it
        self._left = loop.time()  # when the last of them stopped
        self._opened: asyncio.Future[None] = loop.create_future()

    async def opened(self) -> None:
        """Wait for the first delta, or for the stream's stop.

        Raises:
            KonkoError: the call failed before.
        """
        self._waiting += 1
        try:
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
            await asyncio.wait([warden])
            await self._stream.close()
            await self._finish(self._format.stop("shutdown") if last is None else last)
            self._open()

    async def _relayed(self) -> list[bytes]:
        """Write all but the last events; return those."""
        stream, written, store, name = self._stream, self._format, self._store, self.info.id
        with self._scope:
            try:
                if self._reason is None:
                    await stream.__aenter__()
                    await store.append(name, written.begin(name))
                    self._open()
                    while (batch := await stream.read()) is not None:
                        payloads = written.take(batch)
                        if payloads:
                            await store.append(name, payloads)
                    return written.end(await stream.completion(), self._timing.stats(stream))
            except Exception as error:  # noqa: BLE001 - a store's own; readers are told anyway
                return self._failed(error)
        self._open()
        return written.stop(self._reason or "stopped")

    def _failed(self, error: Exception) -> list[bytes]:
        if not isinstance(error, KonkoError):
            note_fault(error)
            error = KonkoError("the store of streams failed")
        note_failure(error, self._stream.request_id)
        if not self._opened.done():
            self._opened.set_exception(error)
            self._opened.exception()  # whoever asked may have left
        return self._format.fail(error)

    def _open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    async def _finish(self, last: list[bytes]) -> None:
        try:
            await self._store.finish(self.info.id, last)
        except Exception as error:  # noqa: BLE001 - a store's own; the lease tells the readers
            note_fault(error)

    async def _guard(self) -> None:
        """Stop the stream when somebody asks for it, or when nobody reads it any more."""
        wait = min(self._linger, _RENEW)
        while self._reason is None:
            try:
                told = await self._store.watch(self.info.id, wait=wait, lease=LEASE)
            except StreamLostError:
                self.stop("abandoned")
                return
            except Exception as error:  # noqa: BLE001 - a store's own; it may come back
                note_fault(error)
                await asyncio.sleep(_RETRY)
                continue
            unread = 0 if self._waiting else min(told.unread, self._clock() - self._left)
            if told.stop:
                self.stop("stopped")
            elif unread >= self._linger:
                self.stop("abandoned")
            wait = min(max(self._linger - unread, _SHORTEST), _RENEW)


class HubSource:
    """One reader of a stream that is kept.

    Args:
        store: of the stream.
        info: of the stream.
        after: the number of the last event that the reader has.
        fail: how the stream's format tells of a failure.
        stop: how it tells that this side ends it.
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
        run: Run | None = None,
    ) -> None:
        self.headers: Mapping[str, str] = {**info.headers, "X-Stream-Id": info.id}
        self._store = store
        self._id = info.id
        self._after = after
        self._say_failed = fail
        self._say_stopped = stop
        self._run = run
        self._reader = secrets.token_hex(8)
        self._attended: float | None = None  # when the lease was renewed
        self._ended = False
        self._reason: StopReason | None = None
        self._scope = Scope()
        self._clock = asyncio.get_running_loop().time

    async def read(self) -> bytes | None:
        """Wait for events; those missed come first. None at the end."""
        if self._ended:
            return None
        with self._scope:
            try:
                while self._reason is None:
                    await self._attend()
                    page = await self._store.read(self._id, self._after, wait=_RENEW)
                    self._ended = page.finished
                    if page.payloads:
                        self._after += len(page.payloads)
                        return numbered(page.payloads, self._id, page.first)
                    if page.finished:
                        return None
            except KonkoError as error:
                self._ended = True
                return frames(self._say_failed(error))
            except Exception as error:  # noqa: BLE001 - a store's own; the reader is told anyway
                note_fault(error)
                self._ended = True
                return frames(self._say_failed(StreamLostError("the store failed")))
        self._ended = True
        return frames(self._say_stopped(self._reason or "stopped"))

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
            self._reason = self._reason or reason
            self._scope.interrupt()

    async def close(self) -> None:
        """Leave; the stream goes on for as long as it lingers. Idempotent."""
        self._ended = True
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
        linger: seconds that a stream goes on without readers. Default 60.
        on_idle: called after each end of a stream.
    """

    def __init__(
        self,
        store: StreamStore,
        *,
        linger: float = 60.0,
        on_idle: Callable[[], object] | None = None,
    ) -> None:
        self._store = store
        self._linger = linger
        self._on_idle = on_idle
        self._runs: dict[str, tuple[Run, asyncio.Task[None]]] = {}

    async def start(
        self,
        stream: ChatStream,
        format: Format,
        *,
        owner: str,
        key: str | None = None,
        name: str = "openai",
        on_end: Callable[[], object] | None = None,
    ) -> Run:
        """Begin to relay a stream, in a task of its own.

        Args:
            stream: not open yet.
            format: one for this stream alone.
            owner: the identity that may read and stop it.
            key: what the owner calls it, or None.
            name: of the format.
            on_end: called when it has ended.

        Raises:
            StoreFullError: the store takes no more.
        """
        info = StreamInfo(
            id=secrets.token_urlsafe(16),
            owner=owner,
            key=key,
            format=name,
            headers=dict(format.headers),
        )
        await self._store.create(info, lease=LEASE)
        run = Run(stream, format, info, self._store, self._linger)
        task = asyncio.create_task(run.run(), name=f"konko_async.relay {info.id[:4]}…")

        def ended(_: object) -> None:
            del self._runs[info.id]
            if on_end is not None:
                on_end()
            if self._on_idle is not None:
                self._on_idle()

        self._runs[info.id] = run, task
        task.add_done_callback(ended)
        return run

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

    async def close(self) -> None:
        """End all streams of this process with the event of a shutdown."""
        runs = list(self._runs.values())
        for run, _ in runs:
            run.stop("shutdown")
        if runs:
            await asyncio.shield(asyncio.wait([task for _, task in runs]))
