"""python -m benchmarks: asks the questions, prints a table; see docs/explanation/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import resource
import sys
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.load import Server, Unfit
from benchmarks.results import Results, tables
from benchmarks.rivals.table import RIVALS

QUESTIONS = (
    "burst", "paced", "saturated", "whole", "memory", "import", "first_token", "cost", "limiter",
    "batch", "relay", "growth", "blocking", "endpoints", "outages",
)  # fmt: skip
QUICK = ("burst", "paced", "whole", "memory", "import", "limiter", "batch", "relay")
FEW = ("hand", "openai_aiohttp", "floor")
FILES = 20_000  # descriptors that 10,000 streams want


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    known = ", ".join(QUESTIONS)
    parser.add_argument("--only", help=f"questions, with commas: {known}")
    parser.add_argument(
        "--rivals", help=f"with commas; ours always takes part: {', '.join(RIVALS)}"
    )
    parser.add_argument("--rounds", type=int, default=0, help="instead of each question's number")
    parser.add_argument("--loop", default="best", choices=("asyncio", "uvloop", "best"))
    parser.add_argument("--quick", action="store_true", help="fewer questions, rivals, rounds")
    parser.add_argument("--scale", type=float, default=1.0, help="of streams and requests")
    parser.add_argument("--json", type=Path, help="where to write every sample")
    parser.add_argument("--plots", type=Path, help="the folder for plots")
    found = parser.parse_args(given)
    found.only = found.only.split(",") if found.only else QUICK if found.quick else QUESTIONS
    found.rivals = found.rivals.split(",") if found.rivals else FEW if found.quick else [*RIVALS]
    for name in found.only:
        if name not in QUESTIONS:
            parser.error(f"--only: {name!r} is none of {known}")
    for name in found.rivals:
        if name not in RIVALS:
            parser.error(f"--rivals: {name!r} is none of {', '.join(RIVALS)}")
    return found


def ask(told: argparse.Namespace) -> Results:
    """Ask all questions; one at which a rival fails, or reads other than was sent, is left."""
    names = [name for name in RIVALS if name.startswith("ours") or name in told.rivals]
    results = Results()
    with Server() as server:
        results.machine = machine.describe(server, names)
        bench = Bench(server, results, names, told.quick, told.rounds, told.loop, told.scale)
        try:
            for name in told.only:
                began = time.monotonic()
                print(f"{name:12}", end="", file=sys.stderr, flush=True)
                try:
                    importlib.import_module(f"benchmarks.bench_{name}").measure(bench)
                except Unfit as error:  # what the others found is not lost
                    results.unfit[name] = str(error)
                    print(f" {error}", file=sys.stderr, end="")
                    bench.close()  # who hangs is not asked again
                took = time.monotonic() - began
                print(f" {took:.0f} s", file=sys.stderr)
                results.machine.setdefault("seconds", {})[name] = round(took, 1)
        finally:
            bench.close()
    results.machine["load server, seconds of CPU"] = server.total.get("cpu")
    return results


def main(given: list[str] | None = None) -> int:
    """Do what the command line says; 1 if the run failed."""
    told = arguments(given)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    missing = [n for n in told.rivals if not RIVALS[n].ready()]
    if missing:
        print(
            f"without {', '.join(missing)}: make bench builds their environments", file=sys.stderr
        )
    results = ask(told)
    print(tables(results))
    if told.json:
        results.save(told.json)
    if told.plots:
        importlib.import_module("benchmarks.plots").draw(results, told.plots)
    for name, why in results.unfit.items():
        print(f"\nbenchmarks: {name} was not measured to its end: {why}", file=sys.stderr)
    return 1 if results.unfit else 0


if __name__ == "__main__":
    sys.exit(main())
