"""The loop of run_tools(): ask the model, make its calls, send the results, until it is done."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

import msgspec

from konko_async._core.tasks import Closing
from konko_async.errors import (
    ConfigurationError,
    KonkoError,
    ResponseDecodeError,
    ToolArgumentsError,
)
from konko_async.tools._arguments import sendable
from konko_async.tools._calls import Approval, CallsOfRound, ToolCallOptions, ToolRaisedError
from konko_async.tools._errors import Limit, ToolFailedError, ToolLimitError
from konko_async.tools._events import (
    ReasoningDelta,
    RoundFinished,
    TextDelta,
    ToolEvent,
    ToolFinished,
    ToolInvocation,
    ToolOutcome,
    ToolRunResult,
    total_usage,
)
from konko_async.tools._tool import Tool, allowed_names, later_choice, tool_of, wired_choice
from konko_async.wire import ChatCompletion, ChatCompletionMessage, ToolCall, Usage

if TYPE_CHECKING:
    from konko_async._streaming.stream import ChatStream, ChunkBatch
    from konko_async.wire import ChatCompletionChunk

__all__ = ["RunOptions", "ToolRun"]

R = TypeVar("R")
X = TypeVar("X")


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The limits and settings of a run; see :meth:`ChatCompletions.run_tools`."""

    max_rounds: int = 10
    max_tool_calls: int = 100
    tool_timeout: float | None = 60.0
    max_concurrency: int = 8
    total_timeout: float | None = None
    run_in_thread: bool = True
    max_output: int = 100_000
    on_error: Any = "message"
    before_tool: Approval | None = None

    def check(self) -> None:
        """Check the values.

        Raises:
            ConfigurationError: one of them makes no sense.
        """
        for name in ("max_rounds", "max_tool_calls", "max_concurrency", "max_output"):
            value = getattr(self, name)
            # bool is an int: True would pass for a limit of 1.
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name} must be an integer of at least 1, not {value!r}")
        for name in ("tool_timeout", "total_timeout"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if value is not None and not (number and value > 0):
                raise ConfigurationError(f"{name} must be above 0 seconds, or None, not {value!r}")
        if self.on_error not in {"message", "raise"}:
            raise ConfigurationError(
                f'on_error must be "message" or "raise", not {self.on_error!r:.40}'
            )
        if self.before_tool is not None and not callable(self.before_tool):
            raise ConfigurationError("before_tool must be a function of a call")

    def for_calls(self, tools: Mapping[str, Tool]) -> ToolCallOptions:
        """Return the options that the calls of a round need."""
        return ToolCallOptions(
            tools=tools,
            tool_timeout=self.tool_timeout,
            max_concurrency=self.max_concurrency,
            run_in_thread=self.run_in_thread,
            max_output=self.max_output,
            on_error=self.on_error,
            before_tool=self.before_tool,
        )


class _RunState:
    """The progress of a run; kept apart, so that a run that is dropped can be collected."""

    def __init__(self, messages: list[Any]) -> None:
        self.messages = messages
        self.rounds = 0
        self.usage: Usage | None = None
        self.calls: list[ToolOutcome] = []
        self.unfinished: tuple[ToolInvocation, ...] = ()
        self.completion: Any = None
        self.done = False

    def described(self) -> dict[str, Any]:
        """Return the progress as the fields that errors carry."""
        return {
            "messages": list(self.messages),
            "completion": self.completion,
            "calls": tuple(self.calls),
            "rounds": self.rounds,
            "usage": self.usage,
            "unfinished": self.unfinished,
        }


class ToolRun(Closing, AsyncIterator[ToolEvent], Generic[R]):
    """A conversation in which the model may call tools: await it, or iterate over its events.

    Awaited, it asks for whole answers; iterated over, for streamed ones. Either way ``messages``,
    ``calls``, ``rounds`` and ``usage`` say at any time what there is so far, also after an error.
    Leaving it early (``async with``, :meth:`aclose`, a cancellation) cancels the model's answer and
    the tools that run, at once; only sync tools in threads run to their own end, unheard.
    """

    def __init__(
        self,
        *,
        create: Callable[..., Awaitable[Any]],
        stream: Callable[..., ChatStream],
        messages: list[Any],
        tools: list[Any],
        tool_choice: Any,
        options: RunOptions,
    ) -> None:
        options.check()
        self._state = _RunState(messages)
        self._loop = _Loop(
            self._state,
            options,
            create=create,
            stream=stream,
            tools=tools,
            tool_choice=tool_choice,
        )
        self._events: AsyncGenerator[ToolEvent, None] | None = None

    # -- what there is so far ------------------------------------------------------------------

    @property
    def messages(self) -> list[Any]:
        """The conversation so far; whole rounds only, so that it can be sent again."""
        return self._state.messages

    @property
    def calls(self) -> tuple[ToolOutcome, ...]:
        """The outcomes of the calls so far, in the order in which they ended."""
        return tuple(self._state.calls)

    @property
    def rounds(self) -> int:
        """How often the model has answered."""
        return self._state.rounds

    @property
    def usage(self) -> Usage | None:
        """Tokens so far, as far as the server reported them; None if it did not."""
        return self._state.usage

    @property
    def result(self) -> ToolRunResult[R]:
        """The result of the run.

        Raises:
            KonkoError: it has not ended.
        """
        state = self._state
        if not state.done:
            raise KonkoError("the run has not come to its end: await it, or iterate over all of it")
        return ToolRunResult(
            completion=state.completion,
            messages=state.messages,
            rounds=state.rounds,
            usage=state.usage,
            calls=tuple(state.calls),
        )

    # -- running -------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, ToolRunResult[R]]:
        return self._finish().__await__()

    async def _finish(self) -> ToolRunResult[R]:
        events = self._begun(streaming=False)
        async for _ in events:
            pass
        return self.result

    def _begun(self, *, streaming: bool) -> AsyncGenerator[ToolEvent, None]:
        # One generator for both ways of using a run: awaiting it after some events takes in the
        # rest.
        if self._events is None:
            self._events = self._loop.run(streaming=streaming)
        return self._events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ToolEvent:
        # The first use decides: a run that was awaited does not become a streamed one.
        return await self._begun(streaming=True).__anext__()

    async def aclose(self) -> None:
        """Cancel what runs and wait until it has ended; idempotent."""
        # Also of a run that has not begun: its generator is closed before its first step, so that
        # nothing can start it afterwards.
        await self._begun(streaming=True).aclose()

    def __repr__(self) -> str:
        state = "done" if self._state.done else f"{self.rounds} rounds so far"
        return f"<ToolRun {state}, {len(self._state.calls)} calls>"


class _Loop:
    """Runs the rounds; awaiting a run and iterating over it share all of this."""

    def __init__(
        self,
        state: _RunState,
        options: RunOptions,
        *,
        create: Callable[..., Awaitable[Any]],
        stream: Callable[..., ChatStream],
        tools: list[Any],
        tool_choice: Any,
    ) -> None:
        self._state = state
        self._options = options
        self._create = create
        self._stream = stream
        self._tools = {tool.name: tool for tool in map(_runnable, tools) if tool is not None}
        # As it is sent: a function in it stands for its name, in later rounds too.
        self._choice = wired_choice(tool_choice)
        self._deadline: float | None = None

    async def run(self, *, streaming: bool) -> AsyncGenerator[ToolEvent, None]:
        """Yield what happens until the model is done."""
        state, options = self._state, self._options
        # From the first step rather than from the call of run_tools(): a run may be made long
        # before it is awaited.
        if options.total_timeout is not None:
            self._deadline = asyncio.get_running_loop().time() + options.total_timeout
        while True:
            if streaming:
                # aclosing(): a generator left by a break or a cancellation would be finalised
                # later, with the upstream call still open.
                async with aclosing(self._streamed()) as deltas:
                    async for delta in deltas:
                        yield delta
            else:
                state.completion = await self._within(self._create(**self._arguments()))
            message, calls = self._answered()
            if calls:
                async with aclosing(self._called(calls)) as events:
                    async for event in events:
                        yield event
            else:
                state.messages.append(sendable(message, []))
                state.done = True
            # After done is set, so that a caller that stops at this event can read the result.
            yield RoundFinished(state.rounds, state.completion, state.completion.usage)
            if state.done:
                return

    def _arguments(self) -> dict[str, Any]:
        choice = later_choice(self._choice) if self._state.rounds else self._choice
        # A copy, as the conversation grows while middleware or logs may still hold this one.
        return {"messages": list(self._state.messages), "tool_choice": choice}

    async def _streamed(self) -> AsyncGenerator[ToolEvent, None]:
        number = self._state.rounds + 1
        stream = self._stream(**self._arguments())
        try:
            while (batch := await self._within(stream.read())) is not None:
                for event in _deltas(batch, number):
                    yield event
            self._state.completion = await self._within(stream.completion())
        except BaseException as error:
            # The stream closes its connection at once: the server stops writing what nobody reads.
            await stream.__aexit__(type(error), error, None)
            raise

    def _answered(self) -> tuple[ChatCompletionMessage, list[ToolCall]]:
        """Take in the model's answer; return its message and the calls that may be made.

        Raises:
            ToolLimitError: it asks for more rounds or calls than are allowed.
        """
        state, options = self._state, self._options
        completion: ChatCompletion = state.completion
        # Counted before any check: an answer that ends the run has been paid for as well.
        state.rounds += 1
        state.usage = total_usage(state.usage, completion.usage)
        if not completion.choices:
            raise ResponseDecodeError("the model's answer has no choices")
        message = completion.choices[0].message
        calls = message.tool_calls or []
        _name_calls(calls)  # first: results find their calls by id
        # Before the calls are made: no further round would read their results.
        if calls and state.rounds >= options.max_rounds:
            self._stop("max_rounds", f"the model still calls tools in round {state.rounds}")
        if len(state.calls) + len(calls) > options.max_tool_calls:
            self._stop("max_tool_calls", f"the model asks for {len(calls)} more calls")
        return message, calls

    def _stop(self, limit: Limit, why: str) -> NoReturn:
        value = getattr(self._options, limit)
        raise ToolLimitError(
            f"{why}, with {limit}={value}: what there is so far is in .messages",
            limit=limit,
            **self._state.described(),
        )

    async def _called(self, wanted: list[ToolCall]) -> AsyncGenerator[ToolEvent, None]:
        """Make the calls of a round; the conversation grows by all of it, or by nothing."""
        state = self._state
        choice = state.completion.choices[0]
        calls = CallsOfRound(
            self._options.for_calls(self._tools),
            wanted,
            state.rounds,
            finish_reason=choice.finish_reason,
            allowed=allowed_names(self._choice),
        )
        failed: ToolRaisedError | ToolLimitError | None = None
        try:
            await self._within(calls.start())
            while (event := await self._within(calls.next())) is not None:
                if isinstance(event, ToolFinished):
                    state.calls.append(event.outcome)
                yield event
        except (ToolRaisedError, ToolLimitError) as error:
            failed = error
        finally:
            # However the round ended, a cancellation included; only then is it known what has
            # finished.
            await calls.stop()
            state.calls += calls.unheard()
            state.unfinished = calls.unfinished
        if isinstance(failed, ToolLimitError):  # what was running then is known only now
            failed.calls, failed.unfinished = tuple(state.calls), state.unfinished
            raise failed
        if failed is not None:
            self._fail(failed)
        # Appended only now: an error before it leaves a conversation that can be sent again, which
        # one with a call that has no result cannot.
        state.messages.append(sendable(choice.message, wanted))
        state.messages += (
            {"role": "tool", "tool_call_id": call.id, "content": calls.outcomes[call.id].output}
            for call in wanted
        )

    def _fail(self, failed: ToolRaisedError) -> NoReturn:
        state, error = self._state, failed.error
        why = f"the tool {failed.call.name} raised {type(error).__name__}"
        if isinstance(error, ToolArgumentsError):
            why = f"a call of {failed.call.name} was not made: {error.message[:1000]}"
        left = [call.name for call in state.unfinished]
        if left:
            why += f"; calls of {', '.join(left)[:200]} were left unfinished"
        raise ToolFailedError(why, call=failed.call, **state.described()) from error

    async def _within(self, step: Awaitable[X]) -> X:
        """Await a step, unless the time for all of them is over."""
        if self._deadline is None:
            return await step
        try:
            async with asyncio.timeout_at(self._deadline) as limit:
                return await step
        except TimeoutError:
            # A TimeoutError of the step's own is not the run's time limit.
            if not limit.expired():
                raise
        # Outside the except clause: the error has no TimeoutError as its context.
        return self._stop("total_timeout", "the time is over")


def _runnable(tool: Any) -> Tool | None:
    """Return what a run can call; None for what the server calls itself.

    Raises:
        ConfigurationError: a dict describes a function, which a run cannot call.
    """
    if not isinstance(tool, Mapping):
        return tool_of(tool)
    function = tool.get("function")
    if tool.get("type", "function") != "function" or not isinstance(function, Mapping):
        return None
    raise ConfigurationError(
        f"run_tools() cannot call {function.get('name')!r}, of which it has only a dict: give "
        "Tool(function, name=..., parameters=...), or make the calls yourself after create()"
    )


def _name_calls(calls: list[ToolCall]) -> None:
    """Give ids to the calls that have none, or another call's."""
    known: set[str] = set()
    for call in calls:
        if not call.id or call.id in known:
            call.id = f"call_{uuid.uuid4().hex[:24]}"
        known.add(call.id)


def _deltas(batch: ChunkBatch[ChatCompletionChunk], number: int) -> list[ToolEvent]:
    """Return the deltas of chunks that arrived together, in as few events as possible."""
    shape = batch.shape
    if shape is not None:
        text = "".join(batch.texts()) if shape.choices[0].index == 0 else ""
        return [TextDelta(text, number)] if text else []
    found: list[tuple[type[TextDelta | ReasoningDelta], list[str]]] = []
    for chunk in batch.chunks():
        for choice in chunk.choices:
            delta = choice.delta
            thought = delta.reasoning_content or delta.reasoning
            for kind, said in ((ReasoningDelta, thought), (TextDelta, delta.content)):
                if said and choice.index == 0:
                    if not found or found[-1][0] is not kind:
                        found.append((kind, []))
                    found[-1][1].append(said)
    return [kind("".join(texts), number) for kind, texts in found]
