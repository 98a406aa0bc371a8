"""Finds the files that the paths of a command line stand for, and reports what it leaves out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

__all__ = ["find_files"]

_HEAD = 4096
# What stands beside an output of `summarize`, and beside one of a batch.
_WORK = ".work"
_WORK_HOLDS = ("lock", "round-0.jsonl")
_JOURNAL = ".journal"
_JOURNAL_BEGINS = re.compile(rb'[0-9a-f]{8} \{"journal":')
AnyPath = str | os.PathLike[str]


def find_files(
    paths: Iterable[AnyPath],
    suffixes: Iterable[str],
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    leave_out: Iterable[AnyPath] = (),
    on_left_out: Callable[[Path], object] | None = None,
) -> Iterator[Path]:
    """Yield the files that ``paths`` name, each once.

    A file that is named is taken, whatever its name. Of a folder, the files with one of
    ``suffixes`` are, and those without any that look like text (``README``, ``LICENSE``), in
    natural order (``2.txt`` before ``10.txt``), with those of folders within. Hidden ones are
    left out. Links are not followed: they lead out of the folder, or round in circles. Outputs of
    earlier summaries and batches are left out too, with their work folders and journals.

    Args:
        paths: of files and folders.
        suffixes: in lower case, with their dot.
        include: globs; if any are given, only files of folders that match one are taken, whatever
            their suffix. They are held against the name and the path within the folder.
        exclude: globs; files and folders that match one are left out.
        leave_out: files and folders that are not looked at, such as an output. They, their work
            folders (``OUT.work``) and journals are never inputs.
        on_left_out: called with each visible file of a folder that is not taken.
    """
    # Real paths throughout: a file that is reached by two names or through a link is read, and paid
    # for, once.
    seen = {os.path.realpath(path) for path in leave_out}
    search = _Search(frozenset(suffixes), tuple(include), tuple(exclude), seen, on_left_out)
    for given in paths:
        path = Path(given)
        for file in search.files(path) if path.is_dir() else (path,):
            name = os.path.realpath(file)
            if name not in seen:
                seen.add(name)
                yield file


class _Search:
    """Walks folders for the files to read, with one set of rules for all of them."""

    def __init__(
        self,
        suffixes: frozenset[str],
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        seen: set[str],
        on_left_out: Callable[[Path], object] | None,
    ) -> None:
        self._suffixes = suffixes
        self._include = include
        self._exclude = exclude
        self._seen = seen
        self._on_left_out = on_left_out

    def files(self, folder: Path) -> Iterator[Path]:
        # A folder that cannot be listed is yielded itself: reading it reports why.
        unreadable: list[Path] = []
        walk = os.walk(folder, onerror=lambda error: unreadable.append(Path(error.filename)))
        for root, folders, files in walk:
            own = _outputs(Path(root), folders, files)
            # In place: `os.walk` descends into what is left in this list, in its order.
            folders[:] = sorted(
                (
                    name
                    for name in folders
                    if name not in own and self._enters(folder, Path(root, name))
                ),
                key=_natural,
            )
            for name in sorted(files, key=_natural):
                path = Path(root, name)
                if name.startswith(".") or os.path.realpath(path) in self._seen:
                    continue
                if name not in own and self._takes(folder, path):
                    yield path
                elif self._on_left_out is not None:
                    self._on_left_out(path)
            yield from unreadable
            unreadable.clear()
        yield from unreadable

    def _enters(self, top: Path, folder: Path) -> bool:
        return not (
            folder.name.startswith(".")
            or os.path.realpath(folder) in self._seen
            or _matches(top, folder, self._exclude)
        )

    def _takes(self, top: Path, path: Path) -> bool:
        # Exclusion wins over inclusion, so that `--include '*.md' --exclude drafts.md` does what it
        # says.
        if path.is_symlink() or _matches(top, path, self._exclude):
            return False
        if self._include:
            return _matches(top, path, self._include)
        suffix = path.suffix.lower()
        # LICENSE, and GPL-2.0: a number is no suffix.
        return suffix in self._suffixes or (
            not suffix.strip(".0123456789") and _looks_like_text(path)
        )


def _outputs(root: Path, folders: list[str], files: list[str]) -> set[str]:
    """Return what earlier runs wrote into a folder: outputs, work folders, journals."""
    found: set[str] = set()
    for name in folders:
        if name.endswith(_WORK) and all(Path(root, name, each).is_file() for each in _WORK_HOLDS):
            found |= {name, name.removesuffix(_WORK)}
    for name in files:
        if name.endswith(_JOURNAL) and _begins(Path(root, name), _JOURNAL_BEGINS):
            found |= {name, name.removesuffix(_JOURNAL)}
    return found


def _begins(path: Path, pattern: re.Pattern[bytes]) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return pattern.match(file.read(_HEAD)) is not None
    except OSError:
        return False


def _matches(top: Path, path: Path, globs: tuple[str, ...]) -> bool:
    within = path.relative_to(top).as_posix()
    return any(fnmatchcase(path.name, glob) or fnmatchcase(within, glob) for glob in globs)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key by which numbers in names are in the order of their values."""
    parts = re.split(r"(\d+)", name)
    return [
        (0, int(part), part) if part.isascii() and part.isdigit() else (1, 0, part)
        for part in parts
    ]


def _looks_like_text(path: Path) -> bool:
    try:
        # Opening a named pipe would block until somebody writes to it.
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return bool(head) and b"\0" not in head
