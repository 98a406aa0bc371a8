"""Hedging: the time to the first token when some calls stall, and what it costs."""

import asyncio

from proof_kit import MODEL, arguments, ask_for, client_of, others, permits, quantile, row, serving

from konko_async import KonkoError

_WIDTHS = (26, 7, 10, 10, 10, 10, 12, 8, 8)


async def measure(*, hedge_after, calls=1000, share=0.05, stall=2.0, latency=0.05, workers=20):
    """Make so many streamed calls of which this share stalls before its first token.

    Returns:
        `p50`, `p95`, `p99`, `worst` times to the first token; `extra`: requests beyond one per
        call, as a share; `hedges`: attempts started as hedges; `failed`; `left`: what is left over
        (tasks, places held, calls that the server still serves).
    """
    times, hedges, failed = [], 0, []
    async with (
        serving(models=[MODEL], latency=latency, answer_tokens=8, log_limit=10) as remote,
        client_of(remote, hedge_after=hedge_after) as client,
    ):
        # The stall is after the headers for half of them.
        await remote("always", fault="Stall", seconds=stall, share=share / 2)
        await remote("always", fault="Stall", after_chunks=0, seconds=stall, share=share / 2)
        await remote("mark")
        numbers = iter(range(calls))
        before = others()

        async def work():
            nonlocal hedges
            for number in numbers:
                try:
                    async with client.chat.completions.stream(**ask_for(number)) as stream:
                        await stream.completion()
                except KonkoError as error:
                    failed.append(f"{type(error).__name__}: {error}")
                else:
                    times.append(stream.time_to_first_token)
                    hedges += sum(attempt.hedge for attempt in stream.attempts)

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
        in_flight, waiting = permits(client)
        stats = await remote("stats")
        idle = await remote("idle", timeout=1.0)
        left = len(others() - before) + in_flight + waiting + (not idle)
    return {
        "p50": quantile(times, 0.5),
        "p95": quantile(times, 0.95),
        "p99": quantile(times, 0.99),
        "worst": quantile(times, 1.0),
        "extra": stats["received"] / calls - 1,
        "hedges": hedges,
        "failed": failed,
        "left": left,
    }


async def main():
    options = arguments(__doc__, calls=2000, share=0.05, stall=2.0, repeat=3)
    row("hedge_after", "calls", "p50", "p95", "p99", "worst", "extra calls", "failed", "left", widths=_WIDTHS)  # fmt: skip
    for hedge_after in (None, 0.25, "p95"):
        for _ in range(options.repeat):
            found = await measure(
                hedge_after=hedge_after,
                calls=options.calls,
                share=options.share,
                stall=options.stall,
            )
            row(
                str(hedge_after),
                options.calls,
                *(f"{1000 * found[key]:.0f} ms" for key in ("p50", "p95", "p99", "worst")),
                f"{100 * found['extra']:.1f} %",
                len(found["failed"]),
                found["left"],
                widths=_WIDTHS,
            )


if __name__ == "__main__":
    asyncio.run(main())
