"""Chunks to completions: a completion, cut into chunks in any legal way, comes back whole."""

import copy
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async._streaming.accumulate import ChatAccumulator, CompletionAccumulator
from konko_async.wire import ChatCompletion, ChatCompletionChunk, Completion, Usage
from konko_async.wire._codec import Codec

CHAT = Codec(ChatCompletionChunk)
TEXT = Codec(Completion)

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
MAYBE = st.none() | WORDS
TOKENS = st.lists(
    st.fixed_dictionaries(
        {"token": WORDS, "logprob": st.floats(-9, 0), "bytes": st.none() | st.just([1, 2])},
        optional={"top_logprobs": st.just([{"token": "a", "logprob": -1.0}])},
    ),
    min_size=1,
    max_size=4,
)
# Arguments are JSON: where servers say nothing else, their end is the end of a call.
ARGUMENTS = st.dictionaries(WORDS, WORDS | st.lists(st.integers(0, 9), max_size=2), max_size=2).map(
    lambda value: msgspec.json.encode(value).decode()
)
CALLS = st.lists(
    st.fixed_dictionaries({"name": WORDS, "arguments": ARGUMENTS}), min_size=1, max_size=4
)
USAGE = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(1, 99),
        "completion_tokens": st.integers(1, 99),
        "total_tokens": st.integers(0, 999),
    }
)


