"""Builds the bytes of HTTP answers: payload pieces, and their framing on the wire.

Nothing here does I/O. A payload is a tuple of pieces, a piece being `bytes` or something as big as
it likes that is made while it is sent; framing turns them into the segments that go out, one write
each.
"""

import functools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Literal, TypeAlias

Framing: TypeAlias = Literal["chunked", "close", "length"]
Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]

BLOCK: Final = 64 * 1024
"""Bytes that a piece made while it is sent is made in."""

_FILLER_BLOCK: Final = 1024 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same bytes again and again, in no more memory than one of them."""

    block: bytes
    times: int | None
    """`None`: for ever."""
    interval: float = 0.0
    """Seconds to wait before each."""

    @property
    def size(self) -> int:
        """The total size in bytes; raises ValueError if endless."""
        if self.times is None:
            raise ValueError("this answer never ends, so it has no size")
        return len(self.block) * self.times


@dataclass(frozen=True, slots=True)
class Late:
    """Bytes of known size that are computed only if they are ever sent."""

    size: int
    make: Callable[[], bytes]


Piece: TypeAlias = bytes | Repeat | Late


def size_of(piece: Piece) -> int:
    """The number of bytes of a piece."""
    return len(piece) if isinstance(piece, bytes) else piece.size


def blocks_of(piece: Piece) -> Iterator[bytes]:
    """The bytes of a piece, in blocks that fit in memory."""
    if isinstance(piece, bytes):
        yield piece
    elif isinstance(piece, Late):
        yield piece.make()
    elif piece.times is None:
        while True:
            yield piece.block
    else:
        for _ in range(piece.times):
            yield piece.block


def filler(fill: bytes, size: int | None) -> tuple[Piece, ...]:
    """`size` bytes of `fill` (one byte), or endlessly many, in blocks."""
    if size is None:
        return (Repeat(fill * BLOCK, None),)
    times, rest = divmod(size, BLOCK)
    return tuple(piece for piece in (Repeat(fill * BLOCK, times), fill * rest) if size_of(piece))


def status_line(status: int) -> bytes:
    """The first line of an answer, without its line end."""
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unknown"
    return f"HTTP/1.1 {status} {reason}".encode()


def head(start_line: bytes, headers: Iterable[tuple[str, str]]) -> bytes:
    """The status line, the header lines and the empty line."""
    # latin-1 maps each character to one byte, so that a test can send any byte in a header.
    lines = [start_line, *(f"{name}: {value}".encode("latin-1") for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunk(piece: Piece, size_line: bytes | None = None) -> Iterator[Piece]:
    """A piece as chunks of `Transfer-Encoding: chunked`; `size_line` instead of the true size."""
    if isinstance(piece, Repeat):
        yield Repeat(_chunk(piece.block, size_line), piece.times, piece.interval)
    elif isinstance(piece, Late):
        # Three segments: the bytes are made only if the sending gets that far.
        yield (size_line or b"%x" % piece.size) + b"\r\n"
        yield piece
        yield b"\r\n"
    else:
        yield _chunk(piece, size_line)


def _chunk(data: bytes, size_line: bytes | None) -> bytes:
    return (size_line or b"%x" % len(data)) + b"\r\n" + data + b"\r\n"


def without_tail(pieces: tuple[Piece, ...], drop: int) -> tuple[Piece, ...]:
    """The pieces without their last `drop` bytes."""
    kept = list(pieces)
    while drop and kept:
        last = kept.pop()
        size = size_of(last)
        if size > drop:
            if not isinstance(last, bytes):
                raise ValueError("only the part after what is made while it is sent can be dropped")
            kept.append(last[: size - drop])
            return tuple(kept)
        drop -= size
    if drop:
        raise ValueError("the body is shorter than what is to be dropped")
    return tuple(kept)


def gzipped(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Each piece compressed and flushed by itself, as a streaming server does; one gzip stream."""
    compress = zlib.compressobj(wbits=_GZIP)
    packed: list[Piece] = []
    for piece in pieces:
        if not isinstance(piece, bytes):
            raise TypeError("only an answer of known bytes can be compressed")
        # A sync flush ends at a byte, so that each piece can be decompressed when it has arrived.
        packed.append(compress.compress(piece) + compress.flush(zlib.Z_SYNC_FLUSH))
    tail = compress.flush()
    if not packed:
        return (tail,)
    # The end marker goes with the last piece: a write, and a chunk, of its own would be a further
    # event.
    last = packed.pop()
    return (*packed, last + tail if isinstance(last, bytes) else last)


