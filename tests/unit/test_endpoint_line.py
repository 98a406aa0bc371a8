"""The line of calls that wait for any endpoint: who is next, and what becomes of those that leave."""

import asyncio
from types import SimpleNamespace

import pytest

from konko_async import ConfigurationError, RateLimit, RateLimitStoreError, RateLimitTimeoutError
from konko_async._balance.line import EndpointLine
from konko_async.limits import Limiter
from konko_async.testing import jumping_time


class Node:
    """An endpoint as far as the line knows it: its limits."""

    def __init__(self, **limits):
        self.limits = Limiter(RateLimit(**limits)).lane("m", "key")

    def lane(self, model):
        assert model == "m"
        return self.limits


class AwayLane:
    """Limits whose store is away."""

    async def admit(self, _tokens, priority):
        await asyncio.sleep(1)
        raise RateLimitStoreError(f"the store is away, for {priority} too")

    def outlook(self, _tokens):
        return 0.0, None


def request(*, tried=(), deadline=None, priority="interactive"):
    return SimpleNamespace(
        priority=priority, call=SimpleNamespace(deadline=deadline, tried=tried), model="m"
    )


def full(**limits):
    """An endpoint with one slot, and the permit that holds it."""
    node = Node(max_concurrency=1, **limits)
    return node, node.limits.try_admit(1)


async def settled():
    for _ in range(10):
        await asyncio.sleep(0)


def waiting(line, tokens=1, **about):
    return asyncio.create_task(line.wait(request(**about), tokens))


@jumping_time
async def test_a_slot_goes_to_the_first_that_has_not_failed_there():
    (bad, held), (good, other) = full(), full()
    line = EndpointLine("m", lambda: [bad, good])
    first, second = waiting(line, tried=(bad,)), waiting(line)
    await settled()
    held.release()
    node, _, permit = await second
    assert node is bad
    assert not first.done()
    other.release()
    assert (await first)[0] is good
    permit.release()


@jumping_time
async def test_who_has_failed_everywhere_is_served_all_the_same():
    node, held = full()
    line = EndpointLine("m", lambda: [node])
    task = waiting(line, tried=(node,))
    await settled()
    held.release()
    assert (await task)[0] is node


@jumping_time
async def test_a_larger_call_waits_for_what_it_needs():
    """A permit that was asked for in the name of a smaller call is too small for the next one."""
    node = Node(max_concurrency=1, tokens_per_minute=600)
    held = node.limits.try_admit(1)
    line = EndpointLine("m", lambda: [node])
    small, large = waiting(line, 1), waiting(line, 500)
    await settled()
    small.cancel()
    await settled()
    held.release()
    granted, _, permit = await large
    assert granted is node
    assert permit.tokens == 500
    assert node.limits.snapshot().in_flight == 1
    permit.release()
    assert node.limits.snapshot().in_flight == 0


@jumping_time
async def test_what_is_granted_to_who_has_just_left_goes_to_the_next():
    node, held = full()
    line = EndpointLine("m", lambda: [node])
    first, second = waiting(line), waiting(line)
    await settled()
    held.release()
    first.cancel()
    assert (await second)[0] is node
    assert first.cancelled() or (await asyncio.gather(first, return_exceptions=True))
    assert node.limits.snapshot().in_flight == 1


@jumping_time
async def test_what_is_granted_to_nobody_any_more_is_given_back():
    for steps in range(6):
        node, held = full()
        line = EndpointLine("m", lambda node=node: [node])
        task = waiting(line)
        await settled()
        held.release()
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        [found] = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(found, asyncio.CancelledError):
            found[2].release()
        await settled()
        assert node.limits.snapshot().in_flight == 0
        assert line.waiting.total == 0


@jumping_time
async def test_a_store_that_is_away_fails_the_one_who_is_next():
    node = Node()
    node.limits = AwayLane()
    line = EndpointLine("m", lambda: [node])
    first, second = waiting(line), waiting(line, priority="batch")
    for task, priority in ((first, "interactive"), (second, "batch")):
        # The next one is asked for once the first has been refused.
        with pytest.raises(RateLimitStoreError, match=f"for {priority} too"):
            await task
        line.seek()


@jumping_time
async def test_who_waits_for_what_is_removed_is_failed_at_once():
    node, held = full()
    line = EndpointLine("m", lambda: [node])
    tasks = [waiting(line) for _ in range(3)]
    await settled()
    line.fail(ConfigurationError("no endpoint serves 'm'"))
    for task in tasks:
        with pytest.raises(ConfigurationError, match="no endpoint serves"):
            await task
    held.release()
    await settled()
    assert node.limits.snapshot().in_flight == 0


@jumping_time
async def test_who_cannot_be_served_in_time_is_refused_now_or_when_the_time_is_over():
    loop = asyncio.get_running_loop()
    node = Node(requests_per_minute=1)
    line = EndpointLine("m", lambda: [node])
    node.limits.try_admit(1).release()
    with pytest.raises(RateLimitTimeoutError, match=r"the limit on requests of m .* about 60"):
        await line.wait(request(deadline=loop.time() + 5), 1)
    assert line.waiting.total == 0
    # A slot may come free at any moment, so nobody is refused before the time is over.
    node, held = full()
    line, began = EndpointLine("m", lambda: [node]), loop.time()
    with pytest.raises(
        RateLimitTimeoutError, match=r"the limit on calls in flight of m .* unknown"
    ):
        await line.wait(request(deadline=began + 5), 1)
    assert loop.time() == pytest.approx(began + 5, abs=0.1)
    held.release()
    await settled()
    assert node.limits.snapshot().in_flight == 0


@pytest.mark.parametrize("early", [0.0, 1e-10])
@jumping_time
async def test_a_store_that_is_away_when_the_last_one_has_just_been_refused(early):
    loop = asyncio.get_running_loop()
    node = Node()
    node.limits = AwayLane()
    line = EndpointLine("m", lambda: [node])
    with pytest.raises((RateLimitStoreError, RateLimitTimeoutError)):
        await line.wait(request(deadline=loop.time() + 1 + early), 1)
    assert line.waiting.total == 0
    line.forget(node)  # which nobody waits for


@jumping_time
async def test_who_is_cancelled_when_the_time_is_over_is_cancelled():
    loop = asyncio.get_running_loop()
    node, held = full()
    line, deadline = EndpointLine("m", lambda: [node]), loop.time() + 5
    task = waiting(line, deadline=deadline)
    loop.call_at(deadline - 1e-10, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert line.waiting.total == 0
    held.release()


@pytest.mark.parametrize("endpoints", [1, 3])
@jumping_time
async def test_all_who_wait_are_served_in_their_order(endpoints):
    """Also with the odd one that leaves: one that was granted gives it back."""
    nodes = [Node(max_concurrency=2, tokens_per_minute=6000) for _ in range(endpoints)]
    line, order = EndpointLine("m", lambda: nodes), []

    async def call(number):
        _, _, permit = await line.wait(request(), 1 + number % 7 * 10)
        order.append(number)
        try:
            await asyncio.sleep(0.01)
        finally:
            permit.release()

    tasks = [asyncio.create_task(call(number)) for number in range(60)]
    for number, task in enumerate(tasks):
        if number % 5 == 3:
            asyncio.get_running_loop().call_later(0.003 * number, task.cancel)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == sorted(order)
    assert set(range(60)) - set(order) <= set(range(3, 60, 5))
    await settled()
    assert all(node.limits.snapshot().in_flight == 0 for node in nodes)
