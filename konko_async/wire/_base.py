"""What every answer struct shares: unknown fields never fail, and stay reachable."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from konko_async.wire._json import decode_json

__all__ = ["Wire"]


class _Maker(Protocol):
    """Knows the JSON of structs that differ in one string only."""

    def json(self, string: bytes) -> bytes:
        """Return that with this JSON string in it."""


class _Raw:
    """Keeps the JSON as received beside a struct's fields: one slot, not a field.

    A slot is not compared or encoded with the struct, and costs 8 bytes; copies and pickles keep
    it. The JSON is decoded only when somebody asks.
    """

    __slots__ = ("_raw",)

    _raw: bytes | str | tuple[_Maker, bytes]

    @property
    def raw(self) -> Any:
        """The JSON as received, decoded: with the fields that this package has no name for.

        For a struct that did not come off the wire itself (made by hand, or put together from a
        stream), its own fields.
        """
        text = self._text()
        return msgspec.to_builtins(self) if text is None else decode_json(text)

    def __copy__(self) -> Any:
        return _rebuilt(type(self), self._values(), self._text())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self._values(), self._text())

    def _text(self) -> bytes | str | None:
        """Return the JSON as received, None where there is none."""
        raw: bytes | str | tuple[_Maker, bytes] | None = getattr(self, "_raw", None)
        if isinstance(raw, tuple):
            maker, string = raw
            return maker.json(string)
        return raw

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__struct_fields__)  # type: ignore[attr-defined]


def _rebuilt(kind: Any, values: tuple[Any, ...], raw: Any) -> Any:
    struct = kind(*values)
    if raw is not None:
        struct._raw = raw  # noqa: SLF001 - the slot above
    return struct


# gc=False: answers hold strings, numbers and lists of such structs; no cycle can form.
class Wire(_Raw, msgspec.Struct, gc=False):
    """Base of the answer structs."""
