"""Each example is started as its docstring says, and used."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from ports import free_port

from konko_async.testing import Emulator

sys.path.insert(0, str(Path(__file__).parent / "cli"))
from cli_kit import KEY, chats, command, environment, join_waiters, run, terminal
from command_server import PROGRAM

EXAMPLES = Path(__file__).parents[1] / "examples"
PATIENCE = 60.0


def python(name):
    return (*PROGRAM, "-W", "error", str(EXAMPLES / name))


@pytest.fixture
async def emulator():
    async with Emulator(api_keys=[KEY]) as running:
        yield running
    join_waiters()


@pytest.fixture
def env(emulator, tmp_path):
    names = {name: os.environ[name] for name in ("HOME", "PYTHONPATH") if name in os.environ}
    return environment(emulator, tmp_path, **names)


# -- the two applications ------------------------------------------------------------------------

APPS = {
    "fastapi_app.py": ("acme-demo", "/chat", {"question": "What is an event loop?"}),
    "aiohttp_app.py": ("ada-demo", "/explain", {"topic": "event loops"}),
}


class App:
    """An application's process, and a browser in front of it."""

    def __init__(self, process, session, path, body):
        self.process, self.session = process, session
        self.path, self._body = path, body

    def ask(self, **headers):
        return self.session.post(self.path, json=self._body, headers=headers)

    async def ended(self):
        async with asyncio.timeout(PATIENCE):
            out, _ = await self.process.communicate()
        return self.process.returncode, out.decode()


@contextlib.asynccontextmanager
async def served(name, env):
    token, path, body = APPS[name]
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *python(name),
        f"--port={port}",
        env={**env, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said = ""
        async with asyncio.timeout(PATIENCE):
            while "unning on http" not in said:
                line = (await process.stdout.readline()).decode()
                assert line, f"it ended: {said}"
                said += line
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
            yield App(process, session, path, body)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def events_of(data):
    """Decode the events of a stream; the last one must be [DONE]."""
    events = re.findall(rb"^data: (.*)$", data, re.MULTILINE)
    assert events[-1] == b"[DONE]"
    return [json.loads(event) for event in events[:-1]]


def text_of(events):
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@pytest.mark.parametrize("name", APPS)
async def test_an_application_streams_cancels_limits_and_ends_well(name, env, emulator):
    async with served(name, env) as app:
        await check_stream(app, emulator)
        await check_disconnect(app, emulator)
        await check_refusals(app, emulator)
        await check_limits(app, emulator)
        await check_deadline(app, emulator)
        async with app.session.get("/readyz", headers={"Authorization": ""}) as ready:
            assert (ready.status, await ready.json()) == (200, {"status": "ok"})
        code, out = await check_shutdown(app, emulator)
    assert code == {"fastapi_app.py": -signal.SIGTERM, "aiohttp_app.py": 0}[name]
    assert "Traceback" not in out
    assert "Warning" not in out
    assert KEY not in out


async def check_stream(app, emulator):
    """An answer arrives piece by piece, while the model is still writing."""
    emulator.answer = lambda _: [f"w{number} " for number in range(40)]
    emulator.tokens_per_second = 40
    async with app.ask() as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        data = await response.content.readany()
        assert b"w39" not in data
        assert emulator.in_flight == 1
        rest = await response.read()
    assert text_of(events_of(data + rest)) == "".join(f"w{number} " for number in range(40))
    assert emulator.requests[-1].stream


async def check_disconnect(app, emulator):
    """A browser that leaves ends the call long before the answer is complete."""
    emulator.answer = lambda _: ["word "] * 400
    emulator.tokens_per_second = 4
    async with app.ask() as response:
        await response.content.readany()
        assert emulator.in_flight == 1
        response.close()
        left = time.monotonic()
        await emulator.wait_until(lambda: emulator.in_flight == 0)
    assert time.monotonic() - left < 50  # the answer would go on for 100 s
    await emulator.wait_until(lambda: emulator.requests[-1].disconnected)


async def check_refusals(app, emulator):
    """Strangers, callers with meaningless headers and bodies get an answer; nobody is asked."""
    asked = len(emulator.requests)
    for token in ("", "Bearer nobody"):
        async with app.ask(Authorization=token) as response:
            assert response.status == 401
    async with app.ask(**{"X-Request-Timeout": "soon"}) as response:
        assert response.status == 400
    async with app.session.post(app.path, data=b"{") as response:
        assert response.status in {400, 422}
    async with app.session.post(app.path, json={"model": "another"}) as response:
        assert response.status in {400, 422}
    assert len(emulator.requests) == asked


async def check_limits(app, emulator):
    """The fifth stream at once of one customer is turned away."""
    async with contextlib.AsyncExitStack() as opened:
        for _ in range(4):
            response = await opened.enter_async_context(app.ask())
            opened.callback(response.close)
        async with app.ask() as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) >= 1
            assert (await response.json())["error"]["type"] == "rate_limited"
        assert emulator.in_flight == 4
    await emulator.wait_until(lambda: emulator.in_flight == 0)


