"""Word's .docx to text, by python-docx."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import docx
from docx.text.paragraph import Paragraph

from konko_async.documents._document import DocumentError

if TYPE_CHECKING:
    from docx.table import Table

__all__ = ["docx_text"]

_LARGEST = 256 * 2**20  # bytes unpacked: a bomb of a few kilobytes unpacks to gigabytes
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # what Word encrypts is wrapped in this


def docx_text(data: bytes, name: str) -> tuple[str, str | None]:
    """Return the text and the title of a .docx file.

    Raises:
        DocumentError: it is encrypted, broken, or unpacks to too much.
    """
    if data.startswith(_OLE):
        raise DocumentError(
            f"{name} is encrypted, or in Word's old format", name=name, code="encrypted"
        )
    try:
        _check_size(data, name)
        document = docx.Document(io.BytesIO(data))
        text = "\n\n".join(_blocks(document.iter_inner_content()))
        title = document.core_properties.title
    except DocumentError:
        raise
    except Exception as error:  # noqa: BLE001 - python-docx meets broken files with errors of any kind
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise DocumentError(f"{name} is a broken .docx: {what}", name=name, code="broken") from None
    return text, title.strip() or None if title else None


def _check_size(data: bytes, name: str) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _LARGEST:
        raise DocumentError(f"{name} unpacks to {size} bytes", name=name, code="too_large")


def _blocks(content: Iterable[Paragraph | Table]) -> Iterator[str]:
    for block in content:
        if isinstance(block, Paragraph):
            if block.text.strip():
                yield block.text.strip()
        else:
            rows = (_row(cell.text for cell in row.cells) for row in block.rows)
            if table := "\n".join(row for row in rows if row.strip()):
                yield table


def _row(cells: Iterable[str]) -> str:
    """Return the cells of a row; merged ones are told several times by python-docx."""
    kept: list[str] = []
    for cell in cells:
        text = " ".join(cell.split())
        if not kept or kept[-1] != text:
            kept.append(text)
    return "\t".join(kept)
