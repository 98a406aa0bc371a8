"""Determines a file's format: by its content where that is plain, else by its name."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final

__all__ = ["ISOLATED", "SUFFIXES", "format_of"]

# Read as they are: source code and data that people read as text.
_PLAIN: Final = (
    ".txt .text .rst .tex .org .adoc .log .srt .vtt .csv .tsv .json .yaml .yml .toml .ini .cfg "
    ".conf .xml .sql .py .pyi .js .mjs .ts .tsx .jsx .c .h .cc .cpp .hpp .cs .go .rs .java .kt "
    ".swift .rb .php .pl .lua .r .jl .scala .sh .bash .zsh .ps1 .bat .diff .patch .css "
    ".proto .graphql"
)
SUFFIXES: Final = {
    **dict.fromkeys(_PLAIN.split(), "text"),
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".docx": "docx",
    ".docm": "docx",
    ".doc": "doc",
    ".pptx": "pptx",
    ".xlsx": "xlsx",
    ".odt": "odt",
    ".ods": "ods",
    ".rtf": "rtf",
    ".epub": "epub",
    ".eml": "email",
    ".mbox": "mbox",
    ".msg": "msg",
    ".ipynb": "notebook",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
"""The formats by the endings of names, in lower case."""

ISOLATED: Final = frozenset(
    {"html", "pdf", "docx", "doc", "pptx", "xlsx", "odt", "ods", "rtf", "epub", "email", "mbox"}
    | {"msg", "notebook"}
)
"""Formats whose readers run in a process of their own, with a time and a memory limit."""

_HEAD = 4096
_HTML = re.compile(
    rb"^\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html)\b",
    re.IGNORECASE | re.DOTALL,
)
# What stands early in a ZIP archive of each format.
_ZIPPED: Final = (
    (b"application/epub+zip", "epub"),
    (b"application/vnd.oasis.opendocument.text", "odt"),
    (b"application/vnd.oasis.opendocument.spreadsheet", "ods"),
    # After the media types: a file that names its type may hold folders of these names too.
    (b"word/", "docx"),
    (b"ppt/", "pptx"),
    (b"xl/", "xlsx"),
)


def format_of(path: PurePath, data: bytes) -> str:
    """Return the format of a file; what is unknown is ``text``."""
    # Content first where the first bytes leave no doubt: downloads are often saved under a wrong
    # ending. A ZIP archive is no such case: the ending says which of the formats in it is meant.
    if data.startswith(b"%PDF-"):
        return "pdf"
    if data.startswith(b"{\\rtf"):
        return "rtf"
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is not None:
        return kind
    if data.startswith(b"PK\x03\x04"):
        return next((kind for mark, kind in _ZIPPED if mark in data), "text")
    return "html" if _HTML.match(data[:_HEAD]) else "text"
