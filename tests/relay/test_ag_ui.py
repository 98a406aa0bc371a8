"""AG-UI as payloads and over HTTP: a reader that keeps the protocol's rules ends up right.

The published schema and the SDK's own client read the same in tests/ecosystem/suites.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_kit import MODEL, relaying
from test_ui_message import STATS, alike, batch, chunk, piece

from konko_async import StreamStalledError
from konko_async._streaming.accumulate import ChatAccumulator
from konko_async.relay import AG_UI, AGUIFormat, RefusalError, RelayOptions
from konko_async.relay._formats.base import StreamStats
from konko_async.testing import Answer, Emulator, FaultServer, answer_from_prompt
from konko_async.wire import Usage

PATH = "/api/ag-ui"
RUN = {"threadId": "t", "runId": "r"}
OPTIONS = RelayOptions(models=[MODEL])


def body(*messages, **more):
    found = [{"id": str(number), **message} for number, message in enumerate(messages)]
    return {
        **RUN, "messages": found or [user("Say hello.")], "tools": [], "context": [], "state": {},
        "forwardedProps": {}, **more,
    }  # fmt: skip


def user(content):
    return {"id": "u", "role": "user", "content": content}


class Reader:
    """What `verifyEvents` and `defaultApplyEvents` of @ag-ui/client do."""

    def __init__(self):
        self.kinds, self.texts, self.open, self.tools, self.results = [], {}, {}, {}, {}
        self.ended = None
        self.last = {}

    def feed(self, payloads):
        for payload in payloads:
            assert b"\n" not in payload
            self.take(json.loads(payload))
        return self

    def take(self, event):
        kind = event["type"]
        self.kinds.append(kind)
        self.last = event
        assert self.ended is None, "something came after the end of the run"
        if kind == "RUN_STARTED":
            assert self.kinds == [kind]
        elif kind in {"TEXT_MESSAGE_START", "REASONING_MESSAGE_START"}:
            assert event["messageId"] not in self.texts
            self.texts[event["messageId"]] = ""
            self.open[event["messageId"]] = kind
        elif kind in {"TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT"}:
            assert event["delta"]
            assert self.open[event["messageId"]] == kind.replace("CONTENT", "START")
            self.texts[event["messageId"]] += event["delta"]
        elif kind in {"TEXT_MESSAGE_END", "REASONING_MESSAGE_END", "TOOL_CALL_END"}:
            del self.open[event.get("messageId") or event["toolCallId"]]
        elif kind == "TOOL_CALL_START":
            assert event["toolCallId"] not in self.tools
            self.tools[event["toolCallId"]] = [event["toolCallName"], ""]
            self.open[event["toolCallId"]] = kind
        elif kind == "TOOL_CALL_ARGS":
            assert event["toolCallId"] in self.open
            self.tools[event["toolCallId"]][1] += event["delta"]
        elif kind == "TOOL_CALL_RESULT":
            assert event["toolCallId"] in self.tools
            self.results[event["toolCallId"]] = event["content"]
        elif kind == "RUN_FINISHED":
            assert not self.open, "the run ended with something open"
            self.ended = event["outcome"]["type"]
        elif kind == "RUN_ERROR":
            self.ended = "error"

    def text(self):
        return "".join(self.texts.values())


def ended(*deltas, finish="stop"):
    """A format that has taken chunks, and what a reader has read of it."""
    form = AGUIFormat(thread_id="t", run_id="r")
    reader = Reader().feed(form.begin(None))
    whole = ChatAccumulator()
    for delta in [*deltas, {}]:
        made = chunk(delta, finish=None if delta else finish)
        whole.add([made])
        reader.feed(form.take(batch(made)))
    return reader.feed(form.end(whole.result(), STATS))


def test_an_answer_from_its_start_to_its_end():
    form = AGUIFormat(thread_id="t", run_id="r", model="alias")
    usage = Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
    payloads = [
        *form.begin("abc"),
        *form.take(batch(chunk({"role": "assistant", "reasoning": "Well."}))),
        *form.take(batch(chunk({"content": "Hel"}))),
        *form.take(alike("lo", ", ")),
        *form.end(None, StreamStats(duration=1.0, usage=usage)),
    ]
    assert [json.loads(payload) for payload in payloads] == [
        {"type": "RUN_STARTED", **RUN},
        {"type": "REASONING_START", "messageId": "r-1"},
        {"type": "REASONING_MESSAGE_START", "messageId": "r-1", "role": "reasoning"},
        {"type": "REASONING_MESSAGE_CONTENT", "messageId": "r-1", "delta": "Well."},
        {"type": "REASONING_MESSAGE_END", "messageId": "r-1"},
        {"type": "REASONING_END", "messageId": "r-1"},
        {"type": "TEXT_MESSAGE_START", "messageId": "r-2", "role": "assistant"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "r-2", "delta": "Hel"},
        {"type": "TEXT_MESSAGE_CONTENT", "messageId": "r-2", "delta": "lo, "},
        {"type": "TEXT_MESSAGE_END", "messageId": "r-2"},
        {
            "type": "RUN_FINISHED",
            **RUN,
            "outcome": {"type": "success"},
            "usage": [{"model": "alias", "inputTokens": 3, "outputTokens": 4, "totalTokens": 7}],
        },
    ]


@given(st.lists(st.tuples(st.sampled_from(["content", "reasoning", "refusal"]), st.text())))
def test_nothing_is_lost_whatever_comes(said):
    reader = ended(*[{kind: text} for kind, text in said if text])
    assert reader.text() == "".join(text for _, text in said)
    assert reader.ended == "success"


@pytest.mark.parametrize(
    ("pieces", "finish", "end", "arguments"),
    [
        (['{"a":', "1}"], "tool_calls", "success", '{"a":1}'),
        ([""], "tool_calls", "success", "{}"),
        (['{"a":'], "tool_calls", "error", '{"a":'),
        (['{"a":1}'], "length", "error", '{"a":1}'),
    ],
)
def test_calls_of_the_browsers_tools(pieces, finish, end, arguments):
    deltas = [{"tool_calls": [piece(0, "c1", "look", pieces[0])]}]
    deltas += [{"tool_calls": [piece(0, None, None, more)]} for more in pieces[1:]]
    reader = ended({"content": "Let me look."}, *deltas, finish=finish)
    assert reader.tools == {"c1": ["look", arguments]}
    assert (reader.ended, "c1" in reader.open) == (end, end == "error")


def test_failures_and_stops():
    for close, end in (
        (lambda form: form.fail(StreamStalledError("no token")), "error"),
        (lambda form: form.stop("stopped"), "cancelled"),
        (lambda form: form.stop("shutdown"), "error"),
    ):
        form = AGUIFormat()
        reader = Reader().feed(form.begin(None)).feed(form.take(alike("a")))
        assert reader.feed(close(form)).ended == end
        assert not reader.open
    form = AGUIFormat()
    reader = Reader().feed(form.take(batch(chunk({"tool_calls": [piece(0, "c", "f", "{")]}))))
    assert reader.feed(form.stop("stopped")).ended == "error"


# -- requests --------------------------------------------------------------------------------------


def test_a_run_becomes_a_call():
    image = {"type": "image", "source": {"type": "data", "value": "AAAA", "mimeType": "image/png"}}
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "not JSON"}}
    left = {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    found = AG_UI.parse(
        body(
            {"role": "system", "content": "Be brief."},
            user([{"type": "text", "text": "What?"}, image]),
            {"role": "reasoning", "content": "Hm."},
            {"role": "activity", "activityType": "x", "content": {}},
            {"role": "assistant", "content": None, "toolCalls": [call, left]},
            {"role": "tool", "toolCallId": "c1", "content": "done"},
            {"role": "assistant", "content": "Yes."},
            user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
            tools=[{"name": "f", "description": "F", "parameters": {"type": "object"}}],
            context=[{"description": "place", "value": "Paris"}],
            forwardedProps={"temperature": 0.5, "model": MODEL, "stream": False},
        ),
        OPTIONS,
    )
    assert [message["role"] for message in found.messages] == [
        "system", "system", "user", "assistant", "tool", "assistant", "user",
    ]  # fmt: skip
    assert found.messages[0]["content"] == "Context:\nplace: Paris"
    assert found.messages[2]["content"][1]["image_url"]["url"] == "data:image/png;base64,AAAA"
    assert [each["id"] for each in found.messages[3]["tool_calls"]] == ["c1"]
    assert json.loads(found.messages[3]["tool_calls"][0]["function"]["arguments"]) is not None
    assert found.messages[6]["content"] == "a\nb"
    assert found.params["temperature"] == 0.5
    assert found.params["tools"][0]["function"]["name"] == "f"
    assert (found.model, found.key, found.message_id, found.stream) == (MODEL, "t", "r", True)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ([], None),
        ({**body(), "threadId": ""}, "threadId"),
        ({**body(), "messages": []}, "messages"),
        ({**body(), "messages": [{"id": "1", "role": "king", "content": "x"}]}, "messages[0].role"),
        ({**body(), "messages": [user([])]}, "messages[0].content"),
        ({**body(), "messages": [user([{"type": "audio"}])]}, "messages[0].content[0]"),
        ({**body(), "messages": [{"role": "tool", "content": "x"}]}, "messages[0].toolCallId"),
        ({**body(), "forwardedProps": 3}, "forwardedProps"),
        ({**body(), "resume": [{"interruptId": "1", "status": "resolved"}]}, "resume"),
    ],
)
def test_what_cannot_be_understood_names_the_field(wrong, where):
    with pytest.raises(RefusalError) as caught:
        AG_UI.parse(wrong, OPTIONS)
    assert caught.value.param == where


# -- over HTTP -------------------------------------------------------------------------------------


async def read(relay, **more):
    status, _, events = await relay.events(body(**more), path=PATH)
    assert status == 200
    return Reader().feed([event.data.encode() for event in events])


async def test_over_http_with_tools_of_the_browser():
    async with relaying(Emulator(answer=answer_from_prompt), params=["tools"]) as relay:
        reader = await read(relay)
        assert reader.ended == "success"
        assert reader.text()
        tool = {"name": "add", "description": "", "parameters": {
            "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}  # fmt: skip
        reader = await read(relay, messages=[user("Call add with 3")], tools=[tool])
        assert list(reader.tools.values()) == [["add", '{"a":3}']]
        assert (await relay.events({**body(), "runId": None}, path=PATH))[0] == 400


async def test_a_cut_answer_ends_with_an_error():
    stream = Answer.stream(["Hel", "lo"])
    async with relaying(FaultServer(stream.cut(-60))) as relay:
        reader = await read(relay)
        assert (reader.ended, reader.text()) == ("error", "Hello")


async def test_a_run_of_tools_on_this_side():
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    async with relaying(Emulator(answer=answer_from_prompt)) as relay:
        run = relay.client.chat.completions.run_tools(
            model=MODEL, messages=[user("What is add of 3 and 4?")], tools=[add]
        )
        form = AGUIFormat(thread_id="t", run_id="r")
        reader = Reader().feed(form.begin(None))
        async for event in run:
            reader.feed(form.tell(event))
        reader.feed(form.end(run.result.completion, STATS))
        assert list(reader.tools.values()) == [["add", '{"a":3,"b":4}']]
        assert list(reader.results.values()) == ["7"]
        assert reader.text()
