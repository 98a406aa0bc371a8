"""Server-sent events as chat servers frame them; pure.

:class:`~konko_async.sse.SSEDecoder` keeps to the standard, which drops or glues together what some
servers send. Text must not get lost that way, nor an error pass for the end of an answer, so this
decoder also understands (each has been seen in public reports):

- events that only a single line feed parts: a line of data that is complete JSON is an event;
- a last event without its empty line, ``[DONE]`` or complete JSON;
- a field ``error:`` (llama.cpp), and an event named ``error`` without data;
- lines without a field's name: JSON as a gateway forwards it, an error page, words.
"""

from __future__ import annotations

import re

import msgspec

from konko_async.errors import ResponseDecodeError
from konko_async.sse import BlockDecoder
from konko_async.wire._codec import decode_json

__all__ = ["LooseSSEDecoder", "NamedEvent", "is_done"]

_COLON = ord(":")
_FIELD = re.compile(rb"[A-Za-z][\w.-]*")
_ERROR_FIELDS = frozenset({b"error", b"exception", b"fatal"})
_NOTHING = frozenset({b"", b"null", b"false", b"{}", b'""'})


class NamedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that is not a plain message.

    Attributes:
        name: its type; empty for lines that are not an event at all.
        data: its data lines, joined by line feeds.
    """

    name: str
    data: bytes

    @property
    def is_stray(self) -> bool:
        """Whether it came without the framing of an event."""
        return not self.name


class LooseSSEDecoder(BlockDecoder[bytes | NamedEvent]):
    """Cuts a body into the data of its events, as they were meant.

    How the body was cut into reads never changes what comes out. Events without data are left
    out; those with a name of their own come as :class:`NamedEvent`.
    """

    __slots__ = ("_early", "_strays", "_unfinished")

    def _reset_block(self) -> None:
        super()._reset_block()
        self._early = b""  # the block's data that was given out before its empty line
        self._strays: list[bytes] = []
        self._unfinished = False

    def finish(self) -> list[bytes | NamedEvent]:
        """End the body; return what its unfinished last block says, if it is complete.

        Raises:
            ResponseDecodeError: as for ``flush``.
        """
        line = b"".join(self._line)
        self._line.clear()
        events = self._parse([line]) if line else []
        data = b"\n".join(self._data)
        # Words are worth showing also where they were cut.
        if self._data and (_is_complete(data) or data.lstrip()[:1] not in b'{["'):
            events += self._take_data()
        events += self._take_strays()
        self.flush()
        return events

    def _parse(self, lines: list[bytes]) -> list[bytes | NamedEvent]:
        events: list[bytes | NamedEvent] = []
        data = self._data
        for line in lines:
            if line:
                # Another line follows a complete one: only the empty line between them is missing.
                if data:
                    events += self._take_early()
                size = self._size + len(line)
                if size > self.max_event_bytes:
                    self._fail()
                    return events
                if line[0] == _COLON:
                    continue
                self._size = size
                if line.startswith(b"data:") and not data and not self._strays:
                    data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
                else:
                    events += self._take_line(line)
            elif len(data) == 1 and data[0] and not self._event and not self._strays:
                events.append(data.pop())  # what nearly every block is, the short way
                self._size, self._unfinished = 0, False
            else:
                events += self._end_block()
        # The empty line may take as long as the next token.
        return events + self._take_early() if data else events

    def _take_line(self, line: bytes) -> list[bytes | NamedEvent]:
        """Take in a line that is not a comment; return the events that it completes."""
        name, _, value = line.lstrip().partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._unfinished = len(self._data) > 0  # what runs over two lines is not one of these
            self._data.append(value)
            return self._take_strays()
        if name == b"event":
            self._event = value
        elif name.lower() in _ERROR_FIELDS:
            return [] if value.strip() in _NOTHING else [NamedEvent("error", value)]
        elif is_done(line):
            return [line]
        elif _FIELD.fullmatch(name) is None:
            self._strays.append(line)
            if len(self._strays) == 1 and _is_complete(line):
                return self._take_strays()
        return []  # a field that nobody knows means nothing

    def _end_block(self) -> list[bytes | NamedEvent]:
        """Return what the block that an empty line ends has not given out yet."""
        events = self._take_strays()
        if not self._data and self._event == b"error":
            events.append(NamedEvent("error", self._early))
        else:
            events += self._take_data()
        self._event, self._size, self._early, self._unfinished = b"", 0, b"", False
        return events

    def _take_data(self) -> list[bytes | NamedEvent]:
        data = b"\n".join(self._data)
        self._data.clear()
        if not data:
            return [NamedEvent("error", b"")] if self._event == b"error" else []
        if self._event in {b"", b"message"}:
            return [data]
        return [NamedEvent(self._event.decode("utf-8", "replace"), data)]

    def _take_early(self) -> list[bytes | NamedEvent]:
        """Give out a block's line before its empty line, if it is complete by itself."""
        if self._unfinished or not self._data:
            return []
        data = self._data[0]
        if not _is_complete(data):
            self._unfinished = True  # each line is looked at once
            return []
        events = self._take_data()
        self._event, self._size, self._early = b"", 0, data
        return events

    def _take_strays(self) -> list[bytes | NamedEvent]:
        strays = b"\n".join(self._strays)
        self._strays.clear()
        return [NamedEvent("", strays)] if strays else []


def is_done(data: bytes) -> bool:
    """Whether data says that the answer has ended: ``[DONE]``, in quotes by some servers."""
    return data.strip().strip(b'"').upper() == b"[DONE]"


def _is_complete(data: bytes) -> bool:
    """Whether data is a whole event by itself: an object, or the end."""
    text = data.strip()
    if not text.startswith(b"{"):
        return is_done(text)
    if not text.endswith(b"}"):
        return False
    try:
        decode_json(text)
    except ResponseDecodeError:
        return False
    return True
