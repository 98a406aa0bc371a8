"""Policies are checked when they are made, and frozen after."""

import math

import pytest

from konko_async import ConfigurationError, RateLimit, RetryPolicy, Timeout
from konko_async._core.policies import STORE_CHOICES

NOT_NUMBERS = ["1", True, [1], math.nan, math.inf, -math.inf, b"1", 1j]


def test_defaults_as_documented():
    assert Timeout() == Timeout(connect=5, first_token=120, idle=60, total=None)
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.base_delay, policy.max_delay) == (3, 0.5, 8)
    assert policy.statuses == {408, 409, 425, 429, *range(500, 600)} - {501, 505}
    limit = RateLimit()
    assert (limit.requests_per_minute, limit.tokens_per_minute) == (None, None)
    assert (limit.max_concurrency, limit.burst, limit.window, limit.learn) == (None, None, 60, True)


@pytest.mark.parametrize("name", ["connect", "first_token", "idle", "total"])
def test_timeouts(name):
    for value in (0.001, 1, 1e9, None):
        assert getattr(Timeout(**{name: value}), name) == value
    for value in [0, 0.0, -1, *NOT_NUMBERS]:
        with pytest.raises(ConfigurationError, match=f"Timeout: {name}"):
            Timeout(**{name: value})


def test_timeout_of():
    default = Timeout(connect=1, first_token=2, idle=3, total=4)
    assert Timeout.of(None, default) is default
    own = Timeout()
    assert Timeout.of(own, default) is own
    assert Timeout.of(9, default) == Timeout(connect=1, first_token=2, idle=3, total=9)
    assert Timeout.of(0.5, default).total == 0.5
    # A slow answer must not be cut short by what nobody chose.
    assert Timeout.of(1000, own) == Timeout(first_token=1000, idle=1000, total=1000)
    assert Timeout.of(90, own) == Timeout(first_token=120, idle=90, total=90)
    for wrong in (0, -1, math.nan, math.inf, "5", True, (1, 2), {}):
        with pytest.raises(ConfigurationError, match="imeout"):
            Timeout.of(wrong, default)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("max_attempts", [1, 100], [0, -1, 1.5, None]),
        ("base_delay", [0, 0.5], [-1, None]),
        ("max_delay", [0, 8], [-0.1, None]),
        ("max_retry_after", [0, 1e6], [-1, None]),
        ("attempt_timeout", [None, 0, 1.5], [-1]),
        ("budget_ratio", [None, 0, 0.1, 2], [-0.1]),
        ("budget_size", [0, 10.5], [-1, None]),
    ],
)
def test_retry_policies(name, right, wrong):
    for value in right:
        assert getattr(RetryPolicy(**{name: value}), name) == value
    for value in wrong + NOT_NUMBERS:
        with pytest.raises(ConfigurationError, match=f"RetryPolicy: {name}"):
            RetryPolicy(**{name: value})


@pytest.mark.parametrize("statuses", [frozenset(), {429}, (500, 503), [408]])
def test_statuses(statuses):
    assert RetryPolicy(statuses=statuses).statuses == statuses


@pytest.mark.parametrize("statuses", [429, "429", {"429"}, None, [429.0], [True], {429: 1}])
def test_wrong_statuses(statuses):
    with pytest.raises(ConfigurationError, match="statuses"):
        RetryPolicy(statuses=statuses)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("requests_per_minute", [None, 1, 0.5 + 0.5, 1e6], [0, 0.5, -1]),
        ("tokens_per_minute", [None, 1, 1e9], [0, -5]),
        ("max_concurrency", [None, 1, "auto"], [0, 1.5, -1, "Auto", ""]),
        ("burst", [None, 1, 50], [0, 1.5, -1]),
        ("window", [0.001, 1, 60], [0, -1, None]),
    ],
)
def test_rate_limits(name, right, wrong):
    for value in right:
        assert getattr(RateLimit(**{name: value}), name) == value
    for value in wrong + NOT_NUMBERS:
        with pytest.raises(ConfigurationError, match=f"RateLimit: {name}"):
            RateLimit(**{name: value})


def test_a_burst_above_the_limit_is_refused():
    assert RateLimit(requests_per_minute=5, burst=5)
    with pytest.raises(ConfigurationError, match="burst"):
        RateLimit(requests_per_minute=5, burst=6)


@pytest.mark.parametrize(
    ("kind", "name"), [(RetryPolicy, "on_retry"), (RateLimit, "estimate_tokens")]
)
def test_callbacks_are_callable(kind, name):
    assert kind(**{name: print})
    with pytest.raises(ConfigurationError, match=name):
        kind(**{name: "print"})


@pytest.mark.parametrize("policy", [Timeout(), RetryPolicy(), RateLimit()])
def test_policies_are_frozen_values(policy):
    with pytest.raises(AttributeError):
        setattr(policy, policy.__struct_fields__[0], 1)
    assert policy == type(policy)()
    with pytest.raises(TypeError):
        type(policy)(no_such_option=1)


def test_a_store_is_what_can_exchange():
    class Own:
        async def exchange(self, *_):
            """Never called here."""

    assert RateLimit(store=Own())
    for wrong in (3, "redis://localhost", object()):
        with pytest.raises(
            ConfigurationError, match=f"RateLimit: store .* not {type(wrong).__name__}"
        ):
            RateLimit(store=wrong)


def test_what_is_done_without_a_store_is_one_of_few_words():
    for choice in STORE_CHOICES:
        assert RateLimit(on_store_failure=choice).on_store_failure == choice
    with pytest.raises(
        ConfigurationError, match=r"on_store_failure must be one of .* not 'ignore'"
    ):
        RateLimit(on_store_failure="ignore")
