"""What a row costs from Parquet to Parquet, beside JSON lines; and the memory of long tables.

    python -m benchmarks.bench_data [--rows 50000] [--memory 100000,1000000]

The calls are answered inside the client, as in ``bench_batch``, so that what is measured is ours.
Each measurement is a process of its own; CPU is of all threads, from the first look at the input
to the table in its place. ``--memory 10000000`` takes half an hour to an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.bench_batch import CONCURRENCY, MODEL, canned
from benchmarks.load import ROOT

_GROUP = 100_000
TEXT = "Summarise document {number}: " + "it says something of interest. " * 6


def fields(number: int) -> dict[str, Any]:
    """Return a row: what the prompt needs, and more."""
    return {
        "id": f"id-{number}", "text": TEXT.format(number=number), "stars": number % 5,
        "score": number / 7, "city": "Lagos" if number % 2 else "Lima",
    }  # fmt: skip


def write_input(path: Path, rows: int) -> None:
    """Write the rows, without holding all of them."""
    if path.suffix == ".jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(fields(number)) + "\n" for number in range(rows))
        return
    import pyarrow as pa  # noqa: PLC0415 - an extra
    import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

    writer = None
    for start in range(0, rows, _GROUP):
        part = pa.Table.from_pylist([fields(n) for n in range(start, min(start + _GROUP, rows))])
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    assert writer is not None
    writer.close()


async def run_once(source: Path, output: Path) -> dict[str, float]:
    """Run a batch in this process; return seconds of CPU and MiB of memory."""
    from konko_async import AsyncKonko  # noqa: PLC0415 - after write_input(), in a process of its own
    from konko_async.batch import run_batch  # noqa: PLC0415 - its memory is measured

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with AsyncKonko("k", "http://127.0.0.1:9/v1", middleware=[canned]) as client:
        start, cpu = time.perf_counter(), time.process_time()
        report = await run_batch(
            client, source, output, prompt="{text}", model=MODEL, prices={},
            max_concurrency=CONCURRENCY,
        )  # fmt: skip
        found = {"cpu": time.process_time() - cpu, "seconds": time.perf_counter() - start}
    assert report.answered == report.rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**found, "mib": peak / 1024, "before": before / 1024}


def measured(folder: Path, ending: str, rows: int) -> dict[str, float]:
    """Run a batch in a process of its own."""
    source = folder / f"in-{rows}.{ending}"
    if not source.exists():
        subprocess.run(
            [sys.executable, "-m", "benchmarks.bench_data", "--write", str(source),
             "--rows", str(rows)],
            cwd=ROOT, check=True,
        )  # fmt: skip
    output = folder / f"out.{ending}"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_data", "--once", str(source), str(output)],
        cwd=ROOT, check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    for path in folder.glob("out*"):
        path.unlink()
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> int:
    """Print the figures; 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="100000,1000000")
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--once", type=Path, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.write:
        write_input(given.write, given.rows)
        return 0
    if given.once:
        print(json.dumps(asyncio.run(run_once(*given.once))))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs: dict[str, list[float]] = {"jsonl": [], "parquet": []}
        for _ in range(given.rounds):
            for ending, values in costs.items():
                values.append(measured(folder, ending, given.rows)["cpu"] / given.rows * 1e6)
        median = {ending: statistics.median(values) for ending, values in costs.items()}
        ratio = median["parquet"] / median["jsonl"]
        for ending, value in median.items():
            print(f"{ending:8} in and out: {value:.1f} us of CPU per row")
        print(f"ratio: {ratio:.2f} (goal: 1.3)")
        for rows in filter(None, given.memory.split(",")):
            found = measured(folder, "parquet", int(rows))
            print(
                f"{int(rows):>10} rows of Parquet: peak {found['mib']:.0f} MiB "
                f"({found['before']:.0f} before), {found['seconds']:.0f} s"
            )
    return int(ratio > 1.3)


if __name__ == "__main__":
    sys.exit(main())
