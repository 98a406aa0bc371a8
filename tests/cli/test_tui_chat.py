"""Answers of `konko-async chat` on a terminal: what the screen shows, and what scrolled away."""

import re
import termios

import pytest
from cli_kit import CHAT_MODEL, chats, run, terminal
from tui_kit import shown

from konko_async.testing import faults

ANSWER = """# Title

Some **bold** text.

```python
def f(x):
    return "日本語"
```

- one
- two
"""
CHAT = "/chat/completions"


@pytest.fixture
def env(env):
    return {**env, "KONKO_MODEL": CHAT_MODEL}


async def test_markdown_is_drawn(env, emulator):
    emulator.answer = lambda _: ANSWER
    async with shown("chat", "hi", env=env, width=40) as chat:
        assert await chat.finish() == 0
    assert chat.lines == [
        *("Title", "", "Some bold text.", ""),
        *("── python ─────────────────────────────", "def f(x):", '    return "日本語"', "─" * 39),
        *("", " • one", " • two"),
    ]
    assert all(cell.bold for cell in chat.cells("bold"))
    assert not any(cell.bold for cell in chat.cells("text"))
    assert {cell.fg for cell in chat.cells("def")} == {"magenta"}
    assert {cell.fg for cell in chat.cells("Some")} == {"default"}
    assert not chat.screen.cursor.hidden
    assert (chat.screen.cursor.y, chat.screen.cursor.x) == (11, 0)


@pytest.mark.parametrize(("width", "height"), [(40, 6), (80, 24), (23, 3)])
async def test_an_answer_longer_than_the_screen_scrolls_away_line_by_line(
    width, height, env, emulator
):
    paragraphs = [f"Paragraph {number}." for number in range(40)]
    code = [f"line_{number} = {number}" for number in range(60)]
    items = [f"item {number}" for number in range(40)]
    parts = ["\n\n".join(paragraphs), "```", "\n".join(code), "```"]
    parts += [f"- {item}" for item in items]
    emulator.answer = lambda _: "\n".join(parts)
    emulator.tokens_per_second = 2000
    async with shown("chat", "hi", env=env, width=width, height=height) as chat:
        assert await chat.finish() == 0
    rule = "─" * (width - 1)
    expected = [line for paragraph in paragraphs for line in (paragraph, "")]
    expected += [rule, *code, rule, "", *(f" • {item}" for item in items)]
    assert chat.lines == expected


async def test_a_screen_that_is_made_narrower_keeps_every_word_once(env, emulator):
    words = [f"word{number}" for number in range(30)]
    emulator.answer = lambda _: [f"{word} " for word in words]
    emulator.script(faults.Stall(after_chunks=20), path=CHAT)
    env = {**env, "TERM": "linux"}  # it does not wrap anew, as pyte does not
    async with shown("chat", "hi", env=env, width=60, height=20) as chat:
        await chat.see("word18")
        chat.resize(30)
        chat.type("\x03")
        assert await chat.finish() == 130
    assert chat.text.split() == words[:19]
    assert max(map(len, chat.lines)) < 30


async def test_without_colours_there_are_none(env, emulator):
    emulator.answer = lambda _: ANSWER
    async with shown("chat", "hi", env={**env, "NO_COLOR": "1"}, width=40) as chat:
        assert await chat.finish() == 0
    rows = [chat.screen.buffer[y] for y in range(chat.screen.lines)]
    assert {row[x].fg for row in rows for x in range(40)} == {"default"}
    assert all(cell.bold for cell in chat.cells("bold"))


@pytest.mark.parametrize(
    ("option", "kind"), [([], "dumb"), (["--plain"], "xterm-256color")], ids=["dumb", "plain"]
)
async def test_plain_text_for_a_simple_terminal(option, kind, env, emulator):
    emulator.answer = lambda _: ANSWER
    async with terminal("chat", "hi", *option, env={**env, "TERM": kind}) as chat:
        assert await chat.finish() == 0
    assert chat.seen.replace("\r", "") == ANSWER


