"""The reply that is about to be sent: the value that faults edit."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

JSON_TYPE: Final = "application/json"
SSE_TYPE: Final = "text/event-stream; charset=utf-8"
DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for a while.

    Attributes:
        seconds: How long; `None` until the client leaves or the emulator closes.
        heartbeat: Seconds between comments sent meanwhile; `None` for none. Only in streams.
        comment: The comment line of a heartbeat, which begins with a colon.
    """

    seconds: float | None
    heartbeat: float | None = None
    comment: str = ": keep-alive"


@dataclass(frozen=True, slots=True)
class Hangup:
    """Close the connection.

    Attributes:
        reset: By RST; `False` for FIN.
    """

    reset: bool


Step: TypeAlias = bytes | Pause | Hangup
"""Bytes of the body (in a stream, one event), or what happens between them."""


@dataclass(frozen=True, slots=True)
class Events:
    """The events of a stream, as they are made. Thousands of slow streams must not hold them all.

    Attributes:
        lead: Those before the first text.
        content: Those with text, which can be gone through once.
        tail: Those that come with the last text, `[DONE]` the last of them.
    """

    lead: list[bytes]
    content: Iterator[bytes]
    tail: list[bytes]


@dataclass(slots=True)
class Reply:
    """What is about to be sent. `Fault.edit()` changes it in place.

    Attributes:
        status: The HTTP status.
        headers: The headers, lower-case names. The framing headers are added when it is sent.
        steps: The body, in order.
        before: What happens before the headers are sent; bytes do not belong here.
        sse: Whether the body is a stream of events, each of them one item of `steps`.
        lead: How many events come before the first text.
        tail: How many events come with the last text.
        interval: Seconds between two events in between; 0 for none.
        usage: The answer's `usage`, if it has one.
        unmade: The events that will be `steps`; for a fault they have been made already.
    """

    status: int
    headers: dict[str, str]
    steps: list[Step]
    before: list[Pause | Hangup] = field(default_factory=list)
    sse: bool = False
    lead: int = 0
    tail: int = 0
    interval: float = 0.0
    usage: dict[str, int] | None = None
    unmade: Events | None = None

    def make(self) -> None:
        """Make all events now."""
        if self.unmade is not None:
            events, self.unmade = self.unmade, None
            self.steps = [*events.lead, *events.content, *events.tail]
            # Kept as counts, since faults insert steps: the pace applies only between the two.
            self.lead, self.tail = len(events.lead), len(events.tail)

    @property
    def body(self) -> bytes:
        """All bytes of the body."""
        return b"".join(step for step in self.steps if isinstance(step, bytes))

    def events(self) -> list[int]:
        """The indices in `steps` of the events with data, without `[DONE]`."""
        return [
            at
            for at, step in enumerate(self.steps)
            if isinstance(step, bytes)
            and b"data:" in step
            # Any line end, as `Quirks` may have rewritten it before.
            and not step.rstrip().endswith(b"[DONE]")
        ]

    def place(self, after_chunks: int) -> int:
        """The index in `steps` at which to insert what comes after so many events.

        With more of them than there are, that is after the last one, before `[DONE]`. A body that
        is not a stream is split in half, for any number above 0.
        """
        if not self.sse:
            if after_chunks:
                body = self.body
                # A whole answer has no events to count, so its middle stands for "after some
                # chunks".
                self.steps[:] = [body[: len(body) // 2], body[len(body) // 2 :]]
            return min(after_chunks, 1)
        events = self.events()
        if not events or not after_chunks:
            return 0
        # After the event itself: comments and pauses that follow it stay behind what is inserted.
        return events[min(after_chunks, len(events)) - 1] + 1

    def put(self, after_chunks: int | None, step: Pause | Hangup) -> None:
        """Insert a pause or a hang-up after so many events; `None`: before the headers."""
        if after_chunks is None:
            self.before.append(step)
        else:
            self.steps.insert(self.place(after_chunks), step)

    def replace(self, body: bytes, content_type: str | None) -> None:
        """Replace the body, in one piece and without a pace."""
        self.steps[:] = [body] if body else []
        self.sse, self.lead, self.tail, self.interval = False, 0, 0, 0.0
        self.headers.pop("content-type", None)
        if content_type is not None:
            self.headers["content-type"] = content_type


def json_reply(status: int, body: bytes, headers: dict[str, str] | None = None) -> Reply:
    """A whole answer."""
    return Reply(status, {"content-type": JSON_TYPE, **(headers or {})}, [body])


def decode_event(event: bytes) -> Any:
    """The JSON of an event's data."""
    return msgspec.json.decode(event[len(b"data: ") :])


def encode_event(data: Any) -> bytes:
    """An event with this JSON as its data."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
