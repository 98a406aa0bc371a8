"""Batches through outages: rows lost, time, CPU and memory, beside bespokelabs-curator.

    make bench-outages [ROWS=2000]

The same server for both, an emulator that takes 50 ms per answer, with the same number of calls at
once and otherwise each client's defaults: without trouble; away for 12 s and back; and with 30 % of
the calls answered 503, drawn by a seed. Each batch is a process of its own, whose start counts.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.load import ROOT, Unfit
from benchmarks.results import Figure
from konko_async.testing import Emulator, faults

MODEL = "gpt-4o-mini"
AWAY = 12.0  # seconds
CURATOR = ROOT / ".venv-bench-curator" / "bin" / "python"
SCENES = ("calm", "restart", "503")


class Sometimes(faults.Status):
    """An error for some of the calls."""

    early = False  # the answer has to be there, as most calls keep it
    drawn = random.Random(1)

    def edit(self, reply):
        if self.drawn.random() < 0.3:
            super().edit(reply)


def ours(base_url, rows, concurrency, folder):
    """Run the batch as konko_async does."""
    from konko_async import AsyncKonko  # noqa: PLC0415 - its import is part of what is measured
    from konko_async.batch import run_batch  # noqa: PLC0415 - its import is measured, too

    source, output = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
    with source.open("w") as file:
        for number in range(rows):
            body = {"model": MODEL, "messages": [{"role": "user", "content": f"row {number}"}]}
            file.write(
                json.dumps(
                    {
                        "custom_id": str(number),
                        "method": "POST",
                        "url": "/v1/chat/completions",
                        "body": body,
                    }
                )
                + "\n"
            )

    async def run():
        async with AsyncKonko("any", base_url) as client:
            await run_batch(client, source, output, prices={}, max_concurrency=concurrency)

    with contextlib.suppress(Exception):  # what it has not answered is counted as lost
        asyncio.run(run())
    answered = set()
    for line in output.read_text().splitlines():
        row = json.loads(line)
        if row.get("error") is None and row["response"]["status_code"] == 200:
            answered.add(row["custom_id"])
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    print(json.dumps({"answered": len(answered), "peak": peak / 1000}))


async def outage(scene, emulator, rows):
    """Play the scene; ends with it."""
    if scene == "503":
        emulator.always(Sometimes(503))
    if scene != "restart":
        return None
    await emulator.wait_until(lambda: emulator.received > rows // 3, timeout=300)
    port = int(emulator.base_url.rpartition(":")[2].partition("/")[0])
    await emulator.close()
    await asyncio.sleep(AWAY)
    back = Emulator(port=port, latency=0.05, models=[MODEL], log_limit=1)
    await back.start()
    return back


async def play(scene, command, rows):
    """Run one batch; return its figures."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    async with Emulator(latency=0.05, models=[MODEL], log_limit=1) as emulator:
        playing = asyncio.ensure_future(outage(scene, emulator, rows))
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            process = await asyncio.create_subprocess_exec(
                *(part.format(url=emulator.base_url, folder=folder) for part in command),
                cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            out, err = await process.communicate()
        took = time.monotonic() - started
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            if (back := await playing) is not None:
                await back.close()
    try:
        found = json.loads(out.decode().strip().rpartition("\n")[2])
    except ValueError:
        sys.exit(err.decode()[-2000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return found | {"lost": rows - found["answered"], "seconds": took, "cpu": cpu}


def commands(rows, concurrency, curator):
    """Return the command of each client, its URL and folder left open."""
    size = [str(rows), str(concurrency)]
    return {
        "konko_async": [sys.executable, "-m", "benchmarks.bench_outages", "--rows", size[0],
                        "--concurrency", size[1], "--batch", "{url}", "{folder}"],
        "curator": [str(curator), "benchmarks/rivals/curator_batch.py", "{url}", *size, "{folder}"],
    }  # fmt: skip


def measure(bench: Bench) -> None:
    """Answer the question of the suite: rows per second beside curator, when all is well."""
    rows = bench.size(2_000)
    rivals = commands(rows, 64, CURATOR)
    if not CURATOR.exists():
        del rivals["curator"]
    rates = {name: [] for name in rivals}
    for _ in range(bench.rounds or 3):
        for name, command in rivals.items():
            found = asyncio.run(play("calm", command, rows))
            if found["lost"]:
                raise Unfit(f"{name} lost {found['lost']} of {rows} rows")
            rates[name].append(found["answered"] / found["seconds"])
            print(".", end="", file=sys.stderr, flush=True)
    figures = {
        name: Figure("outages", name, "a batch, all is well", "rows/s", samples)
        for name, samples in rates.items()
    }
    bench.results.figures.extend(figures.values())
    if "curator" in figures:
        ours, theirs = figures["konko_async"], figures["curator"]
        bench.results.compare("ours / curator", ours, theirs, 5, at_least=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--scenes", default=",".join(SCENES))
    parser.add_argument("--curator", default=str(CURATOR), help="the Python that has it")
    parser.add_argument("--batch", nargs=2, metavar=("URL", "FOLDER"), help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.batch:
        ours(told.batch[0], told.rows, told.concurrency, told.batch[1])
        return
    rivals = commands(told.rows, told.concurrency, told.curator)
    print(f"{told.rows} rows, {told.concurrency} at once, 50 ms per answer")
    print("scene     client        rows lost   wall, s    rows/s    CPU, s   peak, MB")
    for scene in told.scenes.split(","):
        for name, command in rivals.items():
            found = asyncio.run(play(scene, command, told.rows))
            print(
                f"{scene:9} {name:13} {found['lost']:9} {found['seconds']:9.1f} "
                f"{found['answered'] / found['seconds']:9.0f} {found['cpu']:9.1f} "
                f"{found['peak']:10.0f}", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
