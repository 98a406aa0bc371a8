"""The retry budget: its bounds, and what it does to the load of a server in an outage."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resilience_kit import make_request, no_tasks_left, now, status_error

from konko_async._core.pipeline import Response
from konko_async._core.policies import RetryPolicy
from konko_async.errors import InternalServerError
from konko_async.middleware import HedgeMiddleware, RetryBudget, RetryMiddleware
from konko_async.testing import jumping_time, run_with_jumping_time


def test_it_starts_full_and_ends_empty():
    budget = RetryBudget(0.1, 10)
    assert [budget.try_spend(0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert budget.tokens == 0.0


def test_eleven_answers_earn_one_retry():
    budget = RetryBudget(0.1, 10)
    while budget.try_spend(0.0):
        pass
    for _ in range(10):
        budget.record_success()
    assert not budget.try_spend(0.0)
    budget.record_success()
    assert budget.try_spend(0.0)
    assert not budget.try_spend(0.0)


def test_a_ratio_of_zero_earns_nothing():
    budget = RetryBudget(0.0, 1)
    assert budget.try_spend(0.0)
    for _ in range(1000):
        budget.record_success()
    assert not budget.try_spend(0.0)


def test_it_is_full_again_after_five_quiet_minutes():
    budget = RetryBudget(0.1, 10)
    while budget.try_spend(0.0):
        pass
    assert not budget.try_spend(200.0)
    assert not budget.try_spend(400.0), "asked less than five minutes ago"
    assert budget.try_spend(701.0)
    assert budget.tokens == 9.0


def test_repr():
    assert repr(RetryBudget(0.1, 10)) == "<RetryBudget 10.0 of 10>"


@given(
    ratio=st.floats(0, 5),
    size=st.floats(0, 50),
    steps=st.lists(
        st.tuples(st.sampled_from(["success", "spend"]), st.floats(0, 200)), max_size=300
    ),
)
def test_retries_never_exceed_what_was_saved_and_earned(ratio, size, steps):
    budget = RetryBudget(ratio, size)
    successes = spent = 0
    clock = 0.0
    for action, passed in steps:
        clock += passed / 300  # no five quiet minutes
        if action == "success":
            successes += 1
            budget.record_success()
        else:
            spent += budget.try_spend(clock)
        assert 0 <= budget.tokens <= size
        assert spent <= size + successes * ratio / (1 + ratio) + 1e-6


async def _load(failure_rate, calls, seed):
    """Attempts made per call, with a share of the attempts failing, 50 calls at a time."""
    rng = random.Random(seed)
    made = 0

    async def server(_request):
        nonlocal made
        made += 1
        await asyncio.sleep(0.01)
        if rng.random() < failure_rate:
            raise status_error(503)
        return Response(200, {})

    retry = RetryMiddleware(RetryPolicy(), RetryBudget(), rng=rng)
    failed = 0
    left = calls

    async def worker():
        nonlocal failed, left
        while left:
            left -= 1
            try:
                await retry(make_request(), server)
            except InternalServerError:
                failed += 1

    await asyncio.gather(*(worker() for _ in range(50)))
    return made / calls, failed / calls


@pytest.mark.parametrize("failure_rate", [0.05, 0.09, 0.2, 0.5, 0.9, 1.0])
def test_load_amplification_is_below_1_1(failure_rate):
    amplification, failed = run_with_jumping_time(_load(failure_rate, 10_000, seed=1))
    assert amplification < 1.1
    if failure_rate == 1.0:
        assert amplification == pytest.approx(1.001)
    if failure_rate == 0.05:
        assert failed < 0.001, "few failures are all mended"


@jumping_time
@no_tasks_left
async def test_hedges_of_a_slow_server_stay_below_the_budget():
    made = 0

    async def server(_request):
        nonlocal made
        made += 1
        await asyncio.sleep(5.0)
        return Response(200, {})

    budget = RetryBudget()
    retry, hedge = RetryMiddleware(RetryPolicy(), budget), HedgeMiddleware(1.0, budget)

    async def call():
        await retry(make_request(), lambda request: hedge(request, server))

    for _ in range(40):
        await asyncio.gather(*(call() for _ in range(50)))
    assert 2000 < made < 2000 * 1.1


@jumping_time
@no_tasks_left
async def test_an_empty_budget_fails_at_once_with_the_real_error():
    budget = RetryBudget(0.1, 0)
    error = status_error(503)

    async def server(_request):
        raise error

    with pytest.raises(InternalServerError) as caught:
        await RetryMiddleware(RetryPolicy(), budget)(make_request(), server)
    assert caught.value is error
    assert "retry budget is empty" in error.__notes__[0]
    assert now() == 0.0


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_a_fresh_client_gets_all_its_attempts(seed):
    async def main():
        made = 0

        async def server(_request):
            nonlocal made
            made += 1
            raise status_error(500)

        retry = RetryMiddleware(RetryPolicy(max_attempts=5), RetryBudget(), rng=random.Random(seed))
        for _ in range(2):
            with pytest.raises(InternalServerError):
                await retry(make_request(), server)
        return made

    assert run_with_jumping_time(main()) == 10
