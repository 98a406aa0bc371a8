"""Decodes bytes of unknown encoding to text, and counts the characters it had to replace."""

from __future__ import annotations

import codecs
import re
from typing import Final, NamedTuple

from konko_async.documents._document import DocumentError
from konko_async.documents._guess import guess_encoding, guess_wide, seven_bit

__all__ = ["Decoded", "decode", "lookup", "tidy"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Labels that stand for a superset: https://encoding.spec.whatwg.org/#names-and-labels
_SUPERSETS: Final = {
    "ascii": "cp1252",
    "latin_1": "cp1252",
    "iso8859_1": "cp1252",
    "iso8859_9": "cp1254",
    "iso8859_11": "cp874",
    "tis_620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
# What the labels of pages and mails are called elsewhere than in Python.
_LABELS: Final = {
    "x-sjis": "cp932",
    "ks_c_5601-1987": "cp949",
    "x-gbk": "gb18030",
    "x-x-big5": "big5",
}
_SAMPLE: Final = 256 * 1024
# C0 without tab, line feed, form feed, carriage return and escape.
_CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_FEW = 0.005
_UNSEEN = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
_GAP = re.compile(r"\n{3,}")
# A text is taken as UTF-8 if it has many good characters beyond ASCII for each bad one.
_GOOD_PER_BAD = 10
# Declared, these come before UTF-8: their bytes are ASCII, and so always UTF-8 too.
_SEVEN_BIT: Final = ("iso2022_", "hz", "utf_7")


class Decoded(NamedTuple):
    """A text, the encoding it was read in, and how many characters had to be replaced."""

    text: str
    encoding: str
    replaced: int = 0


def decode(
    data: bytes, name: str, *, declared: str | None = None, forced: str | None = None
) -> Decoded:
    """Return the text of ``data``.

    In this order: the encoding that the user asked for; a byte order mark; escape sequences (as
    of ISO-2022-JP); UTF-8, if it can be but for a stray byte; what the document declares; a guess.

    Args:
        data: the bytes.
        name: of the document, for errors.
        declared: the label that the document gives itself, such as ``gb2312``. It stands for the
            superset that browsers take it for.
        forced: the encoding to use, whatever the bytes look like.

    Raises:
        DocumentError: it is not text.
    """
    if forced is not None:
        return _replacing(data, forced)
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _replacing(data, encoding)
    label = lookup(declared)
    switched = label if label is not None and label.startswith(_SEVEN_BIT) else seven_bit(data)
    if switched is not None:
        return _replacing(data, switched)
    # Control bytes in number are either a binary file or UTF-16 without a mark; only the pattern of
    # its zero bytes tells the two apart. Up to half a percent of them is tolerated.
    controls = len(_CONTROLS.findall(data[:_SAMPLE]))
    if controls and controls >= _FEW * len(data[:_SAMPLE]):
        wide = guess_wide(data)
        if wide is None:
            raise DocumentError(f"{name} is not text", name=name, code="binary")
        return _replacing(data, wide)
    if label is not None and label.startswith(("utf_16", "utf_32")):
        label = None  # a page whose declaration could be read is not UTF-16
    return _utf_8(data) or (_replacing(data, label) if label else _guessed(data, name))


def lookup(label: str | None) -> str | None:
    """Return the codec for a label as browsers understand it, or None if it is unknown."""
    if label is None:
        return None
    cleaned = label.strip().strip("\"'").lower()
    try:
        codec = codecs.lookup(_LABELS.get(cleaned, cleaned)).name.replace("-", "_")
    except (LookupError, ValueError):
        return None
    return _SUPERSETS.get(codec, codec)


def _replacing(data: bytes, encoding: str) -> Decoded:
    try:
        return Decoded(data.decode(encoding), encoding)
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
        return Decoded(text, encoding, text.count("\ufffd"))


def _utf_8(data: bytes) -> Decoded | None:
    try:
        return Decoded(data.decode(), "utf-8")
    except UnicodeDecodeError:
        pass
    # One stray byte, as from a pasted name, must not turn a UTF-8 document into mojibake.
    text = data.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    good = sum(not character.isascii() for character in text) - bad
    return Decoded(text, "utf-8", bad) if good >= bad * _GOOD_PER_BAD else None


def _guessed(data: bytes, name: str) -> Decoded:
    found = guess_encoding(data)
    if found is None:
        raise DocumentError(f"{name} is text in no known encoding", name=name, code="binary")
    return _replacing(data, _SUPERSETS.get(found, found))


def tidy(text: str) -> str:
    """Return the text with plain line ends, and without what nobody sees. Takes linear time."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n")
    text = _UNSEEN.sub("", text)
    # Line by line: a pattern for blanks before a line end tries each run of blanks again and again.
    text = "\n".join(line.rstrip(" \t\xa0") for line in text.split("\n"))
    return _GAP.sub("\n\n", text).strip()
