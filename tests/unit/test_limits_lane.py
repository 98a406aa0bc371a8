"""The lane: one step, first in first out, nothing lost."""

import asyncio
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async import ConfigurationError, RateLimit, RateLimitTimeoutError
from konko_async.limits import Limiter
from konko_async.testing import TimeJumpingLoop, jumping_time, run_with_jumping_time


def now():
    return asyncio.get_running_loop().time()


def make_lane(**settings):
    return Limiter(RateLimit(**settings)).lane("model", "key")


async def settled(turns=5):
    for _ in range(turns):
        await asyncio.sleep(0)


def exhaust(lane):
    """Take what may leave at once."""
    while (permit := lane.try_admit(1)) is not None:
        permit.release()


async def hold(lane, seconds, order=None, name=None, *, tokens=1, priority="interactive"):
    permit = await lane.admit(tokens, priority)
    if order is not None:
        order.append(name)
    await asyncio.sleep(seconds)
    permit.release()


# --- places


@jumping_time
async def test_a_free_lane_admits_at_once():
    lane = make_lane()
    permit = await lane.admit(100)
    assert permit.waited == 0
    assert "in flight" in repr(permit)
    permit.settle(50)
    permit.release()
    assert "released" in repr(permit)
    assert "0 in flight" in repr(lane)


@jumping_time
async def test_a_place_goes_to_who_waited_longest():
    lane = make_lane(max_concurrency=2)
    first, second = lane.try_admit(1), lane.try_admit(1)
    assert lane.try_admit(1) is None
    order = []
    tasks = [asyncio.create_task(hold(lane, 1, order, name)) for name in range(6)]
    await settled()
    first.release()
    first.release()
    first.release(outcome="error")
    assert lane.try_admit(1) is None  # nobody overtakes
    second.release()
    await asyncio.gather(*tasks)
    assert order == list(range(6))
    assert now() == 3
    assert lane.snapshot().in_flight == 0


@jumping_time
async def test_who_waits_for_a_place_takes_nothing_of_the_window():
    """Else calls would bunch: the window's requests spent by callers that are not sending."""
    lane = make_lane(max_concurrency=1, requests_per_minute=60, tokens_per_minute=6000)
    held = lane.try_admit(10)
    tasks = [asyncio.create_task(hold(lane, 0, tokens=10)) for _ in range(5)]
    await asyncio.sleep(30)
    assert lane.snapshot().requests.used == 1
    assert lane.snapshot().tokens.used == 10
    held.release()
    await asyncio.gather(*tasks)
    assert now() > 30 + 3


@jumping_time
async def test_settle_and_refund_happen_once():
    lane = make_lane(requests_per_minute=60, tokens_per_minute=6000)
    permit = lane.try_admit(50)
    permit.settle(None)
    permit.settle(10)
    permit.refund()
    assert lane.snapshot().tokens.used == 50
    permit.release()
    await asyncio.sleep(2)
    permit = lane.try_admit(50)
    permit.refund()
    permit.refund()
    permit.settle(500)
    assert lane.snapshot().tokens.used == 50
    assert lane.snapshot().requests.used == 1
    permit.release()
    free = make_lane()
    permit = free.try_admit(50)
    permit.refund()
    assert free.snapshot().requests.used == 0
    permit.release()


@jumping_time
async def test_tokens_given_back_wake_who_waits_for_them():
    lane = make_lane(tokens_per_minute=60_000)
    permit = lane.try_admit(30_000)
    task = asyncio.create_task(lane.admit(10_000))
    await asyncio.sleep(1)
    assert not task.done()
    permit.settle(100)
    await settled()
    assert task.done()
    assert task.result().waited == 1
    another = asyncio.create_task(lane.admit(10_000))
    await asyncio.sleep(1)
    task.result().refund()
    await settled()
    assert another.done()


# --- order


@jumping_time
async def test_tokens_are_first_in_first_out_whatever_the_size():
    lane, order = make_lane(tokens_per_minute=60_000), []
    sizes = [500, 30_000, 10, 100_000, 5, 5]
    await asyncio.gather(
        *(hold(lane, 0, order, index, tokens=size) for index, size in enumerate(sizes))
    )
    assert order == list(range(6))


