"""Fields that this package has no name for: kept, merged, sent back, counted as content."""

import copy
import itertools
import json
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async._streaming.accumulate import ChatAccumulator, brings
from konko_async._streaming.chunk_repair import ChunkRepair
from konko_async.wire import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatMessage,
    ToolCall,
    Usage,
)
from konko_async.wire._base import extended, with_unknown
from konko_async.wire._codec import Codec, encode
from konko_async.wire._unknown_fields import UnknownFields

WHOLE, CHUNK = Codec(ChatCompletion), Codec(ChatCompletionChunk)
SIGNED = {
    "id": "call_0",
    "type": "function",
    "function": {"name": "look_up", "arguments": "{}", "origin": "router"},
    "extra_content": {"vendor": {"seal": "abc"}},
}
MESSAGE = {
    "role": "assistant",
    "content": "Look.",
    "tool_calls": [SIGNED],
    "images": [{"type": "image_url", "image_url": {"url": "data:,x"}}],
    "of tomorrow": {"a": [1, None]},
}


def whole(message, **more):
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return WHOLE.decode(json.dumps({"id": "1", "choices": [choice], **more}))


def chunk(delta, index=0, finish=None, choice=(), **more):
    made = {"index": index, "delta": delta, "finish_reason": finish, **dict(choice)}
    return CHUNK.decode(json.dumps({"id": "1", "choices": [made], **more}))


def streamed(*deltas, expected=1):
    accumulator = ChatAccumulator(expected)
    accumulator.add([one if isinstance(one, ChatCompletionChunk) else chunk(one) for one in deltas])
    return accumulator.result()


# -- whole answers ---------------------------------------------------------------------------------


def test_a_message_goes_back_as_it_came():
    message = whole(MESSAGE).choices[0].message
    assert isinstance(message, ChatCompletionMessage)
    assert isinstance(message.tool_calls[0], ToolCall)
    assert json.loads(encode([message])) == [MESSAGE]
    assert msgspec.to_builtins(message) == MESSAGE
    assert message.images == MESSAGE["images"]
    assert message.tool_calls[0].extra_content == SIGNED["extra_content"]
    assert message.unknown == {name: MESSAGE[name] for name in ("images", "of tomorrow")}
    made = ChatMessage("assistant", "Look.", tool_calls=message.tool_calls)
    assert json.loads(encode(made))["tool_calls"] == [SIGNED]


def test_fields_of_choices_usages_and_answers_are_kept():
    usage = {"prompt_tokens": 1, "cost": 0.5}
    answer = WHOLE.decode(
        json.dumps(
            {
                "choices": [{"message": {"content": "a"}, "matched_stop": 7}],
                "usage": usage,
                "citations": ["https://example.com"],
            }
        )
    )
    sent = json.loads(encode(answer))
    assert sent["choices"][0]["matched_stop"] == 7
    assert sent["usage"]["cost"] == answer.usage.cost == 0.5
    assert sent["citations"] == answer.citations == ["https://example.com"]


def test_well_known_fields_are_none_where_they_were_not_sent():
    message = whole({"content": "a"}).choices[0].message
    assert message.audio is message.annotations is message.reasoning_details is None
    assert ToolCall().extra_content is None
    assert message.unknown == {}
    assert type(message) is ChatCompletionMessage


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "a", "annotations": [], "audio": None},
        {"role": "assistant", "content": "a", "refusal": None, "function_call": None},
    ],
)
def test_what_says_nothing_takes_the_quick_way(message):
    body = {"choices": [{"message": message, "stop_reason": None, "finish_reason": "stop"}]}
    WHOLE._probe(json.dumps(body).encode())  # raises if it does not


@pytest.mark.parametrize(
    "way",
    [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],  # noqa: S301 - our own
)
def test_copies_and_pickles_keep_unknown_fields(way):
    message = whole(MESSAGE).choices[0].message
    made = way(message)
    assert made == message
    assert made.unknown == message.unknown
    assert msgspec.structs.replace(message, content="b").images == MESSAGE["images"]


@pytest.mark.parametrize(
    "name",
    ["raw", "unknown", "content-type", "_raw", "field_1", "class", "üß", "__class__", "copy"],
)
def test_no_name_is_in_the_way(name):
    usage = with_unknown(Usage(1), {name: [1], "field_0": 2, "tool_calls": 3})
    sent = json.loads(encode(usage))
    assert sent[name] == [1]
    assert (sent["field_0"], sent["tool_calls"], sent["prompt_tokens"]) == (2, 3, 1)
    assert usage.unknown == {name: [1], "field_0": 2, "tool_calls": 3}


def test_names_that_no_struct_can_have_stay_in_raw():
    answer = whole({"content": "a", 'quo"te': 1, "new\nline": 2})
    assert json.loads(encode(answer))["choices"][0]["message"] == {"content": "a"}
    assert answer.raw["choices"][0]["message"]['quo"te'] == 1


