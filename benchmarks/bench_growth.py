"""How cost grows: with the number of streams, the size of events, and the size of messages.

Rows of a batch grow in bench_batch.py. Streams: the same 20,000 tokens a second in all, spread over
more and more streams, CPU per chunk once all are open. Events: one stream, as fast as it is read.
Messages: whole answers to prompts of that size.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.bench import Bench, in_window, per_unit
from benchmarks.bench_memory import hold
from benchmarks.load import Unfit
from benchmarks.results import Curve
from benchmarks.rivals.table import RIVALS
from benchmarks.scenes import Scene

EVERYONE = ("ours", "hand")
MANY = 5_000
TOKENS = 20_000  # a second, all streams together
Case = tuple[float, str, Scene, dict[str, Any]]


def streams(bench: Bench) -> Iterable[Case]:
    """1 ... 10,000 streams."""
    numbers = (1, 10, 100, 1_000) if bench.quick else (1, 10, 100, 1_000, 10_000)
    for number in sorted({bench.size(number, 1) for number in numbers}):
        pace = TOKENS / number
        # The gate opens when all are there; then the window, and a rest for those out of step.
        scene = Scene(chunks=max(8, round(pace * 2)), pace=pace, gate=number)
        length = 0.5 * scene.chunks / pace
        order = {"streams": number, "window": length, "alone": number > MANY}
        yield number, "streams", scene, order


def events(bench: Bench) -> Iterable[Case]:
    """Events of 100 B ... 100 kB."""
    for size in (100, 300, 1_000, 3_000, 10_000, 30_000, 100_000):
        chunks = max(50, bench.size(min(20_000, 10_000_000 // size)))
        yield size, "streams", Scene(chunks=chunks, size=size), {"streams": 1}


def messages(bench: Bench) -> Iterable[Case]:
    """Messages of 1 ... 200 kB."""
    for size in (1_000, 3_000, 10_000, 30_000, 100_000, 200_000):
        order = {"requests": bench.size(300), "at_once": bench.size(20), "prompt": size}
        yield size, "wholes", Scene(size=1_200), order


def curve(bench: Bench, cases: Iterable[Case], x: str, y: str) -> None:
    """Measure one curve for everyone."""
    rivals = bench.taking_part(*EVERYONE)
    points: dict[str, list[tuple[float, float]]] = {rival.name: [] for rival in rivals}
    for at, kind, scene, order in cases:
        value = in_window if order.get("window") else per_unit
        rounds = 2 if bench.quick or scene.gate else 5
        for name, done in bench.turns(rivals, kind, scene, rounds, **order).items():
            fit = [one for one in done if not order.get("window") or one.get("window")]
            if not fit:
                raise Unfit(f"{name}: every round was over before its window")
            points[name].append((at, statistics.median(value(one) for one in fit)))
    for name, found in points.items():
        bench.results.curves.append(Curve("growth", RIVALS[name].label, x, y, found))


def memory(bench: Bench) -> None:
    """Measure the peak of resident memory, of a fresh process per point."""
    numbers = (1, 100, 1_000) if bench.quick else (1, 100, 1_000, 10_000)
    numbers = sorted({bench.size(number, 1) for number in numbers})
    for rival in bench.taking_part(*EVERYONE):
        points = [(number, hold(bench, rival, number)["peak"]) for number in numbers]
        bench.results.curves.append(Curve("growth", rival.label, "streams", "MB, peak", points))


def measure(bench: Bench) -> None:
    """Measure the four curves."""
    curve(bench, streams(bench), "streams", "µs CPU per chunk")
    memory(bench)
    curve(bench, events(bench), "bytes per event", "µs CPU per chunk")
    curve(bench, messages(bench), "bytes per message", "µs CPU per request")