@jumping_time
async def test_a_batch_gets_a_fifth_while_both_wait():
    lane, order = make_lane(requests_per_minute=600), []
    exhaust(lane)
    tasks = [asyncio.create_task(hold(lane, 0, order, "b", priority="batch")) for _ in range(20)]
    tasks += [asyncio.create_task(hold(lane, 0, order, "i")) for _ in range(60)]
    await asyncio.gather(*tasks)
    contended = "".join(order)[:75]
    assert all("b" in contended[i : i + 5] for i in range(70))
    assert contended.count("b") == 15


@jumping_time
async def test_newcomers_do_not_starve_a_batch_that_waits_for_tokens():
    lane, order = make_lane(tokens_per_minute=600_000), []
    lane.try_admit(6000).release()
    batch = asyncio.create_task(hold(lane, 0, order, "b", tokens=60_000, priority="batch"))
    for index in range(200):
        if batch.done():
            break
        await asyncio.sleep(0.01)
        await hold(lane, 0, order, index, tokens=100)
    assert batch.done()
    assert order.index("b") <= 5
    await batch


@jumping_time
async def test_people_wait_little_under_a_saturating_batch():
    lane, waits, stop = make_lane(requests_per_minute=600, tokens_per_minute=600_000), [], []

    async def batch():
        while not stop:
            permit = await lane.admit(900, "batch")
            await asyncio.sleep(0.5)
            permit.settle(600)
            permit.release()

    tasks = [asyncio.create_task(batch()) for _ in range(50)]
    chance = random.Random(1)
    for _ in range(300):
        await asyncio.sleep(chance.expovariate(1.0))
        permit = await lane.admit(900)
        waits.append(permit.waited)
        permit.release()
    stop.append(True)
    await asyncio.gather(*tasks)
    assert sorted(waits)[297] < 0.3
    assert len(tasks) == 50


@jumping_time
async def test_a_place_is_kept_free_for_people_while_there_are_any():
    lane = make_lane(max_concurrency=8)
    first = await lane.admit(1)
    tasks = [asyncio.create_task(hold(lane, 5, priority="batch")) for _ in range(40)]
    await settled()
    assert lane.snapshot().in_flight == 7
    first.release()
    await settled()
    assert lane.snapshot().in_flight == 7
    permit = await lane.admit(1)
    assert permit.waited == 0
    permit.release()
    await asyncio.sleep(11)  # nobody asked for ten seconds: the batch takes all
    assert lane.snapshot().in_flight == 8
    await asyncio.gather(*tasks)


# --- deadlines


@jumping_time
async def test_a_deadline_that_cannot_be_met_fails_at_once():
    lane = make_lane(requests_per_minute=60)
    await lane.admit(1)
    with pytest.raises(RateLimitTimeoutError, match="limit on requests of model") as caught:
        await lane.admit(1, deadline=now() + 0.5)
    assert 0.6 < caught.value.would_have_waited < 1.1
    tasks = [asyncio.create_task(lane.admit(1)) for _ in range(10)]
    await settled()
    with pytest.raises(RateLimitTimeoutError) as caught:
        await lane.admit(1, deadline=now() + 9)
    assert 10 < caught.value.would_have_waited < 11.5
    assert now() == 0
    in_time = await lane.admit(1, deadline=now() + 11.5)
    assert 10 < in_time.waited < 11.5
    await asyncio.gather(*tasks)


@jumping_time
async def test_deadlines_on_tokens_and_in_a_pause():
    lane = make_lane(tokens_per_minute=60_000)
    lane.try_admit(30_000)
    with pytest.raises(RateLimitTimeoutError, match="limit on tokens") as caught:
        await lane.admit(100, deadline=now() + 5)
    assert 29 < caught.value.would_have_waited < 32
    lane = make_lane()
    lane.observe_rejection(8.0)
    with pytest.raises(RateLimitTimeoutError, match="the pause after a rejection") as caught:
        await lane.admit(1, deadline=now() + 5)
    assert caught.value.would_have_waited == 8
    assert now() == 0


