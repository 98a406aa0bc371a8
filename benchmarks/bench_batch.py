"""What map() and run_batch() cost per row beyond the call itself: client CPU, in microseconds.

    python -m benchmarks.bench_batch [--rows 50000] [--rounds 3] [--count]

The calls are answered inside the client, by a middleware, so that what is measured is ours: a plain
loop of ``create()`` in 256 tasks, ``map()``, and ``run_batch()`` with its check of the input, its
output and its journal. Rounds alternate; the medians are compared. With --count, what the
interpreter executes for a row of run_batch() is counted instead, which other load cannot change.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.instructions import per_unit
from benchmarks.load import ROOT
from benchmarks.results import Curve, Figure, Goal
from benchmarks.rounds import resident
from benchmarks.scenes import Scene
from konko_async import AsyncKonko, Response
from konko_async.batch import run_batch
from konko_async.wire import ChatCompletion
from konko_async.wire._codec import Codec

MODEL = "codellama/codellama-13b-instruct"
ANSWER = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL,
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "An answer of some words. " * 12}}],
    "usage": {"prompt_tokens": 60, "completion_tokens": 70, "total_tokens": 130},
}).encode()  # fmt: skip
CONCURRENCY = 256
decode = Codec(ChatCompletion).decode


def body(number):
    text = f"Summarise document {number}: " + "it says something of interest. " * 6
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 100}


async def canned(_request, _call_next):
    """Answer without a server; the answer is decoded as ever."""
    await asyncio.sleep(0)
    response = Response(200, {}, "req_1")
    response.result = decode(ANSWER)
    response.result.request_id = "req_1"
    response.finish("ok", response.result.usage)
    return response


async def plain(client, rows):
    numbers = iter(range(rows))

    async def work():
        for number in numbers:
            await client.chat.completions.create(**body(number), priority="batch")

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def mapped(client, rows):
    requests = (body(number) for number in range(rows))
    async for result in client.chat.completions.map(requests, max_concurrency=CONCURRENCY):
        assert result.error is None


async def batch(client, source):
    with tempfile.TemporaryDirectory() as folder:
        report = await run_batch(
            client, source, Path(folder, "out.jsonl"), prices={}, max_concurrency=CONCURRENCY
        )
    assert report.left == report.failed == 0


def write_rows(path, rows):
    with path.open("w") as file:
        for number in range(rows):
            line = {"custom_id": f"row-{number}", "method": "POST",
                    "url": "/v1/chat/completions", "body": body(number)}  # fmt: skip
            file.write(json.dumps(line) + "\n")
    return path


async def measure_one(work, rows):
    started = time.process_time()
    await work
    return (time.process_time() - started) / rows * 1e6


async def in_turn(rows, rounds):
    """Return CPU per row, a sample per round: plain calls, map(), run_batch()."""
    found = {"plain create()": [], "map()": [], "run_batch()": []}
    with tempfile.TemporaryDirectory() as folder:
        source = write_rows(Path(folder, "in.jsonl"), rows)
        async with AsyncKonko("any", "http://127.0.0.1:9/v1", middleware=[canned]) as client:
            await plain(client, rows // 10)
            for _ in range(rounds):
                found["plain create()"].append(await measure_one(plain(client, rows), rows))
                found["map()"].append(await measure_one(mapped(client, rows), rows))
                found["run_batch()"].append(await measure_one(batch(client, source), rows))
    return found


async def counted(rows, begin):
    """Run a batch, from where counting begins."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_rows(Path(folder, "in.jsonl"), rows)
        async with AsyncKonko("any", "http://127.0.0.1:9/v1", middleware=[canned]) as client:
            begin()
            await batch(client, source)


