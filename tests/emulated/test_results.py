"""What results, streams and errors show of the head they came with; results as dicts and JSON."""

import io
import json
import pickle

import msgspec
import pytest
from client_kit import ASK, MODEL, ask, serving

from konko_async import (
    APIError,
    ChatCompletion,
    InternalServerError,
    ResponseDecodeError,
    StreamServerError,
)
from konko_async._streaming.raw_bytes import usage_of
from konko_async.testing import Answer, FaultServer

KEY = "sk-canary-51c2e7d94ab8"
HEADERS = {"X-Request-Id": "req-1", "X-RateLimit-Remaining": "7", "X-Echo": f"Bearer {KEY}"}
VECTOR = {"object": "list", "model": "m", "data": [{"index": 0, "embedding": [0.5]}]}
MODELS = {"object": "list", "data": [{"id": "m", "object": "model"}]}


def assert_head(headers):
    assert headers["x-ratelimit-remaining"] == headers["X-RateLimit-Remaining"] == "7"
    assert headers["x-echo"] == "Bearer <redacted>"
    assert headers["x-request-id"] == "req-1"


async def embed(client):
    return await client.embeddings.create(model=MODEL, input="a")


CALLS = {
    "chat": (Answer.whole("Hello", headers=HEADERS), lambda client: ask(client, stream=False)),
    "stream": (Answer.stream(headers=HEADERS), lambda client: ask(client, stream=True)),
    "embeddings": (Answer.body(json.dumps(VECTOR).encode(), headers=HEADERS), embed),
    "models": (
        Answer.body(json.dumps(MODELS).encode(), headers=HEADERS),
        lambda client: client.models.list(),
    ),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_result_has_its_headers(name):
    answer, call = CALLS[name]
    async with serving(FaultServer(answer), api_key=KEY) as client:
        result = await call(client)
    assert_head(result.headers)
    assert result._request_id == "req-1"
    assert "choices" in result.raw or "data" in result.raw


async def test_a_stream_has_its_headers_while_it_is_read_and_afterwards():
    async with serving(FaultServer(Answer.stream(headers=HEADERS)), api_key=KEY) as client:
        stream = client.chat.completions.stream(**ASK)
        assert stream.headers == {}
        async with stream:
            assert_head(stream.headers)
            await stream.completion()
        assert_head(stream.headers)


ERRORS = {
    "status": Answer.body(b"{}", status=400, headers=HEADERS),
    "no JSON": Answer.body(b"<p>", headers=HEADERS),
    "after a delta": Answer.events(
        ['{"choices":[{"index":0,"delta":{"content":"x"}}]}', '{"error":{"message":"boom"}}'],
        headers=HEADERS,
    ),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_an_error_has_the_headers_of_its_answer(name):
    stream = name == "after a delta"
    async with serving(FaultServer(ERRORS[name]), api_key=KEY) as client:
        with pytest.raises(StreamServerError if stream else APIError) as caught:
            await ask(client, stream=stream)
    headers = caught.value.headers
    assert headers["x-ratelimit-remaining"] == "7"
    assert headers["x-echo"] == "Bearer <redacted>"
    assert pickle.loads(pickle.dumps(caught.value)).headers == headers  # noqa: S301 - our own


def test_without_an_answer_there_are_none():
    assert APIError("no answer").headers == {}
    assert ChatCompletion().headers == {}
    assert ChatCompletion()._request_id is None


# -- dicts and JSON ----------------------------------------------------------------------------------

BODY = {
    "id": "c-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi.", "reasoning_details": [{"a": None}]},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}


async def completion():
    answer = Answer.body(json.dumps(BODY).encode(), headers=HEADERS)
    async with serving(FaultServer(answer)) as client:
        return await ask(client, stream=False)


async def test_a_dump_has_every_field_and_to_dict_what_was_said():
    whole = await completion()
    dumped = whole.model_dump()
    assert dumped["system_fingerprint"] is None
    assert dumped["choices"][0]["message"]["content"] == "Hi."
    assert dumped["choices"][0]["message"]["reasoning_details"] == [{"a": None}]
    assert not {"_request_id", "request_id", "error"} & dumped.keys()
    said = whole.to_dict()
    assert said["usage"]["total_tokens"] == 3
    assert "system_fingerprint" not in said
    assert said == whole.model_dump(exclude_none=True) == whole.model_dump(exclude_unset=True)
    assert whole.to_dict(exclude_unset=False) == dumped
    message = whole.choices[0].message
    assert message.to_dict() == {
        "role": "assistant",
        "content": "Hi.",
        "reasoning_details": [{"a": None}],  # as it was sent
    }
    assert whole.model_dump(include={"id", "model"}) == {"id": "c-1", "model": "m"}
    assert "choices" not in whole.model_dump(exclude=["choices"])


async def test_json_is_that_of_the_dicts():
    whole = await completion()
    assert json.loads(whole.model_dump_json()) == whole.model_dump()
    assert "\n" not in whole.model_dump_json()
    assert whole.model_dump_json(indent=4).startswith('{\n    "id"')
    assert json.loads(whole.to_json()) == whole.to_dict()
    assert whole.to_json().startswith('{\n  "id"')
    again = msgspec.json.decode(whole.to_json(), type=ChatCompletion)
    assert again.choices[0].message.content == "Hi."


async def test_a_change_is_in_the_dump():
    whole = await completion()
    whole.choices[0].message.content = "Changed."
    assert whole.to_dict()["choices"][0]["message"]["content"] == "Changed."


async def test_to_dict_has_what_the_server_sent():
    sent = {
        "id": "c",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": None}}],
        "usage": None,
        "moderation": {"input": {}},
    }
    async with serving(FaultServer(Answer.body(json.dumps(sent).encode()))) as client:
        completion = await ask(client, stream=False)
    assert completion.to_dict() == completion.model_dump(exclude_unset=True) == sent
    assert "usage" not in completion.model_dump(exclude_none=True)
    # Of a field that was changed since, what it is now; of a part of it, what is not None.
    completion.choices[0].message.content = "Hello"
    assert completion.to_dict()["choices"][0]["message"]["content"] == "Hello"
    assert completion.choices[0].message.to_dict() == {"role": "assistant", "content": "Hello"}
    other = completion.model_copy(update={"model": "m"}, deep=True)
    other.choices[0].message.content = "Bye"
    assert (completion.model, completion.choices[0].message.content) == ("", "Hello")
    assert other.to_dict()["model"] == "m"
    # Made by hand, there is nothing that was sent.
    assert "usage" not in ChatCompletion(id="c").to_dict()


async def test_a_chunk_is_dumped_as_it_was_sent():
    """Its index is 0 by then, as only one choice was asked for."""
    chunk = {"id": "c", "choices": [{"index": 3, "delta": {"content": "a"}, "finish_reason": None}]}
    end = {"id": "c", "choices": [{"index": 3, "delta": {}, "finish_reason": "stop"}]}
    answer = Answer.events([json.dumps(chunk), json.dumps(end), "[DONE]"])
    async with serving(FaultServer(answer)) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        chunks = [each async for each in stream]
    assert [each.to_dict() for each in chunks] == [chunk, end]
    assert chunks[0].choices[0].index == 0


async def test_rich_prints_what_openai_prints():
    console = pytest.importorskip("rich.console").Console(width=200, file=io.StringIO())
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    async with serving(FaultServer(Answer.whole("Hello", usage=usage, model="m"))) as client:
        completion = await ask(client, stream=False)
    console.print(completion.choices[0], completion.usage, soft_wrap=True)
    assert console.file.getvalue().split() == [
        "Choice(finish_reason='stop',", "index=0,", "logprobs=None,",
        "message=ChatCompletionMessage(annotations=None,", "audio=None,", "content='Hello',",
        "function_call=None,", "refusal=None,", "role='assistant',", "tool_calls=None))",
        "CompletionUsage(completion_tokens=2,", "completion_tokens_details=None,",
        "prompt_tokens=1,", "prompt_tokens_details=None,", "total_tokens=3)",
    ]  # fmt: skip


@pytest.mark.parametrize("vector", ["%%%", "AAA", "AACAPw=", "AA=="])
async def test_a_vector_that_cannot_be_read_is_named(vector):
    body = json.dumps({"data": [{"index": 4, "embedding": vector}], "model": "m"}).encode()
    async with serving(FaultServer(Answer.body(body))) as client:
        with pytest.raises(ResponseDecodeError, match="embedding 4 cannot be read"):
            await client.embeddings.create(model="m", input="x")


async def test_entries_that_are_none_are_left_out_of_lists():
    models = b'{"data": [{"id": "a", "extra": 1}, 5, null, {"id": "b"}]}'
    async with serving(FaultServer(Answer.body(models))) as client:
        listed = await client.models.list()
        assert [model.id for model in listed.data] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error": {"message": "busy", "code": 503}}', InternalServerError),
        (b'{"error": {"message": "what?"}}', StreamServerError),
        (b'{"error": {"code": 0}, "choices": [{"index": 0, "message": {"content": "a"}}]}', None),
    ],
)
async def test_an_error_in_a_200_is_one_for_raw_calls_too(body, kind):
    async with serving(FaultServer(Answer.body(body))) as client:
        if kind is None:
            answer = await client.request("POST", "/chat/completions", ASK)
            assert await answer.read() == body
        else:
            with pytest.raises(kind) as caught:
                await client.request("POST", "/chat/completions", ASK)
            assert caught.value.content == body


