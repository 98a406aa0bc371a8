"""The parts of an HTTP answer, before anything happens to it on the way."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from konko_async.testing._fault_server import http_bytes as _raw
from konko_async.testing._fault_server.http_bytes import Framing, Piece, Repeat


@dataclass(frozen=True, slots=True)
class ResponseShape:
    """Status line, headers, pieces of the body, and the framing that holds them."""

    start_line: bytes
    headers: tuple[tuple[str, str], ...] = ()
    payload: tuple[Piece, ...] = ()
    framing: Framing | Literal["raw"] = "raw"
    """`"raw"`: `start_line` holds every byte."""
    length_delta: int = 0
    """How many bytes too long the Content-Length is."""
    bad_chunk: tuple[int, bytes] | None = None
    """The number of a chunk, and what stands in the place of its size."""
    beats: tuple[int, Repeat] | None = None
    """From which offset on, and the comments to put there."""

    @property
    def endless(self) -> bool:
        """Whether it has no last byte."""
        beats = () if self.beats is None else (self.beats[1],)
        pieces = (*beats, *self.payload)
        return any(isinstance(piece, Repeat) and piece.times is None for piece in pieces)

    def segments(self) -> Iterator[Piece]:
        """The segments on the wire, in order; the first is the head."""
        if self.framing == "raw":
            yield self.start_line
            return
        start = _raw.head(self.start_line, (*self.headers, *self._framing_headers()))
        yield start
        offset, beats = len(start), self.beats
        for index, piece in enumerate(self.payload):
            # Between two pieces only: inside of a chunk a comment would break the framing.
            if beats is not None and offset >= beats[0]:
                yield from self._framed(beats[1])
                beats = None
            for segment in self._framed(piece, index):
                yield segment
                # Nobody asks for the offset after an endless piece: nothing comes after it.
                offset += 0 if beats is None else _raw.size_of(segment)
        if beats is not None:
            yield from self._framed(beats[1])
        if self.framing == "chunked":
            yield b"0\r\n\r\n"

    def _framing_headers(self) -> tuple[tuple[str, str], ...]:
        if self.framing == "chunked":
            return (("Transfer-Encoding", "chunked"),)
        if self.framing == "close":
            return (("Connection", "close"),)
        size = sum(_raw.size_of(piece) for piece in self.payload) + self.length_delta
        return (("Content-Length", str(size)),)

    def _framed(self, piece: Piece, index: int | None = None) -> Iterator[Piece]:
        if self.framing != "chunked":
            yield piece
            return
        bad = self.bad_chunk
        yield from _raw.chunk(piece, bad[1] if bad is not None and bad[0] == index else None)
