"""The client against llama.cpp's own server, with a model that knows its answers by heart."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from dialogues import ANSWERS, TOOLS

from konko_async import AsyncKonko, BadRequestError, NotFoundError, Tool
from konko_async.local import LocalServer

MODEL = Path(__file__).with_name("tiny.gguf")
# One server for all tests: they run on one loop.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.local_model]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(tmp_path_factory):
    log = tmp_path_factory.mktemp("llama") / "log"
    async with LocalServer(
        model_path=MODEL, n_parallel=8, n_ctx=2048, n_threads=1, log_path=log
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(server):
    async with AsyncKonko(server.api_key, server.base_url) as made:
        yield made


@pytest.fixture
def ask(client, server):
    def create(question, **options):
        options = {"temperature": 0, "max_tokens": 500, **options}
        return client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": question}], **options
        )

    return create


@pytest.mark.parametrize("question", sorted(ANSWERS))
async def test_whole_and_streamed_are_what_the_model_meant(question, ask):
    whole = await ask(question)
    assert whole.choices[0].message.content == ANSWERS[question]
    assert whole.choices[0].finish_reason == "stop"
    stream = await ask(question, stream=True, stream_options={"include_usage": True})
    async with stream:
        assert "".join([text async for text in stream.text()]) == ANSWERS[question]
        streamed = await stream.completion()
    assert streamed.choices[0].message.content == ANSWERS[question]
    assert streamed.usage.completion_tokens == whole.usage.completion_tokens > 0
    assert streamed.usage.prompt_tokens == whole.usage.prompt_tokens > 0


async def test_chunks_joined_are_the_answer_at_the_end_of_tokens(ask):
    stream = await ask("count", stream=True, max_tokens=10)
    async with stream:
        completion = await stream.completion()
    assert completion.choices[0].finish_reason == "length"
    assert ANSWERS["count"].startswith(completion.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("question", "cities"), [("weather Paris", ["Paris"]), ("weather both", ["Paris", "Oslo"])]
)
async def test_tool_calls(question, cities, stream, ask):
    answer = await ask(question, tools=TOOLS, stream=stream)
    if stream:
        async with answer:
            answer = await answer.completion()
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    assert [json.loads(call.function.arguments)["city"] for call in message.tool_calls] == cities
    assert len({call.id for call in message.tool_calls}) == len(cities)


async def test_tools_are_run_until_the_model_has_its_answer(client, server):
    asked = []

    def get_weather(city: str) -> str:
        """Weather of a city"""
        asked.append(city)
        return {"Paris": "18 degrees", "Oslo": "7 degrees"}[city]

    run = await client.chat.completions.run_tools(
        model=server.model,
        messages=[{"role": "user", "content": "weather Paris"}],
        tools=[Tool(get_weather, strict=False)],
        temperature=0,
        max_tokens=100,
    )
    assert asked == ["Paris"]
    assert run.completion.choices[0].message.content == "It is 18 degrees in Paris."


class Person(msgspec.Struct):
    name: str
    age: int


async def test_a_json_schema_is_enforced_by_the_grammar_and_parsed(ask):
    answer = await ask("json", response_format=Person)
    assert answer.parsed == Person("Ada", 36)
    other = await ask("hello", response_format=Person, max_tokens=200)
    if other.choices[0].finish_reason == "stop":
        assert isinstance(other.parsed, Person), "even where the model wants to say something else"


async def test_several_choices_and_logprobs(ask):
    answer = await ask("hello", n=3, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        assert choice.message.content == ANSWERS["hello"]
        tokens = choice.logprobs.content
        text = b"".join(bytes(token.bytes) for token in tokens).decode()
        assert text.removesuffix("<|im_end|>") == ANSWERS["hello"]
        assert all(token.logprob <= 0 for token in tokens)
        assert all(len(token.top_logprobs) == 2 for token in tokens)


async def test_models_are_found_though_the_server_has_no_such_path(client, server):
    page = await client.models.list()
    assert [model.id for model in page.data] == [server.model]
    assert (await client.models.retrieve(server.model)).id == server.model
    with pytest.raises(NotFoundError):
        await client.models.retrieve("no-such-model")


async def test_errors_are_in_the_servers_words(client, server, ask):
    with pytest.raises(BadRequestError) as caught:
        await ask("word " * 5000)
    assert "context" in str(caught.value).lower()
    with pytest.raises(BadRequestError, match="temperature"):
        await ask("hello", temperature=None, extra_body={"temperature": "hot"})


async def test_64_streams_at_once(ask):
    async def one(number):
        question = sorted(ANSWERS)[number % len(ANSWERS)]
        stream = await ask(question, stream=True)
        async with stream:
            return question, (await stream.completion()).choices[0].message.content

    for question, text in await asyncio.gather(*map(one, range(64))):
        assert text == ANSWERS[question]


@pytest.mark.asyncio(loop_scope="function")
async def test_a_stream_that_is_left_frees_the_servers_slot(tmp_path):
    # One slot: whoever comes next waits until the long answer ends or is given up.
    log = tmp_path / "log"
    async with (
        LocalServer(
            model_path=MODEL, n_parallel=1, n_ctx=2048, n_threads=1, log_path=log
        ) as server,
        AsyncKonko(server.api_key, server.base_url) as client,
    ):
        # Where this process stands still at the wrong moment, the answer comes to the end of its
        # context before it is left: then another one is begun.
        for _ in range(20):
            long = await client.chat.completions.create(
                model=server.model,
                messages=[{"role": "user", "content": "count"}],
                stream=True,
                extra_body={"ignore_eos": True},
            )
            async with long:
                async for _ in long.text():
                    break
            answer = await client.chat.completions.create(
                model=server.model,
                messages=[{"role": "user", "content": "hello"}],
                temperature=0,
            )
            assert answer.choices[0].message.content == ANSWERS["hello"]
            if "cancel task" in log.read_text():
                break
        else:
            pytest.fail("the server never gave up an answer that was left")
