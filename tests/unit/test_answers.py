"""Answers as values: what they refuse, and that no way of sending them changes a byte."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async.testing import Answer
from konko_async.testing._fault_server.steps import HangUp, Send, SendPause, SendStall

ANY_ANSWER = st.one_of(
    st.builds(
        Answer.stream,
        st.lists(st.text(max_size=5), max_size=5),
        done=st.booleans(),
        finish_reason=st.none() | st.just("length"),
        usage=st.none() | st.just({"total_tokens": 1}),
        framing=st.sampled_from(["chunked", "close", "length"]),
        newline=st.sampled_from(["\n", "\r\n", "\r"]),
        gzip=st.booleans(),
    ),
    st.builds(Answer.whole, st.text(max_size=20), gzip=st.booleans()),
    st.builds(Answer.endless_event, st.integers(0, 300)),
    st.builds(Answer.raw, st.binary(max_size=50)),
)


def sent(answer):
    return [step.data for step in answer.steps() if isinstance(step, Send)]


@given(ANY_ANSWER, st.lists(st.integers(1, 50), max_size=5), st.none() | st.integers(1, 50))
def test_splitting_changes_no_byte(answer, sizes, every):
    split = answer.split(sizes)
    split = split if every is None else split.split_every(every)
    assert b"".join(sent(split)) == answer.wire == b"".join(sent(answer))
    assert len(answer.wire) == len(answer)
    if every is not None:
        assert all(len(data) <= every for data in sent(split)[len(sizes) :])


@given(ANY_ANSWER, st.data())
def test_positions(answer, data):
    at = data.draw(st.integers(0, len(answer)))
    *rest, last = answer.cut(at, how="rst").steps()
    assert last == HangUp("rst")
    assert b"".join(step.data for step in rest) == answer.wire[:at]
    stalled = answer.stall(at).pause(at, 1.5).split_every(7)
    steps = list(stalled.steps())
    place = steps.index(SendStall())
    assert steps[place + 1] == SendPause(1.5)
    assert b"".join(s.data for s in steps[:place]) == answer.wire[:at]
    assert b"".join(sent(stalled)) == answer.wire
    if at < len(answer):
        changed = answer.corrupt(at).split_every(3)
        assert [i for i, b in enumerate(b"".join(sent(changed))) if b != answer.wire[i]] == [at]
        assert b"".join(sent(changed)) == changed.wire


def test_the_first_cut_counts():
    answer = Answer.whole().cut(50).cut(20, how="rst").stall(30)
    assert list(answer.steps()) == [Send(Answer.whole().wire[:20]), HangUp("rst")]


def test_negative_positions_count_from_the_end():
    assert Answer.whole().cut(-3) == Answer.whole().cut(len(Answer.whole()) - 3)


def test_trickle_waits_between_writes_only():
    steps = list(Answer.raw(b"abcde").trickle(2, 0.5).steps())
    wait = SendPause(0.5)
    assert steps == [Send(b"ab"), wait, Send(b"cd"), wait, Send(b"e"), HangUp("fin")]


def test_answers_are_values():
    assert Answer.stream(["a"]) == Answer.stream(["a"])
    assert hash(Answer.stream(["a"]).cut(3)) == hash(Answer.stream(["a"]).cut(3))
    assert Answer.raw(b"")
    with pytest.raises(AttributeError):
        Answer.raw(b"").closes = False


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a.cut(len(a) + 1),
        lambda a: a.cut(-len(a) - 1),
        lambda a: a.cut(1, how="bye"),
        lambda a: a.corrupt(len(a)),
        lambda a: a.corrupt(0, 256),
        lambda a: a.split([0]),
        lambda a: a.split_every(0),
        lambda a: a.trickle(0),
        lambda a: a.cut(5).heartbeats(),
        lambda a: a.corrupt(5).status_line(b""),
        lambda a: a.content_length(1),
        lambda a: a.bad_chunk_size(99),
        lambda a: a.truncate_body(10_000),
        lambda _: Answer.whole().bad_chunk_size(),
        lambda _: Answer.whole().heartbeats(),
        lambda _: Answer.stream(gzip=True).heartbeats(),
        lambda _: Answer.stream(newline="\n\r"),
        lambda _: Answer.body(framing="none"),
        lambda _: Answer.gzip_bomb(1, prefix=b"ab"),
        lambda _: Answer.gzip_bomb(fill=b"ab"),
        lambda _: Answer.endless_event(None, framing="length").size,
        lambda _: Answer.endless_event(None).wire,
        lambda a: len(a.heartbeats()),
        lambda _: Answer.endless_event(None).cut(-1),
        lambda _: Answer.endless_event(1 << 20).truncate_body(1),
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError):
        wrong(Answer.stream())


def test_an_endless_answer_can_be_cut():
    answer = Answer.endless_event(None).cut(1_000_000)
    assert sum(map(len, sent(answer))) == 1_000_000


def test_contents():
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    whole = Answer.whole("Hi", usage=usage, finish_reason=None, gzip=True, framing="chunked")
    assert b"Content-Encoding: gzip" in whole.wire
    whole = Answer.whole("Hi", usage=usage, finish_reason=None)
    body = json.loads(whole.wire[whole.head_size :])
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Hi"}
    assert body["choices"][0]["finish_reason"] is None
    assert body["usage"] == usage
    events = Answer.events(["a\nb", ""], name="error", framing="close")
    assert events.wire[events.head_size :] == (
        b"event: error\ndata: a\ndata: b\n\nevent: error\ndata: \n\n"
    )
    packed = Answer.events(["a", "b"], gzip=True, framing="length")
    assert gzip.decompress(packed.wire[packed.head_size :]) == b"data: a\n\ndata: b\n\n"
