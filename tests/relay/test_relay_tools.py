"""A run of tools to a browser: in both formats, through both adapters, and left at any time."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
import openai
import pytest
from aiohttp import web
from relay_kit import MODEL, QUICK, chunks_of, events_of, text_of
from relay_kit import relaying as relay_serving
from starlette.applications import Starlette
from starlette_kit import make_client, uvicorn_serving

from konko_async import ConfigurationError
from konko_async.relay import Delivery, Drain, OpenAIFormat, ToolRunSource, UIMessageFormat
from konko_async.relay.aiohttp_web import drained, stream_response
from konko_async.relay.starlette_app import StreamResponse, lifespan
from konko_async.testing import Emulator, faults

CHAT = "/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "How warm is it?"}]}


def weather(city: str) -> dict:
    """Forecast the weather."""
    return {"city": city, "degrees": 21}


def broken() -> str:
    raise ValueError("sk-secret")


def call(name, arguments=None, id="c1"):
    return {"id": id, "name": name, "arguments": arguments or {}}


def calls(*wanted, text=None):
    return {"role": "assistant", "content": text, "tool_calls": list(wanted)}


def saying(*says):
    """An emulator whose model says one thing after the other."""
    rest = list(says)
    return Emulator(answer=lambda _: rest.pop(0) if len(rest) > 1 else rest[0])


TWO_ROUNDS = (
    calls(call("weather", {"city": "Rome"}), call("broken", id="c2"), text="Let me see."),
    calls(call("weather", {"city": 5}), call("sing", id="c2")),  # ids that were there already
    "It is warm.",
)


class Slow:
    """A tool that runs until it is let go or cancelled."""

    def __init__(self):
        self.begun, self.cancelled, self.go_on = (asyncio.Event() for _ in range(3))

    async def wait(self) -> str:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "done"


@asynccontextmanager
async def aiohttp_serving(make, client, drain, response):
    async def chat(request):
        return await stream_response(request, make(client), **response())

    app = web.Application()
    app.router.add_post(CHAT, chat)
    if drain is not None:
        drained(app, drain, hold_signals=False)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def starlette_serving(make, client, drain, response):
    async def chat(_):
        return StreamResponse(make(client), **response())

    app = Starlette(lifespan=lifespan(lambda: client, drain=drain, hold_signals=False))
    app.add_route(CHAT, chat, methods=["POST"])
    async with uvicorn_serving(app) as (url, _):
        yield url


@pytest.fixture(params=[aiohttp_serving, starlette_serving], ids=["aiohttp", "starlette"])
def adapter(request):
    return request.param


@asynccontextmanager
async def relaying(adapter, emulator, *tools, run=None, drain=None, **response):
    """Serve a run of these tools; gives a session. ``format`` is one of the classes."""

    def make(client):
        return client.chat.completions.run_tools(**ASK, tools=list(tools), **(run or {}))

    def fresh():
        kind = response.get("format", OpenAIFormat)
        return {"delivery": QUICK, **response, "format": kind()}

    async with emulator, make_client(emulator) as client:
        async with (
            adapter(make, client, drain, fresh) as url,
            aiohttp.ClientSession(url) as session,
        ):
            yield session


async def told(session):
    async with session.post(CHAT) as answer:
        assert answer.status == 200
        return chunks_of(events_of(await answer.read()))


# -- what arrives ----------------------------------------------------------------------------------


def merged(events):
    """Events, with the texts of one part in one."""
    found = []
    for event in events:
        if (
            found
            and "delta" in event
            and found[-1].get("id") == event["id"]
            and "delta" in found[-1]
        ):
            found[-1]["delta"] += event["delta"]
        else:
            found.append(event)
    return found


async def test_steps_of_the_ui_message_stream(adapter):
    emulator = saying(*TWO_ROUNDS)
    async with relaying(adapter, emulator, weather, broken, format=UIMessageFormat) as session:
        events = merged(await told(session))
    steps = [e["type"] for e in events if e["type"] in {"start-step", "finish-step"}]
    assert steps == ["start-step", "finish-step"] * 3
    assert events[0]["type"] == "start"
    assert [e["delta"] for e in events if e["type"] == "text-delta"] == [
        "Let me see.",
        "It is warm.",
    ]
    tools = [e for e in events if e["type"].startswith("tool-")]
    of = {}
    for event in tools:
        of.setdefault(event["toolCallId"], []).append(event)
    rome, failed, misfit, unknown = (of[name] for name in ("c1", "c2", "c1_2", "c2_2"))
    assert rome == [
        {"type": "tool-input-available", "toolCallId": "c1", "toolName": "weather", "input": {"city": "Rome"}},
        {"type": "tool-output-available", "toolCallId": "c1", "output": {"city": "Rome", "degrees": 21}},
    ]  # fmt: skip
    assert [e["type"] for e in failed] == ["tool-input-available", "tool-output-error"]
    assert failed[1]["errorText"] == "the tool failed"
    assert [(e["type"], json.loads(e["input"])) for e in misfit] == [
        ("tool-input-error", {"city": 5})
    ]
    assert [e["type"] for e in unknown] == ["tool-input-available", "tool-output-error"]
    assert "secret" not in json.dumps(events)
    finish = events[-1]
    assert finish["type"] == "finish"
    assert finish["finishReason"] == "stop"
    assert len(emulator.requests) == 3
    assert finish["messageMetadata"]["usage"]["outputTokens"] > 0
    assert (
        0 < finish["messageMetadata"]["timeToFirstToken"] <= finish["messageMetadata"]["duration"]
    )


async def test_one_answer_of_chunks(adapter):
    async with relaying(adapter, saying(*TWO_ROUNDS), weather, broken) as session:
        async with session.post(CHAT) as answer:
            events = events_of(await answer.read())
    assert text_of(events) == "Let me see.It is warm."
    chunks = chunks_of(events)
    said = [chunk for chunk in chunks if chunk["choices"]]
    assert len({chunk["id"] for chunk in said}) == 1
    deltas = [chunk["choices"][0]["delta"] for chunk in said]
    assert [d.get("role") for d in deltas].count("assistant") == 1
    pieces = [piece for d in deltas for piece in d.get("tool_calls", ())]
    assert [piece["index"] for piece in pieces] == [0, 1, 2, 3]
    assert {p["id"] for p in pieces} == {"c1", "c2", "c1_2", "c2_2"}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in said]
    assert [r for r in reasons if r] == ["stop"]
    assert reasons[-1] == "stop"
    results = {
        e["relay"]["tool_call_id"]: e["relay"] for e in chunks if e["object"] == "relay.tool_result"
    }
    assert results["c1"]["output"] == {"city": "Rome", "degrees": 21}
    assert {name: told["status"] for name, told in results.items()} == {
        "c1": "ok", "c2": "failed", "c1_2": "invalid", "c2_2": "unknown",
    }  # fmt: skip
    assert "secret" not in json.dumps(chunks)
    assert chunks[-1]["usage"]["total_tokens"] > 0


async def test_the_openai_client_reads_it(adapter):
    async with relaying(adapter, saying(*TWO_ROUNDS), weather, broken) as session:
        url = str(session._base_url)
        async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
            stream = await client.chat.completions.create(**ASK, stream=True)
            chunks = [chunk async for chunk in stream]
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "Let me see.It is warm."
    assert sum(len(delta.tool_calls or ()) for delta in deltas) == 4


async def test_results_that_are_nobodys_business():
    for kind, key in ((OpenAIFormat, "relay"), (UIMessageFormat, "type")):
        emulator = saying(*TWO_ROUNDS)
        async with relaying(
            aiohttp_serving, emulator, weather, broken, format=lambda k=kind: k(results=False)
        ) as session:
            events = await told(session)
        assert any(key in event for event in events)
        assert "degrees" not in json.dumps(events)


# -- failures --------------------------------------------------------------------------------------


async def test_a_failure_before_anything_is_a_status(adapter):
    emulator = Emulator()
    emulator.script(faults.Status(429))
    async with relaying(adapter, emulator, weather) as session, session.post(CHAT) as answer:
        assert answer.status == 429
        assert (await answer.json())["error"]["type"] == "rate_limited"


@pytest.mark.parametrize("kind", [OpenAIFormat, UIMessageFormat])
@pytest.mark.parametrize(
    ("run", "type", "text"),
    [
        ({"on_error": "raise"}, "tool_failed", "a tool failed"),
        ({"max_rounds": 2}, "tool_limit", "the model called tools without coming to an end"),
        (None, "upstream_error", "the model's server failed"),
    ],
)
async def test_a_failure_later_is_the_last_event(kind, run, type, text):
    says = calls(call("weather", {"city": "Rome"})), calls(call("broken"))
    emulator = saying(*says)
    if run is None:
        emulator.script(None, faults.Status(500))
    async with relaying(
        aiohttp_serving, emulator, weather, broken, run=run, format=kind
    ) as session:
        last = (await told(session))[-1]
    if kind is OpenAIFormat:
        assert (last["error"]["type"], last["error"]["message"]) == (type, text)
    else:
        assert last == {"type": "error", "errorText": text}


async def test_a_format_that_knows_of_no_tools_is_refused():
    class Plain:
        headers = {}  # noqa: RUF012 - like a user's

    async with Emulator() as emulator, make_client(emulator) as client:
        run = client.chat.completions.run_tools(**ASK, tools=[weather])
        with pytest.raises(ConfigurationError, match=r"tell\(event\)"):
            ToolRunSource(run, Plain())


async def test_what_cannot_be_relayed_is_said(adapter):
    async def answer():
        return None

    async with Emulator() as emulator, make_client(emulator) as client:
        wrong = answer()
        async with adapter(lambda _: wrong, client, None, dict) as url:
            async with aiohttp.ClientSession(url) as session, session.post(CHAT) as response:
                assert response.status == 500
        wrong.close()


# -- leaving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [False, True])
async def test_leaving_cancels_a_tool_that_runs(adapter, early):
    slow = Slow()
    says = calls(call("wait"), text="Wait.")
    async with relaying(adapter, saying(says), slow.wait, open_early=early) as session:
        answer = await session.post(CHAT)
        await slow.begun.wait()
        assert not slow.cancelled.is_set()
        answer.close()
        async with asyncio.timeout(60):
            await slow.cancelled.wait()


async def test_leaving_before_anything_has_come_cancels_too(adapter):
    slow = Slow()

    async def look(_):
        await slow.wait()
        return True

    # The first event would be the call's, and it is still being asked for.
    async with relaying(
        adapter,
        saying(calls(call("weather", {"city": "Rome"}))),
        weather,
        run={"before_tool": look},
    ) as session:
        asking = asyncio.create_task(session.post(CHAT))
        await slow.begun.wait()
        asking.cancel()
        async with asyncio.timeout(60):
            await slow.cancelled.wait()


async def test_heartbeats_while_a_tool_runs(adapter):
    slow = Slow()
    delivery = Delivery(heartbeat=0.03, look=0.01)
    async with relaying(
        adapter, saying(calls(call("wait")), "Done."), slow.wait, delivery=delivery
    ) as session:
        async with session.post(CHAT) as answer:
            data = b""
            while b": ping" not in data:
                data += await answer.content.readany()
            assert b"relay.tool_result" not in data
            slow.go_on.set()
            data += await answer.read()
    assert text_of(events_of(data)) == "Done."


@pytest.mark.parametrize("kind", [OpenAIFormat, UIMessageFormat])
async def test_a_shutdown_ends_it_with_notice(adapter, kind):
    slow, drain = Slow(), Drain(0)
    async with relaying(
        adapter, saying(calls(call("wait"))), slow.wait, drain=drain, format=kind
    ) as session:
        async with session.post(CHAT) as answer:
            await slow.begun.wait()
            await drain.run()
            last = chunks_of(events_of(await answer.read()))[-1]
    assert slow.cancelled.is_set()
    assert (last.get("object") or last["type"]) in {"relay.shutdown", "error"}


# -- what browsers send back -----------------------------------------------------------------------


def history(arguments):
    function = {"name": "look", "arguments": arguments}
    asks = {"id": "c1", "type": "function", "function": function}
    return [
        {"role": "user", "content": "cut \ud83d, whole \ud83d\ude00, \\ud83d as text"},
        {"role": "assistant", "content": None, "tool_calls": [asks]},
        {"role": "tool", "tool_call_id": "c1", "content": "\udce9"},
    ]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [('{"q": 1', "{}"), ('{"q": 1}', '{"q": 1}'), ("", "{}"), (None, "{}"), ("[1]", "{}"),
     ('"{}"', "{}"), ({"q": 1}, {"q": 1})],
)  # fmt: skip
async def test_a_history_that_no_server_would_take_is_mended(arguments, sent):
    emulator = Emulator()
    async with relay_serving(emulator) as relay:
        body = {"model": MODEL, "messages": history(arguments)}
        # json.dumps writes lone surrogates as JavaScript does.
        answer = await relay.session.post(
            f"/v1{CHAT}", data=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert answer.status == 200, await answer.text()
        asked, asks, told = emulator.requests[-1].body["messages"]
    assert asked["content"] == "cut \ufffd, whole 😀, \\ud83d as text"
    assert asks["tool_calls"][0]["function"]["arguments"] == sent
    assert told["content"] == "\ufffd"
