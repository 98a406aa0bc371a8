"""What the limiter costs and how much of a limit it uses, beside plain aiolimiter.

Run ``python -m benchmarks.bench_limiter``; no network. Every figure is the best of several runs in
one process. Waiting is measured with limits so high that only the bookkeeping takes time; the use
of a limit is measured on a loop whose time jumps, against a strict sliding window.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiolimiter

from benchmarks.bench import Bench
from benchmarks.results import Figure, Goal
from konko_async import RateLimit
from konko_async.limits import Lane, Limiter
from konko_async.testing import run_with_jumping_time

HUGE = 1e12
EVERYTHING = {"requests_per_minute": HUGE, "tokens_per_minute": HUGE, "max_concurrency": 100}


def make_lane(**settings: Any) -> Lane:
    return Limiter(RateLimit(**settings)).lane("model", "key")


async def free_path(lane: Lane, count: int = 50_000) -> float:
    """CPU seconds per admission that needs no waiting, with settling and release."""
    start = time.process_time()
    for _ in range(count):
        permit = lane.try_admit(500)
        assert permit is not None
        permit.settle(400)
        permit.release(latency=0.1)
    return (time.process_time() - start) / count


async def free_awaited(lane: Lane, count: int = 50_000) -> float:
    start = time.process_time()
    for _ in range(count):
        permit = await lane.admit(500)
        permit.settle(400)
        permit.release(latency=0.1)
    return (time.process_time() - start) / count


async def free_aiolimiter(count: int = 50_000) -> float:
    limiter = aiolimiter.AsyncLimiter(HUGE, 60)
    start = time.process_time()
    for _ in range(count):
        await limiter.acquire()
    return (time.process_time() - start) / count


async def drain(
    acquire: Callable[[], Awaitable[None]], open_gate: Callable[[], None], count: int
) -> float:
    """CPU seconds per waiter, from the moment the first may go until all have gone."""
    tasks = [asyncio.create_task(acquire()) for _ in range(count)]  # type: ignore[arg-type]
    await asyncio.sleep(0)
    start = time.process_time()
    open_gate()
    await asyncio.gather(*tasks)
    return (time.process_time() - start) / count


async def waiting_for_places(count: int) -> float:
    lane = make_lane(**EVERYTHING)
    held = [lane.try_admit(1) for _ in range(100)]

    async def one() -> None:
        permit = await lane.admit(500)
        permit.settle(400)
        permit.release(latency=0.1)

    def open_gate() -> None:
        for permit in held:
            assert permit is not None
            permit.release()

    return await drain(one, open_gate, count)


async def waiting_for_the_rate(count: int) -> float:
    """All come while nothing may go; then one after the other may, at ten million a second."""
    lane = make_lane(requests_per_minute=6e8, tokens_per_minute=HUGE, burst=1)
    lane.observe_rejection(3.0)

    async def one() -> None:
        permit = await lane.admit(500)
        permit.release(latency=0.1)

    return await drain(one, lambda: None, count)


async def aiolimiter_waiting(count: int) -> float:
    limiter = aiolimiter.AsyncLimiter(1, 1e-7)
    await limiter.acquire()
    limiter._level += 3e7  # as full as it can be emptied in three seconds

    async def one() -> None:
        await limiter.acquire()

    return await drain(one, lambda: None, count)


async def headers(lane: Lane, count: int = 20_000) -> float:
    given = {
        f"x-ratelimit-{name}-{kind}": value
        for kind in ("requests", "tokens")
        for name, value in (("limit", "100000"), ("remaining", "99000"), ("reset", "6m0s"))
    }
    start = time.process_time()
    for _ in range(count):
        lane.observe_headers(given)
    return (time.process_time() - start) / count


async def use_of_a_window(limit: int, seconds: float) -> tuple[float, int]:
    """The share of the limit that is used, and the most that any minute saw."""
    lane, times = make_lane(requests_per_minute=limit), []
    loop = asyncio.get_running_loop()
    while loop.time() < seconds:
        permit = await lane.admit(1)
        times.append(loop.time())
        permit.release()
    most, start = 0, 0
    for index, at in enumerate(times):
        while times[start] <= at - 60:
            start += 1
        most = max(most, index - start + 1)
    return len(times) / (limit * seconds / 60), most


def best(make: Callable[[], Awaitable[float]], runs: int = 5) -> float:
    figures = []
    for _ in range(runs):
        gc.collect()
        figures.append(asyncio.run(make()))  # type: ignore[arg-type]
    return min(figures) * 1e6


def measure(bench: Bench) -> None:
    """Measure the cost per acquire, free and with waiters, and the use of a limit."""
    home = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {bench.server.client_core})
    many = bench.size(100_000)
    cases: list[tuple[str, Callable[[], Awaitable[float]], float | None]] = [
        ("free", lambda: free_path(make_lane(**EVERYTHING), bench.size(20_000)), 2),
        ("free, aiolimiter", lambda: free_aiolimiter(bench.size(20_000)), None),
        ("10,000 wait for places", lambda: waiting_for_places(bench.size(10_000)), 6),
        ("10,000 wait for the rate", lambda: waiting_for_the_rate(bench.size(10_000)), 6),
        ("10,000 wait, aiolimiter", lambda: aiolimiter_waiting(bench.size(10_000)), None),
        ("100,000 wait for places", lambda: waiting_for_places(many), 8),
        ("100,000 wait for the rate", lambda: waiting_for_the_rate(many), 8),
    ]
    if bench.quick:  # those of 100,000 take the longest
        cases = [case for case in cases if not case[0].startswith("100,000")]
    samples: dict[str, list[float]] = {what: [] for what, _, _ in cases}
    try:
        for turn in range((bench.rounds or (1 if bench.quick else 4)) + 1):
            for what, make, _ in cases:
                gc.collect()
                took = asyncio.run(make()) * 1e6  # type: ignore[arg-type]
                samples[what].extend([took] if turn else [])
        used, most = run_with_jumping_time(use_of_a_window(10_000, 600))
    finally:
        os.sched_setaffinity(0, home)
    for what, _, limit in cases:
        who = "aiolimiter" if "aiolimiter" in what else "konko_async"
        label, unit = what.removesuffix(", aiolimiter"), "µs CPU per acquire"
        bench.results.figures.append(Figure("limiter", who, label, unit, samples[what]))
        if limit is not None:
            bench.results.goals.append(Goal("limiter", what, samples[what], limit, unit=unit))
    share = Goal("limiter", "use of 10,000 a minute", [used * 100], 98, at_least=True, unit="%")
    over = Goal("limiter", "requests beyond it in any minute", [max(0, most - 10_000)], 0)
    bench.results.goals.extend((share, over))


def main() -> None:
    print(f"{'free path, µs of CPU per call':48}{'measured':>10}{'goal':>8}")
    auto = {**EVERYTHING, "max_concurrency": "auto"}
    rows: list[tuple[str, Callable[[], Awaitable[float]], str]] = [
        ("nothing limited", lambda: free_path(make_lane()), "2"),
        ("requests, tokens and places", lambda: free_path(make_lane(**EVERYTHING)), "2"),
        ("the same, places by 'auto'", lambda: free_path(make_lane(**auto)), ""),
        ("await admit() instead", lambda: free_awaited(make_lane(**EVERYTHING)), ""),
        ("aiolimiter: acquire()", free_aiolimiter, ""),
        ("six x-ratelimit headers read", lambda: headers(make_lane(requests_per_minute=1e5)), ""),
    ]
    for name, make, goal in rows:
        print(f"  {name:46}{best(make):10.2f}{goal:>8}")
    print("\nwaiting, µs of CPU per waiter (with its task switch)")
    for count, goal, runs in ((10_000, "8", 5), (100_000, "12", 3)):
        for name, wait, aim in (
            ("places", waiting_for_places, goal),
            ("the rate", waiting_for_the_rate, goal),
            ("aiolimiter", aiolimiter_waiting, ""),
        ):
            figure = best(lambda w=wait, n=count: w(n), runs)  # type: ignore[misc]
            print(f"  {f'{count:,} wait for {name}':46}{figure:10.2f}{aim:>8}")
    print("\nrequests, strict sliding window of 60 s, 10 minutes: used, most in any minute")
    for limit in (10, 60, 500, 10_000):
        used, most = run_with_jumping_time(use_of_a_window(limit, 600))
        print(f"  {f'limit {limit:,}':46}{used:10.1%}{most:8,}")


if __name__ == "__main__":
    main()
