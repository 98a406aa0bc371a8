"""Guesses the encoding of bytes that say nothing about it."""

from __future__ import annotations

import codecs
import re
from importlib import import_module
from typing import Any, Final

__all__ = ["guess_encoding", "guess_wide", "seven_bit"]

_SAMPLE: Final = 256 * 1024
_LONGEST_LINE: Final = 64 * 1024
_HIGH: Final = re.compile(rb"[\x80-\xff]")
_RUN: Final = re.compile(rb"[\x80-\xff]{3}")
# Escape sequences of RFC 1468, 1554, 1557 and 1922; a text that has them has no other encoding.
_JAPANESE: Final = re.compile(rb"\x1b\$[@B].*?\x1b\([BJ]", re.DOTALL)
_KOREAN: Final = re.compile(rb"\x1b\$\)C")
_HZ: Final = re.compile(rb"~\{(?:[\x21-\x77][\x21-\x7e])+~\}")  # RFC 1843
# Fewer bytes beyond ASCII than this say little to a statistic: a western text is likeliest, if it
# can be one. Measured by `python -m benchmarks.bench_encodings`.
_TOO_FEW: Final = 8
# What hardly stands in western texts: signs within a word, signs that Windows-1252 has for the
# letters of other encodings, a capital after a small letter, three letters with accents in a row.
_NOT_WESTERN: Final = re.compile(
    r"[^\W\d_][\u0080-\u00bf\u00d7\u00f7\u0192-\u02dc\u2020-\u203a\u20ac\u2122]+(?<![\u2019·])"
    r"[^\W\d_]"
    r"|[\u00b9\u00b3\u00bc\u00be\u00a4\u00a6\u00ac\u00b6\u00b8\u02c6\u02dc\u2020\u2021ƒÐðÞþÝýŠšŽž]|[a-zà-ÿ][À-Þ]|[À-ÿ]{3}"
)
# Encodings of DOS and of old Macs have their letters with accents where Windows-1252 has signs.
_LETTERS_BELOW_A0: Final = frozenset(
    {"cp437", "cp850", "cp852", "cp858", "cp860", "cp861", "cp863", "cp865", "mac_roman"}
    | {"mac_latin2", "mac_iceland", "mac_turkish", "hp_roman8"}
)
_ABOVE_C0: Final = re.compile(rb"[\xc0-\xd6\xd8-\xf6\xf8-\xff]")
_MOST: Final = 0.8
_WIDE: Final = ("utf_32_le", "utf_32_be", "utf_16_le", "utf_16_be")
_ZEROS: Final = 0.4
_READABLE: Final = 0.99
_MOSTLY: Final = 0.95
# The blocks of living scripts. In the other byte order, spaces, line ends and kana are in none.
_USUAL: Final = re.compile(
    r"[\t\n\r -~\u00a0-\u024f\u0370-\u06ff\u0900-\u0e7f\u10a0-\u10ff\u1780-\u17ff\u1e00-\u1fff"
    r"\u2010-\u2027\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff00-\uffef]"
)
_COMMON: Final = 0.9
# For charset-normalizer: among all of Python's encodings, an Arabic or Baltic one often "fits".
_CANDIDATES: Final = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874"),
    *("iso8859_2", "iso8859_5", "iso8859_7", "iso8859_15", "koi8_r", "koi8_u", "mac_roman"),
    *("cp437", "cp850", "cp866", "shift_jis", "cp932", "euc_jp", "gb18030", "big5", "big5hkscs"),
    *("cp949", "euc_kr", "johab", "utf_16_le", "utf_16_be"),
]


def seven_bit(data: bytes) -> str | None:
    """Return the codec of a text that switches character sets by escapes, else None."""
    if _JAPANESE.search(data):
        return "iso2022_jp_ext"
    if _KOREAN.search(data, 0, _SAMPLE):
        return "iso2022_kr"
    if data.isascii() and _HZ.search(data):
        try:
            text = data.decode("hz")
        except UnicodeDecodeError:
            return None
        # The letters of such runs would be rare ones if it were a text about "~{" and "~}".
        return "hz" if _share_of_common(text) else None
    return None


