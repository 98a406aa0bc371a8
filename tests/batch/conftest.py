"""An emulator that answers with the question, and a client for it."""

import pytest
from steady_loop import SteadyLoop

from konko_async import AsyncKonko
from konko_async.testing import Emulator


def pytest_asyncio_loop_factories(config, item):
    return {"steady": SteadyLoop}


def echo(body):
    return "re: " + (body["messages"][-1]["content"] if "messages" in body else body["prompt"])


@pytest.fixture
async def emulator():
    async with Emulator(answer=echo) as running:
        yield running


@pytest.fixture
async def client(emulator):
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", retry=None) as made:
        yield made
