"""Streams as users hold them: left early, read twice, dropped, slow."""

# ruff: noqa: SIM117, PT031 - a line for each thing that is opened

import asyncio
import gc
import tracemalloc

import pytest
from client_kit import ASK, KEY, MESSAGES, MODEL, ask, in_flight, pooled, serving, text_of

from konko_async import (
    AsyncKonko,
    KonkoError,
    NotFoundError,
    StreamError,
    Timeout,
)
from konko_async.testing import Answer, FaultServer

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
STREAM = Answer.stream(["Hel", "lo"], usage=USAGE, headers={"x-request-id": "req-7"})
HALF = STREAM.stall(STREAM.wire.index(b'"lo"') - 120)


async def test_what_a_stream_tells():
    async with serving(FaultServer(STREAM)) as client:
        stream = client.chat.completions.stream(**ASK)
        assert repr(stream) == "<ChatStream new>"
        assert (stream.request_id, stream.attempts, stream.time_to_first_token) == (None, (), None)
        async with stream:
            assert repr(stream) == "<ChatStream open>"
            chunks = [chunk async for chunk in stream]
        assert repr(stream) == "<ChatStream closed>"
        assert stream.request_id == "req-7"
        assert [attempt.number for attempt in stream.attempts] == [1]
        assert 0 < stream.time_to_first_token < 5
        assert stream.usage.total_tokens == 5
        assert [c.choices[0].delta.content for c in chunks[1:3]] == ["Hel", "lo"]
        assert chunks[1].raw["choices"][0]["delta"] == {"content": "Hel"}
        completion = await stream.completion()
        assert completion.request_id == "req-7"
        assert completion.usage.total_tokens == 5
        assert text_of(completion) == "Hello"
        assert completion is not await stream.completion()
        assert text_of(await stream.completion()) == "Hello"


async def test_a_stream_opens_on_first_use():
    async with serving(FaultServer(STREAM)) as client:
        assert [t async for t in client.chat.completions.stream(**ASK).text()] == ["Hel", "lo"]
        assert text_of(await client.chat.completions.stream(**ASK).completion()) == "Hello"
        async for chunk in client.chat.completions.stream(**ASK):
            assert chunk.choices or chunk.usage


async def test_chunks_then_completion_has_all_of_it():
    async with serving(FaultServer(STREAM)) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            async for text in stream.text():
                assert text == "Hel"
                break
            assert text_of(await stream.completion()) == "Hello"


@pytest.mark.parametrize("how", ["break", "close", "raise"])
async def test_left_early(how):
    server = FaultServer(HALF)
    async with serving(server) as client:
        if how == "close":
            stream = await client.chat.completions.create(**ASK, stream=True)
            await anext(stream)
            await stream.close()
            await stream.close()
        else:
            try:
                async with client.chat.completions.stream(**ASK) as stream:
                    async for _ in stream:
                        if how == "raise":
                            raise LookupError
                        break
            except LookupError:
                pass
        assert stream.closed
        assert in_flight(client) == 0
        await server.wait_until_closed()
        assert server.connections.closed_by_peer == 1
        with pytest.raises(StreamError, match="closed before its end") as caught:
            await stream.completion()
        assert text_of(caught.value.partial) == "Hel"
        with pytest.raises(StreamError):
            async for _ in stream.text():
                pass


async def test_dropped_on_the_floor():
    server = FaultServer(HALF)
    async with serving(server) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        await anext(stream)
        with pytest.warns(ResourceWarning, match="unclosed ChatStream"):
            del stream
            gc.collect()
        await server.wait_until_closed()
        assert in_flight(client) == 0
        assert pooled(client) == (0, 0)


async def test_a_generator_over_a_stream_that_is_dropped():
    server = FaultServer(HALF)
    async with serving(server) as client:

        async def words():
            async with client.chat.completions.stream(**ASK) as stream:
                async for text in stream.text():
                    yield text

        generator = words()
        assert await anext(generator) == "Hel"
        await generator.aclose()
        await server.wait_until_closed()


async def test_two_tasks_cannot_read_one_stream():
    server = FaultServer(HALF)
    async with serving(server) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            await anext(stream.text())
            await server.wait_for_stall()
            waiting = asyncio.create_task(stream.completion())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await anext(stream)
            server.release()
            assert text_of(await waiting) == "Hello"


async def test_two_tasks_cannot_open_one_stream():
    server = FaultServer(STREAM)
    async with serving(server) as client:
        stream = client.chat.completions.stream(**ASK)
        opening = asyncio.create_task(stream.completion())
        await asyncio.sleep(0)
        with pytest.raises(KonkoError, match="being opened"):
            await anext(stream)
        assert text_of(await opening) == "Hello"


