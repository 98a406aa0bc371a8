"""What a rival's process does in a round: the work, its CPU, and the check of what was read."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

PROMPT = "Summarize the Foundation by Isaac Asimov"


class Wrong(Exception):  # noqa: N818 - what it says
    """A client did not read exactly what was sent."""


async def run(kind: str, module: Any, mode: str, clients: dict[str, Any], order: dict) -> dict:
    """Do one round with the client for the order's server, which is kept for the next one."""
    url = order.pop("base_url")
    if kind == "close" or url not in clients:
        await close(clients)
    if kind == "close":
        return {}
    if url not in clients:
        clients[url] = module.make(url, mode)
    return await KINDS[kind](clients[url], **order)


async def close(clients: dict[str, Any]) -> None:
    """Close all clients, so that a server's sockets suffice for the next ones."""
    while clients:
        await clients.popitem()[1].close()


def check(texts: list[list[str]], expect: dict) -> None:
    """Compare what was read, stream by stream.

    Raises:
        Wrong: a text differs, or the number of chunks.
    """
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


class Sampler:
    """Reads CPU, time and chunks twice while all streams run: what a chunk costs once they are open."""

    def __init__(self, texts: list[list[str]], start: float, stop: float) -> None:
        loop = asyncio.get_running_loop()
        self.texts = texts
        self.marks: list[tuple[float, float, int]] = []
        self.timers = [loop.call_later(at, self.mark) for at in (start, stop)]

    def mark(self) -> None:
        """Note where things stand."""
        count = sum(map(len, self.texts))
        self.marks.append((time.process_time(), time.perf_counter(), count))

    def result(self) -> dict:
        """Return the window's figures; nothing if the round was over before its end."""
        for timer in self.timers:
            timer.cancel()
        if len(self.marks) < 2:
            return {}
        (cpu, wall, count), (cpu2, wall2, count2) = self.marks
        return {"window": {"cpu": cpu2 - cpu, "wall": wall2 - wall, "chunks": count2 - count}}


async def streams(
    client: Any, streams: int, expect: dict, window: list[float] | None = None, prompt: str = PROMPT
) -> dict:
    """Read so many streams at once, each to its end."""
    texts: list[list[str]] = [[] for _ in range(streams)]
    cpu, wall = time.process_time(), time.perf_counter()
    sampler = Sampler(texts, *window) if window else None
    if streams == 1:
        await client.stream(texts[0], prompt)
    else:
        await asyncio.gather(*[client.stream(pieces, prompt) for pieces in texts])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    check(texts, expect)
    units = streams * expect["chunks"]
    return {"cpu": cpu, "wall": wall, "units": units, **(sampler.result() if sampler else {})}


async def wholes(
    client: Any, requests: int, at_once: int, expect: dict, prompt: str = PROMPT
) -> dict:
    """Ask for so many whole answers, so many at once."""
    left = iter(range(requests))
    texts: list[str] = []

    async def work() -> None:
        for _ in left:
            texts.append(await client.whole(prompt))  # noqa: PERF401 - not one comprehension

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*[work() for _ in range(at_once)])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if len(texts) != requests:
        raise Wrong(f"{len(texts)} answers instead of {requests}")
    expect = {**expect, "counts": [1]}
    check([[text] for text in texts], expect)
    return {"cpu": cpu, "wall": wall, "units": requests}




KINDS: dict[str, Callable[..., Awaitable[dict]]] = {
    "streams": streams,
    "wholes": wholes,
}
