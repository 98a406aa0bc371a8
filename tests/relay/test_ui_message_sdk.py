"""The UI message stream, read by the AI SDK's own chat in Node: what `useChat` is made of."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from relay_kit import MODEL, relaying

from konko_async import AsyncKonko
from konko_async.relay import UI_MESSAGE, RelayOptions, UIMessageFormat
from konko_async.relay.aiohttp_web import stream_response
from konko_async.testing import Answer, Emulator, FaultServer

HERE = Path(__file__).parent / "node"
NODE, NPM = shutil.which("node"), shutil.which("npm")
pytestmark = pytest.mark.skipif(
    NODE is None or NPM is None, reason="node and npm are needed to run the AI SDK"
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
STREAM = Answer.stream(["Hel", "lo"], usage=USAGE)
HALF = STREAM.stall(STREAM.wire.index(b'"lo"') - 120)


@pytest.fixture(scope="session")
def modules():
    """Install what the lock file names, once, into the user's cache."""
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "konko-async-tests" / f"ai-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as place:
            fresh = Path(place) / "ai"
            fresh.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, fresh)
            command = [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=fresh, check=True, capture_output=True, timeout=100)
            try:
                fresh.rename(home)
            except OSError:
                assert home.exists()  # another process was quicker
    return home / "node_modules"


class Browser:
    """A Node process with the AI SDK in it."""

    def __init__(self, process):
        self._process = process
        self.events = []

    async def do(self, op, **arguments):
        self._process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        await self._process.stdin.drain()

    async def until(self, **wanted):
        """Return the next event that is like this; what the SDK throws fails the test."""
        async with asyncio.timeout(60):
            while line := await self._process.stdout.readline():
                event = json.loads(line)
                self.events.append(event)
                assert event["event"] != "thrown", event
                if wanted.items() <= event.items():
                    return event
        raise AssertionError((await self._process.stderr.read()).decode())

    async def say(self, chat, text, **more):
        await self.do("send", chat=chat, text=text, **more)

    async def answer(self, chat, text="Say hello.", **more):
        """Send a message and return how it ended."""
        await self.say(chat, text, **more)
        finish = await self.until(event="finish", chat=chat)
        await self.until(event="done", op="send", chat=chat)
        return finish


@pytest.fixture(params=["ai", "ai-6", "ai-5"])
def library(request, modules):
    place = modules / request.param / "dist"
    return next(
        path for path in (place / "index.mjs", place / "index.js") if path.exists()
    ).as_uri()


@asynccontextmanager
async def chatting(library, upstream, **options):
    """Start a relay before an upstream server, and a browser."""
    async with relaying(upstream, **options) as relay, browsing(library, relay.port) as browser:
        yield browser


@asynccontextmanager
async def browsing(library, port):
    """Start a browser of what listens on a port."""
    process = await asyncio.create_subprocess_exec(
        NODE,
        HERE / "chat.mjs",
        library,
        f"http://127.0.0.1:{port}",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=2**20,
    )
    try:
        browser = Browser(process)
        await browser.until(event="up")
        yield browser
        process.stdin.close()
        await process.wait()
        assert not await process.stderr.read()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def asked(upstream, number=-1):
    """The messages that the model was asked."""
    return upstream.requests[number].json()["messages"]


async def test_chats(library):
    """One after the other in one browser, as a process of Node takes long to start."""
    upstream = FaultServer(STREAM)
    async with chatting(library, upstream) as browser:
        await a_whole_answer(browser, upstream)
        await reading_without_a_chat(browser, upstream)
        await failures(browser, upstream)
        await reasoning_and_images(browser, upstream)
        await tools(browser, upstream)
        await regenerating(browser, upstream)


