"""The loop whose time jumps: order, exactness, what follows its clock, and what it refuses."""

import asyncio
import socket
import threading
import time

import pytest
import tenacity
from aiolimiter import AsyncLimiter
from hypothesis import given
from hypothesis import strategies as st

from konko_async.testing import (
    DeadlockError,
    TimeJumpingLoop,
    jumping_time,
    run_with_jumping_time,
)


def now():
    return asyncio.get_running_loop().time()


@jumping_time
async def test_a_year_is_over_at_once():
    start = time.monotonic()
    await asyncio.sleep(365 * 24 * 3600)
    assert now() == pytest.approx(365 * 24 * 3600)
    assert time.monotonic() - start < 5


def test_it_returns_the_result_and_starts_at_zero():
    async def main():
        return now()

    assert run_with_jumping_time(main()) == 0.0
    assert run_with_jumping_time(main(), debug=True) == 0.0


def test_an_exception_comes_out_as_it_is():
    async def main():
        await asyncio.sleep(1)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run_with_jumping_time(main())


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_sleepers_wake_in_order_and_on_time(delays):
    async def main():
        woken = []

        async def sleeper(delay):
            await asyncio.sleep(delay)
            woken.append((delay, now()))

        await asyncio.gather(*map(sleeper, delays))
        return woken

    woken = run_with_jumping_time(main())
    assert [at for at, _ in woken] == pytest.approx(sorted(delays), abs=1e-6)
    assert all(at == pytest.approx(delay, abs=1e-6) for delay, at in woken)


@jumping_time
async def test_work_between_timers_takes_no_time():
    for _ in range(1000):
        await asyncio.sleep(0)
    assert now() == 0.0


@jumping_time
async def test_call_at_and_call_later():
    loop, calls = asyncio.get_running_loop(), []
    loop.call_at(20, calls.append, "at 20")
    loop.call_later(10, calls.append, "at 10")
    loop.call_later(15, calls.append, "cancelled").cancel()
    await asyncio.sleep(30)
    assert calls == ["at 10", "at 20"]


@jumping_time
async def test_timeouts_fire_at_their_time():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await asyncio.Event().wait()
    assert now() == 5
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.sleep(100), 2.5)
    assert now() == 7.5
    async with asyncio.timeout_at(100):
        await asyncio.sleep(1)


@jumping_time
async def test_tenacity_waits_in_virtual_time():
    tries = []

    @tenacity.retry(stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_exponential(0.5))
    async def fail():
        tries.append(now())
        raise OSError

    with pytest.raises(tenacity.RetryError):
        await fail()
    assert tries == [0.0, 0.5, 1.5, 3.5]


@jumping_time
async def test_aiolimiter_leaks_in_virtual_time():
    limiter = AsyncLimiter(60, 60)
    for _ in range(180):
        await limiter.acquire()
    assert now() == pytest.approx(120, abs=1)


def test_a_deadlock_is_an_error_that_names_the_tasks():
    async def main():
        tasks = [asyncio.create_task(asyncio.Event().wait(), name=f"stuck {n}") for n in range(12)]
        await asyncio.sleep(3)
        await asyncio.gather(*tasks)

    with pytest.raises(DeadlockError, match=r"(?s)no timer.*'stuck 0'.*and 3 more"):
        run_with_jumping_time(main())


def test_cleanup_runs_after_a_deadlock():
    steps = []

    async def main():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(60)
            steps.append(now())

    with pytest.raises(DeadlockError):
        run_with_jumping_time(main())
    assert steps == [60]


@jumping_time
async def test_time_stands_still_for_threads():
    order = []

    async def timer():
        await asyncio.sleep(60)
        order.append("timer")

    task = asyncio.create_task(timer())
    loop = asyncio.get_running_loop()
    release = threading.Event()
    loop.call_later(0.01, release.set)
    assert await asyncio.to_thread(release.wait, 30)
    order.append("thread")
    assert now() < 30
    await task
    assert order == ["thread", "timer"]


@jumping_time
async def test_sockets_are_waited_for_in_real_time():
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        loop.call_later(0.01, right.send, b"x")
        assert await loop.sock_recv(left, 1) == b"x"
    assert 0.01 <= now() < 30
    await asyncio.sleep(3600)
    assert now() >= 3600.01


@jumping_time
async def test_another_thread_can_wake_it():
    loop, woken = asyncio.get_running_loop(), asyncio.Event()
    await asyncio.to_thread(loop.call_soon_threadsafe, woken.set)
    await woken.wait()


@pytest.mark.parametrize("value", [1, 2])
@jumping_time
async def test_the_decorator_keeps_fixtures_and_parameters(tmp_path, value):
    await asyncio.sleep(value)
    assert tmp_path.exists()
    assert now() == value


def test_the_loop_is_closed_by_its_owner():
    loop = TimeJumpingLoop()
    try:
        loop.run_until_complete(asyncio.sleep(10))
        assert loop.time() == 10
    finally:
        loop.close()
    assert loop.is_closed()
