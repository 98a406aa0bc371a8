"""OpenAI's own client takes what the emulator answers."""

import asyncio
import json

import pytest

from konko_async.testing import Emulator, faults

openai = pytest.importorskip("openai")

CHAT = "codellama/codellama-13b-instruct"
TEXT = "phind/phind-codellama-34b-v2"
EMBED = "thenlper/gte-base"
HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "Hello there"}]}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    for name in ("get_weather", "get_time")
]


@pytest.fixture
async def emulator():
    async with Emulator() as running:
        yield running


@pytest.fixture
async def client(emulator):
    options = {"api_key": emulator.api_key, "base_url": emulator.base_url, "max_retries": 0}
    # Strict: an answer that does not fit the client's types raises.
    async with openai.AsyncOpenAI(**options, _strict_response_validation=True) as client:
        yield client
    # It asks for the platform in a thread, and that one would outlive the test.
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_chat(client):
    answer = await client.chat.completions.create(
        **HELLO, n=2, logprobs=True, top_logprobs=2, max_tokens=9
    )
    assert answer.choices[1].message.content
    assert answer.choices[0].logprobs.content[0].top_logprobs
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 18


async def test_chat_stream(client):
    whole = await client.chat.completions.create(**HELLO)
    stream = await client.chat.completions.create(
        **HELLO, stream=True, stream_options={"include_usage": True}, logprobs=True
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


async def test_the_streaming_helper_with_tools(client):
    options = {**HELLO, "tools": TOOLS, "parallel_tool_calls": True}
    async with client.chat.completions.stream(**options) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert json.loads(calls[0].function.arguments) == {"city": "city"}
    assert final.choices[0].finish_reason == "tool_calls"


async def test_a_conversation_with_tools(client):
    first = await client.chat.completions.create(**HELLO, tools=TOOLS, tool_choice="required")
    message = first.choices[0].message
    messages = [
        *HELLO["messages"],
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"},
    ]
    second = await client.chat.completions.create(model=CHAT, messages=messages, tools=TOOLS)
    assert "sunny" in second.choices[0].message.content


async def test_structured_output(client):
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int

    answer = await client.chat.completions.parse(**HELLO, response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="name", age=1)


@pytest.fixture
async def lenient(client):
    """For what OpenAI's own API sends in spite of these types: null finish_reasons, and base64."""
    async with client.with_options() as copy:
        copy._strict_response_validation = False
        yield copy


async def test_completions(client, lenient):
    answer = await client.completions.create(
        model=TEXT, prompt=["a", "b"], n=2, logprobs=1, echo=True
    )
    assert len(answer.choices) == 4
    stream = await lenient.completions.create(model=TEXT, prompt="a", stream=True)
    text = "".join([chunk.choices[0].text async for chunk in stream])
    whole = await client.completions.create(model=TEXT, prompt="a")
    assert text == whole.choices[0].text


async def test_embeddings(client, lenient):
    packed = await lenient.embeddings.create(model=EMBED, input=["a", "b"], dimensions=16)
    floats = await client.embeddings.create(
        model=EMBED, input=["a", "b"], dimensions=16, encoding_format="float"
    )
    assert [e.embedding for e in packed.data] == [e.embedding for e in floats.data]
    assert len(packed.data[0].embedding) == 16


async def test_models(client):
    models = [model async for model in client.models.list()]
    assert models[0].id == CHAT
    assert (await client.models.retrieve(CHAT)).is_chat is True


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
async def test_errors(emulator, client, status, kind):
    emulator.script(faults.Status(status, message="Sorry."))
    with pytest.raises(kind, match="Sorry") as caught:
        await client.chat.completions.create(**HELLO)
    assert caught.value.request_id == emulator.requests[-1].request_id


async def test_model_not_found(client):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(**HELLO | {"model": "no/such"})
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_it_retries_as_told(emulator, client):
    emulator.script(faults.Status(503, retry_after_ms=1), faults.Cut())
    answer = await client.with_options(max_retries=2).chat.completions.create(**HELLO)
    assert answer.choices
    assert [record.status for record in emulator.requests] == [503, None, 200]


async def test_an_error_in_a_stream(emulator, client):
    emulator.script(faults.ErrorInStream(2, message="Sorry."))
    stream = await client.chat.completions.create(**HELLO, stream=True)
    with pytest.raises(openai.APIError, match="Sorry"):
        async for _ in stream:
            pass
