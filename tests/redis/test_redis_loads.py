"""Processes that tell each other, in Redis, how many calls they have in flight where."""

import asyncio
import itertools

import pytest
from redis_kit import running_server

from konko_async import AsyncKonko, Endpoint, RateLimit, RateLimitStoreError
from konko_async.integrations.redis import RedisStore
from konko_async.testing import Emulator

MODEL = "codellama/codellama-13b-instruct"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
_NAMES = itertools.count()


async def test_loads_are_those_of_all_others(shared_server):
    store = RedisStore(shared_server.url, namespace=f"loads{next(_NAMES)}")
    try:
        assert await store.share_loads("one", {"a": 3, "b": 1}) == {}
        assert await store.share_loads("two", {"a": 2}) == {"a": 3, "b": 1}
        assert await store.share_loads("three", {}) == {"a": 5, "b": 1}
        assert await store.share_loads("one", {}) == {"a": 2}
    finally:
        await store.close()


async def test_a_client_avoids_where_another_is_busy(shared_server):
    name = f"loads{next(_NAMES)}"
    async with Emulator() as one, Emulator() as two:

        def client():
            limit = RateLimit(
                requests_per_minute=10_000,
                burst=1000,
                store=RedisStore(shared_server.url, namespace=name),
            )
            endpoints = [Endpoint(server.base_url, "sk-test-0123456789") for server in (one, two)]
            return AsyncKonko(endpoints=endpoints, rate_limit=limit)

        async with client() as busy, client() as other:
            one.latency = 60  # longer than it takes to look at them
            two.latency = 60
            busy.endpoints.drain(busy.endpoints[1].name)
            calls = [asyncio.create_task(busy.chat.completions.create(**ASK)) for _ in range(10)]
            while one.in_flight < 10:
                await asyncio.sleep(0.01)
            await busy._engine.balancer._shared._report()
            await other._engine.balancer._shared._report()
            calls += [asyncio.create_task(other.chat.completions.create(**ASK)) for _ in range(6)]
            while one.in_flight + two.in_flight < 16:
                await asyncio.sleep(0.01)
            assert (one.in_flight, two.in_flight) == (10, 6)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


async def test_without_the_store_each_balances_for_itself():
    with running_server() as server:
        store = RedisStore(server.url)
        server.kill()
        with pytest.raises(RateLimitStoreError):
            await store.share_loads("one", {"a": 1})
        await store.close()
