"""A real uvicorn in the test's own loop, and what its applications stand on."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import socket
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from starlette.applications import Starlette

from konko_async import AsyncKonko, Timeout
from konko_async.testing import Answer

MODEL = "codellama/codellama-13b-instruct"
MESSAGES = [{"role": "user", "content": "Say hello."}]
ASK = {"model": MODEL, "messages": MESSAGES}
PATIENT = Timeout(connect=60, first_token=60, idle=60)
STREAM = Answer.stream(["Hel", "lo"], usage={"prompt_tokens": 3, "completion_tokens": 2})
AFTER_HEL = STREAM.wire.index(b'"lo"') - 120
HALF = STREAM.stall(AFTER_HEL)


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config):
        super().__init__(config)
        self.listens = asyncio.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.listens.set()


def make_client(upstream, **options):
    defaults = {
        "api_key": "sk-canary-1",
        "retry": None,
        "circuit_breaker": None,
        "timeout": PATIENT,
    }
    return AsyncKonko(base_url=upstream.base_url, **{**defaults, **options})


@asynccontextmanager
async def uvicorn_serving(app, **config):
    """Serve an application; gives its base URL and the server."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = _Server(uvicorn.Config(app, log_config=None, lifespan="on", **config))
    task = asyncio.create_task(server.serve([listener]))
    try:
        waiting = asyncio.create_task(server.listens.wait())
        await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        assert server.listens.is_set(), "uvicorn did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
    except BaseException:
        server.force_exit = True  # else it waits for the connections that a failed test left
        raise
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def serving(app, upstream, **config):
    """Serve an application, or what a function makes, before an upstream; gives a session."""
    async with upstream:
        app = app if isinstance(app, Starlette) else app()
        async with uvicorn_serving(app, **config) as (url, _):
            async with aiohttp.ClientSession(url) as session:
                yield session


async def first_piece(response, mark=b"Hel"):
    """Read until something has come."""
    data = b""
    while mark not in data:
        piece = await response.content.readany()
        assert piece, data
        data += piece
    return data
