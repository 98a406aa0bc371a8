"""Keeps conversations in an SQLite file that only this user can read."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from konko_async.cli._state import data_folder, private_folder, private_in
from konko_async.cli.chat.conversation import Conversation, Kept, shown_text

__all__ = ["ConversationStore", "LogError", "LogRow", "store_path"]

_VERSION = 1
_BUSY = 5.0  # seconds that another process may take to write
_TITLE = 80  # characters
_AROUND = 40  # characters on each side of what was found
_SCHEMA = """
CREATE TABLE conversations (
    id TEXT PRIMARY KEY, created REAL NOT NULL, updated REAL NOT NULL, revision INTEGER NOT NULL,
    model TEXT NOT NULL, title TEXT NOT NULL, system TEXT, parameters TEXT NOT NULL
);
CREATE TABLE messages (
    conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    number INTEGER NOT NULL, role TEXT NOT NULL, content TEXT NOT NULL,
    PRIMARY KEY (conversation, number)
);
CREATE INDEX by_time ON conversations (updated);
"""
_COLUMNS = (
    "c.id, c.updated, c.model, c.title, "
    "(SELECT count(*) FROM messages AS m WHERE m.conversation = c.id)"
)


class LogError(Exception):
    """Conversations cannot be kept or read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class LogRow:
    """One kept conversation, without its messages.

    Attributes:
        id: eight hexadecimal digits.
        updated: seconds since 1970.
        model: that answered last.
        title: the beginning of the first question.
        messages: how many there are.
        excerpt: what was found, for a search.
    """

    id: str
    updated: float
    model: str
    title: str
    messages: int
    excerpt: str = ""


def store_path() -> Path:
    """Return where conversations are kept, or would be."""
    return data_folder() / "conversations.db"