def _share_of_common(text: str) -> bool:
    beyond = [character for character in text if not character.isascii()]
    # The first level of GB 2312, the 3,755 most used characters, ends at D7 F9; punctuation
    # comes before.
    common = sum(b"\xa1\xa1" <= each.encode("gb2312") <= b"\xd7\xf9" for each in beyond)
    return common >= len(beyond) * _COMMON


def guess_wide(data: bytes) -> str | None:
    """Return the codec of UTF-16 or UTF-32 without a byte order mark, else None.

    Args:
        data: bytes with control bytes among them, which no other text has.
    """
    found = _width_four(data) or _zeros(data) or _likelier_order(data)
    if found not in _WIDE:
        return None
    text = data[:_SAMPLE].decode(found, "ignore")
    # Programs have many zeros too, and bytes at random are characters of every script, unassigned
    # ones among them.
    readable = sum(each.isprintable() or each.isspace() for each in text)
    return found if readable >= len(text) * _READABLE else None


def _width_four(data: bytes) -> str | None:
    for codec in ("utf_32_le", "utf_32_be"):
        try:
            data.decode(codec)
        except UnicodeDecodeError:
            continue
        # Of other bytes, not one group of four in a thousand is a code point.
        return codec
    return None


def _zeros(data: bytes) -> str | None:
    """Return UTF-16's byte order where every second byte is mostly zero, as in Latin script."""
    sample = data[:4096]
    half = max(len(sample) // 2, 1)
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if len(data) % 2 or max(even, odd) <= half * _ZEROS:
        return None
    return "utf_16_le" if odd > even else "utf_16_be"


def _likelier_order(data: bytes) -> str | None:
    """Return the byte order in which a text in other scripts has the more usual characters."""
    sample = data[: 4096 - len(data) % 2]
    shares = {}
    for codec in ("utf_16_le", "utf_16_be"):
        text = sample.decode(codec, "replace")
        shares[codec] = len(_USUAL.findall(text)) / max(len(text), 1)
    best = max(shares, key=shares.__getitem__)
    return best if not len(data) % 2 and shares[best] >= _MOSTLY else None


def guess_encoding(data: bytes) -> str | None:
    """Return the codec that a text is probably in; None if it is in none that is known.

    Args:
        data: bytes that are not UTF-8.
    """
    sample = _beyond_ascii(data)
    if len(_HIGH.findall(sample)) < _TOO_FEW and _may_be_western(sample):
        return "cp1252"
    found = _detected(sample)
    if found in _LETTERS_BELOW_A0 and _may_be_western(sample) and _letters_above_c0(sample):
        return "cp1252"
    if found is None and _RUN.search(sample) is None:
        return "cp1252"
    return found


def _may_be_western(sample: bytes) -> bool:
    try:
        text = sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return _NOT_WESTERN.search(text) is None


def _letters_above_c0(sample: bytes) -> bool:
    """Whether the bytes beyond ASCII are letters of Windows-1252: a German text has few others."""
    return len(_ABOVE_C0.findall(sample)) >= len(_HIGH.findall(sample)) * _MOST


def _detected(sample: bytes) -> str | None:
    try:
        detect: Any = import_module("chardet").detect  # rarely needed
    except ModuleNotFoundError:
        # Without the extra `docs`, what most environments have (requests brings it); it finds
        # fewer, see docs/explanation/documents.md.
        from charset_normalizer import from_bytes  # noqa: PLC0415 - rarely needed, slow to import

        best = from_bytes(sample, cp_isolation=_CANDIDATES).best()
        label = None if best is None else best.encoding
    else:
        label = detect(sample)["encoding"]
    if label is None:
        return None
    try:
        return codecs.lookup(label).name.replace("-", "_")
    except LookupError:
        return None


def _beyond_ascii(data: bytes) -> bytes:
    """Return the lines of the whole text that are not ASCII: only they show the encoding."""
    lines: list[bytes] = []
    size = 0
    for line in data.split(b"\n"):
        if line.isascii():
            continue
        if len(line) > _LONGEST_LINE:  # from its first byte beyond ASCII: no character is cut there
            first = _HIGH.search(line)
            line = line[first.start() if first else 0 :][:_LONGEST_LINE]  # noqa: PLW2901 - shortened
        lines.append(line)
        size += len(line)
        if size >= _SAMPLE:
            break
    return b"\n".join(lines)
