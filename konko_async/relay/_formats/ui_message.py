"""The Vercel AI SDK's UI message stream, version 1: what ``useChat`` reads.

Source: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol, and ``uiMessageChunkSchema`` of the npm
package ``ai`` (versions 5 to 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from konko_async import ChatCompletion, ChatCompletionChunk, ChunkBatch, KonkoError, Usage
from konko_async.relay._errors import public_error
from konko_async.relay._formats.base import ChatCall, Dialect, StopReason, StreamStats
from konko_async.relay._formats.ui_request import parse_ui_chat
from konko_async.relay._formats.ui_tools import UIToolCalls, UIToolResults
from konko_async.tools import (
    ReasoningDelta,
    RoundFinished,
    TextDelta,
    ToolEvent,
    ToolFinished,
    ToolStarted,
)

if TYPE_CHECKING:
    from konko_async.relay._policy import RelayOptions
    from konko_async.wire import ChoiceDelta

__all__ = ["UI_MESSAGE", "UIMessageFormat"]

_encode = msgspec.json.encode
_DONE: Final = b"[DONE]"
_EMPTY: Final = b'""'
_STEP: Final = b'{"type":"start-step"}'
_STEPPED: Final = b'{"type":"finish-step"}'
_FINISH: Final = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
}
_CUT: Final = {
    "shutdown": "the server is being restarted: the answer was cut short",
    "abandoned": "nobody was reading the answer any more: it was cut short",
}

_Kind = Literal["text", "reasoning"]


class UIMessageFormat:
    """Writes an answer as one message with one step: reasoning, text and tool calls as its parts.

    A run of tools has a step for each round, with its calls and their results.

    Choice 0 is what is shown. Texts pass through as the JSON strings that were on the wire, those
    that arrived together as one delta. ``finish`` carries the finish reason, and with it, as
    ``messageMetadata``: ``model``, ``usage`` (``inputTokens``, ``outputTokens``, ``totalTokens``
    and, where reported, ``reasoningTokens``, ``cachedInputTokens``), ``timeToFirstToken`` and
    ``duration`` in seconds.

    Args:
        message_id: of the answer; None: the stream's id, or the browser's own where there is none.
        merge: whether texts that arrived together become one event. Default True.
        metadata: whether ``finish`` carries metadata. Default True.
        usage: whether that includes the tokens. Default True.
        results: whether browsers see what the tools of ``run_tools()`` returned; else only that
            they did. Default True.
        model: what the model is called there, if not by its own name.
    """

    headers: Mapping[str, str]

    def __init__(
        self,
        *,
        message_id: str | None = None,
        merge: bool = True,
        metadata: bool = True,
        usage: bool = True,
        results: bool = True,
        model: str | None = None,
    ) -> None:
        self.headers = {"X-Vercel-AI-UI-Message-Stream": "v1"}
        self._message_id = message_id
        self._merge = merge
        self._metadata = metadata
        self._usage = usage
        self._model = model
        self._tools = UIToolCalls()
        self._runs = UIToolResults(shown=results)
        self._stepping = False  # whether a step has begun and not ended
        self._open: _Kind | None = None  # the part that grows
        self._parts = 0
        self._head = b""  # of a delta of that part, up to its text
        self._shape: ChatCompletionChunk | None = None
        self._shown = False  # whether chunks of that shape are of choice 0

    def begin(self, stream_id: str | None) -> list[bytes]:
        """Return ``start`` and ``start-step``."""
        start = {"type": "start"}
        if message_id := self._message_id or stream_id:
            start["messageId"] = message_id
        self._stepping = True
        return [_encode(start), _STEP]

    def take(self, batch: ChunkBatch[ChatCompletionChunk]) -> list[bytes]:
        """Return the events of chunks; of those alike in all but their text, without decoding."""
        shape = batch.shape
        if shape is None:
            return self._take_chunks(batch.chunks())
        if shape is not self._shape:
            self._shape = shape
            self._shown = shape.choices[0].index == 0
        if not self._shown:
            return []
        strings = batch.strings
        if len(strings) == 1:
            string = strings[0]
        elif self._merge:
            # What is between the quotes may be joined as it is: no escape goes over the end.
            string = b'"%b"' % b"".join([string[1:-1] for string in strings])
        else:
            events = self._grow("text")
            head = self._head
            return events + [b"%b%b}" % (head, s) for s in strings if s != _EMPTY]
        if string == _EMPTY:
            return []
        if self._open == "text":
            return [b"%b%b}" % (self._head, string)]
        return [*self._grow("text"), b"%b%b}" % (self._head, string)]

    def tell(self, event: ToolEvent) -> list[bytes]:
        """Return the events for one event of a run of tools; each round is a step."""
        events = [] if self._stepping else [_STEP]
        self._stepping = True
        match event:
            case TextDelta(text):
                self._say("text", text, events)
            case ReasoningDelta(text):
                self._say("reasoning", text, events)
            case ToolStarted(call):
                events += [*self._shut(), *self._runs.started(call)]
            case ToolFinished(outcome):
                events += [*self._shut(), *self._runs.finished(outcome)]
            case RoundFinished():
                self._stepping = False
                events += [*self._shut(), _STEPPED]
        return events

    def end(self, completion: ChatCompletion | None, stats: StreamStats) -> list[bytes]:
        """Return the tool calls that are whole now, ``finish-step``, ``finish`` and ``[DONE]``."""
        reason: str | None = "stop"
        if completion is not None and completion.choices:
            reason = completion.choices[0].finish_reason
        events = [*self._shut(), *self._tools.complete(reason)]
        if self._stepping:
            events.append(_STEPPED)
        finish: dict[str, Any] = {"type": "finish"}
        finish["finishReason"] = _FINISH.get(reason or "stop", "other")
        if self._metadata:
            finish["messageMetadata"] = self._figures(completion, stats)
        return [*events, _encode(finish), _DONE]

    def fail(self, error: KonkoError) -> list[bytes]:
        """Return ``error`` with its public text, and ``[DONE]``; ``useChat`` raises it."""
        return self._cut(public_error(error).message)

    def stop(self, reason: StopReason) -> list[bytes]:
        """Return ``abort`` where the user wanted it so, else ``error``; and ``[DONE]``."""
        # A shutdown is not an abort: the user did not request it, and should see that the answer
        # is not whole.
        if reason == "stopped":
            return [*self._shut(), b'{"type":"abort","reason":"stopped"}', _DONE]
        return self._cut(_CUT[reason])

    # -- parts ---------------------------------------------------------------------------------

    def _take_chunks(self, chunks: list[ChatCompletionChunk]) -> list[bytes]:
        events: list[bytes] = []
        for chunk in chunks:
            for choice in chunk.choices:
                if choice.index == 0:
                    self._take_delta(choice.delta, events)
        return events

    def _take_delta(self, delta: ChoiceDelta, events: list[bytes]) -> None:
        if reasoning := delta.reasoning_content or delta.reasoning:
            self._say("reasoning", reasoning, events)
        if delta.content:
            self._say("text", delta.content, events)
        if delta.refusal:  # there is no event for it, and it is what the model has to say
            self._say("text", delta.refusal, events)
        if delta.tool_calls:
            events += self._shut()
            events += self._tools.add(delta.tool_calls)

    def _say(self, kind: _Kind, text: str, events: list[bytes]) -> None:
        string = _encode(text)
        if self._open != kind:
            events += self._grow(kind)
        elif self._merge and events:
            # Within one batch nothing but a delta of this part can have come last.
            events[-1] = b'%b%b"}' % (events[-1][:-2], string[1:-1])
            return
        events.append(b"%b%b}" % (self._head, string))

    def _grow(self, kind: _Kind) -> list[bytes]:
        """Let a part of this kind be the one that grows."""
        if self._open == kind:
            return []
        events = self._shut()
        self._parts += 1
        self._open = kind
        part = b"%b-%d" % (kind.encode(), self._parts)
        self._head = b'{"type":"%b-delta","id":"%b","delta":' % (kind.encode(), part)
        events.append(b'{"type":"%b-start","id":"%b"}' % (kind.encode(), part))
        return events

    def _shut(self) -> list[bytes]:
        """End the part that grows, if one does."""
        if self._open is None:
            return []
        kind, self._open = self._open.encode(), None
        return [b'{"type":"%b-end","id":"%b-%d"}' % (kind, kind, self._parts)]

    def _figures(self, completion: ChatCompletion | None, stats: StreamStats) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if model := self._model or (completion.model if completion is not None else None):
            found["model"] = model
        if self._usage and stats.usage is not None and stats.usage.known:
            found["usage"] = _usage(stats.usage)
        if stats.time_to_first_token is not None:
            found["timeToFirstToken"] = round(stats.time_to_first_token, 4)
        found["duration"] = round(stats.duration, 4)
        return found

    def _cut(self, text: str) -> list[bytes]:
        return [*self._shut(), _encode({"type": "error", "errorText": text}), _DONE]


def _usage(usage: Usage) -> dict[str, int]:
    told = {
        "inputTokens": usage.prompt_tokens,
        "outputTokens": usage.completion_tokens,
        "totalTokens": usage.total,
    }
    spent, came = usage.completion_tokens_details, usage.prompt_tokens_details
    if spent is not None and spent.reasoning_tokens is not None:
        told["reasoningTokens"] = spent.reasoning_tokens
    if came is not None and came.cached_tokens is not None:
        told["cachedInputTokens"] = came.cached_tokens
    return told


def _format(call: ChatCall, options: RelayOptions) -> UIMessageFormat:
    return UIMessageFormat(
        message_id=call.message_id,
        usage="usage" in options.answer_fields,
        model=options.shown_model(call.model),
    )


UI_MESSAGE: Final = Dialect(name="ui-message", parse=parse_ui_chat, format=_format, resumable=True)
"""What ``useChat`` asks and is answered; its streams are found again by the chat's id."""
