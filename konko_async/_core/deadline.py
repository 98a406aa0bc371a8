"""A deadline around awaits: ``asyncio.timeout_at()`` without its two coroutines.

They cost 4 µs of the 120 µs that a whole answer takes, at every attempt.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Deadline", "earliest"]

_SLEPT = 2.0  # seconds; a timer that fires so late was not held up by other callbacks


class Deadline:
    """Cancels the task inside ``with`` when the time comes, and raises TimeoutError in its place.

    A cancellation from outside that comes at the same moment wins, as with asyncio's own.

    Args:
        loop: the running loop.
        when: ``loop.time()`` at which it is over, or None.
        last: the time beyond which :meth:`allow` does not move it, or None.
    """

    __slots__ = ("_cancelling", "_handle", "_last", "_loop", "_task", "expired")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, when: float | None, last: float | None = None
    ) -> None:
        self._loop = loop
        self._last = last
        self.expired = False
        self._handle = None if when is None else loop.call_at(when, self._expire)

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - awaits happen in tasks
        self._task = task
        # As asyncio.timeout() does: only if our own cancel() is the only one that is new may it be
        # taken back and become a TimeoutError.
        self._cancelling = task.cancelling()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if (
            self.expired
            and self._task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def allow(self, silence: float | None) -> None:
        """Let it be over so many seconds from now; None: at the last time.

        Nothing changes if it is over already.
        """
        if self.expired:
            return
        if self._handle is not None:
            self._handle.cancel()
        until = None if silence is None else self._loop.time() + silence
        when = earliest(self._last, until)
        self._handle = None if when is None else self._loop.call_at(when, self._expire)

    def _expire(self) -> None:
        handle = self._handle
        if handle is not None and (late := self._loop.time() - handle.when()) > _SLEPT:
            # The machine slept, or the process was stopped: time that nobody had is given back, as
            # the answer may lie in the socket, unread.
            self._handle = self._loop.call_later(late, self._expire)
            return
        # Before cancel(): what the cancellation wakes may look whether the deadline was the reason.
        self.expired = True
        self._handle = None
        self._task.cancel()


def earliest(first: float | None, second: float | None) -> float | None:
    """Return the earlier of two times, either of which may be None: never."""
    if first is None or second is None:
        return second if first is None else first
    return min(first, second)
