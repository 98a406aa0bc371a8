"""Streams through Starlette and FastAPI, on a real uvicorn, to real clients."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import contextlib
import io
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import aiohttp
import pytest
from aiohttp import web
from fastapi import Body, FastAPI, Request
from relay_kit import chunks_of, events_of, text_of
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount
from starlette_kit import (
    ASK,
    HALF,
    MODEL,
    STREAM,
    first_piece,
    make_client,
    serving,
    uvicorn_serving,
)

from konko_async import KonkoError
from konko_async.relay import Delivery, Drain, RelayOptions, RelayService, UIMessageFormat
from konko_async.relay.starlette_app import (
    DrainMiddleware,
    StreamResponse,
    error_response,
    lifespan,
    routes,
)
from konko_async.testing import Answer, FaultServer

QUICK = Delivery(look=0.05)


def fastapi_app(upstream, *, middleware=(), drain=None, **more):
    """An application as FastAPI's users write them."""
    app = FastAPI(
        lifespan=lifespan(lambda: make_client(upstream), drain=drain), middleware=list(middleware)
    )
    app.add_exception_handler(KonkoError, error_response)

    @app.post("/chat")
    async def chat(question: Annotated[dict, Body()], request: Request):
        stream = request.state.client.chat.completions.stream(**{**ASK, **question})
        response = {"headers": {"X-Mark": "kept"}, "delivery": QUICK, **more}
        return StreamResponse(stream, **response)

    @app.post("/opened")
    async def opened(request: Request):
        stream = await request.state.client.chat.completions.create(**ASK, stream=True)
        return StreamResponse(stream, delivery=QUICK)

    @app.get("/client")
    async def client(request: Request):
        return {"same": request.state.client is request.app.state.client}

    return app


async def test_returning_it_from_a_handler_of_fastapi_is_all_there_is_to_it():
    upstream = FaultServer(STREAM, STREAM)
    async with serving(fastapi_app(upstream), upstream) as session:
        async with session.post("/chat", json={}) as answer:
            events = events_of(await answer.read())
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert answer.headers["Cache-Control"] == "no-store, no-transform"
            assert answer.headers["X-Accel-Buffering"] == "no"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Mark"] == "kept"
            assert "Content-Length" not in answer.headers
        assert text_of(events) == "Hello"
        async with session.post("/opened") as answer:
            assert text_of(events_of(await answer.read())) == "Hello"
        async with session.get("/client") as answer:
            assert await answer.json() == {"same": True}


async def test_text_arrives_piecewise():
    upstream = FaultServer(HALF)
    async with serving(fastapi_app(upstream), upstream) as session:
        async with session.post("/chat", json={}) as answer:
            data = await first_piece(answer)
            await upstream.wait_for_stall()
            assert b"lo" not in data.replace(b"Hello", b"")
            upstream.release()
            data += await answer.read()
        assert text_of(events_of(data)) == "Hello"


async def test_the_ui_message_format_brings_its_header():
    upstream = FaultServer(STREAM)
    app = Starlette(lifespan=lifespan(lambda: make_client(upstream)))

    async def chat(request):
        stream = request.state.client.chat.completions.stream(**ASK)
        return StreamResponse(stream, format=UIMessageFormat(), headers={"X-Mine": "1"})

    app.add_route("/chat", chat, methods=["POST"])
    async with serving(app, upstream) as session, session.post("/chat") as answer:
        assert answer.headers["X-Vercel-AI-UI-Message-Stream"] == "v1"
        assert answer.headers["X-Mine"] == "1"
        events = chunks_of(events_of(await answer.read()))
    assert "".join(event.get("delta", "") for event in events) == "Hello"


@pytest.mark.parametrize("error", [401, 429, 500])
async def test_a_failure_before_the_first_token_is_a_status(error):
    headers = {"retry-after": "7"} if error == 429 else {}
    upstream = FaultServer(Answer.error(error, "sk-canary-1 is bad", headers=headers))
    async with serving(fastapi_app(upstream), upstream) as session:
        async with session.post("/chat", json={}) as answer:
            assert answer.status == {401: 502, 429: 429, 500: 502}[error]
            assert answer.headers["Content-Type"] == "application/json"
            assert answer.headers.get("Retry-After") == ("7" if error == 429 else None)
            assert answer.headers["X-Mark"] == "kept"
            body = await answer.text()
        assert "canary" not in body
        assert json.loads(body)["error"]["type"] in {"upstream_error", "rate_limited"}


