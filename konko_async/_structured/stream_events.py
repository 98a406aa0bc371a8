"""Makes the events of ``openai``'s ``stream()``: which, in what order, with what; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from konko_async._streaming.accumulate import ChatAccumulator
from konko_async._structured.parse_answer import (
    is_read,
    named_tools,
    parse_answer,
    parsed_call,
    unparsed,
)
from konko_async._structured.partial_json import Growing
from konko_async._structured.partial_types import ANYTHING
from konko_async.errors import StructuredOutputError, ToolArgumentsError
from konko_async.wire import (
    CallPieces,
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionTokenLogprob,
    ChunkChoice,
    ParsedChatCompletion,
    ToolCall,
    ToolCallDelta,
    ToolCallMerger,
)
from konko_async.wire import _events as ev

if TYPE_CHECKING:
    from konko_async._structured.response_format import ResponseFormat

__all__ = ["ChatEvents"]

_ENDED = frozenset({"length", "content_filter"})
Logprobs = list[ChatCompletionTokenLogprob]


class _Value:
    """JSON as plain values, while it comes."""

    __slots__ = ("_growing", "_wrapped")

    def __init__(self, *, wrapped: bool = False) -> None:
        self._growing = Growing(ANYTHING)
        self._wrapped = wrapped

    def add(self, text: str) -> Any:
        """Take in more; return a copy of what there is, as it grows in place."""
        self._growing.feed(text)
        value = self._growing.value
        if self._wrapped and isinstance(value, dict):
            value = value.get("value")
        return None if value is UNSET else _copied(value)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


class _Logprobs:
    """Log probabilities of a choice: what has come, and whether all of it has been told."""

    __slots__ = ("all", "told")

    def __init__(self) -> None:
        self.all: Logprobs | None = None
        self.told = False

    def add(self, new: Logprobs) -> Logprobs | None:
        """Take in more; return all so far, None where there is nothing new."""
        self.all = [*(self.all or ()), *new]  # anew: events have given out the one before
        return self.all if new else None

    def whole(self) -> Logprobs | None:
        """Return all, once."""
        if self.told or self.all is None:
            return None
        self.told = True
        return self.all


class _Call:
    """A tool call of a choice."""

    __slots__ = ("index", "pieces", "told", "value")

    def __init__(self, pieces: CallPieces, index: int) -> None:
        self.pieces = pieces
        self.index = index
        self.told = False
        self.value: _Value | None = None


class _Choice:
    """One choice: what has come of it, and which ends have been told."""

    __slots__ = (
        "_always_ended", "_calls", "_content_told", "_events", "_last", "_merger",
        "_refusal_told", "_value", "content", "index", "logprobs", "parsed", "refusal",
        "refusal_logprobs",
    )  # fmt: skip

    def __init__(self, index: int, events: ChatEvents) -> None:
        self.index = index
        self._events = events
        form = events.form
        self._value = None if form is None else _Value(wrapped=form.wrapped)
        self._merger: ToolCallMerger | None = None
        self._calls: list[_Call] = []
        self._last: _Call | None = None  # which has grown last
        self._always_ended: bool | None = None  # whether its first chunk had a finish reason
        self._content_told = self._refusal_told = False
        self.content: str | None = None
        self.refusal: str | None = None
        self.parsed: Any = None
        self.logprobs, self.refusal_logprobs = _Logprobs(), _Logprobs()

    def add(self, choice: ChunkChoice) -> Iterator[Any]:
        """Take in a chunk's part, and yield its events."""
        delta = choice.delta
        if self._always_ended is None:
            # Some servers say `stop` in each chunk: the end is then that of the stream.
            self._always_ended = choice.finish_reason is not None
        if delta.content is not None:
            self.content = (self.content or "") + delta.content
            self._content_told = self._content_told and not delta.content
            if self._value is not None and not self.refusal:
                self.parsed = self._value.add(delta.content)
            yield ev.ContentDeltaEvent(
                delta=delta.content, snapshot=self.content, parsed=self.parsed
            )
        if delta.refusal is not None:
            self.refusal = (self.refusal or "") + delta.refusal
            self._refusal_told = self._refusal_told and not delta.refusal
            yield ev.RefusalDeltaEvent(delta=delta.refusal, snapshot=self.refusal)
        called = self._called(delta.tool_calls) if delta.tool_calls else []
        yield from (event for _, event in called)
        if choice.logprobs is not None:
            yield from self._more_logprobs(choice.logprobs.content, choice.logprobs.refusal)
        yield from self._ends([call for call, _ in called])
        if choice.finish_reason and not self._always_ended:
            yield from self.end()

    def _called(self, deltas: list[ToolCallDelta]) -> list[tuple[_Call, Any]]:
        self._merger = self._merger or ToolCallMerger()
        # All of the chunk first: its events tell what there is after it, as openai's do.
        calls = [self._known(pieces) for pieces in self._merger.add(deltas)]
        found = []
        for call, delta in zip(calls, deltas, strict=True):
            added = (delta.function.arguments if delta.function is not None else "") or ""
            name = call.pieces.name
            call.told = call.told and not added
            value = None
            if self._events.reads(name):
                call.value = call.value or _Value()
                value = call.value.add(added)
            event = ev.FunctionToolCallArgumentsDeltaEvent(
                name=name,
                index=call.index,
                arguments="".join(call.pieces.arguments),
                parsed_arguments=value,
                arguments_delta=added,
            )
            found.append((call, event))
        return found

    def _known(self, pieces: CallPieces) -> _Call:
        for call in reversed(self._calls):
            if call.pieces is pieces:
                return call
        taken = {call.index for call in self._calls}
        # Some servers send the same index for all calls.
        usable = pieces.index is not None and pieces.index not in taken
        call = _Call(pieces, pieces.index if usable and pieces.index is not None else len(taken))
        self._calls.append(call)
        return call

    def _more_logprobs(self, content: Logprobs | None, refusal: Logprobs | None) -> Iterator[Any]:
        if content is not None and (so_far := self.logprobs.add(content)):
            yield ev.LogprobsContentDeltaEvent(content=content, snapshot=so_far)
        if refusal is not None and (so_far := self.refusal_logprobs.add(refusal)):
            yield ev.LogprobsRefusalDeltaEvent(refusal=refusal, snapshot=so_far)

    def _ends(self, calls: Iterable[_Call]) -> Iterator[Any]:
        """Yield the ends that the pieces of these calls tell."""
        for call in calls:
            last, self._last = self._last, call
            if call is last:
                continue
            # A call that begins ends the text, and the call before; unless pieces alternate.
            yield from self._text_ends(final=False)
            if last is not None and last.pieces.complete:
                yield from self._call_ends(last)

    def end(self) -> Iterator[Any]:
        """Yield the ends that have not been told."""
        yield from self._text_ends(final=True)
        for call in self._calls:
            yield from self._call_ends(call)

    def _text_ends(self, *, final: bool) -> Iterator[Any]:
        if self.content and not self._content_told:
            try:
                self.parsed = self._events.value(self)
            except StructuredOutputError:
                if final:
                    raise
            else:
                self._content_told = True
                yield ev.ContentDoneEvent(content=self.content, parsed=self.parsed)
        if self.refusal is not None and not self._refusal_told:
            self._refusal_told = True
            yield ev.RefusalDoneEvent(refusal=self.refusal)
        if (logprobs := self.logprobs.whole()) is not None:
            yield ev.LogprobsContentDoneEvent(content=logprobs)
        if (logprobs := self.refusal_logprobs.whole()) is not None:
            yield ev.LogprobsRefusalDoneEvent(refusal=logprobs)

    def _call_ends(self, call: _Call) -> Iterator[Any]:
        if call.told:
            return
        call.told = True
        made = parsed_call(call.pieces.result(), self._events.tools).function
        yield ev.FunctionToolCallArgumentsDoneEvent(
            name=made.name,
            index=call.index,
            arguments=made.arguments,
            parsed_arguments=made.parsed_arguments,
        )


