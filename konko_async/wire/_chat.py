"""Chat completions: https://platform.openai.com/docs/api-reference/chat, as Konko follows it."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import msgspec

from konko_async.errors import ToolArgumentsError
from konko_async.wire._base import Wire
from konko_async.wire._misfit import MisfitError, decoder_of, read_as

__all__ = [
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatCompletionMessage",
    "ChatMessage",
    "Choice",
    "ChoiceDelta",
    "ChoiceLogprobs",
    "ChunkChoice",
    "CompletionTokensDetails",
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

    cached_tokens: int | None = None
    audio_tokens: int | None = None


class CompletionTokensDetails(Wire):
    """What the answer's tokens were spent on."""

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class Usage(Wire):
    """Tokens of one call, as the server counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None

    @property
    def known(self) -> bool:
        """Whether the server told anything (some send ``{}``)."""
        return bool(self.prompt_tokens or self.completion_tokens or self.total_tokens)

    @property
    def total(self) -> int:
        """Prompt and answer, also where the server sends no ``total_tokens``."""
        return self.total_tokens or self.prompt_tokens + self.completion_tokens


class FunctionCall(Wire):
    """A function the model wants called; ``arguments`` is JSON text and may be invalid."""

    name: str = ""
    arguments: str = ""

    def parse(self, kind: type[T]) -> T:
        """Return the arguments as a type that msgspec knows: a Struct, a TypedDict, ``dict``.

        For the arguments of a Python function, see :meth:`konko_async.Tool.parse`.

        Raises:
            ToolArgumentsError: they do not fit; says where.
        """
        text = self.arguments or "{}"  # some servers send nothing for no arguments
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
                body=text.encode("utf-8", "replace")[:_BODY_SHOWN],
            )
        raise failure


class ToolCall(Wire):
    """A complete tool call of an answer; may be sent back as it is."""

    id: str = ""
    type: str = "function"
    function: FunctionCall = msgspec.field(default_factory=FunctionCall)


class TopLogprob(Wire):
    """One of the most likely tokens at a place."""

    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None


class TokenLogprob(Wire):
    """The natural logarithm of a token's probability, and of its rivals."""

    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = []


class ChoiceLogprobs(Wire):
    """Log probabilities of a choice's tokens."""

    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class ChatCompletionMessage(Wire, omit_defaults=True):
    """The model's message; can be put into the next call's ``messages`` as it is."""

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

    index: int = 0
    message: ChatCompletionMessage = msgspec.field(default_factory=ChatCompletionMessage)
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None


class ChatCompletion(Wire):
    """A whole answer.

    ``request_id`` is the answer's ``x-request-id`` header; None if the server sent none.
    ``usage`` is None where the server told none: unknown is not 0.
    """

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

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionCall | None = None


class ChoiceDelta(Wire, omit_defaults=True):
    """What a chunk adds to a choice's message."""

    content: str | None = None
    role: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ChunkChoice(Wire):
    """A chunk's part of one choice."""

    index: int = 0
    delta: ChoiceDelta = msgspec.field(default_factory=ChoiceDelta)
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None


class ChatCompletionChunk(Wire):
    """One event of a streamed answer; ``choices`` is empty in the one that carries the usage."""

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
        if not isinstance(self.role, str):
            raise TypeError(f"role must be a string, not {type(self.role).__name__}")
