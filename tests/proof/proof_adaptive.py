"""`max_concurrency="auto"` against servers of a capacity: throughput, rejections, following."""

import asyncio

from proof_kit import MODEL, Load, arguments, ask_for, client_of, median, permits, row, say, serving

from konko_async import RateLimit

_WIDTHS = (8, 8, 9, 9, 8, 9, 10, 18)
_MEAN_TOKENS = 40


def _pace(places):
    """How long calls take: so that neither process is what limits them on two shared cores."""
    return max(0.08, places / 400)


def _server(places, overload, most=0):
    # Answers have 16 to 64 tokens, so calls take 0.4 to 1.6 of the mean.
    speed = _MEAN_TOKENS / _pace(max(places, most))
    return {"models": [MODEL], "capacity": places, "overload": overload, "tokens_per_second": speed}


class Run:
    """A client at full load against such a server."""

    def __init__(self, remote, client, load):
        self.remote, self.client, self.load = remote, client, load

    def places(self):
        return self.client.limits.lanes[0].max_concurrency

    async def measure(self, seconds):
        """Throughput and share of rejections in the next seconds, and how the limit moved."""
        await self.remote("mark")
        done, seen = self.load.done, []
        clock = asyncio.get_running_loop().time
        start = clock()
        while (left := start + seconds - clock()) > 0:
            await asyncio.sleep(min(left, 0.25))
            seen.append(self.places())
        stats, took = await self.remote("stats"), clock() - start
        return {
            "rate": (self.load.done - done) / took,
            "rejected": stats["rejected"] / max(stats["received"], 1),
            "places": (min(seen), median(seen), max(seen)),
        }


async def _go(setting, places, overload, script, *, most=0, noise=0.0):
    """Run `script(run)` with the client at full load; of `noise` calls, each gets a 503 anyway."""
    async with (
        serving(**_server(places, overload, most)) as remote,
        client_of(remote, rate_limit=RateLimit(max_concurrency=setting)) as client,
    ):
        if noise:
            await remote("always", fault="Status", status=503, share=noise)
        load = Load(lambda number: client.chat.completions.create(**ask_for(number)))
        callers = max(places, most) if isinstance(setting, str) else setting
        async with load.running(callers + callers // 2 + 20):
            found = await script(Run(remote, client, load))
        assert permits(client) == (0, 0)
        found["failed"] = load.failed
    return found


async def steady(setting, places, overload, *, warm, seconds, noise=0.0):
    """Throughput after `warm` seconds; for rejections, those of the beginning count as well."""

    async def script(run):
        first = await run.measure(warm)
        then = await run.measure(seconds)
        return {**then, "rejected_warm": first["rejected"], "rate_warm": first["rate"]}

    return await _go(setting, places, overload, script, noise=noise)


async def _fixed(run, seconds):
    await run.measure(1.0)
    return await run.measure(seconds)


async def follow(places, then, overload, *, warm, settle, seconds):
    """Throughput after the capacity has changed from `places` to `then`."""

    async def script(run):
        await run.measure(warm)
        await run.remote("set", capacity=then)
        changing = await run.measure(settle)
        found = await run.measure(seconds)
        return {**found, "rejected_while": changing["rejected"]}

    return await _go("auto", places, overload, script, most=then)


def _warm_up(places, calls_per_place):
    """Seconds for so many calls of each place."""
    return max(calls_per_place * _pace(places), 2.0)


async def table(options):
    row("places", "overload", "fixed /s", "auto /s", "share", "rejected", "(warm-up)", "places found", widths=_WIDTHS)  # fmt: skip
    for places in (4, 32, 256):
        for overload in ("reject", "queue"):
            # A queue hides what a place costs to fill again: a little above is the best there.
            settings = [places] if overload == "reject" else [places, round(places * 1.1)]
            warm = _warm_up(places, options.calls)
            autos, best = [], []
            for _ in range(options.repeat):
                fixed = [
                    await steady(s, places, overload, warm=1.0, seconds=options.seconds)
                    for s in settings
                ]
                best.append(max(f["rate"] for f in fixed))
                autos.append(
                    await steady("auto", places, overload, warm=warm, seconds=options.seconds)
                )
            shares = [a["rate"] / b for a, b in zip(autos, best, strict=True)]
            row(
                places, overload,
                f"{median(best):.1f}",
                f"{median([a['rate'] for a in autos]):.1f}",
                f"{100 * median(shares):.1f} %",
                f"{100 * median([a['rejected'] for a in autos]):.2f} %",
                f"{100 * median([a['rejected_warm'] for a in autos]):.2f} %",
                " ".join("{}-{}".format(a["places"][0], a["places"][2]) for a in autos),
                widths=_WIDTHS,
            )  # fmt: skip
            say(f"{'':>10}shares: {', '.join(f'{100 * s:.1f} %' for s in shares)}; failed: "
                f"{[a['failed'] for a in autos]}")  # fmt: skip


async def changes(options):
    row("from", "overload", "to", "auto /s", "share", "rejected", "(while)", "places found", widths=_WIDTHS)  # fmt: skip
    for places, then in ((16, 48), (48, 16)):
        for overload in ("reject", "queue"):
            found, best = [], []
            for _ in range(options.repeat):
                found.append(
                    await follow(
                        places, then, overload,
                        warm=_warm_up(max(places, then), options.calls),
                        settle=_warm_up(max(places, then), options.calls),
                        seconds=options.seconds,
                    )
                )  # fmt: skip
                fixed = await _go(
                    then, then, overload, lambda run: _fixed(run, options.seconds), most=places
                )
                best.append(fixed["rate"])
            row(
                places, overload, then,
                f"{median([f['rate'] for f in found]):.1f}",
                f"{100 * median([f['rate'] for f in found]) / median(best):.1f} %",
                f"{100 * median([f['rejected'] for f in found]):.2f} %",
                f"{100 * median([f['rejected_while'] for f in found]):.2f} %",
                " ".join("{}-{}".format(f["places"][0], f["places"][2]) for f in found),
                widths=_WIDTHS,
            )  # fmt: skip


async def noisy(options):
    """A server that fails at random, whatever the load."""
    row("places", "overload", "fixed /s", "auto /s", "share", "503s", "rejected", "places found", widths=_WIDTHS)  # fmt: skip
    for noise in (0.001, 0.005, 0.02):
        warm = _warm_up(32, options.calls)
        fixed, auto = [
            await steady(setting, 32, "reject", warm=warm, seconds=options.seconds, noise=noise)
            for setting in (32, "auto")
        ]
        row(
            32, "reject", f"{fixed['rate']:.1f}", f"{auto['rate']:.1f}",
            f"{100 * auto['rate'] / fixed['rate']:.1f} %", f"{100 * noise:.1f} %", f"{100 * auto['rejected']:.2f} %",
            "{}-{}".format(auto["places"][0], auto["places"][2]), widths=_WIDTHS,
        )  # fmt: skip


async def main():
    options = arguments(__doc__, seconds=5.0, calls=60, repeat=3, part="all")
    if options.part in {"all", "table"}:
        await table(options)
    if options.part in {"all", "changes"}:
        await changes(options)
    if options.part in {"all", "noisy"}:
        await noisy(options)


if __name__ == "__main__":
    asyncio.run(main())