async def test_a_failure_that_a_handler_raises_is_the_same_status():
    upstream = FaultServer(Answer.error(429, "busy"))
    async with serving(fastapi_app(upstream), upstream) as session:
        async with session.post("/opened") as answer:
            assert answer.status == 429
            assert (await answer.json())["error"]["type"] == "rate_limited"


async def test_a_failure_after_it_is_an_event():
    upstream = FaultServer(STREAM.cut(STREAM.wire.index(b'"lo"')))
    async with serving(fastapi_app(upstream), upstream) as session:
        async with session.post("/chat", json={}) as answer:
            assert answer.status == 200
            *_, last = chunks_of(events_of(await answer.read()))
        assert last["error"]["type"] == "stream_truncated"


async def test_heartbeats_come_while_the_first_token_is_waited_for():
    upstream = FaultServer(STREAM.stall(STREAM.wire.index(b"data:")))
    delivery = Delivery(heartbeat=0.05, look=0.02)
    app = fastapi_app(upstream, delivery=delivery, open_early=True)
    async with serving(app, upstream) as session:
        async with session.post("/chat", json={}) as answer:
            assert answer.status == 200
            assert (await first_piece(answer, b": ping\n\n: ping\n\n")).startswith(b": ping\n\n")
            upstream.release()
            assert text_of(events_of(await answer.read())) == "Hello"


async def passing(request, call_next):
    return await call_next(request)


@pytest.mark.parametrize("when", ["before the first token", "in the middle"])
@pytest.mark.parametrize("layers", [0, 1, 2])
async def test_a_browser_that_leaves_ends_the_call_within_a_second(when, layers):
    early = when.startswith("before")
    upstream = FaultServer(STREAM.stall(STREAM.wire.index(b"data:")) if early else HALF)
    middleware = [Middleware(BaseHTTPMiddleware, dispatch=passing)] * layers
    app = fastapi_app(upstream, middleware=middleware)
    async with serving(app, upstream) as session:
        asking = asyncio.create_task(session.post("/chat", json={}))
        if early:
            await upstream.wait_for_stall()
            asking.cancel()
            await asyncio.wait([asking])
        else:
            answer = await asking
            await first_piece(answer)
            answer.close()
        async with asyncio.timeout(60):
            await upstream.wait_until_closed()


async def test_gzip_around_it_holds_nothing_back():
    upstream = FaultServer(HALF)
    app = fastapi_app(upstream, middleware=[Middleware(GZipMiddleware)])
    async with serving(app, upstream) as session:
        headers = {"Accept-Encoding": "gzip"}
        async with session.post("/chat", json={}, headers=headers) as answer:
            await first_piece(answer)
            assert "Content-Encoding" not in answer.headers
            upstream.release()
            await answer.read()


async def test_a_slow_reader_holds_the_server_up():
    big = Answer.stream(["x" * 60_000] * 400)
    # It never comes to its end, however much is read before it is noticed that the reader has left.
    upstream = FaultServer(big.stall(len(big) - 100))
    async with upstream:
        app = fastapi_app(upstream)
        async with uvicorn_serving(app) as (url, _):
            port = int(url.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**16)
            writer.write(
                b"POST /chat HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                b"Content-Length: 2\r\n\r\n{}"
            )
            await reader.readuntil(b"data:")
            connection = upstream._connections[0]
            await connection_is_held(connection)
            writer.transport.abort()
            async with asyncio.timeout(60):
                await upstream.wait_until_closed()
            assert upstream.connections.closed_by_peer == 1


async def connection_is_held(connection):
    """Wait until a server's connection may write no more, as its peer does not read.

    For a moment it often may not, while the rest is on its way.
    """
    held = 0
    async with asyncio.timeout(60):
        while held < 10:
            await asyncio.sleep(0.01)
            held = 0 if connection._writable else held + 1


async def test_what_is_to_run_afterwards_does():
    upstream = FaultServer(STREAM)
    ran = asyncio.Event()

    async def run():
        ran.set()

    app = fastapi_app(upstream, background=BackgroundTask(run))
    async with serving(app, upstream) as session:
        async with session.post("/chat", json={}) as answer:
            await answer.read()
        async with asyncio.timeout(60):
            await ran.wait()


# -- a relay's endpoints -------------------------------------------------------------------------


