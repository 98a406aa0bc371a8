"""What a relay costs, and how soon it notices.

    python -m benchmarks.bench_relay [--quick] [cpu] [latency] [disconnect] [capacity]

The relay has one core to itself; the load server and the readers share the other. Every reader is a
bare protocol on a socket, so that what is measured is the relay. Run it on a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Self

from aiohttp import web

from benchmarks.bench import Bench
from benchmarks.load import Server, Unfit, cores
from benchmarks.results import Figure, Goal
from benchmarks.scenes import MODEL, Scene, event
from benchmarks.stats import interval, percentile
from konko_async import AsyncKonko
from konko_async.relay import RelayOptions, RelayService
from konko_async.relay.aiohttp_web import add_routes

PARTS = ("cpu", "latency", "disconnect", "capacity")
ROOT = Path(__file__).parent.parent
CHAT = "/v1/chat/completions"
BODY = json.dumps({"messages": [{"role": "user", "content": "Say."}], "stream": True}).encode()
LIMIT = 0.050  # seconds between chunks, at p99
WARM = 1.5  # seconds of a paced stream that do not count
PACE = 50  # tokens a second
FRAME = event("x" * 4, 280)  # as many bytes as the relay writes per chunk
STAMPS = 150  # tokens of a stream whose latency is measured
HEAD = 2000  # bytes in which the first token is
STAMPED = re.compile(rb'"content":"(\d{19})')


# -- the relay's process ---------------------------------------------------------------------------


async def relay(url: str) -> None:
    """Serve: the relay at its path, /drain which only reads, /bare which also writes, /cpu."""
    many = {"max_calls": 10**5, "max_calls_per_identity": 10**5}
    many |= {"max_readers": 10**5, "max_readers_per_identity": 10**5}
    async with AsyncKonko("k", url) as client:
        app = web.Application()
        options = RelayOptions(models=[MODEL], **many)
        add_routes(app, RelayService(client, options, auth="open", host="127.0.0.1"))

        async def drain(request: web.Request) -> web.Response:
            body = await request.json()
            read = 0
            stream = client.chat.completions.stream(model=MODEL, messages=body["messages"])
            async with stream:
                while (batch := await stream.read()) is not None:
                    read += len(batch)
            return web.Response(text="\n\n" * read)

        async def bare(request: web.Request) -> web.StreamResponse:
            # As many writes of as many bytes as the relay, by the socket's transport itself.
            body, response = await request.json(), web.StreamResponse()
            await response.prepare(request)
            await response.write(b" ")
            write = request.transport.write
            async with client.chat.completions.stream(model=MODEL, messages=body["messages"]) as s:
                while (batch := await s.read()) is not None:
                    write(FRAME * len(batch))
            request.transport.write(b"0\r\n\r\n")
            return response

        async def cpu(_: web.Request) -> web.Response:
            return web.Response(text=repr(time.process_time()))

        app.router.add_post("/drain", drain)
        app.router.add_post("/bare", bare)
        app.router.add_get("/cpu", cpu)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await runner.cleanup()


# -- a server that says in each token when it was sent ---------------------------------------------


class Stamper(asyncio.Protocol):
    """Answers each request with tokens that are the time of their sending, at a pace."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.loop = transport, asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"}"):
            head = (
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head)
            self.left, self.due = STAMPS, self.loop.time()
            self.send()

    def send(self) -> None:
        if self.transport.is_closing():
            return
        self.left -= 1
        if not self.left:
            # Readers know the end by the last bytes of chunked framing; others skip a comment.
            self.transport.write(event({}, 280, "stop") + b"data: [DONE]\n\n:0\r\n\r\n")
            self.transport.close()
            return
        self.transport.write(event(f"{time.monotonic_ns():019}", 280))
        self.due += 1 / PACE
        self.loop.call_at(self.due, self.send)


async def stamper() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Stamper, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


# -- the readers' process --------------------------------------------------------------------------