async def called(rows, url):
    """Return the CPU of a row whose call goes over a socket, in µs, and the rows per second."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_rows(Path(folder, "in.jsonl"), rows)
        async with AsyncKonko("any", url) as client:
            began = time.monotonic()
            cpu = await measure_one(batch(client, source), rows)
            return {"cpu": cpu, "rate": rows / (time.monotonic() - began)}


async def grown(rows):
    """Return the CPU per row of a batch, and the peak of this process's memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        source = write_rows(Path(folder, "in.jsonl"), rows)
        async with AsyncKonko("any", "http://127.0.0.1:9/v1", middleware=[canned]) as client:
            cpu = await measure_one(batch(client, source), rows)
    # Not ru_maxrss: that begins with the peak of the process that started this one.
    return {"cpu": cpu, "peak": resident()[1]}


def apart(core, *arguments):
    """Run this module in a process of its own, on the client's core, and return what it says."""
    command = [
        "taskset",
        "-c",
        str(core),
        sys.executable,
        "-m",
        "benchmarks.bench_batch",
        *arguments,
    ]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(bench: Bench) -> None:
    """Measure the CPU per row beyond the call, and CPU and memory for more and more rows."""
    core = bench.server.client_core
    rows, rounds = (5_000, 2) if bench.quick else (20_000, 6)
    order = ("--json", "--rows", str(bench.size(rows)), "--rounds", str(bench.rounds or rounds))
    found = apart(core, *order)
    for name, samples in found.items():
        bench.results.figures.append(
            Figure("batch", name, "calls answered inside", "µs CPU per row", samples)
        )
    base = found.pop("plain create()")
    for (name, samples), limit in zip(found.items(), (None, 60), strict=True):
        beyond = [a - b for a, b in zip(samples, base, strict=True)]
        bench.results.goals.append(
            Goal("batch", f"{name}, beyond the call", beyond, limit, unit="µs CPU per row")
        )
    order = ("--url", bench.server.url(Scene(size=1_200)), "--rows", str(bench.size(rows)))
    done = [apart(core, *order) for _ in range(bench.rounds or rounds)]
    for what, unit, key, limit in (
        ("run_batch(), with its call", "µs CPU per row", "cpu", 90),
        ("run_batch(), one process", "rows/s", "rate", 10_000),
    ):
        goal = Goal("batch", what, [one[key] for one in done], limit, key == "rate", unit)
        bench.results.goals.append(goal)
    sizes = (1_000, 10_000, 30_000) if bench.quick else (1_000, 10_000, 100_000, 1_000_000)
    done = {size: apart(core, "--grow", str(bench.size(size, 100))) for size in sizes}
    for key, y in (("cpu", "µs CPU per row"), ("peak", "MB, peak")):
        points = [(size, one[key]) for size, one in done.items()]
        bench.results.curves.append(Curve("batch", "run_batch()", "rows", y, points))
    more = done[sizes[-1]]["peak"] - done[10_000]["peak"]
    what = f"peak memory of {sizes[-1]:,} rows beyond that of 10,000"
    bench.results.goals.append(Goal("batch", what, [more], 10, unit="MB"))


def tell(found):
    base = statistics.median(found["plain create()"])
    for name, values in found.items():
        middle = statistics.median(values)
        print(f"{name:15} {middle:7.1f} µs of CPU per row, {middle - base:+6.1f} beyond the call")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the samples")
    parser.add_argument("--url", help="run one batch against a server there")
    parser.add_argument("--grow", type=int, default=0, help="run one batch of so many rows")
    parser.add_argument("--count", action="store_true", help="count instructions and calls")
    arguments = parser.parse_args()
    if arguments.count:
        print(f"run_batch(), per row: {per_unit(counted)}")
    elif arguments.url:
        print(json.dumps(asyncio.run(called(arguments.rows, arguments.url))))
    elif arguments.grow:
        print(json.dumps(asyncio.run(grown(arguments.grow))))
    else:
        samples = asyncio.run(in_turn(arguments.rows, arguments.rounds))
        print(json.dumps(samples)) if arguments.json else tell(samples)
