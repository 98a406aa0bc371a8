"""Retry: what is repeated, when, and what is raised in the end. Time jumps; nothing sleeps."""

import asyncio
import logging
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

from konko_async._core.policies import RetryPolicy
from konko_async._records import Attempt
from konko_async.errors import (
    APIConnectionError,
    APITimeoutError,
    CircuitOpenError,
    ConfigurationError,
    KonkoError,
    RateLimitError,
    RateLimitTimeoutError,
    ResponseDecodeError,
    StreamServerError,
    StreamStalledError,
    StreamTruncatedError,
)
from konko_async.middleware import RetryBudget, RetryMiddleware, classify
from konko_async.testing import jumping_time, run_with_jumping_time


class Highest:
    """Jitter at its upper end, so that times are exact."""

    def uniform(self, _low, high):
        return high


def retry(budget=None, rng=None, **policy):
    return RetryMiddleware(RetryPolicy(**policy), budget or RetryBudget(), rng=rng or Highest())


# What is retried.


def is_retryable(error, policy):
    return classify(error, policy.statuses).retryable


@pytest.mark.parametrize(
    "status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529, 530]
)
def test_statuses_that_are_retried(status):
    assert is_retryable(status_error(status), RetryPolicy())


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 422, 501])
def test_statuses_that_are_not(status):
    assert not is_retryable(status_error(status), RetryPolicy())


def test_the_policy_names_the_statuses():
    policy = RetryPolicy(statuses=frozenset({404}))
    assert is_retryable(status_error(404), policy)
    assert not is_retryable(status_error(503), policy)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (APIConnectionError("refused"), True),
        (APIConnectionError("bad certificate", retryable=False), False),
        (APITimeoutError("slow", phase="connect"), True),
        (APITimeoutError("slow", phase="first_token"), True),
        (APITimeoutError("slow", phase="total"), False),
        (ResponseDecodeError("cut", retryable=True), True),
        (ResponseDecodeError("HTML"), False),
        (StreamTruncatedError("cut"), True),
        (StreamStalledError("silent"), True),
        (StreamServerError("overloaded", type="server_error"), True),
        (StreamServerError("?"), True),
        (StreamServerError("bad", type="invalid_request_error"), False),
        (StreamServerError("bad", code="Context_Length_Exceeded"), False),
        (StreamServerError("no money", code="insufficient_quota"), False),
        (StreamServerError("bad", code="400"), False),
        (StreamServerError("busy", code="503"), True),
        (status_error(429, code="insufficient_quota"), False),
        (status_error(429, type="insufficient_quota"), False),
        (status_error(429, code="billing_hard_limit_reached"), False),
        (status_error(429, code="rate_limit_exceeded"), True),
        (status_error(503, headers={"x-should-retry": "false"}), False),
        (status_error(400, headers={"x-should-retry": " True"}), True),
        (status_error(503, headers={"x-should-retry": "perhaps"}), True),
        (status_error(429, code="insufficient_quota", headers={"x-should-retry": "true"}), False),
        (CircuitOpenError("open", retry_after=1.0), False),
        (RateLimitTimeoutError("full", would_have_waited=9.0), False),
        (ConfigurationError("bad"), False),
        (ValueError("a user's middleware"), False),
    ],
)
def test_what_is_retried(error, expected):
    assert is_retryable(error, RetryPolicy()) is expected


# How often and when.


@jumping_time
@no_tasks_left
async def test_success_is_one_attempt():
    attempts = Attempts("ok")
    request = make_request(method="GET")
    response = await retry()(request, attempts)
    assert attempts.requests == [request]
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_attempts_are_numbered_and_backed_off():
    attempts = Attempts(*[status_error(503)] * 6, "ok")
    response = await retry(max_attempts=7)(make_request(), attempts)
    assert [request.attempt for request in attempts.requests] == [1, 2, 3, 4, 5, 6, 7]
    waits = [b - a for a, b in zip(attempts.times, attempts.times[1:], strict=False)]
    assert waits == pytest.approx([0.5, 1, 2, 4, 8, 8])
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_an_attempt_does_not_inherit_what_the_one_before_it_waited():
    queued = []

    async def server(request):
        queued.append(request.queued)
        request.times.queued += 7.0
        return await attempts(request)

    attempts = Attempts(status_error(503), status_error(503), "ok")
    await (await retry()(make_request(), server)).aclose()
    assert queued == [0.0, 0.0, 0.0]


@jumping_time
@no_tasks_left
async def test_the_real_error_is_raised_when_the_attempts_are_used_up():
    errors = [status_error(500), APIConnectionError("reset"), status_error(503)]
    attempts = Attempts(*errors)
    with pytest.raises(KonkoError) as caught:
        await retry()(make_request(), attempts)
    assert caught.value is errors[-1]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert len(attempts.requests) == 3


