"""Draws streams in servers' dialects by the hundred thousand, and counts what was misunderstood.

    python tests/soak/drawn_dialects.py --streams 1000000 --processes 2
    python tests/soak/drawn_dialects.py --first 4711 --streams 1      # one seed, and its small case

Each stream is drawn from its seed by ``konko_async.testing.dialects`` and read by the client as it
is, over pipes in memory. It must be understood exactly, or raise an error with a true beginning of
it. Prints a line of figures for each kind of outcome; those that must be 0 end the run with 1.
"""

# ruff: noqa: T201 - the figures are what it is for

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from dialect_kit import Judge, judge, report
from pipe_loop import run_on_pipes

from konko_async.testing.dialects import draw

_PORTION = 5_000  # streams of one client


def work(first: int, count: int) -> tuple[Counter[str], list[str]]:
    """Read some streams; return the counts, and small cases of what failed."""
    judged = Judge()
    run_on_pipes(judge(map(draw, range(first, first + count)), judged))
    return judged.counts, report(judged, most=2)


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    started = time.monotonic()
    end = options.first + options.streams
    portions = [(at, min(_PORTION, end - at)) for at in range(options.first, end, _PORTION)]
    counts: Counter[str] = Counter()
    cases: list[str] = []
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.processes, context) as pool:
        for found, lines in pool.map(work, *zip(*portions, strict=True)):
            counts += found
            cases += lines
    took = time.monotonic() - started
    print(f"{options.streams} streams from seed {options.first} in {took:.0f} s")
    for name in sorted(set(counts) - set(Judge.BAD)):
        print(f"{counts[name]:9} {name}")
    for name in Judge.BAD:
        print(f"{counts[name]:9} {name} (must be 0)")
    print("\n".join(cases[:60]))
    return any(counts[name] for name in Judge.BAD)


if __name__ == "__main__":
    sys.exit(main())
