"""Chunks to a completion; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from konko_async._tool_calls import CallPieces, ToolCalls
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

__all__ = ["Accumulator", "ChatAccumulator", "CompletionAccumulator", "brings"]

T = TypeVar("T")
L = TypeVar("L", ChoiceLogprobs | None, CompletionLogprobs | None)
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Accumulator(Protocol[C_contra, R_co]):
    """What a stream needs to know about the chunks that went by."""

    has_delta: bool
    usage: Usage | None

    @property
    def has_choices(self) -> bool:
        """Whether any choice has been seen."""

    def add(self, chunks: Iterable[C_contra]) -> None:
        """Take in chunks, in order."""

    def text_sink(self, index: int) -> Callable[[str], None]:
        """Return what takes in the text of chunks that bring nothing else.

        Args:
            index: of a choice that has had some text.
        """

    def finished(self, expected: int) -> bool:
        """Whether each of at least ``expected`` choices has a finish_reason."""

    def result(self) -> R_co:
        """Return the whole answer as far as it has come; may be called at any time."""


class _Head:
    """Fields that the chunks of a stream share."""

    __slots__ = ("created", "fingerprint", "id", "model", "seen")

    def __init__(self) -> None:
        self.id = self.model = ""
        self.created: int | float = 0
        self.fingerprint: str | None = None
        self.seen = False  # whether there is nothing left to learn

    def read(self, chunk: ChatCompletionChunk | Completion) -> None:
        self.id = self.id or chunk.id
        self.model = self.model or chunk.model
        self.created = self.created or chunk.created
        self.fingerprint = self.fingerprint or chunk.system_fingerprint
        self.seen = bool(self.id and self.model and self.created and self.fingerprint)


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


def _says(delta: ChoiceDelta) -> bool:
    """Whether a delta brings anything but the role."""
    return bool(
        delta.content
        or delta.tool_calls
        or delta.reasoning_content
        or delta.reasoning
        or delta.refusal
        or delta.function_call
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
        "content", "finish_reason", "function", "index", "logprobs", "reasoning",
        "reasoning_content", "refusal", "role", "tools",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        self.role: str | None = None
        self.finish_reason: str | None = None
        self.content: list[str] = []
        self.refusal: list[str] = []
        self.reasoning: list[str] = []
        self.reasoning_content: list[str] = []
        self.tools: ToolCalls | None = None
        self.function: CallPieces | None = None  # the older form: one call, without an id
        self.logprobs: ChoiceLogprobs | None = None

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
            self.tools = self.tools or ToolCalls()
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
        return Choice(self.index, message, self.finish_reason, _settled(self.logprobs))


def _better(known: Usage | None, new: Usage | None) -> Usage | None:
    """Return the newer usage that says anything: some servers send ``{}``, some send many."""
    return new if new is not None and new.known else known


class _Ending(Protocol):
    finish_reason: str | None


G = TypeVar("G", bound=_Ending)


class _Answer(Generic[G]):
    """What the two kinds of answers have in common as they grow.

    Attributes:
        has_delta: whether any text, tool call or finish_reason has come.
        usage: the latest usage that says anything, or None.
    """

    __slots__ = ("_choices", "_head", "has_delta", "usage")

    def __init__(self) -> None:
        self.has_delta = False
        self.usage: Usage | None = None
        self._head = _Head()
        self._choices: dict[int, G] = {}

    @property
    def has_choices(self) -> bool:
        """Whether any choice has been seen."""
        return bool(self._choices)

    @property
    def model(self) -> str:
        """The model that answers, as far as known."""
        return self._head.model

    def finished(self, expected: int) -> bool:
        """Whether each of at least ``expected`` choices has a finish_reason."""
        done = [choice.finish_reason is not None for choice in self._choices.values()]
        return len(done) >= expected and all(done)


class ChatAccumulator(_Answer[_ChatChoice]):
    """Puts :class:`ChatCompletionChunk` pieces together to a :class:`ChatCompletion`."""

    __slots__ = ("_begun", "_first", "_tier")

    def __init__(self) -> None:
        super().__init__()
        self._tier: str | None = None
        self._first = _ChatChoice(0)
        self._begun = False  # whether choice 0 has had its first delta

    @property
    def content(self) -> list[str]:
        """The text of choice 0 in the pieces that have come; the list that grows with it."""
        return self._first.content

    def add(self, chunks: Iterable[ChatCompletionChunk]) -> None:
        """Take in chunks, in order."""
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
            self._add(chunk)

    def text_sink(self, index: int) -> Callable[[str], None]:
        """Return what takes in the text of chunks that bring nothing else."""
        return self._choices[index].content.append

    def _add(self, chunk: ChatCompletionChunk) -> None:
        if not self._head.seen:
            self._head.read(chunk)
        self._tier = chunk.service_tier or self._tier
        self.usage = _better(self.usage, chunk.usage)
        for choice in chunk.choices:
            known = self._choices.get(choice.index)
            if known is None:
                known = self._first if choice.index == 0 else _ChatChoice(choice.index)
                self._choices[choice.index] = known
            if known.add(choice):
                self.has_delta = True
                self._begun = self._begun or choice.index == 0

    def result(self) -> ChatCompletion:
        """Return the answer as far as it has come."""
        head = self._head
        return ChatCompletion(
            id=head.id,
            choices=[self._choices[index].result() for index in sorted(self._choices)],
            created=head.created,
            model=head.model,
            usage=self.usage,
            system_fingerprint=head.fingerprint,
            service_tier=self._tier,
        )


class _TextChoice:
    """One choice of a text completion as it grows."""

    __slots__ = ("finish_reason", "index", "logprobs", "text")

    def __init__(self, index: int) -> None:
        self.index = index
        self.text: list[str] = []
        self.finish_reason: str | None = None
        self.logprobs: CompletionLogprobs | None = None

    def add(self, choice: CompletionChoice) -> bool:
        before = self.finish_reason
        self.finish_reason = choice.finish_reason or before
        self.text.append(choice.text)
        new = choice.logprobs
        if new is not None:
            known = self.logprobs = self.logprobs or CompletionLogprobs()
            known.tokens = _extended(known.tokens, new.tokens)
            known.token_logprobs = _extended(known.token_logprobs, new.token_logprobs)
            known.top_logprobs = _extended(known.top_logprobs, new.top_logprobs)
            known.text_offset = _extended(known.text_offset, new.text_offset)
        return bool(choice.text or (self.finish_reason and not before))


class CompletionAccumulator(_Answer[_TextChoice]):
    """Puts the chunks of a streamed text completion together."""

    __slots__ = ()

    def add(self, chunks: Iterable[Completion]) -> None:
        """Take in chunks, in order."""
        for chunk in chunks:
            if not self._head.seen:
                self._head.read(chunk)
            self.usage = _better(self.usage, chunk.usage)
            for choice in chunk.choices:
                known = self._choices.get(choice.index)
                if known is None:
                    known = self._choices[choice.index] = _TextChoice(choice.index)
                if known.add(choice):
                    self.has_delta = True

    def text_sink(self, index: int) -> Callable[[str], None]:
        """Return what takes in the text of chunks that bring nothing else."""
        return self._choices[index].text.append

    def result(self) -> Completion:
        """Return the answer as far as it has come."""
        head = self._head
        return Completion(
            id=head.id,
            choices=[
                CompletionChoice("".join(c.text), c.index, c.finish_reason, _settled(c.logprobs))
                for _, c in sorted(self._choices.items())
            ],
            created=head.created,
            model=head.model,
            usage=self.usage,
            system_fingerprint=head.fingerprint,
        )
