"""AG-UI, the Agent User Interaction protocol, version 1.0: what CopilotKit and others read.

Source: https://docs.ag-ui.com, and the schema of npm's ``@ag-ui/core`` and PyPI's
``ag-ui-protocol``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from konko_async import ChatCompletion, ChatCompletionChunk, ChunkBatch, KonkoError, Usage
from konko_async.relay._errors import public_error
from konko_async.relay._formats.ag_ui_request import parse_ag_ui
from konko_async.relay._formats.base import ChatCall, Dialect, StopReason, StreamStats
from konko_async.relay._formats.tool_events import CallIds, result_of, trouble_of
from konko_async.tools import (
    ReasoningDelta,
    RoundFinished,
    TextDelta,
    ToolEvent,
    ToolFinished,
    ToolInvocation,
    ToolOutcome,
    ToolStarted,
    arguments_problem,
    ended_well,
    history_arguments,
)
from konko_async.wire import CallPieces, ToolCallDelta, ToolCallMerger

if TYPE_CHECKING:
    from konko_async.relay._policy import RelayOptions
    from konko_async.wire import ChoiceDelta

__all__ = ["AG_UI", "AGUIFormat"]

_encode = msgspec.json.encode
_CUT: Final = {
    "shutdown": "the server is being restarted: the answer was cut short",
    "abandoned": "nobody was reading the answer any more: it was cut short",
}
_CUT_CALL: Final = "the answer was cut before its tool calls were known to be complete"

_Kind = Literal["text", "reasoning"]


class AGUIFormat:
    """Writes an answer as one run: text and reasoning as messages, and tool calls.

    Choice 0 is what is shown. Calls of the browser's own tools end with ``TOOL_CALL_END`` once they
    are known to be whole, as the browser then runs them; of an answer that was cut, none is, and
    the run ends with ``RUN_ERROR``. Calls that are made on this side have their results as
    ``TOOL_CALL_RESULT``. A run that the user stopped ends with the outcome ``cancelled``.

    Args:
        thread_id: of the conversation, as the browser gave it.
        run_id: of this run, as the browser gave it; ids of messages are made of it.
        usage: whether ``RUN_FINISHED`` says the tokens. Default True.
        results: whether browsers see what the tools of ``run_tools()`` returned; else only that
            they did. Default True.
        model: what the model is called there, if not by its own name.
    """

    headers: Mapping[str, str]

    def __init__(
        self,
        *,
        thread_id: str = "",
        run_id: str = "",
        usage: bool = True,
        results: bool = True,
        model: str | None = None,
    ) -> None:
        self.headers = {}
        self._run = {"threadId": thread_id or "thread", "runId": run_id or "run"}
        self._usage = usage
        self._results = results
        self._model = model
        self._messages = 0
        self._open: tuple[_Kind, str] | None = None  # the message that grows, and its id
        self._pieces = ToolCallMerger()
        self._calls: dict[CallPieces, str | None] = {}  # with the ids that browsers know, if any
        self._ids = CallIds()

    def begin(self, stream_id: str | None) -> list[bytes]:  # noqa: ARG002 - the protocol's
        """Return ``RUN_STARTED``."""
        return [_event("RUN_STARTED", **self._run)]

    def take(self, batch: ChunkBatch[ChatCompletionChunk]) -> list[bytes]:
        """Return the events of chunks; of those alike in all but their text, one."""
        shape = batch.shape
        if shape is not None:
            text = "".join(batch.texts()) if shape.choices[0].index == 0 else ""
            return self._say("text", text)
        events: list[bytes] = []
        for chunk in batch.chunks():
            for choice in chunk.choices:
                if choice.index == 0:
                    events += self._delta(choice.delta)
        return events

    def tell(self, event: ToolEvent) -> list[bytes]:
        """Return the events for one event of a run of tools."""
        match event:
            case TextDelta(text):
                return self._say("text", text)
            case ReasoningDelta(text):
                return self._say("reasoning", text)
            case ToolStarted(call):
                return [*self._shut(), *self._started(call)]
            case ToolFinished(outcome):
                return [*self._shut(), *self._finished(outcome)]
            case RoundFinished():
                return self._shut()

    def end(self, completion: ChatCompletion | None, stats: StreamStats) -> list[bytes]:
        """Return the ends of what is open, and ``RUN_FINISHED``."""
        reason: str | None = "stop"
        if completion is not None and completion.choices:
            reason = completion.choices[0].finish_reason
        events = self._shut()
        for call in self._calls:
            events += self._begun(call)
            text = "".join(call.arguments)
            empty = text.strip() in {"", "null"}
            whole = ended_well(reason, said=True) if empty else ended_well(reason)
            if not whole or (not empty and arguments_problem(text) is not None):
                return [*events, _event("RUN_ERROR", message=_CUT_CALL, code="tool_call_cut")]
            if empty:  # browsers parse what they got
                events.append(_event("TOOL_CALL_ARGS", toolCallId=self._calls[call], delta="{}"))
            events.append(_event("TOOL_CALL_END", toolCallId=self._calls[call]))
        finished: dict[str, Any] = {**self._run, "outcome": {"type": "success"}}
        if self._usage and stats.usage is not None and stats.usage.known:
            model = self._model or (completion.model if completion is not None else None)
            finished["usage"] = [_usage(stats.usage, model)]
        return [*events, _event("RUN_FINISHED", **finished)]

    def fail(self, error: KonkoError) -> list[bytes]:
        """Return ``RUN_ERROR`` with the error's public text."""
        shown = public_error(error)
        return [
            *self._shut(),
            _event("RUN_ERROR", message=shown.message, code=shown.code or shown.type),
        ]

    def stop(self, reason: StopReason) -> list[bytes]:
        """Return the end of a run that the user stopped; else ``RUN_ERROR``."""
        if reason != "stopped":
            return [*self._shut(), _event("RUN_ERROR", message=_CUT[reason], code=reason)]
        events = self._shut()
        # A reader refuses the end of a run with a call that is open; it must not be run, either.
        if any(self._calls.values()):
            return [*events, _event("RUN_ERROR", message="stopped", code="stopped")]
        return [*events, _event("RUN_FINISHED", **self._run, outcome={"type": "cancelled"})]

    # -- messages ------------------------------------------------------------------------------

    def _delta(self, delta: ChoiceDelta) -> list[bytes]:
        events = self._say("reasoning", delta.reasoning_content or delta.reasoning or "")
        events += self._say("text", delta.content or "")
        # There is no event for it, and it is what the model has to say.
        events += self._say("text", delta.refusal or "")
        if delta.tool_calls:
            events += self._shut()
            events += self._grow_calls(delta.tool_calls)
        return events

    def _say(self, kind: _Kind, text: str) -> list[bytes]:
        if not text:  # the schema allows none
            return []
        events: list[bytes] = []
        if self._open is None or self._open[0] != kind:
            events = self._shut()
            self._messages += 1
            self._open = kind, f"{self._run['runId']}-{self._messages}"
            events += self._opened(kind, self._open[1])
        name = "TEXT_MESSAGE_CONTENT" if kind == "text" else "REASONING_MESSAGE_CONTENT"
        return [*events, _event(name, messageId=self._open[1], delta=text)]

    @staticmethod
    def _opened(kind: _Kind, id: str) -> list[bytes]:
        if kind == "text":
            return [_event("TEXT_MESSAGE_START", messageId=id, role="assistant")]
        return [
            _event("REASONING_START", messageId=id),
            _event("REASONING_MESSAGE_START", messageId=id, role="reasoning"),
        ]

    def _shut(self) -> list[bytes]:
        if self._open is None:
            return []
        (kind, shown), self._open = self._open, None
        if kind == "text":
            return [_event("TEXT_MESSAGE_END", messageId=shown)]
        return [
            _event("REASONING_MESSAGE_END", messageId=shown),
            _event("REASONING_END", messageId=shown),
        ]

    # -- tools of the browser ------------------------------------------------------------------

    def _grow_calls(self, pieces: list[ToolCallDelta]) -> list[bytes]:
        events: list[bytes] = []
        for piece, call in zip(pieces, self._pieces.add(pieces), strict=True):
            self._calls.setdefault(call, None)
            # Shown at its first arguments: its name may come in pieces, and a reader gets it once.
            if piece.function is not None and piece.function.arguments:
                events += self._begun(call)
                text = piece.function.arguments
                events.append(_event("TOOL_CALL_ARGS", toolCallId=self._calls[call], delta=text))
        return events

    def _begun(self, call: CallPieces) -> list[bytes]:
        if self._calls[call] is not None:
            return []
        number = list(self._calls).index(call) + 1
        shown = call.id or f"call_{number}"
        while shown in self._calls.values():  # some servers give an id twice
            shown += f"_{number}"
        self._calls[call] = shown
        return [_event("TOOL_CALL_START", toolCallId=shown, toolCallName=call.name)]

    # -- tools of this side --------------------------------------------------------------------

    def _started(self, call: ToolInvocation) -> list[bytes]:
        shown = self._ids.of(call)
        return [
            _event("TOOL_CALL_START", toolCallId=shown, toolCallName=call.name),
            _event("TOOL_CALL_ARGS", toolCallId=shown, delta=history_arguments(call.text)),
            _event("TOOL_CALL_END", toolCallId=shown),
        ]

    def _finished(self, outcome: ToolOutcome) -> list[bytes]:
        # A call that was denied, say, was never started; its result needs a call before it.
        events = [] if self._ids.known(outcome.call) else self._started(outcome.call)
        content = trouble_of(outcome)
        if content is None:
            found = result_of(outcome) if self._results else "done"
            content = found if isinstance(found, str) else _encode(found).decode()
        self._messages += 1
        result = {
            "messageId": f"{self._run['runId']}-{self._messages}",
            "toolCallId": self._ids.of(outcome.call),
            "content": content,
            "role": "tool",
        }
        return [*events, _event("TOOL_CALL_RESULT", **result)]


def _event(kind: str, **fields: Any) -> bytes:
    return _encode({"type": kind, **fields})


def _usage(usage: Usage, model: str | None) -> dict[str, Any]:
    spent, came = usage.completion_tokens_details, usage.prompt_tokens_details
    told = {
        "model": model,
        "inputTokens": usage.prompt_tokens,
        "outputTokens": usage.completion_tokens,
        "totalTokens": usage.total,
        "reasoningTokens": spent.reasoning_tokens if spent is not None else None,
        "cachedInputTokens": came.cached_tokens if came is not None else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _format(call: ChatCall, options: RelayOptions) -> AGUIFormat:
    return AGUIFormat(
        thread_id=call.key or "",
        run_id=call.message_id or "",
        usage="usage" in options.answer_fields,
        model=options.shown_model(call.model),
    )


AG_UI: Final = Dialect(name="ag-ui", parse=parse_ag_ui, format=_format)
"""What an AG-UI client such as ``HttpAgent`` posts, and is answered."""
