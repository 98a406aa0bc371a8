"""A batch in this process, and in worker processes: rows per second, CPU per row on either side.

    python -m benchmarks.bench_processes [--rows 20000] [--processes 0,1,2] [--rounds 3]

Against the load server in C, which uses CPU of the same machine. With 0 the calls are made in the
process of the run. The CPU of workers is counted without their start.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bench_batch import write_rows
from benchmarks.load import Server
from benchmarks.scenes import Scene
from konko_async import AsyncKonko
from konko_async.batch import Processes, run_batch

SCENE = Scene(size=1_200)


class Watched(Processes):
    """Reads the workers' CPU as long as they are there."""

    def __init__(self, count):
        super().__init__(count)
        self.links = []

    async def start(self, heard, lost):
        link = await super().start(heard, lost)
        self.links.append(link)
        return link

    def cpu(self):
        """Seconds used by now."""
        total = 0
        for link in self.links:
            fields = Path(f"/proc/{link.pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")


async def one(url, source, count):
    """Run the batch once; returns the figures."""
    workers = Watched(count) if count else None
    used = {}

    def seen(progress):
        # The first rows are done: all workers have started. The last look is before they end.
        usage = resource.getrusage(resource.RUSAGE_SELF)
        now = (
            progress.elapsed,
            usage.ru_utime + usage.ru_stime,
            workers.cpu() if workers and progress.in_flight else None,
            progress.finished,
        )
        if progress.finished > progress.rows // 10 and progress.in_flight:
            used.setdefault("first", now)
            used["last"] = now

    with tempfile.TemporaryDirectory() as folder:
        async with AsyncKonko("any", url, allow_http=True) as client:
            report = await run_batch(
                client, source, Path(folder, "out.jsonl"), prices={}, workers=workers,
                on_progress=seen, progress_interval=0.1,
            )  # fmt: skip
    assert report.left == report.failed == 0
    first, last = used["first"], used["last"]
    rows = last[3] - first[3]
    return {
        "rows_per_second": rows / (last[0] - first[0]),
        "run": (last[1] - first[1]) / rows * 1e6,
        "workers": (last[2] - first[2]) / rows * 1e6 if workers else 0.0,
    }


def measure(args, url, source):
    """Rounds in turn, each in a process of its own."""
    found = {count: [] for count in args.processes}
    for _ in range(args.rounds):
        for count in args.processes:
            command = [
                sys.executable, "-m", "benchmarks.bench_processes", "--child", str(count),
                "--url", url, "--source", str(source),
            ]  # fmt: skip
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[count].append(json.loads(done.stdout))
    for count, rounds in found.items():
        middle = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
        print(
            f"{count or 'no'} worker processes: {middle['rows_per_second']:,.0f} rows/s; CPU per "
            f"row: {middle['run']:.0f} µs in the run, {middle['workers']:.0f} µs in workers"
        )


def main():
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--processes", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2]
    )
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--source", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        print(json.dumps(asyncio.run(one(args.url, args.source, args.child))))
        return
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        os.sched_setaffinity(server._process.pid, os.sched_getaffinity(0))
        source = write_rows(Path(folder, "in.jsonl"), args.rows)
        measure(args, server.url(SCENE), source)


if __name__ == "__main__":
    main()
