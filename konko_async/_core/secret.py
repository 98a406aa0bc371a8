"""Wraps keys so that repr, str, format and pickle do not show them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NoReturn, TypeVar

from konko_async.errors import ConfigurationError

__all__ = ["Secret", "check_header_value", "masked", "masked_keyword"]

T = TypeVar("T")

# RFC 9110, 5.5: one byte per character, and no line breaks, which would let a value add headers.
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
    if value.isascii() and value.isprintable():  # nearly all are: two looks in C
        return value
    if not _CONTROL.isdisjoint(value.replace("\t", "")):
        raise ConfigurationError(f"{name} holds a control character (a line break, perhaps?)")
    # The position helps to find a typographic quote or dash, without a look at the key.
    position = next((at for at, c in enumerate(value) if c > _LAST), None)
    if position is not None:
        raise ConfigurationError(
            f"{name} holds a character that HTTP headers cannot carry, at {position}"
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
    if not isinstance(value, str) or type(value) is _Masked:
        return value
    return _Masked(value)  # type: ignore[return-value]  # a str is a T where a str came in


_KEYED = frozenset(
    {"default_headers", "default_query", "extra_headers", "extra_query", "headers", "query"}
)


def masked_keyword(name: str, value: T) -> T:
    """Return a keyword's value; headers and query parameters with the reprs of theirs redacted."""
    if name in _KEYED and isinstance(value, Mapping):
        return {each: masked(text) for each, text in value.items()}  # type: ignore[return-value]  # a mapping where one came in
    return value


class Secret:
    """Holds a key; its repr, str, format and pickle do not show it.

    Attributes:
        fingerprint: eight hex digits of the key's BLAKE2b hash, to tell keys apart in limits.
        digest: 32 bytes of it, to tell keys apart where a collision would show one tenant what
            another one received.
    """

    __slots__ = ("_value", "digest", "fingerprint")

    def __init__(self, value: str, *, name: str = "the API key") -> None:
        value = masked(value)  # at once: a traceback may show the locals of every frame
        value = masked(check_header_value(name, value).strip())
        if not value:
            raise ConfigurationError(f"{name} is empty")
        self._value = value
        self.fingerprint = hashlib.blake2b(value.encode(), digest_size=4).hexdigest()
        self.digest = hashlib.blake2b(value.encode(), digest_size=32).digest()

    def header(self, prefix: str = "") -> str:
        """Return the value for a header; its repr is redacted too."""
        return _Masked(prefix + self._value)

    def __repr__(self) -> str:
        return "Secret('<redacted>')"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: read the key again where it is needed")
