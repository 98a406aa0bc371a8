"""Merges the unknown fields of a stream's pieces; pure.

The rule is that of ``openai``'s own accumulation, with what servers were seen to do: strings are
joined, lists grow or are merged by the ``index`` of their entries, objects are merged, and of
anything else the last value counts. Strings that name rather than tell (``id``, ``type``, …) are
repeated by servers in each piece, and are not joined.
"""

from __future__ import annotations

import re
from typing import Any, Literal

__all__ = ["UnknownFields"]

Strings = Literal["join", "join unless repeated", "last"]

# Suffixes of names: strings such as an id are repeated in each piece, and joined would be wrong.
_LABEL = re.compile(
    r"(?:^|_)(?:id|type|format|role|index|name|object|model|status|reason|provider|version)$"
)


class UnknownFields:
    """The unknown fields of one object as they come in.

    Args:
        strings: what two strings of one field give. ``"join unless repeated"`` is for objects whose
            strings describe the answer rather than being part of it.
    """

    __slots__ = ("_fields", "_inner", "_strings")

    def __init__(self, strings: Strings = "join") -> None:
        self._strings: Strings = strings
        self._inner: Strings = "join" if strings == "join" else "last"
        self._fields: dict[str, Any] = {}

    def add(self, fields: dict[str, Any]) -> None:
        """Take in the next piece's fields."""
        for name, new in fields.items():
            if new is not None:
                self._fields[name] = self._merged(name, self._fields.get(name), new)

    def get(self, name: str) -> Any:
        """Return a field as far as it has come."""
        return _plain(self._fields.get(name))

    def result(self) -> dict[str, Any]:
        """Return the fields as far as they have come."""
        return {name: _plain(value) for name, value in self._fields.items()}

    def _merged(self, name: str, known: Any, new: Any) -> Any:
        if isinstance(new, str):
            return self._text(name, known, new)
        if isinstance(new, dict):
            if not isinstance(known, UnknownFields):
                known = UnknownFields(self._inner)
            known.add(new)
            return known
        # Inside an object that describes the answer, such as a usage, the last list counts.
        if isinstance(new, list) and self._strings != "last":
            if not isinstance(known, _Entries):
                known = _Entries(self._inner)
            known.add(new)
            return known
        return new

    def _text(self, name: str, known: Any, new: str) -> Any:
        if self._strings == "last" or _LABEL.search(name):
            # An empty string in a later piece does not erase what was said before.
            return new or known or new
        if not isinstance(known, _Text):
            known = _Text()
        # A signature comes once, or is repeated; what is left of it would be worth nothing.
        known.add(new, repeats=self._strings != "join" or name.endswith("signature"))
        return known


class _Text:
    """A string as it comes in; joined once, as that costs the square of the length otherwise."""

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: list[str] = []

    def add(self, new: str, *, repeats: bool) -> None:
        if not (repeats and self.parts == [new]):
            self.parts.append(new)


class _Entries:
    """A list as it comes in."""

    __slots__ = ("_by_index", "_strings", "entries")

    def __init__(self, strings: Strings) -> None:
        self._strings: Strings = strings
        self.entries: list[Any] = []
        self._by_index: dict[int, UnknownFields] = {}

    def add(self, new: list[Any]) -> None:
        for entry in new:
            if not isinstance(entry, dict):
                self.entries.append(entry)
                continue
            index = entry.get("index")
            known = self._by_index.get(index) if type(index) is int else self._unfinished_thought()
            if known is None or _differ(known, entry):
                known = UnknownFields(self._strings)
                self.entries.append(known)
            known.add(entry)
            if type(index) is int:
                self._by_index[index] = known

    def _unfinished_thought(self) -> UnknownFields | None:
        """Return the last entry if an entry without an index may continue it.

        LiteLLM sends Anthropic's thinking blocks in pieces without one; the signature, which
        covers all of a block's text, ends it.
        """
        last = self.entries[-1] if self.entries else None
        if not isinstance(last, UnknownFields) or last.get("type") != "thinking":
            return None
        return None if last.get("signature") else last


def _differ(known: UnknownFields, entry: dict[str, Any]) -> bool:
    """Whether an entry is another than the known one, although they have one index.

    OpenRouter numbers a summary and the encrypted thought that belongs to it alike.
    """
    return any(
        bool(known.get(name) and entry.get(name)) and known.get(name) != entry[name]
        for name in ("type", "id")
    )


def _plain(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value.parts)
    if isinstance(value, UnknownFields):
        return value.result()
    if isinstance(value, _Entries):
        return [_plain(entry) for entry in value.entries]
    return value
