"""The UI message stream as payloads: whatever the chunks, a reader of the protocol ends up right."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async import (
    ChatCompletion,
    ChatCompletionChunk,
    ChunkBatch,
    StreamStalledError,
    StreamTruncatedError,
)
from konko_async._streaming.accumulate import ChatAccumulator
from konko_async._streaming.delta_template import DeltaTemplate
from konko_async.relay._formats.base import StreamStats
from konko_async.relay._formats.ui_message import UIMessageFormat
from konko_async.wire import Choice, Usage

STATS = StreamStats(time_to_first_token=0.25, duration=1.5)
decode = msgspec.json.Decoder(ChatCompletionChunk).decode


def chunk(delta, *, index=0, finish=None):
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return decode(json.dumps({"id": "c", "model": "m", "created": 1, "choices": [choice]}))


def batch(*chunks):
    return ChunkBatch(list(chunks), None)


def alike(*texts, index=0):
    """Chunks that differ in nothing but their text, as a stream hands them out."""
    head = b'{"id":"c","choices":[{"index":%d,"delta":{"content":' % index
    tail = b"}}]}"
    raw = head + b'"x"' + tail
    template = DeltaTemplate.learn(raw, decode(raw))
    return ChunkBatch(list(texts), [json.dumps(text).encode() for text in texts], template)


class Reader:
    """What `processUIMessageStream` of the AI SDK does, as far as its rules can be broken."""

    def __init__(self):
        self.parts, self.open, self.tools = [], {}, {}
        self.events = []
        self.id = self.metadata = self.finish = self.error = None
        self.over = False

    def feed(self, payloads):
        for payload in payloads:
            assert not self.over, "something came after [DONE]"
            assert b"\n" not in payload
            assert b"\r" not in payload
            if payload == b"[DONE]":
                self.over = True
            else:
                self.take(json.loads(payload))
        return self

    def take(self, event):
        kind = event["type"]
        self.events.append(kind)
        if kind == "start":
            self.id = event.get("messageId")
        elif kind in {"text-start", "reasoning-start"}:
            part = {"type": kind.split("-")[0], "text": "", "done": False}
            assert event["id"] not in self.open
            self.open[event["id"]] = part
            self.parts.append(part)
        elif kind in {"text-delta", "reasoning-delta"}:
            part = self.open[event["id"]]  # the SDK throws where it is not open
            assert part["type"] == kind.split("-")[0]
            assert event["delta"]
            part["text"] += event["delta"]
        elif kind in {"text-end", "reasoning-end"}:
            self.open.pop(event["id"])["done"] = True
        elif kind == "tool-input-start":
            assert event["toolCallId"] not in self.tools
            self.tools[event["toolCallId"]] = {"name": event["toolName"], "text": ""}
        elif kind == "tool-input-delta":
            self.tools[event["toolCallId"]]["text"] += event["inputTextDelta"]
        elif kind in {"tool-input-available", "tool-input-error"}:
            tool = self.tools[event["toolCallId"]]
            tool["name"] = event["toolName"]  # the SDK takes the last
            tool["input"], tool["whole"] = event["input"], kind == "tool-input-available"
        elif kind == "finish":
            self.finish, self.metadata = event["finishReason"], event.get("messageMetadata")
        elif kind == "error":
            self.error = event["errorText"]

    def text(self, kind="text"):
        return "".join(part["text"] for part in self.parts if part["type"] == kind)


def test_an_answer_from_its_start_to_its_end():
    form = UIMessageFormat()
    payloads = [
        *form.begin("abc"),
        *form.take(batch(chunk({"role": "assistant", "content": "Hel"}))),
        *form.take(alike("lo", ", ")),
        *form.take(alike("world")),
        *form.take(batch(chunk({}, finish="stop"))),
    ]
    completion = ChatAccumulator()
    completion.add([chunk({"content": "Hello"}), chunk({}, finish="stop")])
    payloads += form.end(completion.result(), STATS)
    assert [p if p == b"[DONE]" else json.loads(p) for p in payloads] == [
        {"type": "start", "messageId": "abc"},
        {"type": "start-step"},
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "Hel"},
        {"type": "text-delta", "id": "text-1", "delta": "lo, "},
        {"type": "text-delta", "id": "text-1", "delta": "world"},
        {"type": "text-end", "id": "text-1"},
        {"type": "finish-step"},
        {
            "type": "finish",
            "finishReason": "stop",
            "messageMetadata": {"model": "m", "timeToFirstToken": 0.25, "duration": 1.5},
        },
        b"[DONE]",
    ]
    assert form.headers == {"X-Vercel-AI-UI-Message-Stream": "v1"}


def test_the_message_has_the_id_it_is_given():
    assert Reader().feed(UIMessageFormat(message_id="mine").begin("abc")).id == "mine"
    assert Reader().feed(UIMessageFormat().begin(None)).id is None


def test_usage_is_told_in_the_words_of_the_sdk():
    usage = msgspec.convert(
        {
            "prompt_tokens": 3,
            "completion_tokens": 4,
            "completion_tokens_details": {"reasoning_tokens": 1},
            "prompt_tokens_details": {"cached_tokens": 2},
        },
        Usage,
    )
    stats = StreamStats(duration=1.0, usage=usage)
    reader = Reader().feed(UIMessageFormat(model="alias").end(None, stats))
    assert reader.metadata == {
        "model": "alias",
        "usage": {
            "inputTokens": 3,
            "outputTokens": 4,
            "totalTokens": 7,
            "reasoningTokens": 1,
            "cachedInputTokens": 2,
        },
        "duration": 1.0,
    }
    assert Reader().feed(UIMessageFormat(metadata=False).end(None, stats)).metadata is None


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("stop", "stop"), ("length", "length"), ("tool_calls", "tool-calls"),
        ("function_call", "tool-calls"), ("content_filter", "content-filter"),
        ("eos", "other"), (None, "stop"),
    ],
)  # fmt: skip
def test_finish_reasons(reason, told):
    answer = ChatAccumulator()
    answer.add([chunk({"content": "x"}, finish=reason)])
    assert Reader().feed(UIMessageFormat().end(answer.result(), STATS)).finish == told


def test_reasoning_and_text_are_parts_of_their_own():
    form = UIMessageFormat()
    reader = Reader().feed(form.begin(None))
    reader.feed(
        form.take(batch(chunk({"reasoning_content": "Well"}), chunk({"reasoning": ", so"})))
    )
    reader.feed(form.take(batch(chunk({"reasoning": "."}), chunk({"content": "Yes"}))))
    reader.feed(form.take(alike(".")))
    reader.feed(form.end(None, STATS))
    assert [(p["type"], p["text"], p["done"]) for p in reader.parts] == [
        ("reasoning", "Well, so.", True),
        ("text", "Yes.", True),
    ]
    assert reader.events.count("reasoning-delta") == 2  # those that came together are one


def test_refusals_are_shown():
    form = UIMessageFormat()
    reader = Reader().feed(form.take(batch(chunk({"refusal": "No."}))))
    assert reader.text() == "No."


def test_other_choices_are_not_shown():
    form = UIMessageFormat()
    assert form.take(alike("a", "b", index=1)) == []
    assert form.take(batch(chunk({"content": "a"}, index=1))) == []
    assert Reader().feed(form.take(alike("c"))).text() == "c"


def test_empty_texts_make_no_event():
    for merge in (True, False):
        form = UIMessageFormat(merge=merge)
        form.take(alike("a"))
        assert form.take(alike("")) == []
        assert form.take(alike("", "")) == []


def piece(index=None, id=None, name=None, arguments=None):
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    whole = {"index": index, "id": id, "function": function}
    return {k: v for k, v in whole.items() if v is not None}


def test_tool_calls_grow_and_become_available_at_the_end():
    form = UIMessageFormat()
    reader = Reader()
    reader.feed(form.take(batch(chunk({"content": "Let me look."}))))
    reader.feed(form.take(batch(chunk({"tool_calls": [piece(0, "c1", "look", "")]}))))
    assert reader.tools == {}  # the name may not be whole yet
    assert reader.parts[0]["done"]
    reader.feed(form.take(batch(chunk({"tool_calls": [piece(0, None, None, '{"a":')]}))))
    assert reader.tools == {"c1": {"name": "look", "text": '{"a":'}}
    reader.feed(form.take(batch(chunk({"tool_calls": [piece(0, None, None, "\n[1,2]}")]}))))
    reader.feed(form.take(batch(chunk({"tool_calls": [piece(1, "c2", "now", None)]}))))
    reader.feed(form.end(None, STATS))
    assert reader.tools["c1"]["input"] == {"a": [1, 2]}
    assert reader.tools["c2"] == {"name": "now", "text": "", "input": {}, "whole": True}


def test_arguments_that_are_no_json_are_an_error_of_that_tool():
    form = UIMessageFormat()
    reader = Reader()
    reader.feed(form.take(batch(chunk({"tool_calls": [piece(0, "c1", "look", '{"a": oops')]}))))
    reader.feed(form.end(None, STATS))
    assert reader.tools["c1"]["input"] == '{"a": oops'
    assert not reader.tools["c1"]["whole"]


def test_a_tool_call_that_was_cut_never_becomes_available():
    form = UIMessageFormat()
    reader = Reader()
    reader.feed(form.take(batch(chunk({"tool_calls": [piece(0, "c1", "look", '{"a": 1}')]}))))
    reader.feed(form.fail(StreamTruncatedError("cut")))
    assert "input" not in reader.tools["c1"]


@pytest.mark.parametrize(
    ("reason", "arguments", "whole"),
    [
        ("tool_calls", '{"a": 1}', True), ("stop", '{"a": 1}', True), (None, '{"a": 1}', True),
        ("length", '{"a": 1}', False), ("content_filter", '{"a": 1}', False), ("error", "{}", False),
        ("tool_calls", "", True), ("stop", " ", True), ("stop", "null", True), (None, "", False),
        ("length", "", False), ("tool_calls", '{"a": ', False), ("tool_calls", "[1]", False),
        ("tool_calls", json.dumps('{"a": 1}'), False), ("tool_calls", '{"a": NaN}', True),
    ],
)  # fmt: skip
def test_only_calls_that_have_all_arrived_become_available(reason, arguments, whole):
    form, reader = UIMessageFormat(), Reader()
    reader.feed(form.take(batch(chunk({"tool_calls": [piece(0, "c1", "look", arguments)]}))))
    choice = Choice(finish_reason=reason)
    events = form.end(ChatCompletion(choices=[choice]), STATS)
    reader.feed(events)
    assert reader.tools["c1"]["whole"] is whole
    assert any(b'"tool-input-available"' in event for event in events) is whole
    wanted = json.loads(arguments) if whole and arguments.strip() not in {"", "null"} else {}
    if whole and "NaN" not in arguments:
        assert reader.tools["c1"]["input"] == wanted


def test_failures_say_what_is_public_and_nothing_else():
    form = UIMessageFormat()
    reader = Reader().feed(form.take(alike("Half an ")))
    reader.feed(form.fail(StreamStalledError("10.0.0.7 sk-secret said nothing")))
    assert reader.error == "the model fell silent"
    assert reader.parts == [{"type": "text", "text": "Half an ", "done": True}]
    assert reader.over


def test_stops():
    form = UIMessageFormat()
    form.take(alike("x"))
    reader = Reader()
    reader.open["text-1"] = {"type": "text", "text": "x", "done": False}
    assert reader.feed(form.stop("stopped")).events == ["text-end", "abort"]
    for reason in ("shutdown", "abandoned"):
        reader = Reader().feed(UIMessageFormat().stop(reason))
        assert "cut short" in reader.error
        assert reader.over


# -- any stream ----------------------------------------------------------------------------------

texts = st.text(max_size=6)
deltas = st.one_of(
    st.builds(lambda t: {"content": t}, texts),
    st.builds(lambda t: {"reasoning_content": t}, texts),
    st.builds(lambda t: {"reasoning": t}, texts),
    st.builds(lambda t, r: {"content": t, "reasoning": r}, texts, texts),
    st.just({"role": "assistant"}),
)
batches = st.lists(
    st.one_of(
        st.lists(deltas, min_size=1, max_size=4),
        st.lists(texts, min_size=1, max_size=4),
    ),
    max_size=8,
)


@given(batches, st.booleans())
def test_any_stream_is_read_as_it_was_said(stream, merge):
    form, reader, answer = UIMessageFormat(merge=merge), Reader(), ChatAccumulator()
    reader.feed(form.begin("id"))
    for said in stream:
        made = alike(*said) if isinstance(said[0], str) else batch(*map(chunk, said))
        answer.add(made.chunks())
        reader.feed(form.take(made))
    answer.add([chunk({}, finish="stop")])
    whole = answer.result()
    reader.feed(form.end(whole, STATS))
    message = whole.choices[0].message
    assert reader.text() == (message.content or "")
    # Servers send their reasoning under one of the two names.
    assert len(reader.text("reasoning")) >= len(message.reasoning_content or "")
    assert all(part["done"] for part in reader.parts)
    assert reader.over
    assert not reader.open


names = st.sampled_from(["look", "find", "go"])
pieces = st.lists(
    st.builds(
        piece,
        index=st.one_of(st.none(), st.integers(0, 2)),
        id=st.one_of(st.none(), st.sampled_from(["a", "b", "c"])),
        name=st.one_of(st.none(), names),
        arguments=st.one_of(st.none(), st.sampled_from(["", '{"x":', "1}", "{}"])),
    ),
    max_size=3,
)


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


@given(st.lists(pieces, min_size=1, max_size=6))
def test_tools_are_put_together_as_the_client_does_it(stream):
    form, reader, answer = UIMessageFormat(), Reader(), ChatAccumulator()
    for said in stream:
        made = chunk({"tool_calls": said})
        answer.add([made])
        reader.feed(form.take(batch(made)))
    reader.feed(form.end(None, STATS))
    calls = answer.result().choices[0].message.tool_calls or []
    found = [(tool["name"], tool["text"], tool["whole"]) for tool in reader.tools.values()]
    expected = [
        (
            c.function.name,
            c.function.arguments,
            not c.function.arguments or is_json(c.function.arguments),
        )
        for c in calls
    ]
    assert sorted(found) == sorted(expected)
