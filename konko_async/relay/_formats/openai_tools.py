"""Writes a run of tools as chunks of one answer, whatever its rounds, with results beside it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection
from typing import Any

import msgspec

from konko_async import Usage
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
    history_arguments,
)

__all__ = ["RunChunks"]

_encode = msgspec.json.encode


class RunChunks:
    """Writes one run.

    Only the last round has a finish reason: readers stop at one.

    Args:
        fields: names of those that browsers get to see.
        model: what the model is called; None: an empty text, as no answer has named it yet.
        results: whether browsers see what the tools returned.
    """

    __slots__ = ("_fields", "_head", "_ids", "_results", "_role")

    def __init__(self, fields: Collection[str], model: str | None, *, results: bool) -> None:
        self._fields = fields
        self._results = results
        self._ids = CallIds()
        self._role: dict[str, Any] = {"role": "assistant"}  # of the first delta
        # One id for all rounds, as readers take chunks of one id for one answer.
        head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model or "",
        }
        self._head = {name: value for name, value in head.items() if name in fields}

    def tell(self, event: ToolEvent) -> list[bytes]:
        """Return the payloads of an event."""
        match event:
            case TextDelta(text):
                return self._delta("content", text)
            case ReasoningDelta(text):
                return self._delta("reasoning_content", text)
            case ToolStarted(call):
                return self._call(call)
            case ToolFinished(outcome):
                told = [] if self._ids.known(outcome.call) else self._call(outcome.call)
                return [*told, self._result(outcome)]
            case RoundFinished():
                return self._round(event)

    def usage(self, usage: Usage | None) -> list[bytes]:
        """Return the chunk with the tokens of all rounds, if they are known."""
        if usage is None or not usage.known or "usage" not in self._fields:
            return []
        return [_encode({**self._head, "choices": [], "usage": usage})]

    def _round(self, event: RoundFinished) -> list[bytes]:
        choices = event.completion.choices
        if not choices or choices[0].message.tool_calls:
            return []
        return [self._chunk({}, choices[0].finish_reason or "stop")]

    def _call(self, call: ToolInvocation) -> list[bytes]:
        shown = self._ids.of(call)
        # Readers send the message back later, where it has to be acceptable.
        function = {"name": call.name, "arguments": history_arguments(call.text)}
        place = self._ids.place(call)
        piece = {"index": place, "id": shown, "type": "function", "function": function}
        return self._delta("tool_calls", [piece])

    def _result(self, outcome: ToolOutcome) -> bytes:
        call, trouble = outcome.call, trouble_of(outcome)
        relay: dict[str, Any] = {
            "tool_call_id": self._ids.of(call),
            "name": call.name,
            "status": outcome.status,
            "duration": outcome.duration,
        }
        if trouble is not None:
            relay["error"] = trouble
        elif self._results:
            relay["output"] = result_of(outcome)
        return _encode({"object": "relay.tool_result", "choices": [], "relay": relay})

    def _delta(self, name: str, value: Any) -> list[bytes]:
        if name not in self._fields:
            return []
        role, self._role = self._role, {}
        return [self._chunk({**role, name: value}, None)]

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _encode({**self._head, "choices": [choice]})