@jumping_time
async def test_a_batch_call_counts_the_people_before_it():
    lane = make_lane(requests_per_minute=60)
    lane.try_admit(1)
    tasks = [asyncio.create_task(lane.admit(1)) for _ in range(30)]
    await settled()
    with pytest.raises(RateLimitTimeoutError) as caught:
        await lane.admit(1, "batch", deadline=now() + 1)
    assert 4 < caught.value.would_have_waited < 6  # its turn comes after four of them
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@jumping_time
async def test_who_waits_for_a_place_fails_at_the_deadline():
    lane = make_lane(max_concurrency=1)
    held = lane.try_admit(1)
    with pytest.raises(RateLimitTimeoutError, match=r"calls in flight.*unknown time") as caught:
        await lane.admit(1, deadline=now() + 3)
    assert now() == 3
    assert caught.value.would_have_waited == float("inf")
    held.release()
    # Where places do become free, it says about how long it would have been.
    tasks = [asyncio.create_task(hold(lane, 1)) for _ in range(10)]
    await settled()
    with pytest.raises(RateLimitTimeoutError, match="calls in flight") as caught:
        await lane.admit(1, deadline=now() + 4.5)
    assert now() == 7.5
    assert 9 < caught.value.would_have_waited < 14
    await asyncio.gather(*tasks)


@jumping_time
async def test_a_pause_refuses_those_it_makes_hopeless():
    lane = make_lane(requests_per_minute=600)
    exhaust(lane)
    tasks = [
        asyncio.create_task(lane.admit(1, deadline=now() + patience))
        for patience in (2, 60, 3, 2, 60)
    ]
    await settled()
    lane.observe_rejection(30.0)
    await settled()
    assert [task.done() for task in tasks] == [True, False, True, True, False]
    assert all("pause" in str(task.exception()) for task in tasks if task.done())
    assert now() == 0
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 30 <= now() < 31


@jumping_time
async def test_a_lower_limit_refuses_the_head_that_will_not_make_it():
    lane = make_lane(requests_per_minute=600)
    exhaust(lane)
    task = asyncio.create_task(lane.admit(1, deadline=now() + 0.2))
    await settled()
    lane.observe_headers({"x-ratelimit-limit-requests": "2"})
    await settled()
    assert isinstance(task.exception(), RateLimitTimeoutError)
    assert now() == 0


@jumping_time
async def test_deadlines_of_thousands_are_kept_by_one_timer():
    lane, chance = make_lane(max_concurrency=1), random.Random(5)
    held = lane.try_admit(1)
    failed_at = {}

    async def call(index, patience):
        with pytest.raises(RateLimitTimeoutError):
            await lane.admit(1, deadline=patience)
        failed_at[index] = now()

    patience = [chance.uniform(1, 100) for _ in range(2000)]
    tasks = [asyncio.create_task(call(*each)) for each in enumerate(patience)]
    await settled()
    assert len(asyncio.get_running_loop()._scheduled) < 20
    await asyncio.gather(*tasks)
    assert all(failed_at[i] == pytest.approx(at, abs=1e-5) for i, at in enumerate(patience))
    held.release()
    assert lane._timer is None


# --- cancellation


@jumping_time
async def test_a_cancelled_waiter_leaves_nothing():
    lane = make_lane(max_concurrency=1)
    held = lane.try_admit(1)
    tasks = [asyncio.create_task(lane.admit(1)) for _ in range(3)]
    await settled()
    tasks[0].cancel()
    held.release()  # the first is cancelled, though its task has not run yet
    await settled()
    assert tasks[0].cancelled()
    assert tasks[1].done()
    tasks[1].result().release()
    (await tasks[2]).release()
    assert lane.snapshot().in_flight == 0