def gzip_bomb(prefix: bytes, fill: bytes, size: int) -> tuple[Piece, ...]:
    """A gzip stream of `prefix` and then `fill` (one byte) up to `size` bytes, a thousandth as big.

    A block after a full flush refers to nothing before it, so its compressed form can be repeated;
    only the checksum at the very end depends on all of it, and is worked out if anybody reads that
    far.
    """
    times, rest = divmod(size - len(prefix), _FILLER_BLOCK)
    compress = zlib.compressobj(9, wbits=_GZIP)
    start = compress.compress(prefix + fill * rest) + compress.flush(zlib.Z_FULL_FLUSH)
    block = compress.compress(fill * _FILLER_BLOCK) + compress.flush(zlib.Z_FULL_FLUSH)
    # Raw, without a header: that of gzip has gone out with `start`. This is just the final block.
    end = zlib.compressobj(wbits=-zlib.MAX_WBITS).flush()
    trailer = functools.partial(_bomb_trailer, prefix + fill * rest, fill, times, size)
    return (start, Repeat(block, times), end, Late(8, trailer))


def _bomb_trailer(start: bytes, fill: bytes, times: int, size: int) -> bytes:
    checksum, block = zlib.crc32(start), fill * _FILLER_BLOCK
    for _ in range(times):
        checksum = zlib.crc32(block, checksum)
    # RFC 1952: CRC-32 and the length modulo 2**32, both little-endian.
    return checksum.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")


def event(data: str, *, newline: str, name: str | None = None) -> bytes:
    """One server-sent event."""
    lines = [f"event: {name}"] if name is not None else []
    lines += [f"data: {line}" for line in data.split("\n")]
    return (newline.join(lines) + newline * 2).encode()


def completion(
    text: str, *, model: str, finish_reason: str | None, usage: Mapping[str, Any] | None
) -> bytes:
    """The JSON of a `chat.completion` with one choice."""
    answer: dict[str, Any] = {
        "id": "chatcmpl-fault",
        "object": "chat.completion",
        "created": 1_702_453_635,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish_reason,
            }
        ],
    }
    if usage is not None:
        answer["usage"] = dict(usage)
    return _json(answer).encode()


def error(message: str, *, kind: str, code: str | None) -> bytes:
    """The JSON of an error."""
    said = {"message": message, "type": kind, "param": None, "code": code}
    return _json({"error": said}).encode()


def chunks(
    tokens: Iterable[str], *, model: str, finish_reason: str | None, usage: Mapping[str, Any] | None
) -> Iterator[str]:
    """The JSON of each `chat.completion.chunk`: role, tokens, finish_reason, usage."""
    base = {
        "id": "chatcmpl-fault",
        "object": "chat.completion.chunk",
        "created": 1_702_453_635,
        "model": model,
    }

    def choice(delta: Mapping[str, str], reason: str | None = None) -> str:
        return _json(base | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})

    yield choice({"role": "assistant", "content": ""})
    for token in tokens:
        yield choice({"content": token})
    if finish_reason is not None:
        yield choice({}, finish_reason)
    if usage is not None:
        yield _json(base | {"choices": [], "usage": dict(usage)})


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def pairs(headers: Headers | None) -> tuple[tuple[str, str], ...]:
    """Headers as pairs, so that a name may come twice."""
    if headers is None:
        return ()
    return tuple(headers.items()) if isinstance(headers, Mapping) else tuple(headers)
