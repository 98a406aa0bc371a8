"""Rejections at random, beside those of a limit: many seeds in simulated time."""

import asyncio
import random
import statistics
from collections import deque

import pytest

from konko_async._core.policies import RateLimit
from konko_async.limits import Limiter
from konko_async.limits._random_rejections import RandomRejections
from konko_async.testing import jumping_time, run_with_jumping_time


def lane_of(**limits):
    return Limiter(RateLimit(**limits)).lane("m")


class Gateway:
    """Rejects a share of the calls at random, at once or after as long as an answer takes."""

    def __init__(self, share, seed, *, service=0.02, rejecting=0.02, wait=1.0):
        self.share, self.service, self.rejecting, self.wait = share, service, rejecting, wait
        self.random = random.Random(seed)

    async def call(self):
        if self.random.random() < self.share:
            await asyncio.sleep(self.rejecting)
            return self.wait
        await asyncio.sleep(self.service * self.random.uniform(0.7, 1.3))
        return None


async def work(gateway, lane, *, calls, at_once):
    """Make all calls, each rejected one again after its own wait; return the seconds it took."""
    slots, loop = asyncio.Semaphore(at_once), asyncio.get_running_loop()

    async def one():
        async with slots:
            while True:
                permit = None if lane is None else await lane.admit(1)
                wait = await gateway.call()
                if permit is not None:
                    if wait is not None:
                        lane.observe_rejection(wait, permit)
                    permit.release(outcome="ok" if wait is None else "error")
                if wait is None:
                    return
                await asyncio.sleep(wait)

    began = loop.time()
    await asyncio.gather(*(one() for _ in range(calls)))
    return loop.time() - began


def slower(share, *, calls, at_once, seeds, **gateway):
    """How many times longer it takes than without shared limits, of each seed, sorted."""
    found = []
    for seed in range(seeds):
        took = [
            run_with_jumping_time(
                work(Gateway(share, seed, **gateway), lane, calls=calls, at_once=at_once)
            )
            for lane in (None, lane_of())
        ]
        found.append(took[1] / took[0])
    return sorted(found)


@pytest.mark.parametrize(
    ("share", "calls", "at_once", "rejecting", "service"),
    [
        (0.2, 60, 4, 0.02, 0.02),
        (0.2, 60, 4, 0.001, 0.02),
        (0.1, 400, 16, 0.02, 0.02),
        (0.1, 400, 16, 0.05, 0.5),
        (0.2, 200, 8, 0.05, 2.0),  # answers take longer than cool-downs
        (0.05, 200, 4, 0.02, 0.02),
    ],
)
def test_random_rejections_are_waits_of_their_own_calls(share, calls, at_once, rejecting, service):
    found = slower(
        share, calls=calls, at_once=at_once, seeds=16, rejecting=rejecting, service=service
    )
    assert statistics.median(found) < 1.5
    assert found[-1] < 4.0  # before, it was ten times and more


@jumping_time
async def test_what_was_lowered_by_mistake_is_raised_again():
    gateway, lane = Gateway(0.2, 3), lane_of(requests_per_minute=60_000)
    await work(gateway, lane, calls=300, at_once=8)
    shown = lane.snapshot()
    assert shown.believed == 1.0
    assert shown.paused_for == 0.0


class Limited:
    """A server of a strict sliding window that says when there is room again."""

    def __init__(self, limit, window):
        self.limit, self.window = limit, window
        self.taken = deque()
        self.rejected = []

    async def call(self):
        await asyncio.sleep(0.002)
        now = asyncio.get_running_loop().time()
        while self.taken and self.taken[0] <= now - self.window:
            self.taken.popleft()
        if len(self.taken) >= self.limit:
            self.rejected.append(now)
            return max(self.taken[0] + self.window - now, 0.01)
        self.taken.append(now)
        await asyncio.sleep(0.02)
        return None


@jumping_time
async def test_a_limited_server_sees_no_call_during_the_first_cool_down():
    server, lane = Limited(100, 60.0), lane_of()
    task = asyncio.create_task(work(server, lane, calls=150, at_once=32))
    while not server.rejected:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.1)  # those that were on their way are over
    seen = len(server.rejected)
    await asyncio.sleep(50)
    assert len(server.rejected) == seen <= 32
    await task


def test_a_limited_server_of_unknown_rate_is_hardly_probed():
    async def main():
        server = Limited(300, 60.0)
        await work(server, lane_of(), calls=1500, at_once=32)
        return len(server.rejected)

    assert run_with_jumping_time(main()) < 100  # of 1,500; 63 in fact


@jumping_time
async def test_what_headers_call_used_up_is_never_probed():
    lane = lane_of()
    for _ in range(5):
        permit = await lane.admit(1)
        lane.observe_rejection(2.0)  # no permit: it is certain
        permit.release(outcome="error")
        assert lane.snapshot().paused_for == pytest.approx(2.0)
        assert lane.try_admit(1) is None
        await asyncio.sleep(1.9)
        assert lane.try_admit(1) is None
        await asyncio.sleep(0.2)


@jumping_time
async def test_a_rejection_that_our_own_count_explains_is_a_limit():
    lane = lane_of(requests_per_minute=10, window=1.0)
    for _ in range(3):
        for _ in range(10):
            permit = await lane.admit(1)
            permit.release()
        lane.observe_rejection(1.0, permit)
        await asyncio.sleep(0.9)
        assert lane.try_admit(1) is None


@pytest.mark.parametrize("rejected", [0.2, 3.0, 30.0])
@pytest.mark.parametrize("named", [None, 1.0])
@pytest.mark.parametrize("limits", [{}, {"requests_per_minute": 1200}])
def test_after_a_storm_the_rate_is_back_within_ten_seconds(rejected, named, limits):
    """Everything is rejected for a while; then the server takes 20 calls per second again."""

    async def main():
        lane, loop = lane_of(**limits), asyncio.get_running_loop()
        ends, answered, last = 60.0 + rejected, [], [0.0]

        async def caller():
            while loop.time() < ends + 20:
                permit = await lane.admit(1)
                await asyncio.sleep(0.05)
                now = loop.time()
                if 60 <= now < ends:
                    lane.observe_rejection(named, permit)
                    permit.release(outcome="error" if named else "rejected")
                    await asyncio.sleep(named or 0.5)
                    continue
                answered.append(now)
                permit.release()
                if not limits:  # the server's own queue
                    last[0] = max(last[0] + 1 / 20, now)
                    await asyncio.sleep(last[0] - now)

        await asyncio.gather(*(caller() for _ in range(40)))
        return sum(ends + 10 <= at < ends + 20 for at in answered) / 200

    assert run_with_jumping_time(main()) >= 0.9


def test_evidence_of_long_ago_is_forgotten():
    evidence = RandomRejections()
    evidence.presumed(0.0, 1.0)
    evidence.begin(0.0, -0.1, 1.0)
    for _ in range(4):
        evidence.answered(0.5, -0.05)
    assert evidence.presumed(1.0, 1.0)
    assert not evidence.presumed(2.0, 30.0)  # far longer than what was random
    assert evidence.is_old(1000.0)
    assert not evidence.presumed(1000.0, 1.0)
