"""Memory of open streams: the peak of resident memory while all of 1,000 or 10,000 are open.

Each sample is a fresh process on asyncio's own loop. The server's gate lets no stream go on before
all have begun, so that as many are open at once as the row says.
"""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.bench import Bench
from benchmarks.load import Worker
from benchmarks.results import Figure
from benchmarks.rivals.table import Rival
from benchmarks.scenes import Scene


def hold(bench: Bench, rival: Rival, streams: int) -> dict[str, Any]:
    """Return the memory of a fresh process that holds so many streams."""
    worker = Worker(rival, "asyncio", bench.server.client_core)
    try:
        # About 10,000 tokens a second in all, so that nobody falls far behind.
        scene = Scene(chunks=4, pace=max(1.0, 10_000 / streams), gate=streams)
        warm = bench.server.url(Scene(chunks=4))
        return worker.do("memory", bench.server, scene, streams=streams, warm_url=warm)
    finally:
        worker.close()


def measure(bench: Bench) -> None:
    """Measure the peak, and what a stream adds to the memory before."""
    cases = [(1_000, 3, ("ours", "hand", "openai_aiohttp", "floor"))]
    cases.append((10_000, 2, ("ours", "hand", "openai_aiohttp")))
    for number, rounds, names in cases[: 1 if bench.quick else 2]:
        streams = bench.size(number)
        peaks: dict[str, Figure] = {}
        added: dict[str, Figure] = {}
        done: dict[str, list[dict[str, Any]]] = {}
        rivals = bench.taking_part(*names)
        for _ in range(bench.rounds or (1 if bench.quick else rounds)):
            for rival in rivals:
                done.setdefault(rival.name, []).append(hold(bench, rival, streams))
                print(".", end="", file=sys.stderr, flush=True)
        for rival in rivals:
            found = done[rival.name]
            peaks[rival.name] = Figure(
                "memory",
                rival.label,
                f"peak, {streams:,} streams",
                "MB",
                [one["peak"] for one in found],
            )
            added[rival.name] = Figure(
                "memory", rival.label, f"added, {streams:,} streams", "kB per stream",
                [(one["peak"] - one["before"]) / streams * 1e3 for one in found],
            )  # fmt: skip
        for figures in (peaks, added):
            bench.results.figures.extend(figures.values())
            bench.ratios(figures, ("ours", "hand", 0.85), ("ours", "openai_aiohttp", 0.4))
