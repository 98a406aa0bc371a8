"""Rewrites the output: without its failed rows, or for an input that has changed.

The new output is written beside the old one and takes its place in one step, announced in the
journal before: a crash at any time leaves either the old or the new one, whole.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from konko_async.batch._errors import BatchOutputError
from konko_async.batch._input.row_parser import RowError, RowReader, row_key
from konko_async.batch._input.source import RecordSource
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._output.journal import Header, Journal
from konko_async.batch._output.result_lines import WENT_WELL, read_line, renamed
from konko_async.batch._output.store import lines_from

__all__ = ["finish_replacing", "match_rows", "new_path", "replace_output", "without_failed"]

_CHUNK = 1 << 20


def new_path(path: str) -> str:
    """Return where the new output is written."""
    return f"{path}.new"


class _Writer:
    """Writes lines in large pieces: this file counts only once it is whole."""

    def __init__(self, path: str, files: Filesystem) -> None:
        self._files = files
        self._fd = files.create(path)
        self._lines: list[bytes] = []
        self._held = 0
        self.size = 0

    def write(self, line: bytes) -> None:
        self._lines.append(line)
        self._held += len(line)
        if self._held >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._files.write_all(self._fd, b"".join(self._lines))
        self.size += self._held
        self._lines.clear()
        self._held = 0

    def finish(self) -> None:
        self._flush()
        self._files.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


@contextmanager
def _reading(path: str, files: Filesystem) -> Iterator[int]:
    descriptor = files.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def without_failed(path: str, files: Filesystem, tick: Callable[[], object]) -> int:
    """Copy the rows that went well; returns the size of the copy.

    Raises:
        BatchOutputError: it cannot be written.
    """
    with (
        _translated(path),
        _reading(path, files) as old,
        closing(_Writer(new_path(path), files)) as writer,
    ):
        for line in lines_from(old, 0):
            if line.endswith(WENT_WELL + b"\n"):
                writer.write(line)
            tick()
        writer.finish()
        return writer.size


def match_rows(
    path: str,
    source: RecordSource,
    reader: RowReader,
    *,
    files: Filesystem,
    tick: Callable[[], object],
) -> int:
    """Copy the rows whose request is in the input still, under their new places and ids.

    A request that comes n times takes over up to n rows. What is not in the input any more is
    dropped, and so are records that could not be sent.

    Returns:
        The size of the copy.

    Raises:
        BatchOutputError: it cannot be written, or the output holds lines that are none of ours.
    """
    with _translated(path), _reading(path, files) as old, closing(_Keys()) as keys:
        place = 0
        for line in lines_from(old, 0):
            stored = read_line(line)
            if stored is None or not line.endswith(b"\n"):
                raise BatchOutputError(
                    f"{path} holds a line that no batch wrote, at byte {place}; "
                    "give another output, or restart=True to write it anew"
                )
            # Invalid records have no key; the check of the input writes them anew.
            if not stored.invalid:
                keys.add(bytes.fromhex(stored.key), place, len(line))
            place += len(line)
            tick()
        with closing(_Writer(new_path(path), files)) as writer:
            for index, piece in enumerate(source.pieces()):
                try:
                    row = reader.read(piece, index)
                # The check that follows reports it.
                except RowError:
                    continue
                found = keys.take(row_key(row))
                if found is not None:
                    os.lseek(old, found[0], os.SEEK_SET)
                    writer.write(renamed(os.read(old, found[1]), row))
                tick()
            writer.finish()
            return writer.size


def replace_output(
    path: str, journal: Journal, header: Header, size: int, files: Filesystem
) -> None:
    """Replace the old output with the new one.

    Raises:
        BatchOutputError: it cannot.
    """
    with _translated(path):
        # Announced first: finish_replacing() completes what a crash interrupts after this.
        journal.begin(msgspec.structs.replace(header, replaces=size))
        files.replace(new_path(path), path)
        journal.begin(header)


def finish_replacing(path: str, journal: Journal, files: Filesystem) -> None:
    """Finish what a crash has interrupted: the journal announced a new output.

    Raises:
        BatchOutputError: it cannot.
    """
    header = journal.header
    if header is None or header.replaces is None:
        return
    with _translated(path):
        # Filesystem.create() makes plain files only, so somebody has put it there since the crash.
        if Path(new_path(path)).is_symlink():
            raise BatchOutputError(f"{new_path(path)} is a link that this batch did not make")
        if Path(new_path(path)).exists():  # else it had taken its place already
            size = Path(new_path(path)).stat().st_size
            if size != header.replaces:
                raise BatchOutputError(
                    f"{new_path(path)} should have {header.replaces} bytes and has {size}: it was "
                    "changed by something else; start anew with restart=True"
                )
            files.replace(new_path(path), path)
        journal.begin(msgspec.structs.replace(header, replaces=None))


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        problem = f"{new_path(path)} cannot be written: {reason}"
    else:
        return
    raise BatchOutputError(problem)


class _Keys:
    """Where the rows of each request stand, in a temporary file."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        # Worked out anew by each run: nothing here has to survive a crash.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-4096"):
            self._base.execute(f"PRAGMA {pragma}")
        self._base.execute(
            "CREATE TABLE rows (key BLOB, place INTEGER, size INTEGER, PRIMARY KEY (key, place)) "
            "WITHOUT ROWID"
        )
        self._base.execute("BEGIN")

    def add(self, key: bytes, place: int, size: int) -> None:
        self._base.execute("INSERT INTO rows VALUES (?, ?, ?)", (key, place, size))

    def take(self, key: bytes) -> tuple[int, int] | None:
        found: tuple[int, int] | None = self._base.execute(
            "SELECT place, size FROM rows WHERE key = ? ORDER BY place LIMIT 1", (key,)
        ).fetchone()
        # Each answer is taken once: of n equal requests, each gets one of its own.
        if found is not None:
            self._base.execute("DELETE FROM rows WHERE key = ? AND place = ?", (key, found[0]))
        return found

    def close(self) -> None:
        self._base.close()
