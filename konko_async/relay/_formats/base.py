"""Interfaces of dialects and formats: reading calls, and writing chunks, ends and failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

from konko_async import ChatCompletion, ChatCompletionChunk, ChunkBatch, KonkoError, Usage
from konko_async.tools import ToolEvent

__all__ = ["ChatCall", "Dialect", "Format", "RunFormat", "StopReason", "StreamStats"]

StopReason = Literal["stopped", "shutdown", "abandoned"]
"""Why a stream was ended by this side: by the user, by the server's end, for want of readers."""


class StreamStats(msgspec.Struct, frozen=True, kw_only=True):
    """Figures that user interfaces show with an answer.

    Attributes:
        time_to_first_token: seconds from the call to its first delta, or None.
        duration: seconds from the call to its end.
        usage: tokens, if the server reported them.
    """

    time_to_first_token: float | None = None
    duration: float = 0.0
    usage: Usage | None = None


class Format(Protocol):
    """Writes one stream; pure, one instance per stream, its methods called in this order.

    A payload is the data of one event: JSON, or a marker such as ``[DONE]``.

    Attributes:
        headers: of the HTTP answer, in addition to those that every stream has.
    """

    headers: Mapping[str, str]

    def begin(self, stream_id: str | None) -> list[bytes]:
        """Return what comes before the first chunk.

        Args:
            stream_id: for resuming it; None if it cannot be resumed.
        """

    def take(self, batch: ChunkBatch[ChatCompletionChunk]) -> list[bytes]:
        """Return the payloads of chunks."""

    def end(self, completion: ChatCompletion | None, stats: StreamStats) -> list[bytes]:
        """Return what follows the last chunk of an answer that ended well.

        Args:
            completion: the whole answer.
            stats: times and tokens.
        """

    def fail(self, error: KonkoError) -> list[bytes]:
        """Return what follows the last chunk if the answer failed: a typed event."""

    def stop(self, reason: StopReason) -> list[bytes]:
        """Return what follows the last chunk if this side ended it."""


class RunFormat(Format, Protocol):
    """A format that can also write a conversation in which tools are called.

    For a :class:`~konko_async.tools.ToolRun`, ``take`` is not called, but ``tell``.
    """

    def tell(self, event: ToolEvent) -> list[bytes]:
        """Return the payloads of an event."""


class ChatCall(msgspec.Struct, frozen=True, kw_only=True):
    """A browser's request, checked and in the API's terms.

    Attributes:
        model: one of those allowed.
        messages: the conversation.
        params: the optional parameters, of those allowed.
        stream: whether the answer is to be streamed.
        key: the conversation's id if it has one: its stream can be found by it.
        message_id: the id that the answer is to have, for formats that have such.
    """

    model: str
    messages: list[Any]
    params: dict[str, Any] = {}
    stream: bool = True
    key: str | None = None
    message_id: str | None = None


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """One way of asking and answering.

    Attributes:
        name: stored with streams.
        parse: the decoded JSON body (any value) and the :class:`RelayOptions` to a ChatCall; raises
            :class:`~konko_async.relay.RefusalError`. Models, fields and caps are checked by
            ``checked_call()`` of ``_policy``, which it may call.
        format: the call to the Format of its answer.
        resumable: whether streams are resumable unless the request says otherwise.
    """

    name: str
    parse: Callable[[Any, Any], ChatCall]
    format: Callable[[ChatCall, Any], Format]
    resumable: bool = False
