"""`konko-async chat` with one question: arguments, pipes, Ctrl-C, failures in the middle."""

import asyncio
import json
import signal

import pytest
from cli_kit import CHAT_MODEL, KEY, command, run, terminal

from konko_async.testing import Emulator, faults

TEXT = "One two three."


@pytest.fixture
def env(env):
    return {**env, "KONKO_MODEL": CHAT_MODEL}


async def test_the_prompt_is_an_argument_and_the_answer_plain_text(env, emulator):
    result = await run("chat", "How are you?", env=env)
    assert (result.code, result.out, result.err) == (0, TEXT + "\n", "")
    body = emulator.requests[0].body
    assert body["model"] == CHAT_MODEL
    assert body["messages"] == [{"role": "user", "content": "How are you?"}]
    assert body["stream"] is True
    assert "temperature" not in body
    assert "stop" not in body


@pytest.mark.parametrize("arguments", [[], ["-"]])
async def test_the_prompt_comes_from_a_pipe(arguments, env, emulator):
    result = await run("chat", *arguments, env=env, stdin="Wie geht’s?\n\nGut.".encode())
    assert (result.code, result.out) == (0, TEXT + "\n")
    assert emulator.requests[0].body["messages"][0]["content"] == "Wie geht’s?\n\nGut."


async def test_a_prompt_that_is_not_text_is_wrong_usage(env, emulator):
    piped = await run("chat", env=env, stdin=b"\xff\xfe\x00")
    given = await run("chat", b"\xff\xfe", env=env)
    for result in (piped, given):
        assert result.code == 2
        assert "the prompt is not utf-8 text" in result.err
    assert not emulator.requests


async def test_every_option_reaches_the_server(env, emulator):
    options = ["-s", "Be brief.", "-t", "0", "--max-tokens", "7", "--stop", "x", "--stop", "y"]
    result = await run("chat", "hi", "-m", "meta-llama/llama-2-13b-chat", *options, env=env)
    assert result.code == 0
    body = emulator.requests[0].body
    assert body["model"] == "meta-llama/llama-2-13b-chat"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"], body["stop"]) == (0, 7, ["x", "y"])


async def test_without_a_model_the_chat_models_are_listed(env, emulator):
    del env["KONKO_MODEL"]
    result = await run("chat", "hi", env=env)
    assert result.code == 2
    assert "--model" in result.err
    assert "KONKO_MODEL" in result.err
    for name, model in emulator.models.items():
        assert (name in result.err.splitlines()[-4:][0] or f"  {name}\n" in result.err) is (
            model["is_chat"]
        )


async def test_without_a_model_and_a_model_list_both_are_told(env, emulator):
    del env["KONKO_MODEL"]
    emulator.always(faults.Status(404), path="/models")
    result = await run("chat", "hi", env=env)
    assert result.code == 2
    assert "--model" in result.err
    assert "404" in result.err


async def test_json_is_one_line_with_usage(env, emulator):
    result = await run("chat", "hi", "--json", env=env)
    assert (result.code, result.err, result.out.count("\n")) == (0, "", 1)
    completion = json.loads(result.out)
    assert completion["object"] == "chat.completion"
    assert completion["choices"][0]["message"]["content"] == TEXT
    assert completion["choices"][0]["finish_reason"] == "stop"
    assert completion["usage"]["completion_tokens"] > 0


async def test_a_cut_answer_says_so_on_standard_error(env, emulator):
    result = await run("chat", "hi", "--max-tokens", "2", env=env)
    assert result.code == 0
    assert TEXT.startswith(result.out.strip())
    assert "--max-tokens" in result.err


async def test_tokens_reach_a_pipe_as_they_come(env, emulator):
    emulator.script(faults.Stall(after_chunks=2))
    async with command("chat", "hi", env=env) as chat:
        chat.process.stdin.close()
        # The server says no more, so this can only have come through unbuffered.
        assert await chat.wait_for("One")
        chat.signal(signal.SIGINT)
        result = await chat.finish()
    assert result.code == 130
    assert TEXT.startswith(result.out.strip())
    assert "Traceback" not in result.err


