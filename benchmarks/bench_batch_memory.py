"""Memory of a batch of a million rows, and how long it takes to take it up again.

    python -m benchmarks.bench_batch_memory [--rows 1000000]

Resident memory is read when 10,000, 100,000 and all rows are done, and its peak at the end. Then
the finished batch is started again, which reads the whole journal and the whole input; and once
more without the ends of its journal and output, up to the first new answer.
"""

import argparse
import asyncio
import os
import resource
import tempfile
import time
from pathlib import Path

from benchmarks.bench_batch import CONCURRENCY, canned, write_rows
from konko_async import AsyncKonko
from konko_async.batch import run_batch

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident():
    """Resident memory now, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 1e6


class Watch:
    """Notes the memory at certain numbers of rows, and when the first answer came."""

    def __init__(self, *marks):
        self.marks = sorted(marks)
        self.started = time.perf_counter()
        self.first = None

    def __call__(self, progress):
        if progress.finished and self.first is None:
            self.first = time.perf_counter() - self.started
        while self.marks and progress.done >= self.marks[0]:
            print(f"{self.marks.pop(0):>10,} rows done: {resident():6.1f} MB resident", flush=True)


def size(path):
    """Size of a file in MB."""
    return path.stat().st_size / 1e6


def tear(output):
    """Take the last checkpoints from the journal and some megabytes from the output."""
    journal = Path(f"{output}.journal")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: max(len(lines) - 10, 2)]))
    os.truncate(output, max(output.stat().st_size - 5_000_000, 0))


async def main(rows, folder):
    source = write_rows(Path(folder, "in.jsonl"), rows)
    output = Path(folder, "out.jsonl")
    print(f"{rows:,} rows, {size(source):.0f} MB of input")
    async with AsyncKonko("any", "http://127.0.0.1:9/v1", middleware=[canned]) as client:

        async def run(watch):
            return await run_batch(
                client, source, output, prices={}, max_concurrency=CONCURRENCY,
                on_progress=watch, progress_interval=0.05,
            )  # fmt: skip

        cpu, started = time.process_time(), time.perf_counter()
        report = await run(Watch(10_000, 100_000, rows))
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
        assert (report.left, report.failed) == (0, 0)
        print(f"{seconds:.0f} s, {cpu / rows * 1e6:.1f} µs of CPU per row, the call included")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(f"peak of resident memory: {peak:.1f} MB")
        print(f"output {size(output):.0f} MB, journal {size(Path(f'{output}.journal')):.1f} MB")

        started = time.perf_counter()
        report = await run(Watch())
        assert (report.finished, report.resumed) == (0, rows)
        print(f"resume of the finished batch: {time.perf_counter() - started:.1f} s")

        tear(output)
        watch = Watch()
        report = await run(watch)
        print(f"resume with {report.finished:,} rows left: first answer after {watch.first:.1f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        asyncio.run(main(arguments.rows, where))
