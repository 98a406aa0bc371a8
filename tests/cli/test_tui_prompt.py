"""The prompt of `konko-async chat`: several lines, history, completion, the toolbar."""

import stat

import pytest
from cli_kit import CHAT_MODEL, chats
from tui_kit import shown

from konko_async.testing import faults

PROMPT = f"{CHAT_MODEL}>"
OTHER = "nousresearch/nous-hermes-llama2-13b"


@pytest.fixture
def env(env):
    return {**env, "KONKO_MODEL": CHAT_MODEL, "EDITOR": "true"}


def asked(emulator):
    return [request.body["messages"][-1]["content"] for request in chats(emulator)]


async def say(chat, emulator, keys):
    """Type, and wait for the answer and the next prompt."""
    count = len(chats(emulator))
    chat.type(keys)
    await emulator.wait_until(lambda: len(chats(emulator)) == count + 1)
    await ready(chat)


async def ready(chat):
    """Wait for a prompt that is empty."""
    await chat.see(lambda: chat.current == PROMPT and "tokens" in chat.bottom)


async def test_several_lines_are_one_message(env, emulator):
    async with shown("chat", env=env) as chat:
        await ready(chat)
        assert "Alt+Enter" in chat.bottom
        await say(chat, emulator, "one\x1b\rtwo\nthree\r")
        # What is pasted may end in a line feed, and is not sent by it.
        chat.type("\x1b[200~def f():\n    return 1\n\n/new\n\x1b[201~")
        await chat.see("/new")
        await say(chat, emulator, "what is it?\r")
        await say(chat, emulator, "/etc/hosts is what?\r")
        chat.type("\x04")
        assert await chat.finish() == 0
    assert asked(emulator) == [
        "one\ntwo\nthree",
        "def f():\n    return 1\n\n/new\nwhat is it?",
        "/etc/hosts is what?",
    ]


async def test_history_is_searched_and_goes_on_in_the_next_run(env, emulator, tmp_path):
    async with shown("chat", env=env) as chat:
        await ready(chat)
        await say(chat, emulator, "the first question\r")
        await say(chat, emulator, "another one,\nof two lines\r")
    async with shown("chat", env=env) as chat:
        await ready(chat)
        chat.type("\x12FIRST")
        await chat.see("the first question")
        chat.type("\r")
        await chat.see(lambda: chat.current.endswith("the first question"))
        await say(chat, emulator, "\r")
    assert asked(emulator) == [
        *("the first question", "another one,\nof two lines", "the first question"),
    ]
    history = tmp_path / "state" / "konko_async" / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700


async def test_a_history_that_cannot_be_kept_is_said_and_no_obstacle(env, emulator, tmp_path):
    (tmp_path / "state").write_text("not a folder")
    async with shown("chat", env=env) as chat:
        await chat.see("no history is kept")
        await ready(chat)
        await say(chat, emulator, "hi\r")
    assert asked(emulator) == ["hi"]


async def test_commands_and_models_are_completed(env, emulator):
    async with shown("chat", env=env) as chat:
        await ready(chat)
        await emulator.wait_until(lambda: emulator.requests and emulator.requests[0].finished)
        chat.type("/mo")
        await chat.see("lists the models, or switches to one")
        chat.type("\t")
        await chat.see(lambda: chat.current == f"{PROMPT} /model")
        chat.type(" hermes")
        await chat.see(lambda: OTHER in chat.text)
        assert "phind" not in chat.text, "not a chat model"
        chat.type("\t")
        await chat.see(lambda: chat.current == f"{PROMPT} /model {OTHER}")
        chat.type("\r")
        await chat.see(f"{OTHER}>")
        chat.type("hi\r")
        await chat.see("One two three.")
    assert chats(emulator)[0].body["model"] == OTHER


async def test_the_toolbar_counts(env, emulator):
    async with shown("chat", env=env, width=100) as chat:
        await ready(chat)
        await say(chat, emulator, "hi\r")
        await chat.see("8 tokens · $0.00000240")
        assert chat.bottom.startswith(CHAT_MODEL)
        await say(chat, emulator, "hi\r")
        await chat.see("27 tokens · $0.00000810")


@pytest.mark.parametrize("listed", [False, True])
async def test_in_forty_columns(listed, env, emulator):
    if not listed:
        emulator.always(faults.Status(404), path="/models")
    async with shown("chat", env=env, width=40, height=12) as chat:
        await chat.see(lambda: chat.current == ">")
        chat.type("hi\r")
        await chat.see("8 tokens")
        await chat.see(lambda: chat.current == ">")
        assert ("$0.0000024" in chat.bottom) is listed
        chat.type("/stats\r")
        await chat.see("tok/s")
        chat.type("/help\r")
        await chat.see("Ctrl-R")
        chat.type("\x04")
        assert await chat.finish() == 0
