"""What the emulator answers: text, tools, formats, usage, and that a stream says the same."""

import array
import base64
import json
import math

import aiohttp
import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async.testing import Emulator
from konko_async.testing._emulator.content.embeddings import embed
from konko_async.testing._emulator.content.schema_example import example
from konko_async.testing._emulator.content.text import (
    WORDS,
    count_tokens,
    cut_tokens,
    digest,
    limit_tokens,
    pieces,
    reply_tokens,
    tokenize,
)

CHAT = "codellama/codellama-13b-instruct"
TEXT = "phind/phind-codellama-34b-v2"
EMBED = "thenlper/gte-base"
HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "Hello there"}]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "minimum": 2},
                "unit": {"enum": ["C", "F"]},
            },
            "required": ["city", "days"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}


class Caller:
    def __init__(self, emulator, session):
        self.emulator, self._session = emulator, session

    async def whole(self, body, path="/chat/completions"):
        async with self._session.post(self.emulator.base_url + path, json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def chunks(self, body, path="/chat/completions"):
        url, body = self.emulator.base_url + path, {**body, "stream": True}
        async with self._session.post(url, json=body) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            data = await response.read()
        assert data.endswith(b"data: [DONE]\n\n")
        events = data.split(b"\n\n")
        return [json.loads(event.removeprefix(b"data: ")) for event in events[:-2]]


@pytest.fixture
async def call():
    headers = {"Authorization": "Bearer k"}
    async with Emulator() as emulator, aiohttp.ClientSession(headers=headers) as session:
        yield Caller(emulator, session)


def text_of(answer, index=0):
    return answer["choices"][index]["message"]["content"]


def assembled(chunks, index=0):
    """The message of one choice, and its finish_reason, put together from a stream."""
    message, reason = {"content": None, "tool_calls": []}, None
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            reason = choice["finish_reason"] or reason
            delta = choice["delta"]
            if delta.get("content") is not None:
                message["content"] = (message["content"] or "") + delta["content"]
            for part in delta.get("tool_calls", ()):
                if part["index"] == len(message["tool_calls"]):
                    message["tool_calls"].append({"id": part["id"], **part["function"]})
                else:
                    arguments = part["function"]["arguments"]
                    message["tool_calls"][part["index"]]["arguments"] += arguments
    return message, reason


# -- text


async def test_text_is_a_function_of_the_request(call):
    first, second = await call.whole(HELLO), await call.whole(HELLO)
    assert text_of(first) == text_of(second)
    assert "Hello there" in text_of(first)
    assert first["id"] != second["id"]
    assert first["object"] == "chat.completion"
    assert first["system_fingerprint"].startswith("fp_")
    for change in (
        {"seed": 7},
        {"model": "meta-llama/llama-2-13b-chat"},
        {"messages": [{"role": "system", "content": "x"}, *HELLO["messages"]]},
        {"messages": [{"role": "user", "content": "Hello there?"}]},
    ):
        assert text_of(await call.whole({**HELLO, **change})) != text_of(first)
    # What does not say anything else changes nothing.
    parts = [{"content": [{"type": "text", "text": "Hello there"}], "role": "user"}]
    assert text_of(await call.whole({**HELLO, "temperature": 0, "messages": parts})) == text_of(
        first
    )


async def test_text_is_the_same_in_every_run(call):
    # Pinned: users compare answers between runs and machines.
    assert text_of(await call.whole({**HELLO, "max_tokens": 8})) == EXPECTED


EXPECTED = 'Opal answers "Hello there": Beacon'


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("chunk_tokens", [1, 4, 1000])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"max_tokens": 5},
        {"max_completion_tokens": 1},
        {"stop": "answers"},
        {"stop": ["zzz", ":"]},
        {"logprobs": True, "top_logprobs": 2},
        {"tools": [WEATHER]},
        {"tools": [WEATHER, TIME], "parallel_tool_calls": True},
        {"response_format": {"type": "json_object"}},
    ],
)
async def test_a_stream_says_what_the_whole_says(call, n, chunk_tokens, change):
    body = {**HELLO, **change, "n": n}
    call.emulator.chunk_tokens = chunk_tokens
    whole = await call.whole(body)
    chunks = await call.chunks({**body, "stream_options": {"include_usage": True}})
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    for index, choice in enumerate(whole["choices"]):
        message, reason = assembled(chunks, index)
        assert message["content"] == choice["message"]["content"]
        calls = choice["message"].get("tool_calls", [])
        assert message["tool_calls"] == [{"id": c["id"], **c["function"]} for c in calls]
        assert reason == choice["finish_reason"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


async def test_the_shape_of_a_stream(call):
    chunks = await call.chunks({**HELLO, "max_tokens": 3})
    assert all("usage" not in chunk for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert all(delta.keys() == {"content"} for delta in deltas[1:-1])
    assert deltas[-1] == {}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["length"]


async def test_choices_differ_from_the_first_token_on(call):
    answer = await call.whole({**HELLO, "n": 128, "max_tokens": 1})
    texts = {text_of(answer, index) for index in range(128)}
    assert len(texts) == 128
    assert answer["usage"]["completion_tokens"] == 128


async def test_usage_is_the_documented_count(call):
    body = {**HELLO, "messages": [{"role": "system", "content": "Be kind."}, *HELLO["messages"]]}
    answer = await call.whole(body)
    usage = answer["usage"]
    # "Be", " kind", "." and "Hello", " there", and three for each message.
    assert usage["prompt_tokens"] == 3 + 2 + 2 * 3
    assert usage["completion_tokens"] == count_tokens(text_of(answer))
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("length", [1, 2, 7, 40, 2000])
async def test_the_length_of_answers_can_be_set(call, length):
    call.emulator.answer_tokens = length
    assert (await call.whole(HELLO))["usage"]["completion_tokens"] == length


async def test_other_content_counts_too(call):
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "found it"},
    ]
    answer = await call.whole({**HELLO, "messages": messages})
    assert answer["usage"]["prompt_tokens"] > 9
    assert '"found it"' in text_of(answer)


