"""The relay's streams in Redis: the contract, and several processes' stores on one server."""

import asyncio
import itertools

import pytest
import redis.asyncio
from redis_kit import running_server

from konko_async.errors import ConfigurationError, KonkoError
from konko_async.integrations.redis_streams import RedisStreamStore
from konko_async.relay import (
    StoreFullError,
    StreamInfo,
    StreamLostError,
    StreamTooLongError,
    check_store,
)

_NAMES = itertools.count()


@pytest.fixture
async def pair(shared_server):
    """Two stores on the same streams, as two processes have them."""
    namespace = f"streams{next(_NAMES)}"
    stores = [RedisStreamStore(shared_server.url, namespace=namespace, keep=0.3) for _ in range(2)]
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
    await writer.create(info(key="chat"), lease=10)
    assert await reader.find("ann", "chat") == "s"
    reading = asyncio.create_task(reader.read("s", 0, wait=10))
    watching = asyncio.create_task(writer.watch("s", wait=10, lease=10))
    await writer.append("s", [b"one", b"two"])
    page = await reading
    assert (page.first, list(page.payloads), page.finished) == (1, [b"one", b"two"], False)
    await reader.request_stop("s")
    assert (await watching).stop
    ending = asyncio.create_task(reader.read("s", 2, wait=10))
    await writer.finish("s", [])
    assert (await ending).finished
    assert await reader.find("ann", "chat") is None


async def test_what_is_over_is_thrown_away_and_remembered(pair):
    writer, reader = pair
    await writer.create(info(), lease=10)
    await writer.finish("s", [b"all"])
    assert (await reader.info("s")).state == "finished"
    async with asyncio.timeout(5):
        while (await reader.info("s")).state != "expired":
            await asyncio.sleep(0.02)
    with pytest.raises(StreamLostError):
        await reader.read("s", 0, wait=0)
    with pytest.raises(ConfigurationError, match="already"):
        await writer.create(info(), lease=1)


async def test_a_stream_has_a_longest(shared_server):
    store = RedisStreamStore(
        shared_server.url, namespace=f"streams{next(_NAMES)}", max_stream_bytes=1000
    )
    await store.create(info(), lease=10)
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
        store = RedisStreamStore(server.url, timeout=0.3)
        await store.create(info(), lease=10)
        async with redis.asyncio.Redis(port=server.port) as client:
            await client.config_set("maxmemory", "1")
            with pytest.raises(StoreFullError):
                await store.create(info("t", key="k"), lease=10)
            with pytest.raises(StreamTooLongError):
                await store.append("s", [b"x"])
            await client.config_set("maxmemory", "0")
        server.stop()
        with pytest.raises(KonkoError, match="cannot be asked"):
            await store.append("s", [b"x"])
        server.go_on()
        async with asyncio.timeout(5):
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
