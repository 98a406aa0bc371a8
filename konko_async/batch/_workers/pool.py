"""The run's side of workers: gives them rows, and those of one that dies to another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Self

from konko_async import AsyncKonko
from konko_async.batch._calls.caller import AnsweredRow, CallSettings
from konko_async.batch._errors import BatchError, WorkerLostError
from konko_async.batch._input.row_parser import Row
from konko_async.batch._workers.protocol import Message, WorkerLink, Workers
from konko_async.remote import Admission, pack_client

__all__ = ["WorkerPool"]

_log = logging.getLogger("konko_async")
_MOST_DEATHS: Final = 5  # of workers that had the same row
_SUSPECT: Final = 2  # deaths from which on a row is tried again beside no other such row
_BARREN: Final = 3  # workers of one place that died, one after another, before they were ready


class _LostError(Exception):
    """The worker is gone."""


class _WorkerHandle:
    """The run's side of one worker: the link to it, and the rows that it has."""

    def __init__(self, pool: WorkerPool, client: AsyncKonko, barren: int) -> None:
        self.jobs: dict[int, asyncio.Future[AnsweredRow]] = {}
        self.ready = False
        self.barren = barren
        self.link: WorkerLink | None = None
        self.admission = Admission(client, self.send)
        self._pool = pool
        self._handlers: dict[str, Callable[..., object]] = {
            **self.admission.handlers,
            "done": self._done,
            "failed": self._failed,
            "record": pool.observe,
            "ready": self._is_ready,
            "broken": pool.fail,
        }

    def send(self, message: Message) -> None:
        """Send something to the worker."""
        if self.link is not None:
            self.link.send(message)

    def heard(self, messages: list[Message]) -> None:
        """Handle its messages, in order."""
        handlers = self._handlers
        for kind, *rest in messages:
            handlers[kind](*rest)

    def _done(self, index: int, *fields: Any) -> None:
        future = self.jobs.pop(index, None)
        if future is not None and not future.done():
            future.set_result(AnsweredRow(*fields))

    def _failed(self, index: int, error: Exception) -> None:
        future = self.jobs.pop(index, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def _is_ready(self) -> None:
        # Its death from now on does not count as a failed start: _lost() adds one to this.
        self.ready, self.barren = True, -1
        self._pool.changed()


class WorkerPool:
    """Makes the calls of rows, as a ``RowCaller`` does, but in workers.

    Args:
        workers: starts them.
        client: keeps the limits; a copy of it makes the calls in each worker.
        settings: of the calls.
        repeated: called for each row that is given out again.

    Raises:
        ConfigurationError: the client cannot be used in other processes.
    """

    def __init__(
        self,
        workers: Workers,
        client: AsyncKonko,
        *,
        settings: CallSettings,
        repeated: Callable[[], object],
    ) -> None:
        self._workers = workers
        self._client = client
        # Packed before any worker is started: a client that cannot be packed is the caller's error.
        self._hello = ("hello", pack_client(client), settings)
        self._repeated = repeated
        self._hands: list[_WorkerHandle] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BatchError | None = None
        self._any = asyncio.Event()  # one is ready, or none ever will be
        self._closing = False
        self._alone = asyncio.Lock()

    async def __aenter__(self) -> Self:
        for _ in range(self._workers.count):
            self._soon(self._start(0))
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._closing = True
        # A start that is under way would leave a process behind.
        while self._tasks:
            await asyncio.wait(self._tasks)
        hands, self._hands = self._hands, []
        await asyncio.gather(*(self._bury(hand) for hand in hands))

    async def __call__(self, row: Row) -> AnsweredRow:
        """Return the answer to a row.

        Raises:
            KonkoError: what the call failed with, or why there are no workers.
        """
        for deaths in range(_MOST_DEATHS):
            try:
                if deaths < _SUSPECT:
                    return await self._give(row)
                # One of those that were there each time may be to blame. Apart from each other,
                # the others get through.
                async with self._alone:
                    return await self._give(row)
            except _LostError:
                self._repeated()
        raise WorkerLostError(
            f"the worker that made this call died, and so did the next ones ({_MOST_DEATHS})"
        )

    async def _give(self, row: Row) -> AnsweredRow:
        hand = await self._pick()
        index = row.index
        future: asyncio.Future[AnsweredRow] = asyncio.get_running_loop().create_future()
        hand.jobs[index] = future
        hand.send(("row", index, row.line, row.custom_id, row.url, row.body, row.named))
        try:
            return await future
        except asyncio.CancelledError:
            # Otherwise its answer has arrived already, and there is nothing to cancel.
            if hand.jobs.pop(index, None) is not None:
                hand.send(("cancel", index))
            raise

    async def _pick(self) -> _WorkerHandle:
        """Return the worker that has least to do."""
        while True:
            if self._failure is not None:
                # Without the rows that met it before: each raise adds its frames to what is raised.
                raise self._failure.with_traceback(None)
            ready = [hand for hand in self._hands if hand.ready]
            if ready:
                return min(ready, key=lambda hand: len(hand.jobs))
            self._any.clear()
            await self._any.wait()

    # -- workers come and go ---------------------------------------------------------------------

    async def _start(self, barren: int) -> None:
        hand = _WorkerHandle(self, self._client, barren)
        # Before the start, during which the worker may already die: _lost() looks for it here.
        self._hands.append(hand)
        try:
            hand.link = await self._workers.start(
                hand.heard, lambda reason: self._lost(hand, reason)
            )
        except WorkerLostError as error:
            self._lost(hand, str(error))  # killed while it started: another is tried
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, rows wait for this worker
            self.fail(error)
            return
        hand.send(self._hello)

    def _lost(self, hand: _WorkerHandle, reason: str) -> None:
        # While the pool closes, workers are expected to end.
        if self._closing or hand not in self._hands:
            return
        self._hands.remove(hand)
        _log.warning("a worker died (%s): %d rows are given to others", reason, len(hand.jobs))
        for future in hand.jobs.values():
            if not future.done():
                future.set_exception(_LostError())
        hand.jobs.clear()
        self._soon(self._bury(hand))
        if hand.barren + 1 >= _BARREN:
            self.fail(BatchError(f"workers die as soon as they are started: {reason}"))
        else:
            self._soon(self._start(hand.barren + 1))

    async def _bury(self, hand: _WorkerHandle) -> None:
        await hand.admission.close()
        if hand.link is not None:
            await hand.link.close()

    def _soon(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def changed(self) -> None:
        """Wake the rows that wait for a worker: one is ready."""
        self._any.set()

    def fail(self, error: Exception) -> None:
        """End the run: there is nobody to do the work."""
        if self._failure is None:
            failure = error
            if not isinstance(failure, BatchError):
                failure = BatchError(f"a worker cannot be used: {type(error).__name__}: {error}")
                failure.__cause__ = error
            self._failure = failure
            for hand in self._hands:
                for future in hand.jobs.values():
                    if not future.done():
                        # Their rows ask for another worker, and meet the failure in _pick().
                        future.set_exception(_LostError())
                hand.jobs.clear()
        self._any.set()

    def observe(self, record: Any) -> None:
        """Hand a worker's record to the client's observers."""
        for observer in self._client.observers:
            try:
                observer(record)
            except Exception:  # noqa: BLE001 - who watches must not break the run
                _log.exception("an observer failed")
