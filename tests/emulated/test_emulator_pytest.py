"""The pytest fixture, in test runs of its own, as users have them."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from konko_async.testing import EmulatorInThread

ROOT = str(Path(__file__).parents[2])
TESTS = """
import aiohttp
import pytest

{mark}
async def test_one(konko_emulator):
    async with aiohttp.ClientSession() as http:
        headers = {{"Authorization": "Bearer " + konko_emulator.api_key}}
        async with http.get(konko_emulator.base_url + "/models", headers=headers) as response:
            assert response.status == 200
    assert len(konko_emulator.requests) == 1

{mark}
async def test_two(konko_emulator):
    assert not konko_emulator.requests
"""


def run(folder, *command, **environment):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": os.pathsep.join([str(folder), ROOT]), **environment},
        capture_output=True,
        text=True,
        timeout=110,  # a loaded machine takes long to start a process
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


# Without plugins that these runs do not need; langsmith's imports for most of a
# second, and warns on Python 3.14.
OTHERS = ("cacheprovider", "langsmith_plugin", "hypothesispytest", "xdist", "pytest_cov")
PYTEST = ("-W", "error", "-m", "pytest", "-q", *(f"-pno:{name}" for name in OTHERS))


@pytest.mark.parametrize(("mode", "mark"), [("auto", ""), ("strict", "@pytest.mark.asyncio")])
def test_the_fixture(tmp_path, mode, mark):
    (tmp_path / "test_users.py").write_text(TESTS.format(mark=mark))
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\nasyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n"
        "filterwarnings = error\n"
    )
    code, output = run(tmp_path, *PYTEST)
    assert code == 0, output
    assert "2 passed" in output


def test_the_fixture_without_pytest_asyncio(tmp_path):
    (tmp_path / "test_users.py").write_text(
        "async def test_one(konko_emulator):\n    pass\n"
        "def test_two(konko_emulator):\n    assert konko_emulator.base_url\n"
    )
    # As if it were not installed: it cannot be found.
    (tmp_path / "hidden.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *a: None if name == 'pytest_asyncio' else find(name, *a)\n"
    )
    plugins = ("-p", "no:asyncio", "-p", "hidden")
    code, output = run(tmp_path, *PYTEST, *plugins)
    assert code == 1, output
    assert "needs pytest-asyncio" in output
    assert "1 passed" in output  # which needs no event loop


SYNCHRONOUS = """
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from konko_async import AsyncKonko
from konko_async.relay.starlette_app import StreamResponse, lifespan

def application(emulator):
    client = AsyncKonko(emulator.api_key, emulator.base_url, retry=None)
    app = FastAPI(lifespan=lifespan(client, hold_signals=False))

    @app.post("/chat")
    async def chat(question: str):
        stream = client.chat.completions.stream(
            model="codellama/codellama-13b-instruct",
            messages=[{"role": "user", "content": question}],
        )
        return StreamResponse(stream)

    return app

def test_streams(konko_emulator):
    konko_emulator.answer = lambda body: "one two three"
    with TestClient(application(konko_emulator)) as browser:
        answer = browser.post("/chat", params={"question": "Count."})
    assert answer.text.endswith("data: [DONE]\\n\\n")
    assert " three" in answer.text
    konko_emulator.wait_until(lambda: not konko_emulator.in_flight)
    assert len(konko_emulator.requests) == 1

def test_new_for_each_test(konko_emulator):
    konko_emulator.outage = 503
    assert not konko_emulator.requests
    with TestClient(application(konko_emulator)) as browser:
        assert browser.post("/chat", params={"question": "Count."}).status_code >= 500
    with pytest.raises(TimeoutError):
        konko_emulator.wait_until(lambda: konko_emulator.in_flight == 7, timeout=0.01)
"""


def test_synchronous_tests_of_a_fastapi_application(tmp_path):
    pytest.importorskip("fastapi")
    (tmp_path / "test_users.py").write_text(SYNCHRONOUS)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\n"
    )
    code, output = run(tmp_path, *PYTEST[2:])
    assert code == 0, output
    assert "2 passed" in output


def test_the_emulator_in_a_thread_leaves_none():
    with EmulatorInThread(models=["mine"]) as emulator:
        assert emulator.models.keys() == {"mine"}
        assert emulator.base_url in repr(emulator)
        emulator.latency = 0.5
        assert emulator.latency == 0.5
    with pytest.raises(RuntimeError, match="not running"):
        emulator.clear()
    assert "konko_emulator" not in {thread.name for thread in threading.enumerate()}


def test_the_plugin_imports_nothing_of_weight(tmp_path):
    script = (
        "import sys, konko_async; before = set(sys.modules); import pytest;"
        "import konko_async.testing.pytest_plugin;"
        "new = set(sys.modules) - before;"
        "print(sorted(n for n in new if n.startswith(('aiohttp', 'konko_async.testing._'))))"
    )
    assert run(tmp_path, "-c", script) == (0, "[]\n")
