"""One stream whose tokens come 20 at a time: what a chunk costs where decoding counts most.

The writes come at a pace that lets a fast reader take each as it comes, as from a batching server;
"flood" is the same as fast as the socket takes it, where reads grow to hundreds of events.
"""

from __future__ import annotations

from benchmarks.bench import Bench, per_unit
from benchmarks.scenes import Scene

OURS = ("ours", "ours_text", "ours_plain", "hand", "floor")
PEERS = ("ours", "openai", "openai_aiohttp", "konko", "litellm")
PACE = 100_000  # tokens a second


def measure(bench: Bench) -> None:
    """Measure the CPU per chunk."""
    unit = "µs CPU per chunk"
    scene = Scene(chunks=bench.size(20_000), write=20, pace=PACE)
    rivals = bench.taking_part(*OURS)
    rounds = bench.turns(rivals, "streams", scene, 10 if bench.quick else 30, streams=1)
    found = bench.figures("burst", "20 a write", unit, rounds, per_unit)
    bench.ratios(
        found, ("ours", "hand", 1.10), ("ours_text", "hand", 0.85), ("ours_plain", "hand", None)
    )

    rivals = bench.taking_part(*PEERS)
    if len(rivals) > 1:
        scene = Scene(chunks=bench.size(5_000), write=20, pace=PACE)
        rounds = bench.turns(rivals, "streams", scene, 4 if bench.quick else 10, streams=1)
        found = bench.figures("burst", "beside peers", unit, rounds, per_unit)
        bench.ratios(
            found,
            ("openai", "ours", 40), ("konko", "ours", 40),
            ("openai_aiohttp", "ours", None), ("litellm", "ours", None),
        )  # fmt: skip

    scene = Scene(chunks=bench.size(40_000), write=20)
    rivals = bench.taking_part(*OURS)
    rounds = bench.turns(rivals, "streams", scene, 10 if bench.quick else 20, streams=1)
    found = bench.figures("burst", "flood", unit, rounds, per_unit)
    bench.ratios(found, ("ours", "hand", None), ("ours_text", "hand", None))
