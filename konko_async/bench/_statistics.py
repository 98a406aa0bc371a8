"""Means and percentiles as numpy defines them, from the standard library."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import msgspec

__all__ = ["Distribution", "percentile", "summarize"]

_WHOLE = 100.0


class Distribution(msgspec.Struct, frozen=True):
    """Statistics of a set of measurements, in their unit.

    Attributes:
        count: number of values, at least 1.
        mean: arithmetic mean.
        median: the 50th percentile.
        std: standard deviation of the population (``numpy.std``: divided by the count).
        percentiles: by percent.
        minimum: the smallest value.
        maximum: the largest value.
    """

    count: int
    mean: float
    median: float
    std: float
    percentiles: dict[float, float]
    minimum: float
    maximum: float


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile by linear interpolation, as ``numpy.percentile`` does.

    Args:
        ordered: the values, ascending, one at least.
        percent: 0 to 100.

    Raises:
        ValueError: there are no values, or percent is out of its range.
    """
    if not ordered or not 0 <= percent <= _WHOLE:
        raise ValueError(f"no {percent:g}th percentile of {len(ordered)} values")
    place = (len(ordered) - 1) * (percent / _WHOLE)
    below = math.floor(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    share, step = place - below, high - low
    # From the nearer end: so it never passes the further one, whatever is lost to rounding.
    return low + step * share if share < 0.5 else high - step * (1 - share)  # noqa: PLR2004 - the nearer half


def summarize(values: Iterable[float], percentiles: Iterable[float] = ()) -> Distribution | None:
    """Summarise values; None if there are none.

    Args:
        values: in any order.
        percentiles: which ones, each 0 to 100.

    Raises:
        ValueError: a percentile is out of its range.
    """
    ordered = sorted(values)
    if not ordered:
        return None
    return Distribution(
        len(ordered),
        # Rounding may carry the mean of equal values past them.
        min(max(statistics.fmean(ordered), ordered[0]), ordered[-1]),
        statistics.median(ordered),
        statistics.pstdev(ordered),
        {percent: percentile(ordered, percent) for percent in percentiles},
        ordered[0],
        ordered[-1],
    )
