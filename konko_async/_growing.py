"""JSON that arrives piece by piece, as a value that grows with it; pure.

Every character is looked at once, and the value is changed in place: what an answer costs is
proportional to its length, however small the pieces are.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from msgspec import UNSET

from konko_async._shapes import ANYTHING, Shape

__all__ = ["Growing"]

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\]*')
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_LOW = re.compile(r"\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
_SCALAR = re.compile(r"[^\s,\]}]*")
_LEAD = re.compile(r"[\s\ufeff]*(?:```[\w+-]*\s*(?={))?")
_SIMPLE = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_FENCE = 40  # characters that a fence may have before the JSON
_LONGEST_ESCAPE = 12  # two halves of a surrogate pair
_HIGH_FIRST, _HIGH_LAST, _LOW_LAST = 0xD800, 0xDBFF, 0xDFFF
_decode = msgspec.json.Decoder().decode


class Growing:
    """A value that grows with the text of its JSON.

    Objects show with their first property, strings as they grow (where they may be any string),
    numbers and the like once they are complete. Text before the JSON may be a code fence; text
    after it is not looked at.

    Args:
        shape: what the value looks like.

    Attributes:
        value: the value; UNSET before anything has come. The same object all the time.
        complete: whether all of it has come.
        broken: whether the text is no JSON; the value then stays as it is.
    """

    __slots__ = (
        "_attached", "_changed", "_container", "_growing", "_key", "_pieces", "_rest", "_shape",
        "_slot", "_stack", "_step", "_target", "broken", "complete", "value",
    )  # fmt: skip

    def __init__(self, shape: Shape) -> None:
        self.value: Any = UNSET
        self.complete = self.broken = False
        self._target = shape  # of the value that comes next, or is coming
        self._step: Any = self._lead
        self._rest = ""
        self._pieces: list[str] = []
        self._stack: list[tuple[Any, Shape, Any, bool]] = []
        self._container: Any = None
        self._shape = shape  # of the container
        self._slot: Any = None  # the key, attribute or index of the value; None: it is not kept
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
        if self._growing and self._pieces:
            self._show()
        return self._changed

    # -- steps: each takes characters from `place` on, and returns the place of the next -----------

    def _lead(self, data: str, place: int) -> int:
        match = _LEAD.match(data, place)
        after = match.end()  # type: ignore[union-attr]  # it matches nothing, too
        if after == len(data):
            return after
        if data[after] == "{":
            self._step = self._value
            return after
        if data[after] == "`" and len(data) - after < _FENCE:
            self._rest = data[after:]
            return len(data)
        self.broken = True
        return after

    def _value(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # as above
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
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # as above
        if place < len(data) and data[place] == "]":
            return self._close(place)
        if place < len(data):
            self._step = self._value
        return place

    def _first_key(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # as above
        if place < len(data) and data[place] == "}":
            return self._close(place)
        return self._next_key(data, place)

    def _next_key(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # as above
        if place == len(data):
            return place
        self.broken = data[place] != '"'
        self._begin_string(key=True)
        return place + 1

    def _colon(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # as above
        if place == len(data):
            return place
        self.broken = data[place] != ":"
        self._step = self._value
        return place + 1

    def _after(self, data: str, place: int) -> int:
        place = _SPACE.match(data, place).end()  # type: ignore[union-attr]  # as above
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
        after = _PLAIN.match(data, place).end()  # type: ignore[union-attr]  # as above
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
        after = _SCALAR.match(data, place).end()  # type: ignore[union-attr]  # as above
        self._pieces.append(data[place:after])
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
        if shape.fields is None:
            self._slot, self._target = key, shape.entries or ANYTHING
        else:
            self._slot, self._target = shape.fields.get(key, (None, ANYTHING))

    def _next_item(self) -> None:
        self._slot = len(self._container)
        self._target = self._shape.item(self._slot)

    def _put(self, value: Any) -> None:
        container, slot = self._container, self._slot
        if slot is None:
            return
        self._changed = self._changed or self._attached
        if type(container) is list:
            container.append(value)
        elif self._shape.by_attribute:
            setattr(container, slot, value)
        else:
            container[slot] = value

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
