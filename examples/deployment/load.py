"""Load for the deployment: many streams, readers that lose their connection, a worker that dies.

Each reader knows what its answer has to be. What is counted: answers that did not arrive whole,
events that came twice or never, and how long it took to read on.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from konko_async.sse import SSEDecoder
from konko_async.testing import Emulator

WORDS = 30  # of an answer
PER_SECOND = 1.2  # so an answer takes 25 s, and all of them are under way when the worker dies
RAMP = 10.0  # seconds over which the streams begin
RELOADS = 0.2  # of the readers lose their connection once, by themselves
TRIES = 120  # to reach the service, each after at most 1 s
ROUNDS = (("SIGTERM", signal.SIGTERM), ("SIGKILL", signal.SIGKILL))


def answer(question: str) -> str:
    """Return what the made-up model says: different for each question."""
    return " ".join(f"{question}w{number}" for number in range(WORDS))


async def serve_upstream() -> None:
    """Serve the made-up model until SIGTERM, and print where."""
    async with Emulator(
        models=["made-up"],
        answer=lambda body: answer(body["messages"][-1]["content"]),
        tokens_per_second=PER_SECOND,
        log_limit=0,
    ) as server:
        print(server.base_url, flush=True)
        await asyncio.Event().wait()


@dataclass
class Reader:
    """One browser: asks, reads, loses its connection, comes back, and in the end has it all."""

    session: aiohttp.ClientSession
    token: str
    question: str
    reload_at: int | None
    counts: Counter[str]
    resumes: list[float]
    firsts: list[float]
    text: str = ""
    stream_id: str | None = None
    last: int = 0
    worker: str | None = None
    done: bool = False
    lost: bool = False
    cut_at: float | None = None
    headers: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Ask, and come back until the whole answer is there."""
        self.headers = {"Authorization": f"Bearer {self.token}"}
        for _ in range(TRIES):
            try:
                await self._once()
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                self.cut_at = self.cut_at or time.perf_counter()
                self.counts["connections cut"] += 1
            if self.done:
                break
            if self.lost or self.stream_id is None:
                # Its worker died and nobody can go on with it: a page asks the question again.
                self.counts["asked again"] += bool(self.text)
                self.text, self.stream_id, self.last, self.lost = "", None, 0, False
            # Spread, as pages do: all of a dead worker's readers come back.
            await asyncio.sleep(random.random())  # noqa: S311 - load, no secret
        whole = self.done and self.text == answer(self.question)
        self.counts["whole" if whole else "LOST"] += 1

    async def _once(self) -> None:
        """Ask, or read on; returns at the end, or where the connection ends."""
        began = time.perf_counter()
        if self.stream_id is None:
            body = {
                "model": "made-up", "stream": True,
                "messages": [{"role": "user", "content": self.question}],
            }  # fmt: skip
            request = self.session.post("/v1/chat/completions", json=body, headers=self.headers)
        else:
            last = {"Last-Event-ID": f"{self.stream_id}.{self.last}"}
            path = f"/v1/streams/{self.stream_id}"
            request = self.session.get(path, headers=self.headers | last)
        async with request as response:
            if not response.ok:
                self.counts[f"status {response.status}"] += 1
                # 404 and 410: the stream is gone. All else (503 of a drain, 502) may pass.
                self.lost = self.stream_id is not None and response.status in {404, 410}
                return
            self._resumed(response.headers.get("X-Worker"))
            if self.stream_id is None:
                self.firsts.append(time.perf_counter() - began)
            self.stream_id = response.headers.get("X-Stream-Id")
            # A store that did not answer in time: answered all the same, but not resumable.
            self.counts["not resumable"] += self.stream_id is None
            await self._read(response)

    def _resumed(self, worker: str | None) -> None:
        if self.stream_id is not None:
            self.counts["resumed"] += 1
            self.counts["resumed at another worker"] += worker != self.worker
            if self.cut_at is not None:
                self.resumes.append(time.perf_counter() - self.cut_at)
        self.cut_at = None
        self.worker = worker

    async def _read(self, response: aiohttp.ClientResponse) -> None:
        decoder = SSEDecoder(max_event_bytes=2**20)
        async for data in response.content.iter_any():
            for event in decoder.feed(data):
                self._take(event.data, event.id)
            if self.done or self.lost:
                return
            if self.reload_at is not None and self.last >= self.reload_at:
                self.reload_at = None
                self.counts["reloaded by themselves"] += 1
                self.cut_at = time.perf_counter()
                response.close()
                return
        # nginx ends the response where the worker's connection ended; there was no [DONE].
        self.cut_at = time.perf_counter()
        self.counts["connections cut"] += 1

    def _take(self, data: str, event_id: str | None) -> None:
        if event_id:
            number = int(event_id.rpartition(".")[2])
            if number != self.last + 1 and number != self.last:
                self.counts["GAPS OR DOUBLES"] += 1
            self.last = number
        if data == "[DONE]":
            self.done = not self.lost
            return
        chunk: dict[str, Any] = json.loads(data)
        if "error" in chunk:
            self.lost = True
            self.counts[f"error event: {chunk['error'].get('type')}"] += 1
            return
        if "relay" in chunk:  # the worker's drain has ended before the answer did
            self.lost = True
            self.counts[f"ended by the relay: {chunk['relay'].get('reason')}"] += 1
            return
        for choice in chunk["choices"]:
            self.text += choice["delta"].get("content") or ""


