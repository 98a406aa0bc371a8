"""Bytes to records: lines, or CSV records, which may hold line breaks in quotes. No I/O."""

from __future__ import annotations

import msgspec

__all__ = ["Piece", "Splitter"]

_BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r"


class Piece(msgspec.Struct, gc=False):
    """One record as it stands in the input.

    Attributes:
        line: number of its first line, from 1.
        offset: where that line begins, in bytes.
        data: its bytes without the line's end; None if it is longer than allowed.
        name: of the file it is, where records are files.
    """

    line: int
    offset: int
    data: bytes | None
    name: str | None = None


class Splitter:
    """Cuts bytes into records, however they come; blank lines are none.

    Args:
        max_bytes: length of the longest record; a longer one is a piece without data, and is
            never held in memory.
        quoted: whether a line break within double quotes is part of the record, as in CSV.
        begins: whether the bytes are those of the file's beginning, where a BOM may stand.
    """

    def __init__(self, *, max_bytes: int, quoted: bool = False, begins: bool = True) -> None:
        self._max = max_bytes
        self._quoted = quoted
        self._begins = begins
        self._line = 0
        self._offset = 0
        self._parts: list[bytes] = []  # of the line that has not ended yet
        self._size = 0
        self._open: list[bytes] = []  # lines of a record whose quotes are open
        self._open_size = 0
        self._in_quotes = False
        self._start = (0, 0)  # line and offset of the record that is open
        self._too_long = False

    def feed(self, data: bytes) -> list[Piece]:
        """Return the records that end in ``data``."""
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
                self._parts = [b""]
            else:
                self._parts.append(rest)
        return found

    def flush(self) -> list[Piece]:
        """Return the last record, which no line break ends, if there is one."""
        found: list[Piece] = []
        if self._parts:
            self._end_line(self._join(b""), found)
        if self._open:
            self._emit(b"\n".join(self._open), found)
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
        if not self._open:
            self._start = (self._line, self._offset)
        self._offset += (self._size or len(line)) + 1
        self._size = 0
        if self._line == 1 and self._begins and line.startswith(_BOM):
            line = line[len(_BOM) :]
        if not self._quoted:
            self._emit(line, found)
            return
        self._open.append(line)
        self._open_size += len(line) + 1
        self._in_quotes ^= line.count(b'"') % 2 == 1
        if self._open_size > self._max + 1:
            self._too_long = True
        if self._too_long or not self._in_quotes:
            self._emit(b"\n".join(self._open), found)

    def _emit(self, data: bytes, found: list[Piece]) -> None:
        self._open = []
        self._open_size = 0
        self._in_quotes = False
        if self._too_long or len(data) > self._max:
            self._too_long = False
            found.append(Piece(*self._start, None))
        elif data.strip(_BLANK):
            found.append(Piece(*self._start, data.removesuffix(b"\r")))
