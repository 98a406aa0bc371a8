"""Counts durations in bounded memory, for percentiles and plots."""

from __future__ import annotations

import math
from typing import Any, Final

__all__ = ["Histogram"]

# A bucket ends 12 % above its beginning (10 ** (1 / 20)), so its middle is within 6 % of all in it.
_PER_DECADE: Final = 20
_LOWEST: Final = 1e-3
_BUCKETS: Final = 7 * _PER_DECADE  # 1 ms to 10,000 s
# Worked out once, so that add(), which runs for every call, takes one logarithm and no division.
_SCALE: Final = _PER_DECADE / math.log(10)
_SHIFT: Final = -math.log(_LOWEST) * _SCALE


class Histogram:
    """Counts of durations in buckets of equal ratio, 20 to a decade: within 6 % of the truth.

    Attributes:
        counts: one number per bucket; bucket i holds ``edge(i) <= seconds < edge(i + 1)``. The
            first also holds what is below a millisecond, the last what is above 10,000 s.
        total: how many there are.
        sum: of them, in seconds.
        max: the longest, in seconds.
    """

    __slots__ = ("counts", "max", "sum", "total")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.total = 0
        self.sum = 0.0
        self.max = 0.0

    @staticmethod
    def edge(bucket: int) -> float:
        """Return where a bucket begins, in seconds."""
        return _LOWEST * 10 ** (bucket / _PER_DECADE)

    def add(self, seconds: float) -> None:
        """Count a duration."""
        # 0 has no logarithm: whatever is not above the lowest edge goes into the first bucket.
        bucket = int(math.log(seconds) * _SCALE + _SHIFT) if seconds > _LOWEST else 0
        self.counts[bucket if bucket < _BUCKETS else -1] += 1
        self.total += 1
        self.sum += seconds
        self.max = max(self.max, seconds)

    @property
    def mean(self) -> float | None:
        """The mean in seconds; None if it is empty."""
        return self.sum / self.total if self.total else None

    def percentile(self, share: float) -> float | None:
        """Return the duration below which ``share`` (0 to 1) of all lie, in seconds.

        It is the middle of its bucket, and never above the longest; None if it is empty.
        """
        if not self.total:
            return None
        wanted, seen = share * self.total, 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                middle = self.edge(bucket) * 10 ** (0.5 / _PER_DECADE)
                # The middle of the last bucket may lie above the longest duration that was counted.
                return min(middle, self.max)
        return self.max

    def copy(self) -> Histogram:
        """Return an independent copy."""
        copy = Histogram()
        copy.counts = self.counts.copy()
        copy.total, copy.sum, copy.max = self.total, self.sum, self.max
        return copy

    def summary(self) -> dict[str, Any]:
        """Return it as builtins: the figures, and the buckets that are not empty."""
        return {
            "count": self.total,
            "mean": self.mean,
            "p50": self.percentile(0.5),
            "p90": self.percentile(0.9),
            "p99": self.percentile(0.99),
            "max": self.max if self.total else None,
            "buckets": [
                {"from": self.edge(bucket), "to": self.edge(bucket + 1), "count": count}
                for bucket, count in enumerate(self.counts)
                if count
            ],
        }

    def __repr__(self) -> str:
        if not self.total:
            return "<Histogram empty>"
        return f"<Histogram of {self.total}, median {self.percentile(0.5):.3g} s>"