@jumping_time
@no_tasks_left
async def test_an_error_that_is_not_retried_is_raised_at_once():
    error = status_error(400)
    attempts = Attempts(error)
    with pytest.raises(KonkoError) as caught:
        await retry()(make_request(), attempts)
    assert caught.value is error
    assert len(attempts.requests) == 1
    assert not hasattr(error, "__notes__")


@jumping_time
@no_tasks_left
async def test_one_attempt_means_one():
    attempts = Attempts(status_error(503))
    with pytest.raises(KonkoError):
        await retry(max_attempts=1)(make_request(), attempts)
    assert len(attempts.requests) == 1


@jumping_time
@no_tasks_left
async def test_no_budget_no_bound():
    middleware = RetryMiddleware(RetryPolicy(), None)
    for _ in range(50):
        attempts = Attempts(status_error(503), status_error(503), "ok")
        await (await middleware(make_request(), attempts)).aclose()
        assert len(attempts.requests) == 3


@given(
    seed=st.integers(0, 2**32),
    base=st.floats(0, 10),
    top=st.floats(0, 20),
    asked=st.none() | st.floats(0, 100),
    number=st.integers(2, 8),
)
def test_the_wait_is_in_its_bounds(seed, base, top, asked, number):
    async def main():
        attempts = Attempts(*[status_error(503, retry_after=asked)] * (number - 1), "ok")
        middleware = retry(
            rng=random.Random(seed), base_delay=base, max_delay=top, max_attempts=number
        )
        await (await middleware(make_request(), attempts)).aclose()
        for k, (a, b) in enumerate(zip(attempts.times, attempts.times[1:], strict=False)):
            cap = min(top, base * 2**k)
            assert b - a >= (asked or 0.0) - 1e-6
            assert b - a <= max(cap, (asked or 0.0)) * (1.2 if asked is not None else 1) + 1e-6

    run_with_jumping_time(main())


@jumping_time
@no_tasks_left
async def test_a_thousand_attempts_do_not_overflow():
    attempts = Attempts(*[status_error(503)] * 1999, "ok")
    middleware = RetryMiddleware(RetryPolicy(max_attempts=2000), None, rng=Highest())
    await (await middleware(make_request(), attempts)).aclose()
    assert len(attempts.requests) == 2000


@jumping_time
@no_tasks_left
async def test_the_servers_wait_is_honoured_with_a_spread_above_it():
    attempts = Attempts(status_error(429, retry_after=10.0), "ok")
    response = await retry()(make_request(), attempts)
    assert now() == pytest.approx(12.0)
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_a_short_server_wait_does_not_undercut_the_backoff():
    attempts = Attempts(status_error(429, retry_after=0.0), "ok")
    response = await retry()(make_request(), attempts)
    assert now() == pytest.approx(0.6)
    await response.aclose()


@jumping_time
@no_tasks_left
async def test_a_wait_above_the_cap_is_raised_at_once():
    attempts = Attempts(status_error(429, retry_after=121.0))
    with pytest.raises(RateLimitError) as caught:
        await retry()(make_request(), attempts)
    assert caught.value.retry_after == 121.0
    assert "max_retry_after (120 s)" in caught.value.__notes__[0]
    assert now() == 0.0


@jumping_time
@no_tasks_left
async def test_a_429_that_names_a_wait_costs_no_budget():
    budget = RetryBudget(0.1, 1)
    attempts = Attempts(*[status_error(429, retry_after=1.0)] * 4, "ok")
    await (await retry(budget, max_attempts=5)(make_request(), attempts)).aclose()
    assert budget.tokens == 1.0
    attempts = Attempts(*[status_error(429)] * 4, "ok")
    with pytest.raises(RateLimitError, match="429"):
        await retry(budget, max_attempts=5)(make_request(), attempts)
    assert len(attempts.requests) == 2


# Deadlines.


@jumping_time
@no_tasks_left
async def test_a_wait_past_the_total_deadline_is_not_begun():
    attempts = Attempts((25.0, status_error(503, retry_after=10.0)), "ok")
    with pytest.raises(KonkoError, match="503") as caught:
        await retry()(make_request(total=30.0), attempts)
    assert "5.0 s are left of Timeout.total" in caught.value.__notes__[0]
    assert now() == 25.0


@jumping_time
@no_tasks_left
async def test_three_attempts_never_outlast_the_total():
    attempts = Attempts((14.8, APITimeoutError("slow", phase="first_token")))
    with pytest.raises(APITimeoutError):
        await retry()(make_request(total=30.0), attempts)
    assert len(attempts.requests) == 2
    assert now() <= 30.2


# The idempotency key.


