"""Decoding: every way in which real servers vary is read, no text is lost, no failure passes."""

import collections
import decimal
import json
import types

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from konko_async import ConfigurationError, ResponseDecodeError
from konko_async.wire import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    Embedding,
    FunctionCall,
    Model,
    ModelList,
)
from konko_async.wire._base import Wire
from konko_async.wire._codec import Codec, decode_json, encode, is_finite
from konko_async.wire._embeddings import WireEmbeddings, unpack_vector

CHAT, CHUNK, TEXT = Codec(ChatCompletion), Codec(ChatCompletionChunk), Codec(Completion)
MODELS, MODEL, VECTORS = Codec(ModelList), Codec(Model), Codec(WireEmbeddings)


def chat(message=None, **fields):
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return CHAT.decode(json.dumps({"id": "1", "choices": [choice], **fields}))


def delta(**fields):
    body = json.dumps({"choices": [{"index": 0, "delta": fields}]})
    return CHUNK.decode(body).choices[0].delta


# -- "Real servers vary" ---------------------------------------------------------------------------


def test_null_or_missing_content():
    assert chat({"role": "assistant", "content": None}).choices[0].message.content is None
    assert chat({"role": "assistant"}).choices[0].message.content is None
    assert chat(None).choices[0].message.content is None
    assert delta(content=None).content is None
    assert delta().content is None


def test_null_finish_reason_and_missing_index():
    body = b'{"choices":[{"message":{"content":"a"},"finish_reason":null}]}'
    choice = CHAT.decode(body).choices[0]
    assert (choice.index, choice.finish_reason, choice.message.content) == (0, None, "a")
    body = b'{"choices":[{"index":null,"delta":{"content":"a"}}]}'
    assert CHUNK.decode(body).choices[0].delta.content == "a"


@pytest.mark.parametrize("usage", [{}, None, {"prompt_tokens": None}, {"prompt_tokens": 0}])
def test_usage_that_says_nothing(usage):
    decoded = chat({"content": "a"}, usage=usage)
    assert decoded.usage is None or not decoded.usage.known
    assert decoded.choices[0].message.content == "a"


def test_usage_in_odd_types():
    usage = chat({}, usage={"prompt_tokens": 3.0, "completion_tokens": "4", "x": 1}).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total) == (3, 4, 7)


@pytest.mark.parametrize("choices", [[], None, "missing"])
def test_empty_choices(choices):
    body = {"usage": {"total_tokens": 3}}
    if choices != "missing":
        body["choices"] = choices
    chunk = CHUNK.decode(json.dumps(body))
    assert chunk.choices == []
    assert chunk.usage.total_tokens == 3


@pytest.mark.parametrize(
    ("created", "read"),
    [(1702453635, 1702453635), (1702453635.25, 1702453635.25), ("1702453635", 1702453635),
     ("2024-01-01T00:00:00Z", 0), (None, 0), ({}, 0)],
)  # fmt: skip
def test_created(created, read):
    decoded = chat({"content": "a"}, created=created)
    assert decoded.created == read
    assert decoded.choices[0].message.content == "a"


def test_extra_fields_stay_reachable():
    body = {
        "choices": [{"delta": {"content": "a", "reasoning_details": [1]}}],
        "timings": {"predicted_ms": 1.5},
        "system_fingerprint": "fp",
    }
    chunk = CHUNK.decode(json.dumps(body).encode())
    assert chunk.raw == body
    assert chunk.system_fingerprint == "fp"
    assert delta(reasoning_content="r").reasoning_content == "r"
    assert delta(reasoning="r").reasoning == "r"


def test_tool_calls_without_index_or_id():
    call = delta(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]).tool_calls[0]
    assert (call.index, call.id, call.function.name) == (None, None, "f")
    call = delta(tool_calls=[{"index": None, "id": None, "type": None, "function": None}])
    assert call.tool_calls[0].function is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"a": [1, "x"]}, '{"a":[1,"x"]}'),
        ({}, "{}"),
        ({"type": "text", "text": "hi"}, '{"type":"text","text":"hi"}'),
        (["a", "b"], '["a","b"]'),
        ([{"text": "a"}], '[{"text":"a"}]'),
        (5, "5"),
        (True, "true"),
        ('{"a"', '{"a"'),
    ],
)
def test_tool_arguments_become_json_text(arguments, text):
    call = {"function": {"name": "f", "arguments": arguments}}
    assert delta(tool_calls=[call]).tool_calls[0].function.arguments == text
    message = chat({"tool_calls": [{"id": "1", **call}]}).choices[0].message
    assert message.tool_calls[0].function.arguments == text