@jumping_time
async def test_cancelled_after_it_was_granted_gives_everything_back():
    lane = make_lane(max_concurrency=1, requests_per_minute=600, tokens_per_minute=60_000)
    held = lane.try_admit(100)
    await asyncio.sleep(5)
    tasks = [asyncio.create_task(lane.admit(100)) for _ in range(2)]
    await settled()
    held.release()  # grants the first
    tasks[0].cancel()  # which never sees it
    await settled()
    assert tasks[0].cancelled()
    (await tasks[1]).release()
    shown = lane.snapshot()
    assert (shown.in_flight, shown.requests.used, shown.tokens.used) == (0, 2, 200)


@jumping_time
async def test_cancelled_together_with_a_refusal():
    lane = make_lane(max_concurrency=1)
    held = lane.try_admit(1)
    task = asyncio.create_task(lane.admit(1, deadline=5))
    await settled()
    lane.observe_rejection(30.0)  # refuses it
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    held.release()


@jumping_time
async def test_the_head_that_leaves_lets_the_next_one_go():
    lane = make_lane(tokens_per_minute=60_000)
    lane.try_admit(100)
    big = asyncio.create_task(lane.admit(50_000))
    small = asyncio.create_task(lane.admit(100))
    await settled()
    assert not small.done()
    big.cancel()
    await settled()
    assert small.done()
    await asyncio.gather(big, return_exceptions=True)


@pytest.mark.parametrize("order", ["first", "last", "random"])
@jumping_time
async def test_a_storm_of_ten_thousand_cancellations(order):
    lane = make_lane(max_concurrency=3, tokens_per_minute=1e9)
    held = [lane.try_admit(1) for _ in range(3)]
    tasks = [asyncio.create_task(lane.admit(1)) for _ in range(10_000)]
    await settled()
    assert lane.snapshot().waiting.interactive == 10_000
    doomed = tasks[:9990]
    if order == "last":
        doomed.reverse()
    elif order == "random":
        random.Random(1).shuffle(doomed)
    for task in doomed:
        task.cancel()
    await settled()
    assert lane.snapshot().waiting.interactive == 10
    for permit in held:
        permit.release()
    await settled()
    assert [task.done() for task in tasks[9990:]] == [True] * 3 + [False] * 7
    for task in tasks[9990:]:
        (await task).release()
    assert lane.snapshot().in_flight == 0


@jumping_time
async def test_callers_that_give_up_again_and_again_cost_no_memory():
    lane = make_lane()
    lane.observe_rejection(100.0)
    patient = asyncio.create_task(lane.admit(1))
    for _ in range(2000):
        task = asyncio.create_task(lane.admit(1, deadline=200))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(lane._queue.interactive._waiters) < 200
    assert len(lane._queue.deadlines.heap) < 200
    await patient


# --- anything at all

operation = st.one_of(
    st.tuples(st.just("call"), st.sampled_from(["interactive", "batch"]), st.integers(0, 300)),
    st.tuples(st.just("call"), st.sampled_from(["interactive", "batch"]), st.integers(0, 300)),
    st.tuples(st.just("hurried"), st.floats(0, 5), st.integers(0, 300)),
    st.tuples(st.just("cancel"), st.integers(0, 100), st.none()),
    st.tuples(st.just("finish"), st.integers(0, 100), st.floats(0, 1)),
    st.tuples(st.just("refund"), st.integers(0, 100), st.none()),
    st.tuples(st.just("sleep"), st.floats(0, 3), st.none()),
    st.tuples(st.just("reject"), st.sampled_from([None, 0.5, 3.0]), st.none()),
    st.tuples(st.just("yield"), st.none(), st.none()),
)


