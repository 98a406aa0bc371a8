"""Events in the place of chunks: where a user of openai's client finds them, and nobody else."""

import asyncio
import gc
import inspect
import io
import itertools
import json
import weakref

import pytest
from client_kit import ASK, make_client

import konko_async.blocking as konko
from konko_async import (
    ChatCompletionChunk,
    KonkoError,
    ParsedEventStream,
    StructuredOutputError,
    merge,
)
from konko_async.testing import Answer, Emulator, FaultServer
from konko_async.wire import FileList
from konko_async.wire._events import ContentDoneEvent

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")
rich = pytest.importorskip("rich")


class Place(pydantic.BaseModel):
    city: str


PARIS = '{"city": "Paris"}'


@pytest.fixture
async def emulator():
    async with Emulator(answer=lambda _: PARIS) as running:
        yield running


@pytest.fixture
async def client(emulator):
    async with make_client(emulator) as made:
        yield made


def text_of(chunks):
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


async def test_iterating_gives_chunks(client):
    for make in (
        lambda: client.chat.completions.stream(**ASK),
        lambda: client.chat.completions.stream(**ASK, response_format={"type": "json_object"}),
        lambda: client.chat.completions.stream(**ASK, response_format=dict[str, str]),
    ):
        async with make() as stream:
            chunks = [chunk async for chunk in stream]
        assert {type(chunk) for chunk in chunks} == {ChatCompletionChunk}
        assert text_of(chunks) == PARIS
        # Too late: they have been given as chunks.
        with pytest.raises(AttributeError, match=r"come from stream\.events\(\)"):
            _ = chunks[0].type
    created = await client.chat.completions.create(**ASK, stream=True)
    async for chunk in created:
        assert not hasattr(chunk, "type")


async def test_a_loop_written_for_openai_runs_as_it_is(client):
    """Whose first look at an item is at its type."""
    seen, text, reports = [], "", []
    async with client.chat.completions.stream(**ASK) as stream:
        async for event in stream:
            seen.append(event.type)
            if event.type == "chunk":
                reports.append((event.chunk.id, event.snapshot.choices[0].message.content))
            if event.type == "content.delta":
                text += event.delta
                assert event.snapshot == text
            if event.type == "content.done":
                assert event.content == PARIS
        completion = await stream.get_final_completion()
        assert stream.current_completion_snapshot.choices == completion.choices
        assert type(completion).__name__ == "ParsedChatCompletion"
    assert text == PARIS == completion.choices[0].message.content
    # Each chunk, then what it brings; the first one is told as the others are.
    assert (seen[0], seen.count("content.done")) == ("chunk", 1)
    assert len(reports) == seen.count("chunk")
    assert reports[-1] == (completion.id, PARIS)
    async with client.chat.completions.stream(**ASK) as stream:
        assert [event.type async for event in stream.events()] == seen
    opened = await client.chat.completions.create(**ASK, stream=True)
    assert [event.type async for event in opened.events()] == seen


async def test_a_debugger_that_looks_at_a_chunk_changes_nothing(client):
    async with client.chat.completions.stream(**ASK) as stream:
        chunks = []
        async for chunk in stream:
            dict(inspect.getmembers(chunk))
            repr(chunk), rich.print(chunk, file=io.StringIO())
            chunks.append(chunk)
    assert text_of(chunks) == PARIS


async def test_models_give_events(client):
    async with client.chat.completions.stream(**ASK, response_format=Place) as stream:
        assert isinstance(stream, ParsedEventStream)
        events = [event async for event in stream]
        whole = await stream.get_final_completion()
    (done,) = (event for event in events if event.type == "content.done")
    assert isinstance(done, ContentDoneEvent)
    assert done.parsed == whole.choices[0].message.parsed == Place(city="Paris")
    async with client.chat.completions.stream(**ASK, response_format=Place) as stream:
        assert text_of([chunk async for chunk in stream.chunks()]) == PARIS
    async with merge([client.chat.completions.stream(**ASK, response_format=Place)]) as merged:
        assert text_of([item.chunk async for item in merged if not item.done]) == PARIS
    tools = [openai.pydantic_function_tool(Place)]
    async with client.chat.completions.stream(**ASK, tools=tools) as stream:
        assert (await anext(aiter(stream))).type == "chunk"
        # The rest is there by every other name.
        assert PARIS.endswith("".join([text async for text in stream.text()]))
        assert (await stream.completion()).choices[0].message.content == PARIS


