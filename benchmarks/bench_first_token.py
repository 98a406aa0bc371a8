"""Time to first token that the client adds: alone, and while 1,000 streams come.

From the call to its first token, less what the server took between the two; see
:func:`benchmarks.rounds.first_tokens`. Of that, sockets, wake-ups and the idle processor take what
they take of the bare protocol in the same rounds: the rest is the client's. The 1,000 streams bring
20 tokens a second each.
"""

from __future__ import annotations

from typing import Any

from benchmarks import stats
from benchmarks.bench import Bench
from benchmarks.results import Figure, Goal
from benchmarks.scenes import Scene

EVERYONE = ("ours", "hand", "floor", "openai_aiohttp")
LOAD, PACE = 1_000, 20


def at(share: float):
    """Return what reads a percentile, in ms, of a round."""

    def read(done: dict[str, Any]) -> float:
        return stats.percentile(done["added_us"], share) / 1e3

    return read


def measure(bench: Bench) -> None:
    """Measure median and 99th percentile of the time added."""
    scene = Scene(chunks=3, delay=0.005, stamp=True)
    for load, rounds in ((0, 6), (bench.size(LOAD), 4)):
        # The load lasts for longer than the probes; it is broken off after them.
        url = bench.server.url(Scene(chunks=600 * PACE, pace=PACE))
        order = {"probes": bench.size(200 if load else 150), "load": load, "load_url": url}
        rivals = bench.taking_part(*(EVERYONE if load == 0 else EVERYONE[:3]))
        done = bench.turns(rivals, "first_tokens", scene, 2 if bench.quick else rounds, **order)
        where = f"under {load:,} streams" if load else "alone"
        middle = bench.figures("first_token", f"median, {where}", "ms added", done, at(0.5))
        worst = bench.figures("first_token", f"p99, {where}", "ms added", done, at(0.99))
        for found, what, limit in (
            (middle, f"median, {where}", 0.25),
            (worst, f"p99, {where}", 1.0 if load else None),
        ):
            add(bench, found, f"added, {what}", limit)


def add(bench: Bench, found: dict[str, Figure], what: str, limit: float | None) -> None:
    """Add what is reported of ours: in all, and beyond the bare protocol in the same round."""
    ours, floor = found["ours"].samples, found.get("floor")
    if floor is not None:
        own = [one - bare for one, bare in zip(ours, floor.samples, strict=True)]
        bench.results.goals.append(Goal("first_token", f"{what}: ours", own, limit, unit="ms"))
        limit = None
    goal = Goal("first_token", f"{what}: ours and the sockets", ours, limit, unit="ms")
    bench.results.goals.append(goal)
