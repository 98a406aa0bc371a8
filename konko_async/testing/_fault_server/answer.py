"""Scripted HTTP answers as frozen values, with everything that can go wrong with them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

from konko_async.testing._fault_server import http_bytes as _raw
from konko_async.testing._fault_server.http_bytes import Framing, Headers, Piece, Repeat
from konko_async.testing._fault_server.shape import ResponseShape
from konko_async.testing._fault_server.steps import (
    HOWS,
    HangUp,
    How,
    Mark,
    Send,
    SendPause,
    SendPlan,
    SendStall,
    Step,
)

_MODEL: Final = "codellama/codellama-13b-instruct"
_SSE: Final = "text/event-stream"
_JSON: Final = "application/json"
_NEWLINES: Final = ("\n", "\r\n", "\r")


@dataclass(frozen=True, slots=True)
class Answer:
    r"""One HTTP response: its bytes, and how they are sent. Frozen; every method returns a new one.

    Make one with a class method, then add faults::

        Answer.stream(["Hel", "lo"]).cut(200, how="rst")
        Answer.whole("Hello").content_length(+10)
        Answer.stream(["a", "b"], newline="\r\n").split_every(1)

    A position `at_byte` counts from the first byte of the status line; a negative one from the end,
    and `len(answer)` means after the last byte. Change what the answer *is* (`content_length`,
    `bad_chunk_size`, `heartbeats`, `truncate_body`, `status_line`) before what happens at a
    position in it (`cut`, `stall`, `pause`, `corrupt`): the other order raises `ValueError`, as the
    positions would move.

    After the last byte the connection stays open for the next request, or is closed if `closes` is
    true.
    """

    shape: ResponseShape
    closes: bool = False
    """Whether a FIN follows the last byte."""
    plan: SendPlan = field(default_factory=SendPlan)

    # -- ways to make one --------------------------------------------------------------------------

    @classmethod
    def body(
        cls,
        data: bytes | Iterable[Piece] = b"",
        *,
        status: int = 200,
        content_type: str = _JSON,
        framing: Framing = "length",
        gzip: bool = False,
        headers: Headers | None = None,
    ) -> Self:
        """An answer with any body.

        Args:
            data: The body, or the pieces of it; each piece is one chunk and one write.
            status: The status code.
            content_type: The Content-Type header.
            framing: `"length"` (Content-Length), `"chunked"`, or `"close"` (the end of the
                connection is the end of the body).
            gzip: Whether to compress it, with a flush after each piece.
            headers: Further headers: a mapping, or pairs if a name comes twice.

        Raises:
            ValueError: `framing` is none of the three.
        """
        if framing not in ("chunked", "close", "length"):
            raise ValueError(f"framing is chunked, close or length, not {framing!r}")
        # Bytes first: they are an iterable too, of numbers.
        pieces: tuple[Piece, ...] = (data,) if isinstance(data, bytes) else tuple(data)
        own = [("Content-Type", content_type)]
        if gzip:
            pieces = _raw.gzipped(pieces)
            own.append(("Content-Encoding", "gzip"))
        shape = ResponseShape(
            start_line=_raw.status_line(status),
            headers=(*own, *_raw.pairs(headers)),
            # An empty piece would be a chunk of size 0, which ends a chunked body.
            payload=tuple(piece for piece in pieces if piece),
            framing=framing,
        )
        return cls(shape, closes=framing == "close")

    @classmethod
    def whole(
        cls,
        text: str = "Hello",
        *,
        usage: Mapping[str, Any] | None = None,
        finish_reason: str | None = "stop",
        model: str = _MODEL,
        framing: Framing = "length",
        gzip: bool = False,
        status: int = 200,
        headers: Headers | None = None,
    ) -> Self:
        """A chat completion in one piece of JSON.

        Args:
            text: The content of the message.
            usage: The token counts, e.g. `{"prompt_tokens": 1, ...}`; absent by default.
            finish_reason: Why it ended; `None` is sent as null.
            model: The model named in it.
            framing: See `body`.
            gzip: See `body`.
            status: The status code.
            headers: Further headers.
        """
        data = _raw.completion(text, model=model, finish_reason=finish_reason, usage=usage)
        return cls.body(data, status=status, framing=framing, gzip=gzip, headers=headers)

    @classmethod
    def stream(
        cls,
        tokens: Iterable[str] = ("Hel", "lo"),
        *,
        done: bool = True,
        finish_reason: str | None = "stop",
        usage: Mapping[str, Any] | None = None,
        model: str = _MODEL,
        framing: Framing = "chunked",
        newline: Literal["\n", "\r\n", "\r"] = "\n",
        content_type: str = _SSE,
        gzip: bool = False,
        status: int = 200,
        headers: Headers | None = None,
    ) -> Self:
        r"""A streamed chat completion: role, each token, the reason, the usage, `[DONE]`.

        Args:
            tokens: The deltas of choice 0.
            done: Whether `[DONE]` ends it.
            finish_reason: Why it ended; `None` leaves that event out.
            usage: If given, a last event without choices carries it.
            model: The model named in each event.
            framing: See `body`.
            newline: What ends a line: `"\n"`, `"\r\n"` or `"\r"`.
            content_type: The Content-Type header.
            gzip: See `body`.
            status: The status code.
            headers: Further headers.
        """
        data = _raw.chunks(tokens, model=model, finish_reason=finish_reason, usage=usage)
        return cls.events(
            [*data, *(["[DONE]"] if done else [])],
            framing=framing,
            newline=newline,
            content_type=content_type,
            gzip=gzip,
            status=status,
            headers=headers,
        )

    @classmethod
    def events(
        cls,
        data: Iterable[str],
        *,
        name: str | None = None,
        framing: Framing = "chunked",
        newline: Literal["\n", "\r\n", "\r"] = "\n",
        content_type: str = _SSE,
        gzip: bool = False,
        status: int = 200,
        headers: Headers | None = None,
    ) -> Self:
        r"""Any server-sent events, e.g. an error inside a stream.

        Args:
            data: The data of each event; a `"\n"` in it makes a further `data:` line.
            name: The `event:` field of each; none by default.
            framing: See `body`.
            newline: What ends a line: `"\n"`, `"\r\n"` or `"\r"`.
            content_type: The Content-Type header.
            gzip: See `body`.
            status: The status code.
            headers: Further headers.

        Raises:
            ValueError: `newline` is none of the three.
        """
        if newline not in _NEWLINES:
            raise ValueError(f"no line of server-sent events ends with {newline!r}")
        return cls.body(
            [_raw.event(each, newline=newline, name=name) for each in data],
            status=status,
            content_type=content_type,
            framing=framing,
            gzip=gzip,
            headers=headers,
        )

    @classmethod
    def error(
        cls,
        status: int,
        message: str = "scripted error",
        *,
        type: str = "server_error",  # the API's own name
        code: str | None = None,
        headers: Headers | None = None,
    ) -> Self:
        """An error as the API words it: `{"error": {"message", "type", "param", "code"}}`.

        Args:
            status: The status code.
            message: The error's message.
            type: The error's type.
            code: The error's code, e.g. `"insufficient_quota"`.
            headers: Further headers, e.g. `{"retry-after": "1"}`.
        """
        data = _raw.error(message, kind=type, code=code)
        return cls.body(data, status=status, headers=headers)

    @classmethod
    def raw(cls, data: bytes, *, closes: bool = True) -> Self:
        """Exactly these bytes, status line and all.

        Args:
            data: What is sent.
            closes: Whether a FIN follows; if not, the connection waits for its next request.
        """
        return cls(ResponseShape(start_line=data), closes=closes)

    @classmethod
    def hang_up(cls, how: How = "fin") -> Self:
        """No answer: the connection is closed as soon as it is accepted, before any request.

        A connection that was open already is closed when its next request has come.

        Args:
            how: `"fin"`, or `"rst"` for a reset.
        """
        return cls.raw(b"").cut(0, how=how)

    @classmethod
    def endless_event(
        cls,
        size: int | None = 1 << 30,
        *,
        framing: Framing = "chunked",
        headers: Headers | None = None,
    ) -> Self:
        """A stream whose one event is `size` bytes on one line, made while it is sent.

        Args:
            size: Bytes of data (1 GiB by default); no newline ever follows. `None`: endless.
            framing: See `body`; `"length"` needs a `size`.
            headers: Further headers.
        """
        pieces = (b"data: ", *_raw.filler(b"x", size))
        return cls.body(pieces, content_type=_SSE, framing=framing, headers=headers)

    @classmethod
    def gzip_bomb(
        cls,
        size: int = 1 << 30,
        *,
        prefix: bytes = b"",
        fill: bytes = b" ",
        content_type: str = _JSON,
        framing: Framing = "chunked",
        status: int = 200,
        headers: Headers | None = None,
    ) -> Self:
        """A compressed body that becomes `size` bytes in its reader; a thousandth of it is sent.

        Args:
            size: Bytes after decompression.
            prefix: How they begin, e.g. `b"data: "`.
            fill: The one byte they go on with.
            content_type: The Content-Type header.
            framing: See `body`.
            status: The status code.
            headers: Further headers.

        Raises:
            ValueError: `fill` is not one byte, or `size` is less than the prefix.
        """
        if len(fill) != 1 or size < len(prefix):
            raise ValueError("fill is one byte, and size at least the length of prefix")
        return cls.body(
            _raw.gzip_bomb(prefix, fill, size),
            status=status,
            content_type=content_type,
            framing=framing,
            headers=(("Content-Encoding", "gzip"), *_raw.pairs(headers)),
        )

    # -- what is wrong with it ---------------------------------------------------------------------

    def status_line(self, line: bytes) -> Self:
        """With another status line, e.g. `b"HTP/1.1 2OO"` (no line end in it)."""
        return self._reshaped(start_line=line)

    def content_length(self, delta: int) -> Self:
        """With a Content-Length that is `delta` bytes off.

        Too long (`delta` > 0): the connection closes after what there is. Too short: the rest
        follows all the same, and the connection stays open.

        Raises:
            ValueError: The framing is not `"length"`.
        """
        self._need("content_length", "length")
        # If the length is too large the client waits for the rest; the close is what it has to
        # notice.
        return replace(self._reshaped(length_delta=delta), closes=delta > 0 or self.closes)

    def bad_chunk_size(self, index: int = 0, size_line: bytes = b"XYZ") -> Self:
        """With garbage for the size of chunk number `index` (events are chunks, counted from 0).

        Raises:
            ValueError: The framing is not `"chunked"`, or there is no such chunk.
        """
        self._need("bad_chunk_size", "chunked")
        if not 0 <= index < len(self.shape.payload):
            raise ValueError(f"there is no chunk {index}, only {len(self.shape.payload)}")
        return self._reshaped(bad_chunk=(index, size_line))

    def truncate_body(self, drop: int = 8) -> Self:
        """Without the last `drop` bytes of the body, in valid framing.

        With `gzip=True` this is a truncated gzip stream in a response that ends as if all were
        well.

        Raises:
            ValueError: The body is shorter than that.
        """
        return self._reshaped(payload=_raw.without_tail(self.shape.payload, drop))

    def heartbeats(
        self,
        interval: float = 0.05,
        at_byte: int | None = None,
        *,
        times: int | None = None,
        comment: str = ": keep-alive",
    ) -> Self:
        """With SSE comments in its body as heartbeats: the server is alive, and no token arrives.

        Args:
            interval: Seconds before each comment.
            at_byte: Where; put off to the next chunk (or event), so that the framing stays right.
                `None`: right after the headers.
            times: How many, before the answer goes on; `None`: endless, the rest is never sent.
            comment: The line sent, an empty line after it.

        Raises:
            ValueError: The framing is not `"chunked"` or `"close"`, or the body is compressed.
        """
        self._need("heartbeats", "chunked", "close")
        # A plain comment in the middle of a gzip stream would be a broken stream, and no heartbeat.
        if any(name.lower() == "content-encoding" for name, _ in self.shape.headers):
            raise ValueError("a comment cannot go into a compressed body")
        beat = Repeat(f"{comment}\n\n".encode(), times, interval)
        return self._reshaped(beats=(0 if at_byte is None else self._position(at_byte), beat))

    # -- what happens on the way -------------------------------------------------------------------

    def cut(self, at_byte: int, how: How = "fin") -> Self:
        """The connection is closed when `at_byte` bytes have been sent; 0: in place of an answer.

        Args:
            at_byte: 0 to `len(answer)`, both included; negative: from the end.
            how: `"fin"`, or `"rst"` for a reset. Bytes that a slow reader has not taken from its
                kernel yet may be lost to it in a reset.

        Raises:
            ValueError: The position is outside, or `how` is neither.
        """
        if how not in HOWS:
            raise ValueError(f"a connection is cut by fin or rst, not {how!r}")
        return self._marked((self._position(at_byte), HangUp(how)))

    def stall(self, at_byte: int) -> Self:
        """Nothing is sent after `at_byte` bytes, and the connection stays open.

        Until the peer leaves, the server closes, or `FaultServer.release` lets the rest go.

        Raises:
            ValueError: The position is outside the answer.
        """
        return self._marked((self._position(at_byte), SendStall()))

    def pause(self, at_byte: int, seconds: float) -> Self:
        """Pause for some seconds after `at_byte` bytes, then resume.

        Raises:
            ValueError: The position is outside the answer.
        """
        return self._marked((self._position(at_byte), SendPause(seconds)))

    def corrupt(self, at_byte: int, value: int | None = None) -> Self:
        """Replace one byte.

        Args:
            at_byte: Which byte.
            value: 0 to 255; `None`: every bit of it flipped.

        Raises:
            ValueError: There is no such byte, or no such value.
        """
        at = self._position(at_byte, last=-1)
        if value is not None and value not in range(256):
            raise ValueError(f"{value} is not a byte")
        return replace(self, plan=replace(self.plan, changes=(*self.plan.changes, (at, value))))

    def split(self, sizes: Iterable[int]) -> Self:
        """Sent in writes of these sizes; what is left over is sent as it comes.

        Each write is a TCP segment of its own, as far as the kernel lets it.

        Raises:
            ValueError: A size is less than 1.
        """
        wanted = tuple(sizes)
        if any(size < 1 for size in wanted):
            raise ValueError("a write has at least one byte")
        return replace(self, plan=replace(self.plan, sizes=wanted))

    def split_every(self, size: int) -> Self:
        """Sent in writes of `size` bytes each (after those of `split`, if both are given).

        Raises:
            ValueError: `size` is less than 1.
        """
        return self.trickle(size, 0.0)

    def trickle(self, bytes_per_write: int = 1, interval: float = 0.01) -> Self:
        """Sent slowly: some bytes, a wait, some bytes; the headers too (slow loris).

        Args:
            bytes_per_write: Bytes in each write.
            interval: Seconds between two writes.

        Raises:
            ValueError: `bytes_per_write` is less than 1.
        """
        if bytes_per_write < 1:
            raise ValueError("a write has at least one byte")
        return replace(self, plan=replace(self.plan, every=bytes_per_write, interval=interval))

    # -- what comes of it --------------------------------------------------------------------------

    def steps(self) -> Iterator[Step]:
        """The steps of sending it, lazily: writes, pauses, stalls and at last a hang-up."""
        step: Step | None = None
        for step in self.plan.steps(self.shape.segments()):
            yield step
        # A cut has closed the connection already, perhaps by RST.
        if self.closes and not isinstance(step, HangUp):
            yield HangUp("fin")

    @property
    def size(self) -> int:
        """Bytes on the wire if nothing cuts it short; raises ValueError if endless."""
        return sum(_raw.size_of(segment) for segment in self.shape.segments())

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        # Python would ask `__len__`, and an answer of no bytes (`hang_up`) would count as none.
        return True

    @property
    def hangs_up_first(self) -> bool:
        """Whether a connection is closed before it has brought a request (see `hang_up`)."""
        return not self.shape.start_line and any(
            at == 0 and isinstance(step, HangUp) for at, step in self.plan.marks
        )

    @property
    def head_size(self) -> int:
        """Bytes up to the end of the headers; all of them for a `raw` answer."""
        return _raw.size_of(next(self.shape.segments()))

    @property
    def wire(self) -> bytes:
        """Every byte as sent if nothing cuts it short, corruptions included.

        Raises:
            ValueError: It never ends.
        """
        if self.shape.endless:
            raise ValueError("this answer never ends, so its bytes cannot be had")
        # Without marks, splits and pauses: they change when bytes are sent, and not which.
        steps = SendPlan(changes=self.plan.changes).steps(self.shape.segments())
        return b"".join(step.data for step in steps if isinstance(step, Send))

    def _need(self, what: str, *framings: Framing) -> None:
        if self.shape.framing not in framings:
            raise ValueError(f"{what} needs framing {' or '.join(framings)}")

    def _reshaped(self, **changes: Any) -> Self:
        # Positions are fixed offsets; bytes put in before them would move what they point at.
        if self.plan.marks or self.plan.changes:
            raise ValueError("say what the answer is before what happens at a position in it")
        return replace(self, shape=replace(self.shape, **changes))

    def _marked(self, mark: Mark) -> Self:
        return replace(self, plan=replace(self.plan, marks=(*self.plan.marks, mark)))

    def _position(self, at_byte: int, last: int = 0) -> int:
        """Resolve `at_byte` to an offset, which is at most the size plus `last`."""
        # An endless answer has no size to check against; a negative position needs one, and raises
        # below.
        if self.shape.endless and at_byte >= 0:
            return at_byte
        size = self.size
        position = at_byte + size if at_byte < 0 else at_byte
        if not 0 <= position <= size + last:
            raise ValueError(f"byte {at_byte} is outside an answer of {size} bytes")
        return position
