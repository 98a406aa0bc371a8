"""Calls cancelled at step N, for every N until they complete: nothing is left over.

A step is one turn of the event loop. The number of points is printed (``pytest -s``).
"""

import asyncio
import contextlib
import gc
from collections import Counter

import pytest
from client_kit import ASK, MESSAGES, ask, in_flight, others, pooled, serving, text_of

from konko_async import (
    Fallback,
    KonkoError,
    RateLimit,
    RetryPolicy,
    StreamError,
    merge,
    per_attempt,
)
from konko_async.testing import Answer, FaultServer

STREAM = Answer.stream(
    ["Hel", "lo"], usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
)
WHOLE = Answer.whole("Hello")
MODELS = Answer.body(b'{"object":"list","data":[{"id":"m","object":"model"}]}')
LIMITS = RateLimit(requests_per_minute=1_000_000, tokens_per_minute=1e12, max_concurrency=4)
FAST = RetryPolicy(max_attempts=4, base_delay=0.0, budget_ratio=None)


async def whole(client):
    assert text_of(await ask(client, stream=False)) == "Hello"


async def opened(client):
    stream = await client.chat.completions.create(**ASK, stream=True)
    await stream.close()


async def iterated(client):
    async with client.chat.completions.stream(**ASK) as stream:
        assert "".join([text async for text in stream.text()]) == "Hello"


async def completed(client):
    async with client.chat.completions.stream(**ASK) as stream:
        assert text_of(await stream.completion()) == "Hello"


async def two_at_once(client):
    async with asyncio.TaskGroup() as group:
        group.create_task(whole(client))
        group.create_task(iterated(client))


async def through(request, call_next):
    response = await call_next(request)
    await asyncio.sleep(0)  # the answer is held by us while this suspends
    return response


async def twice(request, call_next):
    await call_next(request)  # and lost
    return await call_next(request)


SCENARIOS = {
    "create": (whole, [WHOLE], {}),
    "create(stream=True)": (opened, [STREAM], {}),
    "iteration": (iterated, [STREAM], {}),
    "byte by byte": (iterated, [STREAM.split_every(40)], {}),
    "completion()": (completed, [STREAM], {}),
    "limits": (completed, [STREAM], {"rate_limit": LIMITS}),
    "waiting for a place": (two_at_once, lambda request: STREAM if b'"stream":true' in request.body else WHOLE, {"rate_limit": RateLimit(max_concurrency=1)}),
    "retries": (completed, [Answer.error(503), Answer.hang_up("rst"), STREAM.cut(STREAM.head_size), STREAM], {"retry": FAST, "rate_limit": LIMITS}),
    "retries of a whole answer": (whole, [Answer.error(500), WHOLE.cut(-3), WHOLE], {"retry": FAST}),
    "hedging": (completed, lambda _: STREAM.pause(STREAM.head_size, 0.002), {"hedge_after": 0.0005, "rate_limit": LIMITS}),
    "fallback": (completed, lambda request: STREAM if b'"other"' in request.body else Answer.error(404), {"fallback_models": [Fallback(model="other")]}),
    "middleware": (completed, [STREAM], {"middleware": [through, per_attempt(through)]}),
    "middleware that asks twice": (iterated, [STREAM], {"middleware": [twice]}),
}  # fmt: skip


def _in_turn(answers):
    """Answer each attempt of a call with the next answer; its key tells calls apart."""
    attempts = Counter()

    def script(request):
        key = request.headers.get("idempotency-key")
        attempts[key] += 1
        return answers[0 if key is None else attempts[key] - 1]

    return script


