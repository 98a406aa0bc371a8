"""The client without await, as a user's type checker sees it: checked, never run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, assert_type

import konko_async.blocking as konko
from konko_async import (
    Batch,
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CreateEmbeddingResponse,
    FileObject,
    MapResult,
    Model,
    ModelList,
    ParsedChatCompletion,
    RateLimit,
    ToolRunResult,
    Usage,
)
from konko_async.batch import BatchReport
from konko_async.blocking import (
    ChatStream,
    CompletionStream,
    Konko,
    MapResults,
    ParsedChatStream,
    ParsedEventStream,
    ToolRun,
)
from konko_async.tools import ToolEvent

MESSAGES = [{"role": "user", "content": "Hello"}]


@dataclass
class City:
    """A type of answers."""

    name: str


class Place:
    """What type checkers know a pydantic model by."""

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray) -> Place:
        """Return JSON as a model."""
        raise NotImplementedError


def weather(city: str) -> str:
    """Tell the weather."""
    return city


def calls(client: Konko, stream: bool) -> None:
    create = client.chat.completions.create
    assert_type(create(model="m", messages=MESSAGES, temperature=0.1), ChatCompletion)
    assert_type(create(model="m", messages=MESSAGES, stream=True), ChatStream)
    assert_type(create(model="m", messages=MESSAGES, stream=stream), ChatCompletion | ChatStream)
    typed = create(model="m", messages=MESSAGES, response_format=City)
    assert_type(typed, ParsedChatCompletion[City])
    assert_type(typed.choices[0].message.parsed, City | None)
    growing = create(model="m", messages=MESSAGES, response_format=City, stream=True)
    assert_type(growing, ParsedChatStream[City])
    assert_type(growing.completion(), ParsedChatCompletion[City])
    assert_type(client.completions.create(model="m", prompt="x"), Completion)
    assert_type(client.completions.create(model="m", prompt="x", stream=True), CompletionStream)
    assert_type(client.embeddings.create(model="m", input="x"), CreateEmbeddingResponse)
    page = client.models.list()
    assert_type(page, ModelList)
    for model in page:
        assert_type(model, Model)
    assert_type(client.models.retrieve("m"), Model)


def streams(client: Konko) -> None:
    with client.chat.completions.stream(model="m", messages=MESSAGES) as stream:
        assert_type(stream, ChatStream)
        for chunk in stream:
            assert_type(chunk, ChatCompletionChunk)
        assert_type(stream.text(), Iterator[str])
        assert_type(stream.completion(), ChatCompletion)
        assert_type(stream.usage, Usage | None)
        assert_type(stream.close(), None)


def models_as_types(client: Konko) -> None:
    with client.chat.completions.stream(
        model="m", messages=MESSAGES, response_format=Place
    ) as stream:
        assert_type(stream, ParsedEventStream[Place])
        for event in stream:
            if event.type == "content.done":
                assert_type(event.parsed, Place | None)


def responses(client: Konko) -> None:
    raw = client.chat.completions.with_raw_response
    answer = raw.create(model="m", messages=MESSAGES)
    assert_type(answer.parse(), ChatCompletion)
    assert_type(answer.http_request.headers, Mapping[str, str])
    assert_type(raw.create(model="m", messages=MESSAGES, stream=True).parse(), ChatStream)
    typed = raw.parse(model="m", messages=MESSAGES, response_format=City)
    assert_type(typed.parse(), ParsedChatCompletion[City])
    assert_type(client.models.with_raw_response.list().parse(), ModelList)
    slowly = client.embeddings.with_streaming_response
    with slowly.create(model="m", input="a") as opened:
        assert_type(opened.iter_bytes(), Iterator[bytes])
        assert_type(opened.parse(), CreateEmbeddingResponse)


def lists(client: Konko) -> None:
    files = client.files.list(limit=2)
    assert_type(files.data, list[FileObject])
    for file in files:
        assert_type(file, FileObject)
    for batch in client.batches.list():
        assert_type(batch, Batch)


def many(client: Konko, requests: list[dict[str, Any]]) -> None:
    results = client.chat.completions.map(requests, max_concurrency=4, ordered=True)
    assert_type(results, MapResults[ChatCompletion])
    for result in results:
        assert_type(result, MapResult[ChatCompletion])
    run = client.chat.completions.run_tools(model="m", messages=MESSAGES, tools=[weather])
    assert_type(run, ToolRun[ChatCompletion])
    assert_type(run.completion, ChatCompletion)
    assert_type(run.result, ToolRunResult[ChatCompletion])
    for event in run:
        assert_type(event, ToolEvent)
    assert_type(konko.run_batch(client, "in.jsonl", "out.jsonl", prompt="{text}"), BatchReport)


def clients() -> None:
    client = Konko(api_key="k", rate_limit=RateLimit(requests_per_minute=60), timeout=5)
    assert_type(client.with_options(timeout=3), Konko)
    with client as entered:
        assert_type(entered, Konko)
    assert_type(konko.models.list(), ModelList)
    assert_type(konko.chat.completions.create(model="m", messages=MESSAGES), ChatCompletion)
    assert_type(konko.close(), None)