# -- tools and formats


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({}, ["get_weather"]),
        ({"tool_choice": "auto"}, ["get_weather"]),
        ({"tool_choice": "required"}, ["get_weather"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": {"type": "function", "function": {"name": "get_time"}}}, ["get_time"]),
        ({"parallel_tool_calls": True}, ["get_weather", "get_time"]),
        ({"messages": [{"role": "user", "content": "use get_time"}]}, ["get_time"]),
        (
            {
                "messages": [
                    *HELLO["messages"],
                    {"role": "tool", "tool_call_id": "1", "content": "5"},
                ]
            },
            [],
        ),
    ],
)
async def test_which_tools_are_called(call, change, names):
    answer = await call.whole({**HELLO, "tools": [WEATHER, TIME], **change})
    choice = answer["choices"][0]
    calls = choice["message"].get("tool_calls", [])
    assert [c["function"]["name"] for c in calls] == names
    assert choice["finish_reason"] == ("tool_calls" if names else "stop")
    assert (choice["message"]["content"] is None) == bool(names)
    assert len({c["id"] for c in calls}) == len(names)


async def test_arguments_follow_the_schema(call):
    answer = await call.whole({**HELLO, "tools": [WEATHER]})
    function = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]) == {"city": "city", "days": 2}


async def test_streamed_tool_calls_begin_with_their_name(call):
    chunks = await call.chunks({**HELLO, "tools": [WEATHER]})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["content"] is None
    first = deltas[1]["tool_calls"][0]
    assert first.keys() == {"index", "id", "type", "function"}
    assert first["function"] == {"name": "get_weather", "arguments": ""}
    assert all(d["tool_calls"][0].keys() == {"index", "function"} for d in deltas[2:-1])
    assert len(deltas) > 8


async def test_arguments_are_cut_by_max_tokens(call):
    answer = await call.whole({**HELLO, "tools": [WEATHER], "max_tokens": 3})
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == '{"city'
    assert answer["usage"]["completion_tokens"] == 3


SCHEMA = {
    "$defs": {
        "item": {"type": "object", "required": ["n"], "properties": {"n": {"type": "number"}}}
    },
    "type": "object",
    "properties": {
        "items": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/item"}},
        "when": {"type": "string", "format": "date"},
        "left_out": {"type": "string"},
    },
    "required": ["items", "when"],
}


