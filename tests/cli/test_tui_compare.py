"""`konko-async chat --compare`: several models at once, on terminals and in pipes."""

import asyncio
import json
import re
import signal

import click
import pytest
from cli_kit import CHAT_MODEL, chats, command, run
from tui_kit import shown

from konko_async.cli.chat.command import _models, _spread
from konko_async.testing import faults

OTHER = "meta-llama/llama-2-13b-chat"
BOTH = ("--compare", CHAT_MODEL, OTHER)
CHAT = "/chat/completions"
FIGURES = r"first token [\d.]+ m?s, [\d.,]+ tokens/s, \d+ \+ \d+ tokens, \$[\d.]+"


@pytest.fixture
def env(env, emulator):
    emulator.answer = lambda body: f"I am **{body['model'].split('/')[1]}** of two."
    return env


@pytest.mark.parametrize(
    ("given", "spread"),
    [
        ("--compare|a|b|what is it?", "--compare|a|--compare|b|what is it?"),
        ("hi|--compare|a|b|c", "hi|--compare|a|--compare|b|--compare|c"),
        ("--compare|a|--compare|b", "--compare|a|--compare|b"),
        ("--compare|a|b|--json|hi", "--compare|a|--compare|b|--json|hi"),
        ("--compare|a|b|--|hi", "--compare|a|--compare|b|--|hi"),
        ("--compare|a|b|-", "--compare|a|--compare|b|-"),
        ("--|--compare|a|b", "--|--compare|a|b"),
        ("hi", "hi"),
    ],
)
def test_the_models_follow_the_option(given, spread):
    assert _spread(given.split("|")) == spread.split("|")


async def test_in_a_pipe_answers_are_labelled_and_in_order(env, emulator):
    emulator.script(faults.Delay(0.3), path=CHAT, model=CHAT_MODEL)
    result = await run("chat", *BOTH, "who are you?", env=env)
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(
        f"== {CHAT_MODEL} ==\nI am \\*\\*codellama-13b-instruct\\*\\* of two.\n-- {FIGURES}\n\n"
        f"== {OTHER} ==\nI am \\*\\*llama-2-13b-chat\\*\\* of two.\n-- {FIGURES}\n",
        result.out,
    )
    assert all(request.body["stream_options"] for request in chats(emulator))


async def test_json_has_a_line_for_each_as_it_ends(env, emulator):
    emulator.script(faults.Delay(0.3), path=CHAT, model=CHAT_MODEL)
    result = await run("chat", "hi", "--json", "--compare", CHAT_MODEL, OTHER, "no/model", env=env)
    assert result.code == 1
    lines = {line["model"]: line for line in map(json.loads, result.out.splitlines())}
    assert set(lines) == {"no/model", OTHER, CHAT_MODEL}
    assert list(lines)[-1] == CHAT_MODEL
    assert lines["no/model"]["error"]["type"] == "NotFoundError"
    assert lines["no/model"]["completion"] is None
    assert lines[OTHER]["error"] is None
    assert lines[OTHER]["completion"]["choices"][0]["message"]["content"].startswith("I am")
    assert lines[CHAT_MODEL]["time_to_first_token"] > 0.3 > lines[OTHER]["time_to_first_token"]
    assert lines[OTHER]["tokens_per_second"] > 0
    assert lines[OTHER]["cost"] > 0
    assert lines[OTHER]["currency"] == "USD"


async def test_side_by_side_on_a_wide_terminal(env, emulator):
    emulator.script(faults.Status(400, message="no luck"), path=CHAT, model=OTHER)
    async with shown("chat", *BOTH, "who are you?", env=env, width=100) as chat:
        assert await chat.finish() == 1
    left, right = zip(*(line.split(" │") for line in chat.lines), strict=True)
    left, right = [cell.strip() for cell in left], [cell.strip() for cell in right]
    assert left[:4] == [CHAT_MODEL, "", "I am codellama-13b-instruct of two.", ""]
    assert re.fullmatch(FIGURES, " ".join(left[4:]).strip())
    assert right[0] == OTHER
    assert "failed:" in right[2]
    assert "no luck" in " ".join(right)
    assert {line.index("│") for line in chat.lines} == {49}
    assert all(cell.bold for cell in chat.cells(CHAT_MODEL))


async def test_columns_longer_than_the_screen_scroll_away_row_by_row(env, emulator):
    def answer(body):
        count = 60 if body["model"] == CHAT_MODEL else 25
        return "\n".join(f"- {name} {number}" for name in ("x",) for number in range(count))

    emulator.answer = answer
    emulator.tokens_per_second = 1500
    async with shown("chat", *BOTH, "many things", env=env, width=90, height=8) as chat:
        assert await chat.finish() == 0
    left, right = zip(*(line.split("│") for line in chat.lines), strict=True)
    assert [cell.strip() for cell in left[2:62]] == [f"• x {number}" for number in range(60)]
    assert [cell.strip() for cell in right[2:27]] == [f"• x {number}" for number in range(25)]
    assert "first token" in right[28]


