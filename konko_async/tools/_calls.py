"""The calls of one round: read, approved, run side by side, and told to the model."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from konko_async._closing import ended
from konko_async.errors import ConfigurationError, ToolArgumentsError
from konko_async.tools._events import (
    Status,
    ToolFinished,
    ToolInvocation,
    ToolOutcome,
    ToolStarted,
)
from konko_async.tools._tool import Tool, call_tool
from konko_async.wire import ToolCall
from konko_async.wire._codec import encode

__all__ = ["Approval", "CallOptions", "Calls", "ToolRaisedError"]

Approval = Callable[[ToolInvocation], bool | str | Awaitable[bool | str]]

_SHOWN = 1000
_DENIED = "The call was not allowed."


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How tools are run; see :meth:`ChatCompletions.run_tools`."""

    tools: Mapping[str, Tool]
    tool_timeout: float | None
    max_concurrency: int
    run_in_thread: bool
    on_error: Literal["message", "raise"]
    before_tool: Approval | None


class Calls:
    """The calls of one round while they run.

    Args:
        options: how they are run.
        calls: what the model asks for.
        number: the round.
    """

    def __init__(self, options: CallOptions, calls: list[ToolCall], number: int) -> None:
        self._options = options
        self._calls = calls
        self._number = number
        self._places = asyncio.Semaphore(options.max_concurrency)
        self._events: asyncio.Queue[ToolStarted | ToolFinished | BaseException] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._left = len(calls)
        self.outcomes: dict[str, ToolOutcome] = {}

    async def start(self) -> None:
        """Start what may be run, asking for each call in turn; those allowed run meanwhile."""
        for wanted in self._calls:
            call, tool, refusal = self._prepared(wanted)
            if refusal is None:
                refusal = await self._asked(call)
            if tool is None or refusal is not None:
                self._finish(refusal or _outcome(call, "unknown", ""))
            else:
                task = asyncio.get_running_loop().create_task(self._run(call, tool))
                task.add_done_callback(self._ended)
                self._tasks.append(task)

    async def next(self) -> ToolStarted | ToolFinished | None:
        """Return the next event; None once every call has come to its end.

        Raises:
            BaseException: a tool's own, where ``on_error`` says so.
        """
        if not self._left and self._events.empty():
            return None
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    async def stop(self) -> None:
        """Cancel what still runs, and wait until it has ended. Threads cannot be cancelled."""
        running = [task for task in self._tasks if not task.done()]
        for task in running:
            task.cancel()
        await ended(running)

    # -- one call ------------------------------------------------------------------------------

    def _prepared(self, wanted: ToolCall) -> tuple[ToolInvocation, Tool | None, ToolOutcome | None]:
        """Read a call; with it comes its tool, or what is told to the model instead."""
        name, text = wanted.function.name, wanted.function.arguments
        tool = self._options.tools.get(name)
        arguments, problem = {}, ""
        try:
            if tool is not None:
                arguments = tool.parse(wanted)
        except ToolArgumentsError as error:
            problem = error.message
            arguments = _as_they_came(wanted)
        call = ToolInvocation(
            id=wanted.id, name=name, arguments=arguments, text=text, round=self._number
        )
        if tool is None:
            known = ", ".join(self._options.tools)
            told = f"There is no tool {name!r:.100}. There are: {known}."
            return call, None, _outcome(call, "unknown", told)
        if problem:
            told = f"{problem}. Call it again with arguments that fit."
            return call, tool, _outcome(call, "invalid", told[0].upper() + told[1:])
        return call, tool, None

    async def _asked(self, call: ToolInvocation) -> ToolOutcome | None:
        """Ask ``before_tool``; returns what is told to the model if the call is not to be made."""
        ask = self._options.before_tool
        if ask is None:
            return None
        answer = ask(call)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, str):
            return _outcome(call, "denied", answer)
        return None if answer else _outcome(call, "denied", _DENIED)

    async def _run(self, call: ToolInvocation, tool: Tool) -> None:
        async with self._places:
            self._events.put_nowait(ToolStarted(call))
            outcome = await self._outcome(call, tool)
        self._finish(outcome)

    async def _outcome(self, call: ToolInvocation, tool: Tool) -> ToolOutcome:
        loop = asyncio.get_running_loop()
        started = loop.time()
        seconds = self._options.tool_timeout if tool.timeout is None else tool.timeout
        value: Any = None
        failure: BaseException | None = None
        status: Status = "ok"
        output = ""
        try:
            async with asyncio.timeout(seconds) as limit:
                value, failure = await call_tool(
                    tool, call.arguments, in_thread=self._options.run_in_thread
                )
            output = value if isinstance(value, str) else _encoded(value)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failure = error  # the tool's own: nobody has cancelled us
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is told to the model
            failure = error
        if failure is not None:
            status = "timeout" if limit.expired() else "failed"
            output = _told(failure) if status == "failed" else f"It took longer than {seconds:g} s."
            if self._options.on_error == "raise":
                raise ToolRaisedError(call, failure)
        return ToolOutcome(
            call=call,
            status=status,
            output=output,
            value=value if failure is None else None,
            error=failure,
            duration=loop.time() - started,
        )

    def _finish(self, outcome: ToolOutcome) -> None:
        self._left -= 1
        self.outcomes[outcome.call.id] = outcome
        self._events.put_nowait(ToolFinished(outcome))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Hand on what no outcome was made of."""
        if task.cancelled():  # by us, and nobody reads this; or from elsewhere
            self._events.put_nowait(asyncio.CancelledError("a tool was cancelled from elsewhere"))
        elif (error := task.exception()) is not None:
            self._events.put_nowait(error)


class ToolRaisedError(Exception):
    """Carries a tool's exception to where the run ends by it; never leaves the package."""

    def __init__(self, call: ToolInvocation, error: BaseException) -> None:
        super().__init__(call, error)
        self.call = call
        self.error = error


def _outcome(call: ToolInvocation, status: Status, output: str) -> ToolOutcome:
    return ToolOutcome(call=call, status=status, output=output)


def _as_they_came(wanted: ToolCall) -> dict[str, Any]:
    try:
        return wanted.function.parse(dict[str, Any])
    except ToolArgumentsError:
        return {}


def _encoded(value: Any) -> str:
    try:
        return encode(value).decode()
    except ConfigurationError as error:
        problem = f"what it returned has no form in JSON ({type(value).__name__})"
        raise TypeError(problem) from error


def _told(error: BaseException) -> str:
    """Say what a tool raised: its class and message, no more."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text[:_SHOWN]
