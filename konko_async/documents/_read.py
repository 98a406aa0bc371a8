"""Reads documents: several at once, errors as results, in the order of the files."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from konko_async.documents._document import DocumentError, missing_library
from konko_async.documents._find import find_files
from konko_async.documents._formats import ISOLATED, SUFFIXES, format_of
from konko_async.documents._read_bytes import Found, documents_of, file_bytes
from konko_async.documents._readers import TIME_LIMIT, Readers

__all__ = ["read_documents", "read_file"]

# Files that are read ahead, per reader process: enough to keep all of them busy.
_AHEAD: Final = 4


def read_documents(
    paths: Iterable[str | os.PathLike[str]],
    *,
    field: str | None = None,
    encoding: str | None = None,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    leave_out: Iterable[str | os.PathLike[str]] = (),
    on_left_out: Callable[[Path], object] | None = None,
    time_limit: float = TIME_LIMIT,
) -> Iterator[Found]:
    """Yield the documents of files and folders, in their order; blocks.

    A file that is named is read, whatever its name; of a folder, those whose names end with one
    of :data:`SUFFIXES` are, with those of folders within. HTML, PDF, office formats and mail are
    read in processes of their own, one per core, with a limit of time and of memory (3 GiB, where
    the platform has such limits): a document that breaks its reader costs that document.

    Args:
        paths: of files and folders.
        field: the field that holds the text in JSON lines; default: ``text``, ``content`` and such.
        encoding: of all text files; default: found out for each.
        include: globs of the files to take of folders, instead of those with a known ending.
        exclude: globs of files and folders to leave out.
        leave_out: files and folders that are not looked at, such as an output.
        on_left_out: called with each visible file of a folder that is not read.
        time_limit: seconds that one file may take.

    Yields:
        A document, or the error for one that cannot be read.

    Raises:
        ConfigurationError: the extra ``docs`` is not installed and would be needed.
    """
    files = find_files(
        paths,
        SUFFIXES,
        include=include,
        exclude=exclude,
        leave_out=leave_out,
        on_left_out=on_left_out,
    )
    with Readers(seconds=time_limit) as readers:
        ahead: deque[Callable[[], Iterable[Found]]] = deque()
        for path in files:
            ahead.append(_begin(readers, path, field, encoding))
            # The oldest first, finished or not: documents are reported in the order of the files,
            # and a bounded queue keeps a folder of a million files out of memory.
            if len(ahead) > _AHEAD * readers.workers:
                yield from ahead.popleft()()
        while ahead:
            yield from ahead.popleft()()


def read_file(
    path: str | os.PathLike[str],
    *,
    field: str | None = None,
    encoding: str | None = None,
    time_limit: float = TIME_LIMIT,
) -> Iterator[Found]:
    """Yield the documents of one file: one, but for JSON lines and mailboxes.

    Starting a reader process takes a few tenths of a second; for many files, use
    :func:`read_documents`.

    Args:
        path: of the file.
        field: as for :func:`read_documents`.
        encoding: as for :func:`read_documents`.
        time_limit: seconds that it may take.

    Yields:
        A document, or an error.

    Raises:
        ConfigurationError: the extra ``docs`` is not installed and would be needed.
    """
    with Readers(workers=1, seconds=time_limit) as readers:
        yield from _begin(readers, Path(path), field, encoding)()


def _begin(
    readers: Readers, path: Path, field: str | None, encoding: str | None
) -> Callable[[], Iterable[Found]]:
    """Begin to read a file; the result is a function that gives its documents."""
    name = _shown(path)
    try:
        # The whole file is read here even where a reader process reads it again: the format depends
        # on its content, and a file that is missing or empty needs no process.
        data = file_bytes(path, name)
    except DocumentError as error:
        failed = error
        return lambda: (failed,)
    kind = format_of(path, data)
    if kind not in ISOLATED:
        # Decoding takes linear time and memory: no process is needed.
        return lambda: _direct(data, name, kind, field, encoding)
    future: Future[list[Any]] = readers.submit(path, name, kind, field=field, encoding=encoding)
    return future.result


def _direct(
    data: bytes, name: str, kind: str, field: str | None, encoding: str | None
) -> Iterator[Found]:
    try:
        yield from documents_of(data, name, kind, field=field, encoding=encoding)
    except ModuleNotFoundError as error:
        raise missing_library(name, error.name) from None


def _shown(path: Path) -> str:
    """Return a path as valid text: bytes of a name that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