def relay_app(upstream, prefix="", mount="", **options):
    client = make_client(upstream)
    service = RelayService(
        client,
        RelayOptions(models=[MODEL], delivery=QUICK, **options),
        auth="open",
        host="127.0.0.1",
    )
    inner = routes(service, prefix)
    return Starlette(
        routes=[Mount(mount, routes=inner)] if mount else inner,
        lifespan=lifespan(client, service=service),
    )


@pytest.mark.parametrize("where", [{}, {"prefix": "/relay"}, {"mount": "/relay"}])
async def test_the_endpoints_of_a_relay(where):
    upstream = FaultServer(STREAM, STREAM, STREAM, STREAM)
    base = "/relay" if where else ""
    async with serving(partial(relay_app, upstream, **where), upstream) as session:
        async with session.get(f"{base}/healthz") as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        async with session.get(f"{base}/v1/models") as answer:
            assert [m["id"] for m in (await answer.json())["data"]] == [MODEL]
        path = f"{base}/v1/chat/completions"
        async with session.post(path, json={**ASK, "stream": True}) as answer:
            assert text_of(events_of(await answer.read())) == "Hello"
        async with session.post(path, json=ASK) as answer:
            assert answer.status == 200  # events are read as a whole answer, too
        async with session.post(path, json={**ASK, "n": 7}) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["param"] == "n"
        async with session.post(path, data=io.BytesIO(b"x" * 2_000_000)) as answer:
            assert answer.status in {413, 415}
        async with session.put(path) as answer:
            assert answer.status == 405
        async with session.get(f"{base}/nothing") as answer:
            assert answer.status == 404


async def test_the_endpoints_in_an_application_of_fastapi_with_a_lifespan_of_its_own():
    upstream = FaultServer(STREAM)
    async with upstream:
        client = make_client(upstream)
        options = RelayOptions(models=[MODEL], delivery=QUICK)
        service = RelayService(client, options, auth="open", host="127.0.0.1")

        @contextlib.asynccontextmanager
        async def own(app):
            async with lifespan(client, service=service)(app) as state:
                yield {**state, "mine": 7}

        app = FastAPI(lifespan=own)
        app.routes.extend(routes(service, "/ai"))

        @app.get("/mine")
        async def mine(request: Request):
            return {"mine": request.state.mine}

        async with uvicorn_serving(app) as (url, _):
            async with aiohttp.ClientSession(url) as session:
                ask = {**ASK, "stream": True}
                async with session.post("/ai/v1/chat/completions", json=ask) as answer:
                    assert text_of(events_of(await answer.read())) == "Hello"
                async with session.get("/mine") as answer:
                    assert await answer.json() == {"mine": 7}
                async with session.get("/openapi.json") as answer:
                    assert list((await answer.json())["paths"]) == ["/mine"]
        assert client.closed


async def test_a_stream_of_the_relay_is_resumed():
    upstream = FaultServer(HALF)
    async with serving(partial(relay_app, upstream), upstream) as session:
        ask = {**ASK, "stream": True}
        answer = await session.post("/v1/chat/completions", json=ask, headers={"X-Resumable": "1"})
        stream_id = answer.headers["X-Stream-Id"]
        data = await first_piece(answer)
        answer.close()
        last = events_of(data)[-1].id
        async with session.get(
            f"/v1/streams/{stream_id}", headers={"Last-Event-ID": last}
        ) as answer:
            upstream.release()
            rest = events_of(await answer.read())
        assert text_of([*events_of(data), *rest]) == "Hello"
        assert len(upstream.requests) == 1
        async with session.get(f"/v1/streams/{stream_id}?last_event_id={rest[-1].id}") as answer:
            assert answer.status == 204
            assert await answer.read() == b""


async def test_the_relay_hears_of_a_browser_that_leaves():
    upstream = FaultServer(HALF)
    async with serving(partial(relay_app, upstream), upstream) as session:
        answer = await session.post("/v1/chat/completions", json={**ASK, "stream": True})
        await first_piece(answer)
        answer.close()
        async with asyncio.timeout(60):
            await upstream.wait_until_closed()


async def test_a_body_that_is_cut_ends_quietly():
    upstream = FaultServer(STREAM)
    async with serving(partial(relay_app, upstream), upstream) as session:
        port = session._base_url.port
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
        )
        await writer.drain()
        writer.transport.abort()
        async with session.get("/healthz") as answer:
            assert answer.status == 200
    assert not upstream.requests


# -- draining ------------------------------------------------------------------------------------


