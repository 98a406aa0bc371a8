"""The calls of one round: read, approved and run side by side, with results for the model."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from konko_async._core.tasks import ended
from konko_async.errors import ToolArgumentsError
from konko_async.tools._arguments import (
    are_missing,
    arguments_problem,
    ended_well,
    history_arguments,
)
from konko_async.tools._call_tool import Called, call_tool, runs_in_thread
from konko_async.tools._events import (
    Status,
    ToolFinished,
    ToolInvocation,
    ToolOutcome,
    ToolStarted,
)
from konko_async.tools._result import shown_error
from konko_async.tools._tool import Tool
from konko_async.wire import ToolCall

__all__ = ["Approval", "CallsOfRound", "ToolCallOptions", "ToolRaisedError"]

Approval = Callable[[ToolInvocation], bool | str | Awaitable[bool | str]]

_SHOWN = 1000  # characters of what the model wrote
_DENIED = "The call was not allowed."
# Seconds that an async tool has to end once it is cancelled. One that does not is left to itself:
# waiting for it would let a tool that ignores cancellation hang the run.
_GRACE = 2.0
_left_alone: set[asyncio.Task[Any]] = set()  # such tasks: the loop itself holds them weakly


class ToolCallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How tools are run; see :meth:`ChatCompletions.run_tools`."""

    tools: Mapping[str, Tool]
    tool_timeout: float | None
    max_concurrency: int
    run_in_thread: bool
    max_output: int
    on_error: Literal["message", "raise"]
    before_tool: Approval | None


