"""The /commands of a conversation: models, system message, retries, files, figures."""

import base64
import json
import re
import stat

import pytest
from cli_kit import CHAT_MODEL, chats
from tui_kit import shown

from konko_async.testing import faults

PROMPT = f"{CHAT_MODEL}>"
OTHER = "meta-llama/llama-2-13b-chat"
CHAT = "/chat/completions"


@pytest.fixture
def env(env):
    return {**env, "KONKO_MODEL": CHAT_MODEL}


@pytest.fixture
async def chat(env):
    async with shown("chat", env=env, width=200, height=50) as running:
        await ready(running)
        yield running


async def ready(chat):
    """Wait for a prompt that is empty."""
    await chat.see(lambda: re.fullmatch(r"[\w/.-]+>", chat.current) and "tokens" in chat.bottom)


async def say(chat, line, expected=None):
    """Type a line; return what was shown until the next prompt."""
    before = chat.screen.cursor.y
    chat.type(f"{line}\r")
    await chat.see(
        lambda: chat.screen.cursor.y > before and expected in (None, *found(chat, before))
    )
    await ready(chat)
    return "\n".join(found(chat, before))


def found(chat, start):
    """The lines between two prompts."""
    lines = chat.screen.display[start + 1 : chat.screen.cursor.y]
    return [line.rstrip() for line in lines]


async def test_models_and_system_messages(chat, emulator):
    assert "* codellama/codellama-13b-instruct" in await say(chat, "/model")
    assert "phind" not in chat.text
    assert "did you mean meta-llama/llama-2-13b-chat?" in await say(chat, "/model llama-2-13b-chad")
    await say(chat, f"/model {OTHER}")
    assert "there is no system message" in await say(chat, "/system")
    assert "system message: Be brief." in await say(chat, "/system Be brief.")
    await say(chat, "hi")
    assert "there is no system message" in await say(chat, "/system -")
    await say(chat, "hi")
    first, second = [request.body for request in chats(emulator)]
    assert first["model"] == second["model"] == OTHER
    assert first["messages"][0] == {"role": "system", "content": "Be brief."}
    assert [message["role"] for message in second["messages"]] == ["user", "assistant", "user"]
    assert "did you mean /system?" in await say(chat, "/sytem")
    assert "did you mean /retry?" in await say(chat, "/rety")
    assert "/help lists what there is" in await say(chat, "/xyzzy")


async def test_an_answer_is_asked_for_again(chat, emulator):
    assert "no answer to ask for again" in await say(chat, "/retry")
    emulator.answer = lambda _: f"Answer {len(chats(emulator))}."
    await say(chat, "hi")
    assert "Answer 2." in await say(chat, "/retry 1.5")
    assert "between 0 and 2" in await say(chat, "/retry 3")
    assert "hot is no temperature" in await say(chat, "/retry hot")
    emulator.script(faults.Status(400, message="not now"), path=CHAT)
    assert "not now" in await say(chat, "/retry")
    await say(chat, "and then?")
    bodies = [request.body for request in chats(emulator)]
    assert bodies[1]["messages"] == bodies[0]["messages"]
    assert [body.get("temperature") for body in bodies] == [None, 1.5, None, None]
    assert [message["content"] for message in bodies[3]["messages"]] == [
        *("hi", "Answer 2.", "and then?"),
    ], "an answer that fails leaves the one before"


async def test_a_conversation_is_saved_and_loaded(chat, emulator, tmp_path):
    page, data = tmp_path / "a talk.md", tmp_path / "talk.json"
    await say(chat, "/system Be brief.")
    await say(chat, "hi")
    assert "saved in" in await say(chat, f"/save {page}")
    assert "saved in" in await say(chat, f"/save '{data}'")
    assert stat.S_IMODE(page.stat().st_mode) == stat.S_IMODE(data.stat().st_mode) == 0o600
    assert "## You" in page.read_text()
    assert json.loads(data.read_text())["messages"][1] == {"role": "user", "content": "hi"}
    data.write_text("mine")
    chat.type(f"/save {data}\r")
    await chat.see("overwrite it? [y/N]")
    chat.type("\r")
    await chat.see("not saved")
    await ready(chat)
    assert data.read_text() == "mine"
    chat.type(f"/save {data}\r")
    await chat.see(lambda: chat.text.count("overwrite it? [y/N]") == 2)
    chat.type("y\r")
    await chat.see(lambda: chat.text.count("saved in") == 3)
    await ready(chat)
    assert stat.S_IMODE(data.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.glob("*talk*")) == ["a talk.md", "talk.json"]
    await say(chat, "/new")
    assert "No such file" in await say(chat, f"/load {tmp_path}/nothing")
    assert "Is a directory" in await say(chat, f"/load {tmp_path}")
    assert "is there, and is no file" in await say(chat, f"/save {tmp_path}")
    assert "No such file" in await say(chat, f"/save {tmp_path}/no/folder.md")
    for path in (page, data):
        assert f"2 messages, with {CHAT_MODEL}" in await say(chat, f"/load {path}")
    await say(chat, "go on")
    assert [message["content"] for message in chats(emulator)[1].body["messages"]] == [
        *("Be brief.", "hi", "One two three.", "go on"),
    ]


async def test_figures_of_all_answers(chat, emulator):
    assert "there is no answer yet" in await say(chat, "/stats")
    assert "there is no answer yet" in await say(chat, "/copy")
    await say(chat, "hi")
    emulator.script(faults.Status(503), None, path=CHAT)
    await say(chat, "hi again")
    emulator.script(faults.Status(400, message="no"), path=CHAT)
    await say(chat, "hi once more")
    shown = await say(chat, "/stats")
    rows = [line.split() for line in shown.splitlines() if re.match(r" \d", line)]
    assert [row[:2] for row in rows] == [[str(number), CHAT_MODEL] for number in (1, 2, 3)]
    assert [row[-3:] for row in rows] == [
        ["1", "stop", "$0.00000240"],
        ["2", "stop", "$0.00000600"],
        ["1", "failed", "-"],
    ]
    assert "4+4" in rows[0]
    assert shown.split()[-2:] == ["4", "$0.00000840"]
    await say(chat, "/copy")
    assert base64.b64encode(b"One two three.").decode() in chat.seen