async def a_whole_answer(browser, upstream):
    await browser.do("new", chat="c1")
    upstream.push(HALF)
    finish = await browser.answer("c1")
    message = finish["message"]
    assert [(p["type"], p.get("text"), p.get("state")) for p in message["parts"]] == [
        ("step-start", None, None),
        ("text", "Hello", "done"),
    ]
    metadata = message["metadata"]
    assert metadata["usage"] == {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
    assert metadata["model"]
    assert 0 <= metadata["timeToFirstToken"] <= metadata["duration"]
    assert finish["finishReason"] == "stop"
    assert not finish["failed"]
    assert not finish["aborted"]
    # The next turn brings the answer back.
    await browser.say("c1", "Again.")
    await upstream.wait_for_stall()
    await browser.until(event="message", chat="c1", role="assistant", text="Hel")  # piecewise
    upstream.release()
    await browser.until(event="done", op="send", chat="c1")
    assert asked(upstream) == [
        {"role": "user", "content": "Say hello."},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Again."},
    ]
    assert upstream.requests[-1].json()["model"] == MODEL


async def reading_without_a_chat(browser, upstream):
    upstream.push(STREAM)
    await browser.do("read", text="Hi.")
    message = (await browser.until(event="read"))["message"]
    assert message["parts"][-1]["text"] == "Hello"


async def failures(browser, upstream):
    upstream.push(STREAM.cut(STREAM.wire.index(b'"lo"')), Answer.error(429, "sk-secret"))
    await browser.do("new", chat="c2")
    finish = await browser.answer("c2")
    assert finish["failed"]
    assert {"event": "error", "chat": "c2", "message": "the answer was cut off"} in browser.events
    assert finish["message"]["parts"][-1]["text"] == "Hel"
    # One before the first token is a status; its body is what the SDK throws.
    finish = await browser.answer("c2")
    told = [e["message"] for e in browser.events if e["event"] == "error"][-1]
    assert json.loads(told)["error"]["type"] == "rate_limited"
    assert "secret" not in told


def chunks(*deltas, finish="stop"):
    """A stream of these deltas."""
    events = [
        {"id": "x", "model": MODEL, "choices": [{"index": 0, "delta": delta}]} for delta in deltas
    ]
    events.append(
        {"id": "x", "model": MODEL, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    )
    return Answer.events([*(json.dumps(event) for event in events), "[DONE]"])


async def reasoning_and_images(browser, upstream):
    upstream.push(
        chunks({"reasoning_content": "Hm"}, {"reasoning_content": "."}, {"content": "Yes"})
    )
    await browser.do("new", chat="c3")
    pixel = "data:image/png;base64,iVBORw0KGgo="
    finish = await browser.answer(
        "c3", "What is it?", files=[{"type": "file", "mediaType": "image/png", "url": pixel}]
    )
    assert [(p["type"], p["text"]) for p in finish["message"]["parts"][1:]] == [
        ("reasoning", "Hm."),
        ("text", "Yes"),
    ]
    (question,) = asked(upstream)
    assert {"type": "image_url", "image_url": {"url": pixel}} in question["content"]
    assert {"type": "text", "text": "What is it?"} in question["content"]


def call(index, id, name=None, arguments=""):
    return {
        "tool_calls": [
            {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
        ]
    }


async def tools(browser, upstream):
    upstream.push(
        chunks(
            {"content": "Let me see."},
            call(0, "t1", "weather"),
            call(0, None, None, '{"city":'),
            call(0, None, None, '"Bonn"}'),
            call(1, "t2", "clock"),
            finish="tool_calls",
        ),
        chunks({"content": "It rains."}),
    )
    await browser.do("new", chat="c4", tools=True)
    await browser.say("c4", "The weather?")
    tool = (await browser.until(event="tool", chat="c4"))["toolCall"]
    assert (tool["toolCallId"], tool["toolName"], tool["input"]) == (
        "t1",
        "weather",
        {"city": "Bonn"},
    )
    tool = (await browser.until(event="tool", chat="c4"))["toolCall"]
    assert (tool["toolName"], tool["input"]) == ("clock", {})
    first = await browser.until(event="finish", chat="c4")
    assert first["finishReason"] == "tool-calls"
    await browser.do("tool", chat="c4", tool="weather", toolCallId="t1", output={"sky": "rain"})
    await browser.do("tool", chat="c4", tool="clock", toolCallId="t2", output="noon")
    finish = await browser.until(event="finish", chat="c4")
    # The answer goes on in the same message.
    assert finish["message"]["id"] == first["message"]["id"]
    assert finish["message"]["parts"][-1]["text"] == "It rains."
    functions = [("t1", "weather", '{"city":"Bonn"}'), ("t2", "clock", "{}")]
    assert asked(upstream)[1:] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": one, "type": "function", "function": {"name": name, "arguments": arguments}}
                for one, name, arguments in functions
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": '{"sky":"rain"}'},
        {"role": "tool", "tool_call_id": "t2", "content": "noon"},
    ]


async def regenerating(browser, upstream):
    upstream.push(STREAM, chunks({"content": "Hi!"}))
    await browser.do("new", chat="c5")
    await browser.answer("c5")
    await browser.do("regenerate", chat="c5")
    finish = await browser.until(event="finish", chat="c5")
    assert finish["message"]["parts"][-1]["text"] == "Hi!"
    assert asked(upstream) == [{"role": "user", "content": "Say hello."}]


def weather(city: str) -> dict:
    """Forecast the weather."""
    return {"city": city, "degrees": 21}


async def test_a_run_of_tools_on_this_side(library):
    """A handler of one's own, as docs/how-to/web-backends.md has it."""
    rome = {"id": "t1", "name": "weather", "arguments": {"city": "Rome"}}
    nowhere = {"id": "t1", "name": "weather", "arguments": {"city": 5}}
    says = [
        {"role": "assistant", "content": "Let me see.", "tool_calls": [rome]},
        {"role": "assistant", "content": None, "tool_calls": [nowhere]},
        "It is warm.",
    ]
    emulator = Emulator(answer=lambda _: says.pop(0))
    options = RelayOptions(models=[MODEL])

    async def chat(request):
        asked = UI_MESSAGE.parse(await request.json(), options)
        run = client.chat.completions.run_tools(
            model=MODEL, messages=asked.messages, tools=[weather]
        )
        return await stream_response(request, run, format=UIMessageFormat())

    app = web.Application()
    app.router.add_post("/api/chat", chat)
    runner = web.AppRunner(app, shutdown_timeout=1)
    async with emulator, AsyncKonko("k", emulator.base_url) as client:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with browsing(library, runner.addresses[0][1]) as browser:
                await browser.do("new", chat="r1")
                finish = await browser.answer("r1", "The weather?")
                says.append("You are welcome.")
                await browser.answer("r1", "Thanks.")
        finally:
            await runner.cleanup()
    parts = finish["message"]["parts"]
    assert [(p["type"], p.get("state")) for p in parts] == [
        ("step-start", None),
        ("text", "done"),
        ("tool-weather", "output-available"),
        ("step-start", None),
        ("tool-weather", "output-error"),
        ("step-start", None),
        ("text", "done"),
    ]
    assert parts[2]["output"] == {"city": "Rome", "degrees": 21}
    assert finish["finishReason"] == "stop"
    # What the browser has of it, it brings along with the next question.
    roles = [message["role"] for message in emulator.requests[-1].body["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "tool", "assistant", "user"]


async def test_stopping_and_resuming(library):
    upstream = FaultServer(HALF, HALF, HALF)
    async with chatting(library, upstream) as browser:
        await a_stop_for_good(browser, upstream)
        await a_stop_of_what_cannot_be_resumed(browser, upstream)
        await a_page_that_comes_back(browser, upstream)


async def a_stop_for_good(browser, upstream):
    """What `useChat` calls stop is to leave; the server is told by a request of its own."""
    await browser.do("new", chat="s1")
    await browser.say("s1", "Say hello.")
    await browser.until(event="message", chat="s1", text="Hel")
    await browser.do("delete", chat="s1")
    finish = await browser.until(event="finish", chat="s1")
    assert finish["message"]["parts"][-1] == {"type": "text", "text": "Hel", "state": "done"}
    assert not finish["failed"]
    await upstream.wait_until_closed()
    await browser.until(event="done", op="send", chat="s1")
    await nothing_to_resume(browser, "s1")


async def nothing_to_resume(browser, chat):
    seen = len(browser.events)
    await browser.do("resume", chat=chat)
    await browser.until(event="done", op="resume", chat=chat)
    assert not [e for e in browser.events[seen:] if e["event"] in {"message", "error"}]
    assert [e["status"] for e in browser.events if e["event"] == "status"][-1] == "ready"


async def a_stop_of_what_cannot_be_resumed(browser, upstream):
    await browser.do("new", chat="s2", headers={"X-Resumable": "0"})
    await browser.say("s2", "Say hello.")
    await browser.until(event="message", chat="s2", text="Hel")
    await browser.do("stop", chat="s2")
    finish = await browser.until(event="finish", chat="s2")
    assert finish["aborted"]
    async with asyncio.timeout(60):
        await upstream.wait_until_closed()


async def a_page_that_comes_back(browser, upstream):
    await browser.do("new", chat="s3")
    await browser.say("s3", "Say hello.")
    shown = await browser.until(event="message", chat="s3", role="assistant", text="Hel")
    await browser.do("stop", chat="s3")  # the page is closed
    await browser.until(event="finish", chat="s3")
    question = {"id": "q", "role": "user", "parts": [{"type": "text", "text": "Say hello."}]}
    await browser.do("new", chat="s3", messages=[question])
    await browser.do("resume", chat="s3")
    await browser.until(event="message", chat="s3", role="assistant", text="Hel")
    upstream.release()
    finish = await browser.until(event="finish", chat="s3")
    assert finish["message"]["parts"][-1]["text"] == "Hello"
    assert finish["message"]["id"] == shown["id"]
    assert len(upstream.requests) == 3  # one for each test here: none was paid twice
    await browser.until(event="done", op="resume", chat="s3")
    await nothing_to_resume(browser, "s3")
