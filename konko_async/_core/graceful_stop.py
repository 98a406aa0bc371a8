"""A graceful stop: requests that have not been sent are given back, the others are completed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

__all__ = ["NOBODYS", "Work", "current_work", "resting", "start_work"]


class Work:
    """One request of a fan-out, as far as a graceful stop is concerned.

    Once an attempt has been sent, in whatever task, the request runs to completion: its answer is
    paid for. Before that, and again once all its attempts have failed, a stop cancels it while it
    waits for the limits or for the next attempt.

    Attributes:
        task: the task that makes the request; None until it is known.
        returned: whether it was given back; its cancellation is then not a failure.
    """

    __slots__ = ("_begun", "_resting", "_stopping", "returned", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.returned = False
        self._begun = 0  # attempts on their way, or answered
        self._resting = 0
        self._stopping = False

    def check(self) -> None:
        """Keep a request from being sent after a stop, if no attempt is on its way.

        Raises:
            CancelledError: the run was stopped, and nothing was sent.
        """
        # Raised here and not by the task's cancel(), which would work at its next wait only: the
        # request may have been sent by then.
        if self._stopping and not self._begun:
            self.returned = True
            raise asyncio.CancelledError("given back: the run was stopped, and nothing was sent")

    def begin(self) -> None:
        """Note that an attempt is sent."""
        self._begun += 1

    def fail(self) -> None:
        """Note that an attempt failed."""
        self._begun -= 1
        self._give_back()

    def rest(self) -> None:
        """Note the beginning of a wait.

        Raises:
            CancelledError: see :meth:`check`.
        """
        # A stop that came before the wait: the request need not begin to wait.
        self.check()
        self._resting += 1

    def rise(self) -> None:
        """Note the end of a wait."""
        self._resting -= 1

    def stop(self) -> None:
        """Give the request back now, or as soon as no attempt of it is on its way."""
        self._stopping = True
        self._give_back()

    def _give_back(self) -> None:
        # Only while it rests: a cancel() in any other await could hit an attempt that is being
        # sent.
        if self._stopping and self._resting and not self._begun and self.task is not None:
            self.returned = True
            self.task.cancel()


NOBODYS: Final = Work()
"""Shared by all that no fan-out began: nobody stops it, and nothing needs to be noted."""

_current: Final[ContextVar[Work]] = ContextVar("konko_async_work", default=NOBODYS)
current_work = _current.get
start_work = _current.set


@contextmanager
def resting() -> Iterator[None]:
    """Mark a wait during which a graceful stop may give the request back.

    For middleware that makes a request wait before it is sent, as the limits and the back-off
    between attempts do. Outside a ``map()`` or a batch it does nothing. Where an answer has already
    been paid for, or another attempt is on its way, nothing is given back.

    Raises:
        CancelledError: the run has been stopped.
    """
    work = _current.get()
    work.rest()
    try:
        yield
    finally:
        work.rise()
