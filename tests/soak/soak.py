"""Mixed load for a long time against a bad server, and what it leaves behind.

    python tests/soak/soak.py --seconds 300 --streams 200

Streams that are read, cancelled, left early or late; whole answers; embeddings; answers cut, silent,
broken or refused; retries, hedges, limits and deadlines; a client that is made and closed again and
again. The exit code is 1 if anything is left: a descriptor, a task, a place of the limits, memory
that grows, or an exception that nobody got.
"""

import argparse
import asyncio
import gc
import logging
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "proof"))

from proof_kit import ask_for, client_of, median, others, permits, say, serving

from konko_async import KonkoError, RateLimit, RetryPolicy, Timeout

# Share of the calls, and what happens to them.
_FAULTS = [
    (0.02, "Status", {"status": 503}),
    (0.0005, "Status", {"status": 429, "retry_after_ms": 20}),
    (0.005, "Status", {"status": 400}),
    (0.01, "Cut", {}),
    (0.01, "Cut", {"after_chunks": 0, "reset": False}),
    (0.01, "Cut", {"after_chunks": 3}),
    (0.01, "Stall", {"seconds": 1.0}),
    (0.01, "Stall", {"after_chunks": 2}),
    (0.01, "Stall", {"after_chunks": 0, "heartbeat": 0.02, "seconds": 2.0}),
    (0.005, "ErrorInStream", {"after_chunks": 2}),
    (0.005, "MalformedJSON", {"after_chunks": 1}),
    (0.005, "InvalidUTF8", {}),
    (0.005, "EmptyBody", {}),
    (0.005, "Quirks", {"done": False}),
    (0.005, "GzipBomb", {"size": 2**20}),
]
_TIMEOUT = Timeout(connect=2, first_token=0.8, idle=0.5, total=5)
_SAMPLES = 100
# Descriptors and memory go up at first: pools fill, caches fill, the allocator gets its arenas.
_WARM_UP = 0.3


