"""Tool calls as the UI message stream tells them: begun, growing, complete."""

from __future__ import annotations

from typing import Any

import msgspec

from konko_async.relay._run_words import CallIds, result_of, trouble_of
from konko_async.tools import ToolInvocation, ToolOutcome
from konko_async.wire import FunctionCall, ToolCallDelta

__all__ = ["UIToolCalls", "UIToolResults"]

_encode = msgspec.json.encode


class _Call:
    """One call as it grows."""

    __slots__ = ("arguments", "id", "name", "shown_as")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments: list[str] = []
        self.shown_as = ""  # the id of its tool-input-start, once that is out


class UIToolCalls:
    """Pieces of tool calls to ``tool-input-*`` events.

    A call is shown at its first piece of arguments: its name may come in pieces, too, and a reader
    is told it once. It becomes available when the answer has ended well, since only then its
    arguments are known to be whole.
    """

    __slots__ = ("_by_id", "_by_index", "_calls", "_last")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}
        self._last: _Call | None = None

    def add(self, pieces: list[ToolCallDelta]) -> list[bytes]:
        """Take in one delta's pieces and return the events that they make."""
        events: list[bytes] = []
        for place, piece in enumerate(pieces):
            call = self._last = self._find(piece, place)
            if piece.id and not call.id:
                call.id = piece.id
                self._by_id[piece.id] = call
            function = piece.function
            if function is None:
                continue
            if function.name and function.name != call.name:  # some servers repeat the name
                call.name += function.name
            if function.arguments:
                call.arguments.append(function.arguments)
                events += self._show(call)
                events.append(_delta(call.shown_as, function.arguments))
        return events

    def complete(self) -> list[bytes]:
        """Return the events that say of each call that it is whole."""
        events: list[bytes] = []
        for call in self._calls:
            events += self._show(call)
            events.append(_available(call))
        self._calls = []
        return events

    def _show(self, call: _Call) -> list[bytes]:
        if call.shown_as:
            return []
        taken = {other.shown_as for other in self._calls}
        number = self._calls.index(call) + 1
        call.shown_as = call.id or f"call_{number}"
        while call.shown_as in taken:  # some servers give an id twice; results need one each
            call.shown_as += f"_{number}"
        start = {"type": "tool-input-start", "toolCallId": call.shown_as, "toolName": call.name}
        return [_encode(start)]

    # The rules by which the client itself puts calls together: by index, by id, else by order.

    def _find(self, piece: ToolCallDelta, place: int) -> _Call:
        if piece.index is not None:
            known = self._by_index.get(piece.index)
            # Some servers give every call index 0: another id is another call.
            if known is None or (piece.id and known.id and piece.id != known.id):
                known = self._by_index[piece.index] = self._with_id(piece.id) or self._new()
            return known
        if piece.id:
            return self._with_id(piece.id) or self._new()
        if self._last is None or _begins(piece.function, place, self._last):
            return self._new()
        return self._last

    def _with_id(self, id: str | None) -> _Call | None:
        return self._by_id.get(id) if id else None

    def _new(self) -> _Call:
        self._calls.append(_Call())
        return self._calls[-1]


def _begins(function: FunctionCall | None, place: int, last: _Call) -> bool:
    """Whether a piece with neither index nor id is the next call: it names another function."""
    name = "" if function is None else function.name
    if not name or not (last.name or last.arguments):
        return False
    return place > 0 or bool(last.arguments) or name != last.name


def _delta(id: str, text: str) -> bytes:
    return _encode({"type": "tool-input-delta", "toolCallId": id, "inputTextDelta": text})


def _available(call: _Call) -> bytes:
    text = "".join(call.arguments)
    event: dict[str, Any] = {
        "type": "tool-input-available",
        "toolCallId": call.shown_as,
        "toolName": call.name,
    }
    try:
        event["input"] = msgspec.json.decode(text) if text.strip() else {}
    except (msgspec.DecodeError, RecursionError):
        event["type"] = "tool-input-error"
        event["input"] = text
        event["errorText"] = "the model's arguments for this tool are not valid JSON"
    return _encode(event)


class UIToolResults:
    """Calls that are made on this side, and their results, to ``tool-*`` events.

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
        """Return the events of a call that has come to its end, also of one that was not made."""
        call, trouble = outcome.call, trouble_of(outcome)
        if outcome.status == "invalid":
            event = self._event("tool-input-error", call)
            return [_encode({**event, "input": call.text, "errorText": trouble})]
        events = [] if self._ids.known(call) else self.started(call)
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
            "input": msgspec.Raw(call.text.encode()) if _is_json(call.text) else call.text,
        }


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
