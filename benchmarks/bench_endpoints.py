"""Many servers: how evenly and fully they are used, and what is lost when they stall or die.

Run ``python -m benchmarks.bench_endpoints [--only equal,kill]``. The servers are emulators in
processes of their own, on loopback; a stall is SIGSTOP, a loss SIGKILL. The same questions are
asked in simulated time by ``tests/unit/test_balance.py``. With ``--rivals PYTHON`` (an interpreter
that has ``litellm`` and ``vllm-router``) they are asked there too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.results import Goal
from konko_async import AsyncKonko, Endpoint, RateLimit, Timeout
from konko_async._balance.build import build
from konko_async._core.pipeline import Call, Request
from konko_async._engine.operations import CHAT
from konko_async._http.session import Transport
from konko_async.batch import run_batch
from konko_async.limits import Limiter
from konko_async.middleware import CircuitBreaker

ROOT = Path(__file__).parents[1]
PATIENT = Timeout(connect=10, first_token=120, idle=120)
Ask = Callable[[str], Awaitable[Any]]


class Servers:
    """Server processes, which may be stopped, killed and started again at their ports."""

    def __init__(self) -> None:
        self.options: list[dict[str, Any]] = []
        self.processes: list[subprocess.Popen[str]] = []
        self.urls: list[str] = []

    def add(self, **options: Any) -> None:
        self.options.append(options)
        process = self._start(options)
        self.processes.append(process)
        assert process.stdout is not None
        self.urls.append(process.stdout.readline().strip())
        options["port"] = int(self.urls[-1].split(":")[2].split("/")[0])

    @staticmethod
    def _start(options: dict[str, Any]) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.endpoint_server", json.dumps(options)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def send(self, number: int, what: signal.Signals) -> None:
        os.kill(self.processes[number].pid, what)

    def kill(self, number: int) -> None:
        self.processes[number].kill()
        self.processes[number].wait()

    def restart(self, number: int) -> None:
        self.processes[number] = self._start(self.options[number])

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextlib.contextmanager
def servers(count: int, **options: Any) -> Iterator[Servers]:
    """Start so many alike; options that are lists differ."""
    made = Servers()
    try:
        for number in range(count):
            own = {
                name: value[number] if isinstance(value, list) else value
                for name, value in options.items()
            }
            made.add(**own)
        yield made
    finally:
        made.close()


def client_of(made: Servers, **options: Any) -> AsyncKonko:
    endpoints = [Endpoint(url, "key", name=f"s{number}") for number, url in enumerate(made.urls)]
    return AsyncKonko(endpoints=endpoints, timeout=PATIENT, **options)


async def closed_loop(
    ask: Ask, width: int, seconds: float, prompt: Callable[[], str] = lambda: "hello"
) -> tuple[list[tuple[float, float]], int, float]:
    """Keep so many calls in flight; return (end, duration) of each, failures, CPU seconds."""
    loop = asyncio.get_running_loop()
    began, cpu = loop.time(), time.process_time()
    done: list[tuple[float, float]] = []
    failed = 0

    async def work() -> None:
        nonlocal failed
        while loop.time() < began + seconds:
            start = loop.time()
            try:
                await ask(prompt())
            except Exception:  # noqa: BLE001 - counted
                failed += 1
                await asyncio.sleep(0.01)
                continue
            done.append((loop.time() - began, loop.time() - start))

    await asyncio.gather(*(work() for _ in range(width)))
    return done, failed, time.process_time() - cpu


def asks(client: AsyncKonko) -> Ask:
    """Return what makes one call."""
    create = client.chat.completions.create

    def ask(content: str) -> Awaitable[Any]:
        return create(model="m", messages=[{"role": "user", "content": content}])

    return ask


def rate(done: list[tuple[float, float]], start: float, end: float) -> float:
    return sum(start <= at < end for at, _ in done) / (end - start)


def percentile(done: list[tuple[float, float]], start: float, share: float) -> float:
    found = sorted(duration for at, duration in done if at >= start)
    return found[math.ceil(share * len(found)) - 1] if found else math.inf


# -- the questions ---------------------------------------------------------------------------------


async def equal() -> list[Goal]:
    # Of different lengths: answers that all end together would measure how long a burst takes.
    drawn = random.Random(3)

    def prompt() -> str:
        return str(drawn.random())

    with servers(8, capacity=64, tokens_per_second=10, drawn=True) as made:
        async with client_of(made) as client:
            done, _, _ = await closed_loop(asks(client), 1000, 30, prompt)
            calls = [state.calls for state in client.endpoints]
        async with AsyncKonko("key", made.urls[0], timeout=PATIENT) as client:
            alone, _, _ = await closed_loop(asks(client), 125, 30, prompt)
    share = rate(done, 6, 29) / (8 * rate(alone, 6, 29))
    return [
        goal("8 equal servers, of the sum of what each serves alone", share * 100, 98, unit="%"),
        goal("... largest share / smallest", max(calls) / min(calls), 1.1, at_least=False),
    ]


async def stalls(made: Servers, number: int) -> None:
    while True:
        await asyncio.sleep(4)
        made.send(number, signal.SIGSTOP)
        await asyncio.sleep(1)
        made.send(number, signal.SIGCONT)


SPEEDS = [1, 1, 1, 2, 2, 2, 4, 4]


async def unequal_with(ask: Ask, made: Servers) -> tuple[float, float, int, float]:
    """Return the share of the ideal, the p99 of first tokens, failed calls, CPU per call."""
    stalling = asyncio.create_task(stalls(made, 7))
    done, failed, cpu = await closed_loop(ask, 125, 40)
    stalling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stalling
    made.send(7, signal.SIGCONT)
    ideal = sum(8 / (2.0 / speed) for speed in SPEEDS) - 0.2 * 8 / (2.0 / 4)
    return rate(done, 10, 40) / ideal, percentile(done, 10, 0.99), failed, cpu / len(done)


def unequal_servers() -> contextlib.AbstractContextManager[Servers]:
    return servers(8, capacity=8, latency=[2.0 / speed for speed in SPEEDS])


async def unequal() -> list[Goal]:
    with unequal_servers() as made:
        async with client_of(made) as client:
            share, p99, _, _ = await unequal_with(asks(client), made)
        endpoints = [
            Endpoint(url, "key", weight=speed) for url, speed in zip(made.urls, SPEEDS, strict=True)
        ]
        async with AsyncKonko(
            endpoints=endpoints, balance="round_robin", timeout=PATIENT
        ) as client:
            _, fixed, _, _ = await unequal_with(asks(client), made)
    return [
        goal("8 unequal servers, one stalls: of the ideal throughput", share * 100, 95, unit="%"),
        goal("... p99 beside the best fixed split", p99 / fixed, 1.3, at_least=False),
    ]


async def kill(rows: int = 20_000) -> list[Goal]:
    with servers(8, capacity=8, latency=0.2) as made, tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        source.write_text("".join(f'{{"prompt": "row {n}"}}\n' for n in range(rows)))
        ends: list[tuple[float, float]] = []
        loop, lost = asyncio.get_running_loop(), 0
        began = loop.time()

        def observe(record: Any) -> None:
            if hasattr(record, "attempts") and record.outcome == "ok":
                ends.append((loop.time() - began, record.duration))

        async with client_of(made, observers=[observe]) as client:

            async def lose() -> None:
                nonlocal lost
                await asyncio.sleep(15)
                lost = sum(client.endpoints[name].in_flight for name in ("s0", "s1"))
                for number in (0, 1):
                    made.kill(number)
                await asyncio.sleep(12)
                for number in (0, 1):
                    made.restart(number)

            losing = asyncio.create_task(lose())
            report = await run_batch(
                client, source, output, model="m", prompt="{prompt}", max_concurrency=96,
                progress_interval=5,
            )  # fmt: skip
            await losing
        answers = len(output.read_text().splitlines())
    each = rate(ends, 5, 15) / 8
    return [
        goal("kill -9 of 2 of 8 amid 20,000 rows: rows lost", rows - answers + report.failed, 0,
             at_least=False, unit="rows"),
        goal("... calls repeated beyond those in flight there", max(0, report.retried - lost - 20),
             0, at_least=False, unit="calls"),
        goal("... of what is left, from 2 s on", 100 * rate(ends, 17, 27) / (6 * each), 95,
             unit="%"),
        goal("... of all, from 10 s after their return", 100 * rate(ends, 37.5, 42) / (8 * each),
             95, unit="%"),
    ]  # fmt: skip


async def keys() -> list[Goal]:
    with servers(1, requests_per_minute=60, limit_window=60) as made:
        endpoints = [
            Endpoint(made.urls[0], f"key-{n}", rate_limit=RateLimit(requests_per_minute=60))
            for n in range(5)
        ]
        rejected = 0

        def observe(record: Any) -> None:
            nonlocal rejected
            rejected += getattr(record, "status_code", None) == 429

        async with AsyncKonko(endpoints=endpoints, observers=[observe], timeout=PATIENT) as client:
            done, _, _ = await closed_loop(asks(client), 50, 150)
    return [
        goal("five keys with windows of 60 s: answers with 429", rejected, 0, at_least=False),
        goal("... of the sum used", 100 * rate(done, 20, 140) / 5, 97, unit="%"),
    ]


async def prefix() -> list[Goal]:
    drawn = random.Random(3)
    with servers(8, cache=10, latency=0.5) as made:
        async with client_of(made, affinity="prefix") as client:
            hits = total = 0
            create = asks(client)

            async def ask(content: str) -> None:
                nonlocal hits, total
                answer = await create(content)
                total += 1
                hits += answer.choices[0].message.content.startswith("hit")

            await closed_loop(ask, 128, 30, lambda: f"You are number {drawn.randrange(64)}.")
            calls = [state.calls for state in client.endpoints]
    return [
        goal("64 prefixes, 8 servers that keep 10: hits", 100 * hits / total, 90, unit="%"),
        goal("... largest load / even", max(calls) * 8 / sum(calls), 1.25, at_least=False),
    ]


async def cost() -> list[Goal]:
    goals = []
    for count, limit in ((8, 2.0), (64, 4.0)):
        choice, whole = await choosing(count)
        what = f"choosing among {count} endpoints, CPU"
        goals.append(goal(what, choice, limit, at_least=False, unit="µs"))
        goals.append(goal("... with limits and circuits", whole, None, unit="µs"))
    return goals


async def choosing(count: int, calls: int = 20_000) -> tuple[float, float]:
    """Return microseconds of the choice alone, and of it with what admits the attempt."""
    endpoints = [Endpoint(f"http://localhost:{8000 + n}/v1") for n in range(count)]
    balancer = build(
        endpoints, {"api_key": "k"}, balance="least_loaded", affinity=None,
        rate_limit=RateLimit(), breaker=CircuitBreaker(), transport=Transport, limiter=Limiter,
    )  # fmt: skip
    loop = asyncio.get_running_loop()
    balancer.attach(loop)
    call = Call(loop.time(), None, loop)
    call.tried, call.affinity = (), None
    request = Request(
        operation=CHAT, path="/chat/completions", params={"model": "m"}, model="m", stream=False,
        headers={}, query=None, timeout=PATIENT, priority="interactive", call=call, content=b"",
    )  # fmt: skip
    now = loop.time()
    for node in balancer.nodes:
        node.load.began(node, 0.1, now)
        node.load.in_flight = random.randrange(20)
        node.load.sent(node, now, stream=False)
    best = [math.inf, math.inf]
    for _ in range(7):
        began = time.process_time()
        for _ in range(calls):
            balancer.strategy.first(balancer.nodes, request, now)
        best[0] = min(best[0], time.process_time() - began)
        began = time.process_time()
        for _ in range(calls // 10):
            choice = balancer.choose(request, now)
            assert choice is not None
            assert choice.permit is not None
            choice.permit.release()
        best[1] = min(best[1], (time.process_time() - began) * 10)
    return best[0] / calls * 1e6, best[1] / calls * 1e6


def goal(
    what: str, value: float, limit: float | None, *, at_least: bool = True, unit: str = ""
) -> Goal:
    return Goal("endpoints", what, [value], limit, at_least=at_least, unit=unit)


# -- rivals ----------------------------------------------------------------------------------------


async def rivals(python: str) -> list[Goal]:
    """Ask ours and others for the unequal servers, one of which stalls and two of which die."""
    goals = []
    for name in ("ours", "litellm least-busy", "litellm latency", "vllm-router"):
        with unequal_servers() as made:
            command = [python, "-m", "benchmarks.endpoint_rivals", name, *made.urls]
            if name == "ours":
                command[0] = sys.executable
            process = await asyncio.create_subprocess_exec(
                *command,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            assert process.stdout is not None
            await process.stdout.readline()  # it has begun
            stalling = asyncio.create_task(stalls(made, 7))
            await asyncio.sleep(20)
            for number in (0, 5):
                made.kill(number)
            found = json.loads((await process.stdout.readline()) or "{}")
            stalling.cancel()
            await process.wait()
        for what, unit in UNITS.items():
            goals.append(goal(f"{name}: {what}", found.get(what, math.nan), None, unit=unit))
    return goals


UNITS = {
    "calls a second before": "/s", "p99 before": "s", "calls a second after": "/s",
    "failed calls": "", "CPU per call": "ms",
}  # fmt: skip
QUESTIONS: dict[str, Callable[[], Awaitable[list[Goal]]]] = {
    "equal": equal, "unequal": unequal, "kill": kill, "keys": keys, "prefix": prefix, "cost": cost,
}  # fmt: skip


def measure(bench: Any) -> None:
    """Ask all questions once."""
    for question in QUESTIONS.values():
        bench.results.goals += asyncio.run(question())
        print(".", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help=f"with commas: {', '.join(QUESTIONS)}")
    parser.add_argument("--rivals", metavar="PYTHON", help="has litellm and vllm-router")
    options = parser.parse_args()
    asked = options.only.split(",") if options.only else [] if options.rivals else [*QUESTIONS]
    for name in asked:
        tell(asyncio.run(QUESTIONS[name]()))
    if options.rivals:
        tell(asyncio.run(rivals(options.rivals)))


def tell(goals: list[Goal]) -> None:
    for one in goals:
        limit = "" if one.limit is None else f"   goal {'≥' if one.at_least else '≤'} {one.limit:g}"
        print(f"{one.what:<60} {one.value:10.2f} {one.unit:<6}{limit}", flush=True)


if __name__ == "__main__":
    main()
