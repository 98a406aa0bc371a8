"""merge(): the deltas of many streams as they come, one waiting for each, and all closed at the end."""

import asyncio
import gc

import pytest

from konko_async import AsyncKonko, InternalServerError, StreamServerError, merge
from konko_async.testing import Emulator, faults

MODEL = "codellama/codellama-13b-instruct"


def echo(body):
    return "answer to " + (
        body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    )


@pytest.fixture
async def emulator():
    async with Emulator(answer=echo) as running:
        yield running


@pytest.fixture
async def client(emulator):
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", retry=None) as made:
        yield made


def ask(client, text):
    return client.chat.completions.stream(model=MODEL, messages=[{"role": "user", "content": text}])


async def collect(merged):
    texts, errors, ends = {}, {}, []
    async for item in merged:
        texts[item.index] = texts.get(item.index, "") + item.text
        if item.done:
            ends.append(item.index)
            assert item.chunk is None
            errors[item.index] = item.error
    return texts, errors, ends


async def test_all_texts_arrive(client):
    streams = [ask(client, f"q{n}") for n in range(10)]
    async with merge(streams) as merged:
        texts, errors, ends = await collect(merged)
    assert texts == {n: f"answer to q{n}" for n in range(10)}
    assert sorted(ends) == list(range(10))
    assert set(errors.values()) == {None}
    assert all(stream.closed for stream in streams)


async def test_streams_are_interleaved(client, emulator):
    emulator.tokens_per_second = 200
    order = []
    async with merge(ask(client, f"one two three {n}") for n in range(3)) as merged:
        async for item in merged:
            order.append(item.index)
            assert item.stream is not None
    half = order[: len(order) // 2]
    assert set(half) == {0, 1, 2}


async def test_open_streams_and_none(client):
    opened = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "x"}], stream=True
    )
    texts, _, _ = await collect(merge([opened]))
    assert texts == {0: "answer to x"}
    assert await collect(merge([])) == ({}, {}, [])


async def test_a_stream_that_fails_ends_with_its_error_and_the_others_go_on(client, emulator):
    emulator.always(faults.Status(500), when=lambda record: "q1" in str(record.body))
    emulator.always(
        faults.ErrorInStream(after_chunks=2), when=lambda record: "q2" in str(record.body)
    )
    texts, errors, _ = await collect(merge(ask(client, f"q{n}") for n in range(3)))
    assert texts[0] == "answer to q0"
    assert isinstance(errors[1], InternalServerError)
    assert isinstance(errors[2], StreamServerError)
    assert errors[0] is None


@pytest.mark.parametrize("way", ["break", "async with", "exception", "cancel", "twice"])
async def test_leaving_early_closes_all(client, emulator, way):
    emulator.always(faults.Stall(after_chunks=2))
    streams = [ask(client, f"a long question {n}") for n in range(4)]
    merged = merge(streams)
    if way == "break":
        async for _ in merged:
            break
        await merged.aclose()
    elif way == "async with":
        async with merged:
            await anext(merged)
    elif way == "exception":
        with pytest.raises(RuntimeError):
            async with merged:
                async for _ in merged:
                    raise RuntimeError
    elif way == "cancel":
        step = asyncio.ensure_future(anext(merged))
        await asyncio.sleep(0)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
    else:
        await anext(merged)
        await merged.aclose()
        await merged.aclose()
        assert [item async for item in merged] == []
    assert all(stream.closed for stream in streams)
    await emulator.wait_until(lambda: emulator.in_flight == 0)


async def test_dropped_without_closing(client, emulator):
    emulator.always(faults.Stall(after_chunks=2))
    merged = merge([ask(client, f"a long question {n}") for n in range(3)])
    await anext(merged)
    del merged
    gc.collect()
    await emulator.wait_until(lambda: emulator.in_flight == 0)


async def test_a_slow_consumer_holds_one_chunk_of_each_stream(client, emulator):
    merged = merge([ask(client, "word " * 50) for _ in range(2)])
    await anext(merged)
    await emulator.wait_until(lambda: emulator.in_flight == 0)
    for _ in range(50):
        await asyncio.sleep(0)
        assert len(merged._state.ready) <= 2
    texts, _, _ = await collect(merged)
    assert texts[0].strip().endswith("word")


async def test_text_completions(client):
    emulator_model = "phind/phind-codellama-34b-v2"
    streams = [client.completions.stream(model=emulator_model, prompt=f"p{n}") for n in range(2)]
    async with merge(streams) as merged:
        items = [item async for item in merged if not item.done]
    assert "".join(item.text for item in items if item.index == 0)


async def test_a_fault_in_a_pump_is_not_hidden():
    class Broken:
        """A stream that fails with an error that is none of ours."""

        closed = False

        def __aiter__(self):
            return self

        async def __anext__(self):
            raise ZeroDivisionError

        async def close(self):
            self.closed = True

    stream = Broken()
    with pytest.raises(ZeroDivisionError):
        async for _ in merge([stream]):
            pass
    assert stream.closed
