"""4,000 streams that offer more than anyone reads: chunks per second on one core."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.scenes import Scene

EVERYONE = ("ours", "ours_text", "hand", "openai_aiohttp", "floor")
STREAMS, CHUNKS, PACE = 4_000, 100, 50


def throughput(done: dict) -> float:
    """Return chunks per second."""
    return done["units"] / done["wall"]


def measure(bench: Bench) -> None:
    rivals = bench.taking_part(*EVERYONE)
    scene = Scene(chunks=CHUNKS, pace=PACE)
    streams = bench.size(STREAMS)
    rounds = bench.turns(rivals, "streams", scene, 3 if bench.quick else 5, streams=streams)
    found = bench.figures("saturated", f"{streams:,} streams", "chunks per s", rounds, throughput)
    compare = bench.results.compare
    if "ours" in found and "hand" in found:
        compare("throughput: ours / hand-written", found["ours"], found["hand"], 0.90, at_least=True)
    if "ours" in found and "openai_aiohttp" in found:
        compare(
            "throughput: ours / openai + aiohttp",
            found["ours"], found["openai_aiohttp"], 8.0, at_least=True,
        )  # fmt: skip
