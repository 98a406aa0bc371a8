"""What a streamed answer's bytes become where something is special: fed as reads, without sockets."""

import itertools
import json
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async import ResponseDecodeError, StreamServerError, StreamTruncatedError
from konko_async._streaming.accumulate import ChatAccumulator
from konko_async._streaming.chunk_decoder import ChunkDecoder
from konko_async.sse import MAX_EVENT_BYTES
from konko_async.wire import ChatCompletionChunk
from konko_async.wire._codec import codec_of

DONE = b"data: [DONE]\n\n"


def event(value):
    return b"data: %b\n\n" % json.dumps(value).encode()


def chunk(text, name="c", reason=None):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return event({"id": name, "created": 1, "model": "m", "choices": [choice]})


def decoder_of(*reads):
    """A decoder that has been fed with these reads, and was emptied after each."""
    head = SimpleNamespace(headers={"content-type": "text/event-stream"}, request_id="r")
    decoder = ChunkDecoder(head, codec_of(ChatCompletionChunk), ChatAccumulator(), choices=1)
    for data in reads:
        if decoder.done or not decoder.take_alike(data):  # as the reader has it
            decoder.take(data)
        decoder.ready.clear()
    return decoder


def text_of(decoder):
    return "".join(c.message.content or "" for c in decoder.accumulated.result().choices)


def test_signs_of_life_that_fill_the_first_piece_do_not_hide_the_text_behind_them():
    life = event({"type": "ping", "at": 12}) * 200
    decoder = decoder_of()
    assert decoder.take(life + chunk("Hel"))
    assert text_of(decoder) == "Hel"
    assert not decoder.splitter.waiting


def test_chunks_alike_behind_the_end_are_not_of_the_answer():
    decoder = decoder_of(chunk("Hel"), chunk("lo"), DONE, chunk(" there") * 3)
    assert decoder.done
    assert decoder.failure is None
    assert text_of(decoder) == "Hello"
    assert decoder.chunks == 2


def test_a_server_whose_chunks_are_never_alike_is_soon_no_longer_learned_from():
    decoder, templates = decoder_of(), []
    for number in range(12):
        decoder.take(chunk(f"{number} ", name=f"c{number}"))
        decoder.ready.clear()
        templates.append(decoder.template)
    learned = {id(template) for template in templates if template is not None}
    assert len(learned) == 8
    assert templates[-1] is templates[8]
    assert text_of(decoder) == "".join(f"{number} " for number in range(12))


@pytest.mark.parametrize("kept_back", [False, True], ids=["by a read", "by the end"])
def test_an_event_beyond_the_cap_ends_the_answer(kept_back):
    long = b'data: "' + b"x" * MAX_EVENT_BYTES
    decoder = decoder_of(*([chunk("Hel") + long] if kept_back else [chunk("Hel"), long]))
    assert (decoder.failure is None) is kept_back  # first what came before it
    decoder.end()
    assert isinstance(decoder.failure, ResponseDecodeError)
    assert "longer than" in str(decoder.failure)
    assert text_of(decoder) == "Hel"


def test_the_end_of_nothing_is_no_answer():
    decoder = decoder_of(DONE)
    assert isinstance(decoder.failure, StreamTruncatedError)
    assert "without a single choice" in str(decoder.failure)
    assert decoder.failure.request_id == "r"


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b'data: {"choices": [{"delta"\n\n', ResponseDecodeError, "JSON"),
        (b"data: [1, 2]\n\n", ResponseDecodeError, "no ChatCompletionChunk"),
        (event("the backend is gone"), StreamServerError, "the backend is gone"),
    ],
)
@pytest.mark.parametrize("before", [b"", chunk("Hel")], ids=["first", "after text"])
def test_what_is_no_chunk_ends_the_answer(data, kind, said, before):
    decoder = decoder_of(before + data + chunk("lo") + DONE)
    assert isinstance(decoder.failure, kind)
    assert said in str(decoder.failure)
    assert not decoder.done
    assert text_of(decoder) == ("Hel" if before else "")


