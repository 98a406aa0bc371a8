"""Extracts text from PDF by PDFium; a page that cannot be read costs that page alone."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

import pypdfium2
from pypdfium2 import PdfiumError

from konko_async.documents._document import DocumentError

__all__ = ["pdf_text"]

# PDFium marks a hyphen at the end of a line, where a word was broken, with this.
_BROKEN_WORD: Final = "\ufffe"
_PAGE_NUMBER = re.compile(
    r"^\W*(?:page|seite|p\.)?\W*\d{1,5}\W*(?:(?:of|von|/)\W*\d{1,5})?\W*$", re.IGNORECASE
)
# Lines at the edges of a page that stand on so many pages are headers and footers.
_EDGE: Final = 2
_REPEATED_SHARE: Final = 0.6
_PAGES_TO_TELL: Final = 4
# Replacement characters, the private use area and "(cid:7)": what extractors write for glyphs
# without a mapping. A text full of them is worse than none.
_UNMAPPED = re.compile("[\ufffd\ue000-\uf8ff]|\\(cid:\\d+\\)")
_GARBLED_SHARE: Final = 0.2
_NAMED_PAGES: Final = 5


def pdf_text(data: bytes, name: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Return the text of a PDF, its title, and warnings.

    Raises:
        DocumentError: it is encrypted, or broken.
    """
    try:
        document = pypdfium2.PdfDocument(data)
    except PdfiumError as error:
        raise _refused(error, name) from None
    try:
        pages, empty = _pages(document)
        title = _title(document)
    finally:
        document.close()
    warnings = []
    if empty and len(empty) < len(pages):
        warnings.append(f"no text on {_named(empty)} of {len(pages)} pages (images, or broken)")
    text = "\n\n".join(page for page in _without_furniture(pages) if page)
    unmapped = sum(len(found) for found in _UNMAPPED.findall(text))
    if unmapped > len(text) * _GARBLED_SHARE:
        warnings.append("most of the text is garbled: its fonts do not map to characters")
    return text, title, tuple(warnings)


def _refused(error: PdfiumError, name: str) -> DocumentError:
    what = " ".join(str(error).split())[:200]
    if "password" in what.lower() or "security" in what.lower():
        return DocumentError(f"{name} is encrypted", name=name, code="encrypted")
    return DocumentError(f"{name} is a broken PDF: {what}", name=name, code="broken")


def _pages(document: Any) -> tuple[list[str], list[int]]:
    """Return the text of each page, and the numbers of those without any."""
    pages: list[str] = []
    empty: list[int] = []
    for number in range(len(document)):
        try:
            page = document[number]
            text = _joined(page.get_textpage().get_text_range())
        except PdfiumError:
            text = ""
        if not text.strip():
            empty.append(number + 1)
        pages.append(text)
    return pages, empty


def _title(document: Any) -> str | None:
    try:
        title = document.get_metadata_dict().get("Title")
    except PdfiumError:
        return None
    return title.strip() or None if title else None


def _named(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_NAMED_PAGES])
    more = f" and {len(numbers) - _NAMED_PAGES} more" if len(numbers) > _NAMED_PAGES else ""
    return f"page{'s' if len(numbers) > 1 else ''} {shown}{more}"


def _joined(text: str) -> str:
    """Join words that were broken at the end of a line; a compound keeps its hyphen."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    pieces = text.split(_BROKEN_WORD)
    joined = pieces[0]
    for piece in pieces[1:]:
        before = joined.split()[-1] if joined[-40:].split() else ""
        # "state-of-the-" and "art": a word that has hyphens already is not a broken one.
        joined += ("-" if "-" in before else "") + piece.removeprefix("\n")
    return joined


def _without_furniture(pages: list[str]) -> list[str]:
    """Leave out headers, footers and page numbers: lines at the edges that repeat."""
    split = [[line.strip() for line in page.split("\n") if line.strip()] for page in pages]
    # Digits are masked, so that "Page 3 of 9" repeats; a set, so that a short page counts a line
    # once.
    edges = Counter(
        re.sub(r"\d+", "#", line) for lines in split for line in {*lines[:_EDGE], *lines[-_EDGE:]}
    )
    # Pages without text (scans) do not count, or a header on all others would miss its share.
    read = sum(1 for lines in split if lines)
    often = {
        line
        for line, count in edges.items()
        if count >= max(read * _REPEATED_SHARE, _PAGES_TO_TELL)
    }
    kept = []
    for page, lines in zip(pages, split, strict=True):
        if len(lines) <= 2 * _EDGE and len(lines) <= len(often):
            kept.append(page)  # nothing else would be left
            continue
        kept.append(_stripped(page.split("\n"), often))
    return kept


def _stripped(lines: list[str], often: set[str]) -> str:
    def is_furniture(line: str) -> bool:
        stripped = line.strip()
        return (
            not stripped
            or re.sub(r"\d+", "#", stripped) in often
            or bool(_PAGE_NUMBER.match(stripped))
        )

    first, last = 0, len(lines)
    while first < last and first <= _EDGE and is_furniture(lines[first]):
        first += 1
    edge = last
    while last > first and edge - last <= _EDGE and is_furniture(lines[last - 1]):
        last -= 1
    return "\n".join(lines[first:last]) if first < last else "\n".join(lines)
