"""A thousand streams of 50 tokens a second each: what a chunk costs where the sockets cost most."""

from __future__ import annotations

from benchmarks.bench import Bench, in_window, per_unit
from benchmarks.scenes import Scene

OURS = ("ours", "ours_text", "ours_plain", "hand", "floor")
PEERS = ("ours", "openai_aiohttp")
STREAMS, PACE = 1_000, 50


def measure(bench: Bench) -> None:
    """Measure the CPU per chunk: of whole streams, and while all of them are open."""
    unit = "µs CPU per chunk"
    chunks = 60 if bench.quick else 100
    scene = Scene(chunks=chunks, pace=PACE)
    order = {"streams": bench.size(STREAMS), "window": 0.5 * chunks / PACE}
    rivals = bench.taking_part(*(OURS if not bench.quick else ("ours", "ours_text", "hand")))
    rounds = bench.turns(rivals, "streams", scene, 4 if bench.quick else 8, **order)
    found = bench.figures("paced", "whole streams", unit, rounds, per_unit)
    # The bare protocol tells its count at the end only.
    steady = {name: done for name, done in rounds.items() if name != "floor"}
    open_ = bench.figures("paced", "once open", unit, steady, in_window)
    for figures, goal in ((found, 0.75), (open_, None)):
        bench.ratios(
            figures,
            ("ours", "hand", goal),
            ("ours_text", "hand", None),
            ("ours_plain", "hand", None),
            ("ours", "floor", 2.4 if goal else None),
        )

    rivals = bench.taking_part(*PEERS)
    if len(rivals) > 1:
        rounds = bench.turns(rivals, "streams", scene, 1 if bench.quick else 4, **order)
        found = bench.figures("paced", "beside peers", unit, rounds, per_unit)
        bench.ratios(found, ("openai_aiohttp", "ours", 7))
