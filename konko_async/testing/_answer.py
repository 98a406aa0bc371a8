"""Scripted HTTP answers as frozen values, with everything that can go wrong with them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from konko_async.testing import _raw
from konko_async.testing._faulty import Faulty
from konko_async.testing._raw import Framing, Headers, Piece
from konko_async.testing._shape import Shape
from konko_async.testing._steps import How

_MODEL: Final = "codellama/codellama-13b-instruct"
_SSE: Final = "text/event-stream"
_JSON: Final = "application/json"
_NEWLINES: Final = ("\n", "\r\n", "\r")


@dataclass(frozen=True, slots=True)
class Answer(Faulty):
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
        pieces: tuple[Piece, ...] = (data,) if isinstance(data, bytes) else tuple(data)
        own = [("Content-Type", content_type)]
        if gzip:
            pieces = _raw.gzipped(pieces)
            own.append(("Content-Encoding", "gzip"))
        shape = Shape(
            start_line=_raw.status_line(status),
            headers=(*own, *_raw.pairs(headers)),
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
        return cls(Shape(start_line=data), closes=closes)

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
