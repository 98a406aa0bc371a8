"""Frameworks that are built on ``openai``, over our pipeline and over openai's own transport.

Run by ``make ecosystem``, which installs them in environments of their own. Each scenario is run both
ways against one emulator: results and the bodies that were sent must be the same, and with ours the
server never sees more calls at once than ``max_concurrency``.
"""

import asyncio
import contextlib
import json
import os

import pytest
import pytest_asyncio

from konko_async import AsyncKonko, RateLimit, RetryPolicy
from konko_async.integrations.openai import http_client
from konko_async.testing import Emulator, faults

ECOSYSTEM = os.environ.get("KONKO_ECOSYSTEM")
pytestmark = [
    pytest.mark.asyncio(loop_scope="function"),
    pytest.mark.skipif(not ECOSYSTEM, reason="needs the packages that `make ecosystem` installs"),
]
MODEL = "codellama/codellama-13b-instruct"
QUESTION = "Where is the Eiffel Tower?"
ARGUMENTS = {"city": "Paris", "country": "France"}
SLOTS = 2


def answer(request):
    """Call the first tool, or answer as JSON if that is asked for; talk about results."""
    last = request["messages"][-1]
    tools = request.get("tools")
    if tools and last["role"] != "tool":
        call = {"name": tools[0]["function"]["name"], "arguments": json.dumps(ARGUMENTS)}
        return {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        }
    if request.get("response_format"):
        return json.dumps(ARGUMENTS)
    return f"It is in Paris; I was asked {len(request['messages'])} things."


@pytest_asyncio.fixture
async def emulator():
    async with Emulator(answer=answer) as running:
        yield running


@contextlib.asynccontextmanager
async def clients(emulator):
    """Yield a function that makes openai's client: of its own, or over ours."""
    openai = pytest.importorskip("openai")
    limit = RateLimit(max_concurrency=SLOTS)
    retry = RetryPolicy(max_attempts=3, base_delay=0.001, budget_ratio=None)
    async with AsyncKonko("k", emulator.base_url, rate_limit=limit, retry=retry) as ours:
        options = {"base_url": emulator.base_url, "api_key": "unused", "max_retries": 0}
        async with (
            openai.AsyncOpenAI(**options) as theirs,
            openai.AsyncOpenAI(**options, http_client=http_client(ours)) as over_ours,
        ):
            yield theirs, over_ours


async def same(emulator, scenario):
    """Run a scenario both ways, and ours many times at once, with failures to be retried."""
    async with clients(emulator) as (theirs, over_ours):
        emulator.latency = 0.0
        start = len(emulator.requests)
        first = await scenario(theirs)
        bodies = [record.body for record in emulator.requests[start:]]
        assert bodies
        assert await scenario(over_ours) == first
        assert [record.body for record in emulator.requests[start + len(bodies) :]] == bodies
        emulator.latency = 0.01
        before = emulator.received
        emulator.script(faults.Status(503), faults.Status(429, retry_after_ms=1))
        emulator.peak_in_flight = 0
        results = await asyncio.gather(*[scenario(over_ours) for _ in range(6)])
        assert results == [first] * 6
        assert emulator.peak_in_flight <= SLOTS
        assert emulator.received == before + 6 * len(bodies) + 2
    assert emulator.in_flight == 0
    return first


async def test_instructor(emulator):
    instructor = pytest.importorskip("instructor")
    from pydantic import BaseModel

    class Place(BaseModel):
        city: str
        country: str

    ask = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}

    async def whole(client):
        patched = instructor.from_openai(client)
        place = await patched.chat.completions.create(response_model=Place, **ask)
        return place.model_dump()

    async def partial(client):
        patched = instructor.from_openai(client)
        grown = patched.chat.completions.create_partial(response_model=Place, **ask)
        return [place.model_dump() async for place in grown][-1]

    async def as_json(client):
        patched = instructor.from_openai(client, mode=instructor.Mode.JSON)
        place = await patched.chat.completions.create(response_model=Place, **ask)
        return place.model_dump()

    assert await same(emulator, whole) == ARGUMENTS
    assert await same(emulator, partial) == ARGUMENTS
    assert await same(emulator, as_json) == ARGUMENTS


