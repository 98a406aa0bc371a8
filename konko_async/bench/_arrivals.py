"""Arrival times of requests that are sent at a rate."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

__all__ = ["arrivals"]


def arrivals(
    rate: float, burstiness: float = 1.0, *, number: int | None = None, seed: int = 0
) -> Iterator[float]:
    """Yield when each request is due, in seconds since the beginning.

    The gaps are drawn from a gamma distribution of shape ``burstiness`` and mean ``1 / rate``, and
    then, where the number is known, stretched so that the last request is due at ``number / rate``:
    vLLM does the same (``vllm/benchmarks/serve.py``, ``get_request``), so that the load is the
    same for every seed.

    Args:
        rate: requests a second.
        burstiness: 1: a Poisson process; less: bursts; ``inf``: all gaps alike.
        number: of requests; None: without end.
        seed: the same one gives the same times.
    """
    if number is None:
        yield from _running_sum(rate, burstiness, random.Random(seed))  # noqa: S311 - no secret
        return
    times = _running_sum(rate, burstiness, random.Random(seed))  # noqa: S311 - no secret
    found = [next(times) for _ in range(number)]
    # A random draw misses the rate by some per cent; the stretch makes runs comparable.
    # The guard: with a burstiness near 0 all gaps may underflow to 0.
    stretch = number / rate / found[-1] if found and found[-1] > 0 else 1.0
    yield from (time * stretch for time in found)


def _running_sum(rate: float, burstiness: float, source: random.Random) -> Iterator[float]:
    due = 0.0
    while True:
        # The limit of the gamma distribution, which gammavariate() cannot draw from.
        if burstiness == math.inf:
            due += 1 / rate
        else:
            due += source.gammavariate(burstiness, 1 / (rate * burstiness))
        yield due