@st.composite
def choices(draw, index):
    """Return one choice of a whole answer, as the API would send it."""
    message = {"role": "assistant", "content": draw(MAYBE)}
    for name in ("refusal", "reasoning", "reasoning_content"):
        message[name] = draw(MAYBE)
    if draw(st.booleans()):
        calls = draw(CALLS)
        message["tool_calls"] = [
            {"id": f"call_{index}_{number}", "type": "function", "function": call}
            for number, call in enumerate(calls)
        ]
    elif draw(st.booleans()):
        message["function_call"] = {"name": draw(WORDS), "arguments": draw(WORDS)}
    logprobs = None
    if draw(st.booleans()):
        logprobs = {"content": draw(TOKENS), "refusal": draw(st.none() | TOKENS)}
    finish = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    return {"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs}


@st.composite
def completions(draw):
    count = draw(st.integers(1, 3))
    return {
        "id": "chatcmpl-1",
        "created": 1702453635,
        "model": "a/b",
        "object": "chat.completion",
        "system_fingerprint": draw(st.none() | st.just("fp")),
        "choices": [draw(choices(index)) for index in range(count)],
        "usage": draw(st.none() | USAGE),
    }


def pieces(draw, text):
    """Cut a text into one or more pieces, some of them empty."""
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def call_pieces(draw, style, number, call):
    """Return the pieces of one tool call, the way one of the kinds of server sends them."""
    if style == "neither":
        call["id"] = ""
        return [{"function": dict(call["function"])}]
    repeats = style in {"index", "id"} and draw(st.booleans())
    made = []
    for place, part in enumerate(pieces(draw, call["function"]["arguments"])):
        piece = {"function": {"arguments": part}}
        if place == 0 or repeats:
            piece["function"]["name"] = call["function"]["name"]
        if style in {"index", "zero"}:
            piece["index"] = number if style == "index" else 0
        if place == 0 or style == "id":
            piece["id"] = call["id"]
        if place == 0 and draw(st.booleans()):
            piece["type"] = "function"
        made.append(piece)
    return made


def tool_deltas(draw, calls):
    """Return the deltas of a choice's tool calls."""
    style = draw(st.sampled_from(["index", "id", "first id", "neither", "zero"]))
    queues = [call_pieces(draw, style, number, call) for number, call in enumerate(calls)]
    if draw(st.booleans()):
        return [[piece for queue in queues for piece in queue]]  # all in one delta
    if style in {"index", "id"}:
        merged = interleave(draw, queues)
        if style == "id":  # then the order in which the calls began is all there is
            begun = list(dict.fromkeys(piece["id"] for piece in merged))
            calls.sort(key=lambda call: begun.index(call["id"]))
        return [[piece] for piece in merged]
    return [[piece] for queue in queues for piece in queue]


def interleave(draw, queues):
    """Merge queues in any order that keeps each one's own."""
    queues, merged = [list(queue) for queue in queues if queue], []
    while queues:
        queue = queues[draw(st.integers(0, len(queues) - 1))]
        merged.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    return merged


def choice_parts(draw, choice):
    """Return the parts of one choice's chunks, in order."""
    index, message = choice["index"], choice["message"]
    streams = []
    for name in ("content", "refusal", "reasoning", "reasoning_content"):
        if message.get(name) is not None:
            streams.append([{name: part} for part in pieces(draw, message[name])])
    if "tool_calls" in message:
        streams.append([{"tool_calls": part} for part in tool_deltas(draw, message["tool_calls"])])
    if "function_call" in message:
        call = message["function_call"]
        parts = [{"function_call": {"arguments": p}} for p in pieces(draw, call["arguments"])]
        streams.append([{"function_call": {"name": call["name"]}}, *parts])
    deltas = interleave(draw, streams)
    style = draw(st.sampled_from(["role first", "role in each", "no role", "nulls"]))
    if style == "role in each":
        deltas = [{"role": "assistant", **delta} for delta in deltas]
    if style == "nulls":
        empty = {"role": None, "content": None, "tool_calls": None, "function_call": None}
        deltas = [{**empty, **delta} for delta in deltas]
    if style == "role first" or not deltas:
        deltas.insert(0, {"role": "assistant", "content": draw(st.sampled_from([None, ""]))})
        if message["content"] is None:
            deltas[0]["content"] = None
    parts = [{"index": index, "delta": delta, "finish_reason": None} for delta in deltas]
    if draw(st.booleans()):
        parts.append({"index": index, "delta": {}})
    parts[-1]["finish_reason"] = choice["finish_reason"]
    add_logprobs(draw, parts, choice["logprobs"])
    return parts


def add_logprobs(draw, parts, logprobs):
    for name, tokens in (logprobs or {}).items():
        if tokens is None:
            continue
        places = sorted(draw(st.integers(0, len(parts) - 1)) for _ in tokens)
        for place, token in zip(places, tokens, strict=True):
            known = parts[place].setdefault("logprobs", {})
            known.setdefault(name, []).append(token)


@st.composite
def streams(draw):
    """Return (a whole answer, chunks that say the same)."""
    whole = draw(completions())
    parts = interleave(draw, [choice_parts(draw, choice) for choice in whole["choices"]])
    head = {key: whole[key] for key in ("id", "created", "model", "system_fingerprint")}
    head_only_once = draw(st.booleans())
    chunks = []
    while parts:
        size = draw(st.integers(1, 2))
        group, parts = parts[:size], parts[size:]
        chunks.append({**head, "object": "chat.completion.chunk", "choices": group})
    if head_only_once:
        for chunk in chunks[1:]:
            for key in head:
                del chunk[key]
    add_usage(draw, chunks, whole["usage"])
    if draw(st.booleans()):  # Azure begins with a chunk that has neither choices nor an id
        chunks.insert(0, {"id": "", "model": "", "created": 0, "choices": []})
    return whole, chunks


def add_usage(draw, chunks, usage):
    style = draw(st.sampled_from(["last", "each", "empty", "null", "with the last choice"]))
    if style == "each" and usage is not None:
        for number, chunk in enumerate(chunks, 1):
            chunk["usage"] = {**usage, "completion_tokens": number}
    if style in {"empty", "null"}:
        for chunk in chunks:
            chunk["usage"] = {} if style == "empty" else None
    if usage is not None and style == "with the last choice":
        chunks[-1]["usage"] = usage
    elif usage is not None:
        chunks.append({"choices": [], "usage": usage})
        if draw(st.booleans()):
            chunks.append({"choices": [], "usage": {}})


def fed(chunks, codec=CHAT, kind=ChatAccumulator, sizes=()):
    """Return an accumulator that took the chunks in batches of these sizes, then the rest."""
    accumulator = kind()
    structs = [codec.decode(msgspec.json.encode(chunk)) for chunk in chunks]
    for size in sizes:
        accumulator.add(structs[:size])
        structs = structs[size:]
    accumulator.add(structs)
    return accumulator


def expected(whole):
    return msgspec.convert(whole, ChatCompletion)


@settings(max_examples=300)
@given(streams(), st.lists(st.integers(0, 4), max_size=6))
def test_a_completion_cut_into_chunks_comes_back(stream, sizes):
    whole, chunks = stream
    accumulator = fed(chunks, sizes=sizes)
    assert accumulator.result() == expected(whole)
    assert accumulator.finished(len(whole["choices"]))
    assert accumulator.has_delta
    assert accumulator.has_choices
    assert accumulator.model == "a/b"


@given(streams(), st.data())
def test_a_partial_result_is_a_beginning_of_the_whole(stream, data):
    whole, chunks = stream
    cut = data.draw(st.integers(0, len(chunks)))
    accumulator = fed(chunks[:cut])
    partial = accumulator.result()
    before = copy.deepcopy(partial)
    for choice in partial.choices:
        final = whole["choices"][choice.index]["message"]
        assert (final["content"] or "").startswith(choice.message.content or "")
        assert (final["refusal"] or "").startswith(choice.message.refusal or "")
    accumulator.add([CHAT.decode(msgspec.json.encode(chunk)) for chunk in chunks[cut:]])
    assert accumulator.result() == expected(whole)
    assert partial == before, "what was given out changed afterwards"


@given(streams())
def test_chunks_are_not_changed(stream):
    _, chunks = stream
    structs = [CHAT.decode(msgspec.json.encode(chunk)) for chunk in chunks]
    before = copy.deepcopy(structs)
    accumulator = ChatAccumulator()
    accumulator.add(structs)
    accumulator.result()
    assert structs == before


# -- what was wrong, or easily is ------------------------------------------------------------------


def chunk(delta=None, index=0, finish=None, **fields):
    return {"choices": [{"index": index, "delta": delta or {}, "finish_reason": finish}], **fields}


def test_choice_0_is_known_when_another_choice_spoke_first():
    accumulator = fed([chunk({"content": "b"}, 1), chunk({"content": "a"}), chunk({}, 1, "stop")])
    assert [c.message.content for c in accumulator.result().choices] == ["a", "b"]
    assert not accumulator.finished(1), "choice 0 has not finished"


def test_a_function_call_beside_empty_text_is_kept():
    accumulator = fed(
        [
            chunk({"content": "x"}),
            chunk({"content": "", "function_call": {"name": "f", "arguments": "{"}}),
            chunk({"content": "", "function_call": {"arguments": "}"}}),
        ]
    )
    call = accumulator.result().choices[0].message.function_call
    assert (call.name, call.arguments) == ("f", "{}")


def test_the_head_may_come_late():
    late = chunk({}, finish="stop", system_fingerprint="fp", created=5)
    accumulator = fed([chunk({"content": "a"}, id="1", model="m"), chunk({"content": "b"}), late])
    result = accumulator.result()
    assert (result.id, result.model, result.created) == ("1", "m", 5)
    assert result.system_fingerprint == "fp"


@pytest.mark.parametrize(
    ("delta", "counts"),
    [
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"content": None}, False),
        ({"tool_calls": []}, False),
        ({"content": "a"}, True),
        ({"refusal": "a"}, True),
        ({"reasoning": "a"}, True),
        ({"reasoning_content": "a"}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"function_call": {"name": "f"}}, True),
    ],
)
def test_what_counts_as_a_delta(delta, counts):
    assert fed([chunk(delta)]).has_delta is counts
    assert fed([chunk(delta, finish="stop")]).has_delta


