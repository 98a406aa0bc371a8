"""Limits that a store keeps for several processes, as one process sees them; see tests/redis too."""

import asyncio

import msgspec
import pytest

from konko_async import RateLimit, RateLimitStoreError
from konko_async.limits import Limiter, Reported, StoreReply
from konko_async.limits._shared.pending_updates import PendingUpdates
from konko_async.limits._throttle import Throttle
from konko_async.testing import jumping_time

NOTHING = StoreReply(
    epoch="1", slot=7, wait=-1, paused=0, strikes=0, episode=-1, used_requests=0, used_tokens=0,
    learned_requests=0, learned_tokens=0, share=1_000_000, processes=1, granted=[], standing=[],
)  # fmt: skip


class Store:
    """Grants what is asked for at once, and notes what it was told; or is away."""

    def __init__(self):
        self.turns, self.away, self.reply = [], False, NOTHING

    async def exchange(self, _lane, turn):
        await asyncio.sleep(0.001)
        if self.away:
            raise RateLimitStoreError("away")
        self.turns.append(turn)
        granted = [(ticket, tokens) for ticket, tokens in (*turn.interactive, *turn.batch)]
        return msgspec.structs.replace(self.reply, granted=granted)

    async def close(self):
        """Holds nothing."""


def pending(**limits):
    updates = PendingUpdates(RateLimit(**limits))
    updates.answered(0.0, NOTHING, 0.001)
    return updates


def test_of_headers_that_overtook_each_other_the_lowest_figure_stays():
    updates, throttle = (
        pending(requests_per_minute=600),
        Throttle(RateLimit(requests_per_minute=600)),
    )
    for remaining in (5.0, 90.0, None, 3.0, 80.0):
        updates.report(0.0, (Reported(100.0, remaining, 9.0), None), throttle)
    [(kind, (limit, left, _))] = updates.turn(0.0, "me").reported
    assert (kind, limit, left) == ("r", 100.0, 3.0)


def test_what_was_lost_is_reported_again():
    updates = pending(requests_per_minute=600)
    throttle = Throttle(RateLimit(requests_per_minute=600))
    updates.report(0.0, (Reported(100.0, 5.0, 9.0), None), throttle)
    updates.settle(0.0, "1", 7, -1, 250)
    updates.reject(2.5, patient=False)
    lost = updates.turn(0.0, "me")
    assert (lost.settled, lost.rejected) == ([(7, -1, 250)], [(2_500_000, False)])
    updates.lost(lost)
    updates.settle(0.0, "1", 7, 1, 50)
    again = updates.turn(0.0, "me")
    assert again.reset
    # Given back twice would be too much; used twice is only careful.
    assert again.settled == [(7, 1, 300)]
    assert (again.rejected, again.reported) == (lost.rejected, lost.reported)


@pytest.mark.parametrize("wait", [None, 0.0, -3.0, float("inf"), float("nan")])
def test_a_rejection_without_a_usable_delay_is_one_all_the_same(wait):
    updates = pending()
    updates.reject(wait, patient=True)
    assert updates.turn(0.0, "me").rejected == [(-1, True)]


def test_a_store_that_has_lost_its_memory_is_told_what_was_learned():
    updates = pending()
    known = msgspec.structs.replace(NOTHING, learned_requests=60, learned_tokens=900)
    updates.answered(0.0, known, 0.001)
    assert updates.turn(0.0, "me").reported == []
    updates.answered(1.0, msgspec.structs.replace(NOTHING, epoch="2"), 0.001)
    assert [(kind, said[0]) for kind, said in updates.turn(1.0, "me").reported] == [
        ("r", 60.0), ("t", 900.0)
    ]  # fmt: skip


def lane_of(store, **limits):
    return Limiter(RateLimit(store=store, **limits)).lane("m", "key")


