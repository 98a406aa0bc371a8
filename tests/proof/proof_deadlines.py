"""Deadlines: what three attempts may take in all, and a limiter that says no at once."""

import asyncio

from proof_kit import MODEL, arguments, ask_for, client_of, permits, row, say, serving

from konko_async import (
    APITimeoutError,
    KonkoError,
    RateLimit,
    RateLimitTimeoutError,
    RetryPolicy,
    Timeout,
)

_WIDTHS = (42, 10, 10, 9, 34)
_FAST = RetryPolicy(max_attempts=3, base_delay=0.01)


async def total(remote, *, stream, timeout, retry=_FAST, fault="Stall", **args):
    """One call to a server on which every attempt goes wrong.

    Returns:
        `took` seconds, `attempts`, `error` and its `phase`, `idle`: whether the server is free.
    """
    await remote("clear")
    await remote("mark")
    await remote("always", fault=fault, **args)
    async with client_of(remote, timeout=timeout, retry=retry) as client:
        clock = asyncio.get_running_loop().time
        began, error = clock(), None
        try:
            if stream:
                async with client.chat.completions.stream(**ask_for(1)) as opened:
                    await opened.completion()
            else:
                await client.chat.completions.create(**ask_for(1))
        except KonkoError as failure:
            error = failure
        took = clock() - began
        assert permits(client) == (0, 0)
        idle = await remote("idle", timeout=1.0)
        received = (await remote("stats"))["received"]
    return {
        "took": took,
        "attempts": received,
        "error": error,
        "phase": getattr(error, "phase", None),
        "idle": idle,
    }


def cases(unit):
    """Name, what to do, seconds that it must take, attempts."""
    whole = Timeout(connect=5, first_token=3 * unit, idle=None, total=3 * unit)
    third = Timeout(connect=5, first_token=unit, idle=None, total=3 * unit)
    alone = Timeout(connect=5, first_token=unit, idle=None, total=None)
    own = RetryPolicy(max_attempts=3, base_delay=0.01, attempt_timeout=unit)
    reply = {"fault": "Status", "status": 503, "retry_after": 1}
    found = []
    for stream in (False, True):
        kind = "stream" if stream else "whole"
        found += [
            (f"total 3, first_token 3, {kind}", {"timeout": whole}, 3, 1, stream),
            (f"total 3, first_token 1, {kind}", {"timeout": third}, 3, 3, stream),
            (f"total -, first_token 1, {kind}", {"timeout": alone}, 3, 3, stream),
            (f"total -, attempt_timeout 1, {kind}", {"timeout": Timeout(), "retry": own}, 3, 3, stream),
            (f"total 0.5, retry-after above that, {kind}", {"timeout": Timeout(total=unit / 2), **reply}, 0, 1, stream),
        ]  # fmt: skip
    return found


async def refuse(*, requests=20, window=2.0, patience=0.5):
    """A call that cannot be admitted in time, and one that waits it out.

    Returns:
        `took` seconds to be refused, `said` the wait it would have been, `waited` in truth.
    """
    limit = RateLimit(requests_per_minute=requests, window=window, burst=requests)
    async with serving(models=[MODEL]) as remote, client_of(remote, rate_limit=limit) as client:
        clock = asyncio.get_running_loop().time
        create = client.chat.completions.create
        for number in range(requests):
            await create(**ask_for(number, max_tokens=1))
        began = clock()
        took, error = 0.0, None
        try:
            await create(**ask_for(0), timeout=patience)
        except RateLimitTimeoutError as refusal:
            took, error = clock() - began, refusal
        began = clock()
        await create(**ask_for(0, max_tokens=1))
        waited = clock() - began
        received = (await remote("stats"))["received"]
        assert permits(client) == (0, 0)
    return {
        "took": took,
        "said": None if error is None else error.would_have_waited,
        "waited": waited,
        "received": received,
        "error": error,
    }


async def main():
    options = arguments(__doc__, unit=0.2, repeat=3)
    row(f"deadlines in units of {options.unit:g} s", "expected", "took", "attempts", "error", widths=_WIDTHS)  # fmt: skip
    async with serving(models=[MODEL]) as remote:
        for name, case, units, _, stream in cases(options.unit):
            for _ in range(options.repeat):
                found = await total(remote, stream=stream, **case)
                error = type(found["error"]).__name__
                if isinstance(found["error"], APITimeoutError):
                    error += f" ({found['phase']})"
                row(
                    name,
                    f"{units * options.unit:.3f} s",
                    f"{found['took']:.3f} s",
                    found["attempts"],
                    error,
                    widths=_WIDTHS,
                )
    for _ in range(options.repeat):
        found = await refuse()
        say(
            f"the local limit refused after {1000 * found['took']:.1f} ms, saying "
            f"{found['said']:.3f} s; in truth it was {found['waited']:.3f} s"
        )
    say(f"  {found['error']}")


if __name__ == "__main__":
    asyncio.run(main())
