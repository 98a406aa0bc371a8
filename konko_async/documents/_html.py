"""Converts HTML to Markdown by html-to-markdown: the page's text without the navigation."""

from __future__ import annotations

import re
from html import unescape
from typing import Final

from html_to_markdown import ConversionOptions, InlineDataMedia, PreprocessingOptions, convert

from konko_async.documents._text import Decoded, decode

__all__ = ["html_markdown", "html_text"]

_HEAD = 4096
_CHARSET = re.compile(
    rb"<(?:meta|\?xml)\b[^>]{0,500}?(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]{1,40})",
    re.IGNORECASE,
)
# html-to-markdown takes a time that grows with the square of the length of such a run.
_BLANKS = re.compile(r"(?:&nbsp;|&#160;|&#[xX]0*[aA]0;|\xa0){32,}")
_TITLE = re.compile(r"<title\b[^>]{0,200}>([^<]{0,1000})", re.IGNORECASE)
_HIDDEN: Final = [
    *("script", "style", "template", "noscript", "svg", "canvas", "iframe", "object"),
    *("[hidden]", '[aria-hidden="true"]', '[style*="display:none"]', '[style*="display: none"]'),
    *('[style*="visibility:hidden"]', '[style*="visibility: hidden"]'),
]
# Navigation and controls; what a page is about stands elsewhere.
_AROUND: Final = [
    *("nav", "footer", "aside", "button", "select", "dialog", "menu"),
    *('[role="navigation"]', '[role="contentinfo"]', '[role="banner"]', '[role="search"]'),
]
# What is left out must not be most of the page: then it was the page.
_LEAST_KEPT = 0.3


def html_text(
    data: bytes, name: str = "the page", *, forced: str | None = None, label: str | None = None
) -> tuple[str, str | None, Decoded]:
    """Return a page as Markdown, its title, and how its bytes were decoded.

    Args:
        data: of the page. The encoding is that of a byte order mark, of a declaration, or
            guessed.
        name: for errors.
        forced: the encoding to use, whatever the page says.
        label: the charset that came with the page, as in a header; it comes before the page's own.

    Raises:
        DocumentError: it is not text.
    """
    declared = _CHARSET.search(data[:_HEAD])
    if label is None and declared:
        label = declared[1].decode("ascii", "replace")
    decoded = decode(data, name, declared=label, forced=forced)
    text, title = html_markdown(decoded.text)
    return text, title, decoded


def html_markdown(page: str) -> tuple[str, str | None]:
    """Return a page as Markdown, and its title.

    Navigation, footers and asides are left out, unless most of the page stands in them.
    """
    page = _BLANKS.sub("&nbsp;", page)
    # Converted twice, as only the lengths of both texts show whether the page was in its `<nav>`.
    whole = _converted(page, _HIDDEN)
    best = _converted(page, [*_HIDDEN, *_AROUND])
    title = _TITLE.search(page)
    words = " ".join(unescape(title[1]).split()) if title else ""
    return (best if len(best) >= len(whole) * _LEAST_KEPT else whole), words or None


def _converted(page: str, left_out: list[str]) -> str:
    options = ConversionOptions(
        exclude_selectors=left_out,
        extract_metadata=False,
        inline_data_media=InlineDataMedia.ALT_TEXT_ONLY,
        # Its own clean-up takes forms for controls; whole pages stand in them.
        preprocessing=PreprocessingOptions(
            enabled=False, remove_forms=False, remove_navigation=False
        ),
    )
    return convert(page, options).content or ""
