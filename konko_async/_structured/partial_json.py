"""Reads JSON that arrives piece by piece into a value that grows with it; pure.

Every character is looked at once, and the value is changed in place: what an answer costs is
proportional to its length, however small the pieces are.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from msgspec import UNSET

from konko_async._structured.find_json import closing_tag, skip_lead
from konko_async._structured.partial_types import ANYTHING, ValueShape

__all__ = ["Growing"]

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\]*')
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_LOW = re.compile(r"\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
_SCALAR = re.compile(r"[^\s,\]}]*")
_SIMPLE = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WRAPPER = '"value"'
_LONGEST_ESCAPE = 12  # two halves of a surrogate pair
_HIGH_FIRST, _HIGH_LAST, _LOW_LAST = 0xD800, 0xDBFF, 0xDFFF
_decode = msgspec.json.Decoder().decode


class Growing:
    """A value that grows with the text of its JSON.

    Objects show with their first property, strings as they grow (where they may be any string),
    numbers and the like once they are complete. Thoughts and an opening code fence before the JSON
    are skipped; text after it is not looked at.

    Args:
        shape: what the value looks like.
        bare: what it looks like where an answer may have it without the object that ``shape`` is,
            and so may be a list; None: it may not.
        either: whether such a bare value may be an object, too; it is one unless its first
            property is ``value``.

    Attributes:
        value: the value; UNSET before anything has come. The same object all the time.
        complete: whether all of it has come.
        broken: whether the text is no JSON, or prose stands before it; the value then stays as it
            is.
        is_bare: whether the value looks like ``bare``.
    """

    __slots__ = (
        "_attached",
        "_bare",
        "_changed",
        "_closing",
        "_container",
        "_either",
        "_growing",
        "_key",
        "_key_name",
        "_pieces",
        "_rest",
        "_shape",
        "_slot",
        "_stack",
        "_step",
        "_target",
        "broken",
        "complete",
        "is_bare",
        "value",
    )  # fmt: skip

    def __init__(
        self, shape: ValueShape, bare: ValueShape | None = None, *, either: bool = False
    ) -> None:
        self.value: Any = UNSET
        self.complete = self.broken = self.is_bare = False
        self._bare = bare
        self._either = either
        self._closing = ""  # the tag that ends the thoughts
        self._target = shape  # of the value that comes next, or is coming
        self._step: Any = self._lead
        self._rest = ""
        self._pieces: list[str] = []
        self._stack: list[tuple[Any, ValueShape, Any, bool]] = []
        self._container: Any = None
        self._shape = shape  # of the container
        self._slot: Any = None  # the key, attribute or index of the value; None: it is not kept
        self._key_name = ""  # of the value, in JSON
        self._key = False  # whether the string that is coming is a key
        self._growing = False  # whether it shows as it grows
        self._attached = True
        self._changed = False

    def feed(self, text: str) -> bool:
        """Take in the next piece of text; returns whether the value has changed."""
        self._changed = False
        data, self._rest = self._rest + text, ""
        place, end = 0, len(data)
        while place < end and not self.complete and not self.broken:
            place = self._step(data, place)
        # Shown once per feed(), not per step: escapes cut a string into many pieces.
        if self._growing and self._pieces:
            self._show()
        return self._changed

    # -- steps: each takes characters from `place` on, and returns the place of the next -----------

    def _lead(self, data: str, place: int) -> int:
        opening = "{" if self._bare is None else "{["
        lead = skip_lead(data, place, whole=False, opening=opening)
        if lead.step == "more":
            # All of a fence is looked at again with what comes next, as it must end with it.
            self._rest = data[place:].lstrip()
            return len(data)
        if lead.step == "thought":
            self._closing = lead.closing
            self._step = self._thought
        elif lead.step == "value":
            self._step = self._root
        else:
            self.broken = True
        return lead.place

    def _thought(self, data: str, place: int) -> int:
        ended, after = closing_tag(data, self._closing, place)
        if ended:
            self._step = self._lead
            return after
        self._rest = data[after:]
        return len(data)

    def _root(self, data: str, place: int) -> int:
        self._step = self._value
        if self._bare is None or (data[place] == "{" and not self._either):
            return place
        if data[place] == "{":
            key = data[place + 1 :].lstrip(" \t\r\n")
            # The first key is not there yet: nothing may be shown, as the shape depends on it.
            if len(key) < len(_WRAPPER) and _WRAPPER.startswith(key):
                self._step = self._root
                self._rest = data[place:]
                return len(data)
            if key.startswith(_WRAPPER):
                return place
        self._target = self._shape = self._bare
        self.is_bare = True
        return place

    def _value(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # the pattern matches the empty text, too
        if place == len(data):
            return place
        sign = data[place]
        if sign == '"':
            self._begin_string(key=False)
        elif sign == "{":
            self._open(self._target.make(), is_list=False)
        elif sign == "[":
            self._open([], is_list=True)
        else:
            self._step = self._scalar
            return place
        return place + 1

    def _first_item(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # the pattern matches the empty text, too
        if place < len(data) and data[place] == "]":
            return self._close(place)
        if place < len(data):
            self._step = self._value
        return place

    def _first_key(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # the pattern matches the empty text, too
        if place < len(data) and data[place] == "}":
            return self._close(place)
        return self._next_key(data, place)

    def _next_key(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # the pattern matches the empty text, too
        if place == len(data):
            return place
        self.broken = data[place] != '"'
        self._begin_string(key=True)
        return place + 1

    def _colon(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # the pattern matches the empty text, too
        if place == len(data):
            return place
        self.broken = data[place] != ":"
        self._step = self._value
        return place + 1

    def _after(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # the pattern matches the empty text, too
        if place == len(data):
            return place
        is_list = type(self._container) is list
        if data[place] == ",":
            if is_list:
                self._next_item()
            self._step = self._value if is_list else self._next_key
            return place + 1
        if data[place] == ("]" if is_list else "}"):
            return self._close(place)
        self.broken = True
        return place

    def _string(self, data: str, place: int) -> int:
        after = _PLAIN.match(data, place).end()  # type: ignore[union-attr]  # the pattern matches the empty text, too
        if after > place:
            self._pieces.append(data[place:after])
        if after == len(data):
            return after
        if data[after] == '"':
            self._end_string()
            return after + 1
        return self._escape(data, after)

    def _escape(self, data: str, place: int) -> int:
        match = _ESCAPE.match(data, place)
        # Too short for an escape: the rest may be in the next piece.
        if match is None:
            if len(data) - place < _LONGEST_ESCAPE // 2:
                self._rest = data[place:]
                return len(data)
            self.broken = True
            return place
        if match[2]:
            self._pieces.append(_SIMPLE.get(match[2], match[2]))
            return match.end()
        return self._code(data, place, match)

    def _code(self, data: str, place: int, match: re.Match[str]) -> int:
        """Take in a character by its code, and the other half if it is one half of a pair."""
        code = int(match[1], 16)
        if not _HIGH_FIRST <= code <= _LOW_LAST:
            self._pieces.append(chr(code))
            return match.end()
        low = _LOW.match(data, match.end()) if code <= _HIGH_LAST else None
        if low:
            self._pieces.append(json.loads(f'"{data[place : low.end()]}"'))
            return low.end()
        left = len(data) - place
        if code <= _HIGH_LAST and left < _LONGEST_ESCAPE and _may_be_low(data[match.end() :]):
            self._rest = data[place:]
            return len(data)
        self._pieces.append("\ufffd")  # half of a pair, as in the whole answer
        return match.end()

    def _scalar(self, data: str, place: int) -> int:
        after = _SCALAR.match(data, place).end()  # type: ignore[union-attr]  # the pattern matches the empty text, too
        self._pieces.append(data[place:after])
        # A number's end is only known by what follows: 1 may become 12.
        if after < len(data):
            text = "".join(self._pieces)
            self._pieces.clear()
            try:
                value = _number(text)
            except ValueError:
                self.broken = True
                return after
            self._put(self._target.settled(value))
            self._step = self._after
        return after

    # -- what the steps do ---------------------------------------------------------------------

    def _begin_string(self, *, key: bool) -> None:
        self._key = key
        self._step = self._string
        if not key and self._target.grows and not self.broken:
            self._growing = True
            self._put("")

    def _end_string(self) -> None:
        if self._growing:
            self._show()
            self._growing = False
        else:
            text = "".join(self._pieces)
            self._pieces.clear()
            if self._key:
                self._find(text)
                self._step = self._colon
                return
            self._put(self._target.settled(text))
        self._step = self._after

    def _find(self, key: str) -> None:
        """Find out where the value of a key goes, and what it looks like."""
        shape = self._shape
        self._key_name = key
        if shape.fields is None:
            self._slot, self._target = key, shape.entries or ANYTHING
        else:
            self._slot, self._target = shape.fields.get(key, (None, ANYTHING))

    def _next_item(self) -> None:
        self._slot = len(self._container)
        self._target = self._shape.item(self._slot)

    def _put(self, value: Any) -> None:
        container, slot = self._container, self._slot
        if slot is None or (value is None and self._null_is_default()):
            return
        self._changed = self._changed or self._attached
        if type(container) is list:
            container.append(value)
        elif self._shape.by_attribute:
            setattr(container, slot, value)
        else:
            container[slot] = value

    def _null_is_default(self) -> bool:
        return type(self._container) is not list and self._key_name in self._shape.defaults

    def _show(self) -> None:
        """Let the string grow by what has come.

        It is taken out of its container first: a string that nobody else refers to is made longer
        in place, where a second reference would have all of it copied each time.
        """
        piece = "".join(self._pieces)
        self._pieces.clear()
        container, slot = self._container, self._slot
        if slot is None or not piece:
            return
        self._changed = self._changed or self._attached
        if type(container) is list or not self._shape.by_attribute:
            text: str = container[slot]
            container[slot] = None
            text += piece
            container[slot] = text
        else:
            text = getattr(container, slot)
            setattr(container, slot, None)
            text += piece
            setattr(container, slot, text)

    def _open(self, container: Any, *, is_list: bool) -> None:
        target, attached = self._target, self._attached
        if self._container is None:
            self.value = container
            self._changed = True
        else:
            self._put(container)
            # What is in a value that is not kept changes nothing that anybody can see.
            attached = attached and self._slot is not None
            self._stack.append((self._container, self._shape, self._slot, self._attached))
        self._container, self._attached = container, attached
        self._shape = target
        if is_list:
            self._next_item()
        self._step = self._first_item if is_list else self._first_key

    def _close(self, place: int) -> int:
        if self._stack:
            self._container, self._shape, self._slot, self._attached = self._stack.pop()
            self._step = self._after
        else:
            # The outermost bracket: what follows is not looked at here, but by the reading of the
            # whole.
            self.complete = True
        return place + 1


def _may_be_low(text: str) -> bool:
    return all(sign in (own, "x") for own, sign in zip(text, r"\uxxxx", strict=False))


def _number(text: str) -> Any:
    """Return a number, true, false or null; also what only lenient readers take for one.

    Raises:
        ValueError: it is none of these.
    """
    try:
        value = _decode(text)
    except (msgspec.DecodeError, UnicodeError):
        value = json.loads(text)
    return value
