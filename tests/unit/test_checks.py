"""Checks of arguments: what is wrong is named, and nothing legal is refused."""

import collections
import contextlib
import enum
import math
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async import ConfigurationError
from konko_async._core.validation import (
    check_input,
    check_messages,
    check_model,
    check_sampling,
    check_stream,
    known_keywords,
)
from konko_async.wire import ChatCompletionMessage, ChatMessage, FunctionCall, ToolCall
from konko_async.wire._codec import encode

USER = {"role": "user", "content": "a"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


class Role(enum.StrEnum):
    USER = "user"


class Text(str):
    __slots__ = ()


LEGAL = [
    USER,
    {"role": "system", "content": "a"},
    {"role": "developer", "content": "a"},
    {"role": "user", "content": ""},
    {"role": "user", "content": "a", "name": "b"},
    {"role": "user", "content": [{"type": "text", "text": "a"}]},
    {"role": "user", "content": ({"type": "text", "text": "a"},)},
    {"role": "user", "content": [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "of tomorrow", "weight": 0.5},
    ]},
    {"role": "assistant", "content": "a"},
    {"role": "assistant", "content": None},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "assistant", "content": None, "function_call": CALL["function"]},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    {"role": "assistant", "refusal": "no"},
    {"role": "assistant", "audio": {"id": "a"}},
    {"role": "assistant", "content": "a", "prefix": True},
    {"role": "tool", "content": "42", "tool_call_id": "c"},
    {"role": "tool", "content": [{"type": "text", "text": "42"}], "tool_call_id": "c"},
    {"role": "function", "content": "42", "name": "f"},
    {"role": "function", "content": None, "name": "f"},
    {"role": Role.USER, "content": "a"},
    {"role": "user", "content": Text("a")},
    collections.OrderedDict(USER),
    collections.defaultdict(str, USER),
    types.MappingProxyType(USER),
    ChatMessage("user", "a"),
    ChatMessage("user", [{"type": "text", "text": "a"}]),
    ChatMessage("tool", "42", tool_call_id="c"),
    ChatMessage("assistant", tool_calls=[ToolCall("c", "function", FunctionCall("f", "{}"))]),
    ChatCompletionMessage("assistant", "a"),
    ChatCompletionMessage("assistant", None, tool_calls=[ToolCall("c")]),
]  # fmt: skip


@pytest.mark.parametrize("message", LEGAL, ids=repr)
def test_nothing_legal_is_refused(message):
    check_messages([USER, message])
    check_messages((message,))
    assert encode({"messages": [message]})


ILLEGAL = [
    ({"role": "robot", "content": "a"}, "role 'robot'"),
    ({"role": "User", "content": "a"}, "role 'User'"),
    ({"role": "", "content": "a"}, "role ''"),
    ({"role": 5, "content": "a"}, "role 5"),
    ({"role": ["user"], "content": "a"}, "role"),
    ({"role": None, "content": "a"}, "no role"),
    ({"content": "a"}, "no role"),
    ({}, "no role"),
    ({"role": "user"}, "no content"),
    ({"role": "user", "content": None}, "no content"),
    ({"role": "system", "content": None}, "no content"),
    ({"role": "tool", "tool_call_id": "c"}, "no content"),
    ({"role": "user", "content": 5}, "type int"),
    ({"role": "user", "content": b"a"}, "type bytes"),
    ({"role": "user", "content": {"type": "text"}}, "type dict"),
    ({"role": "user", "content": True}, "type bool"),
    ({"role": "user", "content": []}, "empty list"),
    ({"role": "user", "content": ["a"]}, r"content\[0\].*type str"),
    ({"role": "user", "content": [{"type": "text", "text": "a"}, {}]}, r"content\[1\]"),
    ({"role": "user", "content": [{"type": 5}]}, r"content\[0\]"),
    ({"role": "user", "content": [None]}, r"content\[0\].*None"),
    ({"role": "user", "content": [{"type": "x", "y": math.nan}]}, r"content\[0\].*NaN"),
    ("a", "type str"),
    (None, "None"),
    (5, "type int"),
    (["user", "a"], "type list"),
    (ChatMessage("robot", "a"), "role 'robot'"),
    (ChatMessage("user"), "no content"),
    (ChatMessage("user", 5), "type int"),
    (FunctionCall("f"), "type FunctionCall"),
    (1j, "type complex"),
]


@pytest.mark.parametrize(("message", "text"), ILLEGAL, ids=repr)
@pytest.mark.parametrize("index", [0, 3])
def test_what_is_wrong_is_named_with_its_index(message, text, index):
    messages = [USER] * index + [message, USER]
    with pytest.raises(ConfigurationError, match=rf"messages\[{index}\].*{text}"):
        check_messages(messages)


@pytest.mark.parametrize(
    "messages", [None, "hello", b"a", 5, USER, {}, {1}, iter([USER]), object()]
)
def test_messages_must_be_a_list(messages):
    with pytest.raises(ConfigurationError, match="messages must be a list"):
        check_messages(messages)


@pytest.mark.parametrize("messages", [[], ()])
def test_no_messages_are_for_the_server_to_judge(messages):
    assert check_messages(messages) is messages


def test_a_wrong_role_is_not_echoed_at_length():
    with pytest.raises(ConfigurationError) as caught:
        check_messages([{"role": "x" * 10_000, "content": "a"}])
    assert len(str(caught.value)) < 300


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["role", "content", "type", "tool_calls"]), inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(ANYTHING)
def test_anything_passes_or_is_refused_as_ours(value):
    with contextlib.suppress(ConfigurationError):
        check_messages(value)