async def test_one_after_the_other_on_a_narrow_terminal(env, emulator):
    # The second one ends first, and waits for its turn.
    emulator.script(faults.Delay(0.3), path=CHAT, model=CHAT_MODEL)
    async with shown("chat", *BOTH, "who are you?", env=env, width=40) as chat:
        assert await chat.finish() == 0
    headings = [place for place, line in enumerate(chat.lines) if line.startswith("==")]
    assert headings[0] == 0
    assert chat.lines[1] == "I am codellama-13b-instruct of two."
    assert chat.lines[headings[1] - 1 :][:3] == [
        *("", f"== {OTHER} ==", "I am llama-2-13b-chat of two."),
    ]
    assert chat.text.count("-- first token") == 2


async def test_ctrl_c_and_a_reader_that_leaves_end_all_of_them(env, emulator):
    emulator.always(faults.Stall(after_chunks=2), path=CHAT)
    async with command("chat", *BOTH, "who are you?", env=env) as chat:
        chat.process.stdin.close()
        await chat.wait_for("I")
        await emulator.wait_until(lambda: len(chats(emulator)) == 2)
        chat.signal(signal.SIGINT)
        result = await chat.finish()
    assert result.code == 130
    assert "Traceback" not in result.err
    await emulator.wait_until(lambda: emulator.in_flight == 0)
    emulator.clear()
    emulator.answer = None
    emulator.answer_tokens = 20_000  # more than a pipe holds
    async with command("chat", *BOTH, "who are you?", env=env) as chat:
        chat.process.stdin.close()
        await chat.wait_for("==")
        chat.process._transport.get_pipe_transport(1).close()
        async with asyncio.timeout(60):
            assert await chat.process.stderr.read() == b""
        assert (await chat.finish()).code == 1


async def test_one_model_is_compared_with_the_own_one(env, emulator, monkeypatch):
    monkeypatch.delenv("KONKO_MODEL", raising=False)
    with pytest.raises(click.UsageError, match="--compare needs two models"):
        _models(None, (OTHER,))
    assert _models("a", ("b",)) == ["a", "b"]
    assert _models("a", ("b", "c")) == ["a", "b", "c"]
    result = await run("chat", "hi", "--compare", OTHER, env={**env, "KONKO_MODEL": CHAT_MODEL})
    assert result.code == 0
    assert {request.body["model"] for request in chats(emulator)} == {CHAT_MODEL, OTHER}


async def test_a_conversation_with_two(env, emulator, tmp_path):
    async with shown("chat", *BOTH, env=env, width=100, height=60) as chat:
        await ready(chat)
        await say(chat, "hi")
        emulator.script(faults.Status(400, message="no luck"), path=CHAT, model=OTHER)
        await say(chat, "more")
        await say(chat, "the end")
        await say(chat, f"/save {tmp_path}/talk.md")
        await say(chat, "/stats")
        await say(chat, f"/compare {OTHER} {CHAT_MODEL}")
        await say(chat, "/compare")
        await say(chat, "one of you")
        chat.type("\x04")
        assert await chat.finish() == 0
    said = {}
    for request in chats(emulator):
        said.setdefault(request.body["model"], []).append(
            [message["content"] for message in request.body["messages"]]
        )
    mine, yours = (
        f"I am **{CHAT_MODEL.split('/')[1]}** of two.",
        "I am **llama-2-13b-chat** of two.",
    )
    assert said[CHAT_MODEL] == [
        ["hi"],
        ["hi", mine, "more"],
        ["hi", mine, "more", mine, "the end"],
    ]
    assert said[OTHER] == [
        ["hi"],
        ["hi", yours, "more"],
        ["hi", yours, "the end"],
        ["hi", yours, "the end", yours, "one of you"],
    ]
    assert sorted(path.name for path in tmp_path.glob("talk-*.md")) == [
        *("talk-codellama_codellama-13b-instruct.md", "talk-meta-llama_llama-2-13b-chat.md"),
    ]
    assert "failed" in chat.text


async def ready(chat):
    await chat.see(lambda: re.fullmatch(r"([\w/.-]+)?>", chat.current) and "tokens" in chat.bottom)


async def say(chat, line):
    before = chat.screen.cursor.y
    chat.type(f"{line}\r")
    await chat.see(lambda: chat.screen.cursor.y > before)
    await ready(chat)


@pytest.mark.local_model
async def test_the_local_model_is_compared_with_itself(env):
    pytest.importorskip("xllamacpp")
    compare = ("--local", "--compare", "gemma-3-270m", "gemma-3-270m", "--max-tokens", "8")
    env = {**env, "KONKO_BASE_URL": ""}
    result = await run("chat", *compare, "Say hello, please.", env=env, patience=100)
    assert result.code == 0, result
    assert result.out.count("-- first token") == 2
