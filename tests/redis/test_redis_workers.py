"""The example's application under uvicorn with two workers, on one Redis: streams belong to both."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
from redis_kit import running_server, until

from konko_async.sse import SSEDecoder
from konko_async.testing import Answer, FaultServer

APP = Path(__file__).parents[2] / "examples" / "deployment"
TOKENS = [f"tok{number} " for number in range(10)]
ANSWER = Answer.stream(TOKENS)
MIDDLE = ANSWER.wire.index(b'"tok5 "') - 120
BODY = {"messages": [{"role": "user", "content": "Hi."}], "stream": True}
ANN = {"Authorization": "Bearer secret-of-ann"}


@contextlib.asynccontextmanager
async def workers(redis, upstream):
    """Two workers behind one port; they know their upstream by the environment."""
    env = os.environ | {
        "REDIS_URL": redis.url, "KONKO_BASE_URL": upstream.base_url, "KONKO_API_KEY": "k",
        "MODELS": "m", "APP_TOKENS": "secret-of-ann:ann,secret-of-bob:bob",
    }  # fmt: skip
    command = ("-m", "uvicorn", "app:app", "--app-dir", str(APP), "--workers", "2", "--port", "0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    seen = b""
    async with asyncio.timeout(60):
        while seen.count(b"startup complete") < 2:
            line = await process.stderr.readline()
            assert line, seen
            seen += line
    port = int(seen.partition(b"http://127.0.0.1:")[2].split()[0])
    reading = asyncio.create_task(process.stderr.read())
    await listening(port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.wait()
            await reading


async def listening(port):
    """Wait until connections are taken: a worker says that it has started up, then it listens."""
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


@contextlib.asynccontextmanager
async def session_at(url, other_than):
    """A session whose one connection leads to another worker than that."""
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(30):
            while True:
                # Kept open: a worker that waits for its turn is the one that takes the next.
                made = aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=1))
                session = await stack.enter_async_context(made)
                async with session.get("/healthz") as response:
                    await response.read()
                    if response.headers["X-Worker"] != other_than:
                        break
        yield session


async def read_until(response, text):
    decoder, events = SSEDecoder(max_event_bytes=2**20), []
    async for data in response.content.iter_any():
        events += decoder.feed(data)
        if any(text in event.data for event in events):
            return events
    raise AssertionError(events)


async def test_a_stream_is_resumed_and_stopped_at_the_other_worker():
    with running_server() as redis:
        await check_workers(redis)


async def check_workers(redis):
    async with (
        FaultServer(ANSWER.stall(MIDDLE), ANSWER.stall(MIDDLE)) as upstream,
        workers(redis, upstream) as url,
    ):
        async with (
            aiohttp.ClientSession(url) as session,
            session.post("/v1/chat/completions", json=BODY, headers=ANN) as response,
        ):
            assert response.status == 200
            stream, worker = response.headers["X-Stream-Id"], response.headers["X-Worker"]
            seen = await read_until(response, "tok3")
        path, last = f"/v1/streams/{stream}", {"Last-Event-ID": seen[-1].id}
        async with session_at(url, worker) as other:
            async with other.get(path, headers={"Authorization": "Bearer secret-of-bob"}) as denied:
                assert denied.status == 404
                await denied.read()  # else the session's one connection is given up
            async with other.get(path, headers=ANN | last) as resumed:
                assert resumed.headers["X-Worker"] != worker
                upstream.release()
                seen += await read_until(resumed, "[DONE]")
            ids = [int(event.id.rpartition(".")[2]) for event in seen if event.id]
            assert ids == list(range(1, len(ids) + 1))
            assert "".join(
                token for token in TOKENS if any(token in e.data for e in seen)
            ) == "".join(TOKENS)
        async with (
            session_at(url, None) as session,
            session.post("/v1/chat/completions", json=BODY, headers=ANN) as response,
        ):
            await read_until(response, "tok3")
            stream, worker = response.headers["X-Stream-Id"], response.headers["X-Worker"]
            async with session_at(url, worker) as other:
                async with other.delete(f"/v1/streams/{stream}", headers=ANN) as stopped:
                    assert stopped.status == 204
                # Not all are closed: that of the first answer waits for its next call.
                await until(lambda: upstream.connections.closed_by_peer >= 1)
                assert b"stopped" in await response.read()
                async with other.get("/metrics") as metrics:
                    assert b"konko_calls_total" in await metrics.read()
