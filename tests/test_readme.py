"""Every command and snippet of the README and the documentation does what it says."""

import ast
import asyncio
import contextlib
import importlib
import os
import re
import shlex
import signal
import sys
import tomllib
from pathlib import Path

import aiohttp
import pytest
from ports import free_port

from konko_async.testing import Emulator

sys.path.insert(0, str(Path(__file__).parent / "cli"))
from cli_kit import KEY, command, environment, join_waiters, run, terminal
from command_server import COMMAND, PROGRAM

ROOT = Path(__file__).parents[1]
PAGES = [
    "README.md",
    "docs/index.md",
    *(f"docs/tutorial/{name}.md" for name in ("index", "first-answer", "batch", "chat-page")),
    *(
        f"docs/how-to/{name}.md"
        for name in [
            *(
                "blocking",
                "cli",
                "connections",
                "deploy",
                "frameworks",
                "observability",
                "redis-streams",
                "servers",
            ),
            *("structured", "testing-web-apps"),
        ]
    ),
    "docs/reference/errors.md",
    "docs/reference/openai.md",
]
# The other pages have pieces of programs: what serves is run, all is compiled and its names looked up.
SKETCHED = sorted({str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md")} - set(PAGES))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language, pages=PAGES):
    for page in pages:
        for number, (kind, text) in enumerate(BLOCK.findall((ROOT / page).read_text())):
            if kind == language:
                local = "LocalServer" in text or "--local" in text
                marks = [pytest.mark.local_model] if local else []
                yield pytest.param(text, id=f"{page}-{number}", marks=marks)


def lines():
    for block in blocks("sh"):
        if "\nexport " in block.values[0]:
            continue  # a session: its lines are run together
        for line in block.values[0].splitlines():
            marks = [pytest.mark.local_model] if "--local" in line else []
            yield pytest.param(line, id=line, marks=marks)


@pytest.fixture
async def env(tmp_path):
    async with Emulator(api_keys=[KEY]) as emulator:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        home = os.environ.get("HOME", str(tmp_path))  # where the local model's weights are cached
        yield environment(emulator, tmp_path, PATH=path, HOME=home)
    join_waiters()


def skip_without_local_model(text):
    if "LocalServer" in text or "--local" in text:
        pytest.importorskip("xllamacpp")


def serves(text):
    return ("run_app(" in text or "FastAPI(" in text) and "def test_" not in text


def served_blocks():
    found = blocks("python", PAGES + SKETCHED)
    return [block for block in found if serves(block.values[0])]


@contextlib.asynccontextmanager
async def serving(text, env, folder):
    """Run a snippet's application in a process; yields that and a session for it."""
    port = free_port()
    file = folder / "snippet.py"
    text = re.sub(r"run_app\(app.*\)", f'run_app(app, host="127.0.0.1", port={port})', text)
    file.write_text(text)
    how = (*PROGRAM, "-W", "error", str(file))
    if "FastAPI(" in text:
        where = ("--app-dir", str(folder), "--port", str(port))
        how = (*PROGRAM, "-W", "error", "-m", "uvicorn", "snippet:app", *where)
    env = {**env, "PYTHONUNBUFFERED": "1"}
    joined = {"executable": how, "stderr": asyncio.subprocess.STDOUT}  # where uvicorn tells
    async with command(env=env, **joined) as server:
        await server.wait_for("unning on http")
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as browser:
            yield server, browser


@pytest.mark.parametrize("text", served_blocks())
async def test_a_snippet_that_serves_streams_and_ends_well(text, env, tmp_path):
    path, body = "/chat", {"question": "What is an event loop?"}
    if "RelayService" in text:
        messages = [{"role": "user", "content": "What is an event loop?"}]
        model = "codellama/codellama-13b-instruct"
        path, body = "/v1/chat/completions", {"messages": messages, "model": model, "stream": True}
    async with serving(text, env, tmp_path) as (server, browser):
        async with browser.post(path, json=body) as response:
            said = await response.text()
            assert (response.status, response.content_type) == (200, "text/event-stream"), said
            assert said.endswith("data: [DONE]\n\n")
        server.signal(signal.SIGTERM)
        ended = await server.finish()
    assert ended.code in {0, -signal.SIGTERM}, ended
    assert "Traceback" not in ended.out
    assert KEY not in ended.out


@pytest.mark.parametrize("text", list(blocks("python", SKETCHED)))
def test_a_sketch_compiles_and_its_names_exist(text):
    tree = compile(text, "sketch", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("konko_async"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


@pytest.mark.parametrize(
    "text", [block for block in blocks("python") if not serves(block.values[0])]
)
async def test_a_python_snippet_runs(text, env, tmp_path):
    skip_without_local_model(text)
    file = tmp_path / "test_snippet.py"
    file.write_text(text)
    if "def test_" in text:
        # Its own warnings and plugins: not those that this run of pytest was started with, nor those
        # that have nothing to do with it and import for a second.
        others = ("cacheprovider", "langsmith_plugin", "hypothesispytest", "xdist", "pytest_cov")
        how = ("-m", "pytest", "-q", *(f"-pno:{name}" for name in others), str(file))
        result = await run(env=env, executable=(sys.executable, *how))
        assert " passed" in result.out, result
    else:
        result = await run(env=env, executable=(*PROGRAM, str(file)))
        assert result.out.strip()
        assert result.err == ""
        assert "broke off" not in result.out
        assert "Error" not in result.out
    assert result.code == 0
    assert KEY not in result.out


@pytest.mark.parametrize("line", list(lines()))
async def test_a_command_runs(line, env):
    skip_without_local_model(line)
    if line.startswith("make "):
        await check_target(line, env)
    elif line.startswith("pip install "):
        check_extras(line)
    elif line == "konko-async serve --local":
        pytest.skip("tests/cli/test_cli_serve.py runs it, and uses what it serves")
    elif line.startswith("konko-async view"):
        pytest.skip("tests/web/test_viewer.py runs it, and looks at what it serves")
    elif line.startswith("konko-async serve"):
        await check_server(line, env)
    elif line.startswith("konko-async relay"):
        await check_relay(line, env)
    elif line.startswith("konko-async chat") and '"' not in line:
        await check_conversation(line, env)
    else:
        if "--local" in line:
            env["KONKO_MODEL"] = "of/another-server"
        how = () if needs_no_shell(line) else ("bash", "-euo", "pipefail", "-c", line)
        words = () if how else shlex.split(line)[1:]
        result = await run(*words, env=env, executable=how or COMMAND)
        if "konko-async batch" in line or "konko-async summarize" in line:
            assert (result.code, " 0 failed" in result.err) == (0, True), result.err
        else:
            said = LATE.sub("", result.err.replace(CUT, ""))
            assert (result.code, said) == (0, "")
        assert result.out.strip()


def needs_no_shell(line):
    unquoted = re.sub(r"""'[^']*'|"[^"$`\\]*\"""", "", line)
    return line.startswith("konko-async ") and not re.search(r"""[|&;<>$`"'*?~#\\(]""", unquoted)


def sessions():
    return [block for block in blocks("sh") if "\nexport " in block.values[0]]


@pytest.mark.parametrize("text", sessions())
async def test_a_session_runs(text, env, tmp_path):
    script = f"cd {tmp_path}\n{text}"
    result = await run(env=env, executable=("bash", "-euo", "pipefail", "-c", script))
    assert result.code == 0, result.err
    assert result.out.strip()
    assert " 0 failed" in result.err


# A loaded machine cannot keep a rate of requests, and `bench` says so.
LATE = re.compile("konko-async: .*: requests left late: this client reached .*\n")
CUT = "konko-async: the answer was cut at the limit of tokens (--max-tokens)\n"


async def check_target(line, env):
    """Not run: this test is a part of `make test`, and tests/test_demo.py runs the demo."""
    make = ("make", "-C", str(ROOT), "-n", *line.split()[1:])
    result = await run(env=env, executable=make)
    assert result.code == 0, result.err
    recipe = {"demo": "examples/demo.py", "test": "pytest"}[line.split()[1]]
    assert recipe in result.out


def check_extras(line):
    """Not run: tests/test_packaging.py installs the package into an empty environment."""
    named = re.search(r"\[(.*)\]", line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = named[1].split(",") if named else []
    assert set(extras) <= set(project["optional-dependencies"])


async def check_server(line, env):
    async with command(*line.split()[1:], env=env) as server:
        assert "export KONKO_BASE_URL=" in await server.wait_for("Ctrl-C stops it.")
        server.signal(signal.SIGTERM)
        assert (await server.finish()).code == 0


async def check_relay(line, env):
    async with command(*line.split()[1:], env=env) as relay:
        address = re.search(r"http://\S+", await relay.wait_for("Ctrl-C stops it."))[0]
        async with aiohttp.ClientSession() as browser, browser.get(address) as page:
            assert "<title>Konko</title>" in await page.text()
        relay.signal(signal.SIGTERM)
        assert (await relay.finish()).code == 0


async def check_conversation(line, env):
    async with terminal(*line.split()[1:], env=env) as chat:
        await chat.wait_for(">")
        chat.type("\x04")
        assert await chat.finish() == 0


def test_every_block_is_run_and_every_link_leads_somewhere():
    for page in PAGES + SKETCHED:
        text = (ROOT / page).read_text()
        if page in PAGES:
            assert {kind for kind, _ in BLOCK.findall(text)} <= {"python", "sh", "text", "toml"}
            assert text.count("```") == 2 * len(BLOCK.findall(text))
        prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
            made = link == "cli.md" or "api/" in link or page.startswith("docs/project")
            if not link.startswith("http") and not made:  # those: by the site, see test_site.py
                assert (ROOT / page).parent.joinpath(link).exists(), link


async def test_make_help_names_the_targets(env):
    result = await run(env=env, executable=("make", "-C", str(ROOT), "help"))
    for target in ("demo", "test", "test-all", "lint", "types", "build"):
        assert f"make {target} " in result.out


async def test_the_build_machine_runs_make_test():
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    commands = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert commands[-1] == "exec make test CI=1"
    assert len(commands) == 3


async def test_a_python_that_does_not_fit_is_refused_with_a_clear_message(env):
    find = ("sh", str(ROOT / "scripts" / "find-python"))
    fit, unfit, named = await asyncio.gather(
        run(env=env, executable=find),
        run("9.9", env=env, executable=find),
        run(env={**env, "PYTHON": "/nowhere/python"}, executable=find),
    )
    assert (fit.code, fit.err) == (0, "")
    assert Path(fit.out.strip()).exists()
    assert (unfit.code, unfit.out) == (1, "")
    assert "no Python 9.9" in unfit.err
    assert named.code == 1
    assert "PYTHON=/nowhere/python" in named.err