async def test_structured_answers(call):
    answer = await call.whole({**HELLO, "response_format": {"type": "json_object"}})
    assert "Hello there" in json.loads(text_of(answer))["answer"]
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    answer = await call.whole({**HELLO, "response_format": wanted})
    assert json.loads(text_of(answer)) == {"items": [{"n": 1}, {"n": 1}], "when": "2024-01-01"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "value"),
        ({"type": "string", "maxLength": 2}, "va"),
        ({"type": "string", "minLength": 7}, "valuexx"),
        ({"type": "string", "format": "uuid"}, "00000000-0000-4000-8000-000000000000"),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["integer", "null"]}, 1),
        ({"type": []}, "value"),
        ({"type": "integer", "minimum": 3, "multipleOf": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, 0.25),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "number", "minimum": 0.5, "maximum": 0.75}, 0.5),
        ({"const": 5}, 5),
        ({"enum": ["a", "b"]}, "a"),
        ({"default": [1]}, [1]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
        ({"oneOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"const": 2}}}, 2),
        ({"properties": {"a": {}}, "required": ["a"]}, {"a": "a"}),
        ({"items": {"type": "string"}}, []),
        (
            {"type": "array", "prefixItems": [{"const": 1}], "minItems": 2, "items": {}},
            [1, "value"],
        ),
        (
            {
                "allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}}}],
                "required": ["b"],
            },
            None,
        ),
        ({"$ref": "#/nowhere"}, "value"),
        (True, "value"),
        (None, "value"),
    ],
)
def test_examples_of_schemas(schema, expected):
    if schema and schema is not True and "allOf" in schema:
        expected = {"b": "b", "a": 1}
    assert example(schema) == expected


def test_a_schema_that_needs_itself_ends():
    schema = {
        "type": "object",
        "properties": {"next": {"$ref": "#"}},
        "required": ["next"],
    }
    assert json.dumps(example(schema)).count("next") < 20


# -- logprobs


@pytest.mark.parametrize("top", [0, 1, 5])
async def test_logprobs(call, top):
    answer = await call.whole({**HELLO, "logprobs": True, "top_logprobs": top})
    content = answer["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == text_of(answer)
    for entry in content:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["logprob"] <= 0
        tops = entry["top_logprobs"]
        assert len({other["token"] for other in tops}) == len(tops) == top
        if top:
            assert tops[0]["token"] == entry["token"]
            assert tops == sorted(tops, key=lambda other: -other["logprob"])


async def test_logprobs_of_completions(call):
    body = {"model": TEXT, "prompt": "Say", "logprobs": 2}
    choice = (await call.whole(body, "/completions"))["choices"][0]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert choice["text"][offset:].startswith(token)
    assert all(len(top) == 2 for top in logprobs["top_logprobs"])
    chunks = await call.chunks(body, "/completions")
    offsets = [
        o for c in chunks for o in (c["choices"][0]["logprobs"] or {}).get("text_offset", ())
    ]
    assert offsets == logprobs["text_offset"]


# -- the user's own answers


@pytest.mark.parametrize(
    "own", ["Own answer, word by word.", ["Own ", "answer, word", " by word."]]
)
async def test_own_text(call, own):
    call.emulator.answer = lambda _: own
    chunks = await call.chunks({**HELLO, "tools": [WEATHER]})
    message, reason = assembled(chunks)
    assert (message["content"], reason) == ("Own answer, word by word.", "stop")
    if isinstance(own, list):
        assert [c["choices"][0]["delta"].get("content") for c in chunks[1:-1]] == own
    answer = await call.whole({**HELLO, "stop": "word", "max_tokens": 100})
    assert text_of(answer) == "Own answer, "
    assert text_of(await call.whole({**HELLO, "max_tokens": 1})) in ("Own", "Own ")


async def test_own_answer_sees_the_request_and_may_wait(call):
    async def answer(body):
        return body["messages"][-1]["content"].upper()

    call.emulator.answer = answer
    assert text_of(await call.whole(HELLO)) == "HELLO THERE"
    answer = await call.whole(
        {"model": TEXT, "prompt": "x"} | {"messages": [{"content": "a"}]}, "/completions"
    )
    assert answer["choices"][0]["text"] == "A"


async def test_own_message(call):
    call.emulator.answer = lambda _: {
        "content": "Let me look.",
        "reasoning_content": "Hm.",
        "tool_calls": [
            {"id": "mine", "function": {"name": "f", "arguments": {"a": 1}}},
            {"name": "g", "arguments": '{"b":2}'},
        ],
    }
    answer = await call.whole(HELLO)
    message = answer["choices"][0]["message"]
    assert message["content"] == "Let me look."
    assert message["reasoning_content"] == "Hm."
    assert [c["id"] for c in message["tool_calls"]] == ["mine", "call_1"]
    assert [c["function"]["arguments"] for c in message["tool_calls"]] == ['{"a":1}', '{"b":2}']
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    chunks = await call.chunks(HELLO)
    streamed, reason = assembled(chunks)
    assert chunks[0]["choices"][0]["delta"]["reasoning_content"] == "Hm."
    assert streamed["content"] == "Let me look."
    assert [c["name"] for c in streamed["tool_calls"]] == ["f", "g"]
    assert reason == "tool_calls"


async def test_an_own_answer_that_fails(call, caplog):
    def answer(body):
        raise KeyError("oops")

    call.emulator.answer = answer
    url = call.emulator.base_url + "/chat/completions"
    async with call._session.post(url, json=HELLO) as response:
        assert response.status == 500
        error = (await response.json())["error"]
    assert error["code"] == "answer_hook_failed"
    assert "oops" in error["message"]
    assert "answer= function failed" in caplog.text


# -- completions and embeddings


@pytest.mark.parametrize("prompt", ["Once upon", ["Once upon", "a time"], [5, 6], [[5, 6], [7]]])
@pytest.mark.parametrize("n", [1, 2])
async def test_completions(call, prompt, n):
    body = {"model": TEXT, "prompt": prompt, "n": n}
    whole = await call.whole(body, "/completions")
    prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    assert whole["object"] == "text_completion"
    assert [choice["index"] for choice in whole["choices"]] == list(range(prompts * n))
    assert len({choice["text"] for choice in whole["choices"]}) == prompts * n
    options = {"stream_options": {"include_usage": True}}
    chunks = await call.chunks({**body, **options}, "/completions")
    for index, choice in enumerate(whole["choices"]):
        parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert parts[-1]["finish_reason"] == choice["finish_reason"] == "stop"
    assert chunks[-1]["usage"] == whole["usage"]
    if prompt == [[5, 6], [7]]:
        assert whole["usage"]["prompt_tokens"] == 3


async def test_echo(call):
    body = {"model": TEXT, "prompt": "Once upon", "max_tokens": 2}
    plain = (await call.whole(body, "/completions"))["choices"][0]["text"]
    echo = (await call.whole({**body, "echo": True}, "/completions"))["choices"][0]["text"]
    assert echo == "Once upon" + plain


@pytest.mark.parametrize("dimensions", [None, 8, 1536])
@pytest.mark.parametrize("texts", ["one", ["one", "two words", ""], [1, 2], [[1], [2, 3]]])
async def test_embeddings(call, texts, dimensions):
    body = {"model": EMBED, "input": texts, "dimensions": dimensions}
    floats = await call.whole(body, "/embeddings")
    packed = await call.whole({**body, "encoding_format": "base64"}, "/embeddings")
    assert floats["object"] == "list"
    assert floats["usage"] == packed["usage"]
    assert floats["usage"]["total_tokens"] == floats["usage"]["prompt_tokens"]
    for at, (one, other) in enumerate(zip(floats["data"], packed["data"], strict=True)):
        assert (one["object"], one["index"]) == ("embedding", at)
        vector = array.array("f", base64.b64decode(other["embedding"]))
        assert vector.tolist() == one["embedding"]
        assert len(vector) == (dimensions or 384)
        assert math.isclose(sum(value * value for value in vector), 1, rel_tol=1e-5)


def test_texts_that_share_words_are_near():
    def cosine(a, b):
        return sum(x * y for x, y in zip(embed(a, 384), embed(b, 384), strict=True))

    assert cosine("The red fox.", "the RED fox") > 0.999
    assert cosine("the red fox", "the red hen") > cosine("the red fox", "some other thing") + 0.3


# -- text, as properties


@given(st.text())
def test_tokens_are_the_text(text):
    tokens = tokenize(text)
    assert "".join(tokens) == text
    assert all(tokens)
    assert count_tokens(text) == len(tokens)
    assert "".join(pieces(tokens, 3)) == text


@given(
    st.text(max_size=60),
    st.binary(min_size=64, max_size=64),
    st.integers(0, 200),
    st.integers(1, 300),
)
@hypothesis.example("0\t\r0", bytes(64), 0, 1)
def test_generated_tokens_are_those_of_their_text(question, seed, index, length):
    tokens = reply_tokens(question, seed, index, length)
    assert len(tokens) == length
    whole = reply_tokens(question, seed, index, None)
    assert 16 <= len(whole) <= 64 or whole
    assert tokenize("".join(whole)) == whole


@given(
    st.text(), st.lists(st.text(min_size=1, max_size=3), max_size=4), st.none() | st.integers(1, 20)
)
def test_limits_keep_a_prefix(text, stop, most):
    tokens = tokenize(text)
    kept, reason = limit_tokens(tokens, stop, most)
    given_text = "".join(kept)
    assert text.startswith(given_text)
    assert not any(item in given_text for item in stop)
    assert most is None or len(kept) <= most
    assert (reason == "length") == (
        given_text == "".join(tokens[: len(kept)])
        and most is not None
        and len(tokens) > most
        and not any(item in "".join(tokens[:most]) for item in stop)
    )
    assert "".join(cut_tokens(tokens, 2)) == text[:2]


def test_words_are_tokens():
    assert len(WORDS) == len(set(WORDS)) == 256
    assert all(tokenize(f" {word}") == [f" {word}"] for word in WORDS)
    assert digest("a") == digest("a") != digest("b")
