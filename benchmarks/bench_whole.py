"""Whole answers, a hundred at once: what a request costs."""

from __future__ import annotations

from benchmarks.bench import Bench, per_unit
from benchmarks.scenes import Scene

EVERYONE = ("ours", "ours_plain", "hand", "openai_aiohttp", "openai", "konko", "litellm", "pyreqwest")
AT_ONCE, REQUESTS, SIZE = 100, 1_000, 1_200


def measure(bench: Bench) -> None:
    rivals = bench.taking_part(*EVERYONE)
    order = {"requests": bench.size(REQUESTS), "at_once": AT_ONCE}
    rounds = bench.turns(rivals, "wholes", Scene(size=SIZE), 10 if bench.quick else 20, **order)
    found = bench.figures("whole", f"{AT_ONCE} at once", "µs CPU per request", rounds, per_unit)
    compare = bench.results.compare
    for name, goal in (("ours", 1.40), ("ours_plain", None)):
        if name in found and "hand" in found:
            compare(f"{found[name].who} / hand-written", found[name], found["hand"], goal)
    for name, goal in (("openai_aiohttp", 8.0), ("konko", 18.0), ("openai", None), ("litellm", None)):
        if name in found and "ours" in found:
            compare(f"{found[name].who} / ours", found[name], found["ours"], goal, at_least=True)
