"""What a blocking call costs beyond the same call of the asynchronous client.

Run ``python -m benchmarks.bench_blocking``, or ``python -m benchmarks --only blocking``. Both
clients make calls one after the other, in turn, to the load server in another process. A sample is
the difference of the fastest calls: whatever else a machine does only adds to a call. As for all
rivals, this process stays on one core, and the server on another.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from benchmarks.bench import Bench
from benchmarks.load import Server
from benchmarks.results import Goal, Results
from benchmarks.scenes import MODEL, Scene
from konko_async import AsyncKonko
from konko_async.blocking import Konko

ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
LIMIT = 60.0  # µs


async def awaited(url: str, count: int) -> list[float]:
    """Return the seconds of each call."""
    found = []
    async with AsyncKonko("key", url) as client:
        create = client.chat.completions.create
        for _ in range(count):
            began = time.perf_counter()
            await create(**ASK)
            found.append(time.perf_counter() - began)
    return found


def blocked(url: str, count: int) -> list[float]:
    """Return the seconds of each call."""
    found = []
    with Konko("key", url) as konko:
        for _ in range(count):
            began = time.perf_counter()
            konko.chat.completions.create(**ASK)
            found.append(time.perf_counter() - began)
    return found


def measure(bench: Bench) -> None:
    """Measure rounds in turn; one sample is the difference of the fastest calls of a pair."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {bench.server.client_core})
    try:
        samples = rounds(bench)
    finally:
        os.sched_setaffinity(0, before)
    bench.results.goals.append(
        Goal("blocking", "a blocking call beyond an awaited one", samples, LIMIT, unit="µs")
    )


def rounds(bench: Bench) -> list[float]:
    """Return a sample of each round, in microseconds."""
    url = bench.server.url(Scene(size=1_200))
    count = bench.size(500)
    samples = []
    for turn in range((bench.rounds or (8 if bench.quick else 20)) + 1):
        fast, slow = asyncio.run(awaited(url, count)), blocked(url, count)
        if turn:  # the first round imports, and fills caches
            samples.append((min(slow) - min(fast)) * 1e6)
        print(".", end="", file=sys.stderr, flush=True)
    return samples


def main() -> None:
    """Print the figures."""
    results = Results()
    with Server() as server:
        measure(Bench(server, results, []))
    (goal,) = results.goals
    print(f"\na blocking call takes {min(goal.samples):.1f} µs more (median {goal.value:.1f} µs)")


if __name__ == "__main__":
    main()