def test_an_answer_without_choices():
    accumulator = fed([{"choices": []}, {"usage": {}}])
    assert not accumulator.has_choices
    assert not accumulator.has_delta
    assert not accumulator.finished(1)
    assert accumulator.result() == ChatCompletion()


def test_finished_counts_choices_and_reasons():
    accumulator = fed([chunk({"content": "a"}), chunk({}, 0, "stop")])
    assert accumulator.finished(1)
    assert not accumulator.finished(2)
    accumulator.add([CHAT.decode(msgspec.json.encode(chunk({"content": "b"}, 1)))])
    assert not accumulator.finished(1)


def test_empty_text_and_no_text_are_told_apart():
    assert fed([chunk({"content": ""}, finish="stop")]).result().choices[0].message.content == ""
    assert fed([chunk({}, finish="stop")]).result().choices[0].message.content is None
    calls = chunk({"content": "", "tool_calls": [{"index": 0, "function": {"name": "f"}}]})
    assert fed([calls]).result().choices[0].message.content is None


def test_the_latest_usage_that_says_something_wins():
    usages = [{}, {"prompt_tokens": 1}, None, {"prompt_tokens": 2}, {}, {"prompt_tokens": 0}]
    accumulator = fed([chunk({"content": "a"}, usage=usage) for usage in usages])
    assert accumulator.usage == Usage(prompt_tokens=2)
    assert accumulator.result().usage == Usage(prompt_tokens=2)
    assert accumulator.result().choices[0].message.content == "a" * len(usages)


