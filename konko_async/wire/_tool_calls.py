"""Merges the pieces of streamed tool calls into whole calls; pure."""

from __future__ import annotations

import re

import msgspec

from konko_async.wire._base import with_unknown
from konko_async.wire._chat import FunctionCall, ToolCall, ToolCallDelta
from konko_async.wire._unknown_fields import UnknownFields

__all__ = ["CallPieces", "ToolCallMerger"]

_MARK = re.compile(r'["\\{}\[\]]')
_INSIDE = re.compile(r'\\.|\\|"', re.DOTALL)  # of a string; a backslash may end a piece


class _Scan:
    """Says whether JSON that comes in pieces is complete; looks at each character once."""

    __slots__ = ("_at", "_depth", "_in_string", "_rest", "_seen")

    def __init__(self) -> None:
        self._at = 0  # pieces scanned
        self._depth = 0
        self._in_string = self._seen = False
        self._rest = ""  # a backslash whose other half is in the next piece

    def update(self, pieces: list[str]) -> bool:
        """Scan the pieces that are new; return whether all together are a complete value."""
        if self._at < len(pieces):
            self._scan(self._rest + "".join(pieces[self._at :]))
            self._at = len(pieces)
        if self._seen:
            # Not a parse: brackets in order are enough to tell whether another piece may follow.
            return self._depth <= 0 and not self._in_string
        return _is_json("".join(pieces))

    def _scan(self, text: str) -> None:
        self._rest = ""
        at = 0
        while True:
            match = (_INSIDE if self._in_string else _MARK).search(text, at)
            if match is None:
                return
            at = match.end()
            mark = match[0]
            if mark == "\\" and self._in_string:
                self._rest = mark
            elif mark == '"':
                self._in_string = not self._in_string
            elif not self._in_string and mark in "{[":
                self._depth += 1
                self._seen = True
            elif not self._in_string and mark in "}]":
                self._depth -= 1


