"""Where frames come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from konko_async import ChatStream
from konko_async.relay._format import Format, StopReason

__all__ = ["Source", "StreamSource"]


class Source(Protocol):
    """Frames of one stream, pulled by one reader.

    Attributes:
        headers: of the HTTP answer: the format's, and ``X-Stream-Id`` where there is one.
    """

    headers: Mapping[str, str]

    async def read(self) -> bytes | None:
        """Wait for frames, ready to be written; None at the end.

        Raises nothing but CancelledError: failures are frames.
        """

    def stop(self, reason: StopReason) -> None:
        """End the stream: the reader gets the final event that says why. Idempotent."""

    async def close(self) -> None:
        """Let go of everything; what is direct cancels its upstream call. Idempotent."""


class StreamSource:
    """A ChatStream, directly: whoever reads slowly holds the server up.

    Args:
        stream: open or not; if not, the first read opens it, and its failure is a frame.
        format: one for this stream alone.
    """

    def __init__(self, stream: ChatStream, format: Format) -> None:
        raise NotImplementedError