class Reader(asyncio.Protocol):
    """One browser, which notes when how many events had come."""

    def __init__(self, path: str, port: int, *, stamped: bool = False) -> None:
        path, _, resumable = path.partition("+")
        self.stamped, self.delays = stamped, []
        self.request = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(BODY)}\r\n{'X-Resumable: 1' if resumable else 'X-A: 1'}\r\n\r\n"
        ).encode() + BODY
        self.last = b"\n\n" if path == "/drain" else b"0\r\n\r\n"
        self.arrivals: list[tuple[int, int]] = []
        self.begin = b""
        self.events = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if len(self.begin) < HEAD:
            self.begin += data
        count = data.count(b"\n\n")
        if self.stamped:
            now = time.monotonic_ns()
            self.delays += [(now - int(stamp)) / 1e3 for stamp in STAMPED.findall(data)]
        elif count:
            self.events += count
            self.arrivals.append((time.monotonic_ns(), self.events))
        if data.endswith(self.last) and not self.done.done():
            self.done.set_result(None)
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"cut: {error}"))

    def stamp(self) -> int:
        """When the load server sent the first token."""
        return int(STAMPED.search(self.begin)[1])


async def read_all(order: dict) -> list[Reader]:
    """Read so many streams to their ends, begun over so many seconds."""
    loop, port, over = asyncio.get_running_loop(), order["port"], order["over"]
    readers = []
    for number in range(order["streams"]):
        reader = Reader(order["path"], port, stamped=order["stamped"])
        await loop.create_connection(lambda made=reader: made, "127.0.0.1", port)
        readers.append(reader)
        if over:
            await asyncio.sleep(over / order["streams"])
        elif number % 50 == 49:
            await asyncio.sleep(0.01)
    await asyncio.gather(*(reader.done for reader in readers))
    return readers


def gaps_of(readers: list[Reader], gap_ns: int) -> dict[str, float]:
    """Seconds between chunks that readers of paced streams saw, begin and end apart."""
    gaps = []
    for reader in readers:
        begin, end = reader.stamp() + WARM * 1e9, reader.arrivals[-1][0] - 2 * gap_ns
        times = [at for at, _ in reader.arrivals if begin <= at <= end]
        gaps += [(after - before) / 1e9 for before, after in itertools.pairwise(times)]
    return {
        "gap_p50": statistics.median(gaps),
        "gap_p99": percentile(gaps, 0.99),
        "gap_max": max(gaps),
    }


async def read(order: dict) -> dict[str, float]:
    """Do one order of the harness."""
    before = time.process_time()
    begun = time.monotonic()
    readers = await read_all(order)
    took = time.monotonic() - begun
    found: dict[str, float] = {"events": sum(reader.events for reader in readers)}
    if order["gap_ns"]:
        found |= gaps_of(readers, order["gap_ns"])
    if order["stamped"]:
        delays = [delay for reader in readers for delay in reader.delays]
        found |= {
            "p50": statistics.median(delays),
            "p99": percentile(delays, 0.99),
            "n": len(delays),
        }
    return found | {"reader_cpu": (time.process_time() - before) / took, "took": took}


# -- the harness -----------------------------------------------------------------------------------