async def one_round(
    deployment: Any, tokens: list[str], streams: int, name: str, number: int
) -> bool:
    """Run the streams once, end a worker in the middle, and print what came of it."""
    counts: Counter[str] = Counter()
    resumes: list[float] = []
    firsts: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
    began = time.perf_counter()
    async with aiohttp.ClientSession(
        deployment.url, connector=connector, timeout=timeout
    ) as session:

        async def start(place: int) -> None:
            await asyncio.sleep(RAMP * place / streams)
            reloads = random.random() < RELOADS  # noqa: S311 - load, no secret
            reload_at = random.randrange(5, WORDS) if reloads else None  # noqa: S311 - load, no secret
            token = tokens[place % len(tokens)]
            question = f"{name[3].lower()}{place}"
            await Reader(session, token, question, reload_at, counts, resumes, firsts).run()

        readers = [asyncio.create_task(start(place)) for place in range(streams)]
        await asyncio.sleep(RAMP + 3)
        worker = next(iter(deployment.workers.values()))
        worker.send_signal(number)
        await asyncio.gather(*readers)
    took = time.perf_counter() - began
    print(f"\n{name} to 1 of {len(deployment.workers)} workers, {streams} streams, {took:.0f} s:")
    for key, count in sorted(counts.items()):
        print(f"  {key}: {count}")
    print(f"  first token, p50 / p95: {quantiles(firsts)}")
    print(f"  from the cut to reading on, p50 / p95 / most: {quantiles(resumes, most=True)}")
    print(f"  answers lost: {counts['LOST']}; events twice or never: {counts['GAPS OR DOUBLES']}")
    return counts["whole"] == streams and not counts["GAPS OR DOUBLES"]


def quantiles(seconds: list[float], *, most: bool = False) -> str:
    """Return p50 and p95, and the most if that is wanted."""
    if not seconds:
        return "-"
    parts = statistics.quantiles([*seconds, seconds[0]], n=20, method="inclusive")
    shown = [parts[9], parts[18], *([max(seconds)] if most else [])]
    return " / ".join(f"{value:.2f} s" for value in shown)


async def run_load(deployment: Any, tokens: list[str], streams: int) -> int:
    """Run all rounds; 0 if nothing was lost."""
    well = True
    for name, number in ROUNDS:
        well = await one_round(deployment, tokens, streams, name, number) and well
        await deployment.ready()
        await asyncio.sleep(4)  # Prometheus asks all of them once more
    await print_metrics(deployment)
    print(f"workers started again: {deployment.restarts}")
    print("well" if well else "ANSWERS WERE LOST")
    return 0 if well else 1


async def print_metrics(deployment: Any) -> None:
    """Print what Prometheus has seen."""
    query = {"query": "sum by (outcome) (max_over_time(konko_calls_total[10m]))"}
    url = f"http://127.0.0.1:{deployment.prometheus}/api/v1/query"
    async with aiohttp.ClientSession() as session, session.get(url, params=query) as response:
        found = (await response.json())["data"]["result"]
    calls = {row["metric"].get("outcome"): row["value"][1] for row in found}
    print(f"\nPrometheus: calls by outcome {calls}")


if __name__ == "__main__" and sys.argv[1:] == ["upstream"]:
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve_upstream())
    os._exit(0)
