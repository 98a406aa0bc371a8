"""map(): lazy input, bounded memory, order, back-pressure, cancellation, and nothing left behind."""

import asyncio
import contextlib
import gc
import weakref

import pytest

from konko_async import (
    AsyncKonko,
    BadRequestError,
    ConfigurationError,
    InternalServerError,
    MapResults,
)
from konko_async.testing import Emulator, faults

MODEL = "codellama/codellama-13b-instruct"


def request(number, **more):
    return {"model": MODEL, "messages": [{"role": "user", "content": f"row {number}"}], **more}


def echo(body):
    return "re: " + (body["messages"][-1]["content"] if "messages" in body else body["prompt"])


@pytest.fixture
async def emulator():
    async with Emulator(answer=echo) as running:
        yield running


@pytest.fixture
async def client(emulator):
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", retry=None) as made:
        yield made


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


class Calls:
    """A call for MapResults.over() whose answers are given by hand."""

    def __init__(self):
        self.open = {}
        self.started = []
        self.cancelled = []

    async def __call__(self, item):
        self.started.append(item)
        future = self.open[item] = asyncio.get_running_loop().create_future()
        try:
            return await future
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise

    def finish(self, item):
        self.open.pop(item).set_result(f"done {item}")

    def fail(self, item, error):
        self.open.pop(item).set_exception(error)


# -- results -------------------------------------------------------------------------------------


async def test_every_request_has_its_result(client):
    requests = [request(number) for number in range(100)]
    seen = {}
    async for result in client.chat.completions.map(requests, max_concurrency=16):
        assert result.error is None
        assert result.request is requests[result.index]
        seen[result.index] = result.completion.choices[0].message.content
    assert seen == {number: f"re: row {number}" for number in range(100)}


async def test_async_iterables_and_an_empty_input(client):
    async def some():
        for number in range(5):
            await asyncio.sleep(0)
            yield request(number)

    found = [result.index async for result in client.chat.completions.map(some())]
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert [result async for result in client.chat.completions.map([])] == []


async def test_errors_are_results(client, emulator):
    emulator.always(
        faults.Status(500), when=lambda record: record.body["messages"][0]["content"] == "row 3"
    )
    results = {
        result.index: result async for result in client.chat.completions.map(map(request, range(6)))
    }
    assert isinstance(results[3].error, InternalServerError)
    assert results[3].completion is None
    assert results[3].error.attempts
    with pytest.raises(InternalServerError) as caught:
        results[3].unwrap()
    assert caught.value is results[3].error
    assert results[0].unwrap() is results[0].completion
    assert [index for index in results if results[index].error is None] != []
    assert sum(result.error is None for result in results.values()) == 5


async def test_requests_that_cannot_be_sent_are_results_too(client, emulator):
    bad = [{"messages": []}, request(1, nonsense=1), 5, request(2, temperature=99)]
    results = [
        result async for result in client.chat.completions.map([*bad, request(9)], ordered=True)
    ]
    assert [type(result.error) for result in results] == [ConfigurationError] * 4 + [type(None)]
    assert "no model" in str(results[0].error)
    assert "extra_body" in str(results[1].error)
    assert emulator.received == 1


async def test_streams_arrive_whole(client, emulator):
    requests = [request(number, stream=True) for number in range(5)]
    async for result in client.chat.completions.map(requests):
        assert result.completion.choices[0].message.content == f"re: row {result.index}"
    assert all(record.stream for record in emulator.requests)


async def test_completions_and_embeddings(client):
    text = "phind/phind-codellama-34b-v2"
    prompts = [{"model": text, "prompt": f"p {n}", "stream": n == 1} for n in range(3)]
    answers = [r async for r in client.completions.map(prompts, ordered=True)]
    assert all(r.completion.choices[0].text for r in answers)
    inputs = [{"model": "thenlper/gte-base", "input": f"i {n}"} for n in range(3)]
    vectors = [r async for r in client.embeddings.map(inputs, ordered=True)]
    assert all(r.completion.data[0].embedding for r in vectors)