class ConversationStore:
    """The kept conversations.

    Args:
        path: of the file. Default :func:`store_path`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or store_path()

    # -- writing ---------------------------------------------------------------------------------

    def keep(self, conversation: Conversation, model: str) -> None:
        """Write a conversation, whole; afterwards ``conversation.kept`` says where it is.

        One that another process has written to since it was read is not overwritten: it becomes
        one of its own.

        Raises:
            LogError: it cannot be written.
        """
        with self._open(make=True) as database:
            kept = conversation.kept
            if kept is None or not self._update(database, conversation, model, kept):
                kept = self._insert(database, conversation, model)
            else:
                kept = Kept(kept.id, kept.revision + 1)
            database.execute("DELETE FROM messages WHERE conversation = ?", (kept.id,))
            database.executemany(
                "INSERT INTO messages VALUES (?, ?, ?, ?)",
                (
                    (kept.id, number, message["role"], _json(message["content"]))
                    for number, message in enumerate(conversation.said)
                ),
            )
        # Once it is committed, and not before.
        conversation.kept = kept

    def _insert(self, database: sqlite3.Connection, said: Conversation, model: str) -> Kept:
        now, name = time.time(), secrets.token_hex(4)
        values = (name, now, now, 1, model, _title(said), said.system, _json(said.parameters))
        database.execute("INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        return Kept(name, 1)

    def _update(
        self, database: sqlite3.Connection, said: Conversation, model: str, kept: Kept
    ) -> bool:
        done = database.execute(
            "UPDATE conversations SET updated = ?, revision = revision + 1, model = ?, title = ?, "
            "system = ?, parameters = ? WHERE id = ? AND revision = ?",
            (time.time(), model, _title(said), said.system, _json(said.parameters), *_key(kept)),
        )
        return done.rowcount == 1

    def delete(self, ids: list[str] | None, *, older_than: float | None = None) -> int:
        """Delete conversations; their text is overwritten in the file.

        Args:
            ids: whole ids or their beginnings; None: all.
            older_than: seconds since the last answer; None: of any age.

        Returns:
            How many there were.

        Raises:
            LogError: an id names none, or several; then nothing is deleted.
        """
        with self._open() as database:
            if ids is None:
                before = time.time() - older_than if older_than is not None else float("inf")
                done = database.execute("DELETE FROM conversations WHERE updated < ?", (before,))
                return done.rowcount
            names = {self._find(database, name)[0] for name in ids}
            database.executemany("DELETE FROM conversations WHERE id = ?", ((n,) for n in names))
            return len(names)

    # -- reading ---------------------------------------------------------------------------------

    def rows(self, limit: int | None = None) -> list[LogRow]:
        """Return the conversations, the latest first."""
        if not self.path.exists():
            return []
        with self._open() as database:
            found = database.execute(
                f"SELECT {_COLUMNS} FROM conversations AS c ORDER BY c.updated DESC LIMIT ?",  # noqa: S608 - a constant
                (-1 if limit is None else limit,),
            )
            return [LogRow(*row) for row in found]

    def search(self, text: str) -> list[LogRow]:
        """Return the conversations in which a text occurs, in any case; the latest first."""
        if not self.path.exists():
            return []
        wanted = text.casefold()
        with self._open() as database:
            database.create_function("excerpt", 1, lambda content: _excerpt(content, wanted))
            found = database.execute(
                f"SELECT {_COLUMNS}, min(excerpt(m.content)) AS e FROM conversations AS c "  # noqa: S608 - a constant
                "JOIN messages AS m ON m.conversation = c.id "
                "GROUP BY c.id HAVING e IS NOT NULL ORDER BY c.updated DESC"
            )
            return [LogRow(*row) for row in found]

    def read(self, name: str | None = None) -> tuple[Conversation, str]:
        """Return a conversation, and the model that answered last.

        Args:
            name: its id, or the beginning of it; None: the latest.

        Raises:
            LogError: there is none, or several begin like this.
        """
        if not self.path.exists():
            raise LogError("no conversation is kept yet")
        with self._open() as database:
            found = self._find(database, name)
            messages = database.execute(
                "SELECT role, content FROM messages WHERE conversation = ? ORDER BY number",
                (found[0],),
            )
            conversation = Conversation(found[3], msgspec.json.decode(found[4]))
            conversation.said = [
                {"role": role, "content": msgspec.json.decode(content)}
                for role, content in messages
            ]
        conversation.kept = Kept(found[0], found[1])
        return conversation, found[2]

    def _find(self, database: sqlite3.Connection, name: str | None) -> tuple[Any, ...]:
        what = "SELECT id, revision, model, system, parameters FROM conversations"
        if name is None:
            last = database.execute(f"{what} ORDER BY updated DESC LIMIT 1").fetchone()
            if last is None:
                raise LogError("no conversation is kept yet")
            return tuple(last)
        # substr, and not LIKE: in that, % and _ have a meaning.
        found = database.execute(
            f"{what} WHERE substr(id, 1, ?) = ? LIMIT 2", (len(name), name)
        ).fetchall()
        if not name or not found:
            raise LogError(f"there is no conversation {name!r}; `konko-async log` lists them")
        if len(found) > 1:
            raise LogError(f"several conversations begin with {name!r}: give more of the id")
        return tuple(found[0])

    # -- the file --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _open(self, *, make: bool = False) -> Iterator[sqlite3.Connection]:
        """Open the file for one transaction."""
        try:
            if make:
                # Made before SQLite does it, so that nobody else can ever read it. SQLite gives
                # its journal the mode of the file.
                private_in(private_folder(self.path.parent), self.path.name)
            elif not self.path.exists():
                raise LogError("no conversation is kept yet")
            with contextlib.closing(sqlite3.connect(self.path, timeout=_BUSY)) as database:
                database.execute("PRAGMA foreign_keys = ON")
                database.execute("PRAGMA secure_delete = ON")
                self._prepare(database)
                with database:
                    database.execute("BEGIN IMMEDIATE" if make else "BEGIN")
                    yield database
        except (sqlite3.Error, OSError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise LogError(f"{self.path}: {said}") from None

    def _prepare(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise LogError(f"{self.path} was written by a newer konko-async: update this one")
        if version == 0:
            # One script, one transaction: two processes that begin at once do not meet halfway.
            with contextlib.suppress(sqlite3.OperationalError):
                database.executescript(
                    f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;"
                )
            if database.in_transaction:
                database.rollback()


def _key(kept: Kept) -> tuple[str, int]:
    return kept.id, kept.revision


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _title(conversation: Conversation) -> str:
    first = next((m["content"] for m in conversation.said if m["role"] == "user"), "")
    words = " ".join(shown_text(first).split())
    return words if len(words) <= _TITLE else f"{words[: _TITLE - 1]}…"


def _excerpt(content: str, wanted: str) -> str | None:
    """Return what stands around the text that is searched for; None if it does not occur."""
    text = " ".join(shown_text(msgspec.json.decode(content)).split())
    # casefold() may change lengths ("ß"), so the place is that of the folded text: near enough.
    at = text.casefold().find(wanted)
    if at < 0:
        return None
    begin, end = max(at - _AROUND, 0), at + len(wanted) + _AROUND
    return f"{'…' if begin else ''}{text[begin:end]}{'…' if end < len(text) else ''}"
