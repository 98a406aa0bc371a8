"""Adaptive concurrency against simulated servers, on virtual time."""

import asyncio

import pytest
from limits_server import Simulation

from konko_async import RateLimit
from konko_async.limits import AdaptiveConcurrency, Limiter
from konko_async.testing import jumping_time


@pytest.mark.parametrize("spread", ["constant", "even", "exponential"])
@pytest.mark.parametrize("overload", ["reject", "queue"])
@pytest.mark.parametrize("capacity", [4, 32, 256])
def test_it_finds_the_capacity(capacity, overload, spread):
    seconds = 12 if capacity == 256 else 30
    best = Simulation(capacity, overload, spread=spread, fixed=capacity + 2 * (overload == "queue"))
    best.run(seconds)
    ours = Simulation(capacity, overload, spread=spread)
    ours.run(seconds)  # with its start
    assert ours.served >= 0.9 * best.served
    assert ours.rejected <= 0.01 * ours.served
    late = [limit for at, limit in ours.history if at > seconds / 2]
    assert max(late) <= 2.5 * capacity
    assert sum(late) / len(late) >= 0.9 * capacity


@pytest.mark.parametrize("overload", ["reject", "queue"])
@pytest.mark.parametrize("spread", ["constant", "even"])
def test_it_follows_a_capacity_that_changes(overload, spread):
    server = Simulation(32, overload, spread=spread)
    server.run(10)
    for capacity in (128, 32, 4, 32):
        server.capacity = capacity
        server.run(server.now + 9)  # to find out
        served = server.served
        server.run(server.now + 6)
        assert server.served - served >= 0.9 * 6 * capacity / 0.0508
        assert 0.75 * capacity <= server.limit <= 2 * capacity
    assert server.rejected <= 0.01 * server.served


@pytest.mark.parametrize("overload", ["reject", "queue"])
def test_longer_answers_are_no_queue(overload):
    server = Simulation(32, overload)
    server.run(10)
    for service in (0.15, 0.03):
        server.service, served = service, server.served
        server.run(server.now + 20)
        assert server.served - served >= 0.9 * 20 * 32 / (service + 0.001)
        assert 24 <= server.limit <= 80


def test_what_says_nothing_of_load_changes_nothing():
    adaptive = AdaptiveConcurrency()
    for outcome in ("error", "cancelled"):
        for _ in range(100):
            assert adaptive.observe(1.0, 0.5, 4, 0.1, outcome) == 4
    for latency in (float("nan"), float("inf"), -1.0):
        for _ in range(100):
            assert adaptive.observe(1.0, 0.5, 4, latency, "ok") == 4


def test_it_stays_above_nothing_and_below_a_thousand():
    adaptive = AdaptiveConcurrency()
    for at in range(50):
        assert adaptive.observe(at + 0.5, float(at), 1, 0.1, "rejected") >= 1
    assert adaptive.limit == 1
    adaptive = AdaptiveConcurrency()
    for at in range(100_000):
        adaptive.observe(float(at), at - 0.5, adaptive.limit, 0.0, "ok")
    assert adaptive.limit == 1000


def test_without_demand_it_does_not_grow():
    adaptive = AdaptiveConcurrency()
    for at in range(1000):
        adaptive.observe(float(at), at - 0.5, 1, 0.1, "ok")
    assert adaptive.limit == 4


@jumping_time
async def test_a_lane_with_auto_follows_its_server():
    lane = Limiter(RateLimit(max_concurrency="auto")).lane("model", "key")
    busy, served, rejected = 0, 0, 0

    async def worker():
        nonlocal busy, served, rejected
        while asyncio.get_running_loop().time() < 20:
            permit = await lane.admit(1)
            if busy >= 32:
                await asyncio.sleep(0.001)
                lane.observe_rejection(None)
                permit.release(outcome="rejected")
                rejected += 1
                continue
            busy += 1
            await asyncio.sleep(0.05)
            busy -= 1
            permit.release()
            served += 1

    await asyncio.gather(*(worker() for _ in range(100)))
    assert served >= 0.9 * 20 * 32 / 0.05
    assert rejected <= 0.01 * served
    shown = lane.snapshot()
    assert 30 <= shown.max_concurrency <= 34
    assert shown.configured_concurrency == "auto"
