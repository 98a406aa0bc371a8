"""How long the answers of rows took, from the journal beside an output."""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from pathlib import Path
from typing import Final

import msgspec

from konko_async.batch._output.ledger import little_endian, unpack
from konko_async.batch._output.sealed_lines import unsealed

__all__ = ["RowLatencies", "pack_seconds", "unpack_seconds"]

_CHUNK: Final = 1 << 20


class _Line(msgspec.Struct, gc=False):
    journal: int | None = None
    ok: bytes = b""
    seconds: bytes = b""


_decode = msgspec.json.Decoder(_Line).decode


def pack_seconds(seconds: list[float]) -> bytes:
    """Return durations as little-endian floats of 32 bits; nothing if none is known (all are 0)."""
    if not any(seconds):
        return b""
    return little_endian(array("f", seconds)).tobytes()


def unpack_seconds(packed: bytes) -> array[float]:
    """Return the durations of :func:`pack_seconds`."""
    return little_endian(array("f", packed))


class RowLatencies:
    """Seconds that the answers of an output's rows took, read from the journal beside it.

    It may be read while a run writes it: :meth:`advance` reads what has come since. A row has a
    latency once a checkpoint has been written after it. It takes 4 bytes for each row.

    Args:
        output: path of the output.

    Attributes:
        known: how many rows have a latency.
    """

    def __init__(self, output: str | os.PathLike[str]) -> None:
        self._path = Path(f"{os.fspath(output)}.journal")
        self._lock = threading.Lock()
        self._file = (0, 0)
        self._clear()
        self._place = 0

    def _clear(self) -> None:
        self._seconds = array("f")
        self.known = 0

    def advance(self) -> None:
        """Read what was added to the journal. Blocks; nothing happens where there is none."""
        with self._lock, contextlib.suppress(OSError), self._path.open("rb") as file:
            there = os.fstat(file.fileno())
            if (there.st_dev, there.st_ino) != self._file or there.st_size < self._place:
                self._clear()  # another journal, or one that was begun anew
                self._file, self._place = (there.st_dev, there.st_ino), 0
            file.seek(self._place)
            while lines := file.readlines(_CHUNK):
                for line in lines:
                    # A line that is being written, or was torn by a crash: read at another time.
                    if not line.endswith(b"\n") or not self._take(line[:-1]):
                        return
                    self._place += len(line)

    def _take(self, line: bytes) -> bool:
        content = unsealed(line)
        if content is None:
            return False
        try:
            entry = _decode(content)
        except msgspec.DecodeError:  # of another version
            return False
        if entry.journal is not None:
            self._clear()
        elif entry.seconds:
            self._add(unpack(entry.ok), unpack_seconds(entry.seconds))
        return True

    def _add(self, rows: array[int], seconds: array[float]) -> None:
        if not rows or len(rows) != len(seconds):
            return
        more = max(rows) + 1 - len(self._seconds)
        if more > 0:
            self._seconds.extend(array("f", bytes(4 * more)))
        for row, took in zip(rows, seconds, strict=True):
            if took > 0 and not self._seconds[row]:
                self.known += 1
                self._seconds[row] = took

    def of(self, row: int) -> float | None:
        """Return the seconds of a row, by its place in the input from 0; None: not known.

        They are those of the calls that answered it, without attempts that failed and without the
        wait for the client's own limits; of a row with steps, of all its calls.
        """
        seconds = self._seconds[row] if 0 <= row < len(self._seconds) else 0.0
        return round(seconds, 6) if seconds else None
