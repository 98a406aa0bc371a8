"""Bytes to records: lines, or records of a table, which may hold line breaks. No I/O."""

from __future__ import annotations

import msgspec

from konko_async.batch._input.table import Table, line_state, swallows

__all__ = ["Piece", "Splitter"]

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r"


# Without garbage collection, as a piece refers to nothing that could refer back to it.
class Piece(msgspec.Struct, gc=False):
    """One record as it stands in the input.

    Attributes:
        line: number of its first line, from 1.
        offset: where that line begins, in bytes.
        data: its bytes without the line's end; None if it is longer than allowed.
        name: of the file it is, or is in, where there are several.
        problem: why it cannot be read; None if it can.
    """

    line: int
    offset: int
    data: bytes | None
    name: str | None = None
    problem: str | None = None


class Splitter:
    """Cuts bytes into records, however they come; blank lines are none.

    Args:
        max_bytes: length of the longest record; a longer one is a piece without data, and is
            never held in memory.
        table: how the table is written, in which a line break within double quotes is part of the
            record; None: each line is a record.
        begins: whether the bytes are those of the file's beginning, where a BOM may stand.
    """

    def __init__(self, *, max_bytes: int, table: Table | None = None, begins: bool = True) -> None:
        self._max = max_bytes
        self._table = table
        self._delimiter = b"" if table is None else table.delimiter.encode()
        # A line of nothing but tabs is a row of empty cells where tabs part the cells.
        self._blank = bytes(set(_BLANK) - set(self._delimiter))
        self._begins = begins
        self._line = 0
        self._offset = 0
        self._parts: list[bytes] = []  # of the line that has not ended yet
        self._size = 0
        # Lines of a record whose quotes are open, with their numbers and offsets.
        self._open: list[tuple[int, int, bytes]] = []
        self._open_size = 0
        self._too_long = False

    def feed(self, data: bytes) -> list[Piece]:
        """Return the records that end in ``data``."""
        # Bytes can be cut before they are decoded: in UTF-8 no other
        # character holds a line feed's byte.
        lines = data.split(b"\n")
        rest = lines.pop()
        found: list[Piece] = []
        if lines and self._parts:
            lines[0] = self._join(lines[0])
        for line in lines:
            self._end_line(line, found)
        if rest:
            self._size += len(rest)
            if self._size > self._max + len(_BOM):  # which will go, if it is there
                self._too_long = True
                # Not empty, or flush() would take the line for one that has not begun.
                self._parts = [b""]
            else:
                self._parts.append(rest)
        return found

    def flush(self) -> list[Piece]:
        """Return the last record, which no line break ends, if there is one."""
        found: list[Piece] = []
        if self._parts:
            self._end_line(self._join(b""), found)
        while self._open:
            self._give_up("is never closed", found)
        return found

    def _join(self, last: bytes) -> bytes:
        """The whole line, or of one that is too long nothing: its length is in ``_size``."""
        self._size += len(last)
        if self._too_long or self._size > self._max + len(_BOM):
            self._too_long = True
            self._parts.clear()
            return b""
        line = b"".join([*self._parts, last])
        self._parts.clear()
        return line

    def _end_line(self, line: bytes, found: list[Piece]) -> None:
        self._line += 1
        number, offset = self._line, self._offset
        # _size counts a line that came in several reads, also where it was too long to be kept.
        self._offset += (self._size or len(line)) + 1
        self._size = 0
        if self._line == 1 and self._begins and line.startswith(_BOM):
            line = line[len(_BOM) :]
        if self._table is None:
            self._emit(number, offset, line, found)
        else:
            self._take_line(number, offset, line, found)

    def _take_line(self, number: int, offset: int, line: bytes, found: list[Piece]) -> None:
        """Add a line of a table to the record that is open, or begin one."""
        # The line alone is longer than allowed; in a single read only its length shows it.
        if self._too_long or len(line) > self._max:
            self._too_long = False  # of the lines before it none is
            while self._open:
                self._give_up(f"is not closed before line {number}", found)
            self._too_long = True
            self._emit(number, offset, b"", found)
            return
        state = line_state(line, self._delimiter, inside=bool(self._open))
        if state == "broken":
            self._give_up(f"is not closed before line {number}", found, (number, offset, line))
            return
        if state == "closed" and not self._open:
            self._emit(number, offset, line, found)
            return
        self._open.append((number, offset, line))
        self._open_size += len(line) + 1
        if state == "closed":
            self._close(found)
        # Without this bound, a quote that is never closed would
        # hold the rest of the file in memory.
        elif self._open_size > self._max + 1:
            self._give_up("is not closed before the record is too long", found)

    def _close(self, found: list[Piece]) -> None:
        """End a record of several lines."""
        assert self._table is not None  # noqa: S101 - only tables have such records
        lines = [line for _number, _offset, line in self._open]
        if swallows(lines, self._table):
            last = self._open[-1][0]
            self._give_up(f"would swallow the records up to line {last}", found)
            return
        number, offset, _line = self._open[0]
        self._open, self._open_size = [], 0
        self._emit(number, offset, b"\n".join(lines), found)

    def _give_up(
        self, what: str, found: list[Piece], more: tuple[int, int, bytes] | None = None
    ) -> None:
        """Take a quote that swallows records for what it is: an error in its line alone.

        The lines after it are records of their own. They are not searched for quotes that go on in
        the next line: that would take time that grows with the square of their number.
        """
        lines, self._open, self._open_size = self._open, [], 0
        for number, offset, line in lines:
            if line_state(line, self._delimiter, inside=False) == "closed":
                self._emit(number, offset, line, found)
                continue
            problem = f'a quote (") opens a field and {what}; double it ("") or remove it'
            found.append(Piece(number, offset, line, problem=problem))
        if more is not None:
            self._take_line(*more, found)

    def _emit(self, number: int, offset: int, data: bytes, found: list[Piece]) -> None:
        if self._too_long or len(data) > self._max:
            self._too_long = False
            found.append(Piece(number, offset, None))
        elif data.strip(self._blank):
            found.append(Piece(number, offset, data.removesuffix(b"\r")))
