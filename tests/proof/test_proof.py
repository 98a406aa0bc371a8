"""Short runs of the proofs, on pipes and simulated time: what a busy machine does changes nothing.

But for the one with several processes, whose bounds are such that a busy machine keeps them.
"""

import asyncio

import proof_adaptive
import proof_deadlines
import proof_hedging
import proof_limits
import proof_outage
import proof_pause
import proof_priorities
import proof_redis
from pipe_loop import on_pipes
from proof_kit import MODEL, ask_for, client_of, serving

from konko_async import APITimeoutError, InternalServerError, RateLimit


@on_pipes
async def test_a_strict_window_is_used_and_never_broken():
    exact, margin = proof_limits.exact, 0.5
    common = {"window": 2.5, "windows": 2, "margin": margin}
    found = await asyncio.gather(
        proof_limits.measure(requests=200, **common),
        proof_limits.measure(tokens=10_000, estimate=exact, **common),
    )
    assert [result["rejected"] for result in found] == [0, 0]
    requests, tokens = found[0]["use_of_requests"], found[1]["use_of_tokens"]
    assert 0.7 < requests <= 1.01
    assert 0.7 < tokens <= 1.01


async def test_processes_share_a_strict_window():
    window, margin = 3.0, 0.4
    found = await proof_redis.measure(
        processes=4, requests=100, window=window, windows=2, margin=margin, workers=8
    )
    assert found["failed"] == {}
    assert found["use"] <= 1.01
    if found["lag"] < margin / 2:
        assert found["rejected"] == 0
        assert found["use"] > 0.9
        assert found["trips"] < 1.3
        assert 0.75 < found["shares"][0] <= found["shares"][1] < 1.25


@on_pipes
async def test_a_pause_holds_all_and_ends_spread_out():
    found = await proof_pause.measure(
        callers=100, configured=100, window=1.0, warm=0.5, pause=0.5, seconds=0.7
    )
    assert found["during"] == 0
    assert found["rejected"] == 1
    assert found["resumed"] < 0.5
    # 100 callers wait and 100 a second are allowed; a herd would be all 100 at once.
    assert found["busiest"] <= 40


@on_pipes
async def test_people_wait_little_and_the_batch_goes_on():
    limit = RateLimit(requests_per_minute=200, window=2.0)
    common = {"limit": limit, "latency": 0.02, "batch": 100, "seconds": 1.2}
    found, flooded = await asyncio.gather(
        proof_priorities.measure(people=20, **common),
        proof_priorities.measure(people=150, **common),
    )
    assert found["n"] > 5
    assert found["p50"] < found["batch_p50"] / 2
    assert found["batch_rate"] > 20
    # One of five admissions is the batch's, whatever comes.
    share = flooded["batch_rate"] / (flooded["batch_rate"] + flooded["rate"])
    assert share > 0.1


@on_pipes
async def test_the_capacity_is_found():
    pairs = [
        proof_adaptive.steady(setting, 16, overload, warm=2.0, seconds=1.5)
        for overload in ("reject", "queue")
        for setting in (16, "auto")
    ]
    fixed, auto, fixed_queue, auto_queue = await asyncio.gather(*pairs)
    assert auto["rate"] > 0.6 * fixed["rate"]
    assert auto_queue["rate"] > 0.6 * fixed_queue["rate"]
    assert auto["rejected"] < 0.03
    assert not auto["failed"]


@on_pipes
async def test_retries_do_not_feed_an_outage():
    calls = 300
    down, sick, guarded = [
        await proof_outage.amplify(calls=calls, share=share, breaker=breaker)
        for share, breaker in ((1, False), (0.3, False), (1, True))
    ]
    # Not more than the budget's 10 tokens, and 10 % of those that ended well.
    assert down["attempts"] <= 1 + 10 / calls
    assert sick["attempts"] < 1.1 + 10 / calls
    assert guarded["attempts"] <= 1 + 10 / calls
    assert down["failed"] == guarded["failed"] == 1


@on_pipes
async def test_full_speed_after_an_outage():
    found = await proof_outage.recover(
        how="refused", outage=0.8, before=0.7, after=3.5, workers=10, level=0.6
    )
    assert found["back"] is not None


@on_pipes
async def test_hedging_cuts_the_tail():
    # One after the other: each counts the tasks that are left over on this loop.
    plain, hedged = [
        await proof_hedging.measure(hedge_after=after, calls=150, stall=0.7)
        for after in (None, 0.2)
    ]
    assert plain["left"] == hedged["left"] == 0
    assert plain["failed"] == hedged["failed"] == []
    assert plain["p99"] >= 0.7
    assert hedged["p95"] < plain["p99"]
    # The budget's 10 tokens, and what 150 calls earn.
    assert hedged["extra"] <= (10 + 150 / 11) / 150


@on_pipes
async def test_deadlines_hold():
    unit = 0.1
    async with serving(models=[MODEL]) as remote:
        for name, case, units, attempts, stream in proof_deadlines.cases(unit):
            found = await proof_deadlines.total(remote, stream=stream, **case)
            kind = APITimeoutError if units else InternalServerError
            assert isinstance(found["error"], kind), name
            assert found["attempts"] == attempts or (units and found["attempts"] < attempts), name
            assert units * unit * 0.99 <= found["took"] < units * unit + 2, name
            assert found["idle"], name


@on_pipes
async def test_a_wait_that_is_too_long_is_refused_at_once():
    found = await proof_deadlines.refuse(requests=10, window=10.0, patience=2.0)
    assert found["error"] is not None
    assert found["took"] < 2
    assert found["said"] > 2
    assert found["waited"] >= found["said"] - 0.2
    # The refused call was never sent.
    assert found["received"] == 11


@on_pipes
async def test_a_rejection_that_names_a_wait_is_believed_before_the_reset():
    headers = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "59.9s",
    }
    limit = RateLimit(requests_per_minute=500)
    async with serving(models=[MODEL]) as remote, client_of(remote, rate_limit=limit) as client:
        await client.chat.completions.create(**ask_for(1))
        await remote("script", fault="Status", status=429, retry_after_ms=50, headers=headers)
        # Raises if it would have to wait for the reset.
        await client.chat.completions.create(**ask_for(2), timeout=10)
