"""Where the lines of an output are: read as far as there is time, and on as the file grows."""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Final

__all__ = ["EVERY", "LineIndex", "Query"]

EVERY: Final = "all"
_CHUNK: Final = 1 << 20  # small enough for the caches of a processor
_LONGEST: Final = 256 << 20  # bytes of a line; what is longer is no output of ours
_WENT_WELL: Final = b'"error":null}'  # how a line ends whose row did not fail
_OK, _FAILED = 1, 2
# What a filter looks for; the lines are JSON without spaces.
_MARKS: Final = {
    "cut": b'"finish_reason":"length"',
    "cached": b'"from_cache":true',
}
_STATES: Final = {"ok": _OK, "failed": _FAILED}
FILTERS: Final = (EVERY, *_STATES, *_MARKS)


class LineIndex:
    """Where each line of a file begins, and whether its row went well.

    It takes 9 bytes for each row. The file is read, not mapped: a mapped one that is cut while
    somebody looks at it would end the process.

    Args:
        path: of the output.

    Attributes:
        offsets: where lines begin; the last entry is the end of the last whole line.
        states: 1 for a row that went well, 2 for one that failed.
        generation: grows when the file was replaced, and all is read anew.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.generation = 0
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDONLY)
        self._clear()

    def _clear(self) -> None:
        self.offsets = array("Q", [0])
        self.states = bytearray()
        self.failed = 0
        self.size = 0
        self._chunk = _CHUNK

    @property
    def rows(self) -> int:
        """Lines that are known."""
        return len(self.states)

    @property
    def complete(self) -> bool:
        """Whether all that was in the file at the last look has been read."""
        return self.offsets[-1] >= self.size or self._chunk > _LONGEST

    def advance(self, seconds: float) -> None:
        """Read on, for about so many seconds. Blocks."""
        end = time.monotonic() + seconds
        with self._lock:
            self._look()
            while self.offsets[-1] < self.size and self._chunk <= _LONGEST:
                data = os.pread(self._fd, self._chunk, self.offsets[-1])
                cut = data.rfind(b"\n") + 1
                if cut:
                    self._take(data[: cut - 1].split(b"\n"))
                    self._chunk = _CHUNK
                elif len(data) < self._chunk:
                    self.size = self.offsets[-1]  # the last line is still being written
                else:
                    self._chunk *= 2
                if time.monotonic() >= end:
                    return

    def _look(self) -> None:
        """See how long the file is, and whether it is still the same."""
        try:
            there = Path(self.path).stat()
        except OSError:
            return  # being replaced, or gone: what was read can still be looked at
        ours = os.fstat(self._fd)
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            os.close(self._fd)
            self._fd = os.open(self.path, os.O_RDONLY)
            ours = os.fstat(self._fd)
            self._anew()
        elif ours.st_size < self.offsets[-1]:
            self._anew()
        self.size = ours.st_size

    def _anew(self) -> None:
        self._clear()
        self.generation += 1

    def _take(self, lines: list[bytes]) -> None:
        begin = self.offsets.pop()
        self.offsets.extend(accumulate([len(line) + 1 for line in lines], initial=begin))
        states = bytes([_OK if line.endswith(_WENT_WELL) else _FAILED for line in lines])
        self.states += states
        self.failed += states.count(_FAILED)

    def read(self, first: int, last: int) -> list[bytes]:
        """Return lines, from ``first`` up to ``last``, which is left out. Blocks."""
        last = min(last, self.rows)
        if first >= last:
            return []
        begin, end = self.offsets[first], self.offsets[last]
        return os.pread(self._fd, end - begin, begin).split(b"\n")[: last - first]

    def blocks(self, first: int) -> tuple[int, int]:
        """Return the rows that one read gives, from ``first`` on."""
        last = first + 1
        limit = self.offsets[first] + _CHUNK
        while last < self.rows and self.offsets[last + 1] <= limit:
            last += 1
        return first, last

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)


class Query:
    """The rows that fit a filter and a search, found step by step.

    Args:
        index: of the lines.
        name: one of :data:`FILTERS`.
        text: must be in the line, whatever its case; empty: any.
        more: a further test of a line, or None.

    Attributes:
        matches: the rows found so far; None: every row fits.
        scanned: how many rows were looked at.
    """

    def __init__(
        self,
        index: LineIndex,
        name: str,
        text: bytes,
        more: Callable[[bytes], bool] | None = None,
    ) -> None:
        self._index = index
        self._state = _STATES.get(name)
        self._mark = _MARKS.get(name)
        self._text = text.lower()
        self._more = more
        self._lock = threading.Lock()
        self._generation = index.generation
        self.scanned = 0
        plain = self._state is None and self._mark is None and not text and more is None
        self.matches: array[int] | None = None if plain else array("Q")

    @property
    def total(self) -> int:
        """Rows found so far."""
        return self._index.rows if self.matches is None else len(self.matches)

    @property
    def complete(self) -> bool:
        """Whether all rows that are known were looked at."""
        return self.matches is None or self.scanned >= self._index.rows

    def advance(self, seconds: float) -> None:
        """Look at more rows, for about so many seconds. Blocks."""
        end = time.monotonic() + seconds
        with self._lock:
            if self.matches is None:
                return
            if self._generation != self._index.generation:
                self._generation, self.scanned = self._index.generation, 0
                del self.matches[:]
            while self.scanned < self._index.rows and time.monotonic() < end:
                self.scanned = self._step(self.matches)

    def _step(self, matches: array[int]) -> int:
        states, index = self._index.states, self._index
        if not (self._mark or self._text or self._more):
            # A filter of the state alone reads no line.
            last = index.rows
            matches.extend(n for n in range(self.scanned, last) if states[n] == self._state)
            return last
        first, last = index.blocks(self.scanned)
        for number, line in enumerate(index.read(first, last), first):
            if (self._state is None or states[number] == self._state) and self._fits(line):
                matches.append(number)
        return last

    def _fits(self, line: bytes) -> bool:
        if self._mark is not None and self._mark not in line:
            return False
        if self._text and self._text not in line.lower():
            return False
        return self._more is None or self._more(line)

    def rows(self, first: int, count: int) -> list[int]:
        """Return the numbers of rows that fit, from the ``first`` of them on."""
        if self.matches is None:
            return list(range(min(first, self.total), min(first + count, self.total)))
        return list(self.matches[first : first + count])
