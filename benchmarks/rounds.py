"""What a rival's process does in a round: the work, its CPU, and the check of what was read."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

GROUP = 1_000
PROMPT = "Summarize the Foundation by Isaac Asimov"

RIVAL: tuple[Any, str] = (None, "")  # the rival's module and its mode; set by the worker
CLIENTS: dict[str, Any] = {}  # by base URL


class Wrong(Exception):  # noqa: N818 - what it says
    """A client did not read exactly what was sent."""


async def run(kind: str, order: dict[str, Any]) -> dict[str, Any]:
    """Do one round; clients are kept until another server is asked, or "close"."""
    url, alone = order.pop("base_url"), order.pop("alone", False)
    if kind == "close" or url not in CLIENTS:
        await close()
    if kind == "close":
        return {}
    done = await KINDS[kind](client_for(url), **order)
    if alone:  # the sockets of two would be more than the server may have
        await close()
    return done


def client_for(url: str) -> Any:
    """Return the client for a base URL."""
    if url not in CLIENTS:
        module, mode = RIVAL
        CLIENTS[url] = module.make(url, mode)
    return CLIENTS[url]


async def close() -> None:
    """Close all clients, so that a server's sockets suffice for the next ones."""
    while CLIENTS:
        await CLIENTS.popitem()[1].close()


def check(texts: list[list[Any]], expect: dict[str, Any]) -> None:
    """Compare what was read, stream by stream.

    Raises:
        Wrong: a text differs, or the number of chunks.
    """
    module, _ = RIVAL
    if hasattr(module, "wrong"):  # it counts bytes
        complaint = module.wrong(texts, expect)
        if complaint:
            raise Wrong(complaint)
        return
    known = set()
    for pieces in texts:
        if len(pieces) not in expect["counts"]:
            raise Wrong(f"{len(pieces)} chunks, not one of {expect['counts']}")
        text = "".join(filter(None, pieces))
        if text in known:
            continue
        if len(text) != expect["length"]:
            raise Wrong(f"{len(text)} characters instead of {expect['length']}: {text[:80]!r} ...")
        if expect["sha256"] and hashlib.sha256(text.encode()).hexdigest() != expect["sha256"]:
            raise Wrong(f"another text: {text[:80]!r} ...")
        known.add(text)


class Window:
    """CPU, time and chunks from when all streams are open: what a chunk costs then."""

    def __init__(self, texts: list[list[Any]], length: float) -> None:
        self.texts, self.length = texts, length
        self.marks: list[tuple[float, float, int]] = []
        self.loop = asyncio.get_running_loop()
        self.timer = self.loop.call_later(0.05, self.look)

    def look(self) -> None:
        """Begin once every stream has brought something."""
        if all(self.texts):
            self.mark()
            self.timer = self.loop.call_later(self.length, self.mark)
        else:
            self.timer = self.loop.call_later(0.05, self.look)

    def mark(self) -> None:
        """Note where things stand."""
        count = sum(map(len, self.texts))
        self.marks.append((time.process_time(), time.perf_counter(), count))

    def result(self) -> dict[str, Any]:
        """Return the window's figures; nothing if the round was over before its end."""
        self.timer.cancel()
        if len(self.marks) < 2:
            return {}
        (cpu, wall, count), (cpu2, wall2, count2) = self.marks
        return {"window": {"cpu": cpu2 - cpu, "wall": wall2 - wall, "chunks": count2 - count}}


async def begun(client: Any, texts: list[list[Any]], prompt: str, group: int) -> list[Any]:
    """Begin to read streams, so many at a time: 10,000 at once overflow the server's queue."""
    tasks = []
    for at in range(0, len(texts), group):
        if at:
            await asyncio.sleep(0.1)
        for pieces in texts[at : at + group]:
            tasks.append(asyncio.ensure_future(client.stream(pieces, prompt)))  # noqa: PERF401
    return tasks


async def read_streams(
    client: Any, streams: int, expect: dict[str, Any], window: float = 0, prompt: str = PROMPT
) -> dict[str, Any]:
    """Read so many streams at once, each to its end."""
    texts: list[list[Any]] = [[] for _ in range(streams)]
    cpu, wall = time.process_time(), time.perf_counter()
    watch = Window(texts, window) if window else None
    if streams == 1:
        await client.stream(texts[0], prompt)
    else:
        await asyncio.gather(*await begun(client, texts, prompt, GROUP if window else streams))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    check(texts, expect)
    units = streams * expect["chunks"]
    return {"cpu": cpu, "wall": wall, "units": units, **(watch.result() if watch else {})}


