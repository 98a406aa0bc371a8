"""The few calls by which a batch writes; pass another object to test or to redirect them."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

__all__ = ["Files"]

_PRIVATE = 0o600
# Windows would translate line ends otherwise.
_BINARY = getattr(os, "O_BINARY", 0)


class Files:
    """Writes with the operating system; every method may raise OSError."""

    def open(self, path: str, flags: int) -> int:
        """Open a file, readable by its owner alone if it is created; returns its descriptor."""
        return os.open(path, flags | _BINARY, _PRIVATE)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write once; returns how many bytes were taken, which may be fewer than given."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Wait until what was written is on the disk."""
        os.fsync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file off."""
        os.ftruncate(descriptor, size)

    def replace(self, source: str, target: str) -> None:
        """Rename a file, over another one if need be, and make that last."""
        Path(source).replace(target)
        self.sync_directory(str(Path(target).parent))

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory last; where the system cannot, do nothing."""
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
