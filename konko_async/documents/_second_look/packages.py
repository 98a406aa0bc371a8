"""Reads EPUB, OpenDocument and the notes of slides from the XML in their packages.

For where kreuzberg fails or loses text: 4.10 panics at tables of contents that are not in ASCII,
skips chapters whose names are escaped, drops cells of OpenDocument's tables, and reads no notes.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections import Counter
from html import unescape
from typing import Final
from urllib.parse import unquote

from konko_async.documents._html import html_markdown, html_text

__all__ = ["epub_text", "missing_share", "odt_text", "slide_notes"]

_ITEM: Final = re.compile(r"<(?:\w+:)?item\b([^>]{0,2000})>")
_IN_ORDER: Final = re.compile(r"<(?:\w+:)?itemref\b([^>]{0,2000})>")
_ATTRIBUTE: Final = re.compile(r"""([\w:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_ROOT: Final = re.compile(r"""<(?:\w+:)?rootfile\b[^>]{0,500}\bfull-path\s*=\s*["']([^"']+)""")
_TITLE: Final = re.compile(r"<(?:\w+:)?title\b[^>]{0,500}>([^<]{1,1000})<")
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
# What a person does not see: deleted text, comments, what stands in for objects.
_UNSEEN: Final = ("text:tracked-changes", "office:annotation", "office:binary-data", "svg:desc")
# Possessive, and an attribute has no "<" in XML: linear time, whatever is not closed.
_TAG: Final = re.compile(r"""<(/?)([\w:-]++)((?:[^<>"']++|"[^"<]*"|'[^'<]*')*+)>""")
_HTML: Final = {
    "text:p": "p",
    "text:list": "ul",
    "text:list-item": "li",
    "table:table": "table",
    "table:table-row": "tr",
    "table:table-cell": "td",
}
_CHAPTERS: Final = (".xhtml", ".html", ".htm", ".xml")  # whose sizes have been checked
_NOTES: Final = re.compile(r'Target="\.\./notesSlides/(notesSlide\d{1,9}\.xml)"')
_BODY: Final = re.compile(r'<p:ph\b[^>]{0,200}\btype="body"')
_RUN: Final = re.compile(r"<a:t>([^<]*)</a:t>")
_SPACES: Final = 100  # that one tag may stand for


def epub_text(data: bytes, name: str) -> tuple[str, str | None]:
    """Return an e-book's chapters in their order as Markdown, and its title.

    Raises:
        DocumentError: a chapter is not text.
        KeyError: the package has no list of its contents; or zipfile's errors.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        root = _ROOT.search(_xml(archive, "META-INF/container.xml"))
        if root is None:
            raise KeyError("rootfile")
        package = _xml(archive, root[1])
        items = [_attributes(found[1]) for found in _ITEM.finditer(package)]
        places = {item["id"]: item for item in items if "id" in item and "href" in item}
        chapters, there = [], set(archive.namelist())
        for found in _IN_ORDER.finditer(package):
            item = places.get(_attributes(found[1]).get("idref", ""))
            if item is None or "nav" in item.get("properties", "").split():
                continue
            path = posixpath.join(posixpath.dirname(root[1]), unquote(item["href"]))
            # A chapter that the list names and the package lacks loses itself alone.
            if path in there and path.lower().endswith(_CHAPTERS):
                chapters.append(html_text(archive.read(path), name)[0].strip())
    title = _TITLE.search(package)
    return "\n\n".join(filter(None, chapters)), unescape(title[1]).strip() if title else None


def odt_text(data: bytes) -> str:
    """Return an OpenDocument text as Markdown.

    Raises:
        KeyError: the package has no content; or zipfile's errors.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = _xml(archive, "content.xml")
    for unseen in _UNSEEN:
        content = _without(content, unseen)
    body = content.partition("<office:body")[2].partition(">")[2]
    return html_markdown(f"<html><body>{_TAG.sub(_as_html, body)}</body></html>")[0]


def slide_notes(data: bytes) -> str:
    """Return the speaker's notes of a presentation, each with the number of its slide.

    Raises:
        KeyError: a part is missing; or zipfile's errors.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        there = set(archive.namelist())
        found = []
        for number in range(1, len(there)):
            slide = f"ppt/slides/_rels/slide{number}.xml.rels"
            if slide not in there:
                break
            target = _NOTES.search(_xml(archive, slide))
            path = None if target is None else f"ppt/notesSlides/{target[1]}"
            if path in there:
                paragraphs = [
                    unescape("".join(_RUN.findall(paragraph)))
                    for shape in _xml(archive, path).split("</p:sp>")
                    if _BODY.search(shape) is not None  # not the number and the date of the page
                    for paragraph in shape.split("</a:p>")
                ]
                text = "\n\n".join(filter(None, map(str.strip, paragraphs)))
                if text:
                    found.append(f"Slide {number}: {text}")
    return "\n\n".join(found)


def _without(content: str, tag: str) -> str:
    """Drop elements of a kind, in linear time whatever is not closed."""
    kept, at = [], 0
    while (begin := content.find(f"<{tag}", at)) >= 0:
        kept.append(content[at:begin])
        close = content.find(">", begin)
        end = content.find(f"</{tag}>", begin)
        if close > 0 and content[close - 1] == "/":
            at = close + 1
        elif end >= 0:
            at = end + len(tag) + 3
        else:
            at = begin
            break
    return "".join([*kept, content[at:]])


def missing_share(text: str, wanted: str) -> float:
    """Return the share of a text's words that another one lacks, counted with repetitions."""
    theirs, ours = (Counter(_WORD.findall(each)) for each in (wanted, text))
    return (theirs - ours).total() / max(theirs.total(), 1)


def _xml(archive: zipfile.ZipFile, path: str) -> str:
    return archive.read(path).decode("utf-8", "replace")


def _attributes(text: str) -> dict[str, str]:
    return {found[1]: unescape(found[2] or found[3] or "") for found in _ATTRIBUTE.finditer(text)}


def _as_html(tag: re.Match[str]) -> str:
    """Return the HTML of a tag; of one that says nothing about form, nothing."""
    closing, name, attributes = tag.groups()
    if name == "text:h":
        level = _attributes(attributes).get("text:outline-level", "1")
        # A closing tag knows no level: HTML ends a heading with any of them.
        return "</h1>" if closing else f"<h{level if level in '123456' else 6}>"
    if name == "text:line-break":
        return "<br/>"
    if name == "text:tab":
        return "\t"
    if name == "text:s":
        number = _attributes(attributes).get("text:c", "")
        return " " * (min(int(number), _SPACES) if number.isdecimal() else 1)
    html = _HTML.get(name)
    if html is None:
        return ""
    empty = attributes.endswith("/")
    return f"<{html}></{html}>" if empty else f"<{closing}{html}>"
