"""A graceful stop of map(): what is on its way ends, all else is given back at once and unpaid."""

import asyncio

import pytest

from konko_async import AsyncKonko, MapResults, RateLimit, RetryPolicy, per_attempt
from konko_async.middleware import resting
from konko_async.testing import Emulator, faults

MODEL = "codellama/codellama-13b-instruct"
PATIENT = RetryPolicy(base_delay=3600, max_delay=3600, budget_ratio=None)


def request(number):
    return {"model": MODEL, "messages": [{"role": "user", "content": f"row {number}"}]}


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


async def rest(results, step):
    """The indexes that come, with that of a step which was begun, and the errors."""
    found = []
    try:
        found.append(await step)
    except StopAsyncIteration:
        return found
    return found + [result async for result in results]


@pytest.fixture
async def emulator():
    """Its answers wait until ``emulator.go`` is set."""
    go = asyncio.Event()

    async def answer(_body):
        await go.wait()
        return "fine"

    async with Emulator(answer=answer) as running:
        running.go = go
        yield running


@pytest.fixture
async def connect(emulator):
    made = []

    def connect(**options):
        options.setdefault("retry", None)
        made.append(AsyncKonko(base_url=emulator.base_url, api_key="any", **options))
        return made[-1]

    yield connect
    for client in made:
        await client.close()


class Known:
    """Events of a test that have a number."""

    def __init__(self):
        self.count = 0
        self._waiters = []

    def __call__(self, *_):
        self.count += 1
        for number, future in self._waiters:
            if self.count >= number and not future.done():
                future.set_result(None)

    async def reach(self, number):
        if self.count < number:
            future = asyncio.get_running_loop().create_future()
            self._waiters.append((number, future))
            await asyncio.wait_for(future, 60)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    "limit", [RateLimit(max_concurrency=2), RateLimit(requests_per_minute=2, burst=2)]
)
async def test_what_waits_for_the_limits_is_given_back(emulator, connect, limit, ordered):
    client = connect(rate_limit=limit)
    results = client.chat.completions.map(
        (request(number) for number in range(100)), max_concurrency=20, ordered=ordered
    )
    step = asyncio.ensure_future(anext(results))
    await emulator.wait_until(lambda: emulator.in_flight == 2)
    (lane,) = client.limits.lanes
    assert (lane.in_flight, lane.waiting.batch) == (2, 18)
    results.stop()
    await until(lambda: results.in_flight == 2)
    (lane,) = client.limits.lanes
    assert (lane.in_flight, lane.waiting.batch) == (2, 0)
    results.stop()  # changes nothing
    emulator.go.set()
    found = await rest(results, step)
    assert sorted(result.index for result in found) == [0, 1]
    assert all(result.completion is not None for result in found)
    assert emulator.received == 2
    (lane,) = client.limits.lanes
    assert (lane.in_flight, lane.waiting.batch) == (0, 0)


@pytest.mark.parametrize(
    "fault", [faults.Status(503), faults.Status(429, headers={"retry-after": "50"})]
)
async def test_what_waits_for_its_next_attempt_is_given_back(emulator, connect, fault):
    emulator.always(fault, when=lambda record: record.index % 2 == 0)
    slept = Known()
    policy = RetryPolicy(base_delay=3600, max_delay=3600, budget_ratio=None, on_retry=slept)
    client = connect(retry=policy, rate_limit=RateLimit(max_concurrency=None))
    results = client.chat.completions.map(map(request, range(50)), max_concurrency=6)
    step = asyncio.ensure_future(anext(results))
    await slept.reach(3)
    await emulator.wait_until(lambda: emulator.in_flight == 3)
    results.stop()
    emulator.go.set()
    found = await rest(results, step)
    assert [result.error for result in found] == [None] * 3
    assert emulator.received == 6


async def test_no_attempt_follows_one_that_fails_after_the_stop(emulator, connect):
    client = connect(retry=PATIENT, rate_limit=RateLimit(max_concurrency=2))
    results = client.chat.completions.map(map(request, range(50)), max_concurrency=6)
    step = asyncio.ensure_future(anext(results))
    await emulator.wait_until(lambda: emulator.in_flight == 2)
    results.stop()
    await emulator.close()  # cuts both, which then would wait for an hour
    assert await rest(results, step) == []


async def test_no_fallback_is_asked_after_the_stop(emulator, connect):
    client = connect(fallback_models=["mistralai/mistral-7b-instruct-v0.1"])
    emulator.always(faults.Delay(0.05), faults.Status(500))
    results = client.chat.completions.map(map(request, range(50)), max_concurrency=3)
    step = asyncio.ensure_future(anext(results))
    await emulator.wait_until(lambda: emulator.received == 3)
    results.stop()
    assert await rest(results, step) == []
    assert emulator.received == 3


