"""The face: lanes, estimates, snapshots; and a store as others would write it."""

import asyncio
import itertools

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
    Reservation,
    SharedLimits,
    Store,
    TokenBucket,
    estimate_tokens,
)
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


class MemoryStore:
    """The Store contract over our own buckets: what a shared one does in a script of its server."""

    def __init__(self, clock):
        self.clock = clock
        self.lanes = {}
        self.count = itertools.count()
        self.open = {}
        self.level_at = {}
        self.closed = False

    async def reserve(self, lane, limits, *, requests, tokens, priority, max_wait=None):  # noqa: ARG002  (one line)
        now = self.clock()
        request_bucket, token_bucket = self.lanes.setdefault(
            lane,
            (
                RequestBucket(limits.requests, limits.window),
                TokenBucket(limits.tokens, limits.window),
            ),
        )
        free = self.level_at.get(lane, 0.0)
        wait = max(request_bucket.delay(now, requests), token_bucket.delay(now, tokens), free - now)
        if max_wait is not None and wait > max_wait:
            return wait
        at = now + wait
        charges = request_bucket.try_take(at, requests), token_bucket.try_take(at, tokens)
        self.level_at[lane] = at
        reservation = Reservation(
            id=str(next(self.count)), wait=wait, requests=requests, tokens=tokens
        )
        self.open[reservation.id] = (lane, charges)
        return reservation

    async def settle(self, reservation, tokens):
        lane, charges = self.open.pop(reservation.id, (None, None))
        if lane is not None:
            self.lanes[lane][1].settle(self.clock(), charges[1], reservation.tokens, tokens)

    async def refund(self, reservation):
        await self.settle(reservation, 0)

    async def pause(self, lane, seconds):
        self.level_at[lane] = max(self.level_at.get(lane, 0.0), self.clock() + seconds)

    async def close(self):
        self.closed = True


@jumping_time
async def test_a_store_serves_two_processes_in_order():
    loop = asyncio.get_running_loop()
    store: Store = MemoryStore(loop.time)
    limits, left = SharedLimits(requests=60, tokens=60_000, burst=1), []

    async def process(name):
        for _ in range(20):
            reservation = await store.reserve(
                "lane", limits, requests=1, tokens=100, priority="batch"
            )
            await asyncio.sleep(reservation.wait)
            left.append((loop.time(), name))
            await store.settle(reservation, 50)

    await asyncio.gather(process("a"), process("b"))
    assert [name for _, name in left] == ["a", "b"] * 20
    assert 38 < left[-1][0] < 41
    refused = await store.reserve(
        "lane", limits, requests=1, tokens=1, priority="batch", max_wait=0.01
    )
    assert isinstance(refused, float)
    await store.pause("lane", 9.0)
    reservation = await store.reserve("lane", limits, requests=1, tokens=1, priority="batch")
    assert reservation.wait == pytest.approx(9.0)
    await store.refund(reservation)
    await store.close()


def test_both_buckets_are_buckets():
    buckets: list[Bucket] = [RequestBucket(60), TokenBucket(6000)]
    for bucket in buckets:
        assert bucket.limit > bucket.burst > 0
        assert bucket.rate > 0
        assert bucket.spent.total == 0
