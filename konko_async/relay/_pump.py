"""From a source to a reader."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from konko_async.relay._source import Source

__all__ = ["Delivery", "Outcome", "ReaderGoneError", "Sink", "pump"]

Outcome = Literal["done", "gone"]


class ReaderGoneError(ConnectionError):
    """The reader has left."""


class Sink(Protocol):
    """Where frames go."""

    async def write(self, frames: bytes) -> None:
        """Write whole frames at once; waits while the reader's buffers are full.

        Raises:
            ConnectionError: the reader has left.
        """

    def gone(self) -> bool:
        """Whether the reader has left; cheap, asked several times a second."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How frames are handed to a reader.

    Attributes:
        heartbeat: seconds of silence after which a comment is sent. Default 15; None: none.
        flush_every: seconds; what arrives sooner after a write is written together with what
            follows, the first never. Default None: everything at once.
        look: seconds between looks at whether the reader has left. Default 0.25.
        write_timeout: seconds that one write may take before the reader counts as gone.
            Default 120; None: for ever.
    """

    heartbeat: float | None = 15.0
    flush_every: float | None = None
    look: float = 0.25
    write_timeout: float | None = 120.0


async def pump(source: Source, sink: Sink, delivery: Delivery) -> Outcome:
    """Write all frames of a source to a sink; the source is closed in the end.

    Returns:
        ``"gone"`` if the reader left before the end.
    """
    raise NotImplementedError
