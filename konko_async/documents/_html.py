"""HTML to text, by Beautiful Soup."""

from __future__ import annotations

import warnings

from bs4 import BeautifulSoup, Comment, XMLParsedAsHTMLWarning
from bs4.element import CData, Declaration, Doctype, NavigableString, ProcessingInstruction, Tag

__all__ = ["html_text"]

_LEFT_OUT = ("script", "style", "template", "noscript", "svg", "canvas", "iframe", "head")
# Navigation; what a page is about stands elsewhere.
_AROUND = ("nav", "footer", "aside", "form", "button", "select", "dialog", "menu")
_BLOCKS = frozenset(
    {
        *("address", "article", "blockquote", "body", "details", "div", "dl"),
        *("fieldset", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "header"),
        *("hr", "main", "ol", "p", "pre", "section", "summary", "table", "ul"),
    }
)
_LINES = frozenset({"li", "dt", "dd", "tr", "caption", "figcaption"})
_CELLS = frozenset({"td", "th"})
_NOT_TEXT = (Comment, CData, Declaration, Doctype, ProcessingInstruction)
_MIN_MAIN = 200  # characters; a shorter <main> is a shell that a script would fill


def html_text(data: bytes) -> tuple[str, str | None, str | None]:
    """Return the text of a page, its title, and its encoding.

    Args:
        data: of the page; a byte order mark, ``<meta charset>`` or the bytes themselves tell
            the encoding.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML reads well enough as HTML
        soup = BeautifulSoup(data, "lxml")
    title = " ".join(soup.title.get_text().split()) if soup.title else None
    for tag in soup(list(_LEFT_OUT)):
        tag.decompose()
    whole = _text(soup)
    main = soup.find(["main", "article"]) if len(soup(["main", "article"])) == 1 else None
    for tag in soup(list(_AROUND)):
        tag.decompose()
    best = _text(main) if isinstance(main, Tag) else ""
    if len(best) < _MIN_MAIN:
        best = _text(soup)
    # A page that is nothing but a form or a list of links is better read whole.
    return best or whole, title or None, soup.original_encoding


def _text(root: Tag) -> str:
    """Return the text with an empty line between blocks, a line for each item of lists."""
    pieces: list[str] = []
    stack: list[object] = [root]
    while stack:  # not recursive: pages nest deeper than Python
        node = stack.pop()
        if isinstance(node, str) and not isinstance(node, NavigableString):
            pieces.append(node)
        elif isinstance(node, Tag):
            end = _end(node)
            if end:
                pieces.append(end)
            if node.name in _BLOCKS:
                stack.append(end)
            stack.extend(reversed(node.contents))
        elif isinstance(node, NavigableString) and not isinstance(node, _NOT_TEXT):
            kept = node.find_parent("pre") is not None
            pieces.append(str(node) if kept else _collapsed(str(node)))
    return _joined("".join(pieces))


def _collapsed(text: str) -> str:
    words = " ".join(text.split())
    if not words:
        return " "
    before = " " if text[0].isspace() else ""
    return f"{before}{words}{' ' if text[-1].isspace() else ''}"


def _end(tag: Tag) -> str:
    if tag.name == "br" or tag.name in _LINES:
        return "\n"
    if tag.name in _CELLS:
        return "\t"
    return "\n\n" if tag.name in _BLOCKS else ""


def _joined(text: str) -> str:
    lines = [line.strip() if not line.startswith("    ") else line.rstrip() for line in
             text.split("\n")]  # fmt: skip
    return "\n".join(lines).strip()
