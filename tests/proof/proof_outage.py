"""Outages: how much load retries add, how fast calls fail, how soon all is as before."""

import asyncio

from proof_kit import (
    MODEL,
    Load,
    arguments,
    ask_for,
    client_of,
    permits,
    quantile,
    row,
    say,
    serving,
)

from konko_async import Timeout

_WIDTHS = (36, 9, 11, 9, 10, 12, 12)


async def amplify(*, calls, share, breaker, workers=50):
    """Make so many calls of which attempts fail with this chance.

    Returns:
        `attempts` that the server saw per call, `failed` share of the calls, `kinds` of errors,
        `p50`, `p99`: seconds until a failing call failed.
    """
    options = {} if breaker else {"circuit_breaker": None}
    async with (
        serving(models=[MODEL], answer_tokens=1, log_limit=10) as remote,
        client_of(remote, **options) as client,
    ):
        if share == 1:
            await remote("outage", status=503)
        else:
            await remote("always", fault="Status", status=503, share=share)
        clock, failed, kinds = asyncio.get_running_loop().time, [], {}
        numbers = iter(range(calls))

        async def work():
            for number in numbers:
                began = clock()
                try:
                    await client.chat.completions.create(**ask_for(number))
                except Exception as error:
                    failed.append(clock() - began)
                    kind = type(error).__name__
                    kinds[kind] = kinds.get(kind, 0) + 1

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())
        assert permits(client) == (0, 0)
        stats = await remote("stats")
    return {
        "attempts": stats["received"] / calls,
        "failed": len(failed) / calls,
        "kinds": kinds,
        "p50": quantile(failed, 0.5),
        "p99": quantile(failed, 0.99),
    }


_SLICE = 0.25


async def recover(*, how, outage=4.0, before=3.0, after=9.0, workers=20, level=0.95):
    """Load, an outage of so many seconds, load.

    Returns:
        `normal` calls per second before; `back`: seconds from the end of the outage until a whole
        second has at least `level` of that; `kept`: the share from then to the end; `attempts`
        that the server saw during the outage.
    """
    async with (
        serving(models=[MODEL], latency=0.05, answer_tokens=1) as remote,
        client_of(remote, timeout=Timeout(first_token=1.0)) as client,
    ):
        clock = asyncio.get_running_loop().time
        load = Load(lambda number: client.chat.completions.create(**ask_for(number)))
        async with load.running(workers):
            await asyncio.sleep(1.0)  # to open the connections
            start = clock()
            await asyncio.sleep(before)
            normal = sum(at >= start for at in load.ended) / (clock() - start)
            await remote("mark")
            if how == "refused":
                await remote("down")
            elif how == "hangs":
                await remote("always", fault="Stall")
            else:
                await remote("outage", status=503)
            await asyncio.sleep(outage)
            attempts = (await remote("stats"))["received"]
            if how == "refused":
                await remote("up")
            else:
                await remote("clear")
            end = clock()
            await asyncio.sleep(after)
        assert permits(client) == (0, 0)
    back = None
    steps = [n * _SLICE for n in range(round((after - 1) / _SLICE))]
    for step in steps:
        rate = sum(end + step <= at < end + step + 1 for at in load.ended)
        if rate >= level * normal:
            back = step
            break
    kept = 0.0
    if back is not None:
        kept = sum(at >= end + back for at in load.ended) / (after - back) / normal
    return {"normal": normal, "back": back, "kept": kept, "attempts": attempts}


async def main():
    options = arguments(__doc__, calls=10_000, repeat=3, outage=4.0, part="all")
    if options.part in {"all", "amplify"}:
        row("share of attempts that fail (503)", "breaker", "calls", "attempts", "failed", "p50 of those", "p99", widths=_WIDTHS)  # fmt: skip
        for breaker in (False, True):
            for share in (1, 0.5, 0.2, 0.1, 0.05):
                found = await amplify(calls=options.calls, share=share, breaker=breaker)
                row(
                    f"{100 * share:g} %",
                    "on" if breaker else "off",
                    options.calls,
                    f"{found['attempts']:.4f}",
                    f"{100 * found['failed']:.2f} %",
                    f"{1000 * found['p50']:.1f} ms",
                    f"{1000 * found['p99']:.1f} ms",
                    widths=_WIDTHS,
                )
    if options.part in {"all", "recover"}:
        for how in ("503", "refused", "hangs"):
            for _ in range(options.repeat):
                found = await recover(how=how, outage=options.outage)
                back = "never" if found["back"] is None else f"{found['back']:.2f} s"
                say(
                    f"outage of {options.outage:g} s ({how}): {found['normal']:.0f} calls/s before, "
                    f"95 % again after {back}, then {100 * found['kept']:.1f} %; "
                    f"{found['attempts']} attempts reached the server meanwhile"
                )


if __name__ == "__main__":
    asyncio.run(main())