async def test_an_error_that_is_final_is_still_a_result(emulator, connect):
    client = connect()
    emulator.always(faults.Delay(0.05), faults.Status(400))
    results = client.chat.completions.map(map(request, range(50)), max_concurrency=3)
    step = asyncio.ensure_future(anext(results))
    await emulator.wait_until(lambda: emulator.received == 3)
    results.stop()
    found = await rest(results, step)
    assert [result.error.status_code for result in found] == [400] * 3


async def test_an_item_that_has_got_an_answer_goes_on(emulator, connect):
    client = connect(rate_limit=RateLimit(max_concurrency=1))
    emulator.go.set()

    answered = Known()

    async def two(number):
        for _ in range(2):
            await client.chat.completions.create(**request(number))
            answered()
        return number

    results = MapResults.over(two, range(50), max_concurrency=3)
    step = asyncio.ensure_future(anext(results))
    await answered.reach(1)
    results.stop()
    found = await rest(results, step)
    assert found
    assert all(result.completion == result.index for result in found)
    assert emulator.received == 2 * len(found) <= 6


async def test_a_hedge_that_waits_does_not_end_the_attempt_beside_it(emulator, connect):
    client = connect(rate_limit=RateLimit(max_concurrency=1), hedge_after=0.01)
    results = client.chat.completions.map(map(request, range(50)), max_concurrency=1)
    step = asyncio.ensure_future(anext(results))
    await emulator.wait_until(lambda: emulator.in_flight == 1)
    await until(lambda: client.limits.lanes[0].waiting.batch)
    results.stop()
    emulator.go.set()
    assert [result.index for result in await rest(results, step)] == [0]


async def test_a_hedge_that_is_left_alone_waits_no_longer(emulator, connect):
    client = connect(rate_limit=RateLimit(max_concurrency=2), hedge_after=0.01)
    holder = asyncio.ensure_future(client.chat.completions.create(**request(99)))
    await emulator.wait_until(lambda: emulator.in_flight == 1)
    cut = faults.Delay(0.1), faults.Status(500)
    emulator.always(*cut, when=lambda record: record.index == 1)
    results = client.chat.completions.map(map(request, range(50)), max_concurrency=1)
    step = asyncio.ensure_future(anext(results))
    await until(lambda: client.limits.lanes[0].waiting.batch)
    results.stop()
    assert await rest(results, step) == []
    emulator.go.set()
    await holder
    assert client.limits.lanes[0].waiting.batch == 0


@pytest.mark.parametrize("marked", [True, False])
async def test_middleware_that_makes_requests_wait(emulator, connect, marked):
    came, go = Known(), asyncio.Event()

    async def slow(request, call_next):
        came()
        if marked:
            with resting():
                await go.wait()
        else:
            await go.wait()
        return await call_next(request)

    client = connect(middleware=[per_attempt(slow)])
    results = client.chat.completions.map(map(request, range(50)), max_concurrency=3)
    step = asyncio.ensure_future(anext(results))
    await came.reach(3)
    results.stop()
    if not marked:  # nobody knows what it does; but nothing is sent after it
        go.set()
    assert await rest(results, step) == []
    assert emulator.received == 0


async def test_calls_that_were_not_begun_are_not(emulator, connect):
    client = connect()
    results = client.chat.completions.map(map(request, range(50)), max_concurrency=3)
    step = asyncio.ensure_future(anext(results))
    await until(lambda: results.in_flight)
    results.stop()  # the tasks are there, and have not had a turn
    assert await rest(results, step) == []
    assert emulator.received == 0


async def test_resting_outside_of_a_map_does_nothing():
    with resting():
        await asyncio.sleep(0)


async def test_a_cancellation_from_elsewhere_is_still_a_failure(emulator, connect):
    client = connect(rate_limit=RateLimit(max_concurrency=1))
    tasks = []

    async def call(number):
        tasks.append(asyncio.current_task())
        return await client.chat.completions.create(**request(number))

    results = MapResults.over(call, range(50), max_concurrency=2)
    step = asyncio.ensure_future(anext(results))
    await emulator.wait_until(lambda: emulator.in_flight == 1)
    tasks[0].cancel()
    emulator.go.set()
    with pytest.raises(asyncio.CancelledError, match="from elsewhere"):
        await rest(results, step)
