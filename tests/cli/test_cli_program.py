"""What all commands share: help, exit codes, errors on one line, keys in no output."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from cli_kit import CHAT_MODEL, KEY, environment, run

from konko_async import AsyncKonko, ConfigurationError, __version__
from konko_async.cli._number_format import duration
from konko_async.cli._output import error_line
from konko_async.testing import faults

COMMANDS = ["models", "chat", "bench", "serve"]
HEAVY = ["aiohttp", "rich", "prompt_toolkit", "uvloop", "msgspec", "tenacity"]


@pytest.mark.parametrize("arguments", [[], ["chat"]])
async def test_help_loads_nothing_heavy(arguments):
    script = (
        "import sys, json\n"
        "from konko_async.cli import main\n"
        f"sys.argv = ['konko-async', *{arguments!r}, '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    result = await run(executable=(sys.executable, "-c", script), env=environment())
    assert result.out.startswith("Usage: konko-async")
    loaded = json.loads(result.err)
    assert "click" in loaded
    assert not [name for name in HEAVY if name in loaded]


async def test_the_help_names_every_command_the_variables_and_the_exit_codes():
    result = await run("--help", env=environment())
    assert result.code == 0
    assert all(f"  {name}" in result.out for name in COMMANDS)
    assert "KONKO_API_KEY" in result.out
    assert "130" in result.out


async def test_no_option_takes_a_key():
    helps = [run(name, "--help", env=environment()) for name in COMMANDS]
    for result in await asyncio.gather(*helps):
        options = result.out.partition("Options:")[2]
        assert "--debug" in options
        assert "--key" not in options
        assert "--api-key" not in options


async def test_the_installed_script_tells_its_version():
    script = Path(sys.executable).with_name("konko-async")
    result = await run("--version", env=environment(), executable=(str(script),))
    assert (result.code, result.out, result.err) == (0, f"konko-async {__version__}\n", "")


async def test_without_click_one_line_says_what_to_install():
    script = (
        "import sys\n"
        "sys.modules['click'] = None\n"
        "import runpy\n"
        "runpy.run_module('konko_async', run_name='__main__')\n"
    )
    result = await run(executable=(sys.executable, "-c", script), env=environment())
    assert result.code == 2
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert "pip install 'konko-async[cli]'" in result.err


WRONG = [
    ["nonsense"],
    ["chat", "--nonsense"],
    ["chat", "--temperature", "3", "hello"],
    ["chat", "--max-tokens", "0", "hello"],
    ["chat", " "],
    ["models", "--timeout", "0"],
    ["models", "--local", "--base-url", "https://api.konko.ai/v1"],
]


async def test_wrong_usage_is_exit_code_2(env, emulator):
    for result in await asyncio.gather(*(run(*arguments, env=env) for arguments in WRONG)):
        assert result.code == 2
        assert "Error: " in result.err
        assert "Traceback" not in result.err
    assert not emulator.requests


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ({}, "no API key: set the environment variable KONKO_API_KEY"),
        (
            {"base_url": "https://me@host/v1"},
            "; set the environment variable KONKO_API_KEY instead",
        ),
        ({"api_key": "k", "base_url": "http://host.example/v1"}, "or give --allow-http if"),
    ],
)
def test_nobody_at_a_shell_is_told_to_write_python(options, meant, monkeypatch):
    for name in ("KONKO_API_KEY", "KONKO_BASE_URL", "KONKO_API_BASE", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError) as caught:
        AsyncKonko(**options)
    line = error_line(caught.value)
    assert meant in line
    assert "api_key=" not in line
    assert "=True" not in line


async def test_a_missing_key_is_exit_code_2_and_says_how_to_set_it(env):
    del env["KONKO_API_KEY"]
    result = await run("models", env=env)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "KONKO_API_KEY" in result.err


async def test_plain_http_to_another_machine_is_refused_unless_allowed(env):
    result = await run("models", "--base-url", "http://192.0.2.1/v1", env=env)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "plain http" in result.err


async def test_a_password_in_the_base_url_is_not_echoed(env):
    result = await run("models", "--base-url", f"http://u:{KEY}@127.0.0.1/v1", env=env)
    assert result.code == 2
    assert KEY not in result.out + result.err


FAILURES = {
    "echoed key": faults.Status(401, message=f"Incorrect API key provided: {KEY}."),
    "html": faults.Status(400, "<html><h1>Bad</h1>\n<p>gateway</p></html>"),
    "escapes": faults.Status(400, message="bad\x1b]0;owned\x07\x1b[2J\r\nrequest"),
    "empty": faults.Status(403, b""),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_an_error_of_the_server_is_one_line_without_keys(name, env, emulator):
    emulator.always(FAILURES[name])
    short, long = await asyncio.gather(run("models", env=env), run("models", "--debug", env=env))
    assert short.err.startswith("konko-async: ")
    assert short.err.count("\n") == 1
    assert "Traceback" in long.err
    assert long.err.endswith(short.err)
    for result in (short, long):
        assert (result.code, result.out) == (1, "")
        assert KEY not in result.err
        assert "\x1b" not in result.err


async def test_attempts_are_counted_in_the_message(env, emulator):
    emulator.always(faults.Status(503, retry_after_ms=1))
    result = await run("models", env=env)
    assert result.code == 1
    assert "(3 attempts)" in result.err
    assert emulator.received == 3


async def test_no_server_is_exit_code_1(env):
    env["KONKO_BASE_URL"] = "http://127.0.0.1:9/v1"
    result = await run("chat", "-m", CHAT_MODEL, "--timeout", "10", "hello", env=env)
    assert result.code == 1
    assert result.err.startswith("konko-async: cannot connect to 127.0.0.1")
    assert result.err.count("\n") == 1


async def test_the_same_without_uvloop(env):
    script = (
        "import sys\n"
        "sys.modules['uvloop'] = None\n"
        "from importlib import util\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'uvloop' else real(name, *rest)\n"
        "sys.argv = ['konko-async', 'models']\n"
        "from konko_async.cli import main\n"
        "main()\n"
    )
    result = await run(executable=(sys.executable, "-c", script), env=env)
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize(("seconds", "text"), [
    (0.0123, "12.3 ms"), (0.9994, "999 ms"), (0.9996, "1 s"), (1.5, "1.5 s"), (59.94, "59.9 s"),
    (59.96, "1 min"), (61, "1 min 01 s"), (3599.6, "1 h 00 min"), (90000, "1 d 01 h"),
])  # fmt: skip
def test_durations_are_rounded_into_the_next_unit(seconds, text):
    assert duration(seconds) == text
