"""Hedging: the first answer wins, and of the other nothing is left."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resilience_kit import (
    Attempts,
    cancel_everywhere,
    make_request,
    no_tasks_left,
    now,
    status_error,
)

from konko_async.errors import (
    APIConnectionError,
    CircuitOpenError,
    ConfigurationError,
    InternalServerError,
)
from konko_async.middleware import HedgeMiddleware, RetryBudget
from konko_async.middleware._hedge import FirstTokenTimes
from konko_async.testing import jumping_time


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "p99", True, None, "2"])
def test_bad_settings_are_refused(value):
    with pytest.raises(ConfigurationError, match="hedge_after"):
        HedgeMiddleware(value, None)


@jumping_time
@no_tasks_left
async def test_a_quick_answer_is_not_hedged():
    attempts = Attempts((0.5, "ok"))
    budget = RetryBudget()
    response = await HedgeMiddleware(1.0, budget)(make_request(), attempts)
    assert len(attempts.requests) == 1
    assert not response.result.hedge
    assert budget.tokens == 10
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_the_second_attempt_wins_over_a_slow_first():
    attempts = Attempts((60.0, "ok"), (0.5, "ok"))
    budget = RetryBudget()
    response = await HedgeMiddleware(1.0, budget)(make_request(), attempts)
    assert response.result.hedge
    assert attempts.times == [0.0, 1.0]
    assert now() == pytest.approx(1.51), "the loser's cleanup (0.01 s) is waited for"
    assert attempts.cancelled == 1
    assert attempts.held == 1
    assert budget.tokens == 9
    await response.aclose()
    assert attempts.held == 0


@jumping_time
@no_tasks_left
async def test_the_first_attempt_may_still_win():
    attempts = Attempts((1.2, "ok"), (5.0, "ok"))
    response = await HedgeMiddleware(1.0, None)(make_request(), attempts)
    assert not response.result.hedge
    assert attempts.cancelled == 1
    await response.aclose()
    assert attempts.held == 0


@jumping_time
@no_tasks_left
async def test_if_both_answer_at_once_the_first_counts_and_the_other_is_closed():
    attempts = Attempts((2.0, "ok"), (1.0, "ok"))
    response = await HedgeMiddleware(1.0, None)(make_request(), attempts)
    assert not response.result.hedge
    assert attempts.cancelled == 0
    assert attempts.held == 1
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_an_empty_budget_means_no_hedge():
    attempts = Attempts((60.0, "ok"))
    response = await HedgeMiddleware(1.0, RetryBudget(0.1, 0))(make_request(), attempts)
    assert now() == 60.0
    assert len(attempts.requests) == 1
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_a_failure_before_the_delay_is_raised():
    error = status_error(503)
    attempts = Attempts((0.5, error))
    with pytest.raises(InternalServerError) as caught:
        await HedgeMiddleware(1.0, None)(make_request(), attempts)
    assert caught.value is error
    assert now() == 0.5


@jumping_time
@no_tasks_left
async def test_if_the_first_fails_later_the_second_is_waited_for():
    attempts = Attempts((1.5, status_error(503)), (5.0, "ok"))
    response = await HedgeMiddleware(1.0, None)(make_request(), attempts)
    assert response.result.hedge
    assert now() == 6.0
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_if_the_second_fails_the_first_is_waited_for():
    attempts = Attempts((6.0, "ok"), (0.5, status_error(503)))
    response = await HedgeMiddleware(1.0, None)(make_request(), attempts)
    assert not response.result.hedge
    assert now() == 6.0
    await response.aclose()


@pytest.mark.parametrize("delays", [(2.0, 3.0), (5.0, 1.0), (2.0, 1.0)])
@jumping_time
@no_tasks_left
async def test_if_both_fail_the_firsts_error_is_raised(delays):
    first, second = status_error(503), APIConnectionError("reset")
    attempts = Attempts((delays[0], first), (delays[1], second))
    with pytest.raises(InternalServerError) as caught:
        await HedgeMiddleware(1.0, None)(make_request(), attempts)
    assert caught.value is first


@jumping_time
@no_tasks_left
async def test_an_error_that_says_nothing_gives_way():
    refused, told = CircuitOpenError("open", retry_after=1.0), status_error(503)
    attempts = Attempts((2.0, refused), (2.0, told))
    with pytest.raises(InternalServerError):
        await HedgeMiddleware(1.0, None)(make_request(), attempts)


@jumping_time
@no_tasks_left
async def test_an_attempt_that_is_cancelled_from_within_passes_that_on():
    attempts = Attempts((0.5, asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await HedgeMiddleware(1.0, None)(make_request(), attempts)


@jumping_time
@no_tasks_left
async def test_a_place_in_the_queue_is_not_slowness():
    """The limits tell (``call.waiting``, ``request.queued``) how long it was not in flight."""
    waits = [5.0, 0.0]

    class QueueingCall:
        deadline = None
        waiting = 0

    async def queued_then_slow(request):
        started = now()
        request.call.waiting += 1
        await asyncio.sleep(waits.pop(0))
        request.call.waiting -= 1
        request.times.queued += now() - started
        return await attempts(request)

    attempts = Attempts((3.0, "ok"), (0.5, "ok"))
    request = make_request().replace(call=QueueingCall())
    response = await HedgeMiddleware(1.0, None)(request, queued_then_slow)
    assert response.result.hedge
    assert attempts.times == [5.0, 6.0]
    await response.aclose()


# "p95"


@given(st.lists(st.floats(0, 100), max_size=600))
def test_the_percentile_is_of_the_last_256(times):
    sample = FirstTokenTimes()
    for seconds in times:
        sample.add(seconds)
    if len(times) < 20:
        assert sample.p95 is None
        return
    # It is brought up to date every 16 times.
    known = times[: max(20, len(times) // 16 * 16)][-256:]
    assert sum(t <= sample.p95 for t in known) >= 0.95 * len(known)
    assert sum(t < sample.p95 for t in known) < 0.95 * len(known)


@jumping_time
@no_tasks_left
async def test_p95_hedges_the_slowest_and_does_not_drift():
    rng = random.Random(3)
    hedges = 0

    async def server(request):
        nonlocal hedges
        hedges += request.hedge
        await asyncio.sleep(rng.expovariate(1.0))
        return request

    hedge = HedgeMiddleware("p95", None)
    for _ in range(19):
        await hedge(make_request(), server)
    assert hedges == 0, "too few times are known"
    for _ in range(4000):
        await hedge(make_request(), server)
    assert hedges == pytest.approx(200, rel=0.25)


@jumping_time
@no_tasks_left
async def test_p95_is_kept_per_model_and_kind():
    hedge = HedgeMiddleware("p95", None)
    quick = Attempts((0.01, "ok"))
    for _ in range(30):
        await (await hedge(make_request(), quick)).aclose()
    slow = Attempts((30.0, "ok"))
    for request in (make_request(model="other"), make_request(stream=True)):
        await (await hedge(request, slow)).aclose()
    assert not any(request.hedge for request in slow.requests)
    slow = Attempts((30.0, "ok"), (0.0, "ok"))
    started = now()
    await (await hedge(make_request(), slow)).aclose()
    assert slow.times[1] - started == pytest.approx(0.05), "never sooner than 0.05 s"


@jumping_time
@no_tasks_left
async def test_p95_forgets_models_beyond_its_bound():
    hedge = HedgeMiddleware("p95", None)
    for number in range(400):
        await (await hedge(make_request(model=f"m{number}"), Attempts("ok"))).aclose()
    assert len(hedge._times) == 256


# Cancellation.


@pytest.mark.parametrize("again_after", [None, 1, 2, 3])
@pytest.mark.parametrize(
    "script",
    [
        [(0.2, (0.2, "ok"))],
        [(60.0, "ok"), (0.5, "ok")],
        [(1.2, "ok"), (0.3, (5.0, "ok"))],
        [(2.0, "ok"), (1.0, "ok")],
        [(1.5, status_error(503)), (1.0, "ok")],
        [(2.0, "ok"), (0.5, status_error(503))],
    ],
)
def test_cancelled_at_every_step_it_leaves_nothing(script, again_after):
    def scenario():
        attempts = Attempts(*script)
        request = make_request()
        return attempts, lambda: HedgeMiddleware(1.0, None)(request, attempts)

    assert cancel_everywhere(scenario, again_after=again_after) > 3


@jumping_time
@no_tasks_left
async def test_an_answer_that_cannot_be_closed_does_no_harm():
    class Broken:
        async def aclose(self):
            raise RuntimeError("cannot close")

    answers = [Broken(), Broken()]

    async def server(request):
        await asyncio.sleep(1.0 if request.hedge else 2.0)
        return answers[request.hedge]

    assert await HedgeMiddleware(1.0, None)(make_request(), server) is answers[False]


@pytest.mark.parametrize(("method", "asked"), [("POST", 1), ("GET", 2)])
@jumping_time
@no_tasks_left
async def test_what_may_change_something_at_the_server_is_not_sent_twice(method, asked):
    attempts = Attempts((5.0, "ok"), (0.1, "ok"))
    layer = HedgeMiddleware(1.0, RetryBudget())
    response = await layer(make_request(method=method, model=None), attempts)
    assert len(attempts.requests) == asked
    await response.aclose()