class Soak:
    """The load, and what is counted while it runs.

    Args:
        remote: the server.
        streams: calls at once.
        seed: of the choices.
    """

    def __init__(self, remote, streams, seed):
        self.remote = remote
        self.streams = streams
        self.random = random.Random(seed)
        self.counts = Counter()
        self.samples = []
        places = max(streams * 3 // 4, 1)
        retry = RetryPolicy(base_delay=0.02, max_delay=0.1)
        limit = {"requests_per_minute": 40 * streams, "tokens_per_minute": 4000 * streams, "window": 2.0}  # fmt: skip
        common = {"timeout": _TIMEOUT, "retry": retry, "observers": [self._observe]}
        self.clients = [
            client_of(
                remote,
                rate_limit=RateLimit(max_concurrency=places, learn=False, **limit),
                hedge_after=0.3,
                **common,
            ),
            client_of(remote, rate_limit=RateLimit(max_concurrency="auto"), hedge_after="p95", **common),
        ]  # fmt: skip

    def _observe(self, record):
        self.counts["attempts" if hasattr(record, "number") else f"calls {record.outcome}"] += 1
        if getattr(record, "hedge", False):
            self.counts["hedges"] += 1
        elif getattr(record, "number", 1) > 1:
            self.counts["retries"] += 1

    # --- what calls do

    async def _whole(self, client, ask):
        await client.chat.completions.create(**ask)

    async def _read(self, client, ask):
        async with client.chat.completions.stream(**ask) as stream:
            async for _ in stream:
                pass

    async def _text(self, client, ask):
        async with client.chat.completions.stream(**ask) as stream:
            async for _ in stream.text():
                pass

    async def _leave(self, client, ask):
        """Leave the stream after some chunks."""
        left = self.random.randrange(5)
        stream = await client.chat.completions.create(**ask, stream=True)
        try:
            async for _ in stream:
                if not left:
                    break
                left -= 1
        finally:
            await stream.close()

    async def _dawdle(self, client, ask):
        """Read slowly."""
        async with client.chat.completions.stream(**ask) as stream:
            async for _ in stream:
                await asyncio.sleep(0.002)

    async def _cancel(self, client, ask):
        """Be cancelled at some moment."""
        kind = self.random.choice([self._whole, self._read, self._dawdle])
        task = asyncio.create_task(kind(client, ask))
        timer = asyncio.get_running_loop().call_later(self.random.expovariate(8), task.cancel)
        try:
            await asyncio.wait((task,))
        finally:  # the soak is over, perhaps
            timer.cancel()
            task.cancel()
            await asyncio.wait((task,))
        if task.cancelled():
            self.counts["cancelled"] += 1
        else:
            task.result()

    async def _hurry(self, client, ask):
        """Have less time than it takes, for some of them."""
        await client.chat.completions.create(**ask, timeout=self.random.uniform(0.001, 0.3))

    async def _embed(self, client, ask):
        text = ask["messages"][0]["content"]
        await client.embeddings.create(model="thenlper/gte-base", input=[text, text])

    async def _short_lived(self, client, ask):  # noqa: ARG002  (it makes its own)
        """Make a client, use it, close it, now and then with a stream still open."""
        async with client_of(self.remote, timeout=_TIMEOUT, retry=None) as own:
            stream = await own.chat.completions.create(**ask, stream=True)
            if self.random.random() < 0.5:
                await stream.close()
        await stream.close()

    async def work(self):
        """Make calls, one after the other."""
        kinds = {
            self._whole: 4, self._read: 4, self._text: 3, self._leave: 3, self._dawdle: 1,
            self._cancel: 3, self._hurry: 1, self._embed: 1, self._short_lived: 0.2,
        }  # fmt: skip
        names, weights = list(kinds), list(kinds.values())
        while True:
            (kind,) = self.random.choices(names, weights)
            client = self.random.choice(self.clients)
            priority = self.random.choice(["interactive", "batch"])
            ask = ask_for(self.random.randrange(1000))
            if kind not in {self._embed, self._short_lived}:
                ask["priority"] = priority
            try:
                await kind(client, ask)
            except KonkoError as error:
                self.counts[type(error).__name__] += 1
                await asyncio.sleep(0.01)  # an open circuit fails at once

    # --- what is looked at

    def sample(self, now):
        """Note descriptors, memory and tasks."""
        self.samples.append((now, descriptors(), memory(), len(asyncio.all_tasks())))

    async def run(self, seconds):
        """Load for so many seconds, sampled."""
        clock = asyncio.get_running_loop().time
        start = clock()
        tasks = [asyncio.create_task(self.work()) for _ in range(self.streams)]
        try:
            for number in range(1, _SAMPLES + 1):
                await asyncio.sleep(max(start + seconds * number / _SAMPLES - clock(), 0))
                self.sample(clock() - start)
                broken = next((t for t in tasks if t.done()), None)
                if broken is not None:
                    broken.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def memory():
    """Resident memory, in MB."""
    with open("/proc/self/statm") as file:  # noqa: PTH123  (hot enough, and it is no file)
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def slope(points):
    """The median of all slopes between two points (Theil and Sen), per minute."""
    found = [
        (y2 - y1) / (x2 - x1)
        for i, (x1, y1) in enumerate(points)
        for x2, y2 in points[i + 1 :]
        if x2 > x1
    ]
    return 60 * median(found) if found else 0.0


def judge(soak, options, left, unhandled):
    """Print the figures; returns what is wrong."""
    steady = [s for s in soak.samples if s[0] >= options.seconds * _WARM_UP]
    fds, mbs, tasks = (slope([(s[0], s[n]) for s in steady]) for n in (1, 2, 3))
    half = len(steady) // 2
    grown = median([s[2] for s in steady[half:]]) - median([s[2] for s in steady[:half]])
    more_fds = median([s[1] for s in steady[half:]]) - median([s[1] for s in steady[:half]])
    say(f"{options.seconds:g} s, {options.streams} at once: {dict(sorted(soak.counts.items()))}")
    say(f"descriptors: {fds:+.2f} per minute, {steady[0][1]} to {steady[-1][1]}, most {max(s[1] for s in steady)}")  # fmt: skip
    say(f"memory: {mbs:+.2f} MB per minute, {steady[0][2]:.1f} to {steady[-1][2]:.1f} MB; second half against first {grown:+.2f} MB")  # fmt: skip
    say(f"tasks: {tasks:+.2f} per minute, most {max(s[3] for s in steady)}")
    say(f"left at the end: {left}")
    wrong = [f"{name}: {count} left" for name, count in left.items() if count]
    if grown > options.most_growth:
        wrong.append(f"memory grew by {grown:.1f} MB")
    if more_fds > (options.most_descriptors or max(options.streams / 4, 8)):
        wrong.append(f"descriptors grew by {more_fds}")
    if not soak.counts["calls ok"]:
        wrong.append("no call went well")
    wrong += unhandled
    return wrong


async def main(options):
    unhandled = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unhandled.append(f"nobody got: {context}"))
    sys.unraisablehook = lambda broken: unhandled.append(f"unraisable: {broken.exc_value!r}")
    faults = [{"share": share, "fault": name, **args} for share, name, args in _FAULTS]
    tasks_before = others()
    async with serving(latency=0.01, tokens_per_second=400, log_limit=100) as remote:
        for fault in faults:
            await remote("always", **fault)
        fds_before = descriptors()
        soak = Soak(remote, options.streams, options.seed)
        started = time.process_time()
        await soak.run(options.seconds)
        used = time.process_time() - started
        held = [permits(client) for client in soak.clients]
        idle = await remote("idle", timeout=60.0)
        for client in soak.clients:
            await client.close()
        del client
        await asyncio.sleep(0)  # transports close in the next turn of the loop
        gc.collect()
        await asyncio.sleep(0)
        left = {
            "descriptors": descriptors() - fds_before,
            "tasks": len(others() - tasks_before),
            "places held": sum(places for places, _ in held),
            "calls that wait": sum(waiting for _, waiting in held),
            "calls that the server still serves": 0 if idle else (await remote("stats"))["in_flight"],
        }  # fmt: skip
        wrong = judge(soak, options, left, unhandled)
        say(f"CPU: {100 * used / options.seconds:.0f} % of one core")
    for line in wrong:
        say(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--streams", type=int, default=100, help="calls at once (100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--most-growth", type=float, default=5.0, help="MB that memory may grow from half to half"
    )
    parser.add_argument(
        "--most-descriptors", type=int, default=0,
        help="by how many open descriptors may grow from half to half (a quarter of the streams)",
    )  # fmt: skip
    logging.disable(logging.CRITICAL)
    sys.exit(asyncio.run(main(parser.parse_args())))