@jumping_time
async def test_a_rejection_of_a_call_is_reported_once_it_cannot_be_chance():
    store = Store()
    lane = lane_of(store, requests_per_minute=600)
    permits = [await lane.admit(1) for _ in range(3)]
    for permit in permits:
        lane.observe_rejection(2.0, permit)
        permit.release(outcome="rejected")
    await asyncio.sleep(1)
    assert [wait for turn in store.turns for wait, _ in turn.rejected][:1] == [2_000_000]
    assert lane.paused_for > 0
    # Nobody leaves before the cool-down is over.
    began = asyncio.get_running_loop().time()
    (await lane.admit(1)).release()
    assert asyncio.get_running_loop().time() - began >= 0.9
    await lane.close()


@jumping_time
async def test_calls_are_corrected_whether_the_store_is_there_or_away():
    store = Store()
    lane = lane_of(store, requests_per_minute=600, tokens_per_minute=60_000)
    (await lane.admit(100)).refund()
    store.away = True
    waiting = asyncio.create_task(lane.admit(100))
    permit = await waiting
    permit.refund()
    permit.release(outcome="cancelled")
    permit = await lane.admit(100)
    permit.settle(10)
    permit.release()
    assert lane.snapshot().in_flight <= 1
    store.away = False
    await asyncio.sleep(5)
    (await lane.admit(1)).release()
    await lane.close()


@jumping_time
async def test_closed_means_that_nobody_leaves_while_the_store_is_away():
    store = Store()
    store.away = True
    lane = lane_of(store, on_store_failure="closed")
    tasks = [asyncio.create_task(lane.admit(1)) for _ in range(3)]
    tasks[1].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], RateLimitStoreError)
    assert isinstance(found[2], RateLimitStoreError)
    with pytest.raises(RateLimitStoreError):
        await lane.admit(1)
    await lane.close()


@jumping_time
async def test_headers_without_a_limit_are_reported_as_they_are():
    store = Store()
    known, free = lane_of(store, requests_per_minute=600), lane_of(store)
    for lane in (known, free):
        (await lane.admit(1)).release()
    store.turns.clear()
    empty = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "5s"}
    # That nothing remains is news with a limit and without one; how much remains is none without.
    free.observe_headers({"x-ratelimit-remaining-requests": "7"})
    for lane in (known, free):
        lane.observe_headers(empty)
        await asyncio.sleep(1)
    said = [report for turn in store.turns for report in turn.reported]
    assert said == [("r", (-1.0, 0.0, 5_000_000.0))] * 2
    for lane in (known, free):
        await lane.close()


@jumping_time
async def test_a_very_low_limit_is_reported_from_the_second_answer_on():
    store = Store()
    lane = lane_of(store, requests_per_minute=600)
    (await lane.admit(1)).release()
    store.turns.clear()
    low = {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "5",
        "x-ratelimit-reset-requests": "59s",
    }
    for _ in range(2):
        lane.observe_headers(low)  # nothing is used: that says nothing of the period
        await asyncio.sleep(1)
    said = [report for turn in store.turns for report in turn.reported]
    assert said == [("r", (-1.0, 5.0, 59_000_000.0)), ("r", (5.0, 5.0, 59_000_000.0))]
    await lane.close()


async def reject(lane, permit, wait=0.5):
    lane.observe_rejection(wait, permit)
    permit.release(outcome="rejected")
    await asyncio.sleep(1)


async def some(lane, count):
    """So many permits, each of a later moment."""
    return [await lane.admit(1) for _ in range(count)]


@jumping_time
async def test_rejections_that_proved_to_be_random_are_not_reported_unless_the_limit_is_used_up():
    store = Store()
    lane = lane_of(store, requests_per_minute=40)

    def reported():
        return sum(len(turn.rejected) for turn in store.turns)

    permits = await some(lane, 8)
    # From now on the store says that an episode goes on: the second rejection belongs to the first.
    store.reply = msgspec.structs.replace(NOTHING, strikes=1, episode=60_000_000)
    await reject(lane, permits.pop(0))
    await reject(lane, permits.pop())
    assert reported() == 2
    for permit in permits:  # all were sent after the first that was rejected, and are answered
        permit.release()
    (one,) = await some(lane, 1)
    await reject(lane, one)
    assert reported() == 2
    for permit in await some(lane, 29):  # nearly all of the limit
        permit.release()
    (one,) = await some(lane, 1)
    await reject(lane, one)
    assert reported() == 3
    await lane.close()


