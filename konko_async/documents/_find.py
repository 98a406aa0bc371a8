"""From the paths of a command line to files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["find_files"]

_HEAD = 4096
AnyPath = str | os.PathLike[str]


def find_files(
    paths: Iterable[AnyPath], suffixes: Iterable[str], *, leave_out: Iterable[AnyPath] = ()
) -> Iterator[Path]:
    """Yield the files that ``paths`` name, each once.

    A file is taken whatever its name. Of a folder, the files with one of ``suffixes`` are, and
    those without any that look like text (``README``, ``LICENSE``), in the order of their names,
    with those of folders within; hidden ones are left out, and links to folders are not followed,
    as they might lead round in circles.

    Args:
        paths: of files and folders.
        suffixes: in lower case, with their dot.
        leave_out: files and folders that are not looked at, such as an output.
    """
    seen = {os.path.realpath(path) for path in leave_out}
    wanted = frozenset(suffixes)
    for given in paths:
        path = Path(given)
        for file in _of_folder(path, wanted, seen) if path.is_dir() else (path,):
            name = os.path.realpath(file)
            if name not in seen:
                seen.add(name)
                yield file


def _of_folder(folder: Path, suffixes: frozenset[str], seen: set[str]) -> Iterator[Path]:
    # A folder that cannot be listed is yielded itself: reading it will tell why.
    unreadable: list[Path] = []
    walk = os.walk(folder, onerror=lambda error: unreadable.append(Path(error.filename)))
    for root, folders, files in walk:
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(Path(root, name)) not in seen
        )
        for name in sorted(files):
            path = Path(root, name)
            suffix = path.suffix.lower()
            if name.startswith("."):
                continue
            # LICENSE, and GPL-2.0: a number is no suffix.
            if suffix in suffixes or (not suffix.strip(".0123456789") and _looks_like_text(path)):
                yield path
        yield from unreadable
        unreadable.clear()
    yield from unreadable


def _looks_like_text(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return bool(head) and b"\0" not in head
