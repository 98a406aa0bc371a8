"""Conversations with tools in which all goes wrong that can: some thousands; `make tool-storm` is more."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from client_kit import KEY, MESSAGES, MODEL, make_client

from konko_async import BadRequestError
from konko_async.testing import Emulator

sys.path.insert(0, str(Path(__file__).parents[1] / "soak"))

from toolstorm import Recorder, converse, storm


async def test_no_call_that_was_not_meant_and_no_request_that_is_refused():
    count = await storm(range(1000))
    # What is counted shows that there was something to go wrong.
    assert count["runs"] == 1000
    assert count["calls made"] > 1000
    assert min(count[name] for name in ("ok", "failed", "invalid", "unknown", "timeout")) > 5
    assert count["runs ended by a tool"] > 20


class OverSockets:
    """A server whose model answers."""

    model = None

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self.handle)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self.runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def handle(self, request):
        body = await request.read()
        stream = bool((await request.json()).get("stream"))
        parts = self.model.answer(body, stream=stream)
        kind = "text/event-stream" if stream else "application/json"
        response = web.StreamResponse(headers={"Content-Type": kind})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        return response


async def test_the_same_over_sockets():
    count, recorder = Counter(), Recorder()
    async with OverSockets() as server, make_client(server) as client:
        for seed in range(10_000, 10_100):
            await converse(client, server, recorder, seed, count)
    assert count["runs"] == 100


def called(**function):
    function = {"name": "f", "arguments": "{}", **function}
    return {"id": "c1", "type": "function", "function": function}


def asks(*calls, **more):
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


TOLD = {"role": "tool", "tool_call_id": "c1", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([asks(called()), TOLD], None),
        ([asks(called(), {**called(), "id": "c2"}), {**TOLD, "tool_call_id": "c2"}, TOLD], None),
        ([{"role": "assistant", "content": ""}], None),
        ([asks(called(arguments='{"a": 1'))], "messages.[1].tool_calls.[0].function.arguments"),
        ([asks(called(arguments="[]"))], "messages.[1].tool_calls.[0].function.arguments"),
        ([asks(called(arguments='{"a": NaN}'))], "messages.[1].tool_calls.[0].function.arguments"),
        ([asks(called(arguments='{"a": "\\ud83d"}'))], "messages.[1].tool_calls.[0].function.arguments"),
        ([asks(called(arguments=None))], "messages.[1].tool_calls.[0].function.arguments"),
        ([asks(called(name="a b"))], "messages.[1].tool_calls.[0].function.name"),
        ([asks(called(), called())], "messages.[1].tool_calls.[1]"),
        ([asks(called())], "messages.[1].tool_calls.[0]"),
        ([asks(called()), *MESSAGES, TOLD], "messages.[1].tool_calls.[0]"),
        ([TOLD], "messages.[1].tool_call_id"),
        ([asks(called()), TOLD, TOLD], "messages.[3].tool_call_id"),
        ([{"role": "assistant", "content": None}], "messages.[1]"),
    ],
)  # fmt: skip
async def test_the_emulator_can_be_as_strict_as_the_strictest_server(messages, param):
    conversation = [*MESSAGES, *messages]
    emulator = Emulator(api_keys=[KEY], strict_history=True)
    async with emulator, make_client(emulator) as client:
        create = client.chat.completions.create
        if param is None:
            await create(model=MODEL, messages=conversation)
            return
        with pytest.raises(BadRequestError) as caught:
            await create(model=MODEL, messages=conversation)
        assert caught.value.body["error"]["param"] == param
        emulator.strict_history = False
        await create(model=MODEL, messages=conversation)