@jumping_time
async def test_a_rejection_that_names_no_delay_is_reported_and_pauses_nobody_here():
    store = Store()
    lane = lane_of(store, requests_per_minute=600)
    (await lane.admit(1)).release()
    lane.observe_rejection(None)
    assert lane.paused_for == 0.0
    await asyncio.sleep(1)
    assert [said for turn in store.turns for said in turn.rejected] == [(-1, False)]
    await lane.close()


@jumping_time
async def test_without_the_store_a_rejection_is_kept_here():
    store = Store()
    lane = lane_of(store, requests_per_minute=600)
    store.away = True
    permit = await lane.admit(1)
    lane.observe_rejection(2.0, permit)
    permit.release(outcome="rejected")
    assert lane.paused_for == pytest.approx(2.0)
    store.away = False
    await asyncio.sleep(5)
    (await lane.admit(1)).release()
    await asyncio.sleep(1)
    assert [said for turn in store.turns for said in turn.rejected] == []
    await lane.close()


@jumping_time
async def test_a_lane_hears_from_another_one_that_the_store_is_back():
    store = Store()
    limiter = Limiter(RateLimit(store=store, requests_per_minute=600))
    one, other = limiter.lane("one"), limiter.lane("other")
    store.away = True
    for lane in (one, other):
        (await lane.admit(1)).release()
    store.away = False
    await asyncio.sleep(5)
    (await one.admit(1)).release()  # tries the store again, which is there
    await asyncio.sleep(1)
    assert one.snapshot().store.away is None
    store.turns.clear()
    # Not out of its own share any more.
    permit = await other.admit(7)
    assert permit.slot == NOTHING.slot
    assert [tokens for turn in store.turns for _, tokens in turn.interactive] == [7]
    permit.release()
    await limiter.close()


@jumping_time
async def test_what_was_granted_to_a_call_that_left_meanwhile_goes_back():
    store = Store()
    lane = lane_of(store, requests_per_minute=600)
    waiting = asyncio.create_task(lane.admit(5))
    while lane._task is None:
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # the store is being asked
    waiting.cancel()
    await asyncio.sleep(1)
    assert waiting.cancelled()
    assert [turn.settled for turn in store.turns] == [[], [(NOTHING.slot, -1, -5)]]
    assert lane.snapshot().in_flight == 0
    await lane.close()


class Forgetful(Store):
    """Takes what it is asked into its line, but the first reply is lost on the way."""

    async def exchange(self, lane, turn):
        reply = await super().exchange(lane, turn)
        if len(self.turns) == 1:
            self.standing = [ticket for ticket, _ in reply.granted]
            raise RateLimitStoreError("the reply was lost")
        gone, self.standing = self.standing, []
        return msgspec.structs.replace(reply, standing=gone)


@jumping_time
async def test_a_ticket_of_which_nobody_knows_any_more_is_taken_out_of_the_line():
    store = Forgetful()
    lane = lane_of(store, requests_per_minute=600)
    (await lane.admit(1)).release()  # out of our share, as the store does not seem to be there
    await asyncio.sleep(5)
    (await lane.admit(1)).release()
    await asyncio.sleep(1)
    (ticket, _), *_ = store.turns[0].interactive
    assert [turn.withdrawn for turn in store.turns[:3]] == [[], [], [ticket]]
    await lane.close()


@jumping_time
async def test_who_leaves_as_the_store_goes_away_is_cancelled_and_the_others_fail():
    tasks = []

    class Leaving(Store):
        async def exchange(self, _lane, _turn):
            await asyncio.sleep(0.001)
            tasks[0].cancel()
            raise RateLimitStoreError("away")

    lane = lane_of(Leaving(), on_store_failure="closed")
    tasks += [asyncio.create_task(lane.admit(1)) for _ in range(2)]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found] == [asyncio.CancelledError, RateLimitStoreError]
    await lane.close()


def test_a_lane_of_a_loop_that_is_gone_is_closed_without_asking_the_store():
    store = Store()
    lane = lane_of(store, requests_per_minute=600)

    async def use():
        (await lane.admit(1)).release()

    asyncio.run(use())
    before = len(store.turns)
    asyncio.run(lane.close())
    assert len(store.turns) == before