async def test_ctrl_c_frees_the_server(env, emulator):
    emulator.script(faults.Stall(after_chunks=2))
    async with terminal("chat", "hi", env=env) as chat:
        await chat.wait_for("One")
        chat.type("\x03")
        assert await chat.finish() == 130
    await emulator.wait_until(lambda: emulator.in_flight == 0)
    assert emulator.requests[0].disconnected
    assert "Traceback" not in chat.seen


async def test_ctrl_c_before_the_first_token(env, emulator):
    emulator.script(faults.Stall(after_chunks=None))
    async with command("chat", "hi", env=env) as chat:
        chat.process.stdin.close()
        await emulator.wait_until(lambda: emulator.in_flight == 1)
        chat.signal(signal.SIGINT)
        result = await chat.finish()
    assert (result.code, result.out) == (130, "")


async def test_sigterm_ends_it_in_order(env, emulator):
    emulator.script(faults.Stall(after_chunks=2))
    async with command("chat", "hi", env=env) as chat:
        chat.process.stdin.close()
        await chat.wait_for("One")
        chat.signal(signal.SIGTERM)
        result = await chat.finish()
    assert result.code == 143
    await emulator.wait_until(lambda: emulator.in_flight == 0)


@pytest.mark.parametrize(
    "fault", [faults.Cut(after_chunks=2), faults.ErrorInStream(after_chunks=2)]
)
async def test_a_stream_that_breaks_keeps_its_text_and_fails(fault, env, emulator):
    emulator.always(fault)
    result = await run("chat", "hi", env=env)
    assert result.code == 1
    assert result.out.endswith("\n")
    assert TEXT.startswith(result.out.strip())
    assert result.err.count("\n") == 1
    assert KEY not in result.err


async def test_a_reader_that_leaves_is_no_crash(env, emulator):
    emulator.answer = None
    emulator.answer_tokens = 20_000  # more than a pipe holds
    async with command("chat", "hi", env=env) as chat:
        chat.process.stdin.close()
        await chat.wait_for(" ")
        chat.process._transport.get_pipe_transport(1).close()
        async with asyncio.timeout(60):
            err = await chat.process.stderr.read()
        result = await chat.finish()
    assert result.code == 1
    assert err == b""


async def test_an_answer_cannot_steer_the_terminal(env, emulator):
    emulator.answer = lambda _: "safe\x1b]52;c;b3duZWQ=\x07\x9b2Jtext ünï"
    async with terminal("chat", "hi", env=env) as shown:
        assert await shown.finish() == 0
    piped = await run("chat", "hi", env=env)
    assert "\x1b]" not in shown.seen
    assert "\x07" not in shown.seen
    assert "\x9b" not in shown.seen
    assert "text ünï" in shown.seen
    mark = "\N{REPLACEMENT CHARACTER}"
    assert piped.out == f"safe{mark}]52;c;b3duZWQ={mark}{mark}2Jtext ünï\n"  # pipes end in pagers
    listed = await run("chat", "--json", "hi", env=env)
    assert not set(listed.out) & set(map(chr, [*range(10), *range(11, 32), *range(0x7F, 0xA0)]))
    told = json.loads(listed.out)["choices"][0]["message"]["content"]
    assert told == "safe\x1b]52;c;b3duZWQ=\x07\x9b2Jtext ünï"  # escaped, and nothing is lost


async def test_a_timeout_bounds_the_call(env, emulator):
    emulator.always(faults.Stall(after_chunks=None))
    result = await run("chat", "hi", "--timeout", "0.2", env=env)
    assert result.code == 1
    assert "total timeout" in result.err


async def test_a_server_without_stream_options_is_fine(env):
    async with Emulator(api_keys=[KEY]) as other:
        result = await run("chat", "hi", "--base-url", other.base_url, env=env)
    assert result.code == 0
    assert "stream_options" not in other.requests[0].body
