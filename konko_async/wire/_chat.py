"""Chat completions: https://platform.openai.com/docs/api-reference/chat, as Konko follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import msgspec

from konko_async.errors import ToolArgumentsError
from konko_async.wire._base import Answered, Wire
from konko_async.wire._validation_errors import MisfitError, decoder_of, read_as

__all__ = [
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "ChatCompletionTokenLogprob",
    "ChatMessage",
    "Choice",
    "ChoiceDelta",
    "ChoiceLogprobs",
    "ChunkChoice",
    "CompletionTokensDetails",
    "CompletionUsage",
    "FunctionCall",
    "PromptTokensDetails",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "TopLogprob",
    "Usage",
]

T = TypeVar("T")
_BODY_SHOWN = 4096


class PromptTokensDetails(Wire):
    """Where the prompt's tokens came from."""

    keeps_unknown: ClassVar[bool] = True
    shown: ClassVar[tuple[str, ...]] = ("audio_tokens", "cached_tokens")

    cached_tokens: int | None = None
    audio_tokens: int | None = None


class CompletionTokensDetails(Wire):
    """What the answer's tokens were spent on."""

    keeps_unknown: ClassVar[bool] = True
    shown: ClassVar[tuple[str, ...]] = (
        "accepted_prediction_tokens", "audio_tokens", "reasoning_tokens",
        "rejected_prediction_tokens", "text_tokens",
    )  # fmt: skip
    text_tokens: ClassVar[Any] = None  # a field where one is sent

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class CompletionUsage(Wire):
    """Tokens of one call, as the server counted them; ``Usage`` is another name of it."""

    keeps_unknown: ClassVar[bool] = True

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None

    @property
    def known(self) -> bool:
        """Whether the server reported anything (some send ``{}``)."""
        return bool(self.prompt_tokens or self.completion_tokens or self.total_tokens)

    @property
    def total(self) -> int:
        """Prompt and answer, also where the server sends no ``total_tokens``."""
        return self.total_tokens or self.prompt_tokens + self.completion_tokens


# The class has openai's name, as that is what is printed.
Usage = CompletionUsage


class FunctionCall(Wire):
    """A function the model wants called; ``arguments`` is JSON text and may be invalid."""

    keeps_unknown: ClassVar[bool] = True

    name: str = ""
    arguments: str = ""

    def parse(self, kind: type[T]) -> T:
        """Return the arguments as a type that msgspec knows: a Struct, a TypedDict, ``dict``.

        For the arguments of a Python function, see :meth:`konko_async.Tool.parse`.

        Raises:
            ToolArgumentsError: they do not fit; says where.
        """
        text = self.arguments
        if text.strip() in {"", "null"}:  # how some servers say that there are no arguments
            text = "{}"
        try:
            if text.startswith('"'):  # and some encode them twice
                text = read_as(text, str, decoder_of(str))
            return cast("T", read_as(text, kind, decoder_of(kind)))
        except MisfitError as error:
            failure = ToolArgumentsError(
                f"the arguments for {self.name} do not fit: {error}",
                name=self.name,
                path=error.path,
                expected=error.problem,
                # Models may write lone surrogates; an error must be made whatever the text holds.
                body=text.encode("utf-8", "replace")[:_BODY_SHOWN],
            )
        # Outside the handler: a traceback would otherwise hold the frame of the failed reading.
        raise failure


class ToolCall(Wire):
    """A complete tool call of an answer; may be sent back as it is."""

    keeps_unknown: ClassVar[bool] = True
    extra_content: ClassVar[Any] = None  # Gemini's thought signatures, where they are sent

    id: str = ""
    type: str = "function"
    function: FunctionCall = msgspec.field(default_factory=FunctionCall)


class TopLogprob(Wire):
    """One of the most likely tokens at a position.

    Attributes:
        logprob: None where the server sent none. Some write the logarithm of 0 as null, some have
            not computed it; neither is 0.0, which means certain.
    """

    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None


class ChatCompletionTokenLogprob(Wire):
    """The natural logarithm of a token's probability, and those of the most likely tokens.

    ``TokenLogprob`` is another name of it.

    Attributes:
        logprob: None where the server sent none, as for :class:`TopLogprob`.
    """

    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = []


TokenLogprob = ChatCompletionTokenLogprob


