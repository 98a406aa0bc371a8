"""Processes that keep one limit in Redis, against a server that holds a strict window."""

import asyncio
import json
import multiprocessing
import random
import sys
import time
from pathlib import Path

from proof_kit import MODEL, Lag, Load, arguments, ask_for, client_of, row, say, serving

from konko_async import RateLimit, StoreRecord
from konko_async.integrations.redis import RedisStore
from konko_async.limits import Limiter

sys.path.append(str(Path(__file__).resolve().parents[1] / "redis"))
from redis_kit import Counted, most_in, running_server

_WIDTHS = (30, 8, 8, 8, 6, 14, 12, 10, 10)
_FAULTS = ("", "stopped", "killed", "restarted empty")


class _At:
    """All that a client needs to know of a server in another process."""

    def __init__(self, base_url):
        self.base_url = base_url


async def _process(told, barrier):
    """One of the processes: load for some seconds, and what became of it."""
    store = Counted(RedisStore(told["redis"]))
    limit = RateLimit(
        requests_per_minute=told["requests"],
        window=told["window"],
        store=store,
        on_store_failure=told["choice"],
    )
    lag, records = Lag(), []

    def observe(record):
        if isinstance(record, StoreRecord):
            records.append((record.state, time.monotonic(), record.processes))

    client = client_of(_At(told["base_url"]), rate_limit=limit, observers=[observe])
    async with client:

        async def call(number):
            answer = 16 + number * 7919 % 49
            ask = ask_for(number, max_tokens=answer)
            await client.chat.completions.create(**ask)

        load = Load(call)
        await asyncio.to_thread(barrier.wait)
        cpu = time.process_time()
        async with lag.watched(), load.running(told["workers"]):
            await asyncio.sleep(told["seconds"])
        cpu = time.process_time() - cpu
    return {
        "ended": load.ended,
        "failed": load.failed,
        "lag": lag.worst,
        "turns": len(store.turns),
        "cpu": cpu,
        "records": records,
    }


def _main(told, barrier, results):
    results.put(json.dumps(asyncio.run(_process(told, barrier))))


async def _acquire(told, barrier):
    """One of the processes that only ask for admission: weights of 1 to 50."""
    store, chance, got = Counted(RedisStore(told["redis"])), random.Random(told["seed"]), []
    limiter = Limiter(RateLimit(tokens_per_minute=told["tokens"], window=1.0, store=store))
    lane, lag = limiter.lane("model", "key"), Lag()
    await asyncio.to_thread(barrier.wait)
    end, cpu = time.monotonic() + told["seconds"], time.process_time()

    async def work():
        while time.monotonic() < end:
            tokens = chance.randint(1, 50)
            permit = await lane.admit(tokens)
            got.append((time.monotonic(), tokens))
            permit.release()

    async with lag.watched():
        await asyncio.gather(*(work() for _ in range(told["tasks"])))
    cpu = time.process_time() - cpu
    await limiter.close()
    return {"got": got, "turns": len(store.turns), "cpu": cpu, "lag": lag.worst}


def _main_acquire(told, barrier, results):
    results.put(json.dumps(asyncio.run(_acquire(told, barrier))))


async def acquire(*, processes=4, tasks=16, tokens=2000, seconds=8):
    """Measure the store alone: 4 processes with 16 tasks each, weights of 1 to 50.

    Returns:
        `rate` (tokens per second), `most` (in any second), `trips` (per acquire), `cpu` (seconds
        per acquire, of the process), `lag`.
    """
    context = multiprocessing.get_context("spawn")
    with running_server() as server:
        queue, barrier = context.Queue(), context.Barrier(processes)
        told = {"redis": server.url, "tokens": tokens, "tasks": tasks, "seconds": seconds}
        running = [
            context.Process(target=_main_acquire, args=({**told, "seed": n}, barrier, queue))
            for n in range(processes)
        ]
        for process in running:
            process.start()
        found = [json.loads(await asyncio.to_thread(queue.get)) for _ in running]
        for process in running:
            await asyncio.to_thread(process.join)
        queue.close()
    events = [tuple(event) for one in found for event in one["got"]]
    first = min(at for at, _ in events)
    inside = sum(n for at, n in events if first + 1 <= at < first + seconds - 1)
    return {
        "rate": inside / (seconds - 2),
        "most": most_in(1.0, [event for event in events if event[0] < first + seconds]),
        "trips": sum(one["turns"] for one in found) / len(events),
        "cpu": sum(one["cpu"] for one in found) / len(events),
        "lag": max(one["lag"] for one in found),
    }


async def _disturb(server, fault, start, seconds):
    """In the middle of the run: for a fifth of it, or for a moment."""
    if not fault:
        return
    await asyncio.sleep(start + seconds * 0.4 - time.monotonic())
    if fault == "stopped":
        server.stop()
    else:
        server.kill()
    if fault != "restarted empty":
        await asyncio.sleep(seconds * 0.2)
    if fault == "stopped":
        server.go_on()
    else:
        await asyncio.to_thread(server.start)


