"""An emulator that accepts the tests' own key only."""

import threading

import pytest
from cli_kit import KEY, environment

from konko_async.testing import Emulator


@pytest.fixture(autouse=True)
def no_waiter_left():
    """Python 3.11 waits for each process in a thread, which ends a moment after the process."""
    yield
    for thread in threading.enumerate():
        if "waitpid" in thread.name:
            thread.join(5)


def _answer(body):
    return "One two three."


@pytest.fixture
async def emulator():
    async with Emulator(api_keys=[KEY], answer=_answer) as running:
        yield running


@pytest.fixture
def env(emulator, tmp_path):
    return environment(emulator, tmp_path)
