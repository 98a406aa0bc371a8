"""The events that ``openai``'s ``stream()`` makes of the chunks of an answer; names are theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar

import msgspec

from konko_async.wire._base import Dumps
from konko_async.wire._chat import ChatCompletionChunk, ChatCompletionTokenLogprob
from konko_async.wire._parsed import ParsedChatCompletion

__all__ = [
    "ChatCompletionStreamEvent",
    "ChunkEvent",
    "ContentDeltaEvent",
    "ContentDoneEvent",
    "FunctionToolCallArgumentsDeltaEvent",
    "FunctionToolCallArgumentsDoneEvent",
    "LogprobsContentDeltaEvent",
    "LogprobsContentDoneEvent",
    "LogprobsRefusalDeltaEvent",
    "LogprobsRefusalDoneEvent",
    "RefusalDeltaEvent",
    "RefusalDoneEvent",
]

T = TypeVar("T")
Snapshot = Callable[[], ParsedChatCompletion[Any]]


class _Event(Dumps, msgspec.Struct):
    """Base of the events."""


class ChunkEvent(_Event, kw_only=True):
    """A chunk has come; before the events of what it brings.

    Attributes:
        chunk: as the server sent it.
    """

    type: Literal["chunk"] = "chunk"
    chunk: ChatCompletionChunk
    # A function, as a whole answer per chunk would cost the square of its length.
    so_far: Snapshot = msgspec.field(name="_so_far")

    @property
    def snapshot(self) -> ParsedChatCompletion[Any]:
        """The answer as far as it has come when this is read; as in ``openai``, where it grows."""
        return self.so_far()

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("chunk", self.chunk), ("snapshot", self.snapshot), ("type", self.type)]


class ContentDeltaEvent(_Event, kw_only=True):
    """A choice's text has grown.

    Attributes:
        delta: what has come.
        snapshot: the text so far.
        parsed: with a type as ``response_format``: the JSON so far, as plain values.
    """

    type: Literal["content.delta"] = "content.delta"
    delta: str
    snapshot: str
    parsed: Any = None


class ContentDoneEvent(_Event, Generic[T], kw_only=True):
    """A choice's text is whole.

    Attributes:
        content: the text.
        parsed: with a type as ``response_format``: the value.
    """

    type: Literal["content.done"] = "content.done"
    content: str
    parsed: T | None = None


class RefusalDeltaEvent(_Event, kw_only=True):
    """A choice's refusal has grown: by ``delta``, to ``snapshot``."""

    type: Literal["refusal.delta"] = "refusal.delta"
    delta: str
    snapshot: str


class RefusalDoneEvent(_Event, kw_only=True):
    """A choice's refusal is whole."""

    type: Literal["refusal.done"] = "refusal.done"
    refusal: str


class FunctionToolCallArgumentsDeltaEvent(_Event, kw_only=True):
    """The arguments of a tool call have grown.

    Attributes:
        name: of the function.
        index: which call of the choice it is.
        arguments: the JSON so far.
        parsed_arguments: that JSON as plain values, where the tool is strict; else None.
        arguments_delta: what has come.
    """

    type: Literal["tool_calls.function.arguments.delta"] = "tool_calls.function.arguments.delta"
    name: str
    index: int
    arguments: str
    parsed_arguments: Any
    arguments_delta: str


class FunctionToolCallArgumentsDoneEvent(_Event, kw_only=True):
    """The arguments of a tool call are whole.

    Attributes:
        name: of the function.
        index: which call of the choice it is.
        arguments: the JSON.
        parsed_arguments: a model, where the tool is one; else a dict, where it is strict; or None.
    """

    type: Literal["tool_calls.function.arguments.done"] = "tool_calls.function.arguments.done"
    name: str
    index: int
    arguments: str
    parsed_arguments: Any


class LogprobsContentDeltaEvent(_Event, kw_only=True):
    """Log probabilities of a choice's text: those that have come, and all so far."""

    type: Literal["logprobs.content.delta"] = "logprobs.content.delta"
    content: list[ChatCompletionTokenLogprob]
    snapshot: list[ChatCompletionTokenLogprob]


class LogprobsContentDoneEvent(_Event, kw_only=True):
    """Log probabilities of a choice's text, all of them."""

    type: Literal["logprobs.content.done"] = "logprobs.content.done"
    content: list[ChatCompletionTokenLogprob]


class LogprobsRefusalDeltaEvent(_Event, kw_only=True):
    """Log probabilities of a choice's refusal: those that have come, and all so far."""

    type: Literal["logprobs.refusal.delta"] = "logprobs.refusal.delta"
    refusal: list[ChatCompletionTokenLogprob]
    snapshot: list[ChatCompletionTokenLogprob]


class LogprobsRefusalDoneEvent(_Event, kw_only=True):
    """Log probabilities of a choice's refusal, all of them."""

    type: Literal["logprobs.refusal.done"] = "logprobs.refusal.done"
    refusal: list[ChatCompletionTokenLogprob]


ChatCompletionStreamEvent = (
    ChunkEvent
    | ContentDeltaEvent
    | ContentDoneEvent[T]
    | RefusalDeltaEvent
    | RefusalDoneEvent
    | FunctionToolCallArgumentsDeltaEvent
    | FunctionToolCallArgumentsDoneEvent
    | LogprobsContentDeltaEvent
    | LogprobsContentDoneEvent
    | LogprobsRefusalDeltaEvent
    | LogprobsRefusalDoneEvent
)