class Process:
    """A process of ours on a core; says a line when it is ready."""

    def __init__(self, role: str, core: int, loop: str, argument: str = "") -> None:
        command = [
            sys.executable,
            "-m",
            "benchmarks.bench_relay",
            "--role",
            role,
            "--loop",
            loop,
            argument,
        ]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.sched_setaffinity(self._process.pid, {core})
        self.said = self._process.stdout.readline().strip()
        if not self.said:
            raise Unfit(f"the {role} did not start")

    def ask(self, order: dict) -> dict:
        """Send an order and return the answer."""
        print(json.dumps(order), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise Unfit("the readers ended")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(20)


class Stage:
    """A relay of a server, and readers."""

    def __init__(self, url: str, loop: str, scene: Scene | None = None) -> None:
        self.scene = scene
        ours, theirs = cores()
        self._relay = Process("relay", ours, loop, url)
        self._readers = Process("readers", theirs, loop)
        self.port = int(self._relay.said)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.close()
        self._relay.close()

    def cpu(self) -> float:
        """Seconds of CPU that the relay has used."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/cpu") as answer:
            return float(answer.read())

    def read(self, path: str, streams: int, *, port: int = 0, over: float = 0) -> dict:
        """Let so many readers read; returns what they saw, and the relay's CPU."""
        scene = self.scene
        order = {"path": path, "port": port or self.port, "streams": streams, "over": over}
        order["stamped"] = scene is None
        order["gap_ns"] = round(1e9 * scene.write / scene.pace) if scene and scene.stamp else 0
        before, begun = self.cpu(), time.monotonic()
        found = self._readers.ask(order)
        used = self.cpu() - before
        return found | {"cpu": used, "load": used / (time.monotonic() - begun)}


# Where each chunk comes alone, it is a write of its own, which is a call of the kernel.
LIMITS = {1: 15, 5: 3, 20: 1.5}  # µs of CPU per chunk beyond reading it, by chunks in a read
CASES = ((20, 2000, 2000, 8), (5, 1000, 500, 16), (1, 250, 100, 30))  # write chunks pace streams


def cost(
    server: Server, loop: str, rounds: int, case: tuple[int, int, int, int]
) -> list[list[float]]:
    """CPU per chunk in neighbouring rounds, µs: reading only, writing barely as well, relaying."""
    write, chunks, pace, streams = case
    scene = Scene(chunks=chunks, write=write, pace=pace)
    with Stage(server.url(scene), loop, scene) as stage:
        found: dict[str, list[float]] = {"/drain": [], "/bare": [], CHAT: []}
        for number in range(rounds + 1):
            for path in list(found)[:: 1 if number % 2 else -1]:
                done = stage.read(path, streams, over=0.2)
                if number:  # the first warms up
                    found[path].append(1e6 * done["cpu"] / (streams * (chunks + 2)))
    return list(found.values())


def measure(bench: Bench) -> None:
    """Answer the question of the suite: CPU per chunk beyond reading it."""
    loop = "asyncio" if bench.loop == "best" else bench.loop
    rounds = bench.rounds or (2 if bench.quick else 5)
    for case in CASES[:1] if bench.quick else CASES:
        only, bare, whole = cost(bench.server, loop, rounds, case)
        what, unit = f"{case[0]} a read", "µs CPU per chunk"
        ways = {"reading only": only, "reading, bare writes": bare, "relaying": whole}
        for who, samples in ways.items():
            bench.results.figures.append(Figure("relay", who, what, unit, samples))
        beyond = [b - a for a, b in zip(only, whole, strict=True)]
        goal = Goal("relay", f"beyond reading, {what}", beyond, LIMITS[case[0]], unit=unit)
        bench.results.goals.append(goal)


def cpu(server: Server, told: argparse.Namespace) -> None:
    """CPU per chunk beyond reading it, in neighbouring rounds."""
    print("\nCPU per chunk (µs): reading only, bare writes as well, relaying; beyond reading, bare")
    rounds = told.rounds or (3 if told.quick else 9)
    for case in CASES:
        only, bare, whole = cost(server, told.loop, rounds, case)
        print(f"  {case[0]:3} chunks a read:", end="")
        for samples in (only, bare, whole):
            print(f" {statistics.median(samples):6.2f}", end="")
        for before in (only, bare):
            beyond = [b - a for a, b in zip(before, whole, strict=True)]
            low, high = interval(beyond)
            print(f"  {statistics.median(beyond):6.2f} [{low:.2f}, {high:.2f}]", end="")
        print()


def latency(_: Server, told: argparse.Namespace) -> None:
    """Delay of a chunk from its sending: read directly, and through the relay."""
    print(f"\nLatency of a chunk (µs), of streams of {PACE} tokens a second: median, p99")
    rounds = told.rounds or (1 if told.quick else 5)
    server = Process("stamper", cores()[1], told.loop)
    port = int(server.said)
    try:
        with Stage(f"http://127.0.0.1:{port}/v1", told.loop) as stage:
            stage.read(CHAT, 5)
            for streams in (1, 20, 100):
                direct, relayed = [], []
                for _ in range(rounds):
                    direct.append(stage.read(CHAT, streams, port=port, over=0.1))
                    relayed.append(stage.read(CHAT, streams, over=0.1))
                for name in ("p50", "p99"):
                    without = statistics.median(found[name] for found in direct)
                    with_it = statistics.median(found[name] for found in relayed)
                    print(
                        f"  {streams:4} streams, {name}: direct {without:6.0f}, "
                        f"relayed {with_it:6.0f}, added {with_it - without:6.0f}"
                    )
    finally:
        server.close()


def capacity(server: Server, told: argparse.Namespace) -> None:
    """Streams at once on one core with less than 50 ms between chunks at p99."""
    print(
        f"\nStreams of {PACE} tokens a second: between chunks (ms) median, p99, max; load of cores"
    )
    scene = Scene(chunks=350, pace=PACE, stamp=True)
    good, bad = 0, None
    step = told.start
    while bad is None or bad - good > max(25, good // 10):
        streams = step if bad is None else (good + bad) // 2
        with Stage(server.url(scene), told.loop, scene) as stage:
            done = stage.read(CHAT, streams, over=1.0)
        usage = server.usage()
        fits = done["gap_p99"] < LIMIT and done["events"] >= streams * (scene.chunks + 2)
        print(
            f"  {streams:5}: {1e3 * done['gap_p50']:6.1f} {1e3 * done['gap_p99']:6.1f} "
            f"{1e3 * done['gap_max']:6.1f}   relay {done['load']:.0%}, "
            f"readers {done['reader_cpu']:.0%}, server late by {usage['late_mean']:.0f} µs"
            f"{'' if fits else '   too many'}"
        )
        if fits:
            good = streams
            step = streams * 2
        else:
            bad = streams
    print(f"  {good} streams at once")


def disconnect(_: Server, told: argparse.Namespace) -> None:
    """Time from a browser's disconnect to the closing of the upstream socket."""
    print("\nFrom the browser's disconnect to the upstream socket's closing (ms): median, max")
    rounds = 10 if told.quick else 40
    for phase in ("before the first token", "between tokens", "while a write waits"):
        found = asyncio.run(_disconnects(phase, rounds))
        print(f"  {phase:24} {1e3 * statistics.median(found):6.1f} {1e3 * max(found):6.1f}")


async def _disconnects(phase: str, rounds: int) -> list[float]:
    loop = asyncio.get_running_loop()
    closed: asyncio.Queue[float] = asyncio.Queue()
    stuck = asyncio.Event()
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY[-1:])
        with contextlib.suppress(ConnectionError):
            if phase != "before the first token":
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + chunk % b"x"
                )
            while phase == "while a write waits":
                writer.write(chunk % (b"x" * 10_000))
                timer = loop.call_later(0.2, stuck.set)
                await writer.drain()
                timer.cancel()
            stuck.set()
            while await reader.read(65536):
                pass
        closed.put_nowait(loop.time())
        writer.transport.abort()

    upstream = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{upstream.sockets[0].getsockname()[1]}/v1"
    found = []
    async with AsyncKonko("k", url, retry=None) as client:
        app = web.Application()
        add_routes(
            app, RelayService(client, RelayOptions(models=["m"]), auth="open", host="127.0.0.1")
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        for number in range(rounds):
            stuck.clear()
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
            writer.write(Reader(CHAT, port).request)
            if phase == "between tokens":
                await reader.readuntil(b"\n\n")
            await stuck.wait()
            await asyncio.sleep(0.013 * number % 0.3)  # in every part of the time between looks
            left = loop.time()
            writer.transport.abort()
            found.append(await closed.get() - left)
        await runner.cleanup()
    upstream.close()
    return found


def run(coroutine, loop: str):
    """Run a coroutine on the loop that was asked for."""
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - not everybody has it

        return uvloop.run(coroutine)
    return asyncio.run(coroutine)


async def readers() -> None:
    """Do the orders of standard input, one after the other."""
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await read(json.loads(line))), flush=True)


def main() -> int:
    """Measure what was asked for and print it."""
    parser = argparse.ArgumentParser("python -m benchmarks.bench_relay", description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--loop", default="asyncio", choices=("asyncio", "uvloop"))
    parser.add_argument("--start", type=int, default=200, help="streams to begin with (capacity)")
    parser.add_argument(
        "--role", default="", choices=("", "relay", "readers", "stamper"), help=argparse.SUPPRESS
    )
    told = parser.parse_args()
    if told.role == "relay":
        run(relay(told.parts[0]), told.loop)
        return 0
    if told.role:
        run(readers() if told.role == "readers" else stamper(), told.loop)
        return 0
    unknown = set(told.parts) - set(PARTS)
    if unknown:
        parser.error(f"{unknown.pop()!r} is none of {', '.join(PARTS)}")
    try:
        with Server() as server:
            for part in told.parts:
                globals()[part](server, told)
    except Unfit as error:
        print(f"bench_relay: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