def test_null_arguments_are_none():
    call = {"index": 0, "function": {"name": "f", "arguments": None}}
    assert delta(tool_calls=[call]).tool_calls[0].function.arguments == ""


@pytest.mark.parametrize("error", [{"message": "m"}, "text", {}, "", 0, False, [1]])
def test_an_error_in_a_chunk_is_seen(error):
    assert CHUNK.decode(json.dumps({"error": error})).error == error
    assert CHUNK.decode(json.dumps({"error": error, "choices": []})).error == error
    assert CHAT.decode(json.dumps({"error": error, "choices": [{}]})).error == error
    assert TEXT.decode(json.dumps({"error": error, "choices": [{}]})).error == error


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        (["a", "b"], "ab"),
        ([{"text": "a"}], "a"),
        ({"type": "text", "text": "a"}, "a"),
        ([{"type": "refusal", "refusal": "no"}], "no"),
        ([{"type": "text", "text": "a"}, {"type": "reference", "reference_ids": [1]}], "a"),
        ([], ""),
        (5, "5"),
        (1.5, "1.5"),
        (True, "true"),
        ({"answer": 42}, '{"answer":42}'),
        ([{"type": "image_url"}], '[{"type":"image_url"}]'),
        ("null", "null"),
        ("5", "5"),
    ],
)
def test_content_of_any_kind_becomes_text(content, text):
    assert chat({"role": "assistant", "content": content}).choices[0].message.content == text
    assert delta(content=content).content == text


def test_thinking_parts_become_reasoning():
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    message = chat({"content": [thinking, {"type": "text", "text": "a"}]}).choices[0].message
    assert (message.content, message.reasoning) == ("a", "hm")
    assert delta(content=[thinking]).reasoning == "hm"
    assert delta(content=[thinking]).content == ""
    assert delta(content=[{"type": "thinking", "thinking": "hm"}]).reasoning == "hm"


@given(st.text(max_size=20), st.data())
def test_one_odd_field_never_costs_the_text(text, data):
    odd = st.sampled_from([None, "x", 5, 1.5, True, [], {}, [None], {"a": 1}, [[1]], [{"a": None}]])
    top = {k: data.draw(odd) for k in ("id", "created", "model", "object", "usage", "service_tier")}
    choice = {k: data.draw(odd) for k in ("index", "finish_reason", "logprobs")}
    inner = {k: data.draw(odd) for k in ("role", "tool_calls", "function_call", "refusal")}
    inner["content"] = text
    body = {**top, "choices": [{**choice, "message": inner, "delta": inner}]}
    assert CHAT.decode(json.dumps(body)).choices[0].message.content == text
    assert CHUNK.decode(json.dumps(body)).choices[0].delta.content == text
    body = {**top, "choices": [{**choice, "text": text}]}
    assert TEXT.decode(json.dumps(body)).choices[0].text == text


def test_choices_that_are_one_object():
    body = {"choices": {"index": 0, "message": {"content": "a"}}}
    assert CHAT.decode(json.dumps(body)).choices[0].message.content == "a"


def test_logprobs_that_json_cannot_hold():
    body = b'{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-Infinity}]}}]}'
    choice = CHUNK.decode(body).choices[0]
    assert choice.delta.content == "a"
    assert choice.logprobs.content[0].logprob == float("-inf")
    assert CHUNK.decode(body).raw["choices"]


# -- bytes that are nearly JSON --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"choices":[{"delta":{"content":"a\xffb"}}]}', "a\ufffdb"),
        (b'{"choices":[{"delta":{"content":"a\xe2\x82"}}]}', "a\ufffd"),
        (b'{"choices":[{"delta":{"content":"\\ud83d"}}]}', "\ufffd"),
        (b'{"choices":[{"delta":{"content":"\\ude00x"}}]}', "\ufffdx"),
        (b'{"choices":[{"delta":{"content":"\\ud83d\\ud83d\\ude00"}}]}', "\ufffd\U0001f600"),
        (b'{"choices":[{"delta":{"content":"\\\\ud83d \\ude00"}}]}', "\\ud83d \ufffd"),
        (b'{"choices":[{"delta":{"content":"a\nb\tc"}}]}', "a\nb\tc"),
        (b'\xef\xbb\xbf{"choices":[{"delta":{"content":"a"}}]}', "a"),
        (b'{"x":1e999,"choices":[{"delta":{"content":"a"}}]}', "a"),
        (b'{"x":NaN,"choices":[{"delta":{"content":"a"}}]}', "a"),
        (b' \r\n{"choices":[{"delta":{"content":"a"}}]}\n ', "a"),
    ],
)
def test_what_servers_get_wrong_is_put_up_with(body, text):
    for given_body in (body, body.decode("utf-8", "replace")):
        chunk = CHUNK.decode(given_body)
        assert chunk.choices[0].delta.content == text
        assert chunk.raw["choices"][0]["delta"]["content"] == text


