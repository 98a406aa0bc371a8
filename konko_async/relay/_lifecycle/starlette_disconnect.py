"""Cancels whole answers in Starlette and FastAPI handlers when the browser leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

__all__ = ["while_connected"]

T = TypeVar("T")
_GONE = 499  # nginx's status for a client that has closed the connection


async def while_connected(request: Request, awaitable: Awaitable[T]) -> T:
    """Wait for something for as long as the browser does; for handlers of your own.

    If the browser leaves, what is awaited is cancelled at once, and with it the upstream call. The
    request's body is read first where it has not been; it stays there to be read.

    Args:
        request: the one that is being answered.
        awaitable: such as ``client.chat.completions.create(...)``, or a run of ``run_tools()``.

    Returns:
        What it returned.

    Raises:
        HTTPException: the browser left, with status 499; nobody gets it, and nothing is logged.

    Example:
        >>> @app.post("/title")
        ... async def title(request: Request, text: str) -> str:
        ...     asked = client.chat.completions.create(model=..., messages=[...])
        ...     completion = await while_connected(request, asked)
    """
    task = asyncio.ensure_future(awaitable)
    listener = asyncio.create_task(_left(request))
    try:
        await asyncio.wait((task, listener), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    finally:
        # Also when the handler itself is cancelled: neither may go on without it. wait() raises
        # nothing of theirs.
        for each in (task, listener):
            each.cancel()
        await asyncio.wait((task, listener))
    # With a text of our own: early Starlette looks one up where this status is not.
    raise HTTPException(_GONE, "the client has left")


async def _left(request: Request) -> None:
    """Return when the browser has left; in ASGI, that message follows the body."""
    with suppress(RuntimeError):  # somebody has read it as a stream
        try:
            # Starlette keeps it, so the handler can still read it.
            await request.body()
        except ClientDisconnect:
            return
    while (await request.receive())["type"] != "http.disconnect":
        pass
