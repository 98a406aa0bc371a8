"""One limit for people and a batch: how long people wait, and what the batch gets."""

import asyncio
import random
from itertools import pairwise

from proof_kit import (
    MODEL,
    Load,
    arguments,
    ask_for,
    client_of,
    median,
    permits,
    quantile,
    row,
    serving,
)

from konko_async import CallRecord, RateLimit

_WIDTHS = (46, 7, 10, 10, 10, 12, 11, 9)


async def measure(*, limit, latency, people, seconds=6.0, batch=200, server=None):
    """Saturate a limit with `batch` batch callers, and let `people` calls per second come.

    Returns:
        Waits for the limits of interactive calls (`p50`, `p99`, `worst`, `n`), of batch calls
        (`batch_p50`), calls per second of both (`rate`, `batch_rate`), the longest time between
        two batch calls (`gap`).
    """
    waits = {"interactive": [], "batch": []}
    ends = {"interactive": [], "batch": []}

    def observe(record):
        if isinstance(record, CallRecord) and record.outcome == "ok":
            waits[record.priority].append(record.queued)
            ends[record.priority].append(clock())

    clock = asyncio.get_running_loop().time
    chance = random.Random(1)
    settings = {"latency": latency, "models": [MODEL], **(server or {})}
    async with (
        serving(**settings) as remote,
        client_of(remote, rate_limit=limit, observers=[observe]) as client,
    ):

        def call(number, priority="batch"):
            ask = ask_for(number)
            return client.chat.completions.create(**ask, priority=priority)

        async with Load(call).running(batch), asyncio.TaskGroup() as group:
            # Until the bursts are spent, nobody waits.
            await asyncio.sleep(1.0)
            for found in (*waits.values(), *ends.values()):
                found.clear()
            start, number = clock(), 0
            due = start
            while (due := due + chance.expovariate(people)) < start + seconds:
                await asyncio.sleep(max(due - clock(), 0))
                number += 1
                group.create_task(call(-number, "interactive"))
            took = clock() - start
        assert permits(client) == (0, 0)
    interactive = waits["interactive"]
    until = start + took
    people_ends, batch_ends = ([at for at in found if at < until] for found in ends.values())
    return {
        "p50": quantile(interactive, 0.5),
        "p99": quantile(interactive, 0.99),
        "worst": quantile(interactive, 1.0),
        "n": len(interactive),
        "batch_p50": quantile(waits["batch"], 0.5),
        "rate": len(people_ends) / took,
        "batch_rate": len(batch_ends) / took,
        "gap": max((b - a for a, b in pairwise(batch_ends)), default=float("inf")),
    }


# 100 a second, or 32 places that are free 107 times a second.
_PACE = {"limit": RateLimit(requests_per_minute=500, window=5.0), "latency": 0.05}
_TOKENS = {"limit": RateLimit(tokens_per_minute=25_000, window=5.0), "latency": 0.05}
# Answers of 16 to 64 tokens: 0.12 to 0.48 s.
_SPEED = {"tokens_per_second": 133}
_PLACES = {"limit": RateLimit(max_concurrency=32), "latency": 0.0, "server": _SPEED}
_FOUND = {
    "limit": RateLimit(max_concurrency="auto"),
    "latency": 0.0,
    "server": {"capacity": 32, **_SPEED},
}
CASES = {
    "100 requests/s, 10 people/s": {**_PACE, "people": 10},
    "100 requests/s, 50 people/s": {**_PACE, "people": 50},
    "100 requests/s, 150 people/s (too many)": {**_PACE, "people": 150},
    "5,000 tokens/s, 10 people/s": {**_TOKENS, "people": 10},
    "32 places, 0.1-0.5 s, 10 people/s": {**_PLACES, "people": 10},
    "32 places, 0.1-0.5 s, 50 people/s": {**_PLACES, "people": 50},
    "32 places, 0.1-0.5 s, 150 people/s (too many)": {**_PLACES, "people": 150},
    'places found ("auto", 32), 10 people/s': {**_FOUND, "people": 10},
}


async def main():
    options = arguments(__doc__, seconds=8.0, repeat=3, batch=200, case="")
    row(
        "limit", "calls", "p50 wait", "p99 wait", "worst", "batch's p50", "batch's /s", "gap",
        widths=_WIDTHS,
    )  # fmt: skip
    for name, case in CASES.items():
        if options.case not in name:
            continue
        found = [
            await measure(seconds=options.seconds, batch=options.batch, **case)
            for _ in range(options.repeat)
        ]

        def middle(key, found=found):
            return median([f[key] for f in found])

        row(
            name,
            sum(f["n"] for f in found),
            *(f"{1000 * middle(key):.1f} ms" for key in ("p50", "p99", "worst")),
            f"{middle('batch_p50'):.2f} s",
            f"{middle('batch_rate'):.1f}",
            f"{1000 * max(f['gap'] for f in found):.0f} ms",
            widths=_WIDTHS,
        )


if __name__ == "__main__":
    asyncio.run(main())
