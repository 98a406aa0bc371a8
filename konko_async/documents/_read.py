"""Reading documents: the format by name and content, errors as results."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from konko_async import ConfigurationError
from konko_async.documents._document import Document, DocumentError
from konko_async.documents._find import find_files
from konko_async.documents._jsonl import jsonl_documents
from konko_async.documents._text import decode, tidy

__all__ = ["SUFFIXES", "read_documents", "read_file"]

SUFFIXES: Final = {
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
"""The formats by the endings of names."""

_LARGEST: Final = 128 * 2**20
_HTML = re.compile(
    rb"^\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b",
    re.IGNORECASE | re.DOTALL,
)
_HEAD = 4096

Found = Document | DocumentError


def read_documents(
    paths: Iterable[str | os.PathLike[str]],
    *,
    field: str | None = None,
    leave_out: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[Found]:
    """Yield the documents of files and folders, each as it is read; blocks.

    A file that is named is read whatever its name; of a folder, those whose names end with one
    of :data:`SUFFIXES` are, with those of folders within.

    Args:
        paths: of files and folders.
        field: that holds the text in JSON lines; default: ``text``, ``content`` and such.
        leave_out: files and folders that are not looked at, such as an output.

    Yields:
        A document, or the error for one that cannot be read.

    Raises:
        ConfigurationError: the extra ``docs`` is not installed and would be needed.
    """
    for path in find_files(paths, SUFFIXES, leave_out=leave_out):
        yield from read_file(path, field=field)


def read_file(path: str | os.PathLike[str], *, field: str | None = None) -> Iterator[Found]:
    """Yield the documents of one file: one, but for JSON lines.

    Args:
        path: of the file.
        field: as for :func:`read_documents`.

    Yields:
        A document, or an error.

    Raises:
        ConfigurationError: the extra ``docs`` is not installed and would be needed.
    """
    name = str(path)
    try:
        data = _bytes(Path(path), name)
        kind = _format(Path(path), data)
        if kind == "jsonl":
            text, encoding = decode(data, name)
            yield from jsonl_documents(text, name, field, encoding)
            return
        document = _document(data, name, kind)
    except DocumentError as error:
        yield error
        return
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{name} needs {error.name}: pip install 'konko-async[docs]'"
        ) from None
    yield document


def _bytes(path: Path, name: str) -> bytes:
    try:
        if path.exists() and not path.is_file():
            # A named pipe or a device might never end.
            raise DocumentError(f"{name} is no file", name=name, code="unreadable")
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise DocumentError(f"{name} does not exist", name=name, code="missing") from None
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise DocumentError(
            f"{name} cannot be read: {what}", name=name, code="unreadable"
        ) from None
    if len(data) > _LARGEST:
        raise DocumentError(f"{name} is larger than 128 MiB", name=name, code="too_large")
    if not data.strip():
        raise DocumentError(f"{name} is empty", name=name, code="empty")
    return data


def _format(path: Path, data: bytes) -> str:
    """The format, by content where that is plain, else by name; what is unknown is text."""
    if data.startswith(b"%PDF-"):
        return "pdf"
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None and data.startswith(b"PK\x03\x04") and b"word/" in data:
        return "docx"
    if kind is None and _HTML.match(data[:_HEAD]):
        return "html"
    return kind or "text"


def _document(data: bytes, name: str, kind: str) -> Document:
    title = encoding = None
    if kind in {"pdf", "docx"}:
        text, title = _reader(kind)(data, name)
    elif kind == "html":
        text, title, encoding = _reader(kind)(data)
    else:
        text, encoding = decode(data, name)
    text = tidy(text)
    if not text:
        hint = " (scanned pages?)" if kind == "pdf" else ""
        raise DocumentError(f"{name} holds no text{hint}", name=name, code="empty")
    return Document(name=name, text=text, format=kind, title=title, encoding=encoding)


def _reader(kind: str) -> Callable[..., Any]:
    """Return what reads a format; its library is imported only now."""
    reader: Callable[..., Any] = getattr(
        import_module(f"konko_async.documents._{kind}"), f"{kind}_text"
    )
    return reader
