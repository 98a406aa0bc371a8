"""ChatKonko and KonkoEmbeddings: LangChain's own suites are run by `make ecosystem`."""

import asyncio
import copy
import gc
import pickle
import threading

import pytest
from framework_kit import KEY, MODEL, emulating, until
from lazy_module import LazyModule, needs
from pydantic import BaseModel, SecretStr

from konko_async import AsyncKonko, ConfigurationError, RateLimit, RateLimitError
from konko_async.blocking import Konko
from konko_async.testing import faults

messages = LazyModule("langchain_core.messages")
ours = LazyModule("konko_async.integrations.langchain")

pytestmark = needs("langchain_core")


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.fixture
def server():
    with emulating() as (found, run):
        found.run = run
        yield found


def make(server, **options):
    return ours.ChatKonko(model=MODEL, api_key=KEY, base_url=server.base_url, **options)


async def test_calls_and_streams_with_usage(server):
    model = make(server, temperature=0, max_tokens=40)
    whole = await model.ainvoke(
        [messages.SystemMessage("Be brief."), messages.HumanMessage("Hello")]
    )
    assert whole.content
    assert whole.usage_metadata["total_tokens"] > 0
    assert whole.response_metadata["model_name"] == MODEL
    chunks = [chunk async for chunk in model.astream("Hello")]
    assert len([chunk for chunk in chunks if chunk.content]) > 3
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    assert total.usage_metadata["output_tokens"] > 0
    assert total.response_metadata["finish_reason"] == "stop"
    sent = server.requests[0].body
    assert (sent["temperature"], sent["max_tokens"]) == (0, 40)
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    await model.aclose()


def test_blocking_calls(server):
    model = make(server, stop=["zebra"])
    assert model.invoke("Hello").content
    assert "".join(chunk.content for chunk in model.stream("Hello"))
    assert len(model.batch(["a", "b", "c"])) == 3
    streamed = make(server, streaming=True)
    assert streamed.invoke("Hello").usage_metadata["total_tokens"] > 0
    model.close()
    model.close()
    assert model.invoke("Hello").content  # it makes another
    model.close()
    streamed.close()


async def test_tools_and_structured_output(server):
    from langchain_core.tools import tool

    model = make(server)
    adding = tool(add)
    bound = model.bind_tools([adding], tool_choice="any")
    called = await bound.ainvoke("What is add of 3 and 4?")
    assert called.tool_calls[0]["args"] == {"a": 3, "b": 4}
    result = await adding.ainvoke(called.tool_calls[0])
    assert isinstance(result, messages.ToolMessage)
    answer = await model.bind_tools([adding]).ainvoke(["What is add of 3 and 4?", called, result])
    assert isinstance(answer, messages.AIMessage)
    assert answer.content
    for method in ("json_schema", "function_calling"):
        typed = model.with_structured_output(Joke, method=method)
        assert isinstance(await typed.ainvoke("Tell 'one'"), Joke)
    raw = await model.with_structured_output(Joke, include_raw=True).ainvoke("Tell one")
    assert isinstance(raw["parsed"], Joke)
    assert raw["parsing_error"] is None
    with pytest.raises(ValueError, match="schema"):
        model.with_structured_output()
    await model.aclose()


async def test_our_limits_and_errors(server):
    model = make(server, rate_limit=RateLimit(max_concurrency=2), max_retries=0)
    await model.abatch([str(number) for number in range(12)])
    assert server.peak_in_flight <= 2
    server.script(faults.Status(429))
    with pytest.raises(RateLimitError) as caught:
        await model.ainvoke("Hello")
    assert KEY not in str(caught.value)
    await model.aclose()


async def test_what_is_wrong_is_said_when_the_model_is_made(server):
    with pytest.raises(ValueError, match="KONKO_API_KEY"):
        ours.ChatKonko(model=MODEL)
    with pytest.raises(ValueError, match="max_retries"):
        make(server, max_retries=-1)
    assert KEY not in repr(make(server))
    with pytest.raises(ValueError, match="temperature") as caught:
        make(server, temperature="hot")
    assert KEY not in str(caught.value)
    assert make(server).konko_api_key == SecretStr(KEY)


async def test_given_clients_are_used_and_left_open(server):
    async with AsyncKonko(KEY, server.base_url) as given:
        model = ours.ChatKonko(model=MODEL, async_client=given)
        assert (await model.ainvoke("Hello")).content
        with pytest.raises(ConfigurationError, match="client="):
            model.invoke("Hello")
        await model.aclose()
        assert not given.closed
    with Konko(KEY, server.base_url) as blocking:
        model = ours.ChatKonko(model=MODEL, client=blocking)
        assert model.invoke("Hello").content
        with pytest.raises(ConfigurationError, match="async_client="):
            await model.ainvoke("Hello")
    with pytest.raises(ValueError, match="AsyncKonko"):
        ours.ChatKonko(model=MODEL, async_client=object())


async def test_a_model_that_is_dropped_closes_its_clients_quietly(server):
    model = make(server)
    tasks = len(asyncio.all_tasks())
    await model.ainvoke("Hello")
    await asyncio.to_thread(model.invoke, "Hello")
    client = model._clients._loops.get()
    thread = model._clients._blocking._portal.home.thread
    del model
    gc.collect()
    # The client counts as closed when its end begins; its connections take a moment longer.
    await until(
        lambda: client.closed and not thread.is_alive() and len(asyncio.all_tasks()) == tasks
    )


def test_a_model_lives_through_many_loops_and_copies(server):
    model = make(server)
    for _ in range(3):
        assert asyncio.run(model.ainvoke("Hello")).content
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301 - our own
        assert asyncio.run(other.ainvoke("Hello")).content
    assert threading.active_count() == 2  # no portal was made


async def test_embeddings(server):
    texts = [f"text {number}" for number in range(7)]
    made = ours.KonkoEmbeddings(model=MODEL, api_key=KEY, base_url=server.base_url, chunk_size=2)
    found = await made.aembed_documents(texts)
    assert len(found) == 7
    assert found[3] == await made.aembed_query("text 3")
    blocking = await asyncio.to_thread(made.embed_documents, texts)
    assert blocking == found
    assert await asyncio.to_thread(made.embed_query, "text 3") == found[3]
    assert await made.aembed_documents([]) == []
    await made.aclose()