async def check_deadline(app, emulator):
    """An answer that takes longer than the caller gave it ends with an event that says so."""
    async with app.ask(**{"X-Request-Timeout": "0.8"}) as response:
        assert response.status == 200
        events = events_of(await response.read())
    assert events[-1]["error"]["type"] == "timeout"
    await emulator.wait_until(lambda: emulator.requests[-1].disconnected)


async def check_shutdown(app, emulator):
    """SIGTERM lets a stream end, and what is new is refused meanwhile."""
    emulator.answer = lambda _: ["word "] * 60
    emulator.tokens_per_second = 40
    async with app.ask() as response:
        data = await response.content.readany()
        app.process.send_signal(signal.SIGTERM)
        await draining(app)
        async with app.ask() as refused:
            assert refused.status == 503
            assert "Retry-After" in refused.headers
        data += await response.read()
    assert text_of(events_of(data)) == "word " * 60
    return await app.ended()


async def draining(app):
    async with asyncio.timeout(PATIENCE):
        status = 200
        while status == 200:
            async with app.session.get("/readyz") as ready:
                status = ready.status
    assert status == 503


async def test_the_fastapi_app_answers_with_a_type(env, emulator):
    async with served("fastapi_app.py", env) as app:
        async with app.session.post("/tickets", json={"text": "Charged twice!"}) as response:
            assert await response.json() == {
                "title": "title",
                "severity": "low",
                "wants_refund": True,
            }
        async with app.session.get("/metrics") as scraped:
            assert "\nkonko_calls_total{" in await scraped.text()
        async with app.session.get("/openapi.json") as described:
            schemas = (await described.json())["components"]["schemas"]
            assert schemas["Ticket"]["properties"]["severity"]["enum"] == [
                "low",
                "normal",
                "urgent",
            ]
        emulator.answer = lambda _: '{"title": "x", "severity": "dire", "wants_refund": 1}'
        async with app.session.post("/tickets", json={"text": "Charged twice!"}) as response:
            assert response.status == 502
            assert "error" in await response.json()


async def test_the_aiohttp_app_serves_the_page_and_resumes(env, emulator):
    emulator.answer = lambda _: [f"w{number} " for number in range(12)]
    emulator.tokens_per_second = 40
    ask = {"messages": [{"role": "user", "content": "Hello?"}], "stream": True}
    async with served("aiohttp_app.py", env) as app:
        async with app.session.get("/") as page:
            assert "<title>Konko</title>" in await page.text()
        async with app.session.get("/v1/models") as models:
            ask["model"] = (await models.json())["data"][0]["id"]
        headers = {"X-Resumable": "1"}
        async with app.session.post("/v1/chat/completions", json=ask, headers=headers) as first:
            stream_id = first.headers["X-Stream-Id"]
            data = b""
            while b"w2" not in data:
                data += await first.content.readany()
            first.close()
        whole = data[: data.rindex(b"\n\n") + 2]
        headers = {"Last-Event-ID": re.findall(rb"^id: (.*)$", whole, re.MULTILINE)[-1].decode()}
        async with app.session.get(f"/v1/streams/{stream_id}", headers=headers) as again:
            whole += await again.read()
    assert text_of(events_of(whole)) == "".join(f"w{number} " for number in range(12))
    assert len(chats(emulator)) == 1


# -- summaries -----------------------------------------------------------------------------------


async def test_the_folder_is_summarised_stopped_and_taken_up_again(env, emulator, tmp_path):
    folder, output = tmp_path / "papers", tmp_path / "out.jsonl"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:02}.txt").write_text(f"Paper {number} is about sockets. " * 20)
    emulator.answer = lambda _: "A paper about sockets."
    emulator.latency = 0.4
    arguments = (str(folder), str(output))
    example = python("summarize_folder.py")
    async with command(*arguments, env=env, executable=example) as first:
        await emulator.wait_until(lambda: len(chats(emulator)) >= 4, timeout=PATIENCE)
        first.signal(signal.SIGINT)
        stopped = await first.finish()
    answered = sum(request.status == 200 for request in chats(emulator))
    assert stopped.code == 130, stopped.err
    assert "Traceback" not in stopped.err
    assert 4 <= answered < 200
    emulator.latency = 0
    result = await run(*arguments, env=env, executable=example)
    assert (result.code, "200 summaries, 0 failed" in result.err) == (0, True), result.err
    assert len(chats(emulator)) == 200  # nothing was paid twice
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert {line["summary"] for line in lines} == {"A paper about sockets."}
    assert len({line["document"] for line in lines}) == 200


async def test_the_folder_example_says_what_is_missing(env):
    del env["KONKO_API_KEY"]
    result = await run("docs", "out.jsonl", env=env, executable=python("summarize_folder.py"))
    assert (result.code, result.out) == (1, "")
    assert "KONKO_API_KEY" in result.err
    assert "Traceback" not in result.err


