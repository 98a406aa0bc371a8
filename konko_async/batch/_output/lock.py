"""A lock on an open file that dies with its owner."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

__all__ = ["LockFile", "try_lock"]

# Windows locks ranges of bytes, and others cannot read them: one far beyond any journal's end.
_FAR = 1 << 62

if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> bool | None:
        """Lock an open file against other processes; False if one of them has it locked."""
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        # locking() locks from the current position on.
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, place, os.SEEK_SET)
        return True

else:
    import errno
    import fcntl

    # Lustre without -o flock, some FUSE mounts, NFS without lockd.
    _WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}

    def try_lock(descriptor: int) -> bool | None:
        """Lock an open file against other processes; False if one of them has it locked.

        Returns:
            None if the file system has no locks.
        """
        try:
            # Not lockf(): a POSIX record lock ends as soon as this process
            # closes any descriptor of the file.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return None
            raise
        return True


class LockFile:
    """A lock for file systems that have none: a file that names its owner.

    It does not die with the machine; that of a process of this machine that is gone is taken over.

    Args:
        path: of the file.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._held = False

    def acquire(self) -> str | None:
        """Make the file; returns the owner of the one that is there, None if there was none."""
        me = f"{socket.gethostname()} {os.getpid()}"
        # The second try comes after a dead owner's file was removed;
        # another run may have been faster.
        for _ in range(2):
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                owner = self._owner()
                if not _is_gone(owner):
                    return owner
                self._path.unlink(missing_ok=True)
                continue
            with os.fdopen(descriptor, "w") as file:
                file.write(me)
            self._held = True
            return None
        return self._owner()

    def _owner(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8", errors="replace")[:200] or "unknown"
        except OSError:
            return "unknown"

    def release(self) -> None:
        """Remove the file, if it is ours; idempotent."""
        if self._held:
            self._held = False
            self._path.unlink(missing_ok=True)


def _is_gone(owner: str) -> bool:
    """Whether the owner is a process of this machine that has ended."""
    host, _, number = owner.rpartition(" ")
    # The numbers of processes on other machines say nothing here.
    if host != socket.gethostname() or not number.isdecimal():
        return False
    try:
        # Signal 0 only asks whether there is such a process. On Windows it would be Ctrl-C, but
        # there try_lock() always has locks, and this is never reached.
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
