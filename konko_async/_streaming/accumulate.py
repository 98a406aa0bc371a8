"""Chunks to a completion; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, Protocol, TypeVar

from konko_async._streaming.usage_tally import UsageTally
from konko_async.wire import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    Choice,
    ChoiceDelta,
    ChoiceLogprobs,
    ChunkChoice,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    Usage,
)
from konko_async.wire._base import with_unknown
from konko_async.wire._elsewhere import added_up, usage_of_choice, usage_of_vendor, with_delta
from konko_async.wire._tool_calls import CallPieces, ToolCallMerger
from konko_async.wire._unknown_fields import UnknownFields

__all__ = ["Accumulator", "ChatAccumulator", "CompletionAccumulator", "brings"]

T = TypeVar("T")
L = TypeVar("L", ChoiceLogprobs | None, CompletionLogprobs | None)
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Accumulator(Protocol[C_contra, R_co]):
    """What a stream needs to know about the chunks that went by."""

    expected: int | None
    has_delta: bool
    usage: Usage | None

    @property
    def has_choices(self) -> bool:
        """Whether any choice has been seen."""

    def add(self, chunks: Iterable[C_contra]) -> None:
        """Take in chunks, in order."""

    def add_plain(self, chunks: Iterable[C_contra]) -> None:
        """Take in chunks, in order, none of which has unknown fields."""

    def text_sink(self, index: int) -> Callable[[str], None]:
        """Return what takes in the text of chunks that bring nothing else.

        Args:
            index: of a choice that has had some text.
        """

    def finished(self, expected: int) -> bool:
        """Whether each of at least ``expected`` choices has a finish_reason."""

    def facts(self) -> tuple[str | None, str | None, tuple[str, ...]]:
        """Return the answer's id, its model and the finish_reasons, as far as they are known."""

    def size(self) -> int:
        """Return how many UTF-8 bytes of text have come, those of tool calls included."""

    def result(self) -> R_co:
        """Return the whole answer as far as it has come; may be called at any time."""


_PLAIN = frozenset({ChatCompletionChunk, Completion})


class _SharedFields:
    """Fields that the chunks of a stream share."""

    __slots__ = ("created", "fingerprint", "id", "model", "seen", "unknown")

    def __init__(self) -> None:
        self.id = self.model = ""
        self.created: int | float = 0
        self.fingerprint: str | None = None
        self.seen = False  # whether there is nothing left to learn
        self.unknown: UnknownFields | None = None

    def read(self, chunk: ChatCompletionChunk | Completion) -> None:
        self.id = self.id or chunk.id
        self.model = self.model or chunk.model
        self.created = self.created or chunk.created
        self.fingerprint = self.fingerprint or chunk.system_fingerprint
        self.seen = bool(self.id and self.model and self.created and self.fingerprint)

    def keep(self, fields: dict[str, Any]) -> None:
        """Take in the unknown fields of a chunk; each chunk has them anew."""
        if fields:
            self.unknown = self.unknown or UnknownFields("last")
            self.unknown.add(fields)


def _extended(known: list[T] | None, new: list[T] | None) -> list[T] | None:
    """Add ``new`` to ``known`` in place: copying would cost the square of the length."""
    if new is None:
        return known
    if known is None:
        return list(new)
    known.extend(new)
    return known


def _settled(known: L) -> L:
    """Return a copy whose lists no longer grow; their entries never change, and are shared."""
    if known is None:
        return known
    lists = [getattr(known, name) for name in known.__struct_fields__]
    return type(known)(*[entries and list(entries) for entries in lists])


def _size(parts: list[str]) -> int:
    # Joined first, as half a surrogate pair may stand at the end of a piece.
    return len("".join(parts).encode("utf-8", "surrogatepass"))


def _says(delta: ChoiceDelta) -> bool:
    """Whether a delta brings anything but the role; sound, images or signatures are enough."""
    return bool(
        delta.content
        or delta.tool_calls
        or delta.reasoning_content
        or delta.reasoning
        or delta.refusal
        or delta.function_call
        or (type(delta) is not ChoiceDelta and any(delta.unknown.values()))
    )


def brings(chunk: ChatCompletionChunk | Completion) -> bool:
    """Whether a chunk brings anything; some servers send empty ones to keep connections alive."""
    for choice in chunk.choices:
        if choice.finish_reason is not None:
            return True
        if _says(choice.delta) if isinstance(choice, ChunkChoice) else choice.text:
            return True
    return False


