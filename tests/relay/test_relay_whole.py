"""Whole answers in handlers of one's own: the browser's leaving reaches the model's server."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import Annotated

import aiohttp
import pytest
from aiohttp import web
from fastapi import Body, FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware
from starlette_kit import ASK, make_client, uvicorn_serving

from konko_async import KonkoError
from konko_async.relay import aiohttp_web, starlette_app
from konko_async.testing import Answer, FaultServer

HELLO = Answer.whole("Hello")


@asynccontextmanager
async def aiohttp_serving(client):
    async def ask(request):
        asked = client.chat.completions.create(**ASK)
        completion = await aiohttp_web.while_connected(request, asked)
        question = await request.json()
        return web.json_response([question["q"], completion.choices[0].message.content])

    app = web.Application(middlewares=[aiohttp_web.error_middleware])
    app.router.add_post("/json", ask)
    app.router.add_post("/raw", ask)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def fastapi_serving(client):
    app = FastAPI()
    app.add_exception_handler(KonkoError, starlette_app.error_response)

    async def passed(request, call_next):
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=passed)

    async def ask(request):
        asked = client.chat.completions.create(**ASK)
        completion = await starlette_app.while_connected(request, asked)
        return [(await request.json())["q"], completion.choices[0].message.content]

    @app.post("/json")
    async def parsed(request: Request, q: Annotated[str, Body(embed=True)]):
        assert q
        return await ask(request)

    @app.post("/raw")
    async def raw(request: Request):
        return await ask(request)

    async with uvicorn_serving(app) as (url, _):
        yield url


@pytest.fixture(params=[aiohttp_serving, fastapi_serving], ids=["aiohttp", "fastapi"])
def adapter(request):
    return request.param


@asynccontextmanager
async def asking(adapter, upstream):
    async with upstream, make_client(upstream) as client:
        async with adapter(client) as url, aiohttp.ClientSession(url) as session:
            yield session


@pytest.mark.parametrize("path", ["/json", "/raw"])
async def test_who_waits_is_answered(adapter, path):
    async with asking(adapter, FaultServer(HELLO, Answer.error(429, "busy"))) as session:
        async with session.post(path, json={"q": "hi"}) as answer:
            assert (answer.status, await answer.json()) == (200, ["hi", "Hello"])
        async with session.post(path, json={"q": "hi"}) as answer:
            assert answer.status == 429


@pytest.mark.parametrize("path", ["/json", "/raw"])
async def test_who_leaves_ends_the_call(adapter, path, caplog):
    caplog.set_level(logging.WARNING)
    upstream = FaultServer(HELLO.stall(0), HELLO)
    async with asking(adapter, upstream) as session:
        waiting = asyncio.create_task(session.post(path, json={"q": "hi"}))
        await upstream.wait_for_stall()
        assert upstream.connections.open == 1
        waiting.cancel()
        async with asyncio.timeout(60):
            await upstream.wait_until_closed()
        async with session.post(path, json={"q": "hi"}) as answer:  # others are served
            assert answer.status == 200
    assert not caplog.records
