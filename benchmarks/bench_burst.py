"""One stream whose tokens come in writes of 20: what a chunk costs where decoding counts most.

The writes come at a pace that lets a reader take each as it comes, as a batching server sends them;
"flood" is the same as fast as the socket takes it, where reads grow to hundreds of events.
"""

from __future__ import annotations

from benchmarks.bench import Bench, per_unit
from benchmarks.scenes import Scene

EVERYONE = ("ours", "ours_text", "ours_plain", "hand", "openai", "openai_aiohttp", "konko", "litellm", "floor")
FEW = ("ours", "ours_text", "ours_plain", "hand", "floor")


def measure(bench: Bench) -> None:
    rivals = bench.taking_part(*EVERYONE)
    scene = Scene(chunks=bench.size(5000), write=20, pace=50_000)
    rounds = bench.turns(rivals, "streams", scene, 12 if bench.quick else 24, streams=1)
    found = bench.figures("burst", "20 events a write", "µs CPU per chunk", rounds, per_unit)
    compare = bench.results.compare
    if "hand" in found:
        if "ours" in found:
            compare("typed chunks, everything on / hand-written", found["ours"], found["hand"], 1.10)
        if "ours_plain" in found:
            compare("typed chunks, plain / hand-written", found["ours_plain"], found["hand"])
        if "ours_text" in found:
            compare("text(), everything on / hand-written", found["ours_text"], found["hand"], 0.85)
    for name in ("konko", "openai", "openai_aiohttp", "litellm"):
        if name in found and "ours" in found:
            goal = 40.0 if name in {"konko", "openai"} else None
            compare(f"{found[name].who} / ours", found[name], found["ours"], goal, at_least=True)

    rivals = bench.taking_part(*FEW)
    scene = Scene(chunks=bench.size(40_000), write=20)
    rounds = bench.turns(rivals, "streams", scene, 6 if bench.quick else 12, streams=1)
    found = bench.figures("burst", "flood", "µs CPU per chunk", rounds, per_unit)
    for name in ("ours", "ours_text", "ours_plain"):
        if name in found and "hand" in found:
            compare(f"flood: {found[name].who} / hand-written", found[name], found["hand"])
