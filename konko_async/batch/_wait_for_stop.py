"""Runs blocking or slow work in a way that a requested stop can end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from konko_async.batch._stop import Stop

__all__ = ["RunStopped", "aside", "outlast", "until_stopped"]

T = TypeVar("T")


class RunStopped(Exception):  # noqa: N818 - no error: the user asked for it
    """A stop was requested before the first row was sent."""


async def aside(work: Callable[[Callable[[], None]], T], stop: Stop) -> T:
    """Do blocking work in a thread.

    Args:
        work: given a function that it is to call now and then, which ends it by raising when
            nobody waits any more.
        stop: ends it too.

    Raises:
        RunStopped: a stop was requested.
    """
    left = False

    def tick() -> None:
        if left or stop.requested:
            raise RunStopped

    # A thread cannot be cancelled: tick() makes it raise, and until then its end is awaited.
    task = asyncio.ensure_future(asyncio.to_thread(work, tick))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        left = True
        await outlast(task)
        raise


async def outlast(task: asyncio.Future[Any]) -> None:
    """Wait for the end of work that uses files, however often the waiting is cancelled.

    Closed under it, their descriptors could be those of other files by the time it writes.
    """
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    # Retrieved only so that asyncio does not log it as an exception that nobody looked at.
    if not task.cancelled():
        task.exception()
    if cancelled is not None:
        raise cancelled


async def until_stopped(work: Awaitable[T], stop: Stop) -> T:
    """Await something that may take long; a request to stop cancels it.

    Raises:
        RunStopped: a stop was requested.
    """
    task = asyncio.ensure_future(work)
    unlisten = stop.listen(lambda _level: task.cancel())
    try:
        # Unlike ``await task``, wait() leaves the task alone when it is cancelled itself.
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        raise
    finally:
        unlisten()
    # A cancellation that came from the work itself is passed on, by result().
    if task.cancelled() and stop.requested:
        raise RunStopped
    return task.result()
