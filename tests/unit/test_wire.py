"""The structs: what is sent back as input, what copies and pickles keep."""

import copy
import inspect
import json
import pickle

import msgspec
import pytest

from konko_async import ResponseFormat, wire
from konko_async._core.validation import check_messages
from konko_async._streaming.accumulate import ChatAccumulator
from konko_async.wire import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessage,
    ChatMessage,
    FunctionCall,
    ToolCall,
    Usage,
)
from konko_async.wire._base import Wire
from konko_async.wire._codec import Codec, encode
from konko_async.wire._requests import ChatRequest, CompletionRequest, EmbeddingRequest

CHAT = Codec(ChatCompletion)
BODY = {
    "id": "1",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
                ],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "queue_time": 0.1},
    "timings": {"predicted_ms": 1.5},
}


def completion():
    return CHAT.decode(json.dumps(BODY).encode())


# -- raw -------------------------------------------------------------------------------------------


def test_raw_is_the_json_as_received():
    assert completion().raw == BODY
    assert completion().choices[0].message.raw["role"] == "assistant"


def test_raw_of_what_did_not_come_off_the_wire_is_its_own_fields():
    assert Usage(1, 2, 3).raw == {
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    assert completion().choices[0].raw["finish_reason"] == "tool_calls"
    changed = msgspec.structs.replace(completion(), id="2")
    assert changed.raw["id"] == "2"


@pytest.mark.parametrize(
    "way",
    [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],  # noqa: S301 - our own
)
def test_copies_and_pickles_keep_everything(way):
    original = completion()
    original.request_id = "req"
    made = way(original)
    assert made == original
    assert made is not original
    assert made.raw == BODY
    assert made.request_id == "req"
    assert way(Usage(1)) == Usage(1)
    assert not hasattr(way(Usage(1)), "_raw")


def test_a_deep_copy_shares_nothing():
    original = completion()
    made = copy.deepcopy(original)
    made.choices[0].message.tool_calls[0].function.name = "g"
    assert original.choices[0].message.tool_calls[0].function.name == "f"


def test_raw_is_not_compared_or_encoded():
    one, other = completion(), CHAT.decode(json.dumps({**BODY, "error": None}))
    assert one.raw != other.raw
    other.error = msgspec.UNSET
    assert one == other
    assert "error" not in json.loads(encode(one))


STRUCTS = [kind for _, kind in inspect.getmembers(wire, inspect.isclass) if issubclass(kind, Wire)]


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_unknown_fields_fail_no_struct(kind):
    needed = {field.name for field in msgspec.structs.fields(kind) if field.required}
    known = {
        name: value
        for name, value in {"id": "x", "status": "x", "data": []}.items()
        if name in needed
    }
    struct = Codec(kind).decode(json.dumps({**known, "of tomorrow": [1]}))
    assert struct.raw["of tomorrow"] == [1]
    assert not kind.__struct_config__.forbid_unknown_fields
    assert kind.__doc__


# -- back as input ---------------------------------------------------------------------------------


def sent(message):
    """Return a message as it goes over the wire, after the checks."""
    messages = [{"role": "user", "content": "a"}, message]
    check_messages(messages)
    return json.loads(encode(ChatRequest(model="m", messages=messages)))["messages"][1]


def test_a_received_message_can_be_sent_back():
    message = completion().choices[0].message
    assert sent(message) == {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}],
    }


