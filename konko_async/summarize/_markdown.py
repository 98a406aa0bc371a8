"""Renders summaries as Markdown: front matter, titles, links to the documents."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec

from konko_async.summarize._summary import Summary

__all__ = [
    "MarkdownPlace",
    "file_names",
    "index_page",
    "one_page",
    "summary_page",
    "without_common_folder",
]

_MARKS: Final = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]<>#|"})
# What no file system, shell or Markdown link stumbles over.
_UNSAFE: Final = re.compile(r"[^\w.()+-]+")
# What JSON may hold as it is, but YAML 1.1 may not, or takes for the end of a line.
_UNPRINTED: Final = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LONGEST_NAME: Final = 200  # bytes; file systems take 255, with the ending and a number


class MarkdownPlace(msgspec.Struct, frozen=True):
    """Where a page will be: links to documents are relative to it.

    Attributes:
        folder: of the page; None for a pipe: no links, no front matter.
    """

    folder: Path | None = None

    def link(self, document: str) -> str | None:
        """Return the address of a document that is a file, as seen from the page; or None."""
        if self.folder is None:
            return None
        try:
            if not Path(document).is_file():  # a line of a file, or a document of the caller's
                return None
            relative = os.path.relpath(document, self.folder)
        except (OSError, ValueError):  # another drive; a name that no file can have
            return None
        return quote(Path(relative).as_posix(), safe="/")


def one_page(
    summaries: Iterable[Summary], digest: Summary | None, place: MarkdownPlace
) -> Iterator[str]:
    """Yield a page of all summaries, with the digest at its head."""
    told = list(summaries)
    yield _head(told, place) + "# Summaries\n"
    if digest is not None:
        yield f"\n{_about(digest, place)}{_text(digest)}\n"
    for entry in told:
        yield f"\n## {_title(entry)}\n\n{_about(entry, place)}{_text(entry)}\n"


def summary_page(entry: Summary, place: MarkdownPlace) -> str:
    """Return a page of one summary."""
    matter = {
        "title": entry.title or entry.document,
        "source": entry.document,
        "format": entry.format,
        "characters": entry.characters,
        "parts": entry.parts,
        "read": entry.read,
        "cut": entry.cut,
        "warnings": list(entry.warnings) or None,
        "error": entry.error,
    }
    about = _about(entry, place)
    return f"{_front_matter(matter)}# {_title(entry)}\n\n{about}{_text(entry)}\n"


def index_page(
    summaries: Sequence[Summary], names: Sequence[str], digest: Summary | None
) -> Iterator[str]:
    """Yield the page that lists the pages of all summaries, with the digest at its head.

    Args:
        summaries: of the documents.
        names: of their pages, in the same order.
        digest: of all of them, or None.
    """
    yield _head(summaries, MarkdownPlace(Path())) + "# Summaries\n"
    if digest is not None:
        yield f"\n{_about(digest, MarkdownPlace())}{_text(digest)}\n"
    yield "\n"
    for entry, name in zip(summaries, names, strict=True):
        failed = " (no summary)" if entry.error is not None else ""
        yield f"- [{_title(entry)}]({quote(name)}){failed}\n"


def file_names(summaries: Iterable[Summary]) -> list[str]:
    """Return a name for the page of each document: its own without their common folder, flat.

    Names are unique, also where the file system ignores case, and none of them leads elsewhere.
    """
    documents = [entry.document.replace("\\", "/") for entry in summaries]
    taken, names = {"index.md"}, []
    for rest in without_common_folder(documents):
        stem = _UNSAFE.sub("_", rest.replace("/", "-")).lstrip(".-_")
        stem = stem.encode()[:_LONGEST_NAME].decode(errors="ignore") or "document"
        name, number = f"{stem}.md", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}.md"
        taken.add(name.casefold())
        names.append(name)
    return names


def without_common_folder(documents: Sequence[str]) -> list[str]:
    """Return names without the folder that all have in common.

    Args:
        documents: paths with ``/``, as the names of documents are.
    """
    folders = [name.split("/")[:-1] for name in documents]
    depth = 0
    while folders and all(
        folder[depth : depth + 1] == folders[0][depth : depth + 1] != [] for folder in folders
    ):
        depth += 1
    return ["/".join(name.split("/")[depth:]) for name in documents]


def _head(summaries: Sequence[Summary], place: MarkdownPlace) -> str:
    if place.folder is None:
        return ""
    failed = sum(entry.error is not None for entry in summaries)
    return _front_matter(
        {"title": "Summaries", "documents": len(summaries), "failed": failed or None}
    )


def _front_matter(fields: Mapping[str, object]) -> str:
    """Return fields as YAML; JSON, whose values are YAML too, has one way to quote."""
    lines = (
        f"{name}: {_UNPRINTED.sub(_escape, json.dumps(value, ensure_ascii=False))}\n"
        for name, value in fields.items()
        if value is not None
    )
    return f"---\n{''.join(lines)}---\n\n"


def _escape(character: re.Match[str]) -> str:
    return f"\\u{ord(character[0]):04x}"


def _title(entry: Summary) -> str:
    return " ".join((entry.title or entry.document).split()).translate(_MARKS)


def _about(entry: Summary, place: MarkdownPlace) -> str:
    """Return the line below the title: the document's name and link, and what is to be known."""
    about = []
    name = entry.document.replace("`", "'").translate(_MARKS)
    if link := place.link(entry.document):
        about.append(f"[{name}]({link})")
    elif entry.title or entry.format == "digest":
        about.append(name)
    if entry.parts > 1 and entry.format != "digest":
        about.append(f"{entry.parts} parts")
    if entry.read == "opening":
        about.append("its opening was read")
    if entry.cut:
        about.append("the summary was cut" if entry.cut == "length" else "filtered by the server")
    about += [warning.translate(_MARKS) for warning in entry.warnings]
    return f"*{', '.join(about)}*\n\n" if about else ""


def _text(entry: Summary) -> str:
    if entry.error is None:
        return (entry.summary or "").strip()
    return f"**No summary:** {entry.error['message'].translate(_MARKS)}"
