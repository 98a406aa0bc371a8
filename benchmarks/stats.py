"""Medians, spreads and fits; no more of statistics than the tables need."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence


def middle(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and the quartiles around it."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return statistics.median(values), low, high


def interval(values: Sequence[float], times: int = 2000) -> tuple[float, float]:
    """Return the 95 % bootstrap confidence interval of the median."""
    draw = random.Random(1)  # the same interval for the same samples
    found = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(times))
    return found[int(times * 0.025)], found[int(times * 0.975)]


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratios of neighbouring rounds."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return b of the least-squares fit y = a·x^b: 0 is flat, 1 is linear."""
    logs_x, logs_y = [math.log(x) for x in xs], [math.log(y) for y in ys]
    return statistics.linear_regression(logs_x, logs_y).slope


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that that share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
