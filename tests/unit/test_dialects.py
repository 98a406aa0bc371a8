"""Streams drawn in servers' dialects: understood exactly, or an error with a true beginning.

Three thousand, the same in each run; ``make dialects`` runs a million.
"""

import random

import pytest
from dialect_kit import Judge, judge, odd, report, verdict
from pipe_loop import run_on_pipes

from konko_async.testing.dialects import (
    DIALECTS,
    ERROR_SHAPES,
    Meaning,
    MeantCall,
    MeantChoice,
    ServerDialect,
    cut,
    dialect_named,
    draw,
    shrunk,
)
from konko_async.wire import ChatCompletion, ChatCompletionMessage, Choice

STREAMS = 3000


def test_drawn_streams_are_understood():
    judged = Judge()
    run_on_pipes(judge(map(draw, range(STREAMS)), judged))
    assert not judged.failures, "\n".join(report(judged))
    assert judged.counts["understood"] > 100
    assert judged.counts["break noticed"] > 10
    assert judged.counts["error"] > 10


@pytest.mark.parametrize("name", DIALECTS)
def test_named_dialects_are_understood(name):
    judged = Judge()
    run_on_pipes(judge([draw(seed, DIALECTS[name]) for seed in range(60)], judged))
    assert not judged.failures, "\n".join(report(judged))


# -- the generator itself --------------------------------------------------------------------------


# Found by `make dialects`; each was misunderstood once.
@pytest.mark.parametrize("seed", [991313])
def test_seeds_that_were_misunderstood(seed):
    judged = Judge()
    run_on_pipes(judge([draw(seed)], judged))
    assert not any(judged.bad.values()), report(judged)


def test_a_seed_draws_the_same_stream():
    assert draw(7) == draw(7)
    assert len({draw(seed).body for seed in range(50)}) > 40


def test_draws_cover_every_property_and_every_error():
    drawn = [draw(seed) for seed in range(3000)]
    for name in ServerDialect.__slots__:
        if name != "name":
            assert len({repr(getattr(one.dialect, name)) for one in drawn}) > 1, name
    assert {one.error_shape for one in drawn} == {None, *ERROR_SHAPES}
    assert {one.complete for one in drawn} == {True, False}
    assert {one.choices for one in drawn} == {1, 2, 3}


@pytest.mark.parametrize("size", [0, 1, 2, 50, 5000])
def test_a_cut_loses_nothing(size):
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    for seed in range(20):
        reads = cut(body, random.Random(seed))
        assert b"".join(reads) == body
        assert all(reads) or not body


def test_an_unknown_dialect_is_refused_with_the_names():
    assert dialect_named("gemini") is DIALECTS["gemini"]
    assert dialect_named(ServerDialect(name="own")).name == "own"
    with pytest.raises(ValueError, match=r"no dialect 'jemini'.*gemini"):
        dialect_named("jemini")


def completion(text, finish="stop"):
    return ChatCompletion(choices=[Choice(0, ChatCompletionMessage("assistant", text), finish)])


def test_the_oracle_sees_what_is_wrong():
    meaning = Meaning((MeantChoice(text="Hello"),))
    assert meaning.problem_with(completion("Hello")) is None
    assert "text" in meaning.problem_with(completion("Hell"))
    assert "finish_reason" in meaning.problem_with(completion("Hello", None))
    assert "choices" in meaning.problem_with(ChatCompletion())
    assert meaning.problem_with_partial(completion("Hell")) is None
    assert "text" in meaning.problem_with_partial(completion("Hallo"))
    called = Meaning((MeantChoice(calls=(MeantCall("f", "{}"),)),))
    assert "calls" in called.problem_with(completion(None))
    assert Meaning(usage=(1, 2)).problem_with(ChatCompletion()) == "usage: None instead of (1, 2)"


def test_the_judge_sees_what_is_wrong():
    plain = draw(0, ServerDialect())
    drawn = next(d for d in (draw(s, ServerDialect()) for s in range(99)) if d.meaning.error)
    assert verdict(drawn, completion("a"))[0] == "silent loss or invention"
    assert verdict(plain, KeyError("x"))[0] == "foreign exception"


def test_shrinking_keeps_what_fails():
    drawn = next(d for d in map(draw, range(999)) if len(odd(d.dialect)) > 4 and len(d.reads) > 1)
    name = next(iter(odd(drawn.dialect)))
    small = shrunk(drawn, lambda one: name in odd(one.dialect))
    assert list(odd(small.dialect)) == [name]
    assert small.words == 1
    assert len(small.reads) <= 1
