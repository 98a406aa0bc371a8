"""A strict sliding window: how much of what is allowed is used, and how many 429s that costs."""

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

_WIDTHS = (34, 8, 8, 10, 10, 6, 12, 12)


def exact(params):
    """An estimate that is right: the emulator's own count."""
    from konko_async.testing._emulator.content.text import count_tokens

    return 3 + count_tokens(params["messages"][0]["content"]) + params["max_tokens"]


async def _spent(client, number, *, stream, answer):
    """One call; returns its tokens."""
    ask = ask_for(number, max_tokens=answer)
    if not stream:
        completion = await client.chat.completions.create(**ask)
        return completion.request_id, completion.usage.total_tokens
    ask["stream_options"] = {"include_usage": True}
    async with client.chat.completions.stream(**ask) as opened:
        completion = await opened.completion()
    return completion.request_id, completion.usage.total_tokens


async def measure(
    *,
    requests=None,
    tokens=None,
    window=5.0,
    windows=3,
    latency=0.02,
    estimate=None,
    stream=False,
    burst=None,
    answers=(16, 64),
    workers=64,
    margin=0.0,
):
    """Saturate one limit for some windows.

    A window of a minute leaves 0.15 s for what the way to the server takes more for one call than
    for the next; a short one leaves as little as it is short. `margin` seconds, by which the
    server's window is shorter than the client's, make up for that on a busy machine.

    Returns:
        `use_of_requests`, `use_of_tokens` (shares of what any such time allows), `rejected`
        (answers with 429), `calls`, `lag` (the longest stop of either process).
    """
    spent, lag = {}, Lag()
    limit = RateLimit(
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        window=window,
        burst=burst,
        estimate_tokens=estimate,
    )
    server = {
        "requests_per_minute": requests,
        "tokens_per_minute": tokens,
        "limit_window": window - margin,
        "latency": latency,
        "answer_tokens": 4096,
        "models": [MODEL],
    }
    low, high = answers

    async with serving(**server) as remote, client_of(remote, rate_limit=limit) as client:

        async def call(number):
            answer = low + number * 7919 % (high - low + 1)
            request, used = await _spent(client, number, stream=stream, answer=answer)
            spent[request] = used

        load = Load(call)
        async with lag.watched(), load.running(workers):
            # A little longer, so that what arrives in the last moments is answered too.
            await asyncio.sleep(window * windows + latency + 0.2)
        assert permits(client) == (0, 0)
        log, stats = await remote("log"), await remote("stats")

    first = min(started for started, *_ in log)
    good = [(at - first, name) for at, status, name, _ in log if status == 200]
    inside = [name for at, name in good if at < window * windows]
    return {
        "use_of_requests": requests and len(inside) / (requests * windows),
        "use_of_tokens": tokens and sum(spent.get(n, 0) for n in inside) / (tokens * windows),
        "rejected": sum(status == 429 for _, status, *_ in log),
        "calls": len(log),
        "failed": load.failed,
        "lag": max(stats["lag"], lag.worst),
    }


CASES = {
    "requests": {"requests": 500},
    "requests, few": {"requests": 60},
    "requests, burst of 50": {"requests": 500, "burst": 50},
    "requests, streams, 0.3 s each": {"requests": 500, "latency": 0.3, "stream": True},
    "tokens, default estimate": {"tokens": 25_000},
    "tokens, exact estimate": {"tokens": 25_000, "estimate": exact},
    "tokens, streams": {"tokens": 25_000, "stream": True},
    "tokens, answers of 8 to 512": {"tokens": 50_000, "answers": (8, 512)},
    "tokens, estimate 2x too high": {"tokens": 25_000, "estimate": lambda p: 2 * exact(p)},
    "tokens, estimate 2x too low": {"tokens": 25_000, "estimate": lambda p: exact(p) // 2},
    "both, requests are less": {"requests": 400, "tokens": 60_000},
    "both, tokens are less": {"requests": 800, "tokens": 25_000},
}


def _share(value):
    return "" if value is None else f"{100 * value:.2f} %"


async def _measured(name, case, options):
    found = [
        await measure(window=options.window, windows=options.windows, **case)
        for _ in range(options.repeat)
    ]
    uses = [max(f["use_of_requests"] or 0, f["use_of_tokens"] or 0) for f in found]
    requests, tokens = (
        median([f[key] for f in found]) if found[0][key] else None
        for key in ("use_of_requests", "use_of_tokens")
    )
    row(
        name,
        f"{options.window:g} s",
        sum(f["calls"] for f in found),
        _share(requests),
        _share(tokens),
        sum(f["rejected"] for f in found),
        f"{100 * min(uses):.1f}-{100 * max(uses):.1f} %",
        f"{1000 * max(f['lag'] for f in found):.0f} ms",
        widths=_WIDTHS,
    )
    if any(f["failed"] for f in found):
        say(f"    failed: {[f['failed'] for f in found]}")


async def main():
    options = arguments(__doc__, window=5.0, windows=3, repeat=3, case="", together=0)
    row("limit", "window", "calls", "requests", "tokens", "429s", "spread", "lag", widths=_WIDTHS)
    cases = [_measured(n, case, options) for n, case in CASES.items() if options.case in n]
    if options.together:  # long windows have few calls per second: all cases fit at once
        await asyncio.gather(*cases)
        return
    for case in cases:
        await case


if __name__ == "__main__":
    asyncio.run(main())