class ChoiceLogprobs(Wire):
    """Log probabilities of a choice's tokens."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class ChatCompletionMessage(Wire, omit_defaults=True):
    """The model's message; can be put into the next call's ``messages`` as it is."""

    keeps_unknown: ClassVar[bool] = True
    shown: ClassVar[tuple[str, ...]] = (
        "annotations", "audio", "content", "function_call", "refusal", "role", "tool_calls",
    )  # fmt: skip
    # Well-known fields that servers add; where one is sent, it is a field of this message.
    annotations: ClassVar[Any] = None
    audio: ClassVar[Any] = None
    images: ClassVar[Any] = None
    reasoning_details: ClassVar[Any] = None
    thinking_blocks: ClassVar[Any] = None
    extra_content: ClassVar[Any] = None

    # No default on the wire would be left out when this is sent back, so the default is None and
    # a missing role is filled in when the answer is read.
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(Wire):
    """One of the ``n`` answers."""

    keeps_unknown: ClassVar[bool] = True

    index: int = 0
    message: ChatCompletionMessage = msgspec.field(default_factory=ChatCompletionMessage)
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None


class ChatCompletion(Answered, Wire):
    """A whole answer.

    ``request_id`` is the answer's ``x-request-id`` header; None if the server sent none.
    ``usage`` is None where the server reported none: unknown is not 0.
    """

    keeps_unknown: ClassVar[bool] = True
    shown: ClassVar[tuple[str, ...]] = (
        "choices", "created", "id", "metadata", "model", "moderation", "object", "service_tier",
        "system_fingerprint", "usage",
    )  # fmt: skip
    # Of OpenAI's own API; where one is sent, it is a field.
    metadata: ClassVar[Any] = None
    moderation: ClassVar[Any] = None

    id: str = ""
    choices: list[Choice] = []
    created: int | float = 0
    model: str = ""
    object: str = "chat.completion"
    usage: Usage | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    request_id: str | None = msgspec.field(default=None, name="_request_id")
    # An error inside a 200 answer; never reaches the caller as a completion.
    error: Any = msgspec.UNSET


class ToolCallDelta(Wire, omit_defaults=True):
    """A piece of a tool call; some servers send neither index nor id."""

    keeps_unknown: ClassVar[bool] = True
    is_piece: ClassVar[bool] = True
    extra_content: ClassVar[Any] = None  # Gemini's thought signatures, where they are sent

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None


class ChoiceDelta(Wire, omit_defaults=True):
    """What a chunk adds to a choice's message."""

    keeps_unknown: ClassVar[bool] = True
    is_piece: ClassVar[bool] = True
    # Well-known fields that servers add; where one is sent, it is a field of this message.
    annotations: ClassVar[Any] = None
    audio: ClassVar[Any] = None
    images: ClassVar[Any] = None
    reasoning_details: ClassVar[Any] = None
    thinking_blocks: ClassVar[Any] = None
    extra_content: ClassVar[Any] = None

    content: str | None = None
    role: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ChunkChoice(Wire):
    """A chunk's part of one choice."""

    keeps_unknown: ClassVar[bool] = True
    # Some servers begin at 1, and some count tokens by it.
    put_right: ClassVar[frozenset[str]] = frozenset({"index"})
    is_piece: ClassVar[bool] = True

    index: int = 0
    delta: ChoiceDelta = msgspec.field(default_factory=ChoiceDelta)
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None


class _EventField:
    """A field of ``openai``'s event of a chunk, which the first chunk of a stream is as well.

    Hidden from type checkers and :func:`dir`: it is there for code that was written for events.
    """

    __slots__ = ("_name",)

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, chunk: Any, _: type | None = None) -> Any:
        if chunk is None:  # as for other fields that servers add: one that is sent takes its place
            return None
        field = getattr(getattr(chunk, "_raw", None), "event_field", None)
        if field is None:
            raise no_event_field(self._name)
        return field(chunk, self._name)


def no_event_field(name: str) -> AttributeError:
    """Return the error for a chunk that is not an event."""
    return AttributeError(
        f"a ChatCompletionChunk has no {name!r}: openai's events come from stream.events()"
    )


class ChatCompletionChunk(Wire):
    """One event of a streamed answer; ``choices`` is empty in the one that carries the usage."""

    keeps_unknown: ClassVar[bool] = True
    # Of OpenAI's own API; where one is sent, it is a field.
    moderation: ClassVar[Any] = None
    obfuscation: ClassVar[Any] = None

    id: str = ""
    choices: list[ChunkChoice] = []
    created: int | float = 0
    model: str = ""
    object: str = "chat.completion.chunk"
    usage: Usage | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    # An error sent inside a 200 stream; never reaches the caller as a chunk.
    error: Any = msgspec.UNSET

    if not TYPE_CHECKING:
        type = _EventField()
        chunk = _EventField()
        snapshot = _EventField()

    def __dir__(self) -> list[str]:
        # Without the fields of events: a debugger reads all that is in here.
        return [name for name in super().__dir__() if name not in {"type", "chunk", "snapshot"}]


class ChatMessage(msgspec.Struct, omit_defaults=True):
    """A message of a conversation, for those who prefer structs to dicts.

    Attributes:
        role: ``system``, ``user``, ``assistant``, ``tool`` (or ``developer``, ``function``).
        content: the text, a list of parts (``{"type": "text", "text": …}``), or None beside
            ``tool_calls``.
        name: of the participant.
        tool_calls: calls that an earlier answer asked for.
        tool_call_id: which of them a ``tool`` message answers.
    """

    role: str
    content: str | list[Any] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    def __post_init__(self) -> None:
        # msgspec checks types when it decodes, not in a constructor.
        if not isinstance(self.role, str):
            raise TypeError(f"role must be a string, not {type(self.role).__name__}")