async def wholes(
    client: Any, requests: int, at_once: int, expect: dict[str, Any], prompt: int | str = PROMPT
) -> dict[str, Any]:
    """Ask for so many whole answers, so many at once; ``prompt`` may be its size in bytes."""
    if isinstance(prompt, int):
        prompt = (PROMPT * (prompt // len(PROMPT) + 1))[:prompt]
    left = iter(range(requests))
    texts: list[Any] = []

    async def work() -> None:
        for _ in left:
            texts.append(await client.whole(prompt))  # noqa: PERF401 - not one comprehension

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*[work() for _ in range(at_once)])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if len(texts) != requests:
        raise Wrong(f"{len(texts)} answers instead of {requests}")
    check([[text] for text in texts], expect | {"counts": [1]})
    return {"cpu": cpu, "wall": wall, "units": requests}


async def leave(client: Any, requests: int, at_once: int, expect: dict[str, Any]) -> dict[str, Any]:
    """Open streams and leave each after its first token, so that their connections are closed."""
    left = iter(range(requests))

    async def work() -> None:
        for _ in left:
            if len(await client.first(PROMPT)) >= expect["length"]:
                raise Wrong("more than the first token")

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*[work() for _ in range(at_once)])
    return {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "units": requests,
    }


def resident() -> tuple[float, float]:
    """Return resident memory now and its peak since the last reset, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return int(found["VmRSS"]) / 1e3, int(found["VmHWM"]) / 1e3


def forget_peak() -> None:
    """Let the peak of resident memory begin anew; see proc(5)."""
    Path("/proc/self/clear_refs").write_text("5")


async def memory(
    client: Any, streams: int, expect: dict[str, Any], warm_url: str
) -> dict[str, Any]:
    """Hold so many streams open at once (the server's gate sees to it), and watch the peak."""
    await client_for(warm_url).stream([], PROMPT)
    gc.collect()
    forget_peak()
    before, _ = resident()
    done = await read_streams(client, streams, expect)
    _, peak = resident()
    return done | {"before": before, "peak": peak}


class Noting(list[Any]):
    """What a client appends its texts to; notes the first one that is not empty, and when."""

    at, first = 0, ""

    def append(self, text: Any) -> None:
        if text and not self.at:
            self.at, self.first = time.monotonic_ns(), text


async def first_tokens(
    client: Any, probes: int, expect: dict[str, Any], load_url: str, load: int
) -> dict[str, Any]:
    """Time first tokens, one call after the other, while ``load`` other streams come.

    A figure is the time from the call to its first token, without what the server took between
    the request's coming and the token's sending; both clocks are CLOCK_MONOTONIC.
    """
    del expect  # a time differs from answer to answer; the length is checked below
    other = client_for(load_url) if load else None
    texts: list[list[Any]] = [[] for _ in range(load)]
    tasks = [asyncio.create_task(other.stream(pieces, PROMPT)) for pieces in texts]
    while not all(texts):  # noqa: ASYNC110 - an event would need a look at every chunk
        await asyncio.sleep(0.05)
    read = getattr(client, "stamped", client.stream)  # of one that looks at nothing else
    draw = random.Random(1)
    found = []
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(probes):
        await asyncio.sleep(draw.random() * 0.01)
        pieces = Noting()
        called = time.monotonic_ns()
        # To its end, so that the next one finds its connection.
        await read(pieces, PROMPT)
        if len(pieces.first) != 38:
            raise Wrong(f"no times: {pieces.first!r}")
        at_server = int(pieces.first[:19]) - int(pieces.first[19:])
        found.append((pieces.at - called - at_server) / 1e3)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    unfinished = sum(not task.done() for task in tasks)
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    if unfinished < load:
        raise Wrong(f"{load - unfinished} of {load} streams of the load had ended: {ends[0]!r}")
    return {"cpu": cpu, "wall": wall, "units": probes, "added_us": found}


KINDS: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
    "streams": read_streams,
    "wholes": wholes,
    "leave": leave,
    "memory": memory,
    "first_tokens": first_tokens,
}
