"""A streamed body's bytes to payloads, without I/O: one that is quick where bodies are plain.

A read from the socket is taken as a whole. If it consists of nothing but ``data: {json}`` events
(it nearly always does) one ``split`` cuts it; anything else goes through the full decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from konko_async._streaming.loose_sse import LooseSSEDecoder
from konko_async.sse import MAX_EVENT_BYTES

if TYPE_CHECKING:
    from konko_async._streaming.delta_template import DeltaTemplate

__all__ = ["BLOCK", "FIELDS", "EventSplitter"]

HEAD_LIMIT = 64 * 1024
_FIRST_BLOCK = 512
BLOCK = 32 * 1024
_TAIL_LIMIT = 64 * 1024  # longer unfinished events go to the decoder, whose work stays linear
_SPACE = b" \t\r\n\xef\xbb\xbf"
FIELDS = (b"data:", b"event:", b"id:", b"retry:")


class EventSplitter:
    """Cuts a body into the payloads of its events; feed it bytes, cut anywhere.

    Args:
        content_type: of the answer; a body that is announced as JSON or HTML has to look like SSE
            before it is taken for it.
        max_event_bytes: cap of one event. Default 16 MiB.

    Attributes:
        head: the body so far, at most 64 KiB, until :meth:`confirm`; it shows what a body that is
            no event stream has to say.
        template: of the chunks that are expected, or None.
        waiting: whether there are events that came and have not been given out.
        clean: whether what comes next begins an event, and nothing is waiting.
    """

    __slots__ = (
        "_announced", "_at", "_block", "_decoder", "_events", "_is_sse", "_max", "_tail", "clean",
        "head", "template", "waiting",
    )  # fmt: skip

    def __init__(self, content_type: str = "", max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.head: bytes | None = b""
        self._announced = not content_type.startswith(("application/json", "text/html"))
        self._is_sse = False
        self._decoder: LooseSSEDecoder | None = None
        self._max = max_event_bytes
        self._tail = b""  # the beginning of an event
        self._events = b""  # whole ones
        self._at = 0  # how far they have been cut
        self._block = _FIRST_BLOCK
        self.waiting = False
        self.clean = True
        self.template: DeltaTemplate | None = None

    def confirm(self) -> None:
        """Say that an event has been understood: the body is a stream, its head is not needed."""
        self.head = None

    @property
    def refused(self) -> bool:
        """Whether the body has grown too long without looking like an event stream."""
        return not self._is_sse and self.head is not None and len(self.head) > HEAD_LIMIT

    @property
    def is_stream(self) -> bool:
        """Whether what has come looks like an event stream, as far as it has come."""
        return not self.head or _begins_like_sse(self.head.lstrip(_SPACE))

    def feed(self, data: bytes) -> list[Any]:
        """Take in the next bytes; return the data of the events they complete, in order.

        Each is bytes, or a :class:`NamedEvent`; events without data are left out. The first ones
        that are as the template says come as one :class:`Alike`. Where much came at once, this is
        the beginning of it: call :meth:`more` while it is ``waiting``.

        Raises:
            ResponseDecodeError: an event is longer than the cap.
        """
        if self.head is not None:
            data = self._sniff(data)
            if not data:
                return []
        decoder = self._decoder
        if decoder is not None and not decoder.at_boundary:
            payloads = self._slowly(data)
            self._look()
            return payloads
        self._events, self._at = self._whole_events(data), 0
        return self.more()

    def more(self) -> list[Any]:
        """Return what :meth:`feed` returns, of further events that have come.

        A quarter of a MiB cut in one piece would cost half as much again per event, as by then
        nothing is in the processor's caches. The first pieces are small: what they teach (the
        template) spares the others most of the work.
        """
        events, start = self._events, self._at
        if not events:
            self._look()
            return []
        end = start + self._block
        cut = events.find(b"\n\n", end) + 2 if end < len(events) else 0
        if self.template is not None:
            self._block = BLOCK
        elif self._block < BLOCK:
            self._block *= 4
        if cut < 2:  # noqa: PLR2004 - not found
            cut = len(events)
        self._at = cut
        if cut == len(events):
            self._events, self._at = b"", 0
        try:
            return self._cut(events[start:cut] if cut - start < len(events) else events)
        finally:
            self._look()

    def _look(self) -> None:
        self.waiting = bool(self._events)
        between = self._decoder is None or self._decoder.at_boundary
        self.clean = between and not self._events and not self._tail

    def drop(self) -> None:
        """Forget what is waiting."""
        self._events, self._at = b"", 0
        self._look()

    def _whole_events(self, data: bytes) -> bytes:
        """Return what is complete; the rest waits for the next bytes."""
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if not data.endswith(b"\n\n"):
            cut = data.rfind(b"\n\n") + 2
            if cut < 2:  # noqa: PLR2004 - not found
                cut = 0
            tail = data[cut:]
            # What is more than the beginning of one line is the decoder's, which does not wait for
            # an empty line that some servers leave out; so are very long ones, dear to keep.
            if b"\r" not in tail and b"\n" not in tail and len(tail) < _TAIL_LIMIT:
                self._tail = tail
                return data[:cut]
        return data

    def _cut(self, data: bytes) -> list[Any]:
        alike = None
        if self.template is not None:
            alike, end = self.template.read(data)
            if end == len(data):
                return [alike]
            data = data[end:]
        payloads = _quickly(data)
        if payloads is None:
            # The decoder gets all that has come, so that it ends where the bytes end.
            data += self._events[self._at :] + self._tail
            self._events, self._at, self._tail = b"", 0, b""
            payloads = self._slowly(data)
        return payloads if alike is None else [alike, *payloads]

    def _slowly(self, data: bytes) -> list[Any]:
        if self._decoder is None:
            self._decoder = LooseSSEDecoder(self._max)
        return self._decoder.feed(data)

    def finish(self) -> list[Any]:
        """End the body; return what its unfinished last event says, if it is complete.

        Raises:
            ResponseDecodeError: as for :meth:`feed`.
        """
        tail, self._tail = self._tail, b""
        payloads = self._slowly(tail) if tail else []
        if self._decoder is not None:
            payloads += self._decoder.finish()
        return payloads

    def _sniff(self, data: bytes) -> bytes:
        """Return the bytes to decode: none as long as the body does not look like SSE."""
        head = self.head = (self.head or b"") + data
        if not self._is_sse:
            start = head.lstrip(_SPACE)
            if not start or start[:1] in {b"{", b"[", b"<"}:
                return b""
            if not (self._announced or _begins_like_sse(start)):
                return b""
            self._is_sse = True
            data = head
        if len(head) > HEAD_LIMIT:
            self.head = None
        return data


def _begins_like_sse(start: bytes) -> bool:
    """Whether a body begins with a field or comment of SSE, as far as it has come."""
    if start.startswith((b":", *FIELDS)):
        return True
    return any(field.startswith(start) for field in FIELDS)


def _quickly(data: bytes) -> list[Any] | None:
    """Cut whole events that consist of one plain data line each; None if there are others."""
    if not data.startswith(b"data: {") or b"\r" in data:
        return None
    # Cut at single line feeds: a search for one byte is many times quicker than for two.
    payloads = [event[6:] for event in data.split(b"\n")[:-1:2]]
    # Putting them together again proves that each event is one data line and nothing else.
    if b"data: %b\n\n" % b"\n\ndata: ".join(payloads) != data or b"" in payloads:
        return None
    return payloads
