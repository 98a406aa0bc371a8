"""The API as a user's type checker sees it: checked by ``mypy --strict``, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, assert_type

import msgspec
from pydantic import BaseModel

import konko_async
from konko_async import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncKonko,
    Attempt,
    CallRecord,
    ChatCompletion,
    ChatCompletionChunk,
    ChatMessage,
    ChatStream,
    CircuitOpenError,
    Completion,
    CompletionStream,
    ConfigurationError,
    CreateEmbeddingResponse,
    Handler,
    KonkoError,
    Middleware,
    Model,
    ModelList,
    ParsedChatCompletion,
    ParsedChatStream,
    ParsedEventStream,
    RateLimit,
    RateLimitError,
    RateLimitTimeoutError,
    Request,
    Response,
    ResponseDecodeError,
    ResponseFormat,
    RetryPolicy,
    StreamError,
    StreamServerError,
    StructuredOutputError,
    Timeout,
    Tool,
    ToolArgumentsError,
    ToolCall,
    ToolLimitError,
    ToolRun,
    ToolRunResult,
    Usage,
    per_attempt,
)
from konko_async.sse import ServerSentEvent, SSEDecoder, encode_event
from konko_async.tools import (
    ReasoningDelta,
    RoundFinished,
    TextDelta,
    ToolFinished,
    ToolInvocation,
    ToolStarted,
)

MESSAGES = [{"role": "user", "content": "Hello"}]


async def outer(request: Request, call_next: Handler) -> Response:
    """A middleware may be a plain function."""
    return await call_next(request.replace(headers={**request.headers, "X-Trace": "1"}))


class Counting:
    """A middleware may be an object."""

    count = 0

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        self.count += 1
        return await call_next(request)


def observe(record: CallRecord | Attempt) -> None:
    """An observer is any callable."""
    if isinstance(record, CallRecord):
        assert_type(record.time_to_first_token, float | None)
    else:
        assert_type(record.number, int)


def clients() -> None:
    as_middleware: Middleware = outer
    client = AsyncKonko(
        api_key="k",
        base_url="https://api.konko.ai/v1",
        openai_api_key=None,
        timeout=Timeout(connect=5, first_token=120, idle=60, total=None),
        retry=RetryPolicy(max_attempts=3),
        rate_limit=RateLimit(
            requests_per_minute=60, tokens_per_minute=10_000, max_concurrency="auto", burst=5
        ),
        middleware=[outer, Counting(), as_middleware, per_attempt(outer), per_attempt(Counting())],
        observers=[observe, print],
        fallback_models=["a/b"],
        hedge_after="p95",
        verify_models=True,
        default_headers={"X-A": "b"},
        session=None,
    )
    assert_type(client.with_options(timeout=5, retry=None, rate_limit=RateLimit()), AsyncKonko)
    assert_type(client.with_options(timeout=Timeout(total=1), middleware=(outer,)), AsyncKonko)
    assert_type(client.base_url, str)
    assert_type(client.closed, bool)
    AsyncKonko(timeout=30, retry=None)


async def chat(client: AsyncKonko, stream: bool, messages: list[dict[str, Any]]) -> None:
    create = client.chat.completions.create
    whole = await create(model="m", messages=MESSAGES, temperature=0.1, max_tokens=300, n=1)
    assert_type(whole, ChatCompletion)
    assert_type(whole.choices[0].message.content, str | None)
    assert_type(whole.choices[0].message.tool_calls, list[ToolCall] | None)
    assert_type(whole.choices[0].finish_reason, str | None)
    assert_type(whole.usage, Usage | None)
    assert_type(whole.request_id, str | None)
    assert_type(await create(model="m", messages=messages, stream=False), ChatCompletion)
    assert_type(await create(model="m", messages=messages, stream=True), ChatStream)
    either = await create(model="m", messages=messages, stream=stream)
    assert_type(either, ChatCompletion | ChatStream)
    # Dicts, structs and what was received may stand side by side.
    await create(model="m", messages=[ChatMessage("user", "a"), whole.choices[0].message])
    await create(model="m", messages=[MESSAGES[0], ChatMessage("user", "a")])
    await create(model="m", messages=(*MESSAGES, whole.choices[0].message))
    await create(
        model="m",
        messages=MESSAGES,
        stop=["\n"],
        seed=1,
        top_p=0.5,
        presence_penalty=0,
        frequency_penalty=0,
        logit_bias={"5": -100},
        logprobs=True,
        top_logprobs=5,
        response_format={"type": "json_object"},
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        tool_choice="auto",
        parallel_tool_calls=False,
        stream_options={"include_usage": True},
        user="u",
        reasoning_effort="low",
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.1,
        max_completion_tokens=5,
        timeout=5,
        priority="batch",
        extra_headers={"X-A": "b"},
        extra_query={"a": "b"},
        extra_body={"anything": [1]},
    )


async def streams(client: AsyncKonko) -> None:
    made = client.chat.completions.stream(model="m", messages=MESSAGES, timeout=Timeout(idle=5))
    assert_type(made, ChatStream)
    async with made as stream:
        assert_type(stream, ChatStream)
        async for chunk in stream:
            assert_type(chunk, ChatCompletionChunk)
            assert_type(chunk.choices[0].delta.content, str | None)
        async for text in stream.text():
            assert_type(text, str)
        assert_type(stream.text(), AsyncIterator[str])
    assert_type(await stream.completion(), ChatCompletion)
    assert_type(await stream.close(), None)
    assert_type(stream.request_id, str | None)
    assert_type(stream.attempts, tuple[Attempt, ...])
    assert_type(stream.time_to_first_token, float | None)
    assert_type(stream.usage, Usage | None)


async def completions(client: AsyncKonko) -> None:
    create = client.completions.create
    assert_type(await create(model="m", prompt="a", seed=1), Completion)
    assert_type(await create(model="m", prompt=["a"], stream=True), CompletionStream)
    async with client.completions.stream(model="m", prompt=[1, 2]) as stream:
        async for chunk in stream:
            assert_type(chunk, Completion)
        async for text in stream.text():
            assert_type(text, str)
        assert_type(await stream.completion(), Completion)


async def embeddings_and_models(client: AsyncKonko) -> None:
    vectors = await client.embeddings.create(model="m", input=["a", "b"], dimensions=5)
    assert_type(vectors, CreateEmbeddingResponse)
    assert_type(vectors.data[0].embedding, list[float])
    page = await client.models.list()
    assert_type(page, ModelList)
    assert_type(page.data, list[Model])
    async for model in client.models.list(timeout=5):
        assert_type(model, Model)
        assert_type(model.is_chat, bool | None)
    assert_type(await client.models.retrieve("a/b", priority="interactive"), Model)


async def many(client: AsyncKonko) -> None:
    requests = ({"model": "m", "messages": MESSAGES} for _ in range(5))
    async for result in client.chat.completions.map(requests, max_concurrency=5, ordered=True):
        assert_type(result.index, int)
        assert_type(result.completion, ChatCompletion | None)
        assert_type(result.error, KonkoError | None)
        assert_type(result.unwrap(), ChatCompletion)


class City(msgspec.Struct):
    """What an answer may be."""

    name: str


@dataclass
class Size:
    """And another."""

    width: int


async def structured(client: AsyncKonko, streamed: bool) -> None:
    create = client.chat.completions.create
    whole = await create(model="m", messages=MESSAGES, response_format=City, temperature=0)
    assert_type(whole, ParsedChatCompletion[City])
    assert_type(whole.parsed, City)
    assert_type(whole.parsed.name, str)
    assert_type(whole.choices[0].message.parsed, City | None)
    assert_type(whole.choices[0].message.content, str | None)
    plain: ChatCompletion = whole
    await create(
        model="m", messages=[*MESSAGES, whole.choices[0].message, plain.choices[0].message]
    )
    assert_type((await create(model="m", messages=MESSAGES, response_format=Size)).parsed, Size)
    sizes = await create(model="m", messages=MESSAGES, response_format=list[Size])
    assert_type(sizes.parsed, list[Size])
    named = ResponseFormat(City, name="city", strict=False)
    assert_type(named, ResponseFormat[City])
    assert_type((await create(model="m", messages=MESSAGES, response_format=named)).parsed, City)
    either: ResponseFormat[City | Size] = ResponseFormat(City | Size)
    found = await create(model="m", messages=MESSAGES, response_format=either)
    assert_type(found.parsed, City | Size)
    made = await create(model="m", messages=MESSAGES, response_format=City, stream=True)
    assert_type(made, ParsedChatStream[City])
    which = await create(model="m", messages=MESSAGES, response_format=City, stream=streamed)
    assert_type(which, ChatCompletion | ChatStream)
    stream = client.chat.completions.stream(model="m", messages=MESSAGES, response_format=City)
    async with stream:
        async for value in stream.partial():
            assert_type(value, City)
        assert_type(await stream.completion(), ParsedChatCompletion[City])
        assert_type((await stream.completion()).parsed, City)
    events = client.chat.completions.stream(model="m", messages=MESSAGES, response_format=Place)
    assert_type(events, ParsedEventStream[Place])
    async with events:
        async for event in events:
            if event.type == "content.done":
                assert_type(event.parsed, Place | None)
        async for chunk in events.chunks():
            assert_type(chunk, ChatCompletionChunk)
        assert_type((await events.completion()).parsed, Place)
    async for result in client.chat.completions.map([], response_format=City, ordered=True):
        assert_type(result.completion, ParsedChatCompletion[City] | None)
        assert_type(result.unwrap().parsed, City)


def add(a: int, b: int = 1) -> int:
    """A tool may be a plain function."""
    return a + b


async def find(name: str) -> City:
    """Or a coroutine function."""
    return City(name)


async def ask(call: ToolInvocation) -> bool | str:
    return call.name == "add" or "Not this one."


async def tools(client: AsyncKonko) -> None:
    described = {"type": "function", "function": {"name": "f", "parameters": {}}}
    whole = await client.chat.completions.create(
        model="m",
        messages=MESSAGES,
        tools=[add, find, Tool(add, name="plus", timeout=5), described],
        tool_choice=add,
    )
    assert_type(whole, ChatCompletion)
    for call in whole.choices[0].message.tool_calls or ():
        assert_type(call.function.parse(City), City)
        assert_type(call.function.parse(dict[str, int]), dict[str, int])
        assert_type(Tool(add).parse(call), dict[str, Any])
    run = client.chat.completions.run_tools(
        model="m",
        messages=MESSAGES,
        tools=(add, find),
        max_rounds=5,
        max_tool_calls=20,
        tool_timeout=None,
        total_timeout=60,
        max_concurrency=2,
        run_in_thread=False,
        on_error="raise",
        before_tool=ask,
        temperature=0,
        timeout=30,
    )
    assert_type(run, ToolRun[ChatCompletion])
    async with run:
        async for event in run:
            match event:
                case TextDelta() | ReasoningDelta():
                    assert_type(event.text, str)
                case ToolStarted():
                    assert_type(event.call.arguments, dict[str, Any])
                case ToolFinished():
                    assert_type(event.outcome.output, str)
                case RoundFinished():
                    assert_type(event.usage, Usage | None)
    result = await run
    assert_type(result, ToolRunResult[ChatCompletion])
    assert_type(result.messages, list[Any])
    assert_type(result.usage, Usage | None)
    typed = await client.chat.completions.run_tools(
        model="m", messages=MESSAGES, tools=[add], response_format=City, before_tool=lambda _: True
    )
    assert_type(typed.completion.parsed, City)


async def module_level() -> None:
    assert_type(await konko_async.models.list(), ModelList)
    assert_type(
        await konko_async.chat.completions.create(model="m", messages=MESSAGES), ChatCompletion
    )
    assert_type(await konko_async.completions.create(model="m", prompt="a"), Completion)
    assert_type(await konko_async.embeddings.create(model="m", input="a"), CreateEmbeddingResponse)
    await konko_async.aclose()


def errors(error: KonkoError) -> None:
    assert_type(error.message, str)
    assert_type(error.attempts, tuple[Attempt, ...])
    match error:
        case APITimeoutError():
            phase: str = error.phase
            del phase
        case APIConnectionError():
            assert_type(error.request_sent, bool)
        case RateLimitError():
            assert_type(error.retry_after, float | None)
            assert_type(error.status_code, int)
        case APIStatusError():
            assert_type(error.code, str | None)
            assert_type(error.headers["x"], str)
        case ResponseDecodeError():
            assert_type(error.body, bytes)
        case StreamServerError():
            assert_type(error.type, str | None)
        case StreamError():
            assert_type(error.partial, Any | None)
        case APIError():
            assert_type(error.request_id, str | None)
        case RateLimitTimeoutError():
            assert_type(error.would_have_waited, float)
        case CircuitOpenError():
            assert_type(error.retry_after, float)
        case ConfigurationError():
            as_value_error: ValueError = error
            del as_value_error


class Place(BaseModel):
    city: str


async def beside_openai(client: AsyncKonko) -> None:
    ask = Place(city="a")
    parsed = await client.chat.completions.parse(model="m", messages=[ask], response_format=Place)
    assert_type(parsed, ParsedChatCompletion[Place])
    assert_type(parsed.choices[0].message.parsed, Place | None)
    whole = await client.chat.completions.create(
        model="m", messages=[], store=True, metadata={"a": "b"}, verbosity="low", tools=[Place]
    )
    assert_type(whole, ChatCompletion)
    assert_type(whole.response.status_code, int)
    raw = await client.chat.completions.with_raw_response.create(model="m", messages=[], n=1)
    assert_type(raw.headers.get("x"), str | None)
    call = client.chat.completions.with_streaming_response.create
    async with call(model="m", messages=[], temperature=0.1) as response:
        async for line in response.iter_lines():
            assert_type(line, str)
    async with client.chat.completions.stream(model="m", messages=[]) as stream:
        assert_type(await stream.get_final_completion(), ChatCompletion)
    assert_type(client.copy(default_headers={"a": "b"}, max_retries=2), AsyncKonko)
    answer = await client.request("POST", "/responses", {"model": "m"}, stream=True)
    assert_type(await answer.read(), bytes)


def errors_of_values_and_tools(error: KonkoError) -> None:
    match error:
        case StructuredOutputError():
            assert_type(error.path, str | None)
        case ToolArgumentsError():
            assert_type(error.name, str)
        case ToolLimitError():
            assert_type(error.limit, Literal["max_rounds", "max_tool_calls", "total_timeout"])
            assert_type(error.messages, list[Any])


def events() -> None:
    decoder = SSEDecoder(max_event_bytes=1024)
    assert_type(decoder.feed(b"data: a\n\n"), list[ServerSentEvent])
    assert_type(decoder.flush(), list[ServerSentEvent])
    event = ServerSentEvent(event="x", data="y", id=None, retry=5)
    assert_type(event.event, str)
    assert_type(event.id, str | None)
    assert_type(event.retry, int | None)
    assert_type(encode_event(event), bytes)
