"""The relay's streams in Redis: the contract, and several processes' stores on one server."""

import asyncio
import contextlib
import itertools

import aiohttp
import pytest
import redis.asyncio
from aiohttp import web
from redis_kit import running_server

from konko_async import AsyncKonko
from konko_async.errors import ConfigurationError, KonkoError
from konko_async.integrations.redis_streams import RedisStreamStore
from konko_async.relay import (
    RelayOptions,
    RelayService,
    StoreFullError,
    StreamInfo,
    StreamLostError,
    StreamTooLongError,
    check_store,
)
from konko_async.relay.aiohttp_web import add_routes, listening
from konko_async.testing import Answer, FaultServer

_NAMES = itertools.count()


@pytest.fixture
async def pair(shared_server):
    """Two stores on the same streams, as two processes have them."""
    namespace = f"streams{next(_NAMES)}"
    stores = [RedisStreamStore(shared_server.url, namespace=namespace, keep=60) for _ in range(2)]
    yield stores
    for store in stores:
        await store.close()
        await store.close()


def info(name="s", **more):
    return StreamInfo(id=name, owner="ann", **more)


async def test_the_contract_is_kept(shared_server):
    store = RedisStreamStore(shared_server.url, namespace=f"streams{next(_NAMES)}")
    try:
        await check_store(store, tick=0.15)
    finally:
        await store.close()


async def test_one_writes_and_another_reads_and_stops(pair):
    writer, reader = pair
    await writer.create(info(key="chat"), lease=60)
    assert await reader.find("ann", "chat") == "s"
    reading = asyncio.create_task(reader.read("s", 0, wait=10))
    watching = asyncio.create_task(writer.watch("s", wait=10, lease=60))
    await writer.append("s", [b"one", b"two"])
    page = await reading
    assert (page.first, list(page.payloads), page.finished) == (1, [b"one", b"two"], False)
    await reader.request_stop("s")
    assert (await watching).stop
    ending = asyncio.create_task(reader.read("s", 2, wait=10))
    await writer.finish("s", [])
    assert (await ending).finished
    assert await reader.find("ann", "chat") is None


async def test_more_than_a_hundred_readers_wait_at_once(shared_server):
    store = RedisStreamStore(
        shared_server.url, namespace=f"streams{next(_NAMES)}", keep=60, timeout=5
    )
    await store.create(info(), lease=60)
    reading = [asyncio.create_task(store.read("s", 0, wait=60)) for _ in range(110)]
    async with redis.asyncio.Redis(port=shared_server.port) as client, asyncio.timeout(60):
        while (await client.info("clients"))["blocked_clients"] < 110:
            assert not any(task.done() for task in reading)
            await asyncio.sleep(0.02)
    await store.append("s", [b"one"])
    pages = await asyncio.gather(*reading)
    assert all(list(page.payloads) == [b"one"] for page in pages)
    await store.close()


async def test_what_is_over_is_thrown_away_and_remembered(pair, shared_server):
    writer, reader = pair
    await writer.create(info(), lease=60)
    await writer.finish("s", [b"all"])
    assert (await reader.info("s")).state == "finished"
    forgetful = RedisStreamStore(shared_server.url, namespace=f"streams{next(_NAMES)}", keep=0.1)
    await forgetful.create(info(), lease=60)
    await forgetful.finish("s", [b"all"])
    async with asyncio.timeout(60):
        while (await forgetful.info("s")).state != "expired":
            await asyncio.sleep(0.02)
    with pytest.raises(StreamLostError):
        await forgetful.read("s", 0, wait=0)
    with pytest.raises(ConfigurationError, match="already"):
        await forgetful.create(info(), lease=60)
    await forgetful.close()


async def test_a_stream_has_a_longest(shared_server):
    store = RedisStreamStore(
        shared_server.url, namespace=f"streams{next(_NAMES)}", max_stream_bytes=1000
    )
    await store.create(info(), lease=60)
    await store.append("s", [b"x" * 800])
    with pytest.raises(StreamTooLongError):
        await store.append("s", [b"x" * 200])
    await store.finish("s", [b"x" * 200])
    page = await store.read("s", 0, wait=0)
    assert [len(payload) for payload in page.payloads] == [800, 200]
    assert page.finished
    await store.close()


async def test_a_full_and_a_stopped_server_are_told():
    with running_server() as server:
        store = RedisStreamStore(server.url)
        impatient = RedisStreamStore(server.url, timeout=0.3)
        await store.create(info(), lease=60)
        async with redis.asyncio.Redis(port=server.port) as client:
            await client.config_set("maxmemory", "1")
            with pytest.raises(StoreFullError):
                await store.create(info("t", key="k"), lease=60)
            with pytest.raises(StreamTooLongError):
                await store.append("s", [b"x"])
            await client.config_set("maxmemory", "0")
        server.stop()
        with pytest.raises(KonkoError, match="cannot be asked"):
            await impatient.append("s", [b"x"])
        await impatient.close()
        server.go_on()
        async with asyncio.timeout(60):
            while True:
                try:
                    await store.append("s", [b"y"])
                    break
                except KonkoError:
                    await asyncio.sleep(0.01)
        await store.close()


def test_bad_options_are_refused():
    for options in ({"keep": 0}, {"max_stream_bytes": 0}, {"namespace": ""}, {"timeout": 9}):
        with pytest.raises(ConfigurationError):
            RedisStreamStore(**options)
    assert "localhost" not in repr(RedisStreamStore("redis://:secret@localhost"))


# -- a relay whose store goes away --------------------------------------------------------------------

TOKENS = [f"tok{number} " for number in range(10)]
ANSWER = Answer.stream(TOKENS)
MIDDLE = ANSWER.wire.index(b'"tok5 "') - 120
BODY = {"messages": [{"role": "user", "content": "Hi."}], "stream": True}


@contextlib.asynccontextmanager
async def relaying(upstream, store, **options):
    async with AsyncKonko("k", upstream.base_url, retry=None) as client:
        service = RelayService(
            client,
            RelayOptions(models=["m"], resumable=True, **options),
            auth="open",
            host="127.0.0.1",
            store=store,
        )
        app = web.Application()
        add_routes(app, service)
        async with listening(app) as port, aiohttp.ClientSession() as session:
            yield f"http://127.0.0.1:{port}", session
        await store.close()


@pytest.mark.parametrize("how", ["stopped", "killed", "restarted empty"])
async def test_answers_go_on_while_the_server_is_away(how):
    with running_server() as server:
        store = RedisStreamStore(server.url, timeout=1.5)
        async with (
            FaultServer(ANSWER.stall(MIDDLE), default=Answer.stream(["more"])) as upstream,
            relaying(upstream, store) as (url, session),
            session.post(f"{url}/v1/chat/completions", json=BODY) as response,
        ):
            assert "X-Stream-Id" in response.headers
            await upstream.wait_for_stall()
            if how == "stopped":
                server.stop()
            elif how == "killed":
                server.kill()
            else:
                async with redis.asyncio.Redis(port=server.port) as client:
                    await client.flushall()
            upstream.release()
            text = (await response.read()).decode()
            assert all(token in text for token in TOKENS)
            assert text.endswith("data: [DONE]\n\n")
            async with session.post(f"{url}/v1/chat/completions", json=BODY) as after:
                assert after.status == 200
                assert ("X-Stream-Id" in after.headers) == (how == "restarted empty")
                assert b"more" in await after.read()
            async with session.get(f"{url}/readyz") as ready:
                found = (ready.status, (await ready.json())["status"])
                assert found == (200, "ok" if how == "restarted empty" else "degraded")
            if how == "stopped":
                server.go_on()
