"""What goes wrong with an answer: its faults, as methods that each return a new value."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self

from konko_async.testing import _raw
from konko_async.testing._raw import Framing, Repeat
from konko_async.testing._shape import Shape
from konko_async.testing._steps import HOWS, HangUp, How, Mark, Pause, Plan, Send, Stall, Step


@dataclass(frozen=True, slots=True)
class Faulty:
    """A response and its faults; `Answer` adds the ways to make one."""

    shape: Shape
    closes: bool = False
    """Whether a FIN follows the last byte."""
    plan: Plan = field(default_factory=Plan)

    # What is wrong with it.

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
        """Without the last `drop` bytes of the body, in framing that is whole.

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
        """With SSE comments in its body that say nothing: the server is alive and no token comes.

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
        if any(name.lower() == "content-encoding" for name, _ in self.shape.headers):
            raise ValueError("a comment cannot go into a compressed body")
        beat = Repeat(f"{comment}\n\n".encode(), times, interval)
        return self._reshaped(beats=(0 if at_byte is None else self._position(at_byte), beat))

    # What happens on the way.

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
        return self._marked((self._position(at_byte), Stall()))

    def pause(self, at_byte: int, seconds: float) -> Self:
        """Nothing is sent for some seconds after `at_byte` bytes; then it goes on.

        Raises:
            ValueError: The position is outside the answer.
        """
        return self._marked((self._position(at_byte), Pause(seconds)))

    def corrupt(self, at_byte: int, value: int | None = None) -> Self:
        """Another value for one byte.

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
        """Sent in writes of `size` bytes each (after those of `split`, if both are asked for).

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

    # What comes of it.

    def steps(self) -> Iterator[Step]:
        """What a server does to send it, lazily: writes, pauses, stalls and at last a hang-up."""
        step: Step | None = None
        for step in self.plan.steps(self.shape.segments()):
            yield step
        if self.closes and not isinstance(step, HangUp):
            yield HangUp("fin")

    @property
    def size(self) -> int:
        """Bytes on the wire if nothing cuts it short; `ValueError` if it never ends."""
        return sum(_raw.size_of(segment) for segment in self.shape.segments())

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
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
        steps = Plan(changes=self.plan.changes).steps(self.shape.segments())
        return b"".join(step.data for step in steps if isinstance(step, Send))

    def _need(self, what: str, *framings: Framing) -> None:
        if self.shape.framing not in framings:
            raise ValueError(f"{what} needs framing {' or '.join(framings)}")

    def _reshaped(self, **changes: Any) -> Self:
        if self.plan.marks or self.plan.changes:
            raise ValueError("say what the answer is before what happens at a position in it")
        return replace(self, shape=replace(self.shape, **changes))

    def _marked(self, mark: Mark) -> Self:
        return replace(self, plan=replace(self.plan, marks=(*self.plan.marks, mark)))

    def _position(self, at_byte: int, last: int = 0) -> int:
        """The offset meant by `at_byte`, which is at most the size plus `last`."""
        if self.shape.endless and at_byte >= 0:
            return at_byte
        size = self.size
        position = at_byte + size if at_byte < 0 else at_byte
        if not 0 <= position <= size + last:
            raise ValueError(f"byte {at_byte} is outside an answer of {size} bytes")
        return position
