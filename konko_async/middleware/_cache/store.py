"""Reads and writes a cache's database in threads, so that the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from konko_async.middleware._cache.database import Database, Entry

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["AnswerStore"]

_log = logging.getLogger("konko_async.cache")
_LONGEST_WAIT: Final = 2.0  # seconds for a lookup; a disk that takes longer counts as a miss
_AT_ONCE: Final = 512  # answers in one transaction
_PENDING: Final = 64 << 20  # bytes that may wait for the disk; what comes beyond is not kept

Asked = list[tuple[bytes, "asyncio.Future[Entry | None]"]]


class AnswerStore:
    """The answers of one folder, for any number of event loops of this process.

    Lookups of one iteration of an event loop are one message to the reading thread; what is stored
    goes to the writing thread, which puts all that waits into one transaction. Both are started by
    the first use and end with :meth:`stop`; later use starts them again. A database that fails is
    reported once, in the log, and from then on nothing is found or kept.

    Args:
        folder: of the database.
        max_bytes: that the answers may take.
        max_age: seconds after which an answer is not used any more; None: never.

    Attributes:
        failure: why the database cannot be used; None while it can.
        skipped: answers that were not kept, as the disk did not keep up.
    """

    def __init__(self, folder: str, *, max_bytes: int, max_age: float | None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_age = max_age
        self.failure: str | None = None
        self.skipped = 0
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._reset()

    def _reset(self) -> None:
        self._reader: _Worker | None = None
        self._writer: _Worker | None = None
        self._gathered: dict[asyncio.AbstractEventLoop, Asked] = {}
        self._fresh: dict[bytes, Entry] = {}  # not in the database yet
        self._waiting = 0  # bytes of these

    def _workers(self) -> tuple[_Worker, _Worker]:
        with self._lock:
            if self._pid != os.getpid():  # after a fork there are no threads
                self._pid = os.getpid()
                self._reset()
            if self._reader is None or self._writer is None:
                self._reader = _Worker("konko-cache-read", self._folder, self._read, self._failed)
                self._writer = _Worker("konko-cache-write", self._folder, self._write, self._failed)
            return self._reader, self._writer

    @property
    def started(self) -> bool:
        """Whether there are threads."""
        return self._reader is not None

    # -- on the event loop -----------------------------------------------------------------------

    def find(self, key: bytes) -> Entry | asyncio.Future[Entry | None] | None:
        """Return the answer under a key, or what to await for it; None if there is neither."""
        fresh = self._fresh.get(key)  # not in the database yet
        if fresh is not None:
            return fresh
        if self.failure is not None:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Entry | None] = loop.create_future()
        gathered = self._gathered.get(loop)
        if gathered is None:
            gathered = self._gathered[loop] = []
            # After this iteration: calls that begin together are one query.
            loop.call_soon(self._send, loop)
        gathered.append((key, future))
        return future

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        asked = self._gathered.pop(loop, [])
        timer = loop.call_later(_LONGEST_WAIT, _answer, asked, {}, None)
        self._workers()[0].put((loop, asked, timer))

    def keep(self, key: bytes, entry: Entry) -> bool:
        """Keep an answer; it is found from now on. Returns whether it is."""
        size = len(entry.body)
        if (
            self.failure is not None
            or self._waiting + size > _PENDING
            or size > self._max_bytes // 4
        ):
            self.skipped += 1
            return False
        self._waiting += size
        self._fresh[key] = entry
        self._workers()[1].put((key, entry))
        return True

    # -- in the threads --------------------------------------------------------------------------

    def _read(self, database: Database | None, items: list[Any]) -> None:
        keys = [key for _, asked, _ in items for key, _ in asked]
        now = time.time()
        found: dict[bytes, Entry] = {}
        try:
            if database is not None:
                found, stale = database.find(keys, now)
                if stale:
                    self._workers()[1].put((stale, None))
        finally:  # the waiting calls must learn of a failure, too
            if self._max_age is not None:
                found = {k: e for k, e in found.items() if now - e.created <= self._max_age}
            for loop, asked, timer in items:
                with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(_answer, asked, found, timer)

    def _write(self, database: Database | None, items: list[Any]) -> None:
        entries = [(key, entry) for key, entry in items if entry is not None]
        used = [key for keys, entry in items if entry is None for key in keys]
        try:
            if database is not None:
                now = time.time()
                database.write(entries, used, now)
                database.make_room(self._max_bytes)
                if self._max_age is not None:
                    database.expire(now - self._max_age)
        finally:
            for key, entry in entries:
                self._waiting -= len(entry.body)
                if self._fresh.get(key) is entry:
                    del self._fresh[key]

    def _failed(self, error: Exception) -> None:
        if self.failure is None:
            self.failure = f"{type(error).__name__}: {error}"
            _log.warning(
                "the answer cache in %s cannot be used (%s): calls are made without it",
                self._folder, self.failure,
            )  # fmt: skip

    def stop(self) -> None:
        """Write what waits, and end the threads. Blocks; idempotent."""
        with self._lock:
            workers = self._reader, self._writer
            self._reader = self._writer = None
            if self._pid != os.getpid():
                return
        for worker in workers:
            if worker is not None:
                worker.stop()


def _answer(asked: Asked, found: dict[bytes, Entry], timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
    for key, future in asked:
        if not future.done():
            future.set_result(found.get(key))


class _Worker:
    """A thread with a connection of its own, which handles all that waits at once.

    A daemon: a client that is never closed must not keep the process alive.
    """

    def __init__(
        self,
        name: str,
        folder: str,
        handle: Callable[[Database | None, list[Any]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._folder = folder
        self._handle = handle
        self._failed = failed
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self.put = self._queue.put
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        database: Database | None = None
        try:
            database = Database(self._folder)
        except Exception as error:  # noqa: BLE001 - sqlite3's errors are not to be imported here
            self._failed(error)
        ended = False
        while not ended:
            items = [self._queue.get()]
            with contextlib.suppress(Empty):
                while len(items) < _AT_ONCE:
                    items.append(self._queue.get_nowait())
            ended = None in items  # stop() puts it last
            work = [item for item in items if item is not None]
            try:
                if work:
                    self._handle(database, work)
            except Exception as error:  # noqa: BLE001 - a thread that dies would leave calls waiting
                self._failed(error)
        if database is not None:
            database.close()

    def stop(self) -> None:
        """Handle what waits, and end the thread."""
        self.put(None)
        self._thread.join()