async def test_reasoning_is_dimmed_on_a_terminal_and_left_out_of_a_pipe(env, emulator):
    emulator.answer = lambda _: {"content": "It is **42**.", "reasoning_content": "Let me see."}
    async with shown("chat", "hi", env=env) as chat:
        assert await chat.finish() == 0
    assert chat.lines == ["Let me see.", "", "It is 42."]
    assert "\x1b[2mLet me see." in chat.seen
    assert (await run("chat", "hi", env=env)).out == "It is **42**.\n"


async def test_control_characters_are_cleaned(env, emulator):
    emulator.answer = lambda _: "a\x1b[2J`b\x9b1m`\n```\n\x1b]0;title\x07\n```\n&#27;c \x07"
    async with shown("chat", "hi", env=env, width=30) as chat:
        assert await chat.finish() == 0
    assert chat.lines == ["a�[2Jb�1m", "", "─" * 29, "�]0;title�", "─" * 29, "", "�c �"]
    assert chat.screen.title == ""


async def test_a_stream_that_breaks_keeps_what_came_and_the_screen_in_order(env, emulator):
    emulator.always(faults.Cut(after_chunks=2))
    async with shown("chat", "hi", env=env) as chat:
        assert await chat.finish() == 1
    assert re.fullmatch(r"One\b.*", chat.lines[0])
    assert chat.lines[1].startswith("konko-async: ")
    assert not chat.screen.cursor.hidden


async def test_ctrl_c_leaves_the_screen_in_order(env, emulator):
    emulator.script(faults.Stall(after_chunks=2))
    async with shown("chat", "hi", env=env) as chat:
        await chat.see("One")
        chat.type("\x03")
        assert await chat.finish() == 130
        assert termios.tcgetattr(chat._master)[3] & termios.ECHO
    assert chat.lines[0] == "One"
    assert not chat.screen.cursor.hidden


async def test_sigterm_leaves_the_screen_in_order(env, emulator):
    emulator.script(faults.Stall(after_chunks=2))
    async with shown("chat", "hi", env=env) as chat:
        await chat.see("One")
        chat.process.terminate()
        assert await chat.finish() == 143
    assert not chat.screen.cursor.hidden


async def test_keys_pressed_during_an_answer_are_kept_for_the_prompt(env, emulator):
    emulator.script(faults.Stall(after_chunks=2, seconds=0.4), path=CHAT)
    async with shown("chat", env=env) as chat:
        await chat.see(f"{CHAT_MODEL}>")
        chat.type("first\r")
        await chat.see("One")
        chat.type("second\r")
        await chat.see(lambda: chat.text.count("One two three.") == 2)
        await chat.see(lambda: chat.text.count(f"{CHAT_MODEL}>") == 3)
    said = [request.body["messages"][-1]["content"] for request in chats(emulator)]
    assert said == ["first", "second"]
    assert chat.text.count("second") == 1


async def test_figures_of_one_answer(env, emulator):
    result = await run("chat", "hi there", "--stats", env=env)
    assert (result.code, result.out) == (0, "One two three.\n")
    assert re.fullmatch(
        r"konko-async: first token [\d.]+ m?s, [\d.,]+ tokens/s, 5 \+ 4 tokens, \$0\.00000270\n",
        result.err,
    )
    as_json = await run("chat", "hi there", "--stats", "--json", env=env)
    assert "5 + 4 tokens" in as_json.err
    assert as_json.out.count("\n") == 1


async def test_figures_from_a_server_that_refuses_to_count(env, emulator):
    refused = faults.Status(400, message="Unknown parameter: stream_options")
    emulator.always(refused, path=CHAT, when=lambda record: "stream_options" in record.body)
    emulator.always(faults.Status(404), path="/models")
    result = await run("chat", "hi", "--stats", env=env)
    assert (result.code, result.out) == (0, "One two three.\n")
    assert "~4 tokens" in result.err
    assert "$" not in result.err
