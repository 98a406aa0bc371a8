"""Slots for making connections: how long one waits for a slot."""

import asyncio

import pytest

from konko_async._core.deadline import DeadlineQueue
from konko_async._http.connector import _Slots
from konko_async.testing import jumping_time


def take(slots, patience):
    return slots.take(DeadlineQueue(asyncio.get_running_loop()), patience)


def now():
    return asyncio.get_running_loop().time()


@jumping_time
async def test_a_host_that_makes_none_is_waited_for_no_longer_than_connecting_takes():
    slots = _Slots(1)
    await take(slots, 5)
    await asyncio.sleep(1)
    with pytest.raises(TimeoutError):
        await take(slots, 5)
    assert now() == 6
    slots.release()
    await take(slots, 5)
    assert now() == 6


@jumping_time
async def test_while_connections_are_made_one_waits():
    slots = _Slots(1)
    await take(slots, 5)
    waiting = asyncio.create_task(take(slots, 5))
    for made_at in (4, 8, 12):
        await asyncio.sleep(made_at - now())
        slots.made_at = now()
    await asyncio.sleep(4)
    assert not waiting.done()
    slots.release()
    await waiting
    assert now() == 16


@jumping_time
async def test_when_no_more_are_made_the_wait_ends():
    slots = _Slots(1)
    await take(slots, 5)
    waiting = asyncio.create_task(take(slots, 5))
    await asyncio.sleep(3)
    slots.made_at = now()
    with pytest.raises(TimeoutError):
        await waiting
    assert now() == 8


@jumping_time
async def test_without_a_deadline_one_waits_for_ever_and_who_gives_up_leaves_no_gap():
    slots = _Slots(1)
    await take(slots, None)
    first, second = (asyncio.create_task(take(slots, None)) for _ in range(2))
    await asyncio.sleep(1_000)
    first.cancel()
    slots.release()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert slots.locked()
