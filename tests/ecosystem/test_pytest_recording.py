"""pytest-recording in somebody's test suite: recorded once without keys, then played back.

Needs pytest-recording.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from konko_async.testing import EmulatorInThread

pytest.importorskip("pytest_recording", reason="needs pytest-recording")

ROOT = str(Path(__file__).parents[2])
KEY = "sk-recording0123456789"
USERS = """
import os
import pytest
from konko_async import AsyncKonko

@pytest.mark.vcr
@pytest.mark.asyncio
async def test_mine():
    async with AsyncKonko(os.environ["KEY"], os.environ["BASE"], retry=None) as client:
        messages = [{"role": "user", "content": "Hello"}]
        model = "codellama/codellama-13b-instruct"
        async with client.chat.completions.stream(model=model, messages=messages) as stream:
            assert (await stream.completion()).choices[0].message.content
"""


def run(folder, *options, **env):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    env = {**os.environ, "PYTHONPATH": ROOT, **env}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert " passed" in done.stdout, done.stdout + done.stderr


def test_a_suite_is_recorded_and_played_back(tmp_path):
    (tmp_path / "test_users.py").write_text(USERS)
    with EmulatorInThread(api_keys=[KEY]) as emulator:
        base = emulator.base_url
        run(tmp_path, "--record-mode=once", KEY=KEY, BASE=base)
        assert emulator.received == 1
    (cassette,) = tmp_path.rglob("*.yaml")
    assert KEY not in cassette.read_text()
    # Without a network, a server or a key.
    run(tmp_path, "--record-mode=none", "--block-network", KEY="none", BASE=base)