class World:
    """A lane, those who use it, and what must be true of them."""

    def __init__(self, places, limits):
        self.places = places
        settings = {"requests_per_minute": 40, "tokens_per_minute": 2000} if limits else {}
        self.lane = make_lane(max_concurrency=places, window=10.0, **settings)
        self.limits = limits
        self.tasks, self.held, self.sent, self.granted = [], [], [], []

    async def call(self, number, priority, tokens, deadline):
        try:
            permit = await self.lane.admit(tokens, priority, deadline)
        except RateLimitTimeoutError:
            return
        entry = [permit.admitted_at, 1, tokens]
        self.sent.append(entry)
        self.held.append((permit, entry))
        self.granted.append((priority, number, permit.admitted_at))

    async def step(self, what, first, second):
        if what in {"call", "hurried"}:
            priority = first if what == "call" else "interactive"
            deadline = None if what == "call" else now() + first
            self.tasks.append(
                asyncio.create_task(self.call(len(self.tasks), priority, second, deadline))
            )
        elif what == "cancel" and self.tasks:
            self.tasks[first % len(self.tasks)].cancel()
        elif what == "finish" and self.held:
            permit, entry = self.held.pop(first % len(self.held))
            entry[2] = int(permit.tokens * second)
            permit.settle(entry[2])
            permit.release()
        elif what == "refund" and self.held:
            permit, entry = self.held.pop(first % len(self.held))
            entry[1] = entry[2] = 0
            permit.refund()
            permit.release(outcome="error")
        elif what == "sleep":
            await asyncio.sleep(first)
        elif what == "reject":
            self.lane.observe_rejection(first)
        elif what == "yield":
            await settled(3)

    def check(self):
        for priority in ("interactive", "batch"):
            # By when they were admitted: their tasks may run in another order.
            times = [at for its, _, at in sorted(self.granted) if its == priority]
            assert times == sorted(times)
        if self.limits:
            for at, _, _ in self.sent:
                inside = [entry for entry in self.sent if at - 10 < entry[0] <= at]
                assert sum(entry[1] for entry in inside) <= 40
                assert sum(entry[2] for entry in inside) <= 2000

    async def end(self):
        """Whoever still waits is served in the end, and everything is free then."""
        while not all(task.done() for task in self.tasks):
            await settled()
            for permit, _ in self.held:
                permit.release()
            self.held.clear()
            await asyncio.sleep(1)
        for permit, _ in self.held:
            permit.release()
        shown = self.lane.snapshot()
        assert shown.in_flight == 0
        assert (shown.waiting.interactive, shown.waiting.batch) == (0, 0)
        assert self.lane._timer is None
        await asyncio.gather(*self.tasks, return_exceptions=True)


@given(st.sampled_from([1, 3, None, "auto"]), st.booleans(), st.lists(operation, max_size=80))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_nothing_is_lost_or_overtaken(places, limits, operations):
    async def live():
        world = World(places, limits)
        for each in operations:
            await world.step(*each)
            shown = world.lane.snapshot()
            assert shown.in_flight >= len(world.held)
            assert places in {None, "auto"} or shown.in_flight <= places
        world.check()
        await world.end()
        world.check()

    run_with_jumping_time(live())


# --- loops, threads, finalisers


def test_a_second_loop_goes_on_with_what_was_spent():
    lane, permits = make_lane(requests_per_minute=10, max_concurrency=2), []

    async def first():
        permits.append(await lane.admit(1))
        await asyncio.sleep(3)

    async def second():
        assert lane.snapshot().in_flight == 0  # what the first loop left went with it
        assert lane.try_admit(1) is None  # but the window is not empty
        permit = await lane.admit(1)
        assert 2.5 < permit.waited < 3.5
        permits[0].release()
        assert lane.snapshot().in_flight == 1
        permit.release()

    run_with_jumping_time(first())
    run_with_jumping_time(second())


def test_real_loops_one_after_another_without_a_warning():
    lane = make_lane(requests_per_minute=1e9)

    async def use():
        permit = await lane.admit(1)
        permit.release()
        return lane.snapshot().requests.used

    assert [asyncio.run(use()) for _ in range(3)] == [1, 2, 3]


def test_who_waited_on_a_closed_loop_is_forgotten():
    lane = make_lane(max_concurrency=1)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(lane.admit(1))
    with pytest.raises(TimeoutError):
        loop.run_until_complete(asyncio.wait_for(lane.admit(1), 0.001))
    waiting = loop.create_task(lane.admit(1))
    loop.run_until_complete(asyncio.sleep(0))
    waiting._log_destroy_pending = False  # it is what this test is about
    loop.close()

    async def use():
        (await lane.admit(1)).release()

    run_with_jumping_time(use())


