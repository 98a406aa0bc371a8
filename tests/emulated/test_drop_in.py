"""What a user of openai's async client writes, with ours in its place."""

import copy
import json
import pickle
from dataclasses import dataclass
from typing import Literal

import msgspec
import pytest
from client_kit import KEY, MESSAGES, MODEL, make_client, serving

from konko_async import (
    AsyncKonko,
    ConfigurationError,
    ContentFilterFinishReasonError,
    KonkoError,
    LengthFinishReasonError,
    NotFoundError,
    StructuredOutputError,
    Timeout,
    ToolArgumentsError,
)
from konko_async.testing import Answer, Emulator, FaultServer, faults

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")
ASK = {"model": MODEL, "messages": MESSAGES}


class Place(pydantic.BaseModel):
    """A place."""

    city: str
    people: int = 1
    kind: Literal["town", "village"] = "town"


class Town(pydantic.BaseModel):
    city: str


class Struct(msgspec.Struct):
    city: str


@dataclass
class Data:
    city: str


PARIS = '{"city": "Paris", "people": 2, "kind": "town"}'
STRICT = {
    "type": "function",
    "function": {
        "name": "look_up",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def calls(name, arguments):
    call = {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.fixture
async def emulator():
    async with Emulator(answer=lambda _: PARIS) as running:
        yield running


@pytest.fixture
async def client(emulator):
    async with make_client(emulator) as made:
        yield made


async def test_parse_takes_every_kind_of_type(client, emulator):
    for kind, expected in [
        (Place, Place(city="Paris", people=2)),
        (Struct, Struct("Paris")),
        (Data, Data("Paris")),
    ]:
        completion = await client.chat.completions.parse(**ASK, response_format=kind)
        assert completion.choices[0].message.parsed == expected
    sent = emulator.requests[0].body["response_format"]["json_schema"]
    assert (sent["name"], sent["strict"], sent["description"]) == ("Place", True, "A place.")
    assert sent["schema"]["required"] == ["city", "people", "kind"]
    assert sent["schema"]["additionalProperties"] is False
    plain = await client.chat.completions.parse(**ASK)
    assert plain.choices[0].message.parsed is None


async def test_create_takes_no_models_as_with_openai(client):
    with pytest.raises(TypeError, match="You tried to pass a `BaseModel` class"):
        await client.chat.completions.create(**ASK, response_format=Place)
    with pytest.raises(ConfigurationError, match="not a dict"):
        await client.chat.completions.parse(**ASK, response_format={"type": "json_object"})


@pytest.mark.parametrize(
    ("text", "path"), [('{"city": 1}', "$.city"), ("{}", "$.city"), ("nothing", None)]
)
async def test_what_does_not_fit_a_model_is_named(client, emulator, text, path):
    emulator.answer = lambda _: text
    with pytest.raises(StructuredOutputError) as caught:
        await client.chat.completions.parse(**ASK, response_format=Place)
    assert caught.value.path == path
    assert caught.value.attempts


@pytest.mark.parametrize("fenced", ["```json\n%s\n```", "<think>hm</think>%s", "Here: %s"])
async def test_models_are_found_around_what_models_say(client, emulator, fenced):
    emulator.answer = lambda _: fenced % PARIS
    completion = await client.chat.completions.parse(**ASK, response_format=Place)
    assert completion.choices[0].message.parsed.city == "Paris"


@pytest.mark.parametrize(
    "case",
    [
        (STRICT, "look_up", '{"city": "Rome"}', {"city": "Rome"}),
        (Place, "Place", PARIS, Place(city="Paris", people=2)),
        (openai.pydantic_function_tool(Town, name="t"), "t", '{"city": "a"}', Town(city="a")),
    ],
)
async def test_arguments_of_tools_are_values(client, emulator, case):
    tool, name, arguments, expected = case
    emulator.answer = lambda _: calls(name, arguments)
    for tools in ([tool], iter([tool])):
        completion = await client.chat.completions.parse(**ASK, tools=tools)
        (call,) = completion.choices[0].message.tool_calls
        assert call.function.parsed_arguments == expected
        again = pickle.loads(pickle.dumps(call))  # noqa: S301 - our own
        assert again.function.parsed_arguments == expected
        assert copy.copy(call.function).parsed_arguments == expected
        # It goes back as it came.
        assert json.loads(msgspec.json.encode(call))["function"]["arguments"] == arguments
    async with client.chat.completions.stream(**ASK, tools=iter([tool])) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.tool_calls[0].function.parsed_arguments == expected
    assert emulator.requests[0].body["tools"][0]["function"]["name"] == name


async def test_tools_that_promise_nothing(client, emulator):
    loose = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    with pytest.raises(ValueError, match="`look_up` is not strict"):
        await client.chat.completions.parse(**ASK, tools=[loose])
    with pytest.raises(ValueError, match="Received `custom`"):
        await client.chat.completions.parse(**ASK, tools=[{"type": "custom"}])
    emulator.answer = lambda _: calls("Place", '{"people": "many"}')
    with pytest.raises(ToolArgumentsError, match=r"\$\.city"):
        await client.chat.completions.parse(**ASK, tools=[Place])


def ended(reason, content='{"city'):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": reason,
    }
    return Answer.body(
        json.dumps(
            {"id": "x", "object": "chat.completion", "choices": [choice], "model": "m"}
        ).encode()
    )


@pytest.mark.parametrize(
    ("reason", "kind", "theirs"),
    [
        ("length", LengthFinishReasonError, openai.LengthFinishReasonError),
        ("content_filter", ContentFilterFinishReasonError, openai.ContentFilterFinishReasonError),
    ],
)
async def test_answers_that_end_too_early(reason, kind, theirs):
    async with serving(FaultServer(ended(reason))) as client:
        for form in (Place, Struct, None):
            with pytest.raises(kind, match="Could not parse response content") as caught:
                await client.chat.completions.parse(**ASK, response_format=form)
            error = caught.value
            assert isinstance(error, theirs)  # code that catches openai's goes on working
            assert isinstance(error, StructuredOutputError)
            assert error.completion.id == "x"
            assert error.reason == reason
            again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
            assert isinstance(again, kind)
            assert again.completion.choices[0].finish_reason == reason
        with pytest.raises(kind):
            await client.chat.completions.create(**ASK, response_format=Struct)


async def test_a_refusal_is_no_error():
    message = {"role": "assistant", "content": None, "refusal": "no"}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "model": "m"}
    async with serving(FaultServer(Answer.body(json.dumps(body).encode()))) as client:
        completion = await client.chat.completions.parse(**ASK, response_format=Place)
    assert completion.choices[0].message.parsed is None
    assert completion.choices[0].message.refusal == "no"


async def test_streams_end_in_values(client):
    async with client.chat.completions.stream(**ASK, response_format=Place) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.parsed == Place(city="Paris", people=2)
    async with client.chat.completions.stream(**ASK, response_format=Place) as stream:
        with pytest.raises(ConfigurationError, match="pydantic"):
            stream.partial()
    async with client.chat.completions.stream(**ASK) as stream:
        assert (await stream.get_final_completion()).choices[0].message.content == PARIS


async def test_messages_may_be_objects_of_openai(client, emulator):
    theirs = openai.AsyncOpenAI(base_url=emulator.base_url, api_key=KEY)
    async with theirs:
        emulator.answer = lambda _: calls("f", "{}")
        said = (await theirs.chat.completions.create(**ASK)).choices[0].message
    emulator.answer = lambda _: "fine"
    messages = [*MESSAGES, said, {"role": "tool", "tool_call_id": "c", "content": "1"}]
    await client.chat.completions.create(model=MODEL, messages=messages)
    nested = {"role": "assistant", "content": None, "tool_calls": said.tool_calls}
    await client.chat.completions.create(model=MODEL, messages=[MESSAGES[0], nested, messages[-1]])
    first, second = (record.body["messages"][1] for record in emulator.requests[1:])
    assert first["tool_calls"] == second["tool_calls"]
    assert first["tool_calls"][0]["function"]["name"] == "f"
    assert messages[1] is said  # what is the caller's is not changed


@pytest.mark.parametrize("nothing", [None, openai.NOT_GIVEN, openai.omit])
async def test_whatever_says_nothing_is_not_sent(client, emulator, nothing):
    every = dict.fromkeys(
        [
            "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
            "max_completion_tokens", "max_tokens", "metadata", "modalities", "moderation", "n",
            "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key",
            "prompt_cache_options", "prompt_cache_retention", "reasoning_effort",
            "response_format", "safety_identifier", "seed", "service_tier", "stop", "store",
            "stream", "stream_options", "temperature", "tool_choice", "tools", "top_logprobs",
            "top_p", "user", "verbosity", "web_search_options", "extra_query", "extra_body",
            "timeout",
        ],
        nothing,
    )  # fmt: skip
    headers = {"x-a": nothing, "x-b": "b"}
    await client.chat.completions.create(**ASK, **every, extra_headers=headers)
    sent = emulator.requests[0]
    assert sent.body == ASK
    assert "x-a" not in sent.headers
    assert sent.headers["x-b"] == "b"


async def test_all_keywords_of_openai_are_sent(client, emulator):
    given = {
        "metadata": {"a": "b"}, "modalities": ["text"], "prediction": {"type": "content", "content": "a"},
        "prompt_cache_key": "k", "safety_identifier": "s", "service_tier": "auto", "store": True,
        "verbosity": "low", "web_search_options": {}, "prompt_cache_retention": "24h",
    }  # fmt: skip
    await client.chat.completions.create(**ASK, **given)
    assert emulator.requests[0].body == {**ASK, **given}


async def test_raw_responses(client, emulator):
    raw = await client.chat.completions.with_raw_response.create(**ASK, extra_headers={"x-a": "1"})
    assert raw.status_code == 200
    assert raw.is_closed
    assert raw.retries_taken == 0
    assert raw.request_id == emulator.requests[0].request_id == raw.headers["X-Request-Id"]
    assert raw.json() == json.loads(raw.text) == json.loads(raw.content)
    completion = raw.parse()
    assert completion is raw.parse()
    assert completion.choices[0].message.content == PARIS
    assert completion._request_id == raw.request_id
    assert completion.response.json() == raw.json()
    assert raw.http_request.method == "POST"
    assert raw.url == raw.http_request.url == f"{emulator.base_url}/chat/completions"
    assert raw.http_request.headers["X-A"] == emulator.requests[0].headers["x-a"] == "1"
    assert emulator.requests[0].headers["x-stainless-raw-response"] == "true"
    assert KEY not in repr(raw)
    parsed = await client.chat.completions.with_raw_response.parse(**ASK, response_format=Place)
    assert parsed.parse().choices[0].message.parsed.city == "Paris"
    for resource, method, arguments in [
        (client.completions, "create", {"model": "phind/phind-codellama-34b-v2", "prompt": "a"}),
        (client.embeddings, "create", {"model": "thenlper/gte-base", "input": "a"}),
        (client.models, "list", {}),
        (client.models, "retrieve", {"model": MODEL}),
    ]:
        plain = await getattr(resource, method)(**arguments)
        raw = await getattr(resource.with_raw_response, method)(**arguments)
        assert type(raw.parse()) is type(plain)
        async with getattr(resource.with_streaming_response, method)(**arguments) as opened:
            assert type(await opened.parse()) is type(plain)
            assert await opened.json() == raw.json() or "created" in raw.text


async def test_raw_streams(client, emulator):
    raw = await client.chat.completions.with_raw_response.create(**ASK, stream=True)
    stream = raw.parse()
    assert "".join([text async for text in stream.text()]) == PARIS
    assert stream.response.status_code == 200
    call = client.chat.completions.with_streaming_response.create
    async with call(**ASK, stream=True) as opened:
        assert not opened.is_closed
        lines = [line async for line in opened.iter_lines()]
        assert lines[-2:] == ["data: [DONE]", ""]
    assert opened.is_closed
    async with call(**ASK, stream=True) as opened:
        stream = await opened.parse()
        assert (await stream.completion()).choices[0].message.content == PARIS
    async with call(**ASK) as opened:
        assert b"".join([part async for part in opened.iter_bytes()]).startswith(b"{")
        with pytest.raises(KonkoError, match="piece by piece"):
            await opened.read()
    async with call(**ASK) as opened:
        assert await opened.read() == await opened.read()
        assert (await opened.parse()).choices[0].message.content == PARIS
    emulator.always(faults.Stall(after_chunks=1))
    async with call(**ASK, stream=True) as opened:
        assert (await anext(opened.iter_bytes())).startswith(b"data:")
    stream = (await client.chat.completions.with_raw_response.create(**ASK, stream=True)).parse()
    await stream.response.aclose()
    assert stream.closed
    assert emulator.connections == 1 or not emulator.in_flight


async def test_errors_have_their_response(client, emulator):
    emulator.always(faults.Status(404, message="nothing", headers={"x-a": "b"}))
    with pytest.raises(NotFoundError) as caught:
        await client.chat.completions.with_raw_response.create(**ASK)
    response = caught.value.response
    assert (response.status_code, response.headers["x-a"]) == (404, "b")
    assert response.json()["error"]["message"] == "nothing"


async def test_stored_completions_and_deleted_models():
    def answer(request):
        if request.method == "DELETE":
            return Answer.body(b'{"id":"x","object":"y","deleted":true}')
        return Answer.whole("kept")

    async with FaultServer(answer) as server, make_client(server) as client:
        kept = client.chat.completions
        assert (await kept.retrieve("id/1")).choices[0].message.content == "kept"
        await kept.update("id", metadata={"a": "b"})
        assert (await kept.delete("id")).deleted
        assert (await client.models.delete("a/b")).deleted
        targets = [request.path for request in server.requests]
        assert targets[0].endswith("/chat/completions/id%2F1")
        assert server.requests[1].json() == {"metadata": {"a": "b"}}
        for call in (kept.retrieve, kept.delete, kept.with_raw_response.retrieve):
            with pytest.raises(ValueError, match="Expected a non-empty value for `completion_id`"):
                await call("")
        with pytest.raises(ValueError, match="Expected a non-empty value for `model`"):
            await client.models.with_raw_response.retrieve("")


async def test_copies_have_headers_of_their_own(emulator):
    async with make_client(emulator, default_headers={"x-a": "1"}) as client:
        changed = client.copy(
            default_headers={"x-b": "2"}, default_query={"v": "3"}, organization="o", max_retries=1
        )
        again = changed.with_options(default_headers={"x-c": "4"}, project="p")
        await again.chat.completions.create(**ASK, extra_headers={"X-B": "call"})
        await client.chat.completions.create(**ASK)
    first, second = emulator.requests
    assert {name: first.headers.get(name) for name in ("x-a", "x-b", "x-c")} == {
        "x-a": "1", "x-b": "call", "x-c": "4",
    }  # fmt: skip
    assert first.path.endswith("?v=3")
    assert (first.headers["openai-organization"], first.headers["openai-project"]) == ("o", "p")
    assert "x-b" not in second.headers
    assert "?" not in second.path


async def test_timeouts_of_httpx(client, emulator):
    given = openai.Timeout(7.0, connect=3.0)
    for made in (AsyncKonko(KEY, timeout=given), client.with_options(timeout=given)):
        assert made.timeout == Timeout(connect=3.0, first_token=7.0, idle=7.0)
    await client.chat.completions.create(**ASK, timeout=given)


def test_http_clients_are_refused_with_the_reason():
    with pytest.raises(ConfigurationError, match=r"integrations\.openai\.http_client"):
        AsyncKonko(KEY, http_client=openai.DefaultAsyncHttpxClient())
    with pytest.raises(ConfigurationError, match="session="):
        AsyncKonko(KEY).copy(http_client=1)
    AsyncKonko(KEY, http_client=openai.omit)