def test_a_server_that_invents_names_without_end_costs_no_memory_without_end():
    for number in range(2000):
        with_unknown(Usage(), {f"name{number}": 1})
    assert extended.cache_info().currsize <= 512
    assert len(with_unknown(Usage(), {f"n{n}": n for n in range(1000)}).unknown) == 128


# -- streams ---------------------------------------------------------------------------------------


def test_sound_is_content_and_is_put_together():
    deltas = [
        {"role": "assistant", "audio": {"id": "a1", "transcript": "Good "}},
        {"audio": {"id": "a1", "transcript": "day.", "data": "QUFB"}},
        {"audio": {"data": "QkJC", "expires_at": 5}},
    ]
    assert all(brings(chunk(delta)) for delta in deltas)
    message = streamed(*deltas).choices[0].message
    assert message.audio == {
        "id": "a1", "transcript": "Good day.", "data": "QUFBQkJC", "expires_at": 5,
    }  # fmt: skip
    assert message.content is None


@pytest.mark.parametrize("delta", [{}, {"role": "assistant"}, {"x": None}, {"x": ""}, {"x": []}])
def test_what_is_empty_is_no_content(delta):
    assert not brings(chunk(delta))
    accumulator = ChatAccumulator()
    accumulator.add([chunk(delta)])
    assert not accumulator.has_delta


@pytest.mark.parametrize(
    ("pieces", "merged"),
    [
        (["ab", "cd"], "abcd"),
        ([1, 2], 2),
        ([True, False], False),
        (["a", 1], 1),
        ([{"s": "a"}, {"s": "b", "n": 1}], {"s": "ab", "n": 1}),
        ([[1], [2, 3]], [1, 2, 3]),
        ([["a"], ["b"]], ["a", "b"]),
        ([{"type": "t", "id": "i"}, {"type": "t", "id": "i"}], {"type": "t", "id": "i"}),
        ([{"signature": "s"}, {"signature": "s"}], {"signature": "s"}),
        (
            [[{"index": 0, "t": "a"}], [{"index": 1, "t": "x"}], [{"index": 0, "t": "b"}]],
            [{"index": 0, "t": "ab"}, {"index": 1, "t": "x"}],
        ),
        (  # one index, but two things
            [[{"index": 0, "type": "text", "t": "a"}], [{"index": 0, "type": "blob", "t": "b"}]],
            [{"index": 0, "type": "text", "t": "a"}, {"index": 0, "type": "blob", "t": "b"}],
        ),
        (  # Anthropic's, as LiteLLM sends them
            [
                [{"type": "thinking", "thinking": "a"}],
                [{"type": "thinking", "thinking": "b"}],
                [{"type": "thinking", "thinking": "", "signature": "s"}],
                [{"type": "thinking", "thinking": "c"}],
            ],
            [
                {"type": "thinking", "thinking": "ab", "signature": "s"},
                {"type": "thinking", "thinking": "c"},
            ],
        ),
    ],
)
def test_pieces_of_unknown_fields_are_merged(pieces, merged):
    message = streamed(*[{"content": "", "x": piece} for piece in pieces]).choices[0].message
    assert message.x == merged
    assert json.loads(encode(message))["x"] == merged


def test_what_describes_an_answer_is_not_joined():
    made = [
        chunk({"content": "a"}, choice={"rating": {"hate": "safe"}, "mood": "calm"}, region="eu")
        for _ in range(3)
    ]
    answer = streamed(*made)
    assert answer.region == "eu"
    assert answer.choices[0].rating == {"hate": "safe"}
    assert answer.choices[0].mood == "calm"
    assert answer.choices[0].message.content == "aaa"


def test_tool_calls_keep_what_they_say():
    call = {"index": 0, **SIGNED, "function": {"name": "look_up", "arguments": '{"a"'}}
    rest = {"index": 0, "function": {"arguments": ":1}", "origin": "router"}}
    message = streamed({"tool_calls": [call]}, {"tool_calls": [rest]}).choices[0].message
    assert json.loads(encode(message))["tool_calls"] == [
        {**SIGNED, "function": {"name": "look_up", "arguments": '{"a":1}', "origin": "router"}}
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["index", "type", "id", "x", "y"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from(["x", "y", "id"]), JSON, max_size=2), max_size=5))
def test_merging_takes_anything_and_changes_nothing_that_was_given_out(pieces):
    merged = UnknownFields()
    before = copy.deepcopy(pieces)
    for piece in pieces:
        merged.add(piece)
        given_out = merged.result()
        kept = copy.deepcopy(given_out)
        merged.add({"x": "more", "y": ["more"]})
        assert given_out == kept
    assert pieces == before


@given(st.text("abc", min_size=1), st.lists(st.integers(0, 9)))
def test_a_string_cut_anywhere_comes_back(text, places):
    cuts = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    deltas = [{"x": {"inner": text[a:b]}} for a, b in itertools.pairwise(cuts)]
    assert streamed(*deltas).choices[0].message.x == {"inner": text}


