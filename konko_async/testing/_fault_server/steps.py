"""Plans how an answer is sent: steps over its segments, computed without I/O."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from konko_async.testing._fault_server.http_bytes import Piece, Repeat, blocks_of

How: TypeAlias = Literal["fin", "rst"]

HOWS: Final = ("fin", "rst")


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes, and let them leave before the next step."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SendPause:
    """Send nothing for this many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SendStall:
    """Send nothing until the peer leaves, the server closes, or `release` is called."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the connection, by FIN or by RST; the last step."""

    how: How


Step: TypeAlias = Send | SendPause | SendStall | HangUp
Mark: TypeAlias = tuple[int, SendPause | SendStall | HangUp]
"""A step to take once that many bytes have been sent."""


@dataclass(frozen=True, slots=True)
class SendPlan:
    """What happens to the bytes in transit, by offsets from the first byte of the status line."""

    marks: tuple[Mark, ...] = ()
    changes: tuple[tuple[int, int | None], ...] = ()
    """Offset and new value of a byte; `None` flips every bit of it."""
    sizes: tuple[int, ...] = ()
    """The sizes of the first writes."""
    every: int | None = None
    """The size of each write after those."""
    interval: float = 0.0
    """Seconds to wait between the writes that `sizes` or `every` make."""

    def steps(self, segments: Iterable[Piece]) -> Iterator[Step]:
        """Compute the steps that send `segments`, up to the hang-up if there is one."""
        offset, marks = 0, _Queue(self.marks)
        waits = self.interval > 0 and (self.every is not None or bool(self.sizes))
        for data in self._pieces(segments):
            if isinstance(data, SendPause):
                yield data
                continue
            # Between writes: a wait before the first one would delay the whole answer.
            if waits and offset:
                yield SendPause(self.interval)
            rest = data
            while rest:
                yield from marks.due(offset)
                if marks.hung_up:
                    return
                # A write is split at a mark, so that exactly so many bytes have left when it
                # applies.
                now, rest = marks.split(rest, offset)
                yield Send(self._changed(now, offset))
                offset += len(now)
        yield from marks.due(offset)

    def _pieces(self, segments: Iterable[Piece]) -> Iterator[bytes | SendPause]:
        """The writes: one for each segment, or in the sizes asked for."""
        if not self.sizes and self.every is None:
            yield from _paced(segments)
            return
        # Bytes are held over from segment to segment: sizes count bytes, and know nothing of
        # chunks.
        sizes, held = iter(self.sizes), b""
        wanted = next(sizes, self.every)
        for data in _paced(segments):
            if isinstance(data, SendPause):
                yield data
                continue
            held, start = held + data, 0
            while wanted is not None and len(held) - start >= wanted:
                yield held[start : start + wanted]
                start, wanted = start + wanted, next(sizes, self.every)
            held = held[start:]
            if wanted is None and held:
                yield held
                held = b""
        if held:
            yield held

    def _changed(self, data: bytes, offset: int) -> bytes:
        inside = [(at - offset, to) for at, to in self.changes if 0 <= at - offset < len(data)]
        if not inside:
            return data
        changed = bytearray(data)
        for at, value in inside:
            changed[at] = changed[at] ^ 0xFF if value is None else value
        return bytes(changed)


def _paced(segments: Iterable[Piece]) -> Iterator[bytes | SendPause]:
    for segment in segments:
        interval = segment.interval if isinstance(segment, Repeat) else 0.0
        for block in blocks_of(segment):
            if interval:
                yield SendPause(interval)
            yield block


class _Queue:
    """The marks that have not been reached yet, in order of their offsets."""

    def __init__(self, marks: Iterable[Mark]) -> None:
        # A stable sort: at one offset the order is the one in which the user asked for them.
        self._marks = sorted(marks, key=lambda mark: mark[0])
        self.hung_up = False

    def due(self, offset: int) -> Iterator[Step]:
        while self._marks and self._marks[0][0] <= offset and not self.hung_up:
            _, step = self._marks.pop(0)
            self.hung_up = isinstance(step, HangUp)
            yield step

    def split(self, data: bytes, offset: int) -> tuple[bytes, bytes]:
        """Split bytes at the next mark."""
        if not self._marks:
            return data, b""
        size = self._marks[0][0] - offset
        return data[:size], data[size:]
