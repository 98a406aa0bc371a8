"""Calls a tool's function so that nothing it does reaches the event loop or the process."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any, NamedTuple

from konko_async._core.misuse import NotAwaitable
from konko_async.tools._result import drained, drained_async, output_of
from konko_async.tools._tool import Tool

__all__ = ["Called", "call_tool", "runs_in_thread"]

_THREAD_NAME = "konko_async_tool"


class Called(NamedTuple):
    """The end of a call: what it returned, as a value and as text, or what it raised.

    Attributes:
        value: what the function returned, or all that it yielded.
        output: that as text.
        error: what it raised, of any kind.
    """

    value: Any = None
    output: str = ""
    error: BaseException | None = None


def runs_in_thread(tool: Tool, *, default: bool) -> bool:
    """Whether a tool's function runs in a thread: one that is sync, unless told otherwise."""
    allowed = default if tool.run_in_thread is None else tool.run_in_thread
    return allowed and not _is_async(tool.function)


def _is_async(function: Any) -> bool:
    # inspect looks through partials of functions only, not through those of callable objects.
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


async def call_tool(
    tool: Tool, arguments: dict[str, Any], *, in_thread: bool, max_output: int
) -> Called:
    """Call a tool's function, and read all of what it returns or yields.

    Whatever it raises is returned: SystemExit and KeyboardInterrupt would end the event loop, and
    no coroutine can raise StopIteration.

    Args:
        tool: the tool.
        arguments: by name.
        in_thread: whether in a thread of its own.
        max_output: characters of its output.
    """
    work = functools.partial(_called, tool.function, arguments, max_output)
    done = await _in_thread(work) if in_thread else work()
    if done.error is None and _is_async_value(done.value):
        return await _awaited(done.value, max_output)
    return done


def _called(function: Callable[..., Any], arguments: dict[str, Any], max_output: int) -> Called:
    try:
        value = function(**arguments)
        # An awaitable belongs to the loop, so it is handed back unread. All else is read here, as a
        # generator may block.
        return Called(value) if _is_async_value(value) else _told(value, max_output)
    except BaseException as error:  # noqa: BLE001 - sys.exit() of a wrapped command line, too
        return Called(error=error)


async def _awaited(value: Any, max_output: int) -> Called:
    try:
        # Streams and the like of ours have an __await__ only to say that they are not awaited: a
        # tool may return one, and it is iterated over.
        if inspect.isawaitable(value) and not isinstance(value, NotAwaitable):
            value = await value
        if isinstance(value, AsyncIterable):
            value = await drained_async(value, max_output)
        return _told(value, max_output)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Called(error=error)  # the tool's own: nobody has cancelled us
    except BaseException as error:  # noqa: BLE001 - in a task, SystemExit would end the loop
        return Called(error=error)


def _told(value: Any, max_output: int) -> Called:
    if isinstance(value, Iterator):
        value = drained(value, max_output)
    return Called(value, output_of(value, max_output))


def _is_async_value(value: Any) -> bool:
    return inspect.isawaitable(value) or isinstance(value, AsyncIterable)


async def _in_thread(work: Callable[[], Called]) -> Called:
    """Run this in a thread of its own, with the caller's context variables.

    The loop's executor has few threads, which others use as well: a call would wait for one in the
    time that is its own, and one that hangs would keep its thread from all others and the process
    from ending. A thread costs about 0.1 ms; those that are left behind die with the process.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Called] = loop.create_future()
    # Traces and request ids of the caller are found in the tool, as they are in
    # asyncio.to_thread().
    context = contextvars.copy_context()

    def hand_over(done: Called) -> None:
        if not future.done():
            future.set_result(done)

    def run() -> None:
        done = context.run(work)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(hand_over, done)

    thread = threading.Thread(target=run, name=_THREAD_NAME, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:  # no more threads can be started
        return Called(error=error)
    done = await future
    thread.join()  # it has nothing left to do, and is gone when the call is over
    return done
