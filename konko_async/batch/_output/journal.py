"""The journal beside the output: what has been done, so that a run can be resumed.

A text file. Each line is the CRC-32 of the rest in eight hexadecimal digits, a space, and a JSON
object; a line that is torn or damaged ends the journal for the reader. The objects:

``{"journal": 1, "input": …, "fingerprint": …, "replaces": …, "parts": …}``
    the beginning, with which all before is void. ``fingerprint`` tells the input and the recipe
    from others, and ``parts`` has a short hash of each of them. ``replaces`` is the size of
    ``OUTPUT.new``, which is to take the output's place.
``{"checked": {"rows": …, …}}``
    the whole input has been checked; invalid rows are in the output.
``{"end": …, "ok": …, "failed": …, …}``
    a checkpoint: up to byte ``end`` the output is on the disk; since the last checkpoint these
    rows were added to it (row numbers from 0, little-endian 32 bits each, base64), using so many
    tokens at such a cost. ``seconds`` has how long each row of ``ok`` took, little-endian floats of
    32 bits in the same order, base64; it is left out where none is known, as in older journals.

The output is the truth: it is appended to first, and flushed to the disk before a checkpoint says
so. On resuming, what stands behind the last checkpoint is read again and taken over line by line.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from konko_async.batch._errors import BatchLockedError, BatchOutputError
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.ledger import FAILED, OK, SUMS, Ledger
from konko_async.batch._output.lock import LockFile, try_lock
from konko_async.batch._output.sealed_lines import may_be_torn, sealed, unsealed

__all__ = ["VERSION", "Checked", "Checkpoint", "Header", "Journal"]

VERSION: Final = 1
_CHUNK: Final = 1 << 20
_BEGINS: Final = b'{"journal"'
_encode = msgspec.json.Encoder().encode


class Header(msgspec.Struct, omit_defaults=True):
    """The beginning of a journal."""

    journal: int
    input: str
    fingerprint: str
    replaces: int | None = None
    parts: dict[str, str] = {}


class Checked(msgspec.Struct):
    """What the check of the whole input found.

    Attributes:
        rows: of the input, invalid ones included.
        invalid: rows that cannot be sent.
        models: rows by model.
        numbered: whether rows are numbered, as two have the same ``id``.
    """

    rows: int
    invalid: int = 0
    models: dict[str, int] = {}
    numbered: bool = False


class Checkpoint(msgspec.Struct, omit_defaults=True):
    """Rows that are in the output, and on the disk."""

    end: int
    ok: bytes = b""
    failed: bytes = b""
    seconds: bytes = b""
    invalid: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    empty: int = 0
    cut: int = 0
    filtered: int = 0
    cost: float = 0.0
    unpriced: int = 0
    from_cache: int = 0


class _JournalLine(Checkpoint, kw_only=True):
    """Any line of the journal, so that one decoder reads all of them."""

    journal: int | None = None
    input: str = ""
    fingerprint: str = ""
    replaces: int | None = None
    parts: dict[str, str] = {}
    checked: Checked | None = None
    end: int = -1


_decode = msgspec.json.Decoder(_JournalLine).decode


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

    def __init__(self, path: str, files: Filesystem) -> None:
        self.path = path
        self._files = files
        self.header: Header | None = None
        self.checked: Checked | None = None
        self.ledger = Ledger()
        self._lock_file: LockFile | None = None
        try:
            # O_APPEND: loading moves the position, and every write has to go to the end.
            self._fd = files.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise BatchOutputError(f"{path} cannot be opened: {error.strerror}") from None
        try:
            self._lock()
            self._load()
        except BaseException:
            self._unlock()
            os.close(self._fd)
            raise

    def _unlock(self) -> None:
        if self._lock_file is not None:
            self._lock_file.release()

    def _lock(self) -> None:
        locked = try_lock(self._fd)
        if locked is None:
            self._lock_by_file()
        # Another run may have dropped the file between: a lock on it would keep nobody out.
        elif not locked or not self._in_place():
            raise BatchLockedError(
                f"{self.path} is in use: another run writes to this output; "
                "wait for its end, or give another output"
            )

    def _lock_by_file(self) -> None:
        path = f"{self.path}.lock"
        self._lock_file = LockFile(path)
        try:
            owner = self._lock_file.acquire()
        except OSError as error:
            raise BatchOutputError(f"{path} cannot be written: {error.strerror}") from None
        if owner is not None:
            raise BatchLockedError(
                f"{self.path} is in use by process {owner}: this file system has no locks, so that "
                f"{path} stands for one; remove it if that process is gone"
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
                # What follows a damaged line cannot be relied on. It is cut off: rows that it
                # counted are read from the output instead.
                if not self._take(line, first=good == 0):
                    self._cut(good)
                    return
                good += len(line) + 1
        if rest:
            self._take_torn(rest, first=good == 0)
            self._cut(good)

    def _take_torn(self, line: bytes, *, first: bool) -> None:
        # Only a first line may be somebody else's file; a later one is ours, damaged by a crash.
        if first and not may_be_torn(line, _BEGINS):
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
        """Add what a line says to the ledger; False if it is damaged."""
        content = unsealed(line)
        if content is None:
            self._take_torn(line, first=first)
            return False
        entry = _decode(content)
        if entry.journal is not None:
            if entry.journal != VERSION:
                raise BatchOutputError(
                    f"{self.path} was written by another version (format {entry.journal})"
                )
            self._forget(
                Header(entry.journal, entry.input, entry.fingerprint, entry.replaces, entry.parts)
            )
        elif entry.checked is not None:
            self.checked = entry.checked
        else:
            self._take_checkpoint(entry)
        return True

    def _take_checkpoint(self, entry: _JournalLine) -> None:
        ledger = self.ledger
        ledger.mark_all(entry.ok, OK)
        ledger.mark_all(entry.failed, FAILED)
        ledger.end = entry.end
        # A checkpoint has the sums since the one before it.
        for name in SUMS:
            setattr(ledger, name, getattr(ledger, name) + getattr(entry, name))

    def begin(self, header: Header) -> None:
        """Write a beginning: all before it is void."""
        self.append(header)
        self._forget(header)

    def reset(self) -> None:
        """Empty the journal."""
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
            # In one write, so that a crash leaves whole lines
            # and at most one that is torn, the last.
            self._files.write_all(self._fd, sealed(content))
            self._files.fsync(self._fd)
        except OSError as error:
            problem = f"{self.path} cannot be written: {error.strerror or type(error).__name__}"
        else:
            return
        raise BatchOutputError(problem)

    def close(self) -> None:
        """Close and unlock the file; an empty one is removed. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            # Nothing was begun, for instance as the input was refused: no trace is left. Removed
            # before it is unlocked, so that a run which opens it meanwhile notices (``_in_place``).
            if os.fstat(fd).st_size == 0:
                with contextlib.suppress(OSError):  # Windows drops no open files
                    Path(self.path).unlink()
        finally:
            self._unlock()
            os.close(fd)
