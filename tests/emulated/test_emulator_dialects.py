"""The emulator speaks as other servers do, and the client understands the same, over sockets."""

import aiohttp
import pytest
from client_kit import ASK, make_client
from dialect_kit import Judge, judge

from konko_async.testing import Emulator
from konko_async.testing.dialects import DIALECTS, ServerDialect, draw

TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}
CALLS = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": f"call_{n}", "type": "function",
         "function": {"name": "look", "arguments": f'{{"number": {n}}}'}}
        for n in range(2)
    ],
}  # fmt: skip


def said(completion):
    message = completion.choices[0].message
    calls = [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    return message.content or "", calls


async def both_ways(client, **options):
    """Return what one call says, whole and streamed."""
    whole = await client.chat.completions.create(**ASK, **options)
    stream_options = {"include_usage": True}
    async with client.chat.completions.stream(
        **ASK, **options, stream_options=stream_options
    ) as stream:
        return whole, await stream.completion()


@pytest.mark.parametrize("name", DIALECTS)
async def test_every_dialect_means_the_same(name):
    dialect = DIALECTS[name]
    async with Emulator() as emulator, make_client(emulator) as client:
        plain, _ = await both_ways(client)
        emulator.dialect = name
        assert emulator.dialect is dialect
        for answer in await both_ways(client):
            assert said(answer) == said(plain)
            if dialect.usage != "none":
                assert answer.usage.total == plain.usage.total
        emulator.answer = lambda _: CALLS
        for answer in await both_ways(client, tools=[TOOL]):
            assert said(answer) == ("", [("look", '{"number": 0}'), ("look", '{"number": 1}')])
            if dialect.signature:
                assert answer.choices[0].message.tool_calls[0].extra_content


async def test_drawn_streams_over_sockets():
    judged = Judge()
    drawn = [draw(seed) for seed in range(150)]
    await judge([one for one in drawn if not one.pauses], judged)
    assert not judged.failures, judged.failures[0]
    assert judged.counts["understood"] > 50


async def test_a_dialect_of_ones_own_and_none():
    own = ServerDialect(name="own", comment=": hum")
    async with Emulator(dialect=own) as emulator, make_client(emulator) as client:
        completion, streamed = await both_ways(client)
        assert said(completion) == said(streamed)
        emulator.dialect = None
        assert said(await client.chat.completions.create(**ASK)) == said(completion)
    with pytest.raises(ValueError, match="there is no dialect"):
        Emulator(dialect="nobody's")


async def test_health_needs_no_key():
    async with Emulator(api_keys=["k"]) as emulator, aiohttp.ClientSession() as http:
        for path in ("/health", "/v1/health"):
            url = emulator.base_url.removesuffix("/v1") + path
            async with http.get(url) as response:
                assert response.status == 200
                assert await response.json() == {"status": "ok"}
