"""One real server for the tests that need no other; each has keys of its own."""

import pytest
import redis
from lane_model import Script
from lazy_module import LazyModule
from redis_kit import SERVER, running_server
from steady_loop import SteadyLoop

fakeredis = LazyModule("fakeredis")


def pytest_asyncio_loop_factories(config, item):
    # A client that stands still is no server that does not answer.
    return {"steady": SteadyLoop}


@pytest.fixture(scope="session")
def shared_server():
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def make(request):
    """Makes scripts on a clock of the test's; where there is no server, on a slow imitation."""
    if SERVER is None:
        yield lambda **limits: Script(fakeredis.FakeRedis(), **limits)
        return
    server = request.getfixturevalue("shared_server")
    with redis.Redis(port=server.port) as client:
        client.ping()  # its socket is not a test's
        yield lambda **limits: Script(client, **limits)
