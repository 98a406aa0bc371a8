"""Cancellable blocks: one left from outside, one left when its reader has gone.

Like ``asyncio.timeout()``, they cancel the task that is inside and take the cancellation back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ReaderGoneError", "ReaderWatch", "Scope"]


class ReaderGoneError(ConnectionError):
    """The reader has left; there is nobody to answer."""


class Scope:
    """``with Scope() as scope``: after ``scope.interrupt()`` what is awaited inside is cancelled.

    Attributes:
        interrupted: whether it was; the task then continues after the block.
    """

    __slots__ = ("_cancelling", "_task", "interrupted")

    def __init__(self) -> None:
        self.interrupted = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def interrupt(self) -> None:
        """Leave the block now; to be called while its task waits. Idempotent."""
        # Outside the block there is nothing to cancel: it would hit whatever the task awaits next.
        if self._task is not None and not self.interrupted:
            self.interrupted = True
            self._task.cancel()

    def __enter__(self) -> Self:
        self.interrupted = False
        self._task = asyncio.current_task()
        assert self._task is not None  # noqa: S101 - we are in a coroutine
        # Cancellations that were pending on entry are not ours; __exit__ counts from here.
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


class ReaderWatch:
    """``with ReaderWatch(gone, every)``: raises ReaderGoneError once the reader has left.

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
        # Polled: neither aiohttp nor ASGI servers interrupt a handler whose browser has left.
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
        # The CancelledError was our own way out of the block, so it is no cause worth showing.
        if self._scope.__exit__(kind, error, traceback):
            raise ReaderGoneError("the reader has left") from None
