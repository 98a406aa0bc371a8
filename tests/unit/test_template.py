"""The short way through a stream gives what the long way gives, or nothing."""

import json
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async._streaming.delta_template import DeltaTemplate
from konko_async._streaming.event_splitter import EventSplitter
from konko_async.sse import SSEDecoder
from konko_async.wire import ChatCompletionChunk

decode = msgspec.json.Decoder(ChatCompletionChunk).decode
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def event(text, *, ascii_only=False, spaces=True, **more):
    delta = {"content": text, **more.pop("delta", {})}
    choice = {
        "index": 0,
        "delta": delta,
        "logprobs": None,
        "finish_reason": None,
        **more.pop("choice", {}),
    }
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 17,
        "model": "m",
        "choices": [choice],
        **more,
    }
    separators = (", ", ": ") if spaces else (",", ":")
    return json.dumps(chunk, ensure_ascii=ascii_only, separators=separators).encode()


def framed(payloads):
    return b"".join(b"data: " + payload + b"\n\n" for payload in payloads)


def learned(payload):
    return DeltaTemplate.learn(payload, decode(payload))


@given(
    st.lists(TEXTS, min_size=1, max_size=8),
    st.booleans(),
    st.booleans(),
    st.sampled_from(
        [
            {},
            {"delta": {"role": "assistant"}},
            {"system_fingerprint": "fp", "service_tier": "x"},
            {"timings": {"a": 1}},
        ]
    ),
)
def test_it_reads_what_the_decoder_reads(texts, ascii_only, spaces, more):
    payloads = [
        event(text, ascii_only=ascii_only, spaces=spaces, **more) for text in ("first", *texts)
    ]
    template = learned(payloads[0])
    alike, length = template.read(framed(payloads))
    assert length == len(framed(payloads))
    built = template.build(alike.texts, alike.strings)
    assert built == [decode(payload) for payload in payloads]
    assert [chunk.raw for chunk in built] == [json.loads(payload) for payload in payloads]
    assert [chunk._text() for chunk in built] == payloads


@given(st.lists(TEXTS, min_size=1, max_size=4), st.data())
def test_spoiled_bytes_are_read_the_same_or_not_at_all(texts, data):
    payloads = [event(text) for text in ("first", *texts)]
    template = learned(payloads[0])
    wire = bytearray(framed(payloads))
    at = data.draw(st.integers(0, len(wire) - 1))
    piece = data.draw(
        st.sampled_from(
            [
                b"",
                b'"',
                b"\\",
                b"\n",
                b"\n\n",
                b"\r",
                b",",
                b"\xff",
                b'","',
                b'"\n\ndata: "',
                b"}",
                framed(payloads[:1]),
            ]
        )
    )
    wire[at : at + data.draw(st.integers(0, 3))] = piece
    alike, length = template.read(bytes(wire))
    assert length == 0 or bytes(wire)[:length].endswith(b"\n\n")
    events = bytes(wire)[:length].split(b"\n\n")[:-1]
    assert (alike is None) is (length == 0)
    built = [] if alike is None else template.build(alike.texts, alike.strings)
    assert built == [decode(each.removeprefix(b"data: ")) for each in events]


@pytest.mark.parametrize(
    "more",
    [
        {"delta": {"reasoning_content": "x"}},
        {"delta": {"tool_calls": [{"index": 0}]}},
        {"choice": {"finish_reason": "stop"}},
        {"choice": {"logprobs": {"content": []}}},
        {"usage": {"total_tokens": 3}},
        {"error": "x"},
        {"other": {"content": "x"}},
    ],
)
def test_a_chunk_that_brings_more_is_no_template(more):
    assert learned(event("x", **more)) is None


def test_other_kinds_are_no_template():
    assert DeltaTemplate.learn(event("x").decode(), decode(event("x"))) is None
    assert DeltaTemplate.learn(b"{}", SimpleNamespace()) is None
    two = json.loads(event("x"))
    two["choices"] *= 2
    assert learned(json.dumps(two).encode()) is None


@pytest.mark.parametrize(
    "data",
    [
        framed([event("b", choice={"finish_reason": "stop"}), event("a")]),
        b": comment\n\n" + framed([event("b")]),
        framed([b"[DONE]"]),
        framed([event("a")]).replace(b"\n\n", b"\r\n\r\n"),
        framed([event("a")])[:-1],
        framed([event("a").replace(b'"a"', b'"a\nb"')]),
        framed([event("a").replace(b'"a"', b'"a","b"'), event("b").replace(b'"b"', b'"')]),
        framed([event("a").replace(b'"a"', b'"\xff"')]),
        framed([event("a").replace(b'"a"', b"null")]),
        b"",
    ],
)
def test_what_differs_is_left_to_the_decoder(data):
    assert learned(event("x")).read(data) == (None, 0)


@pytest.mark.parametrize(
    "rest",
    [
        framed([event("b", choice={"finish_reason": "stop"})]),
        framed([event("b", choice={"finish_reason": "stop"}), event("c")]),
        b": comment\n\n" + framed([event("b")]),
        framed([b"[DONE]"]),
        b"data: {",
        b"\n",
    ],
)
@pytest.mark.parametrize("count", [1, 2, 30, 1000])  # less and more than one block
def test_it_reads_as_far_as_events_are_alike(count, rest):
    payloads = [event(f"word {number}") for number in range(count)]
    alike, length = learned(payloads[0]).read(framed(payloads) + rest)
    assert alike.texts == [f"word {number}" for number in range(count)]
    assert [json.loads(string) for string in alike.strings] == alike.texts
    assert length == len(framed(payloads))


def test_an_event_longer_than_a_block_is_read():
    payloads = [event("x" * 200_000), event("y")]
    alike, length = learned(event("z")).read(framed(payloads))
    assert [len(text) for text in alike.texts] == [200_000, 1]
    assert length == len(framed(payloads))


def test_the_framer_uses_it_only_at_the_beginning_of_events():
    framer = EventSplitter()
    assert framer.feed(b"event: error\n") == []
    framer.template = learned(event("x"))
    (payload,) = framer.feed(framed([event("a")]))
    assert type(payload).__name__ == "NamedEvent"
    (alike,) = framer.feed(framed([event("a")]))
    assert (alike.texts, alike.strings) == (["a"], [b'"a"'])


@given(
    st.lists(
        st.sampled_from(
            [
                b"data: {}\n\n",
                b"data: {1}\n\n",
                b": c\n\n",
                b"data: [DONE]\n\n",
                b"event: x\ndata: {}\n\n",
                b"\n",
                b"data: {\ndata: }\n\n",
                b"data: \n\n",
                b"data: {2}\r\n\r\n",
                b"data: {%b}\n\n" % (b"x" * 200),  # more than a block, with others
            ]
        ),
        max_size=12,
    ),
    st.lists(st.integers(1, 30)),
)
def test_however_it_is_cut_the_framer_gives_the_same(pieces, sizes):
    whole = b"".join(pieces)
    expected = [event.data for event in SSEDecoder().feed(whole) if event.data]
    assert _all(EventSplitter(), [whole]) == expected
    cuts, at = [], 0
    for size in sizes:
        cuts.append(whole[at : at + size])
        at += size
    cuts.append(whole[at:])
    assert _all(EventSplitter(), cuts) == expected


def _all(framer, reads):
    found = []
    for read in filter(None, reads):
        found += framer.feed(read)
        while framer.waiting:
            found += framer.more()
    return [getattr(payload, "data", payload).decode() for payload in found]