def _is_json(text: str) -> bool:
    """Whether arguments that are not an object are JSON; they are a few characters, if anything."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


class CallPieces:
    """One call as it grows; its pieces are joined once, at the end.

    Args:
        index: the server's number of it, if it gave one.
        name: of its function, as far as known.
    """

    __slots__ = (
        "_about", "_function", "_scan", "arguments", "id", "id_changes", "index", "name",
        "named_again", "type",
    )  # fmt: skip

    def __init__(self, index: int | None = None, name: str = "") -> None:
        self.id = ""
        self.name = name
        self.named_again = False  # whether its name came once more after its arguments were whole
        self.id_changes = False  # whether pieces of it had other ids
        self.index = index
        self.type = "function"
        self.arguments: list[str] = []
        self._scan: _Scan | None = None
        self._about: UnknownFields | None = None  # the call's unknown fields
        self._function: UnknownFields | None = None  # the function's

    @property
    def complete(self) -> bool:
        """Whether the arguments so far are complete JSON."""
        if not self.arguments:
            return False
        self._scan = self._scan or _Scan()
        return self._scan.update(self.arguments)

    def add(self, piece: FunctionCall) -> None:
        """Take in the next piece."""
        if piece.name and piece.name != self.name:  # some servers repeat the name
            self.name += piece.name
        if piece.arguments:
            self.arguments.append(piece.arguments)
        if type(piece) is not FunctionCall:
            self._function = self._function or UnknownFields()
            self._function.add(piece.unknown)

    def add_about(self, piece: ToolCallDelta) -> None:
        """Take in the fields of a piece other than its function."""
        if piece.id and self.id and piece.id != self.id:
            self.id_changes = True
        self.id = self.id or piece.id or ""
        self.type = piece.type or self.type
        if type(piece) is not ToolCallDelta:
            self._about = self._about or UnknownFields()
            self._about.add(piece.unknown)

    def function(self) -> FunctionCall:
        """Return the function as far as it has come."""
        made = FunctionCall(self.name, "".join(self.arguments))
        return made if self._function is None else with_unknown(made, self._function.result())

    def result(self) -> ToolCall:
        """Return the call as far as it has come."""
        made = ToolCall(self.id, self.type, self.function())
        return made if self._about is None else with_unknown(made, self._about.result())


class ToolCallMerger:
    """Merges pieces to calls, whatever servers say about which piece belongs to which.

    By the API each call has an index, and its first piece an id and a name. Servers send index 0
    for all calls, no ids, empty ones or another with each piece, and the name with each piece. So
    a piece belongs to the call with its index, its id, or to the latest; it opens a new call if
    none is known by these, or if it names a function although that call has one and its arguments
    are complete JSON. A new id alone opens none.
    """

    __slots__ = ("_by_id", "_by_index", "_calls", "_last")

    def __init__(self) -> None:
        self._calls: list[CallPieces] = []
        self._by_index: dict[int, CallPieces] = {}
        self._by_id: dict[str, CallPieces] = {}
        self._last: CallPieces | None = None  # where the latest piece went

    def add(self, pieces: list[ToolCallDelta]) -> list[CallPieces]:
        """Take in one delta's pieces; return the call of each."""
        used: list[CallPieces] = []
        for piece in pieces:
            call = self._find(piece)
            if call is None or _opens(piece, call, used):
                named = piece.function is not None and piece.function.name
                name = call.name if call is not None and not named else ""
                call = CallPieces(piece.index, name)
                self._calls.append(call)
                if piece.id:
                    self._by_id[piece.id] = call
            elif piece.id:
                self._by_id.setdefault(piece.id, call)
            if piece.index is not None:
                self._by_index[piece.index] = call
            self._last = call
            used.append(call)
            call.add_about(piece)
            if piece.function is not None:
                call.add(piece.function)
        return used

    def _find(self, piece: ToolCallDelta) -> CallPieces | None:
        """Return the call that a piece belongs to, going by what it says; None: a new one."""
        by_id = self._by_id.get(piece.id) if piece.id else None
        if piece.index is not None:
            known = self._by_index.get(piece.index)
            if known is not None:
                # An id that is known says more than an index that is the same for all calls.
                return known if by_id is None or by_id.index != piece.index else by_id
            if by_id is not None:
                return by_id
            return self._continued(piece)
        return by_id or self._last

    def _continued(self, piece: ToolCallDelta) -> CallPieces | None:
        """Return the latest call if a piece with a new index can only continue it.

        Without a name and an id it could never be called; so it is a server that counts pieces.
        """
        if piece.id or (piece.function is not None and piece.function.name):
            return None
        last = self._last
        return last if last is not None and last.name and not last.complete else None

    def result(self) -> list[ToolCall] | None:
        """Return the calls, by index where each has one, else as they began; None if none did."""
        calls = self._calls
        if all(call.index is not None for call in calls):
            calls = sorted(calls, key=lambda call: call.index or 0)
        return [call.result() for call in calls] or None


def _opens(piece: ToolCallDelta, call: CallPieces, used: list[CallPieces]) -> bool:
    """Whether a piece is the next call, although all else says that it belongs to this one."""
    function = piece.function
    if function is None or not call.name:
        return False
    name = function.name
    if not name:  # what follows a complete call is another one, if a name stood between
        return call.named_again and bool(function.arguments.strip())
    if call.complete:
        plain = type(piece) is ToolCallDelta and type(function) is FunctionCall
        same_id = call.id_changes or piece.id in {None, "", call.id}
        # The name once more and nothing else: of this call, or of the next if arguments follow.
        call.named_again = name == call.name and not function.arguments and plain and same_id
        return not call.named_again
    other_id = bool(piece.id and call.id and piece.id != call.id)
    if call.arguments:
        # Without indexes, pieces may alternate between calls that only ids tell apart; then a
        # call begins like an object.
        begins = function.arguments[:1] in {"", "{"}
        return piece.index is None and other_id and begins
    # No arguments so far: a name may be repeated, or go on in the next delta under its index.
    if name == call.name:
        nameless = not piece.id and not call.id
        return piece.index is None and (other_id or (call in used and nameless))
    return piece.index is None or call in used or other_id