class ChatEvents:
    """The events of one answer.

    Args:
        form: the type of the answer; None: it has none.
        tools: as they were given.
        expected: the number of choices that were asked for; None: unknown.
    """

    def __init__(
        self, form: ResponseFormat[Any] | None, tools: Sequence[Any], expected: int | None
    ) -> None:
        self.form = form
        self.tools: Mapping[str, Any] = named_tools(tools)
        self._checks = form is not None or any(is_read(tool) for tool in self.tools.values())
        self._whole = ChatAccumulator(expected)
        self._choices: dict[int, _Choice] = {}
        self._queue: deque[Any] = deque()

    def reads(self, name: str) -> bool:
        """Whether the arguments for a function are read."""
        return is_read(self.tools.get(name))

    def value(self, choice: _Choice) -> Any:
        """Return the value of a choice whose text is whole; None where there is none."""
        if self.form is None or choice.refusal:
            return None
        found = [each for each in self._whole.result().choices if each.index == choice.index]
        whole: Any = parse_answer(ChatCompletion(choices=found), self.form, ())
        return whole.choices[0].message.parsed

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Take in the next chunk.

        Raises:
            LengthFinishReasonError: a choice was cut, and it or its calls are read.
            ContentFilterFinishReasonError: a choice was stopped, and it or its calls are read.
            StructuredOutputError: the text of a choice does not fit.
            ToolArgumentsError: the arguments of a call do not fit.
        """
        self._whole.add([chunk])
        if self._checks and any(choice.finish_reason in _ENDED for choice in chunk.choices):
            parse_answer(self._whole.result(), None, ())
        self._queue.append(ev.ChunkEvent(chunk=chunk, so_far=self.snapshot))
        for part in chunk.choices:
            choice = self._choices.get(part.index)
            if choice is None:
                choice = self._choices[part.index] = _Choice(part.index, self)
            self._queue.extend(choice.add(part))

    def end(self) -> None:
        """Take in that no other chunk will come: what has no finish reason is whole as well."""
        for choice in self._choices.values():
            self._queue.extend(choice.end())

    def take(self) -> Any:
        """Return the next event; None: chunks are needed."""
        return self._queue.popleft() if self._queue else None

    def snapshot(self, whole: ChatCompletion | None = None) -> ParsedChatCompletion[Any]:
        """Return the answer as far as its chunks have been taken in.

        Args:
            whole: what has come, where its chunks have not been taken in here.
        """
        made = unparsed(self._whole.result() if whole is None else whole)
        for choice in made.choices:
            known = self._choices.get(choice.index)
            message = choice.message
            if known is not None:
                message._value = known.parsed  # type: ignore[attr-defined]  # noqa: SLF001 - where it is kept
            if message.tool_calls:
                message.tool_calls = [self._shown(call) for call in message.tool_calls]
        return made

    def _shown(self, call: ToolCall) -> ToolCall:
        """Return a call with its arguments as values, as far as they can be read by now."""
        try:
            return parsed_call(call, self.tools)
        except ToolArgumentsError:
            growing = _Value().add(call.function.arguments)
        return parsed_call(call, {}, growing)
