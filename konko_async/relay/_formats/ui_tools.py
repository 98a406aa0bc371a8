"""Writes tool calls as events of the UI message stream: begun, growing, complete."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from konko_async.relay._formats.tool_events import CallIds, result_of, trouble_of
from konko_async.tools import (
    ToolInvocation,
    ToolOutcome,
    arguments_problem,
    ended_well,
    history_arguments,
)
from konko_async.wire import CallPieces, ToolCallDelta, ToolCallMerger

__all__ = ["UIToolCalls", "UIToolResults"]

_encode = msgspec.json.encode
_decode = msgspec.json.decode  # and encoded anew: what a model wrote may hold line ends
_NOT_JSON: Final = "the model's arguments for this tool are not a valid JSON object"
_CUT: Final = "the answer was cut before this tool call was known to be complete"


class UIToolCalls:
    """Turns pieces of tool calls into ``tool-input-*`` events.

    A call is shown at its first piece of arguments: its name may come in pieces, too, and a reader
    gets it once. It becomes available when the answer has ended well, since only then its
    arguments are known to be whole.
    """

    __slots__ = ("_calls", "_pieces", "_shown")

    def __init__(self) -> None:
        self._pieces = ToolCallMerger()
        self._calls: list[CallPieces] = []  # those that are not complete yet
        self._shown: dict[CallPieces, str] = {}  # the ids of their tool-input-start events

    def add(self, pieces: list[ToolCallDelta]) -> list[bytes]:
        """Take in one delta's pieces and return the events that they make."""
        events: list[bytes] = []
        for piece, call in zip(pieces, self._pieces.add(pieces), strict=True):
            if call not in self._calls:
                self._calls.append(call)
            if piece.function is not None and piece.function.arguments:
                events += self._show(call)
                events.append(_delta(self._shown[call], piece.function.arguments))
        return events

    def complete(self, finish_reason: str | None) -> list[bytes]:
        """Return the events that say of each call that it is whole, or that it is not.

        Browsers run what becomes available: of an answer that was cut, no call does.

        Args:
            finish_reason: of the answer; None if the server sent none.
        """
        events: list[bytes] = []
        for call in self._calls:
            events += self._show(call)
            events.append(_available(call, self._shown[call], finish_reason))
        self._calls = []
        return events

    def _show(self, call: CallPieces) -> list[bytes]:
        if call in self._shown:
            return []
        number = self._calls.index(call) + 1
        shown_as = call.id or f"call_{number}"
        while shown_as in self._shown.values():  # some servers give an id twice
            shown_as += f"_{number}"
        self._shown[call] = shown_as
        start = {"type": "tool-input-start", "toolCallId": shown_as, "toolName": call.name}
        return [_encode(start)]


def _delta(id: str, text: str) -> bytes:
    return _encode({"type": "tool-input-delta", "toolCallId": id, "inputTextDelta": text})


def _available(call: CallPieces, shown_as: str, finish_reason: str | None) -> bytes:
    text = "".join(call.arguments)
    event: dict[str, Any] = {
        "type": "tool-input-available",
        "toolCallId": shown_as,
        "toolName": call.name,
    }
    whole = ended_well(finish_reason)
    if whole and arguments_problem(text) is None:
        event["input"] = _decode(history_arguments(text))
    elif text.strip() in {"", "null"} and ended_well(finish_reason, said=True):
        event["input"] = {}  # no arguments; whether the tool needs any, the browser knows
    else:
        event["type"] = "tool-input-error"
        event["input"] = text
        event["errorText"] = _NOT_JSON if whole else _CUT
    return _encode(event)


class UIToolResults:
    """Turns calls that are made on this side, and their results, into ``tool-*`` events.

    Args:
        shown: whether browsers see what the tools returned.
    """

    __slots__ = ("_ids", "_shown")

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._ids = CallIds()

    def started(self, call: ToolInvocation) -> list[bytes]:
        """Return the event of a call that is being made."""
        return [_encode(self._event("tool-input-available", call))]

    def finished(self, outcome: ToolOutcome) -> list[bytes]:
        """Return the events of a call that has ended, also of one that was not made."""
        call, trouble = outcome.call, trouble_of(outcome)
        made = self._ids.known(call)
        if not made and (outcome.status == "invalid" or not _is_object(call.text)):
            event = {**self._event("tool-input-error", call), "input": call.text}
            return [_encode({**event, "errorText": trouble or ""})]
        # A call that was denied, say, was never started; its output needs an input event before it.
        events = [] if made else self.started(call)
        told: dict[str, Any] = {"type": "tool-output-available", "toolCallId": self._ids.of(call)}
        if trouble is None:
            told["output"] = result_of(outcome) if self._shown else None
        else:
            told |= {"type": "tool-output-error", "errorText": trouble}
        return [*events, _encode(told)]

    def _event(self, kind: str, call: ToolInvocation) -> dict[str, Any]:
        return {
            "type": kind,
            "toolCallId": self._ids.of(call),
            "toolName": call.name,
            "input": _decode(history_arguments(call.text)),
        }


def _is_object(text: str) -> bool:
    return text.strip() in {"", "null"} or arguments_problem(text) is None