class CallsOfRound:
    """The calls of one round while they run.

    Args:
        options: how they are run.
        calls: what the model asks for.
        number: the round.
        finish_reason: of the answer that asks for them; None if the server sent none.
        allowed: the tools that may be called; None: all.

    Attributes:
        outcomes: what became of those that are over, by their ids.
    """

    def __init__(
        self,
        options: ToolCallOptions,
        calls: list[ToolCall],
        number: int,
        *,
        finish_reason: str | None,
        allowed: frozenset[str] | None,
    ) -> None:
        self._options = options
        self._calls = calls
        self._number = number
        self._finish_reason = finish_reason
        self._allowed = allowed
        self._slots = asyncio.Semaphore(options.max_concurrency)
        self._events: asyncio.Queue[ToolStarted | ToolFinished | BaseException] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._running: dict[str, ToolInvocation] = {}
        self._left = len(calls)
        self.outcomes: dict[str, ToolOutcome] = {}

    async def start(self) -> None:
        """Start the calls, each after its approval; those that are allowed run meanwhile.

        Raises:
            ToolRaisedError: a call cannot be read, and ``on_error`` is "raise"; none is started.
        """
        # All are read before any is started: where one ends the run, the others must not have run.
        prepared = [self._prepared(wanted) for wanted in self._calls]
        if self._options.on_error == "raise":
            for call, _, refusal in prepared:
                if refusal is not None and refusal.status == "invalid":
                    raise ToolRaisedError(call, ToolArgumentsError(refusal.output, name=call.name))
        for call, tool, refusal in prepared:
            # One after the other: a person who approves calls is shown one at a time.
            denied = refusal if refusal is not None else await self._asked(call)
            if tool is None or denied is not None:
                self._finish(denied or _outcome(call, "unknown", ""))
            else:
                task = asyncio.get_running_loop().create_task(self._run(call, tool))
                task.add_done_callback(self._ended)
                self._tasks.append(task)

    async def next(self) -> ToolStarted | ToolFinished | None:
        """Return the next event; None once every call has ended.

        Raises:
            BaseException: a tool's own, where ``on_error`` is "raise".
        """
        # The queue may still hold events of calls that have all ended.
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

    def unheard(self) -> list[ToolOutcome]:
        """Return the outcomes that next() has not returned: their tools have been at work, too."""
        found = []
        while not self._events.empty():
            event = self._events.get_nowait()
            if isinstance(event, ToolFinished):
                found.append(event.outcome)
        return found

    @property
    def unfinished(self) -> tuple[ToolInvocation, ...]:
        """The calls that began and have no outcome: cancelled, or still running in a thread."""
        return tuple(self._running.values())

    # -- one call ------------------------------------------------------------------------------

    def _prepared(self, wanted: ToolCall) -> tuple[ToolInvocation, Tool | None, ToolOutcome | None]:
        """Read a call; return it with its tool, and with the outcome if it is not to be made."""
        name, text = wanted.function.name, wanted.function.arguments
        tool = self._options.tools.get(name)
        # For before_tool, events and errors, which show even a call that is not made.
        arguments, problem = _as_they_came(wanted), ""
        # A cut answer comes first: whatever else is wrong with the call may be due to that.
        cut = not ended_well(self._finish_reason, said=False)
        if cut:
            problem = (
                f"The answer ended early (finish_reason: {self._finish_reason!r:.40}), so this "
                "call was not made. Make it again in an answer that is complete"
            )
        elif tool is not None:
            problem = self._problem(wanted, tool)
            if not problem:
                try:
                    arguments = tool.parse(wanted)
                except ToolArgumentsError as error:
                    problem = f"{error.message}. Call it again with arguments that fit"
        call = ToolInvocation(
            id=wanted.id, name=name, arguments=arguments, text=text, round=self._number
        )
        if problem:
            told = f"{problem[0].upper()}{problem[1:]}."
            if text.strip() and history_arguments(text) != text:  # what is sent back differs
                told += f" You wrote: {text[:_SHOWN]}"
            return call, tool, _outcome(call, "invalid", told)
        if tool is None:
            known = ", ".join(self._options.tools)
            told = f"There is no tool {name!r:.100}. There are: {known}."
            return call, None, _outcome(call, "unknown", told)
        # Servers that do not know the choice, or ignore it, let the model call anything.
        if self._allowed is not None and name not in self._allowed:
            return call, tool, _outcome(call, "denied", _DENIED)
        return call, tool, None

    def _problem(self, wanted: ToolCall, tool: Tool) -> str:
        """Return why the arguments cannot be what was meant; "" if they may be."""
        text = wanted.function.arguments
        if are_missing(text):
            # Meant only if none are needed and the server says that the answer is whole.
            if not tool.needs_arguments and ended_well(self._finish_reason, said=True):
                return ""
        elif arguments_problem(text) is None:
            return ""
        return (
            f"the arguments for {tool.name} do not fit: {arguments_problem(text)}. "
            "Call it again with arguments that fit"
        )

    async def _asked(self, call: ToolInvocation) -> ToolOutcome | None:
        """Ask ``before_tool``; return the outcome for the model if the call is denied."""
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
        # ToolStarted comes from within: a call that waits for a slot has not begun.
        async with self._slots:
            self._events.put_nowait(ToolStarted(call))
            self._running[call.id] = call
            # Stays in it when it is cancelled: its work may be half done, which errors report.
            try:
                outcome = await self._outcome(call, tool)
            except ToolRaisedError:
                del self._running[call.id]
                raise
            del self._running[call.id]
        self._finish(outcome)

    async def _outcome(self, call: ToolInvocation, tool: Tool) -> ToolOutcome:
        loop = asyncio.get_running_loop()
        options = self._options
        started = loop.time()
        seconds = options.tool_timeout if tool.timeout is None else tool.timeout
        # A task of its own, so that it can be left behind if it ignores its cancellation; wait()
        # rather than timeout(), which would wait for that end.
        task = loop.create_task(
            call_tool(
                tool,
                call.arguments,
                in_thread=runs_in_thread(tool, default=options.run_in_thread),
                max_output=options.max_output,
            )
        )
        status: Status = "ok"
        try:
            await asyncio.wait({task}, timeout=seconds)
            if task.done():
                # A tool may cancel the task that it runs in; nobody else has cancelled us here.
                done = Called(error=asyncio.CancelledError()) if task.cancelled() else task.result()
                status = "ok" if done.error is None else "failed"
            else:
                # As if the tool had raised it: the model reads how long it had.
                done = Called(error=TimeoutError(f"It took longer than {seconds:g} s."))
                status = "timeout"
        finally:
            # For a cancelled run, too: its tool must not outlive it unnoticed.
            await _let_go(task)
        output = done.output
        if done.error is not None:
            output = str(done.error) if status == "timeout" else shown_error(done.error)
            if options.on_error == "raise":
                raise ToolRaisedError(call, done.error)
        return ToolOutcome(
            call=call,
            status=status,
            output=output,
            value=done.value,
            error=done.error,
            duration=loop.time() - started,
        )

    def _finish(self, outcome: ToolOutcome) -> None:
        self._left -= 1
        self.outcomes[outcome.call.id] = outcome
        self._events.put_nowait(ToolFinished(outcome))

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Hand on the exception of a task that made no outcome."""
        if task.cancelled():  # by us, and nobody reads this; or from elsewhere
            self._events.put_nowait(asyncio.CancelledError("a tool was cancelled from elsewhere"))
        elif (error := task.exception()) is not None:
            self._events.put_nowait(error)


async def _let_go(task: asyncio.Task[Any]) -> None:
    """Cancel a call that still runs, and wait for its end, but not forever."""
    if task.done():
        return
    task.cancel()
    _, left = await asyncio.wait({task}, timeout=_GRACE)
    for stubborn in left:
        _left_alone.add(stubborn)
        stubborn.add_done_callback(_forget)


def _forget(task: asyncio.Task[Any]) -> None:
    _left_alone.discard(task)
    if not task.cancelled():
        task.exception()  # retrieved, as asyncio logs exceptions that nobody retrieves


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
