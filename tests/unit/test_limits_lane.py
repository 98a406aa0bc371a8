"""The lane: one step, first in first out, nothing lost."""

import asyncio

import pytest

from konko_async import RateLimit, RateLimitTimeoutError
from konko_async.limits import Limiter
from konko_async.testing import jumping_time


def now():
    return asyncio.get_running_loop().time()


def make_lane(**settings):
    return Limiter(RateLimit(**settings)).lane("model", "key")


async def settled(turns=5):
    for _ in range(turns):
        await asyncio.sleep(0)


@jumping_time
async def test_a_free_lane_admits_at_once():
    lane = make_lane()
    permit = await lane.admit(100)
    assert permit.waited == 0
    permit.settle(50)
    permit.release()
    assert lane.idle() is False  # it still counts in the window
    assert "nothing" not in repr(lane)


@jumping_time
async def test_a_place_goes_to_who_waited_longest():
    lane = make_lane(max_concurrency=2)
    first, second = lane.try_admit(1), lane.try_admit(1)
    assert lane.try_admit(1) is None
    order = []

    async def call(name):
        permit = await lane.admit(1)
        order.append(name)
        await asyncio.sleep(1)
        permit.release()

    tasks = [asyncio.create_task(call(name)) for name in range(6)]
    await settled()
    first.release()
    first.release()
    assert lane.try_admit(1) is None
    second.release()
    await asyncio.gather(*tasks)
    assert order == list(range(6))
    assert now() == 3


@jumping_time
async def test_a_strict_window_of_requests():
    lane = make_lane(requests_per_minute=60)
    times = []
    while now() < 180:
        permit = await lane.admit(1)
        times.append(now())
        permit.release()
    for index, start in enumerate(times):
        assert sum(1 for t in times[index:] if t < start + 60) <= 60
    assert len(times) >= 0.98 * 180


@jumping_time
async def test_a_deadline_that_cannot_be_met_fails_at_once():
    lane = make_lane(requests_per_minute=60)
    await lane.admit(1)
    with pytest.raises(RateLimitTimeoutError, match="limit on requests") as caught:
        await lane.admit(1, deadline=now() + 0.5)
    assert 0.6 < caught.value.would_have_waited < 1.1
    assert now() == 0


@jumping_time
async def test_a_cancelled_waiter_leaves_nothing():
    lane = make_lane(max_concurrency=1)
    held = lane.try_admit(1)
    tasks = [asyncio.create_task(lane.admit(1)) for _ in range(3)]
    await settled()
    tasks[0].cancel()
    held.release()  # admits the first, whose task is cancelled already: it must go to the second
    await settled()
    assert tasks[0].cancelled()
    assert tasks[1].done()
    tasks[1].result().release()
    (await tasks[2]).release()
    assert lane.snapshot().in_flight == 0
