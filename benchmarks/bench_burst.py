"""One stream whose tokens come 20 at a time: what a chunk costs where decoding counts most.

Judged is a stream that comes as fast as it is taken, in writes of 20 events: the reader never
waits, and a read brings some writes at once. Told beside it: the same at a pace that lets the
reader take each write as it comes, as from a batching server. There the waking of the process for
each read is half of what the bare protocol, and a third of what hand-written code costs.
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
    rivals = bench.taking_part(*OURS)
    scene = Scene(chunks=bench.size(100_000), write=20)
    rounds = bench.turns(rivals, "streams", scene, 7 if bench.quick else 20, streams=1)
    found = bench.figures("burst", "20 a write, as fast as read", unit, rounds, per_unit)
    bench.ratios(
        found, ("ours", "hand", 0.70), ("ours_text", "hand", 0.55), ("ours_plain", "hand", None)
    )

    rivals = bench.taking_part(*PEERS)
    if len(rivals) > 1:
        scene = Scene(chunks=bench.size(10_000), write=20)
        rounds = bench.turns(rivals, "streams", scene, 4 if bench.quick else 10, streams=1)
        found = bench.figures("burst", "as fast as read, beside peers", unit, rounds, per_unit)
        bench.ratios(
            found,
            ("openai", "ours", 80), ("konko", "ours", 80),
            ("openai_aiohttp", "ours", None), ("litellm", "ours", None),
        )  # fmt: skip

    rivals = bench.taking_part(*OURS)
    scene = Scene(chunks=bench.size(20_000), write=20, pace=PACE)
    rounds = bench.turns(rivals, "streams", scene, 4 if bench.quick else 20, streams=1)
    found = bench.figures("burst", "20 a write, a read each", unit, rounds, per_unit)
    bench.ratios(found, ("ours", "hand", None), ("ours_text", "hand", None))