@pytest.mark.local_model
async def test_the_folder_example_needs_no_key(env, tmp_path):
    pytest.importorskip("xllamacpp")
    del env["KONKO_API_KEY"], env["KONKO_BASE_URL"]
    env["HOME"] = os.environ.get("HOME", str(tmp_path))  # where the weights are cached
    folder, output = tmp_path / "papers", tmp_path / "out.jsonl"
    folder.mkdir()
    (folder / "one.txt").write_text("aiohttp is an HTTP client and server for asyncio. " * 5)
    arguments = (str(folder), str(output), "--local")
    result = await run(*arguments, env=env, executable=python("summarize_folder.py"), patience=60)
    assert (result.code, "1 summaries, 0 failed" in result.err) == (0, True), result.err
    assert json.loads(output.read_text())["summary"]


# -- the terminal --------------------------------------------------------------------------------


def calling(name, arguments, answer):
    """Call a tool, and answer once its result is there."""

    def said(body):
        if body["messages"][-1]["role"] == "tool":
            return answer
        return {"tool_calls": [{"name": name, "arguments": arguments}]}

    return said


PROMPT = "\x1b[?2004h"  # pastes are to be marked: written once for each prompt, in raw mode


async def prompted(chat, number):
    """Wait until so many prompts have come, and the last one takes keys."""
    async with asyncio.timeout(PATIENCE):
        while chat.seen.count(PROMPT) < number:
            assert await chat._read(), chat.seen


async def test_the_terminal_chats_calls_tools_and_stops(env, emulator, tmp_path):
    (tmp_path / "notes.txt").write_text("buy milk")
    executable = (shutil.which("env"), "-C", str(tmp_path), *python("terminal.py"))
    async with terminal(env=env, executable=executable) as chat:
        await prompted(chat, 1)
        answer = "\x1b]0;mine\x07There is one."  # a title for the terminal: not the model's to set
        emulator.answer = calling("list_files", {"pattern": "*.txt"}, answer)
        chat.type("What is there?\r")
        await chat.wait_for("[list_files")
        await chat.wait_for("\ufffd]0;mine\ufffdThere is one.")
        assert "notes.txt" in chats(emulator)[-1].body["messages"][-1]["content"]

        emulator.answer = calling("read_file", {"name": "notes.txt"}, "Milk.")
        await prompted(chat, 2)
        chat.type("Read it.\r")
        await prompted(chat, 3)
        chat.type("y\r")
        await chat.wait_for("Milk.")
        assert chats(emulator)[-1].body["messages"][-1]["content"] == "buy milk"

        emulator.answer = calling("read_file", {"name": "notes.txt"}, ["word "] * 4000)
        emulator.tokens_per_second = 40
        await prompted(chat, 4)
        chat.type("Go on for ever.\r")
        await prompted(chat, 5)
        chat.type("y\r")
        await chat.wait_for("word ")
        chat.type("\x03")
        await chat.wait_for("[stopped]")
        await emulator.wait_until(lambda: emulator.in_flight == 0)

        emulator.answer, emulator.tokens_per_second = (lambda _: "Fine."), None
        await prompted(chat, 6)
        chat.type("And now?\r")
        await chat.wait_for("Fine.")
        said = [message.get("content") for message in chats(emulator)[-1].body["messages"]]
        assert "Milk." in said
        assert "Go on for ever." not in said
        await prompted(chat, 7)
        chat.type("\x04")
        assert await chat.finish() == 0


async def test_the_terminal_asks_nobody_but_a_person(env, emulator):
    result = await run(env=env, executable=python("terminal.py"), stdin=b"Read it.\n")
    assert (result.code, result.out) == (1, "")
    assert "needs a terminal" in result.err
    assert not emulator.requests


async def test_the_terminal_reads_nothing_that_was_not_allowed(env, emulator, tmp_path):
    (tmp_path / "notes.txt").write_text("buy milk")
    emulator.answer = calling("read_file", {"name": "notes.txt"}, "I may not.")
    executable = (shutil.which("env"), "-C", str(tmp_path), *python("terminal.py"))
    async with terminal(env=env, executable=executable) as chat:
        for number, key in enumerate(("n\r", "\r", "\x04", "\x03")):
            await prompted(chat, 2 * number + 1)
            chat.type("Read it.\r")
            await prompted(chat, 2 * number + 2)
            chat.type(key)
            await chat.wait_for("[denied: ")
            await chat.wait_for("I may not.")
        await prompted(chat, 9)
        chat.type("\x04")
        assert await chat.finish() == 0
    assert "buy milk" not in json.dumps([request.body for request in chats(emulator)])


async def test_the_terminal_tools_stay_in_their_folder(env, emulator, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "secret.txt").write_text("buy milk")
    emulator.answer = calling("read_file", {"name": "../secret.txt"}, "I may not.")
    executable = (shutil.which("env"), "-C", str(inner), *python("terminal.py"))
    async with terminal(env=env, executable=executable) as chat:
        await prompted(chat, 1)
        chat.type("Read it.\r")
        await prompted(chat, 2)
        chat.type("y\r")
        await chat.wait_for("[failed: ")
        await chat.wait_for("I may not.")
        await prompted(chat, 3)
        chat.type("\x04")
        assert await chat.finish() == 0
    assert "buy milk" not in json.dumps([request.body for request in chats(emulator)])
