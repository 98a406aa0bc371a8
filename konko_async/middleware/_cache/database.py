"""The SQLite file of a cache: opened in WAL mode, private, shared by processes. Blocks."""

from __future__ import annotations

import os
import stat
import time
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Database", "Entry"]

FILE: Final = "answers.sqlite3"
_PRIVATE: Final = 0o600
_VERSION: Final = 1  # of the schema, in ``PRAGMA user_version``
_BUSY: Final = 10.0  # seconds to wait for another process that writes
_BETWEEN: Final = 0.01  # seconds between two attempts at preparing the file
_COMPRESSED: Final = 1
_WORTH_IT: Final = 2048  # bytes from which compression saves more than a page
_EVICTED: Final = 256  # rows in one transaction, so that other writers get in between
_FULL: Final = 0.9  # of the cap is what is left after making room
_USED_AGAIN: Final = 3600.0  # seconds; an answer's time of use is no more exact than this
_PER_QUERY: Final = 128  # keys; SQLite allows 999 in its oldest versions

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS answers (key BLOB NOT NULL UNIQUE, created REAL NOT NULL, "
    "used REAL NOT NULL, flags INTEGER NOT NULL, head TEXT NOT NULL, body BLOB NOT NULL)"
)
_INDEX: Final = "CREATE INDEX IF NOT EXISTS answers_used ON answers (used)"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An answer that is kept.

    Attributes:
        head: what is kept of its headers, by lower-case name.
        body: as it came, after decompression.
        created: when it came; seconds since 1970.
    """

    head: dict[str, str]
    body: bytes
    created: float


_read_head = msgspec.json.Decoder(dict[str, str]).decode


class Database:
    """One connection to a cache's file; used by one thread.

    Args:
        folder: of the file; made, for its owner alone, if it does not exist.

    Raises:
        OSError: it cannot be made or opened.
        sqlite3.Error: it is not a database, or is damaged.
        ValueError: another version of this package wrote it.
    """

    def __init__(self, folder: str) -> None:
        import sqlite3  # noqa: PLC0415 - only who has a cache loads it

        os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - a path of bytes works too
        path = os.path.join(folder, FILE)  # noqa: PTH118 - a path of bytes works too
        _make_private(path)
        self._connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
        try:
            # SQLite waits for others that write, but not for those that prepare the same file.
            end = time.monotonic() + _BUSY
            while True:
                try:
                    self._prepare()
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > end:
                        raise
                    time.sleep(_BETWEEN)
                else:
                    break
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        run = self._connection.execute
        (version,) = run("PRAGMA user_version").fetchone()
        if version not in {0, _VERSION}:
            raise ValueError(f"{FILE} was written by another version (format {version})")
        # WAL: readers never wait for a writer. NORMAL: a power cut may lose the newest answers, and
        # nothing else; they are asked for again.
        if run("PRAGMA journal_mode").fetchone() != ("wal",):
            run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        run(_TABLE)
        run(_INDEX)
        if not version:
            run(f"PRAGMA user_version={_VERSION}")

    def find(self, keys: Sequence[bytes], now: float) -> tuple[dict[bytes, Entry], list[bytes]]:
        """Return the answers to these keys, and the keys whose time of use should be noted."""
        found: dict[bytes, Entry] = {}
        stale = []
        for start in range(0, len(keys), _PER_QUERY):
            part = keys[start : start + _PER_QUERY]
            marks = ",".join("?" * len(part))
            rows = self._connection.execute(
                "SELECT key, created, used, flags, head, body FROM answers "  # noqa: S608 - marks only
                f"WHERE key IN ({marks})",
                part,
            )
            for key, created, used, flags, head, body in rows:
                content = zlib.decompress(body) if flags & _COMPRESSED else body
                found[key] = Entry(_read_head(head), content, created)
                if now - used > _USED_AGAIN:
                    stale.append(key)
        return found, stale

    def write(
        self, entries: Iterable[tuple[bytes, Entry]], used: Iterable[bytes], now: float
    ) -> None:
        """Keep answers, and note the use of others, in one transaction."""
        rows = [
            (key, entry.created, now, *_packed(entry.body), _head(entry)) for key, entry in entries
        ]
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(
                "INSERT INTO answers (key, created, used, flags, body, head) "
                "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "created = excluded.created, used = excluded.used, flags = excluded.flags, "
                "head = excluded.head, body = excluded.body",
                rows,
            )
            self._connection.executemany(
                "UPDATE answers SET used = ? WHERE key = ?", [(now, key) for key in used]
            )
            run("COMMIT")
        except BaseException:
            run("ROLLBACK")
            raise

    def expire(self, before: float) -> None:
        """Drop answers that have not been used since a time."""
        run = self._connection.execute
        oldest = "SELECT rowid FROM answers WHERE used < ? ORDER BY used LIMIT ?"
        while run(
            f"DELETE FROM answers WHERE rowid IN ({oldest})",  # noqa: S608 - a constant
            (before, _EVICTED),
        ).rowcount:
            pass

    def make_room(self, most: int) -> None:
        """Drop what was used longest ago, until the answers take no more than ``most`` bytes."""
        if self._size() <= most:
            return
        oldest = "SELECT rowid FROM answers ORDER BY used LIMIT ?"
        delete = f"DELETE FROM answers WHERE rowid IN ({oldest})"  # noqa: S608 - a constant
        while (
            self._size() > most * _FULL and self._connection.execute(delete, (_EVICTED,)).rowcount
        ):
            pass

    def _size(self) -> int:
        """Bytes in use; pages that became free are used again before the file grows."""
        numbers = [
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        ]
        pages, free, size = numbers
        return int((pages - free) * size)

    def close(self) -> None:
        """Close the connection; the last one moves all that is in the log into the file."""
        self._connection.close()


def _packed(body: bytes) -> tuple[int, bytes]:
    if len(body) < _WORTH_IT:
        return 0, body
    small = zlib.compress(body, 1)
    return (_COMPRESSED, small) if len(small) < len(body) else (0, body)


def _make_private(path: str) -> None:
    """Make the file for its owner alone; SQLite gives its log the same rights."""
    # A link that somebody planted is not followed.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, _PRIVATE)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & ~_PRIVATE and hasattr(os, "fchmod"):
            os.fchmod(descriptor, _PRIVATE)
    finally:
        os.close(descriptor)


def _head(entry: Entry) -> str:
    return msgspec.json.encode(entry.head).decode()
