"""A document as Markdown or plain text, or the reason why it could not be read."""

from __future__ import annotations

import msgspec

from konko_async import ConfigurationError, KonkoError

__all__ = ["Document", "DocumentError", "missing_library"]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document as Markdown, or as plain text where its format has no structure.

    Attributes:
        name: the path of its file, with bytes that are not UTF-8 escaped. One of several
            documents in a file (JSON lines, mailboxes) adds ``#`` and its number.
        text: paragraphs are separated by empty lines; headings, lists and tables are Markdown.
        format: such as ``text``, ``markdown``, ``html``, ``pdf``, ``docx``, ``epub``, ``jsonl``.
        title: the document's own title; None if it has none.
        encoding: the encoding of its bytes; None for binary formats.
        warnings: what was lost or replaced while it was read, a sentence each. Empty if nothing
            was.
    """

    name: str
    text: str
    format: str
    title: str | None = None
    encoding: str | None = None
    warnings: tuple[str, ...] = ()


class DocumentError(KonkoError):
    """A file, or one document of a file, cannot be read.

    Attributes:
        name: of the file or document.
        code: ``missing``, ``unreadable``, ``empty``, ``encrypted``, ``broken``, ``binary``,
            ``too_large`` or ``timeout``.
    """

    def __init__(self, message: str, *, name: str, code: str) -> None:
        super().__init__(message)
        self.name = name
        self.code = code


def missing_library(name: str, library: str | None) -> ConfigurationError:
    """Return the error for a document whose reader needs a library that is not installed.

    Args:
        name: of the document.
        library: the module that could not be imported.
    """
    return ConfigurationError(f"{name} needs {library}: pip install 'konko-async[docs]'")
