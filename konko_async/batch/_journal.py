"""The journal beside the output: what has been done, so that a run can be taken up again.

A text file. Each line is the CRC-32 of the rest in eight hexadecimal digits, a space, and a JSON
object; a line that is torn or damaged ends the journal for the reader. The objects:

``{"journal": 1, "input": …, "fingerprint": …, "replaces": …}``
    the beginning, with which all before is void. ``fingerprint`` tells the input and the recipe
    from others. ``replaces`` is the size of ``OUTPUT.new``, which is to take the output's place.
``{"checked": {"rows": …, …}}``
    the whole input has been checked; invalid rows are in the output.
``{"end": …, "ok": …, "failed": …, …}``
    a checkpoint: up to byte ``end`` the output is on the disk; since the last checkpoint these
    rows were added to it (row numbers from 0, little-endian 32 bits each, base64), using so many
    tokens at such a cost.

The output is the truth: it is appended to first, and made to last before a checkpoint says so. On
resuming, what stands behind the last checkpoint is read again and taken over line by line.
"""

from __future__ import annotations

import binascii
import contextlib
import os
import sys
from array import array
from pathlib import Path
from typing import Any, Final

import msgspec

from konko_async.batch._errors import BatchLockedError, BatchOutputError
from konko_async.batch._files import Files
from konko_async.batch._lock import try_lock

__all__ = ["FAILED", "OK", "TODO", "Checked", "Checkpoint", "Header", "Journal", "Ledger"]

TODO: Final = 0
OK: Final = 1
FAILED: Final = 2

VERSION: Final = 1
_CRC: Final = 9  # eight digits and a space
_CHUNK: Final = 1 << 20
_BEGINS: Final = b'{"journal"'
_encode = msgspec.json.Encoder().encode


class Header(msgspec.Struct, omit_defaults=True):
    """The beginning of a journal."""

    journal: int
    input: str
    fingerprint: str
    replaces: int | None = None


class Checked(msgspec.Struct):
    """What the check of the whole input found."""

    rows: int
    invalid: int = 0
    models: dict[str, int] = {}


class Checkpoint(msgspec.Struct, omit_defaults=True):
    """Rows that are in the output, and on the disk."""

    end: int
    ok: bytes = b""
    failed: bytes = b""
    invalid: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0


class _Line(msgspec.Struct):
    """Any line: one decoder for all of them."""

    journal: int | None = None
    input: str = ""
    fingerprint: str = ""
    replaces: int | None = None
    checked: Checked | None = None
    end: int = -1
    ok: bytes = b""
    failed: bytes = b""
    invalid: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0


_decode = msgspec.json.Decoder(_Line).decode


class Ledger:
    """What has been done, in one byte per row and a few sums.

    Args:
        keeps: whether rows are told apart; False for a pipe, which may have no end.

    Attributes:
        states: ``TODO``, ``OK`` or ``FAILED`` for each row, as far as any is known.
        end: up to where the output is known to be on the disk.
        done: rows that are not ``TODO``.
        failed: rows that failed, invalid ones included.
        invalid: rows that could not be sent.
        prompt_tokens: of all answers.
        completion_tokens: likewise.
        cost: of the answers with a known price.
        unpriced: answers without one.
    """

    __slots__ = (
        "_keeps", "completion_tokens", "cost", "done", "end", "failed", "invalid",
        "prompt_tokens", "states", "unpriced",
    )  # fmt: skip

    def __init__(self, *, keeps: bool = True) -> None:
        self.states = bytearray()
        self._keeps = keeps
        self.end = 0
        self.done = self.failed = self.invalid = 0
        self.prompt_tokens = self.completion_tokens = self.unpriced = 0
        self.cost = 0.0

    def state(self, row: int) -> int:
        """Return what is known of a row."""
        return self.states[row] if row < len(self.states) else TODO

    def add(self, row: int, *, failed: bool, prompt: int, answer: int, cost: float | None) -> bool:
        """Note a row and what it used; False if it was noted before."""
        if not self.mark(row, FAILED if failed else OK):
            return False
        self.prompt_tokens += prompt
        self.completion_tokens += answer
        if cost is not None:
            self.cost += cost
        elif not failed:
            self.unpriced += 1
        return True

    def mark(self, row: int, state: int) -> bool:
        """Note a row; False if it was noted before."""
        if self._keeps and not self._set(row, state):
            return False
        self.done += 1
        self.failed += state == FAILED
        return True

    def _set(self, row: int, state: int) -> bool:
        if row >= len(self.states):
            # In steps, or a row at a time would copy all of it each time.
            self.states.extend(bytes(max(row + 1 - len(self.states), 4096)))
        if self.states[row] != TODO:
            return False
        self.states[row] = state
        return True

    def mark_all(self, packed: bytes, state: int) -> None:
        """Note the rows of a checkpoint."""
        for row in unpack(packed):
            self.mark(row, state)


