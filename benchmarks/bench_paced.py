"""A thousand streams of 50 tokens a second each: what a chunk costs where the sockets cost most."""

from __future__ import annotations

from benchmarks.bench import Bench, in_window, per_unit
from benchmarks.scenes import Scene

EVERYONE = ("ours", "ours_text", "ours_plain", "hand", "openai_aiohttp", "openai", "litellm", "floor")
STREAMS, CHUNKS, PACE = 1_000, 120, 50


def measure(bench: Bench) -> None:
    rivals = bench.taking_part(*EVERYONE)
    scene = Scene(chunks=CHUNKS, pace=PACE)
    order = {"streams": bench.size(STREAMS), "window": [0.9, CHUNKS / PACE * 0.95]}
    rounds = bench.turns(rivals, "streams", scene, 4 if bench.quick else 8, **order)
    found = bench.figures("paced", "whole streams", "µs CPU per chunk", rounds, per_unit)
    fast = {name: done for name, done in rounds.items() if all("window" in one for one in done)}
    steady = bench.figures("paced", "once open", "µs CPU per chunk", fast, in_window)
    compare = bench.results.compare
    for name, goal in (("ours", 1.10), ("ours_text", None), ("ours_plain", None)):
        if name in found and "hand" in found:
            what = f"{found[name].who} / hand-written"
            compare(what, found[name], found["hand"], goal)
            compare(f"{what}, once open", steady[name], steady["hand"])
    for name, goal in (("openai_aiohttp", 5.0), ("openai", None), ("litellm", None)):
        if name in found and "ours" in found:
            compare(f"{found[name].who} / ours", found[name], found["ours"], goal, at_least=True)
