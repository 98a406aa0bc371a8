"""Keeps answers in files as they come, so that what Ray repeats is not paid twice."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

__all__ = ["Memo", "Remembered", "row_key"]

# Seconds; a folder on a network is slow to list, and actors do not die often.
_LOOK_EVERY: Final = 1.0
# Neither a link is followed nor a pipe waited for: others may be able to write to the folder.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_canonical = msgspec.json.Encoder(order="sorted").encode


class Remembered(msgspec.Struct, gc=False, array_like=True):
    """An answer.

    Attributes:
        key: of the row, see :func:`row_key`.
        answer: the text.
        prompt_tokens: used, if the server reported them.
        completion_tokens: used, if the server reported them.
    """

    key: str
    answer: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Remembered).decode


def row_key(name: Any, request: dict[str, Any]) -> str:
    """Return what stands for a row: its name (None: it has none) and what it asks."""
    return blake2b(_canonical([str(name), request]), digest_size=16).hexdigest()


class Memo:
    """The answers of all actors of a job, each in a file of its own; others read it once it died.

    An actor holds a lock on its file for as long as it lives (``flock``: the folder must be on a
    file system that has it, and be the same for all nodes).

    Args:
        folder: of the files; made if need be, and closed to others: answers stand in it.
    """

    def __init__(self, folder: str) -> None:
        self._fd = -1
        self._folder = Path(folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):  # somebody else's, who let us in
            self._folder.chmod(self._folder.stat().st_mode & ~0o077)
        self._name = f"answers-{secrets.token_hex(8)}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW
        self._fd = os.open(self._folder / self._name, flags, 0o600)
        # The kernel drops the lock when the process dies, however it dies: no lease has to be
        # renewed.
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self._read: set[str] = {self._name}
        # Where answers stand, not the answers: a job may have millions.
        self._places: dict[bytes, tuple[str, int, int]] = {}
        self._looked = 0.0

    def find(self, key: str) -> Remembered | None:
        """Return the answer of an actor that is gone."""
        place = self._places.get(bytes.fromhex(key))
        if place is None:
            return None
        name, start, size = place
        with os.fdopen(os.open(self._folder / name, _READ), "rb") as file:
            file.seek(start)
            return _decode(file.read(size))

    def keep(self, answer: Remembered) -> None:
        """Write an answer down; from then on it survives this process."""
        # One write without a buffer: what is written survives a kill, and O_APPEND keeps lines
        # whole.
        os.write(self._fd, _encode(answer) + b"\n")

    def look(self) -> None:
        """Take in the files of actors that have died since; now and then, as it asks the disk."""
        now = time.monotonic()
        if self._looked and now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        for path in self._folder.glob("answers-*.jsonl"):
            if path.name not in self._read and _abandoned(path):
                self._read.add(path.name)
                self._take(path)

    def _take(self, path: Path) -> None:
        start = 0
        with os.fdopen(os.open(path, _READ), "rb") as file:
            for line in file:
                # A line may be torn, if its writer was killed; a foreign file may hold anything.
                with contextlib.suppress(msgspec.DecodeError, ValueError):
                    self._places[bytes.fromhex(_decode(line).key)] = (path.name, start, len(line))
                start += len(line)

    def close(self) -> None:
        """Let others read the file; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


def _abandoned(path: Path) -> bool:
    """Whether it is a file of ours that nobody writes to any more."""
    try:
        descriptor = os.open(path, _READ)
    except OSError:  # gone, or a link
        return False
    try:
        found = os.fstat(descriptor)
        # Where others may write to the folder, their files could put answers into this job.
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return False
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
