"""Deadlines that share one timer: each is kept to the moment, and those left cost nothing."""

import asyncio
import gc
import weakref

import pytest

from konko_async._core.deadline import Deadline, DeadlineQueue
from konko_async.testing import run_with_jumping_time


async def wait_under(queue, seconds, *, allow=()):
    """Sleep under a deadline, with calls of ``allow`` meanwhile; return when it was over."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError), Deadline(queue, began + seconds) as deadline:
        for pause, silence in allow:
            await asyncio.sleep(pause)
            deadline.allow(silence)
        await asyncio.sleep(1000)
    return loop.time() - began


def run(test):
    return run_with_jumping_time(test())


def test_each_is_kept_whatever_their_order():
    async def test():
        queue = DeadlineQueue(asyncio.get_running_loop())
        wanted = [5.0, 1.0, 3.0, 1.0, 0.25, 9.0]
        return wanted, await asyncio.gather(*(wait_under(queue, each) for each in wanted))

    wanted, found = run(test)
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("moves", "over"),
    [
        ([(1, 8)], 9),  # later
        ([(1, 2)], 3),  # earlier
        ([(1, 8), (1, 1)], 3),  # later, and then earlier than that, but later than at first
        ([(1, 2), (1, 7)], 9),  # earlier, then later
        ([(1, 1), (0.5, 20), (15, 0.5)], 17),
    ],
)
def test_one_that_is_moved_is_over_when_it_was_moved_to(moves, over):
    async def test():
        queue = DeadlineQueue(asyncio.get_running_loop())
        return await wait_under(queue, 4, allow=moves)

    assert run(test) == pytest.approx(over)


def test_one_without_an_end_can_be_given_one():
    async def test():
        queue = DeadlineQueue(asyncio.get_running_loop())
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError), Deadline(queue, None) as deadline:
            deadline.allow(2)
            await asyncio.sleep(1000)
        return loop.time()

    assert run(test) == pytest.approx(2, abs=0.1)


def test_those_that_were_left_are_forgotten():
    async def test():
        loop = asyncio.get_running_loop()
        queue = DeadlineQueue(loop)
        for _ in range(10_000):
            with Deadline(queue, loop.time() + 60):
                pass
        timers = [handle for handle in loop._scheduled if not handle.cancelled()]
        return len(queue._heap), len(timers)

    kept, timers = run(test)
    assert kept <= 70
    assert timers == 1


def test_one_that_was_left_holds_no_task():
    async def test():
        loop = asyncio.get_running_loop()
        queue = DeadlineQueue(loop)

        async def work():
            with Deadline(queue, loop.time() + 60):
                await asyncio.sleep(0)

        task = asyncio.create_task(work())
        gone = weakref.ref(task)
        await task
        del task
        await asyncio.sleep(1)  # the loop itself holds it in the iteration in which it ended
        gc.collect()
        return len(queue._heap), gone()

    assert run(test) == (1, None)


def test_time_that_nobody_had_is_given_back(monkeypatch):
    """A machine that slept for a minute leaves a minute to read what lies in the socket."""

    async def test():
        loop = asyncio.get_running_loop()
        queue = DeadlineQueue(loop)
        usual, slept = loop.time, 0.0
        monkeypatch.setattr(loop, "time", lambda: usual() + slept)
        task = asyncio.create_task(wait_under(queue, 5))
        await asyncio.sleep(1)
        slept = 60.0
        return await task

    # A minute after it should have been over, it is given as much again.
    assert run(test) == pytest.approx(5 + 2 * 56, abs=1)


def test_a_cancellation_from_outside_is_no_timeout():
    async def test():
        loop = asyncio.get_running_loop()
        queue = DeadlineQueue(loop)

        async def work():
            with Deadline(queue, loop.time() + 1):
                await asyncio.sleep(1000)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(5)  # nothing is left to be cancelled when its time comes
        return queue.open

    assert run(test) == 0


def test_one_that_is_over_cannot_be_moved_any_more():
    async def test():
        loop = asyncio.get_running_loop()
        with (
            pytest.raises(TimeoutError),
            Deadline(DeadlineQueue(loop), loop.time() + 1) as deadline,
        ):

            def look():
                # Between its end and the moment at which the task meets its cancellation.
                if deadline.expired:
                    deadline.allow(10)
                    moved.append(deadline.when)
                else:
                    loop.call_soon(look)

            moved = []
            loop.call_later(1, look)
            await asyncio.sleep(1000)
        return moved, loop.time()

    moved, now = run(test)
    assert len(moved) == 1
    assert now == pytest.approx(1, abs=0.1)
