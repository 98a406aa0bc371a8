"""Lines of a journal: each begins with the CRC-32 of the rest, so that a torn one is noticed."""

from __future__ import annotations

import binascii
from typing import Final

__all__ = ["may_be_torn", "sealed", "unsealed"]

_SEAL: Final = 9  # eight digits and a space


def sealed(content: bytes) -> bytes:
    """Return a line, with its line break."""
    return b"%08x %b\n" % (binascii.crc32(content), content)


def unsealed(line: bytes) -> bytes | None:
    """Return the content of a line without its line break; None if it is torn or damaged."""
    content = line[_SEAL:]
    return content if line[:_SEAL] == b"%08x " % binascii.crc32(content) else None


def may_be_torn(line: bytes, begins: bytes) -> bool:
    """Whether a first line that does not fit its sum may be one of ours, torn or damaged.

    Args:
        line: without its line break.
        begins: how the content of a first line of ours begins.
    """
    digits, content = line[: _SEAL - 1], line[_SEAL : _SEAL + len(begins)]
    ours = all(digit in b"0123456789abcdef" for digit in digits) and begins.startswith(content)
    return ours or not line.strip(b"\0")  # zeros: the file had grown when the power went