async def _cancel_after(work, turns):
    """Run ``work`` for so many turns of the loop, then cancel it; whether it was cut short."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)

    def tick(left):
        if left == 0:
            task.cancel()
        elif not task.done():
            loop.call_soon(tick, left - 1)

    tick(turns)
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


async def _settled(server, client):
    """Wait until the server has seen of every connection that it is closed or idle."""
    idle, used = pooled(client)
    assert used == 0
    await server.wait_until_closed(server.connections.opened - idle)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_cancelled_at_every_step(name, record_property):
    work, answers, options = SCENARIOS[name]
    server = FaultServer(default=answers if callable(answers) else _in_turn(answers))
    points = 0
    async with serving(server, **options) as client:
        while True:
            cut = await _cancel_after(work(client), points)
            assert others() == set()
            assert in_flight(client) == 0
            assert all(lane.waiting.interactive == 0 for lane in client.limits.lanes)
            assert pooled(client)[1] == 0
            if not cut:
                break
            points += 1
        await _settled(server, client)
    assert server.connections.open == 0
    print(f"\n{name}: cancelled at {points} points, nothing left")  # noqa: T201 - a figure
    record_property("points", points)
    assert points > 10


async def test_cancelling_while_a_model_list_is_fetched():
    server = FaultServer(default=lambda r: MODELS if r.method == "GET" else WHOLE)
    async with serving(server, verify_models=True) as client:
        points = 0
        while await _cancel_after(
            client.chat.completions.create(model="m", messages=MESSAGES), points
        ):
            points += 1
            assert others() == set()
            assert pooled(client)[1] == 0
        assert points > 10


async def test_an_iteration_goes_on_after_a_cancelled_wait():
    answer = Answer.stream(["Hel", "lo", "!"])
    server = FaultServer(answer.stall(answer.wire.index(b'"lo"') - 120))
    async with serving(server) as client, client.chat.completions.stream(**ASK) as stream:
        texts = stream.text()
        assert await anext(texts) == "Hel"
        for _ in range(3):
            waiting = asyncio.ensure_future(anext(texts))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await waiting
            assert "next token" in "".join(caught.value.__notes__)
        server.release()
        assert [text async for text in texts] == ["lo", "!"]
        assert text_of(await stream.completion()) == "Hello!"


async def iterate(stream):
    async for _ in stream:
        pass


async def iterate_text(stream):
    async for _ in stream.text():
        pass


async def read_batches(stream):
    while await stream.read() is not None:
        pass


async def read_on(stream):
    await stream.completion()


async def by_map(client):
    async for _ in client.chat.completions.map([{**ASK, "stream": True}]):
        pass


async def by_tools(client):
    def weather(city: str) -> str:
        return city

    async for _ in client.chat.completions.run_tools(**ASK, tools=[weather]):
        pass


async def by_merge(client):
    async for _ in merge([client.chat.completions.stream(**ASK)]):
        pass


async def by_value(client):
    stream = client.chat.completions.stream(**ASK, response_format=list[int])
    async for _ in stream.partial():
        pass


def opened_by(read, *, create):
    async def work(client):
        calls = client.chat.completions
        await read(await calls.create(**ASK, stream=True) if create else calls.stream(**ASK))

    return work


WAYS = {
    "async for": opened_by(iterate, create=True),
    "text()": opened_by(iterate_text, create=True),
    "read()": opened_by(read_batches, create=True),
    "completion()": opened_by(read_on, create=True),
    "async for, stream()": opened_by(iterate, create=False),
    "completion(), stream()": opened_by(read_on, create=False),
    "map": by_map,
    "run_tools": by_tools,
    "merge": by_merge,
    "partial()": by_value,
}
HALF = Answer.stream(["1", "2"])


@pytest.mark.parametrize("how", ["cancel", "timeout", "group"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_cancelled_reader_lets_go_at_once(way, how):
    """Without ``async with``, without the garbage collector, and while somebody holds the task."""
    answer = HALF.stall(HALF.wire.rindex(b"data:", 0, HALF.wire.index(b'"2"')))
    server = FaultServer(default=lambda _: answer)
    async with serving(server, rate_limit=RateLimit(max_concurrency=1)) as client:
        gc.disable()
        try:
            task = asyncio.create_task(WAYS[way](client))
            await server.wait_for_stall()
            if how == "cancel":
                task.cancel()
            elif how == "timeout":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(task, 0)
            else:
                with pytest.raises(ExceptionGroup):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(_outlive(task))
                        group.create_task(_fail())
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert in_flight(client) == 0
            await server.wait_until_closed()
            assert pooled(client)[1] == 0
            assert others() == set()
            assert task.done()  # and is held here until now
        finally:
            gc.enable()


async def _outlive(task):
    await task


async def _fail():
    raise LookupError


async def test_a_timeout_around_a_read_closes_a_stream_that_nobody_else_will():
    answer = HALF.stall(HALF.wire.rindex(b"data:", 0, HALF.wire.index(b'"2"')))
    server = FaultServer(answer)
    async with serving(server) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await stream.completion()
        assert stream.closed
        assert in_flight(client) == 0
        await server.wait_until_closed()
        with pytest.raises(StreamError, match="closed before its end") as caught:
            await stream.completion()
        assert text_of(caught.value.partial) == "1"


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "answer",
    [
        Answer.error(500), Answer.hang_up(), Answer.whole("x").cut(-3), STREAM.cut(STREAM.head_size),
        STREAM.cut(-30), Answer.events(['{"error":"boom"}']), Answer.body(b"nothing"), Answer.hang_up("rst"),
    ],
    ids=["500", "hung up", "cut body", "cut head", "cut stream", "event", "words", "reset"],
)  # fmt: skip
async def test_errors_hold_no_frames_in_a_cycle(answer, stream, attempts):
    """With the collector off, what an error held is gone with the error."""
    retry = RetryPolicy(max_attempts=attempts, base_delay=0.0)
    async with serving(FaultServer(default=answer), retry=retry) as client:
        gc.collect()
        gc.disable()
        # What other tests in this process keep, such as their reports, is not of this call.
        before = [each for each in gc.get_objects() if isinstance(each, KonkoError)]
        kept = {id(each) for each in before}
        try:
            with contextlib.suppress(KonkoError):
                await ask(client, stream=stream)
            for _ in range(3):  # callbacks of the loop that hold the last of it
                await asyncio.sleep(0)
            left = [
                each
                for each in gc.get_objects()
                if isinstance(each, KonkoError) and id(each) not in kept
            ]
            assert [type(each).__name__ for each in left if each.__traceback__ is not None] == []
        finally:
            gc.enable()


async def test_the_server_sees_a_cancelled_stream_go():
    answer = Answer.stream(["Hel", "lo"])
    server = FaultServer(answer.stall(answer.wire.index(b'"lo"') - 120))
    outcomes = []
    async with serving(server, observers=[outcomes.append]) as client:
        first = asyncio.Event()

        async def read():
            async with client.chat.completions.stream(**ASK) as stream:
                async for _ in stream.text():
                    first.set()

        task = asyncio.create_task(read())
        await first.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await server.wait_until_closed()
        assert server.connections.closed_by_peer == 1
        assert outcomes[-1].outcome == "cancelled"