async def test_rows_have_the_priority_batch_unless_they_say_otherwise(emulator):
    seen = []

    async def note(call_request, call_next):
        seen.append(call_request.priority)
        return await call_next(call_request)

    async with AsyncKonko(base_url=emulator.base_url, api_key="any", middleware=[note]) as client:
        requests = [request(1), request(2, priority="interactive")]
        async for _ in client.chat.completions.map(requests, max_concurrency=1):
            pass
    assert seen == ["batch", "interactive"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"requests": request(1)}, "iterable"),
        ({"requests": "text"}, "iterable"),
        ({"requests": 5}, "iterable"),
        ({"requests": [], "max_concurrency": 0}, "max_concurrency"),
        ({"requests": [], "max_concurrency": True}, "max_concurrency"),
        ({"requests": [], "max_concurrency": 8, "window": 7}, "window"),
    ],
)
async def test_arguments_are_checked_at_once(client, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        client.chat.completions.map(**arguments)
    with pytest.raises(ConfigurationError, match="iterable"):
        MapResults.over(Calls(), 5)


# -- laziness, concurrency, back-pressure ----------------------------------------------------------


async def test_the_input_is_read_lazily_and_concurrency_is_kept():
    read = []

    def items():
        for number in range(1000):
            read.append(number)
            yield number

    calls = Calls()
    results = MapResults.over(calls, items(), max_concurrency=4)
    assert read == []  # nothing happens before the first step
    step = asyncio.ensure_future(anext(results))
    await turns()
    assert calls.started == [0, 1, 2, 3]
    assert len(read) == 5  # one waits for its turn
    assert results.in_flight == 4
    calls.finish(2)
    assert (await step).index == 2
    await turns()
    assert calls.started == [0, 1, 2, 3, 4]
    await results.aclose()


async def test_a_slow_consumer_holds_up_the_reading():
    read = []

    def items():
        for number in range(1000):
            read.append(number)
            yield number

    async def call(item):
        return item

    results = MapResults.over(call, items(), max_concurrency=8)
    await anext(results)
    await turns(200)
    assert len(read) <= 2 * 8 + 2
    seen = 1
    async for _ in results:
        seen += 1
        await turns(3)
        assert len(read) <= seen + 2 * 8 + 1
    assert seen == 1000


async def test_memory_does_not_grow_with_the_input():
    class Item:
        """Something whose lifetime can be watched."""

    alive = weakref.WeakSet()

    def items():
        for _ in range(5000):
            item = Item()
            alive.add(item)
            yield item

    most = 0

    async def call(item):
        await asyncio.sleep(0)

    async for _ in MapResults.over(call, items(), max_concurrency=16):
        most = max(most, len(alive))
    assert most <= 16 * 2 + 4


@pytest.mark.parametrize("ordered", [False, True])
async def test_order(ordered):
    calls = Calls()
    results = MapResults.over(calls, range(6), max_concurrency=3, ordered=ordered)
    step = asyncio.ensure_future(anext(results))
    await turns()
    calls.finish(1)
    await turns()
    assert step.done() is not ordered
    calls.finish(0)
    found = [(await step).index, (await anext(results)).index]
    assert found == ([0, 1] if ordered else [1, 0])
    await results.aclose()


async def test_the_reorder_window_is_bounded():
    calls = Calls()
    results = MapResults.over(calls, range(100), max_concurrency=2, ordered=True, window=5)
    step = asyncio.ensure_future(anext(results))
    await turns()
    for number in range(1, 5):  # 0 stays open; the others end
        calls.finish(number)
        await turns()
    assert calls.started == [0, 1, 2, 3, 4]  # the window is full: 5 waits for 0
    calls.finish(0)
    assert (await step).index == 0
    found = [(await anext(results)).index for _ in range(4)]
    assert found == [1, 2, 3, 4]
    await turns()
    assert calls.started[:7] == [0, 1, 2, 3, 4, 5, 6]
    await results.aclose()


async def test_results_that_were_not_taken_can_count_as_in_flight():
    started = []

    async def call(item):
        started.append(item)

    results = MapResults.over(call, range(100), max_concurrency=4, window=4)
    await anext(results)
    await turns(50)
    assert len(started) == 5  # one was taken, four wait
    await anext(results)
    await turns(50)
    assert len(started) == 6
    await results.aclose()


async def test_ordered_over_the_wire(client):
    requests = (request(number, stream=number % 3 == 0) for number in range(200))
    found = [
        result.index
        async for result in client.chat.completions.map(requests, max_concurrency=32, ordered=True)
    ]
    assert found == list(range(200))


# -- faults ----------------------------------------------------------------------------------------


async def test_fail_fast_raises_the_first_error_and_cancels_the_rest(client, emulator):
    emulator.latency = 0.01
    emulator.always(
        faults.Status(400), when=lambda record: record.body["messages"][0]["content"] == "row 2"
    )
    with pytest.raises(BadRequestError):
        async for _ in client.chat.completions.map(
            map(request, range(1000)), max_concurrency=4, fail_fast=True
        ):
            pass
    assert emulator.received < 20


async def test_an_error_of_the_input_comes_after_the_results_of_what_was_read():
    def items():
        yield 1
        yield 2
        raise OSError("the file is gone")

    async def call(item):
        await turns(3)
        return item

    found = []
    with pytest.raises(OSError, match="gone"):
        async for result in MapResults.over(call, items()):
            found.append(result.completion)
    assert sorted(found) == [1, 2]


async def test_an_error_that_is_not_ours_stops_the_reading_and_is_raised_last():
    started = []

    async def call(item):
        started.append(item)
        await turns(2)
        if item == 3:
            raise ZeroDivisionError
        return item

    found = []
    with pytest.raises(ZeroDivisionError):
        async for result in MapResults.over(call, range(1000), max_concurrency=4):
            found.append(result.completion)
    assert len(started) < 20
    assert sorted(found) == [item for item in started if item != 3]


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_call_cancelled_from_elsewhere_is_not_lost_in_silence(ordered):
    tasks = []

    async def call(item):
        tasks.append(asyncio.current_task())
        await turns(3)
        if item == 1:
            tasks[1].cancel()
            await turns(1)
        return item

    found = []
    with pytest.raises(asyncio.CancelledError):
        async for result in MapResults.over(call, range(4), max_concurrency=4, ordered=ordered):
            found.append(result.index)
    assert found == [0, 2, 3]


# -- leaving early -----------------------------------------------------------------------------------


async def run_some(results, stop_after=3):
    async for _ in results:
        stop_after -= 1
        if not stop_after:
            return


@pytest.mark.parametrize("way", ["break", "aclose", "async with", "exception", "collected"])
async def test_leaving_early_frees_everything(client, emulator, way):
    emulator.latency = 0.01
    emulator.always(faults.Delay(30), when=lambda record: "row 7" in str(record.body))
    results = client.chat.completions.map(map(request, range(500)), max_concurrency=8)
    if way == "aclose":
        await run_some(results)
        await results.aclose()
        await results.aclose()
    elif way == "async with":
        async with results:
            await run_some(results)
    elif way == "exception":
        with pytest.raises(RuntimeError):
            async with results:
                async for _ in results:
                    raise RuntimeError
    else:
        await run_some(results)
    del results
    gc.collect()
    await emulator.wait_until(lambda: emulator.in_flight == 0)
    assert emulator.received < 60
    assert not any(lane.in_flight for lane in client.limits.lanes)


@pytest.mark.parametrize("faulty", [False, True], ids=["answers", "faults"])
async def test_no_call_leaves_a_cycle_for_the_garbage_collector(faulty):
    tasks = []

    async def call(item):
        tasks.append(weakref.ref(asyncio.current_task()))
        await asyncio.sleep(0)
        if faulty:
            raise RuntimeError
        return item

    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(RuntimeError):
            async for _ in MapResults.over(call, range(50), max_concurrency=8):
                pass
        await turns(3)
        assert tasks
        assert not [task for task in tasks if task() is not None]
    finally:
        gc.enable()


async def test_cancelling_the_consumer_cancels_the_calls():
    calls = Calls()

    async def consume():
        async for _ in MapResults.over(calls, range(100), max_concurrency=3):
            pass

    task = asyncio.ensure_future(consume())
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(calls.cancelled) == [0, 1, 2]


async def test_cancelled_at_every_step():
    for step in range(40):
        calls = Calls()

        async def consume(calls=calls):
            async for result in MapResults.over(calls, range(6), max_concurrency=2):
                assert result

        task = asyncio.ensure_future(consume())
        for _ in range(step):
            await asyncio.sleep(0)
            for item in list(calls.open):
                calls.finish(item)
        task.cancel()
        await asyncio.wait([task])
        assert asyncio.all_tasks() - {asyncio.current_task()} <= set()


async def test_generators_are_closed():
    closed = []

    def sync_items():
        try:
            yield from range(1000)
        finally:
            closed.append("sync")

    async def async_items():
        try:
            for number in range(1000):
                yield number
        finally:
            closed.append("async")

    async def call(item):
        return item

    for items in (sync_items(), async_items()):
        async with MapResults.over(call, items, max_concurrency=2) as results:
            await anext(results)
    assert closed == ["sync", "async"]


async def test_closed_before_the_first_step():
    results = MapResults.over(Calls(), range(5))
    await results.aclose()
    assert [result async for result in results] == []


async def test_stop_lets_what_is_in_flight_finish():
    calls = Calls()
    results = MapResults.over(calls, range(100), max_concurrency=3)
    step = asyncio.ensure_future(anext(results))
    await turns()
    results.stop()
    await turns()
    for item in (0, 1, 2):
        calls.finish(item)
    found = [(await step).index] + [result.index async for result in results]
    assert sorted(found) == [0, 1, 2] == calls.started


async def test_cancel_hands_on_what_is_finished():
    calls = Calls()
    results = MapResults.over(calls, range(100), max_concurrency=3)
    step = asyncio.ensure_future(anext(results))
    await turns()
    calls.finish(1)
    await asyncio.sleep(0)
    results.cancel()
    found = [(await step).index] + [result.index async for result in results]
    assert found == [1]
    assert sorted(calls.cancelled) == [0, 2]
    await results.aclose()


async def test_stop_and_cancel_before_the_first_step():
    for leave in (MapResults.stop, MapResults.cancel):
        results = MapResults.over(Calls(), range(5))
        leave(results)
        assert [result async for result in results] == []
