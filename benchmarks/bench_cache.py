"""What a hit of the answer cache costs, beside the same call answered inside the client.

    python -m benchmarks.bench_cache [--rows 100000] [--count]

Three figures: the CPU of a hit in ``map()`` (all threads, less what the same loop costs without
the cache, with answers made inside the client), the CPU of the whole hit, and the time of
``run_batch()`` over rows that are all in the cache. No network; the folder is a temporary one.
With --count, what the interpreter executes for a hit is counted instead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench_batch import ANSWER, CONCURRENCY, MODEL, body
from benchmarks.instructions import per_unit
from konko_async import AnswerCache, AsyncKonko, Response, per_attempt
from konko_async.batch import run_batch


class Head:
    """The head of an answer, as far as decoding one looks at it."""

    headers: dict[str, str] = {"content-type": "application/json"}  # noqa: RUF012 - never changed
    request_id = "req_1"
    host = "nowhere"


async def canned(request: Any, _call_next: Any) -> Response:
    """Answer without a server; the answer is decoded as ever."""
    await asyncio.sleep(0)
    response = Response(200, Head.headers, "req_1")
    response.result = request.operation.decode(ANSWER, Head, request.params)
    response.finish("ok", response.result.usage)
    return response


def row(number: int) -> dict[str, Any]:
    """Return a request whose answer may be used again."""
    return {**body(number), "temperature": 0}


def client(cache: AnswerCache | None) -> AsyncKonko:
    """Return a client whose calls are answered inside it."""
    return AsyncKonko(
        "k", "http://127.0.0.1:9/v1", middleware=[per_attempt(canned)], cache=cache,
        circuit_breaker=None,
    )  # fmt: skip


async def mapped(cache: AnswerCache | None, rows: int) -> tuple[float, float]:
    """Make all calls by map(); return seconds, and of CPU in all threads."""
    async with client(cache) as konko:
        start, cpu = time.perf_counter(), time.process_time()
        requests = map(row, range(rows))
        async for result in konko.chat.completions.map(requests, max_concurrency=CONCURRENCY):
            assert result.error is None
        return time.perf_counter() - start, time.process_time() - cpu


def written(rows: int, folder: Path) -> Path:
    """Write the input of a batch."""
    source = folder / "in.jsonl"
    with source.open("w") as file:
        for number in range(rows):
            line = {"custom_id": f"id-{number}", "url": "/v1/chat/completions", "body": row(number)}
            file.write(json.dumps(line) + "\n")
    return source


async def batched(cache: AnswerCache, source: Path) -> tuple[float, float, int]:
    """Run a batch; return seconds, and of CPU in all threads, and hits."""
    async with client(cache) as konko:
        start, cpu = time.perf_counter(), time.process_time()
        report = await run_batch(
            konko, source, source.parent / "out.jsonl", prices={}, max_concurrency=CONCURRENCY
        )
        return time.perf_counter() - start, time.process_time() - cpu, report.from_cache


async def counted(rows: int, begin: Callable[[], None], *, whole: bool) -> None:
    """Fill a cache, and read it again from where counting begins."""
    with tempfile.TemporaryDirectory() as name:
        cache = AnswerCache(Path(name) / "cache")
        await mapped(cache, rows)
        source = written(rows, Path(name))
        begin()
        await (batched(cache, source) if whole else mapped(cache, rows))


async def main(rows: int) -> int:
    """Print the figures; 1 if one of the goals is missed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, without = await mapped(None, rows)
        cache = AnswerCache(folder / "cache")
        filled, _ = await mapped(cache, rows)
        size = (folder / "cache" / "answers.sqlite3").stat().st_size
        _, hits = await mapped(cache, rows)
        seconds, cpu, found = await batched(cache, written(rows, folder))
    assert found == rows, found
    assert MODEL
    loop, hit = without / rows * 1e6, hits / rows * 1e6
    print(f"{rows} rows, {size / rows:.0f} bytes of database for each, filled in {filled:.1f} s")
    print(f"map(), answers made inside the client: {loop:.1f} us of CPU per row")
    print(f"map(), all hits:                       {hit:.1f} us of CPU per row (goal: 60)")
    print(f"run_batch(), all hits:                 {cpu / rows * 1e6:.1f} us of CPU per row,")
    print(f"                                       {seconds:.1f} s (goal: 10 for 100,000 rows)")
    return int(hit > 60 or seconds * 100_000 / rows > 10)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--count", action="store_true", help="count instructions and calls")
    arguments = parser.parse_args()
    if arguments.count:
        print(f"map(), per hit:       {per_unit(partial(counted, whole=False))}")
        print(f"run_batch(), per hit: {per_unit(partial(counted, whole=True))}")
        sys.exit()
    sys.exit(asyncio.run(main(arguments.rows)))
