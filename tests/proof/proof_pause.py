"""A 429 in the middle of many waiting calls: who calls during the pause, and how calls resume."""

import asyncio

from proof_kit import (
    MODEL,
    Lag,
    Load,
    arguments,
    ask_for,
    client_of,
    median,
    permits,
    row,
    say,
    serving,
)

from konko_async import RateLimit

_WIDTHS = (34, 7, 14, 12, 14, 13, 9, 7)
_SLICE = 0.1


async def measure(
    *,
    callers=200,
    pause=1.0,
    seconds=3.0,
    configured=None,
    enforced=None,
    window=2.0,
    rejected=1,
    latency=0.05,
    warm=2.5,
):
    """Let `callers` call all the time; after a while `rejected` calls get a 429.

    Returns:
        `during`: calls that came to the server during the pause, but for those that were on their
        way; `first`: those in the first 0.1 s after it; `busiest`: the most in any 0.1 s of the
        second after it; `before`: calls per 0.1 s before it; `rejected`: 429s in all;
        `resumed`: seconds from the end of the pause to the first call.
    """
    limit, lag = RateLimit(requests_per_minute=configured, window=window), Lag()
    server = {
        "latency": latency,
        "models": [MODEL],
        "limit_window": window,
        "requests_per_minute": enforced,
    }
    async with serving(**server) as remote, client_of(remote, rate_limit=limit) as client:
        load = Load(lambda number: client.chat.completions.create(**ask_for(number, max_tokens=1)))
        async with lag.watched(), load.running(callers):
            # Where the limit is not known, the first herd fills a window: let that be over.
            await asyncio.sleep(warm * window)
            await remote("mark")
            await asyncio.sleep(window)
            before = (await remote("stats"))["received"] / window * _SLICE
            await remote("mark")
            await remote("script", fault="Status", count=rejected, status=429, retry_after_ms=1000 * pause)  # fmt: skip
            await asyncio.sleep(pause + seconds)
        assert permits(client) == (0, 0)
        log, stats = await remote("log"), await remote("stats")

    told = min(at for at, status, *_ in log if status == 429)
    ends = told + pause
    arrivals = [at for at, *_ in log]
    # What had left before the 429 came back may still arrive: 50 ms for a busy machine.
    during = sum(told + 0.05 < at < ends for at in arrivals)
    after = [at for at in arrivals if at >= ends]
    busiest = max(
        (sum(start <= at < start + _SLICE for at in after) for start in after if start < ends + 1),
        default=0,
    )
    return {
        "before": before,
        "during": during,
        "first": sum(at < ends + _SLICE for at in after),
        "busiest": busiest,
        "rejected": sum(status == 429 for _, status, *_ in log),
        "resumed": (min(after) - ends) if after else float("inf"),
        "failed": load.failed,
        "lag": max(stats["lag"], lag.worst),
    }


CASES = {
    "limit known, 100 per s": {"configured": 200},
    "limit known, server enforces it": {"configured": 200, "enforced": 200},
    "limit unknown": {"latency": 0.5},
    "limit only from the headers": {"enforced": 200},
    "limit unknown, server rejects 10": {"latency": 0.5, "rejected": 10},
}


async def cold(*, callers=200, enforced=100, window=2.0, seconds=6.0):
    """Let `callers` call at once whose client knows nothing of the server's limit.

    Returns:
        `herd`: 429s among the first `callers` calls; `later`: 429s after; `use` of the limit after
        the first window.
    """
    server = {
        "latency": 0.02, "models": [MODEL], "limit_window": window, "requests_per_minute": enforced,
    }  # fmt: skip
    async with serving(**server) as remote, client_of(remote, rate_limit=RateLimit(window=window)) as client:  # fmt: skip
        load = Load(lambda number: client.chat.completions.create(**ask_for(number, max_tokens=1)))
        async with load.running(callers):
            await asyncio.sleep(seconds)
        log = await remote("log")
    first = log[0][0]
    good = [at for at, status, *_ in log if status == 200]
    statuses = [status for _, status, *_ in log]
    return {
        "herd": sum(status == 429 for status in statuses[:callers]),
        "later": sum(status == 429 for status in statuses[callers:]),
        "use": sum(first + window <= at < first + seconds for at in good)
        / (enforced * (seconds / window - 1)),
        "failed": load.failed,
    }


def _scaled(case, window):
    """The same rates in another window."""
    limits = {
        name: round(value * window / 2) if name in {"configured", "enforced"} else value
        for name, value in case.items()
    }
    return {**limits, "window": window}


async def main():
    options = arguments(__doc__, callers=200, pause=1.0, seconds=3.0, repeat=3, window=2.0)
    row(
        "200 callers, one 429, 1 s", "before", "in the pause", "first 0.1 s", "busiest 0.1 s",
        "429s in all", "resumed", "lag", widths=_WIDTHS,
    )  # fmt: skip
    for name, case in CASES.items():
        found = [
            await measure(
                callers=options.callers,
                pause=options.pause,
                seconds=options.seconds,
                **_scaled(case, options.window),
            )
            for _ in range(options.repeat)
        ]
        row(
            name,
            f"{median([f['before'] for f in found]):.0f}",
            max(f["during"] for f in found),
            median([f["first"] for f in found]),
            max(f["busiest"] for f in found),
            " ".join(str(f["rejected"]) for f in found),
            f"{1000 * median([f['resumed'] for f in found]):.0f} ms",
            f"{1000 * max(f['lag'] for f in found):.0f} ms",
            widths=_WIDTHS,
        )
        if any(f["failed"] for f in found):
            say(f"    failed: {[f['failed'] for f in found]}")
    found = [await cold(callers=options.callers) for _ in range(options.repeat)]
    row("200 at once, 100 allowed: herd", *[f["herd"] for f in found], widths=(34, 6, 6, 6)[: 1 + len(found)])  # fmt: skip
    row("429s after that", *[f["later"] for f in found], widths=(34, 6, 6, 6)[: 1 + len(found)])
    row("use of the limit after that", *[f"{100 * f['use']:.0f} %" for f in found], widths=(34, 6, 6, 6)[: 1 + len(found)])  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main())
