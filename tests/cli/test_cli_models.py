"""`konko-async models`: a table for people, lines for pipes, JSON for programs."""

import json

import pytest
from cli_kit import CHAT_MODEL, KEY, environment, run, terminal

from konko_async.testing import Emulator


async def test_a_pipe_gets_tab_separated_lines(env, emulator):
    result = await run("models", env=env)
    assert (result.code, result.err) == (0, "")
    header, *rows = (line.split("\t") for line in result.out.splitlines())
    assert [row[0] for row in rows] == list(emulator.models)
    assert {len(row) for row in rows} == {len(header)}
    first = dict(zip(header, rows[0], strict=True))
    assert first["id"] == CHAT_MODEL
    assert (first["chat"], first["text"], first["context"]) == ("yes", "no", "8192")
    assert first["public price"] == "$0.0003 / 1k tokens"
    assert first["private price"] == "$2 / hour"
    assert (first["creator"], first["category"]) == ("Meta", "Coding: Generalist")
    assert first["licence"] == "Llama 2 Community License"


@pytest.mark.parametrize("kind", ["chat", "text"])
async def test_only_models_of_a_kind(kind, env, emulator):
    result = await run("models", f"--{kind}", "--json", env=env)
    listed = [model["id"] for model in json.loads(result.out)["data"]]
    assert listed == [name for name, model in emulator.models.items() if model[f"is_{kind}"]]


async def test_json_has_every_field_as_it_was_sent(env, emulator):
    emulator.models[CHAT_MODEL]["something_new"] = {"ünïcode": [1, 2]}
    result = await run("models", "--json", env=env)
    assert json.loads(result.out) == {"object": "list", "data": list(emulator.models.values())}
    assert "ünïcode" in result.out


async def test_a_server_that_tells_only_ids(env):
    async with Emulator(models=["tiny"], api_keys=[KEY]) as bare:
        result = await run("models", "--chat", env={**env, "KONKO_BASE_URL": bare.base_url})
        async with terminal("models", env={**env, "KONKO_BASE_URL": bare.base_url}) as shown:
            assert await shown.finish() == 0
    assert result.out.splitlines()[1].split("\t")[:2] == ["tiny", ""]
    assert "owner" in shown.seen
    assert "public price" not in shown.seen, "a column without values is left out"
    assert "too narrow" not in shown.seen


@pytest.mark.parametrize("width", [40, 80, 120, 240])
async def test_a_terminal_gets_a_table_that_fits(width, env, emulator):
    async with terminal("models", env=env, width=width) as shown:
        assert await shown.finish() == 0
    lines = shown._plain().splitlines()
    table = [line for line in lines if line[:1] in "┏┃┡│└"]
    assert table
    assert max(map(len, table)) <= width
    assert ("not shown:" in shown.seen) is (width < 240)
    text = "".join(line.split("│")[1].strip() for line in table if line.startswith("│"))
    assert all(name in text for name in emulator.models), "an id may be folded, never cut"


async def test_wide_shows_all_columns_on_a_narrow_terminal(env):
    async with terminal("models", "--wide", env=env, width=60) as shown:
        assert await shown.finish() == 0
    assert "censorship" in shown.seen
    assert "too narrow" not in shown.seen


async def test_what_a_server_sends_cannot_steer_the_terminal_or_break_the_columns(env, emulator):
    emulator.models[CHAT_MODEL]["creator"] = "[red]evil[/red]\x1b]0;owned\x07\tMeta\nx"
    piped = await run("models", env=env)
    async with terminal("models", env=env, width=240) as shown:
        assert await shown.finish() == 0
    assert "]0;owned" in shown.seen
    assert "\x1b]" not in shown.seen + piped.out
    assert "[red]evil[/red]" in shown.seen
    assert len({line.count("\t") for line in piped.out.splitlines()}) == 1


@pytest.mark.local_model
async def test_local_lists_the_local_model():
    pytest.importorskip("xllamacpp")
    result = await run("models", "--local", env=environment())
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) == 2
