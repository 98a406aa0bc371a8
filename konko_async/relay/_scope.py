"""A block that may be left from outside, and one that is left when a reader has gone.

As ``asyncio.timeout()`` does, they cancel the task that is inside and take the cancellation back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ReaderGoneError", "Scope", "Watch"]


class ReaderGoneError(ConnectionError):
    """The reader has left; there is nobody to answer."""


class Scope:
    """``with Scope() as scope``: after ``scope.interrupt()`` what is awaited inside is cancelled.

    Attributes:
        interrupted: whether it was; the block was then left, and goes on behind it.
    """

    __slots__ = ("_cancelling", "_task", "interrupted")

    def __init__(self) -> None:
        self.interrupted = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def interrupt(self) -> None:
        """Leave the block now; to be called while its task waits. Idempotent."""
        if self._task is not None and not self.interrupted:
            self.interrupted = True
            self._task.cancel()

    def __enter__(self) -> Self:
        self.interrupted = False
        self._task = asyncio.current_task()
        assert self._task is not None  # noqa: S101 - we are in a coroutine
        self._cancelling = self._task.cancelling()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        task, self._task = self._task, None
        if not self.interrupted or task is None:
            return False
        # Somebody else's cancellation that came in between is not ours to swallow.
        return task.uncancel() <= self._cancelling and kind is asyncio.CancelledError


class Watch:
    """``with Watch(gone, every)``: leaves the block by ReaderGoneError once the reader has left.

    One timer, re-armed when it fires.

    Args:
        gone: whether the reader has left.
        every: seconds between looks.
    """

    __slots__ = ("_every", "_gone", "_loop", "_scope", "_timer")

    def __init__(self, gone: Callable[[], bool], every: float) -> None:
        self._gone = gone
        self._every = every
        self._scope = Scope()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Look at once; adapters may call it when they hear that the reader has left."""
        if self._gone() or self._hopeless(self._loop.time()):
            self._scope.interrupt()
        else:
            self._timer = self._loop.call_later(self._every, self.look)

    def _hopeless(self, now: float) -> bool:  # noqa: ARG002 - for those who inherit
        return False

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self._timer = self._loop.call_later(self._every, self.look)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._scope.__exit__(kind, error, traceback):
            raise ReaderGoneError("the reader has left") from None