async def test_closed_by_another_task_while_it_is_read():
    server = FaultServer(HALF)
    async with serving(server) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert await anext(stream.text()) == "Hel"
        waiting = asyncio.create_task(stream.completion())
        await asyncio.sleep(0)
        await stream.close()
        with pytest.raises(StreamError, match="closed before its end") as caught:
            await waiting
        assert text_of(caught.value.partial) == "Hel"
        await server.wait_until_closed()


async def test_closed_by_another_task_while_it_is_opened():
    server = FaultServer(STREAM.stall(0), STREAM)
    async with serving(server) as client:
        stream = client.chat.completions.stream(**ASK)
        opening = asyncio.create_task(stream.completion())
        await server.wait_for_stall()
        await stream.close()
        server.release()
        with pytest.raises(StreamError):
            await opening
        assert in_flight(client) == 0
        await server.wait_until_closed()


async def test_a_stream_that_could_not_be_opened_does_not_look_empty():
    async with serving(FaultServer(Answer.error(404, "no such model"))) as client:
        stream = client.chat.completions.stream(**ASK)
        for _ in range(2):
            with pytest.raises(NotFoundError, match="no such model"):
                await anext(stream)
        with pytest.raises(NotFoundError):
            await stream.completion()
        stream = client.chat.completions.stream(**ASK)
        await stream.close()
        with pytest.raises(KonkoError, match="closed before it was opened"):
            await stream.completion()


async def test_opening_that_was_cancelled_does_not_look_empty():
    server = FaultServer(STREAM.stall(0))
    async with serving(server) as client:
        stream = client.chat.completions.stream(**ASK)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(stream)
        with pytest.raises(KonkoError, match="given up"):
            await anext(stream)


async def test_a_client_closed_under_a_stream_cuts_it():
    server = FaultServer(HALF)
    async with serving(server, timeout=Timeout(idle=5)) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert await anext(stream.text()) == "Hel"
        waiting = asyncio.create_task(stream.completion())
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(StreamError) as caught:
            await waiting
        assert text_of(caught.value.partial) == "Hel"
        await server.wait_until_closed()


async def test_back_pressure_reaches_the_socket():
    """A consumer that does not read holds the sender up, and memory with it."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 1000)
    sent = 0

    def pieces():
        nonlocal sent
        for _ in range(40_000):
            sent += len(event)
            yield event

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        )
        try:
            for piece in pieces():
                writer.write(piece)
                await writer.drain()
            writer.write(b"data: [DONE]\n\n")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
            finished.set()

    finished = asyncio.Event()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, AsyncKonko(KEY, url) as client:
        tracemalloc.start()
        async with client.chat.completions.stream(**ASK) as stream:
            await anext(stream)
            before = -1
            while sent != before:  # until it moves no more
                before = sent
                stalled = asyncio.Event()
                asyncio.get_running_loop().call_later(0.05, stalled.set)
                await stalled.wait()
            assert sent < 20_000_000 < 40_000 * len(event)
            assert tracemalloc.get_traced_memory()[0] < 10_000_000
            await stream.close()
        tracemalloc.stop()
        await finished.wait()


async def test_completions_stream_too():
    events = [
        '{"choices":[{"index":0,"text":"Hel"}]}',
        '{"choices":[{"index":0,"text":"lo","finish_reason":"stop"}]}',
        "[DONE]",
    ]
    async with serving(FaultServer(Answer.events(events))) as client:
        async with client.completions.stream(model=MODEL, prompt="Say") as stream:
            assert [text async for text in stream.text()] == ["Hel", "lo"]
            assert (await stream.completion()).choices[0].text == "Hello"
        stream = await client.completions.create(model=MODEL, prompt="Say", stream=True)
        assert repr(stream) == "<CompletionStream open>"
        await stream.close()
        stream = await client.completions.create(model=MODEL, prompt="Say", stream=True)
        assert (await stream.completion()).choices[0].text == "Hello"


async def test_text_is_that_of_choice_0():
    events = [
        '{"choices":[{"index":1,"delta":{"content":"other"}},{"index":0,"delta":{"content":"this"}}]}',
        '{"choices":[{"index":1,"delta":{"content":"other"}}]}',
        "[DONE]",
    ]
    async with serving(FaultServer(Answer.events(events))) as client:
        async with client.chat.completions.stream(model=MODEL, messages=MESSAGES, n=2) as stream:
            assert [text async for text in stream.text()] == ["this"]
            assert [c.message.content for c in (await stream.completion()).choices] == [
                "this",
                "otherother",
            ]


async def test_many_streams_at_once():
    server = FaultServer(STREAM.split_every(100))
    async with serving(server) as client:
        answers = await asyncio.gather(*(ask(client, stream=True) for _ in range(100)))
        assert {text_of(answer) for answer in answers} == {"Hello"}
        assert pooled(client)[1] == 0
        assert server.connections.opened <= 100