@pytest.mark.parametrize(
    ("body", "retryable"),
    [
        (b"", True), (b" ", True), (b"{", True), (b'{"a', True), (b'{"a":"\\', True), (b'{"a":1', True),
        (b"nope", False), (b"{}x", False), (b"{'a':1}", False), (b"<html>", False), (b"\xff", False),
        (b"\0", False), (b"{}{}", False), (b"[DONE]", False), (b"[" * 100_000, False),
    ],
)  # fmt: skip
def test_what_is_no_json_is_told_without_the_payload(body, retryable):
    with pytest.raises(ResponseDecodeError) as caught:
        decode_json(body)
    error = caught.value
    assert error.retryable is retryable
    assert error.body == body[:4096]
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    assert len(str(error)) < 200
    with pytest.raises(ResponseDecodeError):
        CHUNK.decode(body)


@pytest.mark.parametrize(
    "secret", [b'{"k": secret-text}', b'{"secret-text": ', b"secret-text", b'["secret-text"']
)
def test_the_message_never_shows_the_payload(secret):
    with pytest.raises(ResponseDecodeError) as caught:
        decode_json(secret)
    assert "secret-text" not in str(caught.value)
    assert caught.value.offset is not None


@pytest.mark.parametrize("codec", [CHAT, CHUNK, TEXT, MODEL], ids=lambda c: c.kind.__name__)
@pytest.mark.parametrize("body", [b"null", b"1", b'"text"', b"true", b"[1]", b"NaN"])
def test_json_of_another_kind_is_refused(codec, body):
    with pytest.raises(ResponseDecodeError, match=codec.kind.__name__):
        codec.decode(body)


@given(st.binary(max_size=40))
@example(b'"\\ud800"')
@example(b'{"error":NaN}')
def test_any_bytes_decode_or_fail_as_ours(body):
    for codec in (CHAT, CHUNK, TEXT, MODELS, VECTORS):
        try:
            codec.decode(body).raw  # noqa: B018 - it must not raise
        except ResponseDecodeError:
            continue


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**25) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["choices", "delta", "message", "content", "index", "usage", "tool_calls",
                         "function", "arguments", "data", "id", "embedding", "logprobs", "text",
                         "prompt_tokens", "created", "thinking", "type"]), inner, max_size=5),
    max_leaves=25,
)  # fmt: skip


def without_unknown(value):
    """Return a struct without the fields that its class has no names for, at any depth."""
    if isinstance(value, list):
        return [without_unknown(one) for one in value]
    if not isinstance(value, Wire):
        return value
    kind, names = value._extended or (type(value), ())
    known = value.__struct_fields__[: len(value.__struct_fields__) - len(names)]
    return kind(*[without_unknown(getattr(value, name)) for name in known])


@given(ANY_JSON)
def test_any_json_decodes_or_fails_as_ours(value):
    body = json.dumps(value).encode()
    for codec in (CHAT, CHUNK, TEXT, MODELS, MODEL, VECTORS):
        try:
            struct = codec.decode(body)
        except ResponseDecodeError:
            continue
        # What came out is of the types it claims.
        made = msgspec.convert(msgspec.to_builtins(struct), codec.kind)
        assert repr(made) == repr(without_unknown(struct))


@given(ANY_JSON)
def test_strict_and_forgiving_agree_where_strict_can_read(value):
    body = json.dumps(value).encode()
    for codec in (CHAT, CHUNK, TEXT):
        try:
            strict = codec.strict(body)
        except (msgspec.DecodeError, UnicodeError):
            continue
        assert repr(without_unknown(codec._forgiving(body))) == repr(strict)


# -- models and embeddings -------------------------------------------------------------------------


def test_model_lists():
    models = [{"id": "a/b", "is_chat": True, "x": 1}, {"id": "c"}]
    page = MODELS.decode(json.dumps({"object": "list", "data": models}))
    assert [m.id for m in page.data] == ["a/b", "c"]
    assert (page.data[0].is_chat, page.data[1].is_chat) == (True, None)
    assert page.raw["data"] == models
    bare = MODELS.decode(json.dumps(models))
    assert [m.id for m in bare.data] == ["a/b", "c"]
    assert bare.raw == models
    odd = [{"id": "a", "max_context_length": "8192", "created": "x", "is_text": "true"}, None, {}]
    [model] = MODELS.decode(json.dumps({"data": odd})).data
    assert (model.max_context_length, model.created, model.is_text) == (8192, None, True)
    with pytest.raises(ResponseDecodeError):
        MODELS.decode(b"{}")
    with pytest.raises(ResponseDecodeError):
        MODEL.decode(b'{"object":"model"}')


