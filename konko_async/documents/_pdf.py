"""PDF to text, by pypdf."""

from __future__ import annotations

import io
import logging

from pypdf import PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, WrongPasswordError

from konko_async.documents._document import DocumentError

__all__ = ["pdf_text"]

# Broken files are common, and it would tell of each oddity.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


def pdf_text(data: bytes, name: str) -> tuple[str, str | None]:
    """Return the text and the title of a PDF.

    Raises:
        DocumentError: it is encrypted, or broken.
    """
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted:
            reader.decrypt("")  # many have no password: they only forbid printing
        text = "\n\n".join(_page(page.extract_text()) for page in reader.pages)
        title = reader.metadata.title if reader.metadata else None
    except (FileNotDecryptedError, WrongPasswordError, DependencyError):
        raise _encrypted(name) from None
    except Exception as error:  # noqa: BLE001 - pypdf meets broken files with errors of any kind
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise DocumentError(f"{name} is a broken PDF: {what}", name=name, code="broken") from None
    return text, str(title).strip() or None if title else None


def _encrypted(name: str) -> DocumentError:
    return DocumentError(f"{name} is encrypted", name=name, code="encrypted")


def _page(text: str) -> str:
    """Join words that were broken at the end of a line."""
    lines: list[str] = []
    for line in text.split("\n"):
        stripped = line.rstrip()
        if (
            lines
            and lines[-1].endswith("-")
            and lines[-1][-2:-1].isalpha()
            and stripped[:1].islower()
        ):
            lines[-1] = lines[-1][:-1] + stripped
        else:
            lines.append(stripped)
    return "\n".join(lines)
