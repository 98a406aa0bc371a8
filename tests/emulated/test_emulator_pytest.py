"""The pytest fixture, in test runs of its own, as users have them."""

import subprocess
import sys

import pytest

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
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


PYTEST = ("-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider")


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
    (tmp_path / "test_users.py").write_text("def test_one(konko_emulator):\n    pass\n")
    # As if it were not installed: it cannot be found.
    (tmp_path / "hidden.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *a: None if name == 'pytest_asyncio' else find(name, *a)\n"
    )
    plugins = ("-p", "no:asyncio", "-p", "hidden")
    code, output = run(tmp_path, *PYTEST, *plugins, PYTHONPATH=str(tmp_path))
    assert code == 1, output
    assert "needs pytest-asyncio" in output


def test_the_plugin_imports_nothing_of_weight(tmp_path):
    script = (
        "import sys, konko_async; before = set(sys.modules); import pytest;"
        "import konko_async.testing.pytest_plugin;"
        "new = set(sys.modules) - before;"
        "print(sorted(n for n in new if n.startswith(('aiohttp', 'konko_async.testing._'))))"
    )
    assert run(tmp_path, "-c", script) == (0, "[]\n")
