"""Stream.read(): chunks as they arrive, decoded no further than is needed."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import json
import sys
from pathlib import Path

import pytest
from client_kit import ASK, MESSAGES, MODEL, serving, text_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from konko_async import (
    KonkoError,
    StreamError,
    StreamServerError,
    StreamTruncatedError,
    Timeout,
)
from konko_async.testing import Answer, Emulator, FaultServer, faults

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipe_loop import on_pipes

TOKENS = ["Hel", "lo", " \u2028", '"', "\\", "\n", "é", "😀", ""]


def chunk(text=None, **more):
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": {**delta, **more.pop("delta", {})}, "finish_reason": None}
    choice |= more.pop("choice", {})
    return json.dumps({"id": "c", "created": 1, "model": "m", "choices": [choice], **more})


async def batches_of(stream):
    found = []
    while (batch := await stream.read()) is not None:
        assert len(batch) > 0
        found.append(batch)
    assert await stream.read() is None
    return found


def same(batch):
    """What a batch says by shape and strings is what it says by chunks."""
    chunks = batch.chunks()
    assert len(chunks) == len(batch)
    if batch.shape is not None:
        assert batch.shape.choices[0].delta.content == ""
        assert [json.loads(string) for string in batch.strings] == batch.texts()
        assert [c.choices[0].delta.content for c in chunks] == batch.texts()
        for each in chunks:
            each.choices[0].delta.content = ""
            assert each == batch.shape
    return batch.chunks()


async def test_what_arrived_together_comes_together():
    async with serving(FaultServer(Answer.stream(TOKENS * 3))) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            batches = await batches_of(stream)
            assert text_of(await stream.completion()) == "".join(TOKENS * 3)
    chunks = [c for batch in batches for c in same(batch)]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "".join(TOKENS * 3)
    assert len(batches) < len(chunks)


async def test_chunks_alike_have_one_shape_for_all_batches():
    answer = Answer.stream(["tok"] * 40)
    half = answer.wire.index(b'"tok"', len(answer.wire) // 2) - 60
    async with serving(server := FaultServer(answer.stall(half))) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            reading = asyncio.create_task(batches_of(stream))
            await server.wait_for_stall()
            while stream._ready or not stream._reader._reading:  # until all that came is read
                await asyncio.sleep(0)
            server.release()
            batches = await reading
    shapes = [batch.shape for batch in batches if batch.shape is not None]
    assert shapes
    assert len({id(shape) for shape in shapes}) == 1
    assert {s for b in batches if b.shape is not None for s in b.strings} == {b'"tok"'}


async def test_strings_are_those_of_the_wire():
    escaped = chunk("c").replace('"content": "c"', '"content": "\\u0063\\/"')
    wire = Answer.events([chunk("a"), chunk("b"), escaped, "[DONE]"])
    async with serving(server := FaultServer(wire.stall(wire.wire.index(b'"b"') - 60))) as client:
        async with client.chat.completions.stream(**ASK) as stream:  # what the first one teaches
            await server.wait_for_stall()
            server.release()
            batches = await batches_of(stream)
    strings = [s for b in batches if b.shape is not None for s in b.strings]
    assert strings[-2:] == [b'"b"', b'"\\u0063\\/"']
    texts = [c.choices[0].delta.content for b in batches for c in same(b)]
    assert "".join(texts) == "abc/"


async def test_a_stream_opens_on_its_first_read_and_fails_there():
    async with serving(
        FaultServer(Answer.error(404, "no such model"), Answer.stream(["a"]))
    ) as client:
        stream = client.chat.completions.stream(**ASK)
        for _ in range(2):
            with pytest.raises(KonkoError, match="no such model"):
                await stream.read()
        assert await batches_of(client.chat.completions.stream(**ASK))


async def test_reading_and_iterating_share_one_stream():
    async with serving(FaultServer(Answer.stream(["a", "b", "c"]))) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            assert (await anext(stream)).choices[0].delta.role == "assistant"
            rest = [c for batch in await batches_of(stream) for c in same(batch)]
            assert "".join(c.choices[0].delta.content or "" for c in rest) == "abc"
            assert [c async for c in stream] == []


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (faults.Cut(4), StreamTruncatedError),
        (faults.Cut(4, reset=False), StreamTruncatedError),
        (faults.ErrorInStream(4), StreamServerError),
        (faults.ErrorInStream(4, shape="event"), StreamServerError),
    ],
)
async def test_a_failure_comes_after_what_came_before_it(fault, error):
    emulator = Emulator(answer=lambda _: ["a", "b", "c", "d", "e"])
    async with serving(emulator) as client:
        emulator.script(fault)
        async with client.chat.completions.stream(**ASK) as stream:
            texts = []
            with pytest.raises(error) as caught:
                while (batch := await stream.read()) is not None:
                    texts += [c.choices[0].delta.content or "" for c in same(batch)]
            assert "".join(texts) == text_of(caught.value.partial) == "abc"
            with pytest.raises(error):  # again: it never looks like an end
                await stream.read()


async def test_what_came_before_a_cut_is_not_lost_to_a_reader_that_comes_late():
    answer = Answer.stream(["Hel", "lo", "!"])
    cut = answer.stall(_event(answer, b'"lo"')).cut(_event(answer, b'"!"'))
    async with serving(server := FaultServer(cut)) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            texts = stream.text()
            assert await anext(texts) == "Hel"
            await server.wait_for_stall()
            server.release()
            while stream._reader.answer.content.exception() is None:  # until it has been cut here
                await asyncio.sleep(0)
            assert await anext(texts) == "lo"
            with pytest.raises(StreamTruncatedError) as caught:
                await anext(texts)
            assert text_of(caught.value.partial) == "Hello"


def _event(answer, text):
    """Where the event that brings a text begins."""
    return answer.wire.rindex(b"data:", 0, answer.wire.index(text))


async def test_closed_while_it_is_read():
    answer = Answer.stream(["Hel", "lo"])
    server = FaultServer(answer.stall(answer.wire.index(b'"lo"') - 120))
    async with serving(server) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            while not any(
                "Hel" in c.choices[0].delta.content for c in (await stream.read()).chunks()
            ):
                pass
            reading = asyncio.create_task(stream.read())
            await server.wait_for_stall()
            await asyncio.sleep(0)
            await stream.close()
            with pytest.raises(StreamError):
                await reading
        await server.wait_until_closed()


EVENTS = st.one_of(
    st.builds(chunk, st.sampled_from(TOKENS)),
    st.builds(chunk, st.text(max_size=4)),
    st.just(chunk("x", model="other")),
    st.just(chunk("x", choice={"index": 1})),
    st.just(chunk("x", choice={"logprobs": {"content": [{"token": "x", "logprob": -1}]}})),
    st.just(chunk("x", delta={"role": "assistant"})),
    st.just(
        chunk(None, delta={"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f"}}]})
    ),
    st.just(chunk(None, delta={"reasoning_content": "hm"})),
    st.just(
        '{"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
    ),
    st.just('{"id":"c","created":"12","choices":{"index":0,"delta":{"content":"bent"}}}'),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(EVENTS, max_size=30),
    st.lists(st.integers(1, 700), min_size=1, max_size=30),
)
def test_reading_gives_what_iterating_gives_however_it_is_cut(events, sizes):
    last = chunk("", choice={"finish_reason": "stop"})
    answer = Answer.events([chunk("first"), *events, last, "[DONE]"])
    # The second sends it all at once.
    server = FaultServer(answer.split(sizes), answer, answer.split(sizes))
    asyncio.run(_compare(server, len(events) + 2))


async def _handed_on(stream):
    """All chunks: of those that come while a read waits, half are taken at once."""
    found, asked = [], 0

    def at_once(batch):
        nonlocal asked
        asked += 1
        if asked % 2:
            found.extend(same(batch))
        return bool(asked % 2)

    while (batch := await stream.read(at_once)) is not None:
        found += same(batch)
    return found


async def _compare(server, count):
    async with serving(server) as client:
        async with client.chat.completions.stream(model=MODEL, messages=MESSAGES, n=1) as stream:
            read = [c for batch in await batches_of(stream) for c in same(batch)]
            whole = await stream.completion()
        async with client.chat.completions.stream(model=MODEL, messages=MESSAGES, n=1) as stream:
            iterated = [c async for c in stream]
            assert await stream.completion() == whole
        async with client.chat.completions.stream(model=MODEL, messages=MESSAGES, n=1) as stream:
            handed = await _handed_on(stream)
            assert await stream.completion() == whole
    assert read == iterated == handed
    assert [c.raw for c in read] == [c.raw for c in iterated]
    assert len(read) == count


@pytest.fixture
def fast_path(monkeypatch):
    """Nothing is taken at once where aiohttp's own client stands between."""
    monkeypatch.setenv("KONKO_ASYNC_FAST_PATH", "1")