def test_a_streamed_message_can_be_sent_back():
    accumulator = ChatAccumulator()
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
    accumulator.add([Codec(ChatCompletionChunk).decode(json.dumps(chunk))])
    message = accumulator.result().choices[0].message
    assert sent(message)["role"] == "assistant"
    assert sent(message)["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    ]


def test_empty_text_is_sent_and_none_is_not():
    assert sent(ChatCompletionMessage("assistant", "")) == {"role": "assistant", "content": ""}
    assert sent(ChatMessage("assistant")) == {"role": "assistant"}
    assert sent(ChatMessage("tool", "42", tool_call_id="c")) == {
        "role": "tool", "content": "42", "tool_call_id": "c",
    }  # fmt: skip
    own = ChatMessage("assistant", tool_calls=[ToolCall("c", "function", FunctionCall("f", "{}"))])
    assert sent(own)["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}


def test_a_message_keeps_its_role_text():
    with pytest.raises(TypeError, match="role"):
        ChatMessage(None, "a")


# -- requests --------------------------------------------------------------------------------------


def test_what_is_not_given_is_not_sent():
    assert json.loads(encode(ChatRequest(model="m", messages=[]))) == {"model": "m", "messages": []}
    assert json.loads(encode(CompletionRequest(model="m", prompt="p", n=1))) == {
        "model": "m", "prompt": "p", "n": 1,
    }  # fmt: skip
    assert json.loads(encode(EmbeddingRequest(model="m", input=["a"]))) == {
        "model": "m",
        "input": ["a"],
    }


def test_what_is_given_is_sent_even_if_it_is_falsy():
    body = ChatRequest(
        model="m", messages=[], temperature=0.0, seed=0, logprobs=False, top_logprobs=0, stop=[],
        parallel_tool_calls=False, stream=True, tools=[], user="",
    )  # fmt: skip
    assert json.loads(encode(body)) == {
        "model": "m", "messages": [], "temperature": 0.0, "seed": 0, "logprobs": False,
        "top_logprobs": 0, "stop": [], "parallel_tool_calls": False, "stream": True, "tools": [],
        "user": "",
    }  # fmt: skip


DOCUMENTED = {
    "model", "messages", "stream", "max_tokens", "temperature", "top_p", "n", "stop",
    "presence_penalty", "frequency_penalty", "logit_bias", "seed", "max_completion_tokens", "top_k",
    "min_p", "repetition_penalty", "logprobs", "top_logprobs", "response_format", "tools",
    "tool_choice", "parallel_tool_calls", "stream_options", "user", "reasoning_effort",
}  # fmt: skip


def test_every_documented_parameter_is_a_field():
    assert set(ChatRequest.__struct_fields__) >= DOCUMENTED
    assert {"prompt", "seed", "n", "stop", "max_tokens"} <= set(CompletionRequest.__struct_fields__)
    assert {"input", "encoding_format", "model"} <= set(EmbeddingRequest.__struct_fields__)


class ToolsOnly(msgspec.Struct):
    tools: list


def test_the_keywords_shown_to_type_checkers_are_the_fields():
    from konko_async.wire import _requests as requests

    for params, body, own in (
        # response_format decides what is returned, and so stands in the signatures themselves.
        (
            requests.ChatParams,
            ChatRequest,
            {"model", "messages", "stream", "tools", "response_format"},
        ),
        (requests.ToolParams, ToolsOnly, set()),
        (requests.CompletionParams, CompletionRequest, {"model", "prompt", "stream"}),
        (requests.EmbeddingParams, EmbeddingRequest, {"model", "input"}),
    ):
        assert set(params.__annotations__) | own == set(body.__struct_fields__)


# -- small helpers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "known", "total"),
    [
        (Usage(), False, 0),
        (Usage(1, 2), True, 3),
        (Usage(1, 2, 9), True, 9),
        (Usage(0, 0, 5), True, 5),
    ],
)
def test_usage(usage, known, total):
    assert (usage.known, usage.total) == (known, total)


def test_embedding_usage():
    assert wire.EmbeddingUsage(3).total == 3
    assert wire.EmbeddingUsage(3, 4).total == 4


@pytest.mark.parametrize("kind", [ChatRequest, CompletionRequest])
def test_only_a_stream_that_is_given_is_sent(kind):
    prompt = {"messages": []} if kind is ChatRequest else {"prompt": "a"}
    for given, sent_as in ((None, None), (False, False), (True, True)):
        assert json.loads(encode(kind(model="m", stream=given, **prompt))).get("stream") is sent_as


def test_what_no_server_sent_has_no_response():
    with pytest.raises(AttributeError, match="did not come from a server"):
        ChatCompletion(choices=[]).response  # noqa: B018 - looking it up is the test


def test_a_copied_message_keeps_its_value():
    form = ResponseFormat(dict[str, int])
    message = (
        form.parse(CHAT.decode(b'{"choices":[{"message":{"content":"{\\"a\\":1}"}}]}'))
        .choices[0]
        .message
    )
    for copied in (copy.copy(message), copy.deepcopy(message), pickle.loads(pickle.dumps(message))):  # noqa: S301 - it was made here
        assert copied == message
        assert copied.parsed == {"a": 1}
