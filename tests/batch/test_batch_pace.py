"""The pace of a run, and what errors mean to it: pure, the time is passed in."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    RateLimitTimeoutError,
)
from konko_async.batch import AnswerError
from konko_async.batch._calls.pace import Pace
from konko_async.batch._calls.verdict import asked_wait, judge


def outage(width=64, at=10.0):
    """Return a pace that has just found that nothing is answered."""
    pace = Pace(width, 0.0)
    pace.answered(0.0)
    for _ in range(width):
        pace.failed(at, 1.0)
    assert pace.probing
    return pace


def test_a_few_calls_go_first():
    pace = Pace(64, 0.0)
    assert (pace.wait(0.0, 3), pace.wait(0.0, 4)) == (0.0, 1.0)
    pace.answered(0.2)
    assert (pace.wait(0.2, 63), pace.wait(0.2, 64)) == (0.0, math.inf)
    slow = Pace(64, 0.0)  # a slow first answer does not hold up the run
    assert slow.wait(3.6, 63) == 0.0


def test_in_an_outage_one_call_probes_with_growing_pauses():
    pace, now = outage(), 10.0
    pauses = []
    for _ in range(30):
        wait = pace.wait(now, 0)
        pauses.append(wait)
        now += wait
        assert pace.wait(now, 0) == 0.0
        pace.begin(now)
        assert pace.wait(now, 1) == 30.0  # unless that one hangs
        pace.failed(now, 1.0)
    assert pauses[0] == 0.5
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0
    assert now < 600  # so that an outage of ten minutes is not mistaken for a longer one


def test_after_an_outage_the_width_doubles_until_it_is_what_it_was():
    pace = outage()
    pace.begin(20.0)
    pace.answered(20.0)
    assert not pace.probing
    widths = []
    for step in range(8):
        pace.wait(20.0 + step / 2, 0)
        widths.append(pace.limit)
    assert widths == [2, 4, 8, 16, 32, 64, 64, 64]


def test_random_failures_do_not_slow_the_run_down():
    pace = Pace(32, 0.0)
    pace.answered(0.0)
    for number in range(1000):
        if number % 3:
            pace.answered(1.0)
        else:
            pace.failed(1.0, 1.0)
    assert (pace.limit, pace.probing) == (32, False)


def test_an_overloaded_server_is_asked_less():
    pace = Pace(64, 0.0)
    pace.answered(0.0)
    for number in range(2000):
        if number % 4:
            pace.failed(1.0, 1.0)
        else:
            pace.answered(1.0)
    assert pace.limit == 4


@given(
    st.lists(st.tuples(st.sampled_from("baf"), st.floats(0, 40)), max_size=60), st.integers(1, 40)
)
def test_whatever_happens_a_call_may_go_in_time(steps, width):
    pace, now = Pace(width, 0.0), 0.0
    for what, passed in steps:
        now += passed
        if what == "b":
            pace.begin(now)
        elif what == "a":
            pace.answered(now)
        else:
            pace.failed(now, 1.0)
        assert 1 <= pace.limit <= width
    for _ in range(3):
        now += min(pace.wait(now, 0), 40.0)
    assert pace.wait(now, 0) == 0.0


def status(number, message="no", **details):
    return APIStatusError.for_status(number, message, **details)


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (status(503), "wait"),
        (status(429, retry_after=5.0), "wait"),
        (status(429, retry_after=5000.0), "end"),
        (status(503, retry_after=5000.0), "end"),
        (status(429, "Limit reached on requests per day (RPD): Limit 200"), "end"),
        (status(429, "Limit reached on requests per day. Please try again in 7m12s"), "wait"),
        (status(429, "Rate limit of 50 per 86400s exceeded. Please wait 35000 seconds."), "end"),
        (status(402), "end"),
        (status(401), "end"),
        (status(404, code="model_not_found"), "refused"),
        (status(403), "refused"),
        (status(400), "fail"),
        (status(422), "fail"),
        (status(502, body={"choices": [{"error": {"code": 502}}]}), "again"),
        (APIConnectionError("refused"), "wait"),
        (APIConnectionError("cannot connect: Too many open files"), "files"),
        (APIConnectionError("bad certificate", retryable=False), "end"),
        (APITimeoutError("late", phase="first_token"), "wait"),
        (APITimeoutError("late", phase="total"), "wait"),
        (RateLimitTimeoutError("no", would_have_waited=9.0), "wait"),
        (AnswerError("cut", code="length"), "fail"),
        (AnswerError("none", code="no_choices", retryable=True), "again"),
    ],
)
def test_what_an_error_means_to_a_run(error, action):
    assert judge(error, 600.0).action == action


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Please try again in 20s.", 20),
        ("Please try again in 7m12s.", 432),
        ("Please try again in 1h30m0.5s", 5400.5),
        ("try again in 850ms", 0.85),
        ("Please retry after 26 seconds.", 26),
        ("please wait 2 hours and 5 minutes", 7500),
        ("resets in 3 days", 259200),
        ("you have to wait", None),
        ("too many requests", None),
    ],
)
def test_waits_that_only_the_message_names(message, seconds):
    assert asked_wait(status(429, message)) == (seconds and pytest.approx(seconds))
