"""The emulator's pace, places and rate limits."""

import asyncio
import re

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async.testing import Emulator, faults
from konko_async.testing._emulator.sliding_window import (
    SlidingLimits,
    SlidingWindow,
    duration,
    retry_headers,
)

CHAT = "codellama/codellama-13b-instruct"
HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "Hello there"}]}


@pytest.fixture
async def http():
    headers = {"Authorization": "Bearer one"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield session


async def ask(http, emulator, **change):
    headers = {"Authorization": f"Bearer {change.pop('key', 'one')}"}
    url = f"{emulator.base_url}/chat/completions"
    async with http.post(url, json={**HELLO, **change}, headers=headers) as response:
        await response.read()
        return response


# -- pace


async def test_latency_and_pace_of_whole_answers(http):
    async with Emulator(latency=0.03, tokens_per_second=500, answer_tokens=20) as emulator:
        await ask(http, emulator)
        record = emulator.requests[-1]
        assert record.first_byte - record.started >= 0.03 + 20 / 500
        emulator.latency, emulator.tokens_per_second, emulator.answer_tokens = 0.0, None, 2000
        before = asyncio.get_running_loop().time()
        await ask(http, emulator)
        assert asyncio.get_running_loop().time() - before < 2000 / 500 / 2


@pytest.mark.parametrize(("n", "chunk_tokens"), [(1, 1), (4, 1), (1, 5)])
async def test_pace_of_streams(http, n, chunk_tokens):
    options = {"latency": 0.02, "tokens_per_second": 400, "answer_tokens": 20}
    async with Emulator(**options, chunk_tokens=chunk_tokens) as emulator:
        before = asyncio.get_running_loop().time()
        await ask(http, emulator, stream=True, n=n)
        waited = asyncio.get_running_loop().time() - before
        record = emulator.requests[-1]
    assert record.first_byte - record.started >= 0.02
    assert record.finished - record.first_byte >= (20 - chunk_tokens) / 400 * 0.99
    # Four choices one after the other would take 0.2 s.
    assert waited < 0.02 + 20 / 400 + 0.1
    assert record.chunks_sent == n * (20 // chunk_tokens + 2)


async def test_tokens_come_one_by_one(http):
    async with Emulator(tokens_per_second=100, answer_tokens=15) as emulator:
        url = f"{emulator.base_url}/chat/completions"
        async with http.post(url, json={**HELLO, "stream": True}) as response:
            reads = [data async for data in response.content.iter_any()]
    # What is late goes with what comes next, and this machine may be busy.
    assert len(reads) >= 3


async def test_an_unpaced_stream_is_one_write(http):
    async with Emulator(answer_tokens=50) as emulator:
        url = f"{emulator.base_url}/chat/completions"
        async with http.post(url, json={**HELLO, "stream": True}) as response:
            chunks = [data async for data, _ in response.content.iter_chunks()]
    assert len(chunks) == 1


# -- places


async def test_capacity_rejects(http):
    async with Emulator(capacity=2, latency=3600, overload_status=429) as emulator:
        tasks = [asyncio.create_task(ask(http, emulator)) for _ in range(2)]
        await emulator.wait_until(lambda: emulator.in_flight == 2)
        response = await ask(http, emulator)
        assert response.status == 429
        assert emulator.rejected == 1
        emulator.latency, emulator.capacity, emulator.overload_status = 0.0, 3, 503
        assert (await ask(http, emulator)).status == 200
        emulator.capacity = 2
        assert (await ask(http, emulator)).status == 503
        assert emulator.peak_in_flight == 3
        for task in tasks:
            task.cancel()
        await emulator.wait_until(lambda: not emulator.in_flight)
        assert (await ask(http, emulator)).status == 200
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_capacity_queues_first_come_first_served(http):
    gate = asyncio.Event()
    served = []

    async def answer(body):
        return "x"

    async with Emulator(capacity=1, overload="queue", latency=0.0, answer=answer) as emulator:
        emulator.script(faults.Stall())
        blocker = asyncio.create_task(ask(http, emulator))
        await emulator.wait_until(lambda: emulator.in_flight == 1)

        async def one(number):
            await ask(http, emulator, seed=number)
            served.append(number)

        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(one(number)))
            await emulator.wait_until(lambda n=number: emulator.queued == n + 1)
        # One in the middle of the queue leaves it.
        tasks.pop(2).cancel()
        await emulator.wait_until(lambda: emulator.queued == 4)
        blocker.cancel()
        await asyncio.gather(*tasks)
        gate.set()
        started = sorted((r for r in emulator.requests if r.status), key=lambda r: r.first_byte)
        assert [record.body["seed"] for record in started] == [0, 1, 3, 4]
        assert sorted(served) == [0, 1, 3, 4]
        assert emulator.rejected == emulator.queued == 0
        await asyncio.gather(blocker, return_exceptions=True)


async def test_a_larger_capacity_lets_the_queue_in(http):
    async with Emulator(capacity=1, overload="queue") as emulator:
        emulator.always(faults.Stall(after_chunks=0))
        tasks = [asyncio.create_task(ask(http, emulator)) for _ in range(5)]
        await emulator.wait_until(lambda: emulator.queued == 4)
        emulator.capacity = 3
        await emulator.wait_until(lambda: emulator.queued == 2)
        emulator.capacity = None
        await emulator.wait_until(lambda: emulator.queued == 0)
        with pytest.raises(ValueError, match="capacity"):
            emulator.capacity = 0
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_place_given_to_a_call_that_is_gone_goes_to_the_next():
    emulator = Emulator(capacity=1, overload="queue")
    holder, gone, waiting = (emulator.begin("POST", "/", {}) for _ in range(3))
    assert await emulator.enter(holder)
    tasks = [asyncio.create_task(emulator.enter(call)) for call in (gone, waiting)]
    await emulator.wait_until(lambda: emulator.queued == 2)
    # Both in one turn of the loop: the place is given, and its call is cancelled.
    emulator.end(holder)
    tasks[0].cancel()
    async with asyncio.timeout(60):
        assert await tasks[1]
    assert gone.holds_slot is False


# -- rate limits


async def test_requests_limit(http):
    async with Emulator(requests_per_minute=3, limit_window=0.5) as emulator:
        responses = [await ask(http, emulator) for _ in range(4)]
        assert [response.status for response in responses] == [200, 200, 200, 429]
        remaining = [r.headers["x-ratelimit-remaining-requests"] for r in responses]
        assert remaining == ["2", "1", "0", "0"]
        assert responses[0].headers["x-ratelimit-limit-requests"] == "3"
        assert re.fullmatch(r"\d+ms", responses[0].headers["x-ratelimit-reset-requests"])
        assert "x-ratelimit-limit-tokens" not in responses[0].headers
        refused = responses[3].headers
        assert refused["retry-after"] == "1"
        assert 0 < int(refused["retry-after-ms"]) <= 500
        assert emulator.rejected == 1
        # Other keys and models have windows of their own.
        assert (await ask(http, emulator, key="two")).status == 200
        assert (await ask(http, emulator, model="meta-llama/llama-2-13b-chat")).status == 200
        # Waiting as long as told is enough.
        await asyncio.sleep(int(refused["retry-after-ms"]) / 1000)
        assert (await ask(http, emulator)).status == 200


async def test_tokens_limit(http):
    async with Emulator(tokens_per_minute=100, answer_tokens=35) as emulator:
        responses = [await ask(http, emulator) for _ in range(3)]
        assert [response.status for response in responses] == [200, 200, 429]
        # Three for the message, two for its text.
        assert responses[0].headers["x-ratelimit-remaining-tokens"] == "60"
        assert responses[0].headers["x-ratelimit-limit-tokens"] == "100"
        assert re.fullmatch(r"1m0s|59(\.\d+)?s", responses[0].headers["x-ratelimit-reset-tokens"])
        assert 59 <= int(responses[2].headers["retry-after"]) <= 60


async def test_a_request_larger_than_the_limit(http):
    async with (
        Emulator(tokens_per_minute=10, answer_tokens=35) as emulator,
        http.post(f"{emulator.base_url}/chat/completions", json=HELLO) as response,
    ):
        assert response.status == 429
        assert (await response.json())["error"]["code"] == "request_too_large"
        assert "retry-after" not in response.headers


async def test_limits_can_be_set_and_lifted_while_it_runs(http):
    async with Emulator() as emulator:
        assert "x-ratelimit-limit-requests" not in (await ask(http, emulator)).headers
        emulator.requests_per_minute = 1
        assert (await ask(http, emulator)).status == 200
        assert (await ask(http, emulator)).status == 429
        emulator.requests_per_minute = None
        assert (await ask(http, emulator)).status == 200


async def test_errors_and_faults_are_not_counted(http):
    async with Emulator(requests_per_minute=1) as emulator:
        emulator.script(faults.Status(500))
        assert (await ask(http, emulator)).status == 500
        assert (await ask(http, emulator, n=0)).status == 400
        assert (await ask(http, emulator, stream=True)).status == 200
        assert (await ask(http, emulator)).status == 429


async def test_a_strict_window_holds_against_a_hammering_client(http):
    window, most = 0.1, 10
    async with Emulator(requests_per_minute=most, limit_window=window) as emulator:

        async def hammer():
            while emulator.received - emulator.rejected < 3 * most:
                await ask(http, emulator)
                await asyncio.sleep(0.001)  # on the loop's clock nothing else takes time

        await asyncio.gather(*(hammer() for _ in range(4)))
        admitted = [record for record in emulator.requests if record.status == 200]
        assert emulator.rejected == emulator.received - len(admitted) > 0
    assert len(admitted) >= 3 * most
    # Each was admitted between these two.
    after = sorted(record.started for record in admitted)
    before = sorted(record.first_byte for record in admitted)
    for first, last in zip(after, before[most:], strict=False):
        assert last - first >= window


class TestWindow:
    @given(
        st.lists(st.tuples(st.integers(0, 200), st.integers(1, 5)), max_size=60), st.integers(1, 12)
    )
    def test_no_stretch_holds_more_than_the_limit(self, steps, limit):
        window, now, admitted, length = SlidingWindow(), 0.0, [], 10.0
        for gap, amount in steps:
            # Sixty-fourths add up without rounding.
            now += gap / 64
            wait = window.wait(amount, limit, now, length)
            if wait == 0:
                window.add(amount, now)
                admitted.append((now, amount))
            elif wait != float("inf"):
                # It would have been let in after the wait, and not before.
                kept = [(at, n) for at, n in admitted if at + length > now + wait]
                assert sum(n for _, n in kept) + amount <= limit
                before = [(at, n) for at, n in admitted if at + length >= now + wait]
                assert sum(n for _, n in before) + amount > limit
            else:
                assert amount > limit
        for start, _ in admitted:
            inside = sum(n for at, n in admitted if start <= at < start + length)
            assert inside <= limit

    def test_a_refused_request_uses_nothing(self):
        limits = SlidingLimits()
        assert limits.admit(0, 60, 10, 100, 90) == (0.0, "requests")
        assert limits.admit(1, 60, 10, 100, 20) == (59, "tokens")
        assert limits.headers(1, 60, 10, 100)["x-ratelimit-remaining-requests"] == "9"
        assert limits.admit(2, 60, 1, None, 20) == (58, "requests")
        assert limits.headers(61, 60, 10, 100)["x-ratelimit-reset-tokens"] == "0s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.017, "17ms"),
        (0.0001, "1ms"),
        (0.9999, "1s"),
        (1, "1s"),
        (59.977, "59.977s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (61.5, "1m1.5s"),
        (3723, "1h2m3s"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_retry_headers_round_up():
    assert retry_headers(1.0001) == {"retry-after": "2", "retry-after-ms": "1001"}