@jumping_time
@no_tasks_left
async def test_the_key_is_stable_over_attempts_and_differs_over_calls():
    keys = []
    for _ in range(100):
        attempts = Attempts(status_error(503), status_error(503), "ok")
        headers = {"X-Mine": "1"}
        middleware = RetryMiddleware(RetryPolicy(), None)
        await (await middleware(make_request(headers=headers), attempts)).aclose()
        (key,) = {request.headers["Idempotency-Key"] for request in attempts.requests}
        assert all(request.headers["X-Mine"] == "1" for request in attempts.requests)
        assert headers == {"X-Mine": "1"}, "the caller's dict is his"
        assert len(key) >= 32
        keys.append(key)
    assert len(set(keys)) == 100


@jumping_time
@no_tasks_left
async def test_the_users_own_key_wins_in_any_case_of_letters():
    attempts = Attempts(status_error(503), "ok")
    request = make_request(headers={"idempotency-KEY": "mine"})
    await (await retry()(request, attempts)).aclose()
    assert [request.headers for request in attempts.requests] == [{"idempotency-KEY": "mine"}] * 2


@jumping_time
@no_tasks_left
async def test_a_get_needs_no_key():
    attempts = Attempts("ok")
    await (await retry()(make_request(method="GET"), attempts)).aclose()
    assert attempts.requests[0].headers == {}


# Records, hooks and words.


async def _logged(request, attempts):
    """Append a record per attempt, as the client's attempt log does."""
    try:
        return await attempts(request)
    except KonkoError as error:
        record = Attempt(
            number=request.attempt, started=now(), duration=0.0, error_type=type(error).__name__
        )
        request.call.attempts.append(record)
        raise


@jumping_time
@no_tasks_left
async def test_the_hook_sees_each_failed_attempt_and_the_history_tells_the_waits():
    seen = []
    attempts = Attempts(status_error(503), status_error(500), "ok")
    request = make_request()
    middleware = retry(on_retry=seen.append)
    await (await middleware(request, lambda r: _logged(r, attempts))).aclose()
    assert [(record.number, record.retry_delay) for record in seen] == [(1, 0.5), (2, 1.0)]
    assert request.call.attempts == seen


@jumping_time
@no_tasks_left
async def test_the_hook_works_without_an_attempt_log():
    seen = []
    attempts = Attempts((1.0, status_error(503)), "ok")
    await (await retry(on_retry=seen.append)(make_request(), attempts)).aclose()
    (record,) = seen
    assert record.number == 1
    assert record.duration == 1.0
    assert record.error_type == "InternalServerError"
    assert record.retry_delay == 0.5


@jumping_time
@no_tasks_left
async def test_a_failing_hook_is_logged_and_does_no_harm(caplog):
    def hook(_record):
        raise RuntimeError("mine")

    attempts = Attempts(status_error(503), "ok")
    with caplog.at_level(logging.ERROR, "konko_async"):
        await (await retry(on_retry=hook)(make_request(), attempts)).aclose()
    assert "on_retry failed" in caplog.text


@jumping_time
@no_tasks_left
async def test_it_says_what_it_is_doing():
    attempts = Attempts(status_error(429, retry_after=10.0), "ok")
    request = make_request()
    task = asyncio.create_task(retry()(request, attempts))
    await asyncio.sleep(1)
    assert request.call.doing == "waiting 12.0 s before attempt 2"
    await (await task).aclose()


@jumping_time
@no_tasks_left
async def test_an_open_circuit_after_a_failure_names_that_as_its_cause():
    first = status_error(503)
    refusal = CircuitOpenError("open", retry_after=1.0)
    with pytest.raises(CircuitOpenError) as caught:
        await retry()(make_request(), Attempts(first, refusal))
    assert caught.value is refusal
    assert caught.value.__cause__ is first


# Cancellation.


@jumping_time
@no_tasks_left
async def test_cancelling_while_it_waits_takes_effect_at_once():
    attempts = Attempts(status_error(429, retry_after=60.0), "ok")
    task = asyncio.create_task(retry()(make_request(), attempts))
    await asyncio.sleep(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() == 5.0
    assert len(attempts.requests) == 1


@jumping_time
@no_tasks_left
async def test_a_cancelled_attempt_is_not_retried():
    attempts = Attempts(status_error(503), (5.0, "ok"))
    task = asyncio.create_task(retry()(make_request(), attempts))
    await asyncio.sleep(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(attempts.requests) == 2
    assert attempts.held == 0


@pytest.mark.parametrize("again_after", [None, 1, 2])
def test_cancelled_at_every_step_it_leaves_nothing(again_after):
    def scenario():
        attempts = Attempts(
            (0.1, (0.2, status_error(503))), (0.3, APIConnectionError("reset")), (0.1, "ok")
        )
        request = make_request(total=60)
        return attempts, lambda: retry()(request, attempts)

    assert cancel_everywhere(scenario, again_after=again_after) > 5
