"""What every answer struct shares: unknown fields never fail, and stay reachable."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Wire"]


class _Raw:
    """Keeps the JSON as received beside a struct's fields: one slot, not a field.

    A slot is not compared, copied or encoded with the struct, and costs 8 bytes. The JSON is
    decoded only when somebody asks.
    """

    __slots__ = ("_raw",)

    _raw: bytes | str

    @property
    def raw(self) -> Any:
        """The JSON as received, decoded: with the fields that this package has no name for.

        For a struct that did not come off the wire itself (made by hand, or put together from a
        stream), its own fields.
        """
        try:
            text = self._raw
        except AttributeError:
            return msgspec.to_builtins(self)
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        return msgspec.json.decode(text)


# gc=False: answers hold strings, numbers and lists of such structs; no cycle can form.
class Wire(_Raw, msgspec.Struct, gc=False, omit_defaults=True):
    """Base of the answer structs."""