async def test_pydantic_ai(emulator):
    pytest.importorskip("pydantic_ai")
    from pydantic import BaseModel
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class Place(BaseModel):
        city: str
        country: str

    def agent(client, **options):
        model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=client))
        return Agent(model, **options)

    async def whole(client):
        return (await agent(client).run(QUESTION)).output

    async def typed(client):
        result = await agent(client, output_type=Place).run(QUESTION)
        return result.output.model_dump()

    async def streamed(client):
        async with agent(client).run_stream(QUESTION) as result:
            return "".join([text async for text in result.stream_text(delta=True)])

    async def with_tools(client):
        asked = agent(client)

        @asked.tool_plain
        def look_up(city: str, country: str) -> str:
            return f"{city} is in {country}."

        return (await asked.run(QUESTION)).output

    assert "Paris" in await same(emulator, whole)
    assert await same(emulator, typed) == ARGUMENTS
    assert "Paris" in await same(emulator, streamed)
    assert "3 things" in await same(emulator, with_tools)


async def test_openai_agents(emulator):
    agents = pytest.importorskip("agents")
    agents.set_tracing_disabled(True)

    def agent(client, **options):
        model = agents.OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
        return agents.Agent(name="guide", model=model, **options)

    @agents.function_tool
    def look_up(city: str, country: str) -> str:
        """Look a place up."""
        return f"{city} is in {country}."

    async def whole(client):
        return (await agents.Runner.run(agent(client), QUESTION)).final_output

    async def with_tools(client):
        return (await agents.Runner.run(agent(client, tools=[look_up]), QUESTION)).final_output

    async def streamed(client):
        run = agents.Runner.run_streamed(agent(client, tools=[look_up]), QUESTION)
        async for _ in run.stream_events():
            pass
        return run.final_output

    assert "Paris" in await same(emulator, whole)
    assert "3 things" in await same(emulator, with_tools)
    assert "3 things" in await same(emulator, streamed)


async def test_langchain(emulator):
    langchain = pytest.importorskip("langchain_openai")
    from pydantic import BaseModel

    class Place(BaseModel):
        """A place."""

        city: str
        country: str

    def chat(client):
        return langchain.ChatOpenAI(
            model=MODEL,
            base_url=emulator.base_url,
            api_key="unused",
            max_retries=0,
            http_async_client=client._client,
        )

    async def whole(client):
        return (await chat(client).ainvoke(QUESTION)).content

    async def streamed(client):
        return "".join([chunk.content async for chunk in chat(client).astream(QUESTION)])

    async def typed(client):
        place = await chat(client).with_structured_output(Place).ainvoke(QUESTION)
        return place.model_dump()

    async def with_tools(client):
        message = await chat(client).bind_tools([Place]).ainvoke(QUESTION)
        return [call["args"] for call in message.tool_calls]

    assert "Paris" in await same(emulator, whole)
    assert "Paris" in await same(emulator, streamed)
    assert await same(emulator, typed) == ARGUMENTS
    assert await same(emulator, with_tools) == [ARGUMENTS]


async def test_openai_alone(emulator):
    """Whatever release it is, and whichever of httpx and httpx2 it uses."""
    openai = pytest.importorskip("openai")

    async def whole(client):
        ask = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
        return (await client.chat.completions.create(**ask)).choices[0].message.content

    async def streamed(client):
        ask = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "stream": True}
        stream = await client.chat.completions.create(**ask)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert "Paris" in await same(emulator, whole)
    assert "Paris" in await same(emulator, streamed)
    emulator.clear()
    async with clients(emulator) as (_, over_ours):
        emulator.script(faults.Status(422, message="no"))
        with pytest.raises(openai.UnprocessableEntityError, match="no"):
            await whole(over_ours)
        emulator.script(faults.Stall(after_chunks=1))
        ask = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "stream": True}
        stream = await over_ours.chat.completions.create(**ask)
        await anext(aiter(stream))
        await stream.close()
        async with asyncio.timeout(60):
            while emulator.in_flight:
                await asyncio.sleep(0.001)
        assert emulator.requests[-1].disconnected
