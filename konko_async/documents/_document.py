"""A document, and why there is none."""

from __future__ import annotations

import msgspec

from konko_async import KonkoError

__all__ = ["Document", "DocumentError"]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A document as plain text.

    Attributes:
        name: of its file; one line of several in a file adds ``#`` and its number.
        text: with paragraphs set apart by empty lines where the format has paragraphs.
        format: ``text``, ``markdown``, ``html``, ``pdf``, ``docx`` or ``jsonl``.
        title: that the document gives itself; None if it gives none.
        encoding: that its bytes were read in; None for formats that are not text.
    """

    name: str
    text: str
    format: str
    title: str | None = None
    encoding: str | None = None


class DocumentError(KonkoError):
    """A file, or a line of one, cannot be read as a document.

    Attributes:
        name: of the file or line.
        code: ``missing``, ``unreadable``, ``empty``, ``encrypted``, ``broken``, ``binary`` or
            ``too_large``.
    """

    def __init__(self, message: str, *, name: str, code: str) -> None:
        super().__init__(message)
        self.name = name
        self.code = code