# -- where servers put things ----------------------------------------------------------------------


@pytest.mark.parametrize("key", ["message", "text"])
def test_a_delta_under_another_name(key):
    made = [
        CHUNK.decode(
            json.dumps(
                {"choices": [{"index": 0, key: text if key == "text" else {"content": text}}]}
            )
        )
        for text in ("Hel", "lo")
    ]
    accumulator = ChatAccumulator(1)
    accumulator.add(made)
    assert [one.choices[0].delta.content for one in made] == ["Hel", "lo"]
    assert accumulator.result().choices[0].message.content == "Hello"


def test_a_message_after_deltas_repeats_them():
    last = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi."}}
    answer = streamed({"content": "Hi."}, CHUNK.decode(json.dumps({"choices": [last]})))
    assert answer.choices[0].message.content == "Hi."
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("indexes", [(1, 1, 1), (0, 1, 2), (7, 3, 7)])
def test_one_choice_is_one_whatever_its_index(indexes):
    made = [chunk({"content": "ab"[n % 2]}, index=index) for n, index in enumerate(indexes)]
    answer = streamed(*made)
    assert [choice.message.content for choice in answer.choices] == ["aba"]
    assert [one.choices[0].index for one in made] == [0, 0, 0]
    assert len(streamed(*made, expected=2).choices) == 1  # the structs say 0 by now


@pytest.mark.parametrize(
    ("reports", "usage"),
    [
        ([{"usage": {"prompt_tokens": 9}}, {"usage": {"completion_tokens": 5}}], (9, 5, 14)),
        ([{"usage": {"completion_tokens": 5}}, {"usage": {"prompt_tokens": 9}}], (9, 5, 14)),
        ([{"usage": {"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n}}
          for n in (1, 2, 5)], (9, 5, 14)),
        ([{"usage": {"prompt_tokens": 9, "completion_tokens": 1}}]
         + [{"usage": {"completion_tokens": n}} for n in (2, 5)], (9, 5, 14)),
        ([{"usage": {"prompt_tokens": 9, "completion_tokens": 1}}]
         + [{"usage": {"completion_tokens": 1}}] * 4, (9, 5, 14)),
        ([{"usage": {"completion_tokens": n}} for n in (1, 3, 1)], (0, 5, 0)),
        ([{"usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}] * 3, (9, 5, 14)),
        ([{"x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}}],
         (9, 5, 14)),
        ([{"choice": {"usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}}}],
         (9, 5, 14)),
    ],
)  # fmt: skip
def test_usage_is_found_and_added_up_as_it_is_meant(reports, usage):
    answer = streamed(*[chunk({"content": "a"}, **report) for report in reports])
    found = answer.usage
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == usage


def test_a_final_report_that_comes_twice_counts_once():
    made = [
        chunk({"content": "a"}, usage={"prompt_tokens": 9}),
        chunk({"content": "a"}, usage={"completion_tokens": 5}),
        chunk({}, usage={"completion_tokens": 5}),
    ]
    assert streamed(*made).usage.completion_tokens == 5


def test_usages_of_several_choices_are_added_up():
    made = [
        chunk(
            {"content": "a"}, index, "stop", {"usage": {"prompt_tokens": 9, "completion_tokens": n}}
        )
        for index, n in enumerate((2, 3))
    ]
    assert streamed(*made, expected=2).usage == Usage(9, 5, 14)


@pytest.mark.parametrize("place", ["x_groq", "choice"])
def test_usage_of_a_whole_answer_is_found(place):
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    choice = {"message": {"content": "a"}, **({"usage": usage} if place == "choice" else {})}
    more = {"x_groq": {"usage": usage}} if place == "x_groq" else {}
    answer = WHOLE.decode(json.dumps({"choices": [choice], **more}))
    assert answer.usage == Usage(1, 2, 3)


def test_a_null_logprob_is_not_certainty():
    tokens = [{"token": "a", "logprob": None, "top_logprobs": [{"token": "b", "logprob": None}]}]
    answer = whole({"content": "a"})
    choice = {"message": {"content": "a"}, "logprobs": {"content": tokens}}
    answer = WHOLE.decode(json.dumps({"choices": [choice]}))
    (token,) = answer.choices[0].logprobs.content
    assert token.logprob is None
    assert token.top_logprobs[0].logprob is None


def test_halves_of_a_character_are_joined_also_where_deltas_are_texts():
    """A server that writes its deltas as bare texts, and cuts them as JSON escapes them."""
    known = ChatCompletionChunk
    repair = ChunkRepair(known, 1)
    first = b'{"choices":[{"index":0,"delta":"a\\ud83d"}]}'
    second = b'{"choices":[{"index":0,"delta":"\\ude00"}]}'
    text = ""
    for data in (first, second):
        mended = repair.mend(data, json.loads(data))
        text += json.loads(data if mended is None else mended)["choices"][0]["delta"]["content"]
    assert text == "a\U0001f600"
    assert repair.rest() is None
