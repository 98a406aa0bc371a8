"""Conversations that are kept: continued, listed, searched, exported, deleted, and for nobody else."""

import io
import json
import sqlite3
import stat
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_kit import CHAT_MODEL, emulator_in_a_thread

from konko_async.cli._program import execute
from konko_async.cli.chat.conversation import Conversation
from konko_async.cli.log.store import ConversationStore, LogError
from konko_async.testing import faults


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("data", "config", "state"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    for name in ("KONKO_LOG", "KONKO_MODEL", "NO_COLOR", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def emulator():
    with emulator_in_a_thread() as running:
        yield running


@pytest.fixture
def cli(home, emulator, monkeypatch, capsys):
    """The command line in this process; returns the exit code and what was written."""
    monkeypatch.setenv("KONKO_BASE_URL", emulator.base_url)
    monkeypatch.setenv("KONKO_API_KEY", "any-key-will-do")
    monkeypatch.setenv("KONKO_MODEL", CHAT_MODEL)

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        code = execute(arguments)
        out, err = capsys.readouterr()
        return SimpleNamespace(code=code, out=out, err=err)

    run.emulator = emulator
    run.home = home
    run.config = home / "config" / "konko_async" / "config.toml"
    run.store = home / "data" / "konko_async" / "conversations.db"
    return run


def asked(cli, place=-1):
    bodies = [r.body for r in cli.emulator.requests if r.path.endswith("/chat/completions")]
    return bodies[place]


def configure(cli, text):
    cli.config.parent.mkdir(parents=True, exist_ok=True)
    cli.config.write_text(text)


# -- the prompt ----------------------------------------------------------------------------------


def test_piped_text_follows_the_prompt(cli):
    assert cli("chat", "Summarise:", stdin="Überlänge\n".encode()).code == 0
    assert asked(cli)["messages"] == [{"role": "user", "content": "Summarise:\n\nÜberlänge\n"}]
    cli("chat", "Why?", stdin=b" \n")
    assert asked(cli)["messages"][-1]["content"] == "Why?"


def test_a_model_that_local_does_not_have_is_refused_before_anything_starts(cli):
    for arguments in (["chat", "-m", "gpt-4", "hi"], ["chat", "hi", "--compare", "a", "b"]):
        result = cli(*arguments, "--local")
        assert result.code == 2
        assert "--local serves gemma-3-270m and no " in result.err


# -- the log -------------------------------------------------------------------------------------


def test_a_conversation_is_continued_with_its_model_and_its_words(cli):
    first = cli("chat", "first", "-m", "meta-llama/llama-2-13b-chat", "-s", "Be brief.", "-t", "0")
    assert cli("chat", "-c", "second").code == 0
    body = asked(cli)
    assert body["model"] == "meta-llama/llama-2-13b-chat"
    assert body["temperature"] == 0
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][2]["content"] == first.out.rstrip("\n")
    rows = cli("log", "list", "--json").out.splitlines()
    assert len(rows) == 1
    row = json.loads(rows[0])
    assert (row["title"], row["messages"]) == ("first", 4)
    shown = cli("log", "show", row["id"][:5]).out
    assert "## You\n\nsecond" in shown
    assert "## System\n\nBe brief." in shown
    cli("chat", "third", "--conversation", row["id"][:5], "-m", CHAT_MODEL)
    assert asked(cli)["model"] == CHAT_MODEL
    assert len(asked(cli)["messages"]) == 6


def test_the_file_is_for_nobody_else(cli):
    cli("chat", "secret")
    assert stat.S_IMODE(cli.store.stat().st_mode) == 0o600
    assert stat.S_IMODE(cli.store.parent.stat().st_mode) == 0o700


def test_nothing_is_kept_that_is_not_to_be(cli, monkeypatch):
    cli("chat", "one", "--no-log")
    monkeypatch.setenv("KONKO_LOG", "0")
    cli("chat", "two")
    monkeypatch.delenv("KONKO_LOG")
    assert "not kept from now on" in cli("log", "off").err
    cli("chat", "three")
    assert not cli.store.exists()
    assert "not kept" in cli("log", "status").out
    cli("chat", "four", "--log")
    assert cli.store.exists()
    cli("log", "on")
    cli("chat", "five")
    assert "2 conversations" in cli("log", "status").out


def test_an_answer_that_breaks_off_is_kept_and_none_is_not(cli):
    cli.emulator.script(faults.Cut(after_chunks=3), path="/chat/completions")
    assert cli("chat", "half", "--timeout", "20").code == 1
    cli.emulator.script(faults.Status(400), path="/chat/completions")
    assert cli("chat", "none").code == 1
    rows = cli("log", "list", "--json").out.splitlines()
    assert [json.loads(row)["title"] for row in rows] == ["half"]


def test_each_model_of_a_comparison_is_kept_and_the_first_is_continued(cli):
    models = [CHAT_MODEL, "meta-llama/llama-2-13b-chat"]
    assert cli("chat", "why so", "--compare", *models).code == 0
    rows = [json.loads(row) for row in cli("log", "list", "--json").out.splitlines()]
    assert [row["model"] for row in rows] == models
    cli("chat", "-c", "and so?")
    assert asked(cli)["model"] == models[0]


def test_search_export_and_delete(cli, tmp_path):
    for question in ("About Grüße", "About rivers", "100% sure_"):
        cli("chat", question)
    found = cli("log", "search", "GRÜSSE")
    assert (found.code, found.out.count("\n")) == (0, 1)
    assert "About Grüße" in found.out
    assert cli("log", "search", "0% s").out.count("\n") == 1
    assert cli("log", "search", "%").out.count("\n") == 1
    assert cli("log", "search", "nowhere").code == 1
    folder = tmp_path / "out"
    exported = cli("log", "export", "--all", "-o", str(folder), "--format", "json")
    assert len(exported.out.splitlines()) == 3
    again = cli("log", "export", "--all", "-o", str(folder), "--format", "json")
    assert (again.code, "nothing is overwritten" in again.err) == (2, True)
    assert all(json.loads(path.read_text())["messages"] for path in folder.iterdir())
    assert cli("log", "export", "-o", str(folder)).out.endswith(".md\n")
    name = found.out.split("\t")[0]
    assert "1 conversation deleted" in cli("log", "delete", name).err
    assert "Gr\\u00fc" not in cli.store.read_bytes().decode("latin-1")
    assert "Grüße".encode() not in cli.store.read_bytes()
    assert cli("log", "delete", name).code == 2
    assert "confirm it" in cli("log", "delete", "--all").err
    assert "0 conversations" in cli("log", "delete", "--older-than", "1", "-y").err
    assert "2 conversations" in cli("log", "delete", "--all", "-y").err
    assert cli("log", "search", "about").code == 1


def test_nothing_to_continue_is_said(cli):
    result = cli("chat", "-c", "and?")
    assert (result.code, "no conversation is kept yet" in result.err) == (2, True)
    cli("chat", "hi")
    for wrong in ("zz", "%", ""):
        result = cli("chat", "--conversation", wrong, "and?")
        assert (result.code, "there is no conversation" in result.err) == (2, True)
    assert len(cli.emulator.requests) == 1


def test_a_store_that_fails_fails_no_answer(cli):
    cli.store.parent.mkdir(parents=True)
    cli.store.write_text("this is no database, and long enough to be taken for a broken one" * 20)
    result = cli("chat", "hi")
    assert (result.code, result.err.count("\n")) == (0, 1)
    assert "is not kept" in result.err
    assert cli("log").code == 2


def conversation(*said):
    made = Conversation("sys", {"stop": ["x"]})
    for question, answer in zip(said[::2], said[1::2], strict=True):
        made.ask(question)
        made.answered(answer)
    return made


def test_two_that_continue_one_conversation_lose_nothing(tmp_path):
    store = ConversationStore(tmp_path / "a.db")
    store.keep(conversation("q", "a"), "m")
    one, _ = store.read()
    other, _ = store.read()
    for which in (one, other):
        which.ask("more")
        which.answered("yes")
        store.keep(which, "m")
    one.ask("and")
    one.answered("so on")
    store.keep(one, "m")
    assert sorted(row.messages for row in store.rows()) == [4, 6]
    assert one.kept.id != other.kept.id


def test_the_parts_of_a_message_and_odd_text_come_back(tmp_path):
    store = ConversationStore(tmp_path / "a.db")
    parts = [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "data:,"}},
    ]
    said = conversation(parts, "a\x00b\u2028 'quoted' \U0001f600")
    store.keep(said, "m/x")
    again, model = store.read(said.kept.id)
    assert (again.messages, again.parameters, model) == (said.messages, said.parameters, "m/x")
    assert store.rows()[0].title == "what? [image]"