@jumping_time
async def test_a_limit_per_second_is_reported_as_one_of_the_window_and_without_what_remains():
    store = Store()
    lane = lane_of(store, requests_per_minute=6000)
    (await lane.admit(1)).release()
    store.turns.clear()
    said = {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "100ms",
    }
    for _ in range(4):
        lane.observe_headers(said)
        await asyncio.sleep(1)
        # As the store has it from the second answer on; no further one is news.
        store.reply = msgspec.structs.replace(NOTHING, learned_requests=600)
    reported = [report for turn in store.turns for report in turn.reported]
    assert reported == [("r", (10.0, 9.0, 100_000.0)), ("r", (600.0, -1.0, -1.0))]
    await lane.close()


@jumping_time
async def test_what_rejections_took_from_the_limits_is_regained_without_the_store():
    store = Store()
    store.reply = msgspec.structs.replace(NOTHING, share=500_000)
    lane = lane_of(store, requests_per_minute=600)
    (await lane.admit(1)).release()
    store.away = True
    limits = []
    for _ in range(300):
        (await lane.admit(1)).release()
        limits.append(lane.snapshot().requests.limit)
        await asyncio.sleep(1)
    assert limits[0] == 300.0
    assert limits[-1] == pytest.approx(600.0, rel=0.01)
    await lane.close()


@jumping_time
async def test_a_store_that_hangs_is_asked_once_at_a_time():
    class Hanging(Store):
        asking = most = 0

        async def exchange(self, lane, turn):
            self.asking += 1
            self.most = max(self.most, self.asking)
            try:
                await asyncio.sleep(30)
                return await super().exchange(lane, turn)
            finally:
                self.asking -= 1

    store = Hanging()
    store.away = True
    lane = lane_of(store, requests_per_minute=600)
    for _ in range(100):  # the first of them waits; the others are let out of our share
        (await lane.admit(1)).release()
        await asyncio.sleep(1)
    assert store.most == 1
    await lane.close()


@jumping_time
async def test_a_probe_that_hangs_is_waited_for_though_another_lane_has_failed():
    asked = []

    class Partly(Store):
        async def exchange(self, lane, _turn):
            asked.append(lane)
            await asyncio.sleep(20 if asked.count(asked[0]) == 2 and lane == asked[0] else 0.001)
            raise RateLimitStoreError("away")

    limiter = Limiter(RateLimit(store=Partly(), requests_per_minute=60, burst=1))
    hanging, failing = limiter.lane("hanging"), limiter.lane("failing")
    held = await hanging.admit(1)
    await asyncio.sleep(5)
    (await hanging.admit(1)).release()  # tries the store again, which hangs
    (await failing.admit(1)).release()
    waiting = [asyncio.create_task(hanging.admit(1)) for _ in range(3)]
    await asyncio.sleep(0.01)
    held.release()
    # Out of our share meanwhile, and without another turn.
    for permit in await asyncio.gather(*waiting):
        permit.release()
    assert [lane == asked[0] for lane in asked] == [True, True, False]
    await limiter.close()


def test_a_turn_of_a_loop_that_stands_still_does_not_end_that_of_another_one():
    gates, asking = [], []

    class Gated(Store):
        async def exchange(self, lane, turn):
            asking.append(turn)
            await gates[len(asking) - 1].wait()
            return await super().exchange(lane, turn)

    lane = lane_of(Gated(), requests_per_minute=600)

    async def until_asked(count):
        gates.append(asyncio.Event())
        task = asyncio.ensure_future(lane.admit(1))
        while len(asking) < count:
            await asyncio.sleep(0)
        return task

    async def go_on(gate, task):
        gate.set()
        return await asyncio.wait([task], timeout=0.05)

    with asyncio.Runner() as one, asyncio.Runner() as other:
        late = one.run(until_asked(1))
        waiting = other.run(until_asked(2))
        under_way = lane._task
        one.run(go_on(gates[0], late))
        assert lane._task is under_way
        other.run(go_on(gates[1], waiting))
        waiting.result().release()
        other.run(lane.close())