# -- tool calls ------------------------------------------------------------------------------------


def calls(*deltas):
    made = fed([chunk({"tool_calls": delta}) for delta in deltas]).result()
    found = made.choices[0].message.tool_calls
    return [(c.id, c.function.name, c.function.arguments) for c in found]


def piece(name=None, arguments=None, **fields):
    function = {"name": name, "arguments": arguments}
    return {**fields, "function": {k: v for k, v in function.items() if v is not None}}


def test_calls_that_all_say_index_0_are_told_apart_by_id():
    assert calls(
        [piece("f", "1", index=0, id="a")],
        [piece(None, "2", index=0)],
        [piece("f", "3", index=0, id="b")],
        [piece(None, "4", index=0)],
        [piece(None, "5", index=0, id="a")],
    ) == [("a", "f", "125"), ("b", "f", "34")]


def test_calls_with_neither_index_nor_id_are_told_apart_by_name():
    assert calls([piece("f", "{}"), piece("f", "{}")]) == [("", "f", "{}")] * 2
    assert calls([piece("f"), piece("f")]) == [("", "f", "")] * 2
    assert calls([piece("f")], [piece("g")]) == [("", "f", ""), ("", "g", "")]
    assert calls([piece("f", "")], [piece("f", "{}")]) == [("", "f", "{}")]
    assert calls([piece("f", "{")], [piece(None, "}")], [piece("g", "1")]) == [
        ("", "f", "{}"),
        ("", "g", "1"),
    ]


@pytest.mark.parametrize("ids", [{}, {"id": ""}, {"id": None}])
@pytest.mark.parametrize("apart", [True, False])
def test_calls_that_all_say_index_0_and_have_no_id_end_with_their_json(ids, apart):
    made = [piece("f", '{"a":1}', index=0, **ids), piece("f", '{"a":2}', index=0, **ids),
            piece("g", "{}", index=0, **ids)]  # fmt: skip
    deltas = [[one] for one in made] if apart else [made]
    assert calls(*deltas) == [("", "f", '{"a":1}'), ("", "f", '{"a":2}'), ("", "g", "{}")]


@pytest.mark.parametrize("names", ["first", "each"])
@pytest.mark.parametrize("index", [{"index": 0}, {}])
def test_an_id_alone_opens_no_call(names, index):
    made = [
        piece("f" if names == "each" or not n else None, part, id=f"id-{n}", **index)
        for n, part in enumerate(['{"a":"', "}{", '"}', ""])
    ]
    assert calls(*[[one] for one in made]) == [("id-0", "f", '{"a":"}{"}')]


