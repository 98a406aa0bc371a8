"""Pieces of tool calls to whole ones; pure."""

from __future__ import annotations

from konko_async.wire import FunctionCall, ToolCall, ToolCallDelta

__all__ = ["CallPieces", "ToolCalls"]


class CallPieces:
    """One call as it grows; its pieces are joined once, at the end.

    Args:
        index: the server's number of it, if it gave one.
    """

    __slots__ = ("arguments", "id", "index", "name", "type")

    def __init__(self, index: int | None = None) -> None:
        self.id = self.name = ""
        self.index = index
        self.type = "function"
        self.arguments: list[str] = []

    def add(self, piece: FunctionCall) -> None:
        """Take in the next piece."""
        if piece.name and piece.name != self.name:  # some servers repeat the name
            self.name += piece.name
        if piece.arguments:
            self.arguments.append(piece.arguments)

    def function(self) -> FunctionCall:
        """Return the call as far as it has come."""
        return FunctionCall(self.name, "".join(self.arguments))


class ToolCalls:
    """Merges pieces by index or id, and by order where servers send neither."""

    __slots__ = ("_by_id", "_by_index", "_calls", "_last")

    def __init__(self) -> None:
        self._calls: list[CallPieces] = []
        self._by_index: dict[int, CallPieces] = {}
        self._by_id: dict[str, CallPieces] = {}
        self._last: CallPieces | None = None  # where the latest piece went

    def add(self, pieces: list[ToolCallDelta]) -> None:
        """Take in one delta's pieces."""
        for place, piece in enumerate(pieces):
            call = self._last = self._find(piece, place)
            if piece.id and not call.id:
                call.id = piece.id
                self._by_id[piece.id] = call
            call.type = piece.type or call.type
            if piece.function is not None:
                call.add(piece.function)

    def _find(self, piece: ToolCallDelta, place: int) -> CallPieces:
        if piece.index is not None:
            known = self._by_index.get(piece.index)
            # Some servers give every call index 0: another id is another call.
            if known is None or (piece.id and known.id and piece.id != known.id):
                known = self._with_id(piece) or self._new(piece.index)
                self._by_index[piece.index] = known
            return known
        if piece.id:
            return self._with_id(piece) or self._new()
        if self._last is None or _begins(piece, place, self._last):
            return self._new()
        return self._last

    def _with_id(self, piece: ToolCallDelta) -> CallPieces | None:
        return self._by_id.get(piece.id) if piece.id else None

    def _new(self, index: int | None = None) -> CallPieces:
        self._calls.append(CallPieces(index))
        return self._calls[-1]

    def result(self) -> list[ToolCall] | None:
        """Return the calls, by index where each has one, else as they began; None if none did."""
        calls = self._calls
        if all(call.index is not None for call in calls):
            calls = sorted(calls, key=lambda call: call.index or 0)
        return [ToolCall(call.id, call.type, call.function()) for call in calls] or None


def _begins(piece: ToolCallDelta, place: int, last: CallPieces) -> bool:
    """Whether a piece with neither index nor id is the next call.

    It is if it names a function while another is under way, unless it only says the name again
    before any arguments have come.
    """
    name = piece.function.name if piece.function is not None else ""
    if not name or not (last.name or last.arguments):
        return False
    return place > 0 or bool(last.arguments) or name != last.name
