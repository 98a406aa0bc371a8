"""Turns the bytes of one file into documents, in this process or in a reader process."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from konko_async.documents._document import Document, DocumentError
from konko_async.documents._jsonl import jsonl_documents
from konko_async.documents._mail import mail_text, mailbox
from konko_async.documents._text import Decoded, decode, tidy

__all__ = ["Found", "documents_of", "file_bytes"]

Found = Document | DocumentError

_LARGEST: Final = 128 * 2**20
_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
_HEADING = re.compile(r"\A\s*(?:#{1,2}[ \t]+(.+?)[ \t]*#*|(.+)\n=+)[ \t]*$", re.MULTILINE)
_LONGEST_TITLE: Final = 200


def file_bytes(path: Path, name: str) -> bytes:
    """Return the content of a regular file.

    Raises:
        DocumentError: it is missing, empty, larger than 128 MiB, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            # A named pipe or a device might never end.
            raise DocumentError(f"{name} is not a regular file", name=name, code="unreadable")
        with path.open("rb") as file:
            # One byte more than allowed shows that a file is too large, without asking for its
            # size: the size of files in `/proc` is 0.
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


def documents_of(
    data: bytes, name: str, kind: str, *, field: str | None = None, encoding: str | None = None
) -> Iterator[Found]:
    """Yield the documents of a file: one, but for JSON lines and mailboxes.

    Args:
        data: the content of the file.
        name: of the file.
        kind: its format.
        field: the field that holds the text, in JSON lines.
        encoding: the encoding of the file; None: it is found out.
    """
    try:
        if kind == "jsonl":
            decoded = decode(data, name, forced=encoding)
            yield from jsonl_documents(decoded.text, name, field, decoded.encoding)
        elif kind == "mbox":
            yield from _mailbox(data, name)
        else:
            yield _document(data, name, kind, encoding)
    except DocumentError as error:
        yield error


def _document(data: bytes, name: str, kind: str, encoding: str | None) -> Document:
    title: str | None = None
    decoded: Decoded | None = None
    warnings: tuple[str, ...] = ()
    if kind == "pdf":
        text, title, warnings = _reader("_pdf", "pdf_text")(data, name)
    elif kind == "html":
        text, title, decoded = _reader("_html", "html_text")(data, name, forced=encoding)
    elif kind == "email":
        text, title, warnings = mail_text(data, name)
    elif kind in {"text", "markdown"}:
        decoded = decode(data, name, forced=encoding)
        text = decoded.text
    else:
        text, title, warnings = _reader("_office", "office_text")(data, name, kind)
    if decoded is not None and decoded.replaced:
        some = "1 character was" if decoded.replaced == 1 else f"{decoded.replaced} characters were"
        warnings = (*warnings, f"{some} not valid {decoded.encoding}, and replaced")
    # Before the check for emptiness: a PDF of scanned pages yields form feeds and blanks alone.
    text = tidy(text)
    if not text:
        hint = " (scanned pages?)" if kind == "pdf" else ""
        raise DocumentError(f"{name} holds no text{hint}", name=name, code="empty")
    return Document(
        name=name,
        text=text,
        format=kind,
        title=title or (_title(text) if kind == "markdown" else None),
        encoding=None if decoded is None else decoded.encoding,
        warnings=warnings,
    )


def _title(text: str) -> str | None:
    """Return the title of Markdown: that of its front matter, else its first heading."""
    front = _FRONT_MATTER.match(text)
    if front is not None:
        named = _FRONT_TITLE.search(front[1])
        if named is not None:
            return named[1].strip("\"'")[:_LONGEST_TITLE] or None
        text = text[front.end() :]
    heading = _HEADING.match(text)
    return (heading[1] or heading[2]).strip()[:_LONGEST_TITLE] or None if heading else None


def _mailbox(data: bytes, name: str) -> Iterator[Found]:
    """Yield the messages of a mailbox, numbered."""
    number = 0
    for message in mailbox(data):
        if not message.strip():
            continue
        number += 1
        place = f"{name}#{number}"
        try:
            yield _document(message, place, "email", None)
        except DocumentError as error:
            yield error


def _reader(module: str, function: str) -> Callable[..., Any]:
    """Return what reads a format; its library is imported only now."""
    reader: Callable[..., Any] = getattr(import_module(f"konko_async.documents.{module}"), function)
    return reader