def test_two_running_loops_are_an_error():
    lane, errors = make_lane(), []

    def elsewhere():
        async def use():
            lane.try_admit(1)

        try:
            asyncio.run(use())
        except ConfigurationError as error:
            errors.append(str(error))

    async def here():
        lane.try_admit(1).release()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    asyncio.run(here())
    assert "one client per loop" in errors[0]


def test_it_needs_a_loop_only_to_admit():
    limiter = Limiter(
        RateLimit(requests_per_minute=100, tokens_per_minute=10, max_concurrency="auto")
    )
    lane = limiter.lane("model", "key")
    lane.observe_headers({"x-ratelimit-limit-requests": "50"})
    lane.observe_rejection(1.0)
    assert limiter.snapshot().models["model"].requests.learned == 50
    with pytest.raises(RuntimeError):
        lane.try_admit(1)


def test_a_permit_may_be_released_at_any_point():
    """A finaliser can run inside of the lane's own step, and on a loop that is closed."""

    class Loop(TimeJumpingLoop):
        doomed = None

        def time(self):
            doomed, self.doomed = self.doomed, None
            if doomed is not None:
                doomed.release()
            return super().time()

    lane, kept = make_lane(max_concurrency=2), []

    async def live():
        loop = asyncio.get_running_loop()
        first, second = lane.try_admit(1), lane.try_admit(1)
        kept.append(lane)
        tasks = [asyncio.create_task(lane.admit(1)) for _ in range(4)]
        await settled()
        loop.doomed = second
        first.release()
        await settled()
        assert sorted(task.done() for task in tasks) == [False, False, True, True]
        assert [task.done() for task in tasks[:2]] == [True, True]
        for task in tasks:
            kept.append(await task)
            kept[-1].release()
        kept.append(lane.try_admit(1))

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(live())
    kept[-1].settle(5)
    kept[-1].release()
    assert lane.snapshot().in_flight == 0


@jumping_time
async def test_a_batch_call_waits_for_a_place_although_one_is_reserved():
    lane = make_lane(max_concurrency=4)
    (await lane.admit()).release()
    held = [await lane.admit(priority="batch") for _ in range(3)]
    start = now()
    # The fourth place is kept for people for longer than this call can wait; the others are not.
    waiting = asyncio.create_task(lane.admit(priority="batch", deadline=start + 5))
    asyncio.get_running_loop().call_later(1, held.pop().release)
    permit = await waiting
    assert now() == pytest.approx(start + 1)
    with pytest.raises(RateLimitTimeoutError, match="in flight"):
        await lane.admit(priority="batch", deadline=start + 5)
    assert now() == pytest.approx(start + 5)
    for one in (permit, *held):
        one.release()


@jumping_time
async def test_a_refused_call_gives_its_tokens_back_once():
    lane = make_lane(tokens_per_minute=600)
    permit = lane.try_admit(600)
    permit.settle_refused()
    permit.settle_refused()
    permit.settle(0)
    permit.release()
    assert lane.try_admit(600) is not None
    assert lane.try_admit(100) is None


@jumping_time
async def test_a_cool_down_says_how_long_it_is():
    lane = make_lane()
    assert lane.paused_for == 0
    lane.observe_rejection(5.0, lane.try_admit(1))
    assert 0 < lane.paused_for <= 30
    await asyncio.sleep(lane.paused_for + 1)
    assert lane.paused_for == 0


@jumping_time
async def test_deadlines_of_those_that_have_left_cost_no_memory():
    lane = make_lane(max_concurrency=1)
    held = lane.try_admit(1)
    # The soonest: those behind it are not met on the way.
    waiting = asyncio.create_task(lane.admit(1, "interactive", now() + 100))
    await settled()
    for _ in range(20):
        tasks = [
            asyncio.create_task(lane.admit(1, "interactive", now() + 5000 + n)) for n in range(100)
        ]
        await settled()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(lane._queue.deadlines.heap) < 500
    held.release()
    (await waiting).release()
