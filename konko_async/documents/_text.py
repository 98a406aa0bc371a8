"""From bytes to text, whatever the encoding."""

from __future__ import annotations

import codecs
import re

from konko_async.documents._document import DocumentError

__all__ = ["decode", "tidy"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 256 * 1024
# C0 without tab, line feed, form feed and carriage return.
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_FEW = 0.005
_UNSEEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
_SPACES = re.compile(r"[ \t\xa0]+\n")
_GAP = re.compile(r"\n{3,}")


def decode(data: bytes, name: str) -> tuple[str, str]:
    """Return the text and the name of its encoding.

    A byte order mark decides; else UTF-8 if it can be; else what charset-normalizer finds most
    likely.

    Raises:
        DocumentError: it is no text.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace"), encoding
    sample = data[:_SAMPLE]
    controls = len(_CONTROLS.findall(sample))
    if not controls or controls < _FEW * len(sample):
        try:
            return data.decode(), "utf-8"
        except UnicodeDecodeError:
            pass
    return _guess(data, name, binary=controls >= _FEW * len(sample) and controls > 0)


def _guess(data: bytes, name: str, *, binary: bool) -> tuple[str, str]:
    if binary and not _maybe_utf16(data):
        raise DocumentError(f"{name} is not text", name=name, code="binary")
    from charset_normalizer import from_bytes  # noqa: PLC0415 - rarely needed, slow to import

    # Of a long text, samples are enough; the rest is decoded with what they show.
    found = from_bytes(data[:_SAMPLE]).best()
    if found is None:
        raise DocumentError(f"{name} is text in no known encoding", name=name, code="binary")
    return data.decode(found.encoding, "replace"), found.encoding


def _maybe_utf16(data: bytes) -> bool:
    """Whether every second byte is mostly zero, as in UTF-16 without a mark."""
    sample = data[:4096]
    half = max(len(sample) // 2, 1)
    return max(sample[::2].count(0), sample[1::2].count(0)) > half * 0.4 and len(data) % 2 == 0


def tidy(text: str) -> str:
    """Return the text with plain line ends, and without what nobody sees."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n")
    text = _UNSEEN.sub("", text)
    return _GAP.sub("\n\n", _SPACES.sub("\n", text)).strip()
