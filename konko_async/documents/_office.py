"""Converts office formats, e-books, Outlook messages and notebooks to Markdown by kreuzberg."""

from __future__ import annotations

import contextlib
import io
import zipfile
from typing import Any, Final

import kreuzberg

from konko_async.documents._document import DocumentError
from konko_async.documents._second_look.packages import (
    epub_text,
    missing_share,
    odt_text,
    slide_notes,
)
from konko_async.documents._second_look.rtf import rtf_text

__all__ = ["NAMES", "office_text"]

NAMES: Final = {
    "docx": ("Word", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    "doc": ("Word 97", "application/msword"),
    "pptx": (
        "PowerPoint",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ),
    "xlsx": ("Excel", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    "odt": ("OpenDocument text", "application/vnd.oasis.opendocument.text"),
    "ods": ("OpenDocument spreadsheet", "application/vnd.oasis.opendocument.spreadsheet"),
    "rtf": ("RTF", "application/rtf"),
    "epub": ("EPUB", "application/epub+zip"),
    "msg": ("Outlook message", "application/vnd.ms-outlook"),
    "notebook": ("Jupyter notebook", "application/x-ipynb+json"),
}
"""For each format, what people call it, and its media type."""

# Bytes unpacked: a bomb of a few kilobytes unpacks to gigabytes, and XML takes ten times as much.
_LARGEST: Final = 64 * 2**20
_LOST: Final = 0.005  # share of words; hyphens and fields may be counted in another way
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # what Office encrypts is wrapped in this
_ZIPPED: Final = frozenset({"docx", "pptx", "xlsx", "odt", "ods", "epub"})
_TEXTS: Final = (".xml", ".rels", ".html", ".xhtml", ".htm")


def office_text(data: bytes, name: str, kind: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Return the text of a document as Markdown, its title, and warnings.

    Raises:
        DocumentError: it is encrypted, broken, or unpacks to too much.
    """
    called, media_type = NAMES[kind]
    if kind in _ZIPPED:
        # Before the size check, which would report a broken archive; the user needs to hear that
        # the file is encrypted.
        if data.startswith(_OLE):
            raise DocumentError(
                f"{name} is encrypted, or in Office's old format", name=name, code="encrypted"
            )
        _check_size(data, name, called)
    # No cache: kreuzberg's is a folder on disk, where texts of documents would stay behind.
    config = kreuzberg.ExtractionConfig(output_format="markdown", use_cache=False)
    try:
        result: Any = kreuzberg.extract_bytes_sync(data, media_type, config)
    # A panic of its Rust code is no Exception, and would end this process.
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            return _after_panic(data, name, kind)
        if not isinstance(error, kreuzberg.KreuzbergError):
            raise
        what = " ".join(str(error).split())[:200]
        code = "encrypted" if "password" in what.lower() or "encrypt" in what.lower() else "broken"
        raise DocumentError(
            f"{name} is a broken {called} file: {what}", name=name, code=code
        ) from None
    title = result.metadata.get("title")
    told = [
        str(getattr(warning, "message", warning)) for warning in result.processing_warnings or ()
    ]
    text = _whole(result.content, data, name, kind)
    return text, str(title).strip() or None if title else None, tuple(told)


def _whole(text: str, data: bytes, name: str, kind: str) -> str:
    """Return a text, or what we read ourselves if words of that are missing in it."""
    # A second look costs a fraction of the first, and what is lost is not said otherwise.
    with contextlib.suppress(KeyError, zipfile.BadZipFile, RuntimeError, DocumentError):
        if kind in {"odt", "epub", "rtf"}:
            if kind == "rtf":
                seen = rtf_text(data)
            else:
                seen = odt_text(data) if kind == "odt" else epub_text(data, name)[0]
            return seen if missing_share(text, seen) > _LOST else text
        if kind == "pptx":
            notes = slide_notes(data)
            return f"{text}\n\n## Notes\n\n{notes}" if notes else text
    return text


def _after_panic(data: bytes, name: str, kind: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Read a document at which kreuzberg panicked."""
    if kind == "epub":
        with contextlib.suppress(KeyError, zipfile.BadZipFile):
            return *epub_text(data, name), ()
    raise DocumentError(
        f"{name} cannot be read as {NAMES[kind][0]}: kreuzberg panicked", name=name, code="broken"
    )


def _check_size(data: bytes, name: str, called: str) -> None:
    """Refuse archives that unpack to too much text; pictures in them are not unpacked."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise DocumentError(
            f"{name} is a broken {called} file: {error}", name=name, code="broken"
        ) from None
    size = sum(entry.file_size for entry in entries if entry.filename.lower().endswith(_TEXTS))
    if size > _LARGEST:
        raise DocumentError(
            f"{name} unpacks to {size / 2**20:.0f} MiB of text; at most {_LARGEST >> 20} are read",
            name=name,
            code="too_large",
        )
