"""Waiting that ends when the user asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from konko_async.batch._stop import Stop

__all__ = ["Stopped", "aside", "outlast", "until_stopped"]

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - no error: the user asked for it
    """The user asked to stop before the first row was begun."""


async def aside(work: Callable[[Callable[[], None]], T], stop: Stop) -> T:
    """Do blocking work in a thread.

    Args:
        work: given a function that it is to call now and then, which ends it by raising when
            nobody waits any more.
        stop: ends it too.

    Raises:
        Stopped: the user asked for it.
    """
    left = False

    def tick() -> None:
        if left or stop.requested:
            raise Stopped

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
    if not task.cancelled():
        task.exception()
    if cancelled is not None:
        raise cancelled


async def until_stopped(work: Awaitable[T], stop: Stop) -> T:
    """Await something that may take long; a request to stop cancels it.

    Raises:
        Stopped: the user asked for it.
    """
    task = asyncio.ensure_future(work)
    unlisten = stop.listen(lambda _level: task.cancel())
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait([task])
        raise
    finally:
        unlisten()
    if task.cancelled() and stop.requested:
        raise Stopped
    return task.result()
