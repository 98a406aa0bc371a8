"""Files that the command line keeps between runs."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

__all__ = [
    "config_folder",
    "data_folder",
    "private_file",
    "private_folder",
    "private_in",
    "replace_file",
]

_NAME = "konko_async"


def private_file(name: str) -> Path:
    """Return the path of a file that only this user can read; it exists afterwards.

    It lies in ``konko_async`` below ``$XDG_STATE_HOME``, or in the platform's own folder.
    """
    return private_in(private_folder(_state_folder()), name)


def private_folder(folder: Path) -> Path:
    """Make a folder that only this user can enter, unless it is there; return it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def private_in(folder: Path, name: str) -> Path:
    """Make a file in ``folder`` that only this user can read, unless it is there; return it."""
    path = folder / name
    # Created with its mode: with a chmod() afterwards there would be a moment in which others can
    # read it.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    path.chmod(0o600)  # one that was there before
    return path


def replace_file(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put a new file in the place of the old one: there is never half of one.

    Raises:
        OSError: it cannot be written; the old one is untouched.
    """
    # In the same folder, as a rename is atomic within one file system only.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        new.chmod(mode)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _state_folder() -> Path:
    return _folder("XDG_STATE_HOME", Path(".local", "state"))


def data_folder() -> Path:
    """Return the folder of what the user wants to keep: ``$XDG_DATA_HOME/konko_async``."""
    return _folder("XDG_DATA_HOME", Path(".local", "share"))


def config_folder() -> Path:
    """Return the folder of the configuration file: ``$XDG_CONFIG_HOME/konko_async``."""
    return _folder("XDG_CONFIG_HOME", Path(".config"))


def _folder(variable: str, below_home: Path) -> Path:
    given = Path(os.environ.get(variable, ""))
    if given.is_absolute():  # the XDG rule: a relative path is ignored
        root = given
    elif sys.platform == "win32":
        root = Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Application Support"
    else:
        root = Path.home() / below_home
    return root / _NAME
