"""An emulator that accepts the tests' own key only."""

import pytest
from cli_kit import KEY, environment, join_waiters
from steady_loop import SteadyLoop

from konko_async.testing import Emulator


def pytest_asyncio_loop_factories(config, item):
    return {"steady": SteadyLoop}


@pytest.fixture(autouse=True)
def no_waiter_left():
    yield
    join_waiters()


def _answer(body):
    return "One two three."


@pytest.fixture
async def emulator():
    async with Emulator(api_keys=[KEY], answer=_answer) as running:
        yield running


@pytest.fixture
def env(emulator, tmp_path):
    return environment(emulator, tmp_path)