class _ChatChoice:
    """One choice of a chat answer as it grows."""

    __slots__ = (
        "about", "content", "finish_reason", "function", "index", "logprobs", "reasoning",
        "reasoning_content", "refusal", "role", "tools", "unknown", "usage",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        self.role: str | None = None
        self.finish_reason: str | None = None
        self.content: list[str] = []
        self.refusal: list[str] = []
        self.reasoning: list[str] = []
        self.reasoning_content: list[str] = []
        self.tools: ToolCallMerger | None = None
        self.function: CallPieces | None = None  # the older form: one call, without an id
        self.logprobs: ChoiceLogprobs | None = None
        self.unknown: UnknownFields | None = None  # the message's
        self.about: UnknownFields | None = None  # the choice's own
        self.usage: UsageTally | None = None  # where a server reports it per choice

    def add(self, choice: ChunkChoice) -> bool:
        """Take in a chunk's part; returns whether it brought anything but the role."""
        delta = choice.delta
        before = self.finish_reason
        self.role = self.role or delta.role
        self.finish_reason = choice.finish_reason or self.finish_reason
        for text, parts in (
            (delta.content, self.content),
            (delta.refusal, self.refusal),
            (delta.reasoning, self.reasoning),
            (delta.reasoning_content, self.reasoning_content),
        ):
            if text is not None:
                parts.append(text)
        if delta.tool_calls:
            self.tools = self.tools or ToolCallMerger()
            self.tools.add(delta.tool_calls)
        if delta.function_call is not None:
            self.function = self.function or CallPieces()
            self.function.add(delta.function_call)
        if choice.logprobs is not None:
            self._add_logprobs(choice.logprobs)
        return _says(delta) or bool(self.finish_reason and not before)

    def _add_logprobs(self, new: ChoiceLogprobs) -> None:
        known = self.logprobs = self.logprobs or ChoiceLogprobs()
        known.content = _extended(known.content, new.content)
        known.refusal = _extended(known.refusal, new.refusal)

    @property
    def empty(self) -> bool:
        """Whether no delta has brought anything but the role."""
        parts = self.content, self.refusal, self.reasoning, self.reasoning_content
        return not (self.tools or self.function or self.unknown or any(map(any, parts)))

    def keep(self, choice: ChunkChoice) -> None:
        """Take in the unknown fields of a chunk's part, if it has any."""
        if type(choice.delta) is not ChoiceDelta:
            self.unknown = self.unknown or UnknownFields()
            self.unknown.add(choice.delta.unknown)
        if type(choice) is not ChunkChoice:
            self.about = self.about or UnknownFields("join unless repeated")
            self.about.add(choice.unknown)
            usage = usage_of_choice(choice)
            if usage is not None:
                self.usage = self.usage or UsageTally()
                self.usage.add(usage, with_content=_says(choice.delta))

    def size(self) -> int:
        """UTF-8 bytes of text; of the two names for reasoning the one that says more."""
        reasoning = max(_size(self.reasoning), _size(self.reasoning_content))
        calls = (self.tools.result() if self.tools else None) or []
        called = [call.function for call in calls]
        if self.function is not None:
            called.append(self.function.function())
        arguments = _size([part for call in called for part in (call.name, call.arguments)])
        return _size(self.content) + _size(self.refusal) + reasoning + arguments

    def result(self) -> Choice:
        message = ChatCompletionMessage(
            role=self.role or "assistant",
            content="".join(self.content) if self.content else None,
            refusal="".join(self.refusal) or None,
            tool_calls=self.tools.result() if self.tools else None,
            function_call=self.function.function() if self.function else None,
            reasoning_content="".join(self.reasoning_content) or None,
            reasoning="".join(self.reasoning) or None,
        )
        if message.content == "" and message.tool_calls:
            message.content = None
        if self.unknown is not None:
            message = with_unknown(message, self.unknown.result())
        choice = Choice(self.index, message, self.finish_reason, _settled(self.logprobs))
        return choice if self.about is None else with_unknown(choice, self.about.result())


class _Ending(Protocol):
    finish_reason: str | None

    def size(self) -> int:
        """UTF-8 bytes of text."""


G = TypeVar("G", bound=_Ending)


class _GrowingAnswer(Generic[G]):
    """What the two kinds of answers have in common as they grow.

    Attributes:
        expected: number of choices that were asked for; None: unknown. Of one choice the index
            says nothing: some servers begin at 1, some count tokens.
        has_delta: whether any text, tool call or finish_reason has come.
        usage: the latest usage that says anything, or None.
    """

    __slots__ = ("_choices", "_head", "_tally", "expected", "has_delta", "usage")

    def __init__(self, expected: int | None = None) -> None:
        self.expected = expected
        self.has_delta = False
        self.usage: Usage | None = None
        self._head = _SharedFields()
        self._tally: UsageTally | None = None
        self._choices: dict[int, G] = {}

    @property
    def has_choices(self) -> bool:
        """Whether any choice has been seen."""
        return bool(self._choices)

    @property
    def model(self) -> str:
        """The model that answers, as far as known."""
        return self._head.model

    def _add_about(self, chunk: ChatCompletionChunk | Completion, *, with_content: bool) -> None:
        """Take in what a chunk says about the whole answer."""
        usage = chunk.usage
        if type(chunk) not in _PLAIN:
            self._head.keep(chunk.unknown)
            usage = usage if usage is not None else usage_of_vendor(chunk)
        if usage is not None:
            if self._tally is None:
                self._tally = UsageTally()
            self._tally.add(usage, with_content=with_content)
            self.usage = self._tally.total

    def finished(self, expected: int) -> bool:
        """Whether each of at least ``expected`` choices has a finish_reason."""
        done = [choice.finish_reason is not None for choice in self._choices.values()]
        return len(done) >= expected and all(done)

    def facts(self) -> tuple[str | None, str | None, tuple[str, ...]]:
        """Return the answer's id, its model and the finish_reasons, as far as they are known."""
        head = self._head
        try:
            (only,) = self._choices.values()  # nearly always there is one
        except ValueError:
            choices = self._choices
            known = [choices[index].finish_reason for index in sorted(choices)]
            reasons = tuple([reason for reason in known if reason is not None])
        else:
            reasons = () if only.finish_reason is None else (only.finish_reason,)
        return head.id or None, head.model or None, reasons

    def size(self) -> int:
        """Return how many UTF-8 bytes of text have come, those of tool calls included."""
        return sum(choice.size() for choice in self._choices.values())


class ChatAccumulator(_GrowingAnswer[_ChatChoice]):
    """Puts :class:`ChatCompletionChunk` pieces together to a :class:`ChatCompletion`."""

    __slots__ = ("_begun", "_by_message", "_first", "_tier")

    def __init__(self, expected: int | None = None) -> None:
        super().__init__(expected)
        self._tier: str | None = None
        self._first = _ChatChoice(0)
        self._begun = False  # whether choice 0 has had its first delta
        self._by_message = False  # whether the server says `message` where `delta` should be

    @property
    def content(self) -> list[str]:
        """The text of choice 0 in the pieces that have come; the list that grows with it."""
        return self._first.content

    def add(self, chunks: Iterable[ChatCompletionChunk]) -> None:
        """Take in chunks, in order."""
        for chunk in chunks:
            self._add(chunk)

    def add_plain(self, chunks: Iterable[ChatCompletionChunk]) -> None:
        """Take in chunks, in order, none of which has unknown fields."""
        append = self._first.content.append
        for chunk in chunks:
            choices = chunk.choices
            # The common chunk brings text for choice 0 and nothing else.
            if self._begun and len(choices) == 1 and chunk.usage is None:
                choice = choices[0]
                delta = choice.delta
                if (
                    delta.content is not None
                    and choice.finish_reason is None
                    and choice.logprobs is None
                    and choice.index == 0
                    and delta.tool_calls is None
                    and delta.reasoning_content is None
                    and delta.refusal is None
                    and delta.reasoning is None
                    and delta.function_call is None
                ):
                    append(delta.content)
                    continue
            self._add(chunk, plain=True)

    def text_sink(self, index: int) -> Callable[[str], None]:
        """Return what takes in the text of chunks that bring nothing else."""
        return self._choices[index].content.append

    def _add(self, chunk: ChatCompletionChunk, *, plain: bool = False) -> None:
        if not self._head.seen:
            self._head.read(chunk)
        self._tier = chunk.service_tier or self._tier
        said = reported = False
        for place, given in enumerate(chunk.choices):
            choice = given
            if choice.index and self.expected == 1 and len(chunk.choices) == 1:
                choice.index = 0
            if not plain and type(choice) is not ChunkChoice:
                reported = True
                choice = chunk.choices[place] = self._with_delta(choice)
            known = self._choices.get(choice.index)
            if known is None:
                known = self._first if choice.index == 0 else _ChatChoice(choice.index)
                self._choices[choice.index] = known
            if not plain:
                known.keep(choice)
            if known.add(choice):
                said = self.has_delta = True
                self._begun = self._begun or choice.index == 0
        if chunk.usage is not None or type(chunk) is not ChatCompletionChunk:
            self._add_about(chunk, with_content=said)
        if reported and (self._tally is None or self._tally.total is None):
            tallies = [choice.usage for choice in self._choices.values() if choice.usage]
            self.usage = added_up([tally.total for tally in tallies if tally.total])

    def _with_delta(self, choice: ChunkChoice) -> ChunkChoice:
        """Take ``message`` or ``text`` for the delta of a choice that has had no delta.

        After deltas it repeats them: MiniMax ends a stream with the whole message.
        """
        known = self._choices.get(choice.index)
        if not (self._by_message or known is None or known.empty):
            return choice
        made = with_delta(choice)
        self._by_message = self._by_message or made is not choice
        return made

    def result(self) -> ChatCompletion:
        """Return the answer as far as it has come."""
        head = self._head
        answer = ChatCompletion(
            id=head.id,
            choices=[self._choices[index].result() for index in sorted(self._choices)],
            created=head.created,
            model=head.model,
            usage=self.usage,
            system_fingerprint=head.fingerprint,
            service_tier=self._tier,
        )
        return answer if head.unknown is None else with_unknown(answer, head.unknown.result())


class _TextChoice:
    """One choice of a text completion as it grows."""

    __slots__ = ("about", "finish_reason", "index", "logprobs", "text")

    def __init__(self, index: int) -> None:
        self.index = index
        self.about: UnknownFields | None = None
        self.text: list[str] = []
        self.finish_reason: str | None = None
        self.logprobs: CompletionLogprobs | None = None

    def add(self, choice: CompletionChoice) -> bool:
        before = self.finish_reason
        self.finish_reason = choice.finish_reason or before
        self.text.append(choice.text)
        if type(choice) is not CompletionChoice:
            self.about = self.about or UnknownFields("join unless repeated")
            self.about.add(choice.unknown)
        new = choice.logprobs
        if new is not None:
            known = self.logprobs = self.logprobs or CompletionLogprobs()
            known.tokens = _extended(known.tokens, new.tokens)
            known.token_logprobs = _extended(known.token_logprobs, new.token_logprobs)
            known.top_logprobs = _extended(known.top_logprobs, new.top_logprobs)
            known.text_offset = _extended(known.text_offset, new.text_offset)
        return bool(choice.text or (self.finish_reason and not before))

    def size(self) -> int:
        """UTF-8 bytes of text."""
        return _size(self.text)

    def result(self) -> CompletionChoice:
        choice = CompletionChoice(
            "".join(self.text), self.index, self.finish_reason, _settled(self.logprobs)
        )
        return choice if self.about is None else with_unknown(choice, self.about.result())


class CompletionAccumulator(_GrowingAnswer[_TextChoice]):
    """Puts the chunks of a streamed text completion together."""

    __slots__ = ()

    def add(self, chunks: Iterable[Completion]) -> None:
        """Take in chunks, in order."""
        for chunk in chunks:
            if not self._head.seen:
                self._head.read(chunk)
            said = False
            for choice in chunk.choices:
                if choice.index and self.expected == 1 and len(chunk.choices) == 1:
                    choice.index = 0
                known = self._choices.get(choice.index)
                if known is None:
                    known = self._choices[choice.index] = _TextChoice(choice.index)
                if known.add(choice):
                    said = self.has_delta = True
            if chunk.usage is not None or type(chunk) is not Completion:
                self._add_about(chunk, with_content=said)

    add_plain = add

    def text_sink(self, index: int) -> Callable[[str], None]:
        """Return what takes in the text of chunks that bring nothing else."""
        return self._choices[index].text.append

    def result(self) -> Completion:
        """Return the answer as far as it has come."""
        head = self._head
        answer = Completion(
            id=head.id,
            choices=[choice.result() for _, choice in sorted(self._choices.items())],
            created=head.created,
            model=head.model,
            usage=self.usage,
            system_fingerprint=head.fingerprint,
        )
        return answer if head.unknown is None else with_unknown(answer, head.unknown.result())