@pytest.mark.parametrize(
    ("body", "total"),
    [
        (b'{"usage": {"prompt_tokens": 2, "completion_tokens": 3}}', 5),
        (b'{"usage": {"input_tokens": 2, "output_tokens": 3}}', 5),
        (b'{"usage": {"prompt_tokens": 2, "completion_tokens": 3}, "more": {"usage": null}}', 5),
        (b'{"usage": {"prompt_tokens": 2, "completion_tokens": 3}}\n{"usage": {"prompt_tok', 5),
        (b'{"usage": {"prompt_tokens": 2, "completion_tokens": 3}} {"usage": {}}', 5),
        (b'{"usage": null}', None),
        (b'{"usage": {}}' * 20, None),
        (b"", None),
    ],
)
def test_the_usage_of_bytes_is_the_last_that_says_something(body, total):
    found = usage_of(body)
    assert (None if found is None else found.total) == total


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b": ping\n\n: ping\n\n" + b'data: {"error": {"message": "busy", "code": 503}}\n\n', InternalServerError),
        (b'data: {"error": oops}\n\ndata: [DONE]\n\n', None),
        (b'data: {"error": null, "choices": [{"index": 0}]}\n\ndata: [DONE]\n\n', None),
        (b"data: " + b"x" * 100_000, None),
    ],
)  # fmt: skip
async def test_a_raw_stream_that_begins_with_an_error_is_one(body, kind, size):
    pieces = [
        body[at : at + max(size, len(body) // 200)]
        for at in range(0, len(body), max(size, len(body) // 200))
    ]
    answer = Answer.body(pieces, content_type="text/event-stream", framing="chunked")
    async with serving(FaultServer(answer)) as client:
        call = client.request("POST", "/chat/completions", {**ASK, "stream": True}, stream=True)
        if kind is not None:
            with pytest.raises(kind):
                await call
            return
        async with await call as opened:
            assert b"".join([piece async for piece in opened.aiter_bytes()]) == body
