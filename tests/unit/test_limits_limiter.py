"""The face: lanes, estimates, snapshots; and a store as others would write it."""

import asyncio

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async import ConfigurationError, RateLimit
from konko_async.limits import (
    Bucket,
    Limiter,
    Limits,
    RequestBucket,
    TokenBucket,
    estimate_tokens,
)
from konko_async.limits._estimate import prompt_tokens
from konko_async.testing import jumping_time


def test_one_lane_per_model_and_key():
    limiter = Limiter(RateLimit())
    lane = limiter.lane("a", "1")
    assert limiter.lane("a", "1") is lane
    assert limiter.lane("a", "2") is not lane
    assert limiter.lane("b", "1") is not lane
    assert limiter.rate_limit == RateLimit()


@jumping_time
async def test_lanes_that_hold_nothing_do_not_pile_up():
    limiter = Limiter(RateLimit(max_concurrency=2))
    busy = limiter.lane("busy", "key")
    permit = busy.try_admit(1)
    for index in range(5000):
        limiter.lane(f"model-{index}", "key")
    assert len(limiter._lanes) <= 1025
    assert limiter.lane("busy", "key") is busy
    permit.release()


@jumping_time
async def test_a_snapshot_shows_what_is_used_waiting_and_learned():
    limiter = Limiter(RateLimit(requests_per_minute=60, tokens_per_minute=6000, max_concurrency=1))
    assert limiter.snapshot() == Limits()
    assert repr(limiter.snapshot()) == "<Limits nothing was called yet>"
    lane = limiter.lane("llama", "fingerprint")
    permit = lane.try_admit(100)
    waiting = [
        asyncio.create_task(lane.admit(1, priority))
        for priority in ("interactive", "batch", "batch")
    ]
    await asyncio.sleep(0)
    lane.observe_headers({"x-ratelimit-limit-tokens": "3000"})
    lane.observe_rejection(4.0)
    shown = limiter.snapshot().models["llama"]
    assert (shown.requests.used, shown.tokens.used, shown.in_flight, shown.max_concurrency) == (
        1,
        100,
        1,
        1,
    )
    assert (shown.waiting.interactive, shown.waiting.batch) == (1, 2)
    assert (shown.tokens.configured, shown.tokens.learned) == (6000, 3000)
    assert shown.believed == 0.9
    assert shown.tokens.available == shown.tokens.limit - 100 == 2600
    assert shown.paused_for == 4
    assert repr(limiter.snapshot()) == (
        "<Limits <LaneLimits llama: requests 1 of 54 used; tokens 100 of 2700 used, learned 3000; in flight 1 of 1; "
        "waiting 1 interactive, 2 batch, paused for 4.0 s>>"
    )
    with pytest.raises(AttributeError):
        shown.in_flight = 0
    assert (
        msgspec.json.decode(msgspec.json.encode(limiter.snapshot()))["lanes"][0]["in_flight"] == 1
    )
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    permit.release()
    assert "no limit" in repr(Limiter(RateLimit()).lane(None, "").snapshot())


# --- estimates


@pytest.mark.parametrize(
    ("params", "tokens"),
    [
        ({"messages": [{"role": "user", "content": "x" * 400}], "max_tokens": 50}, 100 + 4 + 50),
        ({"messages": [{"role": "user", "content": "x" * 400}]}, 100 + 4 + 256),
        ({"messages": [{"role": "user", "content": "é" * 200}], "max_completion_tokens": 10, "n": 3}, 100 + 4 + 30),
        ({"messages": [{"role": "user", "content": None}], "max_tokens": 1}, 5),
        ({"prompt": "x" * 40, "max_tokens": 5}, 15),
        ({"prompt": ["x" * 40, "y" * 40], "max_tokens": 5}, 25),
        ({"prompt": [1, 2, 3], "max_tokens": 5}, 8),
        ({"prompt": [[1, 2, 3], [4]], "max_tokens": 5}, 9),
        ({"input": ["x" * 40, "y" * 40], "model": "e"}, 20),
        ({"input": ""}, 1),
        ({"prompt": None, "max_tokens": "many", "n": "x"}, 256),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "x" * 36}, {"type": "image_url", "image_url": {}}]}
                ],
                "max_tokens": 1,
            },
            10 + 765 + 4 + 1,
        ),
    ],
)  # fmt: skip
def test_the_default_estimate(params, tokens):
    assert Limiter(RateLimit()).estimate(params) == tokens


def test_tools_count_and_structs_do_as_well():
    class Message(msgspec.Struct):
        role: str
        content: str | msgspec.UnsetType = msgspec.UNSET

    class Params(msgspec.Struct):
        messages: list[Message]
        tools: list[dict] | msgspec.UnsetType = msgspec.UNSET
        max_tokens: int | msgspec.UnsetType = msgspec.UNSET

    params = Params([Message("user", "x" * 40), Message("assistant")], max_tokens=6)
    assert estimate_tokens(params) == 10 + 8 + 6
    params.tools = [{"type": "function", "function": {"name": "x" * 100}}]
    assert estimate_tokens(params) == 10 + 8 + 6 + 28
    seen = []
    limiter = Limiter(RateLimit(estimate_tokens=lambda given: seen.append(given) or 7))
    assert limiter.estimate(params) == 7
    assert seen[0]["max_tokens"] == 6
    assert estimate_tokens({"messages": [Message("user", "x" * 40)], "max_tokens": 1}) == 15
    assert (
        estimate_tokens({"messages": [{"content": [Message("user", "x" * 40)]}], "max_tokens": 1})
        > 10
    )


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.booleans() | st.floats(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["type", "text", "content"]), inner)
        ),
    )
)
def test_any_content_has_an_estimate(content):
    for params in (
        {"messages": [{"content": content}]},
        {"prompt": content, "tools": content, "n": content, "max_tokens": content},
        {"input": content if content is not None else ""},
    ):
        assert estimate_tokens(params) >= 1


def broken(_):
    raise ValueError("no tokenizer")


@pytest.mark.parametrize(
    "function", [broken, lambda _: -1, lambda _: 1.5, lambda _: True, lambda _: None]
)
def test_a_bad_estimate_is_a_bad_option(function):
    with pytest.raises(ConfigurationError, match="estimate_tokens"):
        Limiter(RateLimit(estimate_tokens=function)).estimate({})


# --- the contracts


def test_both_buckets_are_buckets():
    buckets: list[Bucket] = [RequestBucket(60), TokenBucket(6000)]
    for bucket in buckets:
        assert bucket.limit > bucket.burst > 0
        assert bucket.rate > 0
        assert bucket.spent.total == 0


def test_prompts_and_inputs_have_an_estimate_too():
    assert estimate_tokens({"input": "a" * 400}) == 100
    assert estimate_tokens({"input": ["a" * 200, "a" * 200]}) == 100
    # Of a text the answer is counted, too.
    assert estimate_tokens({"prompt": "a" * 400, "max_tokens": 7}) == 107


def test_prompts_alone_are_counted_too():
    assert prompt_tokens({"prompt": "a" * 400}) == prompt_tokens({"input": "a" * 400}) == 100
