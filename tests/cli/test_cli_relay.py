"""`konko-async relay`: the page of another process, and who may use it."""

import asyncio
import json
import re
import signal

import aiohttp
import pytest
from cli_kit import CHAT_MODEL, KEY, command, environment, run

from konko_async.testing import Answer, FaultServer

_READY = "Ctrl-C stops it."


def told(text):
    """The address that was printed, and the token in it."""
    found = re.search(r"(http://\S+/)(?:#token=(\S+))?\n", text)
    return found[1], found[2]


def question(model=CHAT_MODEL, **more):
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_it_serves_the_page_and_answers_until_a_signal(env, number, code):
    async with command("relay", env=env) as relay, aiohttp.ClientSession() as browser:
        address, token = told(await relay.wait_for(_READY))
        assert token is None
        async with browser.get(address) as page:
            assert "<title>Konko</title>" in await page.text()
        async with browser.get(f"{address}v1/models") as models:
            offered = [model["id"] for model in (await models.json())["data"]]
        assert CHAT_MODEL in offered
        assert "thenlper/gte-base" not in offered
        async with browser.post(f"{address}v1/chat/completions", json=question()) as answer:
            body = await answer.json()
        assert body["choices"][0]["message"]["content"] == "One two three."
        relay.signal(number)
        result = await relay.finish()
    assert (result.code, result.err) == (code, "")
    assert KEY not in result.out


async def test_only_the_models_that_are_named(env):
    named = ["-m", CHAT_MODEL, "-m", "of/nobody"]
    async with command("relay", *named, env=env) as relay, aiohttp.ClientSession() as browser:
        address, _ = told(await relay.wait_for(_READY))
        async with browser.get(f"{address}v1/models") as models:
            assert [m["id"] for m in (await models.json())["data"]] == [CHAT_MODEL, "of/nobody"]
        other = question("meta-llama/llama-2-13b-chat")
        async with browser.post(f"{address}v1/chat/completions", json=other) as refused:
            assert refused.status == 404


async def test_the_model_of_the_environment_comes_first(env):
    env = {**env, "KONKO_MODEL": "meta-llama/llama-2-13b-chat"}
    async with command("relay", env=env) as relay, aiohttp.ClientSession() as browser:
        address, _ = told(await relay.wait_for(_READY))
        async with browser.get(f"{address}v1/models") as models:
            offered = [model["id"] for model in (await models.json())["data"]]
    assert offered[0] == "meta-llama/llama-2-13b-chat"
    assert len(offered) == len(set(offered)) > 1


async def test_other_pages_and_other_names_are_refused(env):
    async with command("relay", env=env) as relay, aiohttp.ClientSession() as browser:
        address, _ = told(await relay.wait_for(_READY))
        for headers, status in (
            ({"Host": "evil.example"}, 421),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": address.rstrip("/")}, 200),
        ):
            async with browser.post(
                f"{address}v1/chat/completions", json=question(), headers=headers
            ) as answer:
                assert answer.status == status


async def test_others_need_the_token_that_is_a_part_of_the_address(env):
    refused = await run("relay", "--host", "0.0.0.0", env=env)  # noqa: S104
    assert refused.code == 2
    assert "--allow-remote" in refused.err
    for options in (["--token"], ["--host", "0.0.0.0", "--allow-remote", "--port", "0"]):  # noqa: S104
        async with command("relay", *options, env=env) as relay:
            address, token = told(await relay.wait_for(_READY))
            assert len(token) >= 32
            port = address.rsplit(":", 1)[1]
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as browser:
                async with browser.get("/") as page:
                    assert page.status == 200
                for given, status in ((None, 401), ("Bearer wrong", 401), (f"Bearer {token}", 200)):
                    headers = {"Authorization": given} if given else {}
                    async with browser.get("/v1/models", headers=headers) as models:
                        assert models.status == status


async def read(answer, until):
    """The data of a stream's events, up to one that has a text in it."""
    found = []
    async for line in answer.content:
        if line.startswith(b"data: "):
            found.append(line[6:].strip().decode())
            if until in found[-1]:
                break
    return found


@pytest.fixture
async def slow():
    """A server whose answer stalls after its first token."""
    answer = Answer.stream(["first ", "second"])
    place = answer.wire.index(b"\n\n", answer.wire.index(b"first")) + 2
    async with FaultServer(answer.stall(place)) as server:
        yield server


@pytest.mark.parametrize("twice", [False, True])
async def test_an_answer_may_end_before_the_relay_does(slow, twice):
    env = environment(KONKO_API_KEY=KEY, KONKO_BASE_URL=slow.base_url, KONKO_MODEL=CHAT_MODEL)
    body = question(stream=True)
    async with (
        command("relay", "-m", CHAT_MODEL, "--drain", "20", env=env) as relay,
        aiohttp.ClientSession() as browser,
    ):
        address, _ = told(await relay.wait_for(_READY))
        async with browser.post(f"{address}v1/chat/completions", json=body) as answer:
            await read(answer, "first")
            relay.signal(signal.SIGINT)
            async with asyncio.timeout(60):
                while True:
                    async with browser.get(f"{address}readyz") as ready:
                        if ready.status == 503:
                            break
            async with browser.post(f"{address}v1/chat/completions", json=body) as refused:
                assert refused.status == 503
            if twice:
                relay.signal(signal.SIGINT)
            else:
                slow.release()
            events = await read(answer, "[DONE]")
        result = await relay.finish()
    assert events[-1] == "[DONE]"
    if twice:
        assert json.loads(events[-2])["relay"] == {"reason": "shutdown"}
    else:
        assert "second" in events[0]
    assert result.code == 130
    assert "1 answer is being written" in result.err


async def test_a_port_that_is_taken(emulator, env):
    port = emulator.base_url.rpartition(":")[2].partition("/")[0]
    result = await run("relay", "--port", port, env=env)
    assert result.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in result.err


async def test_no_server_and_no_key(env):
    result = await run("relay", env={**env, "KONKO_BASE_URL": FaultServer.refused_url()})
    assert result.code == 1
    result = await run("relay", env=environment())
    assert (result.code, result.out) == (2, "")


@pytest.mark.local_model
async def test_local_answers():
    pytest.importorskip("xllamacpp")
    async with (
        command("relay", "--local", env=environment()) as relay,
        aiohttp.ClientSession() as browser,
    ):
        address, _ = told(await relay.wait_for(_READY))
        async with browser.get(f"{address}v1/models") as models:
            offered = await models.json()
        (model,), page = offered["data"], offered["relay"]
        assert "very small model" in page["about"]
        assert page["parts"] == ["text"]
        # It can answer what the page offers to begin with.
        starter = {"messages": [{"role": "user", "content": page["starters"][0][1]}]}
        body = question(model["id"], max_tokens=8, **starter)
        async with browser.post(f"{address}v1/chat/completions", json=body) as answer:
            assert "Rome" in (await answer.json())["choices"][0]["message"]["content"]
        relay.signal(signal.SIGTERM)
        result = await relay.finish()
    assert result.code == 0


async def test_the_page_gets_the_prices_of_the_servers_list(env):
    async with command("relay", env=env) as relay, aiohttp.ClientSession() as browser:
        address, _ = told(await relay.wait_for(_READY))
        async with browser.get(f"{address}v1/models") as models:
            page = (await models.json())["relay"]
        relay.signal(signal.SIGTERM)
        await relay.finish()
    assert page["prices"][CHAT_MODEL]["completion"] > 0
    assert page["about"] is None