def test_a_store_of_a_newer_version_is_left_alone(tmp_path):
    path = tmp_path / "a.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(LogError, match="newer"):
        ConversationStore(path).keep(conversation("q", "a"), "m")


# -- the configuration ---------------------------------------------------------------------------


def test_aliases_templates_and_a_default_model(cli, monkeypatch):
    monkeypatch.delenv("KONKO_MODEL")
    configure(
        cli,
        """
        model = "llama"
        [aliases]
        llama = "meta-llama/llama-2-13b-chat"
        code = "codellama/codellama-13b-instruct"
        [templates.brief]
        system = "One sentence."
        prompt = "Explain {input} to {reader}, as {{json}}."
        max_tokens = 9
        model = "code"
        """,
    )
    cli("chat", "hi")
    assert asked(cli)["model"] == "meta-llama/llama-2-13b-chat"
    cli("chat", "-m", "code", "hi")
    assert asked(cli)["model"] == CHAT_MODEL
    cli("chat", "--compare", "code", "llama", "--", "hi")
    assert {asked(cli)["model"], asked(cli, -2)["model"]} == {
        CHAT_MODEL,
        "meta-llama/llama-2-13b-chat",
    }
    assert cli("chat", "--template", "brief", "-p", "reader=me", stdin=b"tides").code == 0
    body = asked(cli)
    assert body["messages"][1]["content"] == "Explain tides to me, as {json}."
    assert (body["max_tokens"], body["model"]) == (9, CHAT_MODEL)
    shown = cli("config").out
    assert "alias llama = meta-llama/llama-2-13b-chat" in shown
    assert "template brief:" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--template", "nothing"], "there is no template 'nothing'"),
        (["--template", "brief", "hi"], "needs --param reader=TEXT"),
        (["--template", "brief", "hi", "-p", "reader=a", "-p", "x=b"], "has no {x}"),
        (["--template", "brief", "-p", "reader=a"], "needs a prompt"),
        (["-p", "a=b", "hi"], "--param is for a --template"),
        (["--template", "brief", "hi", "-p", "reader"], "write NAME=TEXT"),
    ],
)
def test_templates_that_cannot_be_used_are_refused(cli, arguments, said):
    configure(cli, '[templates.brief]\nprompt = "{input} {reader}"\n')
    result = cli("chat", *arguments)
    assert (result.code, said in result.err) == (2, True), result.err


