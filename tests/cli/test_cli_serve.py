"""`konko-async serve`: another process talks to it as it says."""

import re
import signal

import pytest
from cli_kit import CHAT_MODEL, KEY, command, environment, run

from konko_async import AsyncKonko, AuthenticationError, RateLimitError


def exported(text):
    return dict(re.findall(r"export (\w+)=(\S+)", text))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
async def test_it_serves_until_a_signal(number, code):
    options = ["--answer-tokens", "3", "--rpm", "1", "--latency", "0.01"]
    async with command("serve", *options, env=environment()) as server:
        told = exported(await server.wait_for("Ctrl-C stops it."))
        async with AsyncKonko(told["KONKO_API_KEY"], told["KONKO_BASE_URL"], retry=None) as client:
            question = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": "hi"}]}
            completion = await client.chat.completions.create(**question)
            assert completion.usage.completion_tokens == 3
            fresh = AsyncKonko("emulator-key", told["KONKO_BASE_URL"], retry=None)
            async with fresh as other:
                with pytest.raises(RateLimitError):
                    await other.chat.completions.create(**question)
        server.signal(number)
        result = await server.finish()
    assert (result.code, result.err) == (code, "")


async def test_what_it_prints_can_be_used_by_a_shell():
    async with command("serve", env=environment()) as server:
        told = exported(await server.wait_for("Ctrl-C stops it."))
        result = await run("chat", "-m", CHAT_MODEL, "hi", env=environment(**told))
    assert (result.code, result.err) == (0, "")


async def test_a_key_of_ones_own_is_asked_for_and_not_shown():
    async with command("serve", env=environment(KONKO_SERVE_KEY=KEY)) as server:
        told = exported(await server.wait_for("Ctrl-C stops it."))
        assert told["KONKO_API_KEY"] == '"$KONKO_SERVE_KEY"'
        async with AsyncKonko("another", told["KONKO_BASE_URL"]) as client:
            with pytest.raises(AuthenticationError):
                await client.models.list()
        async with AsyncKonko(KEY, told["KONKO_BASE_URL"]) as client:
            assert (await client.models.list()).data
    assert KEY not in server.seen


async def test_only_loopback_unless_a_key_guards_it(env):
    for options in (["--host", "0.0.0.0"], ["--host", "0.0.0.0", "--allow-remote"]):  # noqa: S104
        result = await run("serve", *options, env=environment())
        assert result.code == 2
        assert "KONKO_SERVE_KEY" in result.err
    options = ["--host", "0.0.0.0", "--allow-remote"]  # noqa: S104
    async with command("serve", *options, env=environment(KONKO_SERVE_KEY=KEY)) as server:
        await server.wait_for("Ctrl-C stops it.")


async def test_a_port_that_is_taken(emulator):
    port = emulator.base_url.rpartition(":")[2].partition("/")[0]
    result = await run("serve", "--port", port, env=environment())
    assert result.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in result.err


async def test_the_emulators_options_do_not_go_with_local():
    result = await run("serve", "--local", "--port", "8000", env=environment())
    assert result.code == 2
    assert "--port" in result.err


@pytest.mark.local_model
async def test_local_serves_the_model():
    pytest.importorskip("xllamacpp")
    async with command("serve", "--local", env=environment()) as server:
        told = exported(await server.wait_for("Ctrl-C stops it."))
        async with AsyncKonko(told["KONKO_API_KEY"], told["KONKO_BASE_URL"]) as client:
            assert told["KONKO_MODEL"] in [model.id async for model in client.models.list()]
        server.signal(signal.SIGTERM)
        result = await server.finish()
    assert result.code == 0