async def test_a_snapshot_of_chunks():
    """Where the chunks themselves were iterated over."""
    function = {"name": "look", "arguments": '{"city": "Par'}
    call = {"index": 0, "id": "c", "type": "function", "function": function}
    strict = {"type": "function", "function": {"name": "look", "strict": True, "parameters": {}}}
    chunk = {"id": "1", "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
    end = {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    answer = Answer.events([json.dumps(chunk), json.dumps(end), "[DONE]"])
    async with (
        FaultServer(answer) as server,
        make_client(server) as client,
        client.chat.completions.stream(**ASK, tools=[strict]) as stream,
    ):
        _ = [chunk async for chunk in stream]
        (made,) = stream.current_completion_snapshot.choices[0].message.tool_calls
        assert made.function.parsed_arguments == {"city": "Par"}
        with pytest.raises(KonkoError, match="before it was opened"):
            _ = client.chat.completions.stream(**ASK).current_completion_snapshot


async def test_an_answer_that_does_not_fit_says_what_was_tried():
    async with (
        Emulator(answer=lambda _: "{}") as emulator,
        make_client(emulator) as client,
        client.chat.completions.stream(**ASK, response_format=Place) as stream,
    ):
        with pytest.raises(StructuredOutputError, match="city") as caught:
            _ = [event async for event in stream]
        assert caught.value.attempts == stream.attempts != ()


async def test_a_stream_can_be_awaited_until_it_is_open(client):
    new = client.chat.completions.stream(**ASK)
    assert inspect.isawaitable(new)
    stream = await new
    # What takes both kinds of functions would await it once more.
    assert stream is new
    assert not inspect.isawaitable(stream)
    assert text_of([chunk async for chunk in stream]) == PARIS
    closed = client.completions.stream(model=ASK["model"], prompt="a")
    await closed.close()
    with pytest.raises(KonkoError, match="closed before it was opened"):
        await closed


async def test_a_chunk_that_is_kept_keeps_no_stream(client):
    stream = await client.chat.completions.stream(**ASK)
    first = await anext(stream)
    kept = weakref.ref(stream)
    await stream.close()
    del stream
    gc.collect()
    assert kept() is None
    assert not hasattr(first, "type")


async def test_events_without_await(emulator):
    def work():
        with konko.Konko("k", emulator.base_url) as client:
            with client.chat.completions.stream(**ASK) as stream:
                types = [event.type for event in stream]
                assert types[:2] == ["chunk", "content.delta"]
            with client.chat.completions.stream(**ASK) as stream:
                assert [event.type for event in stream.events()] == types
            with client.chat.completions.stream(**ASK) as stream:
                assert isinstance(stream, konko.ChatStream)
                assert text_of(stream) == PARIS
            with client.chat.completions.stream(**ASK, response_format=Place) as stream:
                assert text_of(stream.chunks()) == PARIS
            with client.chat.completions.stream(**ASK, response_format=Place) as stream:
                assert isinstance(stream, konko.ParsedEventStream)
                assert [event.type for event in stream] == types

    await asyncio.to_thread(work)


async def test_responses_and_lists_without_await(emulator):
    def work():
        with konko.Konko("k", emulator.base_url) as client:
            raw = client.chat.completions.with_raw_response
            answer = raw.create(**ASK)
            assert answer.status_code == 200
            assert "authorization" not in answer.http_request.headers
            assert answer.parse().choices[0].message.content == PARIS
            streamed = raw.create(**ASK, stream=True).parse()
            assert "".join(streamed.text()) == PARIS
            typed = raw.parse(**ASK, response_format=Place).parse()
            assert typed.choices[0].message.parsed == Place(city="Paris")
            slowly = client.chat.completions.with_streaming_response
            with slowly.create(**ASK) as opened:
                assert b"Paris" in b"".join(opened.iter_bytes())
            with slowly.create(**ASK) as opened:
                assert opened.parse().choices[0].message.content == PARIS
            made = [client.files.create(file=b"x", purpose="batch").id for _ in range(5)]
            page = client.files.list(limit=2, order="asc")
            assert isinstance(page, FileList)
            assert [file.id for file in page.data] == made[:2]
            assert page.has_more
            assert page.to_dict()["data"][0]["id"] == made[0]
            before = emulator.received
            assert [file.id for file in page] == [file.id for file in page] == made
            assert emulator.received - before == 4
            # The next page is fetched when it is needed.
            assert [file.id for file in itertools.islice(page, 2)] == made[:2]
            assert emulator.received - before == 4
            assert list(client.batches.list(limit=1)) == []

    await asyncio.to_thread(work)
