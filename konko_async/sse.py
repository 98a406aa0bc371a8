"""Server-sent events: bytes to events and back, without I/O.

The rules are those of the HTML standard, section 9.2 "Server-sent events"
(https://html.spec.whatwg.org/multipage/server-sent-events.html), to the letter.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from konko_async.errors import ConfigurationError, ResponseDecodeError

__all__ = ["MAX_EVENT_BYTES", "SSEDecoder", "ServerSentEvent", "encode_event"]

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Default cap of one event: 16 MiB."""

_BOM = b"\xef\xbb\xbf"
_COLON = ord(":")
_LF = ord("\n")
_CR = ord("\r")
_MAX_RETRY_DIGITS = 640  # what int() takes whatever sys.set_int_max_str_digits() was told
_BODY_SHOWN = 4096

E = TypeVar("E")


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    r"""One dispatched event.

    Attributes:
        event: the event's type, ``"message"`` where the block names none.
        data: the data lines, joined by ``\n``.
        id: the last event id at the time of dispatch, None if the stream has named none yet; it
            persists from event to event.
        retry: the reconnection time of this block in milliseconds, or None.
    """

    event: str = "message"
    data: str = ""
    id: str | None = None
    retry: int | None = None


class BlockDecoder(Generic[E]):
    """Cuts a body into lines and blocks within a cap; what a line means is for subclasses to say.

    Args:
        max_event_bytes: as for :class:`SSEDecoder`.
    """

    __slots__ = (
        "_after_cr", "_data", "_event", "_failure", "_id", "_line", "_line_bytes", "_retry",
        "_size", "_start", "bytes_fed", "last_event_id", "max_event_bytes",
    )  # fmt: skip

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        if isinstance(max_event_bytes, bool) or not isinstance(max_event_bytes, int):
            raise ConfigurationError("max_event_bytes must be an integer")
        if max_event_bytes < 1:
            raise ConfigurationError(f"max_event_bytes must be at least 1, not {max_event_bytes}")
        self.max_event_bytes = max_event_bytes
        self.last_event_id: str | None = None
        self.bytes_fed = 0
        self._start: bytes | None = b""  # until the place of a byte order mark has passed
        self._reset()

    def _reset(self) -> None:
        self._after_cr = False
        self._line: list[bytes] = []  # pieces of a line that has not ended
        self._line_bytes = 0
        self._failure: ResponseDecodeError | None = None
        self._id = self.last_event_id  # an id counts from the end of its block on
        self._reset_block()

    def _reset_block(self) -> None:
        self._data: list[bytes] = []
        self._size = 0  # bytes of the block's field lines so far
        self._event = b""
        self._retry: int | None = None

    @property
    def at_boundary(self) -> bool:
        """Whether nothing of a block is buffered: the next byte begins a new one."""
        return not (
            self._line
            or self._size
            or self._after_cr
            or self._start is not None
            or self._failure is not None
        )

    def feed(self, data: bytes) -> list[E]:
        """Take in the next bytes of the body.

        Args:
            data: bytes (or a bytes-like object), of any length, cut anywhere.

        Returns:
            The events completed by them.

        Raises:
            ResponseDecodeError: an event is longer than ``max_event_bytes``. Events completed
                before it are returned first; the error is raised by the next call.
            TypeError: ``data`` is not bytes-like.
        """
        if self._failure is not None:
            raise self._failure
        if type(data) is not bytes:
            data = bytes(memoryview(data))  # bytes(5) would be five NULs
        self.bytes_fed += len(data)
        if self._start is not None:
            data = self._skip_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == _LF:
                data = data[1:]
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not end:
            self._keep(data)
            return self._checked([])
        lines = b"".join((*self._line, data[:end])).splitlines()
        self._after_cr = data[-1] == _CR
        self._line.clear()
        self._line_bytes = 0
        self._keep(data[end:])
        return self._checked(self._parse(lines))

    def flush(self) -> list[E]:
        """End the body: a block without its empty line is dropped, as the standard says.

        Returns:
            The events completed by the end of the body: none, as each is returned when its empty
            line is fed. The decoder can then be fed a new body; ``last_event_id`` stays.

        Raises:
            ResponseDecodeError: the failure that a ``feed`` had to keep back.
        """
        failure = self._failure
        self._reset()
        self._start = b""
        if failure is not None:
            raise failure
        return []

    def _skip_bom(self, data: bytes) -> bytes:
        data = (self._start or b"") + data
        if len(data) < len(_BOM) and _BOM.startswith(data):
            self._start = data
            return b""
        self._start = None
        return data.removeprefix(_BOM)

    def _keep(self, piece: bytes) -> None:
        if piece:
            self._line.append(piece)
            self._line_bytes += len(piece)

    def _checked(self, events: list[E]) -> list[E]:
        if self._failure is None and self._line_bytes + self._size > self.max_event_bytes:
            self._fail()
        if self._failure is not None:
            self._line.clear()
            self._data.clear()
            if not events:
                raise self._failure
        return events

    def _fail(self) -> None:
        head = (self._data or self._line or [b""])[0][:_BODY_SHOWN]
        self._failure = ResponseDecodeError(
            f"an event of the stream is longer than {self.max_event_bytes} bytes, at byte "
            f"{self.bytes_fed}",
            body=head,
            offset=self.bytes_fed,
        )

    def _parse(self, lines: list[bytes]) -> list[E]:
        """Return the events that these lines complete."""
        raise NotImplementedError


