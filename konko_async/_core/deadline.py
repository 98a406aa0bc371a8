"""A deadline around awaits: ``asyncio.timeout_at()`` without its coroutines and timers.

They cost 8 µs of the 100 µs that a whole answer takes, at every attempt.
"""

from __future__ import annotations

import asyncio
import math
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Self

import msgspec

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Deadline", "DeadlineQueue", "earliest"]

_SLEPT = 2.0  # seconds; a timer that fires so late was not held up by other callbacks
_FEW = 64  # deadlines that have been left, which are not worth looking for


class DeadlineQueue:
    """The deadlines on one event loop, which share one timer.

    Nearly all of them are left long before they are due, so leaving one costs nothing here: it
    stays in the heap until its time has come, or until most of the others have been left as well.

    Args:
        loop: the running loop.
    """

    __slots__ = ("_heap", "_order", "_timer", "_wake", "loop", "open")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.open = 0  # deadlines that have not been left
        self._heap: list[tuple[float, int, Deadline]] = []
        self._order = count()  # deadlines themselves cannot be compared
        self._timer: asyncio.TimerHandle | None = None
        self._wake = math.inf

    def watch(self, deadline: Deadline, when: float) -> None:
        """Let a deadline expire at ``when``, unless it has been left or moved by then."""
        heap = self._heap
        if len(heap) > 2 * self.open + _FEW:
            heap[:] = [entry for entry in heap if entry[2].when is not None]
            heapify(heap)
        heappush(heap, (when, next(self._order), deadline))
        if when < self._wake:
            self._wake_at(when)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wake = when
        self._timer = self.loop.call_at(when, self._expire)

    def _expire(self) -> None:
        heap, now = self._heap, self.loop.time()
        due = max(now, self._wake)  # timers may fire a little early
        self._timer, self._wake = None, math.inf
        while heap and heap[0][0] <= due:
            deadline = heappop(heap)[2]
            when = deadline.when
            if when is None:  # it has been left
                continue
            if when <= due and now - when > _SLEPT:
                # The machine slept, or the process was stopped: time that nobody had is given back,
                # as the answer may lie in the socket, unread.
                deadline.when = when = now + (now - when)
            if when <= due:
                deadline.expire()
            else:
                deadline.watched = when
                heappush(heap, (when, next(self._order), deadline))
        if heap:
            self._wake_at(heap[0][0])


class Deadline(msgspec.Struct, eq=False):
    """Cancels the task inside ``with`` when the time comes, and raises TimeoutError in its place.

    A cancellation from outside that comes at the same moment wins, as with asyncio's own.

    Attributes:
        queue: of the running loop.
        when: ``loop.time()`` at which it is over; None: never, or it is over or has been left.
        last: the time beyond which :meth:`allow` does not move it, or None.
        watched: the time at which its queue looks at it next, or None.
        expired: whether it is over.
    """

    queue: DeadlineQueue
    when: float | None
    last: float | None = None
    watched: float | None = None
    expired: bool = False
    _task: asyncio.Task[object] | None = None
    _cancelling: int = 0

    def __enter__(self) -> Self:
        task = self._task = asyncio.current_task(self.queue.loop)
        assert task is not None  # noqa: S101 - awaits happen in tasks
        # As asyncio.timeout() does: only if our own cancel() is the only one that is new may it be
        # taken back and become a TimeoutError.
        self._cancelling = task.cancelling()
        queue, when = self.queue, self.when
        queue.open += 1
        self.watched = when
        if when is not None:
            queue.watch(self, when)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The queue may keep this for a while: it must hold neither the task nor what that holds.
        task, self._task = self._task, None
        self.when = None
        self.queue.open -= 1
        if (
            self.expired
            and task is not None
            and task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def allow(self, silence: float | None) -> None:
        """Let it be over so many seconds from now; None: at the last time.

        Nothing changes if it is over already.
        """
        if self.expired:
            return
        until = None if silence is None else self.queue.loop.time() + silence
        self.when = when = earliest(self.last, until)
        # Where its queue looks too early, it looks again when the time has come.
        if when is not None and (self.watched is None or when < self.watched):
            self.watched = when
            self.queue.watch(self, when)

    def expire(self) -> None:
        """Cancel the task: the time has come."""
        # Before cancel(): what the cancellation wakes may look whether the deadline was the reason.
        self.expired = True
        self.when = None
        assert self._task is not None  # noqa: S101 - it has not been left
        self._task.cancel()


def earliest(first: float | None, second: float | None) -> float | None:
    """Return the earlier of two times, either of which may be None: never."""
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)
