"""The events that are made of chunks, beside those that openai's own client makes of the same."""

import asyncio
import json
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1]))
from dialect_kit import ASK, DrawnServer
from pipe_loop import run_on_pipes

from konko_async import AsyncKonko, KonkoError, Timeout
from konko_async._structured.response_format import format_of
from konko_async._structured.stream_events import ChatEvents
from konko_async.errors import (
    ContentFilterFinishReasonError,
    LengthFinishReasonError,
    StructuredOutputError,
    ToolArgumentsError,
)
from konko_async.testing.dialects import draw
from konko_async.wire import ChatCompletionChunk

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")
theirs = pytest.importorskip("openai.lib.streaming.chat")


class Place(pydantic.BaseModel):
    city: str
    people: int = 1


class Look(pydantic.BaseModel):
    city: str


TOOL = openai.pydantic_function_tool(Look, name="look")
LOOSE = {"type": "function", "function": {"name": "loose", "parameters": {}}}
HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def chunk(delta, *, finish=None, index=0, **more):
    choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
    return {**HEAD, "choices": [choice]}


def call(index, arguments, name=None):
    begun = {"id": f"call_{index}", "type": "function"} if name else {}
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"tool_calls": [{"index": index, **begun, "function": function}]}


def token(text):
    return {"token": text, "logprob": -0.5, "bytes": [1], "top_logprobs": []}


def ours_of(chunks, form=None, tools=()):
    made = ChatEvents(format_of(form), tools, None)
    for each in chunks:
        raw = json.dumps(each).encode()
        read = msgspec.json.decode(raw, type=ChatCompletionChunk)
        read._raw = raw
        made.add(read)
        while (event := made.take()) is not None:
            yield event
    made.end()
    while (event := made.take()) is not None:
        yield event


def theirs_of(chunks, form=openai.omit, tools=()):
    state = theirs.ChatCompletionStreamState(response_format=form, input_tools=list(tools))
    for each in chunks:
        yield from state.handle_chunk(openai.types.chat.ChatCompletionChunk.construct(**each))


def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, (Place, Look)):
        return value
    return value.to_dict() if hasattr(value, "to_dict") else value


def told(event):
    """An event as a dict; of a snapshot the text, as it is there to be read at once."""
    if event.type == "chunk":
        # They are shown after their chunk only: what a whole answer tells differs by then.
        return {"type": "chunk", "chunk": event.chunk.to_dict()}
    names = set(getattr(event, "__struct_fields__", None) or type(event).model_fields)
    if event.type.endswith("delta"):
        # openai's shows a string once it is whole; ours as it grows.
        names -= {"parsed", "parsed_arguments"}
    return {name: plain(getattr(event, name)) for name in names}