def test_under_a_name_of_its_own_anything_may_come():
    named = b"event: note\ndata: {oops\n\n" + b'event: note\ndata: "words"\n\n'
    decoder = decoder_of(chunk("Hel") + named, chunk("lo", reason="stop"))
    decoder.end()
    assert (decoder.done, decoder.failure, text_of(decoder)) == (True, None, "Hello")


def test_a_body_that_is_no_stream_is_not_read_to_its_end():
    decoder = decoder_of(b"<html>" + b"Sorry. " * 10_000)
    assert isinstance(decoder.failure, ResponseDecodeError)
    assert "no events" in str(decoder.failure)


# -- halves of characters --------------------------------------------------------------------------

PLACES = {
    "content": lambda text: {"content": text},
    "reasoning": lambda text: {"reasoning_content": text},
    "refusal": lambda text: {"refusal": text},
    "arguments": lambda text: {"tool_calls": [{"index": 1, "function": {"arguments": text}}]},
    "bare": lambda text: text,
}


def said(decoder, place):
    """The text of one place of the answer."""
    message = decoder.accumulated.result().choices[0].message
    if place == "arguments":
        return "".join(call.function.arguments for call in message.tool_calls or ())
    name = {"reasoning": "reasoning_content", "bare": "content"}.get(place, place)
    return getattr(message, name) or ""


@given(
    place=st.sampled_from(sorted(PLACES)),
    text=st.text(st.sampled_from("a\u20ac\U0001f600\U0001f469\u200d"), min_size=1, max_size=12),
    cuts=st.sets(st.integers(1, 23)),
)
def test_a_text_that_is_cut_within_its_characters_is_whole_again(place, text, cuts):
    """As servers do that cut a string of UTF-16 and write each piece with ``\\u`` escapes."""
    units = text.encode("utf-16-le", "surrogatepass")
    ends = [0, *sorted(2 * cut for cut in cuts if 2 * cut < len(units)), len(units)]
    pieces = [units[a:b].decode("utf-16-le", "surrogatepass") for a, b in itertools.pairwise(ends)]
    events = [
        event({"id": "c", "choices": [{"index": 0, "delta": PLACES[place](piece)}]})
        for piece in pieces
    ]
    decoder = decoder_of(*events, DONE)
    assert decoder.failure is None
    assert said(decoder, place) == text


def test_chunks_that_are_nested_as_deep_as_can_be_read_are_read_or_refused():
    """Reading halves of characters takes more of the stack than reading the chunk did."""
    outcomes = set()
    for depth in range(1, sys.getrecursionlimit() + 10, 3):
        deep = b"[" * depth + b"]" * depth
        choice = b'{"index":0,"delta":{"content":"a\\ud83d\\ude00"}}'
        data = b'data: {"x":%b,"choices":[%b]}\n\n' % (deep, choice)
        decoder = decoder_of(data + DONE)
        outcomes.add(type(decoder.failure))
        if decoder.failure is None:
            assert text_of(decoder) == "a\U0001f600"
    assert outcomes <= {type(None), ResponseDecodeError}
    assert type(None) in outcomes


@pytest.mark.parametrize("ended", [True, False], ids=["DONE", "cut"])
@pytest.mark.parametrize("place", sorted(PLACES))
def test_half_a_character_that_nothing_follows_is_shown_as_such(place, ended):
    deltas = [PLACES[place](text) for text in ("a", "b\ud83d")]
    reads = [event({"id": "c", "choices": [{"index": 0, "delta": delta}]}) for delta in deltas]
    decoder = decoder_of(*reads, *([DONE] if ended else []))
    decoder.end()
    assert said(decoder, place) == ("ab" if place == "arguments" else "ab\ufffd")
    assert type(decoder.failure) is (type(None) if ended else StreamTruncatedError)