async def measure(
    *,
    processes=8,
    requests=800,
    window=5.0,
    windows=3,
    workers=16,
    margin=0.1,
    latency=0.02,
    fault="",
    choice="local_share",
):
    """Saturate a limit from several processes.

    `margin` seconds, by which the server's window is shorter than the clients', make up for what a
    busy machine delays one process more than another; a minute leaves 0.24 s by itself.

    Returns:
        `use` (the share of what any such time allows, over all windows), `rejected`, `calls`,
        `shares` (least and most of a process, against an even one), `trips` (to Redis per call),
        `failed`, `lag`, `away` (how many processes told of it), `unaware` (the longest time
        between the fault and the record of it).
    """
    remote_settings = {
        "requests_per_minute": requests,
        "limit_window": window - margin,
        "latency": latency,
        "answer_tokens": 4096,
        "models": [MODEL],
    }
    context = multiprocessing.get_context("spawn")
    with running_server() as server:
        async with serving(**remote_settings) as remote:
            seconds = window * windows
            told = {
                "redis": server.url, "base_url": remote.base_url, "requests": requests,
                "window": window, "workers": workers,
                "seconds": seconds + latency + 0.2, "choice": choice,
            }  # fmt: skip
            queue, barrier = context.Queue(), context.Barrier(processes + 1)
            running = [
                context.Process(target=_main, args=(told, barrier, queue)) for _ in range(processes)
            ]
            for process in running:
                process.start()
            await asyncio.to_thread(barrier.wait)
            start = time.monotonic()
            await _disturb(server, fault, start, seconds)
            found = [json.loads(await asyncio.to_thread(queue.get)) for _ in running]
            for process in running:
                await asyncio.to_thread(process.join)
            queue.close()
            log, stats = await remote("log"), await remote("stats")
    return _figures(log, stats, found, start, window * windows, requests * windows)


def _figures(log, stats, found, start, seconds, allowed):  # noqa: PLR0917
    first = min(started for started, *_ in log)
    good = [at - first for at, status, *_ in log if status == 200]
    inside = sum(at < seconds for at in good)
    counts = [len(one["ended"]) for one in found]
    even = sum(counts) / len(counts)
    failed = {}
    for one in found:
        for name, count in one["failed"].items():
            failed[name] = failed.get(name, 0) + count
    away = [at for one in found for state, at, _ in one["records"] if state == "away"]
    return {
        "use": inside / allowed,
        "calls": len(log),
        "rejected": sum(status == 429 for _, status, *_ in log),
        "shares": (min(counts) / even, max(counts) / even),
        "trips": sum(one["turns"] for one in found) / max(sum(counts), 1),
        "cpu": sum(one["cpu"] for one in found) / max(sum(counts), 1),
        "failed": failed,
        "lag": max(stats["lag"], *(one["lag"] for one in found)),
        "away": len(away),
        "back": sum(state == "back" for one in found for state, *_ in one["records"]),
        "unaware": max((at - start - seconds * 0.4 for at in away), default=0.0),
    }


async def main():
    options = arguments(
        __doc__, processes=8, requests=800, window=5.0, windows=3, workers=16, margin=0.1, choice="local_share"
    )  # fmt: skip
    alone = await acquire()
    say(
        f"the store alone, 4 processes x 16 tasks, weights 1-50, 2,000 tokens a second: "
        f"{alone['rate']:.0f}/s, at most {alone['most']} in any second, {alone['trips']:.2f} round "
        f"trips and {1e6 * alone['cpu']:.0f} us of CPU per acquire, lag {1000 * alone['lag']:.0f} ms"
    )
    say(f"{options.processes} processes, {options.requests} requests in {options.window:g} s")
    row(
        "redis", "calls", "used", "429s", "trips", "shares", "away/back", "known in", "lag",
        widths=_WIDTHS,
    )  # fmt: skip
    for fault in _FAULTS:
        found = await measure(
            processes=options.processes,
            requests=options.requests,
            window=options.window,
            windows=options.windows if not fault else max(options.windows, 3),
            workers=options.workers,
            margin=options.margin,
            fault=fault,
            choice=options.choice,
        )
        row(
            fault or "as it should be",
            found["calls"],
            f"{100 * found['use']:.2f} %",
            found["rejected"],
            f"{found['trips']:.2f}",
            f"{found['shares'][0]:.2f}-{found['shares'][1]:.2f}",
            f"{found['away']}/{found['back']}",
            f"{found['unaware']:.2f} s" if found["away"] else "",
            f"{1000 * found['lag']:.0f} ms",
            widths=_WIDTHS,
        )
        if found["failed"]:
            say(f"    failed: {found['failed']}")


if __name__ == "__main__":
    asyncio.run(main())
