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