def test_pieces_that_are_counted_are_one_call():
    made = [piece("f", "{", index=0), piece(None, '"a":', index=1), piece(None, "1}", index=2)]
    assert calls(*[[one] for one in made]) == [("", "f", '{"a":1}')]


def test_the_end_of_arguments_is_found_in_linear_time():
    # A name with each piece asks with each piece whether the JSON is complete.
    made = [piece("f", '{"a":"', index=0)] + [piece("f", "}", index=0)] * 20_000
    started = time.perf_counter()
    accumulator = fed([chunk({"tool_calls": [one]}) for one in made])
    assert time.perf_counter() - started < 30  # the square of the length took a minute
    (call,) = accumulator.result().choices[0].message.tool_calls
    assert call.function.arguments == '{"a":"' + "}" * 20_000


def test_a_nameless_piece_goes_where_the_last_one_went():
    assert calls(
        [piece("f", "1", id="a")], [piece("g", "2", id="b")], [piece(None, "3", id="a")],
        [piece(None, "4")],
    ) == [("a", "f", "134"), ("b", "g", "2")]  # fmt: skip
    assert calls([piece("f", "1", index=0, id="a")], [piece(None, "2")]) == [("a", "f", "12")]


def test_calls_stand_in_the_order_of_their_index():
    assert calls([piece("g", "", index=1, id="b")], [piece("f", "", index=0, id="a")]) == [
        ("a", "f", ""),
        ("b", "g", ""),
    ]


def test_a_name_may_come_in_pieces_or_again_and_again():
    assert calls([piece("get_", "", index=0)], [piece("weather", "{}", index=0)]) == [
        ("", "get_weather", "{}")
    ]
    assert calls([piece("f", "{", index=0)], [piece("f", "}", index=0)]) == [("", "f", "{}")]


def test_an_id_may_come_late():
    assert calls([piece("f", "1", index=0)], [piece(None, "2", index=0, id="a")]) == [
        ("a", "f", "12")
    ]


def test_arguments_that_are_objects_become_json_text():
    assert calls([piece("f", {"a": [1]}, index=0)]) == [("", "f", '{"a":[1]}')]


# -- cost ------------------------------------------------------------------------------------------