class SSEDecoder(BlockDecoder[ServerSentEvent]):
    r"""Incremental decoder of an event stream; feed it bytes, cut anywhere.

    A line may end with CR, LF or CRLF, also if the pair is cut by two reads; an event is returned
    as soon as its empty line has begun. Time and memory are linear in the input. How the input
    was cut never changes the events, nor whether the cap is reached.

    Args:
        max_event_bytes: cap of one event: the bytes of its field lines without their ends, plus
            those of the line that is being read, be it a field or a comment. Default 16 MiB.

    Attributes:
        last_event_id: what a reconnecting reader would send as ``Last-Event-ID``, or None.
        bytes_fed: bytes taken in so far.

    Example:
        >>> decoder = SSEDecoder()
        >>> decoder.feed(b"data: hel")
        []
        >>> decoder.feed(b"lo\n\n")
        [ServerSentEvent(event='message', data='hello', id=None, retry=None)]
        >>> decoder.flush()
        []
    """

    __slots__ = ()

    def _parse(self, lines: list[bytes]) -> list[ServerSentEvent]:
        events: list[ServerSentEvent] = []
        cap = self.max_event_bytes
        for line in lines:
            if not line:
                self.last_event_id = self._id
                if self._data:
                    events.append(self._dispatch())
                self._reset_block()
                continue
            size = self._size + len(line)
            # A comment is not kept, but while it was being read it took room: whether that was
            # too much must not depend on where the reads were cut.
            if size > cap:
                self._fail()
                break
            if line.startswith(b"data: "):  # what nearly every line is, the short way
                self._size = size
                self._data.append(line[6:])
            elif line[0] != _COLON:
                self._size = size
                self._field(line)
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():  # bytes.isdigit() knows ASCII digits only
            digits = value.lstrip(b"0") or b"0"
            if len(digits) <= _MAX_RETRY_DIGITS:
                self._retry = int(digits)

    def _dispatch(self) -> ServerSentEvent:
        return ServerSentEvent(
            self._event.decode("utf-8", "replace") or "message",
            b"\n".join(self._data).decode("utf-8", "replace"),
            self.last_event_id,
            self._retry,
        )


def encode_event(event: ServerSentEvent) -> bytes:
    """Return the frame of an event; decoding it gives the event back.

    Line breaks in ``data`` become several data lines, so that text cannot inject a field; CR
    becomes LF, since the format has no other way to carry it. A frame without an id leaves the
    last one in force.

    Raises:
        ConfigurationError: ``event`` or ``id`` holds a line break, or ``id`` a NUL; ``retry`` is
            negative; or the text holds half a surrogate pair, which UTF-8 cannot carry.
    """
    for name, value in (("event", event.event), ("id", event.id or "")):
        if "\n" in value or "\r" in value or (name == "id" and "\0" in value):
            raise ConfigurationError(f"the {name} of an event must not hold line breaks or NUL")
    if event.retry is not None and event.retry < 0:
        raise ConfigurationError(f"the retry of an event must not be negative: {event.retry}")
    lines = [] if event.event == "message" else [f"event: {event.event}"]
    if event.id is not None:
        lines.append(f"id: {event.id}")
    if event.retry is not None:
        lines.append(f"retry: {event.retry}")
    text = event.data.replace("\r\n", "\n").replace("\r", "\n")
    lines.extend(f"data: {line}" for line in text.split("\n"))
    try:
        return ("\n".join(lines) + "\n\n").encode()
    except UnicodeEncodeError as error:
        place = error.start
    raise ConfigurationError(f"an event holds half a surrogate pair, at character {place}")
