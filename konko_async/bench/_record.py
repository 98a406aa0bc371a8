"""The record of one request: its times, its tokens, and how it ended."""

from __future__ import annotations

from array import array
from itertools import pairwise

import msgspec

__all__ = ["RequestTimes"]


class RequestTimes(msgspec.Struct, frozen=True, kw_only=True):
    """One request of the measured part of a run. Holds no prompt and no answer.

    Attributes:
        started: seconds after the run began at which it was sent.
        intended: when it was due, with a request rate; None without.
        ended: when its answer had been read to the end, or it had failed.
        times: seconds after ``started`` of each chunk that brought a token; of a whole answer, of
            the answer. Chunks that one read from the socket brought have the same time.
        streamed: whether the answer was.
        input_tokens: of the prompt, by the server's usage; else what was meant; None: unknown.
        output_tokens: of the answer, by the server's usage, else the number of chunks.
        told: whether both are the server's.
        error: the kind of error that ended it, such as ``RateLimitError 429``; None: it went well.
        message: of that error.
    """

    started: float
    ended: float
    # An array rather than a list: a quarter of the memory for each chunk of a long run.
    times: array[float]
    intended: float | None = None
    streamed: bool = True
    input_tokens: int | None = None
    output_tokens: int = 0
    told: bool = False
    error: str | None = None
    message: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the request was answered."""
        return self.error is None

    @property
    def ttft(self) -> float | None:
        """Time to first token: seconds from sending to the first chunk that brought one."""
        return self.times[0] if self.streamed and self.times else None

    @property
    def e2el(self) -> float:
        """End-to-end latency: seconds from sending to the last token."""
        return self.times[-1]

    @property
    def tpot(self) -> float | None:
        """Time per output token, the first one excluded; None for less than two tokens."""
        if not self.streamed or self.output_tokens <= 1:
            return None
        # By tokens, not by chunks: one chunk may bring several.
        return (self.times[-1] - self.times[0]) / (self.output_tokens - 1)

    @property
    def itl(self) -> list[float]:
        """Inter-token latencies: seconds between one chunk with a token and the next."""
        if not self.streamed:
            return []
        return [after - before for before, after in pairwise(self.times)]

    @property
    def queued(self) -> float:
        """Seconds between when it was due and when it was sent; 0 without a request rate."""
        return 0.0 if self.intended is None else max(self.started - self.intended, 0.0)