def test_each_piece_is_joined_once():
    # What grows is kept as a list of pieces; a growing str would be copied at each chunk.
    deltas = [
        dict.fromkeys(("content", "refusal", "reasoning", "reasoning_content"), "x"),
        {"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]},
        {"function_call": {"arguments": "x"}},
    ]
    accumulator = fed([chunk(delta) for delta in deltas * 50])
    grown = accumulator._first
    for parts in (grown.content, grown.refusal, grown.reasoning, grown.reasoning_content):
        assert len(parts) == 50
    assert len(grown.function.arguments) == 50
    assert len(grown.tools._calls[0].arguments) == 50


def test_logprobs_grow_in_place():
    structs = [
        CHAT.decode(
            msgspec.json.encode(
                {"choices": [{"delta": {}, "logprobs": {"content": [{"token": "a"}]}}]}
            )
        )
        for _ in range(100)
    ]
    accumulator = ChatAccumulator()
    accumulator.add(structs[:1])
    growing = accumulator._first.logprobs.content
    accumulator.add(structs[1:])
    assert accumulator._first.logprobs.content is growing
    result = accumulator.result().choices[0].logprobs.content
    assert result is not growing
    assert [token is struct.choices[0].logprobs.content[0]
            for token, struct in zip(result, structs, strict=True)] == [True] * 100  # fmt: skip
    assert len(structs[0].choices[0].logprobs.content) == 1


# -- text completions ------------------------------------------------------------------------------

TEXT_LOGPROBS = st.none() | st.fixed_dictionaries(
    {
        "tokens": st.lists(WORDS, min_size=1, max_size=3),
        "token_logprobs": st.lists(st.none() | st.floats(-9, 0), min_size=1, max_size=3),
        "top_logprobs": st.none() | st.lists(st.none() | st.just({"a": -1.0}), min_size=1),
        "text_offset": st.lists(st.integers(0, 9), min_size=1, max_size=3),
    }
)


@st.composite
def text_streams(draw):
    whole = {"id": "cmpl-1", "created": 5, "model": "a/b", "usage": draw(st.none() | USAGE)}
    whole["choices"] = [
        {"index": i, "text": draw(WORDS), "finish_reason": "stop", "logprobs": draw(TEXT_LOGPROBS)}
        for i in range(draw(st.integers(1, 3)))
    ]
    queues = []
    for choice in whole["choices"]:
        parts = [
            {"index": choice["index"], "text": p, "finish_reason": None, "logprobs": None}
            for p in pieces(draw, choice["text"])
        ]
        parts[-1]["finish_reason"] = "stop"
        for name, values in (choice["logprobs"] or {}).items():
            for value in values or ():
                known = parts[0]["logprobs"] = parts[0]["logprobs"] or {}
                known.setdefault(name, []).append(value)
        queues.append(parts)
    head = {key: whole[key] for key in ("id", "created", "model")}
    chunks = [{**head, "choices": [part]} for part in interleave(draw, queues)]
    add_usage(draw, chunks, whole["usage"])
    return whole, chunks


@given(text_streams(), st.lists(st.integers(0, 3), max_size=5))
def test_a_text_completion_comes_back(stream, sizes):
    whole, chunks = stream
    accumulator = fed(chunks, TEXT, CompletionAccumulator, sizes)
    assert accumulator.result() == msgspec.convert(whole, Completion)
    assert accumulator.finished(len(whole["choices"]))
    assert accumulator.has_delta
    assert accumulator.has_choices
    assert accumulator.model == "a/b"


def test_text_completion_before_anything_came():
    accumulator = CompletionAccumulator()
    assert accumulator.result() == Completion()
    assert not accumulator.finished(1)
    accumulator.add([TEXT.decode(b'{"choices":[{"text":""}]}')])
    assert not accumulator.has_delta
    assert accumulator.has_choices
    accumulator.add([TEXT.decode(b'{"choices":[{"text":null,"finish_reason":"stop"}]}')])
    assert accumulator.has_delta
    assert accumulator.finished(1)


def chat_chunk(*choices, **more):
    return CHAT.decode(
        msgspec.json.encode({"id": "c", "model": "m", "choices": list(choices), **more})
    )


def test_the_facts_of_several_choices_are_in_their_order():
    whole = ChatAccumulator()
    assert whole.facts() == (None, None, ())
    for index, reason in ((1, None), (0, None), (1, "length"), (0, "stop")):
        whole.add(
            [chat_chunk({"index": index, "delta": {"content": "a"}, "finish_reason": reason})]
        )
    assert whole.facts() == ("c", "m", ("stop", "length"))


def test_the_size_of_an_answer_counts_what_a_model_has_written():
    whole = ChatAccumulator()
    call = {"name": "look_up", "arguments": '{"a":1}'}
    whole.add([chat_chunk({"index": 0, "delta": {"content": "né", "function_call": call}})])
    assert whole.size() == 3 + len("look_up") + len('{"a":1}')
    text = CompletionAccumulator()
    text.add([TEXT.decode(b'{"choices":[{"index":0,"text":"n\xc3\xa9"}]}')])
    assert text.size() == 3


def test_unknown_fields_of_a_text_choice_are_kept_and_its_index_is_put_right():
    text = CompletionAccumulator(expected=1)
    for word in ("a", "b"):
        text.add([TEXT.decode(msgspec.json.encode(
            {"choices": [{"index": 3, "text": word, "prompt_token_ids": [1]}]}
        ))])  # fmt: skip
    [choice] = text.result().choices
    assert (choice.index, choice.text, choice.prompt_token_ids) == (0, "ab", [1, 1])