def test_vectors():
    body = {
        "data": [{"embedding": [1, 2.5], "index": 0}, {"embedding": "AACAPwAAIEA=", "index": 1}]
    }
    first, second = VECTORS.decode(json.dumps(body)).data
    assert first.embedding == unpack_vector(second.embedding) == [1.0, 2.5]
    for wrong in ("", "x", "AAA=", "AACAPwA=", "AACAPw==\n", "é"):
        with pytest.raises(ValueError):
            unpack_vector(wrong)
    assert Embedding([1.0]).object == "embedding"


# -- encoding --------------------------------------------------------------------------------------


class Text(str):
    """As markupsafe and others make."""

    __slots__ = ()

    def __str__(self):
        return "not this"


class Number(float):
    """As numpy's float64 is one."""

    __slots__ = ()


class Whole(int):
    __slots__ = ()


def test_what_is_like_json_is_encoded():
    value = [
        Text("x"), Number(1.5), Whole(3), decimal.Decimal("1.5"), (1, 2), {3: 4},
        collections.OrderedDict(a=Text("b")), types.MappingProxyType({"c": 1}),
        collections.defaultdict(list, d=[1]), 2**70, "\u20ac",
    ]  # fmt: skip
    assert json.loads(encode(value)) == [
        "x", 1.5, 3, 1.5, [1, 2], {"3": 4}, {"a": "b"}, {"c": 1}, {"d": [1]}, 2**70, "\u20ac",
    ]  # fmt: skip


def test_lone_surrogates_become_replacement_characters():
    value = {"a\ud800": ["caf\udce9", FunctionCall("f", "\udfff!")], "b": 1}
    assert json.loads(encode(value)) == {
        "a\ufffd": ["caf\ufffd", {"name": "f", "arguments": "\ufffd!"}],
        "b": 1,
    }
    assert encode("\ud83d\ude00\ud83d") == '"😀\ufffd"'.encode()
    assert encode([decimal.Decimal("1.50"), "\udfff"]) == '[1.50,"\ufffd"]'.encode()


def test_what_is_not_is_refused():
    cycle = []
    cycle.append(cycle)
    for wrong in (object(), 1j, {"a": cycle}, {None: 1}, ValueError):
        with pytest.raises(ConfigurationError, match="JSON") as caught:
            encode({"messages": wrong})
        assert caught.value.__context__ is None


def test_a_name_that_is_not_utf8_makes_no_plain_answer():
    plain, odd = b'{"id":"c","choices":[]}', b'{"id":"c","ch\xe5ices":[]}'
    assert CHUNK.count_plain([plain, plain], 2) == 2
    assert CHUNK.count_plain([odd], 1) == 0
    assert CHUNK.count_plain([plain, odd], 2) == 1
    assert CHUNK.decode(odd).id == "c"


def test_no_decimal_is_written_that_json_has_no_number_for():
    for wrong in ("NaN", "-NaN", "sNaN", "NaN12", "Infinity", "-Infinity"):
        for beside in ("text", "\udfff"):
            with pytest.raises(ConfigurationError, match="as JSON"):
                encode({"x": [beside, decimal.Decimal(wrong)]})
    right = ["NaN", "Infinity", decimal.Decimal("1E+400")]
    assert encode(right) == b'["NaN","Infinity",1E+400]'


def test_finite():
    nan, inf = float("nan"), float("inf")
    for wrong in (
        nan,
        inf,
        -inf,
        [nan],
        {"a": (1, [inf])},
        decimal.Decimal("NaN"),
        {"a": types.MappingProxyType({"b": nan})},
    ):
        assert not is_finite(wrong)
    cycle = {}
    cycle["a"] = cycle
    for right in (1, 1.5, "nan", None, [], {"a": [1.5, (2,)]}, decimal.Decimal(1), 10**400, cycle):
        assert is_finite(right)


def test_a_choice_that_has_its_text_elsewhere():
    for choice in ({"text": "a"}, {"delta": {"content": "a"}}, {"text": "a", "message": None}):
        body = json.dumps(
            {"choices": [{"index": 0, "finish_reason": "stop", **choice}], "created": "x"}
        )
        read = Codec(ChatCompletion).decode(body.encode())
        assert read.choices[0].message.content == "a"