@given(
    st.dictionaries(
        st.sampled_from(["temperature", "n", "stop", "seed", "tools", "user", "logprobs"]), ANYTHING
    )
)
def test_any_parameter_passes_or_is_refused_as_ours(params):
    with contextlib.suppress(ConfigurationError):
        check_sampling(params)


# -- models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", ["a", "codellama/codellama-13b-instruct", "a b", "\u00e9", "m:free", "m@1"]
)
def test_model_ids(model):
    check_model(model)


@pytest.mark.parametrize(
    "model", [None, "", 5, b"a", ["a"], "a\nb", "a\rb", "\0", "a\x7f", "secret-\x1b"]
)
def test_unusable_model_ids_are_not_echoed(model):
    with pytest.raises(ConfigurationError, match="model") as caught:
        check_model(model)
    assert "secret" not in str(caught.value)


# -- sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", v) for v in (0, 0.0, 1, 2, 2.0, 0.1)],
        *[("top_p", v) for v in (0, 1, 0.5)],
        *[("presence_penalty", v) for v in (-2, 2, 0, -0.5)],
        *[("frequency_penalty", v) for v in (-2, 2)],
        *[("min_p", v) for v in (0, 1)],
        *[("repetition_penalty", v) for v in (0, 1.1, 1000)],
        *[("max_tokens", v) for v in (1, 10**9)],
        ("max_completion_tokens", 1), ("n", 1), ("n", 128), ("top_k", -1), ("top_k", 0), ("top_k", 40),
        ("top_logprobs", 0), ("logprobs", True), ("logprobs", 5), ("best_of", 1), ("dimensions", 1),
        *[("seed", v) for v in (0, -1, 2**63)],
        *[("stop", v) for v in ("x", "", [], ["a"], ("a", "b"), ["a", "b", "c", "d"])],
        ("logit_bias", {"5": -100, 6: 1.5}), ("tools", [{"type": "function"}]), ("tool_choice", "auto"),
        ("response_format", {"type": "json_schema", "json_schema": {"x": 1.5}}), ("user", "u"),
        ("stream_options", {"include_usage": True}), ("reasoning_effort", "low"),
        ("parallel_tool_calls", False),
        *[(name, None) for name in ("temperature", "n", "stop", "seed", "max_tokens")],
    ],
)  # fmt: skip
def test_legal_parameters(name, value):
    check_sampling({name: value})


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", v) for v in (-0.1, 2.1, NAN, INF, -INF, "1", True, [1])],
        *[("top_p", v) for v in (-0.1, 1.1, NAN)],
        *[("presence_penalty", v) for v in (-2.1, 2.1)],
        *[("frequency_penalty", v) for v in (-2.1, 2.1)],
        *[("min_p", v) for v in (-1, 2)],
        *[("repetition_penalty", v) for v in (-1, INF, NAN)],
        *[("max_tokens", v) for v in (0, -1, 1.0, "5", True)],
        *[("n", v) for v in (0, 1.5, False)],
        ("top_k", -2), ("top_logprobs", -1), ("best_of", 0), ("dimensions", 0),
        *[("seed", v) for v in (1.5, "1", True)],
        *[("stop", v) for v in (5, [1], ["a", None], {"a"}, b"x", list("abcde"))],
        ("logit_bias", {"5": NAN}), ("tools", [{"a": [INF]}]), ("tools", ({"a": NAN},)), ("user", NAN),
        ("response_format", types.MappingProxyType({"x": NAN})),
    ],
)  # fmt: skip
def test_illegal_parameters_are_named(name, value):
    with pytest.raises(ConfigurationError, match=name):
        check_sampling({"model": "m", name: value})


def test_what_holds_itself_is_left_to_the_encoder():
    cycle = {}
    cycle["self"] = cycle
    check_sampling({"tools": cycle})
    with pytest.raises(ConfigurationError, match="JSON"):
        encode(cycle)


def test_ranges_say_how_to_get_around_them():
    with pytest.raises(ConfigurationError, match=r"between 0 and 2, not 3.*extra_body"):
        check_sampling({"temperature": 3})


def test_unknown_keywords():
    known_keywords("call", {"a": 1}, frozenset({"a", "b"}))
    with pytest.raises(TypeError, match=r"'tempratur'.*extra_body=\{'tempratur'"):
        known_keywords("call", {"a": 1, "tempratur": 1}, frozenset({"a"}))
    with pytest.raises(TypeError, match=r"'tempratur'\. Did you mean 'temperature'\?"):
        known_keywords("call", {"tempratur": 1}, frozenset({"a", "temperature", "top_p"}))


@pytest.mark.parametrize(
    "value",
    ["a", ["a", "b"], [1, 2], [[1, 2], [3]], ("a",)],
)
def test_inputs(value):
    check_input("input", value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "input is empty"),
        ((), "input is empty"),
        (7, "input must be a text, a list of texts"),
        (None, "input must be"),
        ({"a": 1}, "input must be"),
        (["a", 1], "input must be"),
        ([1.5], "input must be"),
    ],
)
def test_what_is_no_input(value, text):
    with pytest.raises(ConfigurationError, match=text):
        check_input("input", value)


@pytest.mark.parametrize(("value", "read"), [(True, True), (False, False), (None, None)])
def test_stream(value, read):
    assert check_stream(value) is read


@pytest.mark.parametrize("value", [1, "yes", {}])
def test_what_is_no_stream(value):
    with pytest.raises(ConfigurationError, match="stream must be True or False"):
        check_stream(value)
