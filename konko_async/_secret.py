"""A key that does not show itself."""

from __future__ import annotations

import hashlib
from typing import NoReturn, TypeVar

from konko_async.errors import ConfigurationError

__all__ = ["Secret", "check_header_value", "masked"]

T = TypeVar("T")

_LAST = "\xff"  # of Latin-1
_CONTROL = frozenset(map(chr, range(32))) | {"\x7f"}


def check_header_value(name: str, value: object) -> str:
    """Return ``value``, its repr redacted, if it may stand in an HTTP header (RFC 9110, 5.5).

    It is never echoed, and no frame of ours holds it bare.

    Raises:
        ConfigurationError: not a string, or it holds CR, LF, NUL or another control character, or
            characters beyond Latin-1.
    """
    value = masked(value)
    if not isinstance(value, str):
        raise ConfigurationError(f"{name} must be a string, not {type(value).__name__}")
    if not _CONTROL.isdisjoint(value.replace("\t", "")):
        raise ConfigurationError(f"{name} holds a control character (a line break, perhaps?)")
    place = next((place for place, c in enumerate(value) if c > _LAST), None)
    if place is not None:
        raise ConfigurationError(
            f"{name} holds a character that HTTP headers cannot carry, at {place}"
        )
    return value


class _Masked(str):
    """A header value whose repr hides it.

    aiohttp keeps the headers in local variables of suspended frames; a traceback with locals
    shows those by ``repr``. The value on the wire is made by ``str()``, which stays true.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "'<redacted>'"


def masked(value: T) -> T:
    """Return a string whose repr is redacted, and anything else as it is."""
    return _Masked(value) if isinstance(value, str) else value  # type: ignore[return-value]  # a str


class Secret:
    """Holds a key; its repr, str, format and pickle do not show it.

    Attributes:
        fingerprint: eight hex digits of the key's BLAKE2b hash, to tell keys apart in limits.
    """

    __slots__ = ("_value", "fingerprint")

    def __init__(self, value: str, *, name: str = "the API key") -> None:
        value = masked(value)  # at once: a traceback may show the locals of every frame
        value = masked(check_header_value(name, value).strip())
        if not value:
            raise ConfigurationError(f"{name} is empty")
        self._value = value
        self.fingerprint = hashlib.blake2b(value.encode(), digest_size=4).hexdigest()

    def header(self, prefix: str = "") -> str:
        """Return the value for a header; its repr is redacted too."""
        return _Masked(prefix + self._value)

    def scrub(self, text: bytes) -> bytes:
        """Return ``text`` with every occurrence of the key redacted."""
        return text.replace(self._value.encode(), b"<redacted>")

    def __repr__(self) -> str:
        return "Secret('<redacted>')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: read the key again where it is needed")