@pytest.mark.parametrize(
    "text", ["model = 5", "modell = 'a'", "[templates.a]\nprmpt = 'x'", "= 5", "[aliases]\na = 1"]
)
def test_a_mistake_in_the_configuration_names_the_file(cli, text):
    configure(cli, text)
    result = cli("chat", "hi")
    assert (result.code, str(cli.config) in result.err) == (2, True)
    assert not cli.emulator.requests


def test_the_switch_of_the_log_leaves_the_rest_of_the_file_alone(cli):
    text = '# mine\nmodel = "a"  # dear\n\n[aliases]\nlog = "a-model"\n'
    configure(cli, text)
    cli("log", "off")
    assert cli.config.read_text() == "log = false\n" + text
    cli("log", "on")
    assert cli.config.read_text() == "log = true\n" + text


def test_the_example_is_understood_and_never_overwritten(cli):
    assert cli("config", "init").code == 0
    assert cli("config").code == 0
    assert cli("config", "init").code == 2
    assert cli("config", "path").out.strip() == str(cli.config)


# -- schemas, completion -------------------------------------------------------------------------


def test_an_answer_to_a_schema_is_looked_at(cli, tmp_path):
    path = tmp_path / "person.json"
    path.write_text('{"title": "A person", "type": "object", "required": ["name"]}')
    cli.emulator.answer = lambda _: '{"name": "Ada"}'
    result = cli("chat", "Who?", "--schema", str(path))
    assert (result.code, json.loads(result.out)) == (0, {"name": "Ada"})
    sent = asked(cli)["response_format"]["json_schema"]
    assert (sent["name"], sent["schema"]["required"]) == ("A_person", ["name"])
    for answer, said in (("Ada.", "not JSON"), ("[]", "no JSON object"), ("{}", "lacks name")):
        cli.emulator.answer = lambda _, answer=answer: answer
        result = cli("chat", "Who?", "--schema", str(path))
        assert (result.code, said in result.err) == (1, True), result.err
    path.write_text("[]")
    assert "is no JSON Schema" in cli("chat", "Who?", "--schema", str(path)).err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_where_the_shell_looks(cli, shell, monkeypatch):
    monkeypatch.setenv("HOME", str(cli.home))
    monkeypatch.setenv("SHELL", f"/usr/bin/{shell}")
    result = cli("completion", "--install")
    assert result.code == 0
    path = result.err.removeprefix("konko-async: written: ").partition(";")[0]
    text = cli("completion", shell).out
    assert Path(path).read_text() == text
    assert f"_KONKO_ASYNC_COMPLETE={shell}_complete" in text


@pytest.mark.parametrize(
    ("words", "wanted"), [("log sea", "search"), ("chat --conti", "--continue")]
)
def test_completion_completes(cli, monkeypatch, capsys, words, wanted):
    monkeypatch.setenv("_KONKO_ASYNC_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"konko-async {words}")
    monkeypatch.setenv("COMP_CWORD", "2")
    with pytest.raises(SystemExit):
        cli()
    assert wanted in capsys.readouterr().out