async def test_new_requests_are_refused_while_it_drains():
    upstream = FaultServer(HALF, STREAM)
    drain = Drain(5, retry_after=3)
    middleware = [Middleware(DrainMiddleware, drain=drain)]
    app = fastapi_app(upstream, drain=drain, middleware=middleware)
    async with serving(app, upstream) as session:
        async with session.post("/chat", json={}) as running:
            await first_piece(running)
            draining = asyncio.create_task(drain.run())
            await asyncio.sleep(0)
            for path in ("/chat", "/opened"):
                async with session.post(path, json={}) as refused:
                    assert refused.status == 503
                    assert refused.headers["Retry-After"] == "3"
                    assert (await refused.json())["error"]["type"] == "overloaded"
            assert drain.active == 1
            upstream.release()
            rest = await running.read()
            assert rest.endswith(b"data: [DONE]\n\n")
            await draining
    assert len(upstream.requests) == 1


async def test_a_response_without_the_middleware_refuses_by_itself():
    upstream = FaultServer(STREAM)
    drain = Drain(5)
    async with serving(fastapi_app(upstream, drain=drain), upstream) as session:
        drain.start()
        async with session.post("/chat", json={}) as refused:
            assert refused.status == 503
            assert refused.headers["Retry-After"] == "5"
    assert not upstream.requests


async def test_what_is_left_after_the_time_is_told_and_ended():
    upstream = FaultServer(HALF)
    drain = Drain(0.05)
    async with serving(fastapi_app(upstream, drain=drain), upstream) as session:
        async with session.post("/chat", json={}) as running:
            data = await first_piece(running)
            await drain.run()
            data += await running.read()
        chunk = chunks_of(events_of(data))[-1]
        assert chunk["relay"] == {"reason": "shutdown"}
        await upstream.wait_until_closed()


async def test_an_application_may_be_started_again():
    upstream = FaultServer(STREAM, STREAM)
    drain = Drain(5)
    app = fastapi_app(upstream, drain=drain, middleware=[Middleware(DrainMiddleware, drain=drain)])
    async with upstream:
        for _ in range(2):
            async with uvicorn_serving(app) as (url, _):
                async with aiohttp.ClientSession(url) as session:
                    async with session.post("/chat", json={}) as answer:
                        assert text_of(events_of(await answer.read())) == "Hello"
            assert drain.finished


BLOCKS = re.findall(
    r"```python\n(.*?)```",
    (Path(__file__).parents[2] / "docs" / "how-to" / "web-backends.md").read_text(encoding="utf-8"),
    re.DOTALL,
)


@pytest.fixture
async def documented(monkeypatch):
    """The server that the applications of the documentation find in the environment."""
    async with FaultServer(STREAM, Answer.error(429)) as upstream:
        monkeypatch.setenv("KONKO_API_KEY", "k")
        monkeypatch.setenv("KONKO_BASE_URL", upstream.base_url)
        yield upstream


async def check_documented(url, upstream):
    async with aiohttp.ClientSession(url) as session:
        headers = {"X-Request-Timeout": "5"}
        async with session.post("/chat", json={"question": "Hi?"}, headers=headers) as answer:
            assert text_of(events_of(await answer.read())) == "Hello"
    assert upstream.requests[0].json()["messages"] == [{"role": "user", "content": "Hi?"}]


async def test_the_application_for_fastapi_in_the_documentation(documented):
    scope = {"__name__": "app"}
    exec(BLOCKS[0], scope)  # noqa: S102 - our own
    async with uvicorn_serving(scope["app"]) as (url, _):
        await check_documented(url, documented)
        async with aiohttp.ClientSession(url) as session:
            headers = {"X-Request-Timeout": "soon"}
            async with session.post("/chat", json={"question": "Hi?"}, headers=headers) as answer:
                assert answer.status == 400


async def test_the_application_for_aiohttp_in_the_documentation(documented):
    scope = {"__name__": "app"}
    exec(BLOCKS[1].replace("web.run_app(app)", ""), scope)  # noqa: S102 - our own
    runner = web.AppRunner(scope["app"])
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await check_documented(f"http://127.0.0.1:{runner.addresses[0][1]}", documented)
    finally:
        await runner.cleanup()


def test_it_says_which_extra_is_missing():
    code = (
        "import sys; sys.modules['starlette'] = None\nfrom konko_async.relay import starlette_app"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "pip install 'konko-async[starlette]'" in ran.stderr
    assert "ConfigurationError" in ran.stderr


def test_nothing_of_it_is_loaded_unasked():
    code = (
        "import sys, konko_async.relay; print('starlette' in sys.modules, 'anyio' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]
