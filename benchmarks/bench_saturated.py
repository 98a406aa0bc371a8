"""4,000 streams that offer 200,000 tokens a second, more than anyone reads: chunks per second.

A reader that falls behind finds several events in a read, which helps it; that is so for everyone.
"""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, per_unit
from benchmarks.rivals.table import RIVALS
from benchmarks.scenes import Scene

EVERYONE = ("ours", "ours_text", "hand", "floor")
PEERS = ("ours", "openai_aiohttp")
STREAMS, CHUNKS, PACE = 4_000, 60, 50


def throughput(done: dict[str, Any]) -> float:
    """Return chunks per second."""
    return done["units"] / done["wall"]


def measure(bench: Bench) -> None:
    """Measure the throughput, and the CPU per chunk."""
    scene = Scene(chunks=CHUNKS, pace=PACE)
    streams = bench.size(STREAMS)
    for names, count, prefix in ((EVERYONE, 6, ""), (PEERS, 2, "beside peers, ")):
        rivals = bench.taking_part(*names)
        if len(rivals) < 2 or (prefix and bench.quick):
            continue
        rounds = bench.turns(rivals, "streams", scene, 2 if bench.quick else count, streams=streams)
        speed = bench.figures("saturated", f"{prefix}throughput", "chunks/s", rounds, throughput)
        bench.figures("saturated", f"{prefix}cost", "µs CPU per chunk", rounds, per_unit)
        for base, limit in (("hand", 1.25), ("openai_aiohttp", 10.0)):
            if "ours" in speed and base in speed:
                what = f"ours / {RIVALS[base].short}"
                bench.results.compare(what, speed["ours"], speed[base], limit, at_least=True)
