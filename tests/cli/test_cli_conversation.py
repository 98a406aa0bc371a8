"""`konko-async chat` on a terminal: a conversation with history, answers that Ctrl-C stops."""

import stat

import pytest
from cli_kit import CHAT_MODEL, chats, terminal

from konko_async.testing import faults

CHAT = "/chat/completions"
PROMPT = f"{CHAT_MODEL}>"


@pytest.fixture
def env(env):
    return {**env, "KONKO_MODEL": CHAT_MODEL}


@pytest.fixture
async def chat(env):
    async with terminal("chat", "--system", "Be brief.", env=env) as running:
        await running.wait_for(PROMPT)
        yield running


async def say(chat, text):
    chat.type(text + "\r")


async def leave(chat):
    chat.type("\x04")
    return await chat.finish()


async def test_the_whole_conversation_is_sent_each_time(chat, emulator):
    for question in ("first", "second"):
        await say(chat, question)
        await chat.wait_for("One two three.")
        await chat.wait_for(PROMPT)
    assert await leave(chat) == 0
    said = [
        (message["role"], message["content"]) for message in chats(emulator)[1].body["messages"]
    ]
    assert said == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "One two three."),
        ("user", "second"),
    ]


async def test_ctrl_c_stops_the_answer_and_not_the_program(chat, emulator):
    emulator.script(faults.Stall(after_chunks=2), path=CHAT)
    await say(chat, "first")
    await chat.wait_for("One")
    chat.type("\x03")
    await chat.wait_for("stopped")
    await emulator.wait_until(lambda: emulator.in_flight == 0)
    await chat.wait_for(PROMPT)
    await say(chat, "second")
    await chat.wait_for("One two three.")
    await chat.wait_for(PROMPT)
    assert await leave(chat) == 0
    roles = [message["role"] for message in chats(emulator)[1].body["messages"]]
    assert roles == ["system", "user", "assistant", "user"], "what was said counts"
    assert "Traceback" not in chat.seen


async def test_an_answer_stopped_before_its_first_token_takes_the_question_back(chat, emulator):
    emulator.script(faults.Stall(after_chunks=None), path=CHAT)
    await say(chat, "first")
    await emulator.wait_until(lambda: len(chats(emulator)) == 1)
    chat.type("\x03")
    await chat.wait_for("stopped")
    await chat.wait_for(PROMPT)
    await say(chat, "second")
    await chat.wait_for("One two three.")
    assert [message["content"] for message in chats(emulator)[1].body["messages"]] == [
        "Be brief.",
        "second",
    ]


async def test_an_error_does_not_end_it(chat, emulator):
    emulator.script(faults.Status(400, message="no such thing"), path=CHAT)
    await say(chat, "first")
    await chat.wait_for("no such thing")
    await chat.wait_for(PROMPT)
    await say(chat, "second")
    await chat.wait_for("One two three.")
    await chat.wait_for(PROMPT)
    assert await leave(chat) == 0


async def test_ctrl_c_at_the_prompt_clears_the_line(chat, emulator):
    chat.type("half a thought\x03")
    await chat.wait_for(PROMPT)
    await say(chat, "another")
    await chat.wait_for("One two three.")
    assert chats(emulator)[0].body["messages"][-1]["content"] == "another"


async def test_the_commands(chat, emulator):
    await say(chat, "/help")
    for name in ("help", "new", "exit"):
        await chat.wait_for(f"\n/{name} ")
    await chat.wait_for(PROMPT)
    await say(chat, "first")
    await chat.wait_for("One two three.")
    await chat.wait_for(PROMPT)
    await say(chat, "/new")
    await chat.wait_for("a new conversation")
    await chat.wait_for(PROMPT)
    await say(chat, "/nothing")
    await chat.wait_for("there is no /nothing")
    await chat.wait_for(PROMPT)
    await say(chat, "second")
    await chat.wait_for("One two three.")
    await chat.wait_for(PROMPT)
    await say(chat, "/exit")
    assert await chat.finish() == 0
    assert len(chats(emulator)) == 2
    assert len(chats(emulator)[1].body["messages"]) == 2


async def test_history_is_kept_for_the_next_time_and_for_nobody_else(env, emulator, tmp_path):
    history = tmp_path / "state" / "konko_async" / "chat_history"
    history.parent.mkdir(parents=True)
    history.touch(mode=0o644)
    async with terminal("chat", env=env) as first:
        await first.wait_for(PROMPT)
        await say(first, "remember me")
        await first.wait_for("One two three.")
    async with terminal("chat", env=env) as second:
        await second.wait_for(PROMPT)
        second.type("x")
        await second.wait_for("x")  # it reads keys, so it has read the history
        second.type("\x1b[A\r")
        await second.wait_for("One two three.")
    asked = [request.body["messages"][-1]["content"] for request in chats(emulator)]
    assert asked == ["remember me", "remember me"]
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


async def test_sigterm_ends_a_conversation(chat):
    chat.process.terminate()
    assert await chat.finish() == 143
