"""python -m benchmarks: asks the questions, prints a table; see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.load import Server, Unfit
from benchmarks.results import Results, tables
from benchmarks.rivals.table import RIVALS

QUESTIONS = ("burst", "paced", "saturated", "whole")


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(QUESTIONS), help="questions, with commas")
    parser.add_argument("--rivals", default=",".join(RIVALS), help="with commas; ours always takes part")
    parser.add_argument("--rounds", type=int, default=0, help="instead of each question's own number")
    parser.add_argument("--loop", default="best", choices=("asyncio", "uvloop", "best"))
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--scale", type=float, default=1.0, help="of streams and requests")
    parser.add_argument("--json", type=Path, help="where to write every sample")
    found = parser.parse_args(given)
    found.only, found.rivals = found.only.split(","), found.rivals.split(",")
    for name, known in [(n, QUESTIONS) for n in found.only] + [(n, RIVALS) for n in found.rivals]:
        if name not in known:
            parser.error(f"{name!r} is none of {', '.join(known)}")
    return found


def main(given: list[str] | None = None) -> int:
    told = arguments(given)
    results = Results()
    ours = [name for name in RIVALS if name.startswith("ours")]
    try:
        with Server() as server:
            bench = Bench(
                server, results, [*ours, *told.rivals], told.quick, told.rounds, told.loop, told.scale
            )
            try:
                for name in told.only:
                    print(f"{name} ", end="", file=sys.stderr, flush=True)
                    importlib.import_module(f"benchmarks.bench_{name}").measure(bench)
            finally:
                bench.close()
    except Unfit as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(tables(results))
    if told.json:
        results.save(told.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
