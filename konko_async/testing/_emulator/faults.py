"""Failures as frozen values; each edits the reply that would have been sent."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal

import msgspec

from konko_async.testing._emulator.errors import error_object
from konko_async.testing._emulator.reply import (
    DONE,
    JSON_TYPE,
    Hangup,
    Pause,
    Reply,
    encode_event,
)


@dataclass(frozen=True, slots=True)
class Fault:
    r"""The base of all faults: something that happens to one call.

    | value | what the client sees |
    |---|---|
    | `Status(500)` | a status, with an OpenAI error, other JSON, HTML, text, bytes, or nothing |
    | `Status(429, retry_after=2)` | also `retry_after_ms`, `should_retry`, and any header |
    | `Status(200, {"error": ...})` | a JSON error with status 200, also instead of a stream |
    | `Redirect(location)` | a redirect |
    | `Delay(seconds)` | the answer comes later |
    | `Stall(after_chunks)` | silence, or heartbeat comments and nothing else |
    | `Cut(after_chunks)` | the connection closed, by RST or FIN |
    | `ErrorInStream(after_chunks)` | an error inside a 200 stream, in one of four shapes |
    | `MalformedJSON(after_chunks)` | one event (or the whole body) is not JSON |
    | `InvalidUTF8(after_chunks)` | one event (or the whole body) is not UTF-8 |
    | `WrongContentType()` | the right body under another content type |
    | `EmptyBody()` | the right status and headers, and no body |
    | `GzipBomb()` | a small compressed body that is huge once decompressed |
    | `Quirks(done=False)` | no `[DONE]` |
    | `Quirks(finish_reason=False)` | null finish_reason |
    | `Quirks(heartbeats=": PROCESSING")` | comment lines between the events |
    | `Quirks(usage="each")` | usage on every chunk; `"empty"`: `{}`; `"none"`: not at all |
    | `Quirks(null_content=True)` | null content; `missing_content`: none at all |
    | `Quirks(role_in_each=True)` | the role in each delta |
    | `Quirks(empty_choices=True)` | a first chunk without choices |
    | `Quirks(tool_index=False, tool_id=False)` | tool calls without index or id |
    | `Quirks(float_created=True)` | `created` with a fraction |
    | `Quirks(extra={"timings": {}})` | more fields; `extra_delta`: in each message or delta |
    | `Quirks(newline="\r\n", space=False, bom=True)` | the same events, written otherwise |

    `after_chunks` counts the events with data, the one with the role included and `[DONE]` not; 0
    is after the headers, and `None` before them. In an answer that is not a stream, any number
    above 0 is the middle of the body. Several faults can happen to one call: give them as a list.

    For a fault of your own, subclass it and override `edit()`.

    Attributes:
        early: Whether it takes the place of the answer. Then none is made: no key is checked, no
            limit counts the call.
    """

    early: ClassVar[bool] = False

    def edit(self, reply: Reply) -> None:
        """Change the reply in place.

        Args:
            reply: The answer that would be sent; with `early`, an empty one of status 200.
        """


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """Answer with this status.

    Attributes:
        status: The HTTP status, 200 to 599.
        body: A mapping or a list for JSON, a string for HTML (or plain text, if it has no `<`),
            bytes as they are (`b""` for no body); `None` for OpenAI's error with the next four.
        message: The error's message; `None` for a usual one.
        type: The error's type; `None` for the usual one.
        param: The error's param.
        code: The error's code, such as `"insufficient_quota"`; `None` for the usual one.
        retry_after: The header `retry-after`: seconds, or any text, such as an HTTP date.
        retry_after_ms: The header `retry-after-ms`.
        should_retry: The header `x-should-retry`.
        headers: More headers.
    """

    early: ClassVar[bool] = True

    status: int
    body: Mapping[str, Any] | list[Any] | str | bytes | None = None
    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | None = None
    retry_after: float | str | None = None
    retry_after_ms: float | str | None = None
    should_retry: bool | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def edit(self, reply: Reply) -> None:
        """Replace the answer."""
        reply.status = self.status
        reply.replace(*self._content())
        if self.retry_after is not None:
            reply.headers["retry-after"] = str(self.retry_after)
        if self.retry_after_ms is not None:
            reply.headers["retry-after-ms"] = str(self.retry_after_ms)
        if self.should_retry is not None:
            reply.headers["x-should-retry"] = str(self.should_retry).lower()
        # Last, so that a test can override any header above, content type included; in lower case,
        # or both spellings would be sent.
        reply.headers.update({name.lower(): value for name, value in self.headers.items()})

    def _content(self) -> tuple[bytes, str | None]:
        body = self.body
        # Bytes first: what is given as bytes is sent as it is, also where it is text.
        if isinstance(body, bytes):
            return body, "application/octet-stream" if body else None
        if isinstance(body, str):
            kind = "text/html" if "<" in body else "text/plain"
            return body.encode(), f"{kind}; charset=utf-8"
        if body is None:
            error = error_object(
                self.status, self.message, type=self.type, param=self.param, code=self.code
            )
            body = {"error": error}
        return msgspec.json.encode(body), JSON_TYPE


@dataclass(frozen=True, slots=True)
class Redirect(Fault):
    """Answer with a redirect.

    Attributes:
        location: Where to: a path, or a URL of any origin.
        status: 301, 302, 303, 307 or 308.
    """

    early: ClassVar[bool] = True

    location: str = "/v1/moved"
    # Unlike 301 to 303, 307 repeats the POST with its body: a client that follows it sends the
    # prompt and the key to `location`.
    status: int = 307

    def edit(self, reply: Reply) -> None:
        """Replace the answer."""
        reply.status = self.status
        reply.replace(b"", None)
        reply.headers["location"] = self.location


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """Wait before the headers, and then answer.

    Attributes:
        seconds: How long.
    """

    seconds: float

    def edit(self, reply: Reply) -> None:
        """Insert the wait before the headers."""
        reply.before.append(Pause(self.seconds))


@dataclass(frozen=True, slots=True)
class Stall(Fault):
    """Stop sending, with or without heartbeats.

    Attributes:
        after_chunks: After how many chunks; 0 after the headers, `None` before them.
        seconds: For how long; the answer goes on after it. `None` until the client leaves or the
            emulator closes.
        heartbeat: Seconds between comments that a stream sends meanwhile; `None` for none.
        comment: The comment.
    """

    after_chunks: int | None = None
    seconds: float | None = None
    heartbeat: float | None = None
    comment: str = ": keep-alive"

    def edit(self, reply: Reply) -> None:
        """Insert the pause."""
        reply.put(self.after_chunks, Pause(self.seconds, self.heartbeat, self.comment))


@dataclass(frozen=True, slots=True)
class Cut(Fault):
    """Close the connection in the middle of the answer.

    Attributes:
        after_chunks: After how many chunks; 0 after the headers, `None` before them.
        reset: By RST; `False` for FIN.
    """

    after_chunks: int | None = None
    reset: bool = True

    def edit(self, reply: Reply) -> None:
        """Insert the hang-up."""
        reply.put(self.after_chunks, Hangup(self.reset))


@dataclass(frozen=True, slots=True)
class ErrorInStream(Fault):
    """Send an error inside a 200 stream; to a request for a whole answer, as a 200 body.

    Attributes:
        after_chunks: After how many chunks.
        shape: `"object"` for `{"error": {...}}`, `"text"` for `{"error": "..."}`, `"event"` for an
            event named `error` whose data is the error, `"flat"` for `{"object": "error", ...}`.
        message: The error's message.
        type: The error's type.
        code: The error's code: text, or a status as some servers send it.
        done: Whether `[DONE]` follows.
    """

    after_chunks: int = 1
    shape: Literal["object", "text", "event", "flat"] = "object"
    message: str = "The server had an error while it made the answer."
    type: str = "server_error"
    code: str | int | None = None
    done: bool = False

    def edit(self, reply: Reply) -> None:
        """Replace all that follows the given chunk by the error."""
        # The four shapes that clients meet: OpenAI's object, a bare text, an SSE event named
        # "error" whose data is the error itself, and "flat", as vLLM's older versions send it.
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        data: dict[str, Any] = {"error": error}
        if self.shape == "text":
            data = {"error": self.message}
        elif self.shape == "flat":
            data = {"object": "error", **error}
        elif self.shape == "event":
            data = error
        if not reply.sse:
            reply.replace(msgspec.json.encode(data), JSON_TYPE)
            return
        event = encode_event(data)
        end = [b"event: error\n" + event if self.shape == "event" else event]
        if self.done:
            end.append(DONE)
        reply.steps[reply.place(self.after_chunks) :] = end
        # The error leaves with what comes before it; with a pace it would otherwise be one interval
        # late.
        reply.tail = len(end)


@dataclass(frozen=True, slots=True)
class MalformedJSON(Fault):
    """Break the JSON of one event: its second half is missing.

    Attributes:
        after_chunks: How many good chunks come before it.
    """

    after_chunks: int = 1

    def edit(self, reply: Reply) -> None:
        """Break the event, or the body if it is no stream."""
        if not reply.sse:
            reply.steps[:] = [reply.body[: len(reply.body) // 2]]
        elif events := reply.events():
            at = events[min(self.after_chunks, len(events) - 1)]
            event = reply.steps[at]
            reply.steps[at] = (
                # With the empty line that ends an event: the framing is right, and only the JSON is
                # broken.
                event[: len(event) // 2] + b"\n\n" if isinstance(event, bytes) else event
            )


@dataclass(frozen=True, slots=True)
class InvalidUTF8(Fault):
    """Put bytes that are not UTF-8 at the start of a content string.

    Attributes:
        after_chunks: How many good chunks come before it.
        data: The bytes.
    """

    after_chunks: int = 1
    data: bytes = b"\xff\xc3\x28"

    def edit(self, reply: Reply) -> None:
        """Break the event, or the body if it is no stream."""
        events = reply.events() if reply.sse else [0]
        if not reply.steps or not events:
            return
        at = events[min(self.after_chunks, len(events) - 1)]
        event = reply.steps[at]
        if isinstance(event, bytes):
            # Inside a string, where JSON allows any character: a decoder that does not check UTF-8
            # accepts it.
            for name in (b'"content":"', b'"text":"'):
                event = event.replace(name, name + self.data, 1)
            reply.steps[at] = event


@dataclass(frozen=True, slots=True)
class WrongContentType(Fault):
    """Send the answer under another content type.

    Attributes:
        content_type: The header's value; empty for no such header.
    """

    content_type: str = "text/plain"

    def edit(self, reply: Reply) -> None:
        """Change the header."""
        reply.headers["content-type"] = self.content_type
        if not self.content_type:
            del reply.headers["content-type"]


@dataclass(frozen=True, slots=True)
class EmptyBody(Fault):
    """Send the status and the headers of the answer, and a body of no bytes."""

    def edit(self, reply: Reply) -> None:
        """Drop the body."""
        # Only the body: status and headers still promise an answer, and the client has to notice.
        reply.steps.clear()
        reply.lead = reply.tail = 0


@dataclass(frozen=True, slots=True)
class GzipBomb(Fault):
    """Answer with a compressed body that is a thousand times as long once decompressed.

    Attributes:
        size: The length of the decompressed body, in bytes, rounded up to a MiB.
        status: The HTTP status.
        content_type: The content type; `text/event-stream` makes it one event without an end.
    """

    early: ClassVar[bool] = True

    size: int = 64 * 2**20
    status: int = 200
    content_type: str = JSON_TYPE

    def edit(self, reply: Reply) -> None:
        """Replace the answer."""
        reply.status = self.status
        # Begins like a real answer, so that a reader decompresses on in search of the end of the
        # line, or of the string.
        start = b"data: " if "event-stream" in self.content_type else b'{"id":"'
        reply.replace(_bomb(start, -(-self.size // 2**20)), self.content_type)
        reply.headers["content-encoding"] = "gzip"


# A test sends the same bomb to every attempt: it is compressed once.
@lru_cache(maxsize=4)
def _bomb(start: bytes, blocks: int) -> bytes:
    """A gzip stream of `start` and so many MiB of the letter x.

    A block that was flushed in full can be repeated without compressing it again. The stream has no
    end marker: a client that reads that far has failed the test already.
    """
    compressor = zlib.compressobj(9, wbits=31)
    head = compressor.compress(start) + compressor.flush(zlib.Z_FULL_FLUSH)
    block = compressor.compress(b"x" * 2**20) + compressor.flush(zlib.Z_FULL_FLUSH)
    return head + block * blocks