SCENARIOS = {
    "text": [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, finish="stop"),
        {**HEAD, "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    ],
    "two choices": [
        chunk({"content": "a"}),
        chunk({"content": "b"}, index=1),
        chunk({}, finish="stop", index=1),
        chunk({"content": "c"}, finish="length"),
    ],
    "refusal": [
        chunk({"refusal": ""}),
        chunk({"refusal": "No."}, logprobs={"content": None, "refusal": [token("No.")]}),
        chunk({}, finish="stop"),
    ],
    "log probabilities": [
        chunk({"content": "a"}, logprobs={"content": [token("a")], "refusal": None}),
        chunk({"content": "b"}, logprobs={"content": [token("b")], "refusal": None}),
        chunk({}, finish="stop"),
    ],
    "text, then calls": [
        chunk({"content": "I look."}),
        chunk(call(0, "", "look")),
        chunk(call(0, '{"city": "Par')),
        chunk(call(0, 'is"}')),
        chunk(call(1, '{"x": ', "loose")),
        chunk(call(1, "1}")),
        chunk({}, finish="tool_calls"),
    ],
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_events_as_openai(name):
    chunks, tools = SCENARIOS[name], [TOOL, LOOSE] if "calls" in name else []
    assert [told(each) for each in ours_of(chunks, None, tools)] == [
        told(each) for each in theirs_of(chunks, tools=tools)
    ]


@given(st.lists(st.integers(1, 6), max_size=12), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_model_as_openai_reads_it_wherever_the_text_is_cut(sizes, by_call):
    text = '{"city": "Pa\\u00e9", "people": 12}'
    if by_call:
        text = '{"city": "Pa\\u00e9"}'
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    pieces = [piece for piece in [*pieces, text] if piece]
    if by_call:
        chunks = [chunk(call(0, "", "look")), *(chunk(call(0, piece)) for piece in pieces)]
    else:
        chunks = [chunk({"content": piece}) for piece in pieces]
    chunks.append(chunk({}, finish="stop"))
    form, tools = (None, [TOOL]) if by_call else (Place, [])
    assert [told(each) for each in ours_of(chunks, form, tools)] == [
        told(each) for each in theirs_of(chunks, form or openai.omit, tools)
    ]


def test_values_grow_and_stay_as_they_were_told():
    chunks = [chunk({"content": text}) for text in ('{"ci', 'ty": "Pa', 'ris"', "}")]
    events = list(ours_of([*chunks, chunk({}, finish="stop")], Place))
    grown = [event.parsed for event in events if event.type == "content.delta"]
    assert grown == [{}, {"city": "Pa"}, {"city": "Paris"}, {"city": "Paris"}]
    assert events[-1].parsed == Place(city="Paris")
    # A list stands in an object on the wire, and is told without it.
    text = '{"value": [1, 2]}'
    events = list(ours_of([chunk({"content": text}, finish="stop")], list[int]))
    assert [each.parsed for each in events if each.type != "chunk"] == [[1, 2], [1, 2]]


def test_a_snapshot_has_what_has_been_taken_in():
    made = ChatEvents(format_of(Place), (), None)
    for each in (chunk({"content": '{"city": "Pa'}), chunk({"content": 'ris"}'}, finish="stop")):
        made.add(msgspec.convert(each, ChatCompletionChunk))
    first = made.take()
    # As in openai, where it is one object that grows.
    assert first.snapshot.choices[0].message.parsed == Place(city="Paris")
    assert first.snapshot.choices[0].message.content == '{"city": "Paris"}'


@pytest.mark.parametrize(
    ("reason", "error"),
    [("length", LengthFinishReasonError), ("content_filter", ContentFilterFinishReasonError)],
)
def test_what_was_cut_is_an_error_where_it_is_read(reason, error):
    chunks = [chunk({"content": '{"ci'}), chunk({}, finish=reason)]
    for form, tools in ((Place, ()), (None, [TOOL])):
        with pytest.raises(error):
            list(ours_of(chunks, form, tools))
    for tools in ((), [LOOSE]):
        assert [each.type for each in ours_of(chunks, None, tools)][-1] == "content.done"


def test_what_does_not_fit_is_an_error():
    with pytest.raises(StructuredOutputError):
        list(ours_of([chunk({"content": "{}"}, finish="stop")], Place))
    wrong = [chunk(call(0, "{}", "look")), chunk({}, finish="tool_calls")]
    with pytest.raises(ToolArgumentsError):
        list(ours_of(wrong, None, [TOOL]))


def test_servers_that_bend_the_protocol_lose_no_end():
    # The whole call in the chunk that ends the answer, and the same index for two calls.
    two = {"tool_calls": [*call(0, '{"city": "a"}', "look")["tool_calls"], *call(0, "{}", "loose")["tool_calls"]]}  # fmt: skip
    two["tool_calls"][1]["id"] = "call_other"
    events = list(ours_of([chunk(two, finish="tool_calls")], None, [TOOL, LOOSE]))
    ends = [each for each in events if each.type.endswith("done")]
    assert [(each.index, each.name, each.parsed_arguments) for each in ends] == [
        (0, "look", Look(city="a")),
        (1, "loose", None),
    ]
    # No finish reason at all.
    assert [each.type for each in ours_of([chunk({"content": "a"})])][-1] == "content.done"


async def events_of(streams):
    """Read drawn streams as events; yield these, and the whole answer."""
    loop, next_one = asyncio.get_running_loop(), [None]
    server = await loop.create_server(lambda: DrawnServer(next_one), "127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    options = {"retry": None, "circuit_breaker": None, "timeout": Timeout(first_token=60, idle=60)}
    read = []
    async with AsyncKonko("sk-test-0123456789", base_url, **options) as client:
        for drawn in streams:
            next_one[0] = drawn
            try:
                async with client.chat.completions.stream(**ASK, n=drawn.choices) as stream:
                    events = [event async for event in stream.events()]
                    shown = stream.current_completion_snapshot
                    read.append((drawn.seed, events, shown, await stream.completion()))
            except KonkoError:  # what is wrong with them is another test's
                continue
    server.close()
    await server.wait_closed()
    return read


def test_no_dialect_of_a_server_makes_the_ends_untrue():
    """Such as a finish reason in each chunk, or calls whose pieces alternate."""
    read = run_on_pipes(events_of([draw(seed) for seed in range(150)]))
    assert len(read) > 60
    for seed, events, shown, whole in read:
        said = [choice.message for choice in whole.choices]
        assert [choice.message.content for choice in shown.choices] == [m.content for m in said]
        texts = [event.content for event in events if event.type == "content.done"]
        assert sorted(texts) == sorted(m.content for m in said if m.content), seed
        ends = [event for event in events if event.type == "tool_calls.function.arguments.done"]
        calls = [call.function for m in said for call in m.tool_calls or ()]
        assert sorted((end.name, end.arguments) for end in ends) == sorted(
            (call.name, call.arguments) for call in calls
        ), seed
