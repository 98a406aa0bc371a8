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


@pytest.mark.parametrize("share", [0.005, 0.02])
@pytest.mark.parametrize("capacity", [4, 32])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rejections_that_have_nothing_to_do_with_load_are_tolerated(capacity, share, seed):
    best = Simulation(capacity, "reject", fixed=capacity, noise=share, seed=seed)
    ours = Simulation(capacity, "reject", noise=share, seed=seed)
    for server in (best, ours):
        server.run(15)  # to learn of them
        server.served = server.rejected = 0
        server.run(45)
    assert ours.served >= 0.9 * best.served
    assert ours.rejected <= (share + 0.015) * ours.served


def test_such_rejections_may_begin_late_and_end():
    server = Simulation(32, "reject")
    server.run(10)
    server.noise = 0.02
    server.run(20)
    served = server.served
    server.run(30)
    assert server.served - served >= 0.85 * 10 * 32 / 0.0508
    server.noise = 0.0
    server.run(40)  # forgotten by then
    rejected, served = server.rejected, server.served
    server.run(60)
    assert server.rejected - rejected <= 0.01 * (server.served - served)
    server.capacity = 8
    server.run(70)
    assert server.limit in {7, 8, 9}


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_queue_is_found_though_the_limit_is_above_the_demand(seed):
    server = Simulation(200, "queue", callers=92, seed=seed, service=0.1)
    server.run(10)
    assert server.limit > 92
    server.capacity = 16
    server.run(20)
    assert server.limit <= 32
    served = server.served
    server.run(30)
    assert server.served - served >= 0.9 * 10 * 16 / 0.1008


def test_longer_answers_do_not_lower_a_limit_above_the_demand():
    server = Simulation(200, "queue", callers=50)
    server.run(10)
    limit = server.limit
    server.service = 0.15
    server.run(40)
    assert server.limit == limit > 50


def test_a_few_places_are_all_used():
    shares = []
    for seed in range(8):
        servers = [
            Simulation(4, "queue", spread="wide", fixed=fixed, seed=seed, callers=26, service=0.08)
            for fixed in (4, 5, None)
        ]
        for server in servers:
            server.run(5)
            server.served = 0
            server.run(20)
        *best, ours = (server.served for server in servers)
        shares.append(ours / max(best))
    assert sum(shares) / len(shares) >= 0.95
    assert min(shares) >= 0.85


@pytest.mark.parametrize("slow", range(20))
def test_with_one_call_left_there_is_nothing_lower_to_test(slow):
    adaptive = AdaptiveConcurrency()
    # Latency rises, and while that is looked into, the demand falls to one call at a time.
    calls = [(0.1, 4)] * 40 + [(1.0, 4)] * slow + [(1.0, 1)] * 60
    for at, (latency, in_flight) in enumerate(calls):
        adaptive.observe(float(at), at - 0.5, in_flight, latency, "ok")
    assert adaptive.limit > 1
