"""Whole answers, a hundred at once: what a request costs."""

from __future__ import annotations

from benchmarks.bench import Bench, per_unit
from benchmarks.scenes import Scene

OURS = ("ours", "ours_plain", "hand", "pyreqwest", "floor")
PEERS = ("ours", "openai_aiohttp", "openai", "konko", "litellm")
AT_ONCE, REQUESTS, SIZE = 100, 5_000, 1_200


def measure(bench: Bench) -> None:
    """Measure the CPU per request."""
    unit, scene = "µs CPU per request", Scene(size=SIZE)
    requests = REQUESTS // 2 if bench.quick else REQUESTS
    order = {"requests": bench.size(requests), "at_once": bench.size(AT_ONCE)}
    rounds = bench.turns(
        bench.taking_part(*OURS), "wholes", scene, 8 if bench.quick else 20, **order
    )
    found = bench.figures("whole", "100 at once", unit, rounds, per_unit)
    bench.ratios(
        found, ("ours", "hand", 0.60), ("ours_plain", "hand", 0.45), ("ours", "pyreqwest", 2.0)
    )

    rivals = bench.taking_part(*PEERS)
    if len(rivals) > 1:
        order["requests"] = bench.size(REQUESTS // 5)  # some take a hundred times as long
        rounds = bench.turns(rivals, "wholes", scene, 3 if bench.quick else 6, **order)
        found = bench.figures("whole", "beside peers", unit, rounds, per_unit)
        bench.ratios(
            found,
            ("openai_aiohttp", "ours", 18), ("konko", "ours", None),
            ("openai", "ours", None), ("litellm", "ours", None),
        )  # fmt: skip
