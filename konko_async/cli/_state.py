"""Where the command line remembers things between runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["private_file"]


def private_file(name: str) -> Path:
    """Return the path of a file that only this user can read; it exists afterwards.

    It lies in ``konko_async`` below ``$XDG_STATE_HOME``, or in the platform's own place.
    """
    folder = _state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    path.chmod(0o600)  # one that was there before
    return path


def _state_folder() -> Path:
    given = Path(os.environ.get("XDG_STATE_HOME", ""))
    if given.is_absolute():  # the XDG rule: a relative path is ignored
        root = given
    elif sys.platform == "win32":
        root = Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Application Support"
    else:
        root = Path.home() / ".local" / "state"
    return root / "konko_async"
