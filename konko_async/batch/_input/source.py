"""Sources of records, which can be read more than once: a file, shards, or a folder of texts."""

from __future__ import annotations

import os
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from konko_async.batch._errors import BatchInputError
from konko_async.batch._input.record_splitter import Piece, Splitter
from konko_async.batch._input.table import Table

__all__ = ["FileSource", "FolderSource", "RecordSource", "ShardSource"]

_CHUNK: Final = 256 * 1024
_ENTRY: Final = 16  # bytes of an index entry: offset and line
_TEXT_ENDINGS: Final = (".txt", ".md", ".text", ".rst")


class RecordSource(Protocol):
    """Records that can be read more than once."""

    def pieces(self) -> Iterator[Piece]:
        """Read all records, in order."""

    def digest(self, tick: Callable[[], object]) -> bytes:
        """Return a hash of all of it; calls ``tick`` now and then."""

    def index(self) -> int:
        """Prepare for :meth:`at`, and return the number of records."""

    def at(self, place: int) -> Piece:
        """Return one record."""

    def changed(self) -> bool:
        """Whether the content has changed since it was opened."""

    def close(self) -> None:
        """Close the files."""


class FileSource:
    """The records of one file.

    Args:
        file: opened for reading bytes, unbuffered; closed with the source.
        table: how they are written, if they are a table: the first, the header, is left out then.
        max_bytes: length of the longest record.
    """

    def __init__(self, file: BinaryIO, *, table: Table | None, max_bytes: int) -> None:
        self._file = file
        self._table = table
        self._digest: bytes | None = None
        self._max = max_bytes
        self._index: BinaryIO | None = None
        self._count = 0
        # Size and time are cheap to compare; the content is hashed only where the time differs.
        self._seen = self._look()

    def _look(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def pieces(self) -> Iterator[Piece]:
        """Read all records, in order."""
        pieces = self._all()
        if self._table is not None:
            next(pieces, None)
        return pieces

    def _all(self) -> Iterator[Piece]:
        splitter = Splitter(max_bytes=self._max, table=self._table)
        place = 0
        while True:
            # at() and the hash move the position of the same file between two reads.
            self._file.seek(place)
            data = self._file.read(_CHUNK)
            if not data:
                break
            place += len(data)
            yield from splitter.feed(data)
        yield from splitter.flush()

    def digest(self, tick: Callable[[], object]) -> bytes:
        """Return a hash of the file."""
        self._digest = self._hash(tick)
        return self._digest

    def _hash(self, tick: Callable[[], object]) -> bytes:
        digest = blake2b(digest_size=16)
        self._file.seek(0)
        while data := self._file.read(_CHUNK):
            digest.update(data)
            tick()
        return digest.digest()

    def index(self) -> int:
        """Write down in a temporary file where each record begins, and return their number."""
        self._index = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the source
        entries = array("Q")
        for piece in self.pieces():
            entries.extend((piece.offset, piece.line))
            self._count += 1
            if len(entries) >= _CHUNK // _ENTRY:
                entries.tofile(self._index)
                del entries[:]
        # A last entry without a record: at() finds the end of each record in the entry after it.
        entries.extend((self._seen[0], 0))
        entries.tofile(self._index)
        return self._count

    def at(self, place: int) -> Piece:
        """Return one record, by its place among all."""
        assert self._index is not None  # noqa: S101 - index() comes first
        self._index.seek(place * _ENTRY)
        entries = array("Q", self._index.read(2 * _ENTRY))
        offset, line, end = entries[:3]
        self._file.seek(offset)
        splitter = Splitter(max_bytes=self._max, table=self._table, begins=offset == 0)
        # Enough to see that one is too long; blank lines may follow it.
        data = _read_exactly(self._file, min(end - offset, self._max + 8))
        pieces = splitter.feed(data) or splitter.flush()
        # The splitter saw this record alone, and counted lines and bytes from its beginning.
        return Piece(line, offset, pieces[0].data, problem=pieces[0].problem)

    def changed(self) -> bool:
        """Whether its content has changed; a file that was only touched is the same."""
        now = self._look()
        if now == self._seen:
            return False
        # Copying or touching a file sets a new time: with the same size only the content can tell.
        if now[0] != self._seen[0] or self._digest is None or self._hash(_nothing) != self._digest:
            return True
        self._seen = now
        return False

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._index is not None:
            self._index.close()


class ShardSource:
    """The records of several files, one after another.

    Args:
        shards: each with its name, for messages.
    """

    def __init__(self, shards: Sequence[tuple[str, FileSource]]) -> None:
        self._shards = shards
        self._ends: list[int] = []

    def pieces(self) -> Iterator[Piece]:
        """Read all records, in order."""
        for name, source in self._shards:
            for piece in source.pieces():
                piece.name = name
                yield piece

    def digest(self, tick: Callable[[], object]) -> bytes:
        """Return a hash of all files."""
        digest = blake2b(digest_size=16)
        for _name, source in self._shards:
            digest.update(source.digest(tick))
        return digest.digest()

    def index(self) -> int:
        """Prepare for :meth:`at`, and return the number of records."""
        total = 0
        for _name, source in self._shards:
            total += source.index()
            self._ends.append(total)
        return total

    def at(self, place: int) -> Piece:
        """Return one record."""
        shard = bisect_right(self._ends, place)
        name, source = self._shards[shard]
        piece = source.at(place - (self._ends[shard - 1] if shard else 0))
        piece.name = name
        return piece

    def changed(self) -> bool:
        """Whether the content of any file has changed."""
        return any(source.changed() for _name, source in self._shards)

    def close(self) -> None:
        """Close all files."""
        for _name, source in self._shards:
            source.close()


def _nothing() -> None:
    """Stand for a tick that nobody needs."""


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    """Read ``size`` bytes, or up to the end: an unbuffered file may return fewer at a time."""
    parts = []
    while size > 0 and (data := file.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)


class FolderSource:
    """The text files below a folder, in the order of their names; or one file.

    The names are held in memory, about 100 bytes for each.

    Args:
        path: of the folder or file.
        max_bytes: size of the largest file.

    Raises:
        BatchInputError: there are no text files.
    """

    def __init__(self, path: str, *, max_bytes: int) -> None:
        self._max = max_bytes
        place = Path(path)
        if place.is_dir():
            self._root = place
            # os.walk() follows the order of the file system, which may be another one on resuming.
            self._names = sorted(_text_files(place))
        else:
            self._root = place.parent
            self._names = [place.name]
        if not self._names:
            raise BatchInputError(
                f"{path}: no text files ({', '.join(_TEXT_ENDINGS)}) in this folder"
            )

    def pieces(self) -> Iterator[Piece]:
        """Read all files."""
        return map(self.at, range(len(self._names)))

    def digest(self, tick: Callable[[], object]) -> bytes:
        """Return a hash of all names and contents."""
        digest = blake2b(digest_size=16)
        for piece in self.pieces():
            # Names of files on POSIX are bytes, and need not be UTF-8.
            name = str(piece.name).encode("utf-8", "surrogateescape")
            data = piece.data or b""
            # With their lengths: bytes that move from a name to its content must change the hash.
            digest.update(b"%d %d " % (len(name), len(data)) + name + data)
            tick()
        return digest.digest()

    def index(self) -> int:
        """Return how many files there are."""
        return len(self._names)

    def at(self, place: int) -> Piece:
        """Read one file."""
        name = self._names[place]
        with (self._root / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = None if size > self._max else file.read()
        return Piece(place + 1, place, data, name)

    def changed(self) -> bool:
        """Files are read once each: there is nothing to compare with."""
        return False

    def close(self) -> None:
        """Do nothing: no file is kept open."""


def _text_files(root: Path) -> Iterator[str]:
    for folder, _folders, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            # Links are followed to files only; pipes and devices would never end.
            if name.lower().endswith(_TEXT_ENDINGS) and path.is_file():
                yield path.relative_to(root).as_posix()
