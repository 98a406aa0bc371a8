"""What a retry costs, and what it costs to leave a stream early.

Retry: the server refuses every second request with a 503 that names a wait of 1 ms, so that each
call takes two attempts; what the same calls cost without refusals is subtracted, round by round.
Leaving: a stream of 50 tokens a second is closed after its first token, which costs a connection.
"""

from __future__ import annotations

from benchmarks.bench import Bench, per_unit
from benchmarks.results import Figure
from benchmarks.rivals.table import RIVALS
from benchmarks.scenes import Scene

RETRYING = ("ours", "hand_tenacity", "openai_aiohttp")
LEAVING = ("ours", "hand", "openai_aiohttp")


def retry(bench: Bench) -> None:
    """Measure calls with and without a refusal, in turn."""
    rivals = bench.taking_part(*RETRYING)
    order = {"requests": bench.size(200), "at_once": 1}
    count = 4 if bench.quick else 10
    smooth = bench.turns(rivals, "wholes", Scene(size=1_200), count, **order)
    refused = bench.turns(rivals, "wholes", Scene(size=1_200, fail_gap=2), count, **order)
    found = {}
    for name in smooth:
        pairs = zip(smooth[name], refused[name], strict=True)
        added = [per_unit(second) - per_unit(first) for first, second in pairs]
        loop = {"loop": smooth[name][0]["loop"]}
        found[name] = Figure("cost", RIVALS[name].label, "a retry", "µs CPU", added, loop)
    bench.results.figures.extend(found.values())
    bench.ratios(found, ("ours", "hand_tenacity", 1.2), ("openai_aiohttp", "ours", None))


def measure(bench: Bench) -> None:
    """Measure both."""
    retry(bench)
    rivals = bench.taking_part(*LEAVING)
    order = {"requests": bench.size(200), "at_once": bench.size(20)}
    scene = Scene(chunks=500, pace=50)
    done = bench.turns(rivals, "leave", scene, 4 if bench.quick else 10, **order)
    found = bench.figures("cost", "leaving a stream", "µs CPU", done, per_unit)
    bench.ratios(found, ("ours", "hand", 1.0), ("openai_aiohttp", "ours", None))
