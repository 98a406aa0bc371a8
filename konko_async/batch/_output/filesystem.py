"""The few calls by which a batch writes; pass another object to test or to redirect them."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path

__all__ = ["Filesystem"]

_PRIVATE = 0o600
# Windows would translate line ends otherwise.
_BINARY = getattr(os, "O_BINARY", 0)


def _narrow(descriptor: int) -> None:
    """Take the rights of others off a regular file, where it is ours."""
    about = os.fstat(descriptor)
    if stat.S_ISREG(about.st_mode) and stat.S_IMODE(about.st_mode) & ~_PRIVATE:
        with contextlib.suppress(OSError, AttributeError):  # another owner; Windows
            os.fchmod(descriptor, _PRIVATE)


class Filesystem:
    """Writes with the operating system; every method may raise OSError."""

    def open(self, path: str, flags: int) -> int:
        """Open a file and return its descriptor.

        One that is written is readable by its owner alone: it holds prompts and answers. A file
        that others could read before is narrowed to that.
        """
        descriptor = os.open(path, flags | _BINARY, _PRIVATE)
        if flags & (os.O_WRONLY | os.O_RDWR):
            _narrow(descriptor)
        return descriptor

    def create(self, path: str) -> int:
        """Open a file of ours for writing, in the place of one that a crash may have left.

        A link that somebody planted under its name is removed, not followed.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - one of the few calls
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        return self.open(path, flags)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write once; returns how many bytes were taken, which may be fewer than given."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file off after ``size`` bytes."""
        os.ftruncate(descriptor, size)

    def replace(self, source: str, target: str) -> None:
        """Rename a file, over another one if need be; survives a power cut."""
        Path(source).replace(target)
        # The new name stands in the directory: without this, a power cut could undo the renaming.
        self.sync_directory(str(Path(target).parent))

    def sync_directory(self, path: str) -> None:
        """Flush the names in a directory to the disk; does nothing where the system cannot."""
        with contextlib.suppress(OSError):  # Windows opens no directories
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def stdin(self) -> int:
        """Return the descriptor that ``-`` as input stands for."""
        return sys.stdin.fileno()

    def stdout(self) -> int:
        """Return the descriptor that ``-`` as output stands for."""
        return sys.stdout.fileno()

    def write_all(self, descriptor: int, data: bytes) -> None:
        """Write all of ``data``: usually in one call, as only the disk's end cuts it short."""
        written = self.write(descriptor, data)
        if written < len(data):
            rest = memoryview(data)[written:]
            while rest:
                rest = rest[self.write(descriptor, rest) :]