class Journal:
    """The journal of one output, open and locked.

    Args:
        path: of the journal.
        files: how to write.

    Attributes:
        header: the last beginning; None in a new journal.
        checked: what the check of the input found; None if it was not finished.
        ledger: what had been done.

    Raises:
        BatchLockedError: another run has it open.
        BatchOutputError: it cannot be opened, or is no journal.
    """

    def __init__(self, path: str, files: Files) -> None:
        self.path = path
        self._files = files
        self.header: Header | None = None
        self.checked: Checked | None = None
        self.ledger = Ledger()
        try:
            self._fd = files.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise BatchOutputError(f"{path} cannot be opened: {error.strerror}") from None
        try:
            self._lock()
            self._load()
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        # Another run may have dropped the file between: a lock on it would keep nobody out.
        if not try_lock(self._fd) or not self._in_place():
            raise BatchLockedError(
                f"{self.path} is in use: another run writes to this output; "
                "wait for its end, or give another output"
            )

    def _in_place(self) -> bool:
        ours = os.fstat(self._fd)
        try:
            there = Path(self.path).stat()
        except OSError:
            return False
        return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)

    def _load(self) -> None:
        """Read all whole lines, and cut off what is torn."""
        good = 0
        rest = b""
        os.lseek(self._fd, 0, os.SEEK_SET)
        while data := os.read(self._fd, _CHUNK):
            lines = (rest + data).split(b"\n") if b"\n" in data else [rest + data]
            rest = lines.pop()
            for line in lines:
                if not self._take(line, first=good == 0):
                    self._cut(good)
                    return
                good += len(line) + 1
        if rest:
            self._take_torn(rest, first=good == 0)
            self._cut(good)

    def _take_torn(self, line: bytes, *, first: bool) -> None:
        if first and not _may_be_torn(line):
            raise BatchOutputError(f"{self.path} exists and is no journal of a batch")

    def _cut(self, size: int) -> None:
        try:
            self._files.truncate(self._fd, size)
        except OSError as error:
            problem = f"{self.path} cannot be cut: {error.strerror or type(error).__name__}"
        else:
            return
        raise BatchOutputError(problem)

    def _take(self, line: bytes, *, first: bool) -> bool:
        """Take one line in; False if it is damaged."""
        content = line[_CRC:]
        good = line[:_CRC] == b"%08x " % binascii.crc32(content)
        if not good:
            self._take_torn(line, first=first)
            return False
        entry = _decode(content)
        if entry.journal is not None:
            if entry.journal != VERSION:
                raise BatchOutputError(
                    f"{self.path} was written by another version (format {entry.journal})"
                )
            self._forget(Header(entry.journal, entry.input, entry.fingerprint, entry.replaces))
        elif entry.checked is not None:
            self.checked = entry.checked
        else:
            self._take_checkpoint(entry)
        return True

    def _take_checkpoint(self, entry: _Line) -> None:
        ledger = self.ledger
        ledger.mark_all(entry.ok, OK)
        ledger.mark_all(entry.failed, FAILED)
        ledger.end = entry.end
        ledger.invalid += entry.invalid
        ledger.prompt_tokens += entry.prompt_tokens
        ledger.completion_tokens += entry.completion_tokens
        ledger.cost += entry.cost
        ledger.unpriced += entry.unpriced

    def begin(self, header: Header) -> None:
        """Write a beginning: all before it is void."""
        self.append(header)
        self._forget(header)

    def reset(self) -> None:
        """Empty it."""
        self._cut(0)
        self._forget(None)

    def _forget(self, header: Header | None) -> None:
        self.header = header
        self.checked = None
        self.ledger = Ledger()

    def check(self, checked: Checked) -> None:
        """Write what the check of the input found."""
        self.append({"checked": checked})
        self.checked = checked

    def append(self, entry: Any) -> None:
        """Write a line and wait until it is on the disk.

        Raises:
            BatchOutputError: it could not be written; nothing more may be.
        """
        content = _encode(entry)
        try:
            self._files.write_all(self._fd, b"%08x %b\n" % (binascii.crc32(content), content))
            self._files.fsync(self._fd)
        except OSError as error:
            problem = f"{self.path} cannot be written: {error.strerror or type(error).__name__}"
        else:
            return
        raise BatchOutputError(problem)

    def close(self) -> None:
        """Close the file, and so unlock it; one in which nothing was begun goes. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if os.fstat(fd).st_size == 0:
                with contextlib.suppress(OSError):  # Windows drops no open files
                    Path(self.path).unlink()
        finally:
            os.close(fd)


def _may_be_torn(line: bytes) -> bool:
    """Whether a first line that does not fit its sum may be one of ours, torn or damaged."""
    digits, content = line[: _CRC - 1], line[_CRC : _CRC + len(_BEGINS)]
    ours = all(digit in b"0123456789abcdef" for digit in digits) and _BEGINS.startswith(content)
    return ours or not line.strip(b"\0")  # zeros: the file had grown when the power went


def pack(rows: list[int]) -> bytes:
    """Return row numbers as little-endian 32 bits each."""
    packed = array("I", rows)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack(packed: bytes) -> array[int]:
    """Return the row numbers of :func:`pack`."""
    rows = array("I", packed)
    if sys.byteorder == "big":
        rows.byteswap()
    return rows