class Paced(asyncio.Protocol):
    """Answers with events that come one at a time, the last with what ends the stream."""

    def __init__(self, *events, by=1.0):
        last = chunk("", choice={"finish_reason": "stop"})
        events = [f"data: {event}\n\n" for event in (chunk("first"), chunk("second"), *events)]
        self.parts = [*events, f"data: {last}\n\ndata: [DONE]\n\n", ""]
        self.by = by

    async def __aenter__(self):
        self.server = await asyncio.get_running_loop().create_server(lambda: self, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self.server.close()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, _data):
        head = b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.transport.write(b"HTTP/1.1 200 OK\r\n" + head)
        for number, part in enumerate(self.parts):
            framed = b"%x\r\n%b\r\n" % (len(part), part.encode())
            asyncio.get_running_loop().call_later(number * self.by, self.transport.write, framed)


@pytest.mark.usefixtures("fast_path")
@on_pipes
async def test_chunks_alike_can_be_taken_in_the_moment_they_come():
    events = [chunk(f"t{n}") for n in range(8)]
    events.insert(4, chunk("other", model="other"))
    taken, got = [], []

    def at_once(batch):
        assert asyncio.current_task() is None  # none has been woken
        texts = [c.choices[0].delta.content for c in same(batch)]
        if texts == ["t2"]:
            return False
        taken.extend(texts)
        return True

    async with serving(Paced(*events)) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            while (batch := await stream.read(at_once)) is not None:
                got += [c.choices[0].delta.content for c in same(batch)]
            assert await stream.read(at_once) is None
            assert text_of(await stream.completion()) == "firstsecondt0t1t2t3othert4t5t6t7"
    assert [text for text in taken if text] == ["t0", "t1", "t3", "t4", "t5", "t6", "t7"]
    assert [text for text in got if text] == ["first", "second", "t2", "other"]


@pytest.mark.usefixtures("fast_path")
@on_pipes
async def test_chunks_taken_at_once_are_no_silence():
    server = Paced(*[chunk(f"t{n}") for n in range(8)], by=3)
    async with serving(server, timeout=Timeout(idle=5)) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            taken = []
            while await stream.read(lambda batch: taken.extend(batch.texts()) or True) is not None:
                pass
            assert len(taken) == 8


@pytest.mark.usefixtures("fast_path")
@on_pipes
async def test_a_reader_that_is_cancelled_as_chunks_are_refused_loses_none():
    async with serving(Paced(*[chunk(f"t{n}") for n in range(4)])) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            got = []

            def refuse(batch):
                reading.cancel()
                return False

            while True:
                reading = asyncio.ensure_future(stream.read(refuse))
                await asyncio.wait([reading])
                if reading.cancelled():
                    continue
                if (batch := reading.result()) is None:
                    break
                got += [c.choices[0].delta.content for c in same(batch)]
    assert "".join(got) == "firstsecondt0t1t2t3"
