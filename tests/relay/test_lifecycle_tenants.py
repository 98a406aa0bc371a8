"""Tenants: limits of their own over one client, settled with what was used."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async import (
    AsyncKonko,
    ConfigurationError,
    InternalServerError,
    RateLimit,
    RateLimitTimeoutError,
    Response,
    Timeout,
)
from konko_async.relay import RefusalError, RelayOptions, RelayService, Tenants
from konko_async.relay.aiohttp_web import add_routes
from konko_async.testing import Answer, Emulator, FaultServer, run_with_jumping_time
from konko_async.wire import ChatCompletion

MODEL = "codellama/codellama-13b-instruct"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
USED = {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 40}
STREAM = Answer.stream(["Hel", "lo"], usage=USED)
HALF = STREAM.stall(STREAM.wire.index(b'"lo"') - 120)
PATIENT = Timeout(connect=60, first_token=60, idle=60)


def client_of(server, **options):
    defaults = {"api_key": "k", "retry": None, "circuit_breaker": None, "timeout": PATIENT}
    return AsyncKonko(base_url=server.base_url, **{**defaults, **options})


async def ask(client, **more):
    return await client.chat.completions.create(**ASK, **more)


async def refused(call):
    with pytest.raises(RefusalError) as caught:
        await call
    assert caught.value.status == 429
    assert caught.value.type == "rate_limited"
    return caught.value.retry_after


async def test_each_tenant_has_its_own_limit_and_hears_when_to_come_back():
    async with Emulator() as emulator, client_of(emulator) as base:
        tenants = Tenants(base, RateLimit(requests_per_minute=4, burst=2), max_wait=0)
        for name in ("a", "b"):
            for _ in range(2):
                await ask(tenants.client(name))
            wait = await refused(ask(tenants.client(name)))
            assert 10 < wait <= 60 * 1.01
        assert len(tenants) == 2
        assert emulator.received == 4
        assert tenants.limits("a").requests.used == 2
        assert tenants.limits("c") is None


async def test_the_time_it_says_is_the_time_it_takes():
    async def go():
        tenants = Tenants(
            AsyncKonko("k", middleware=[answered]), RateLimit(requests_per_minute=30), max_wait=0
        )
        client = tenants.client("a")
        for _ in range(15):
            await ask(client)
        wait = await refused(ask(client))
        await asyncio.sleep(wait)
        await ask(client)
        return wait

    assert 0 < run_in_thread(go) < 5


async def answered(request, call_next):
    """A middleware that answers by itself: nothing is sent."""
    response = Response(200, {})
    response.result = ChatCompletion()
    request.call.open_responses.append(response)
    response.finish("ok", None)
    return response


def run_in_thread(coroutine_function):
    """Run on a loop whose time jumps, beside the one of the test."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run_with_jumping_time, coroutine_function()).result(20)


async def test_tokens_are_settled_with_what_was_used():
    limit = RateLimit(tokens_per_minute=1000, estimate_tokens=lambda _: 400)
    async with FaultServer(STREAM, STREAM, STREAM, HALF) as server, client_of(server) as base:
        tenants = Tenants(base, limit, max_wait=0)
        client = tenants.client("a")
        async with client.chat.completions.stream(**ASK) as stream:
            assert tenants.limits("a").tokens.used == 400
            await stream.completion()
        assert tenants.limits("a").tokens.used == 40
        assert tenants.limits("a").in_flight == 0
        async with client.chat.completions.stream(**ASK) as stream:
            await stream.completion()
        assert tenants.limits("a").tokens.used == 80


async def test_places_are_freed_by_whatever_ends_a_call():
    limit = RateLimit(max_concurrency=1)
    answers = [HALF, STREAM, Answer.error(500), STREAM, STREAM.stall(0), STREAM]
    async with FaultServer(*answers) as server, client_of(server) as base:
        tenants = Tenants(base, limit, max_wait=0)
        client = tenants.client("a")
        async with client.chat.completions.stream(**ASK):
            assert await refused(ask(client)) == 1.0  # nobody knows how long a stream goes on
            assert tenants.limits("a").in_flight == 1
        async with client.chat.completions.stream(**ASK) as stream:
            await stream.completion()
        with pytest.raises(InternalServerError):
            await ask(client)
        async with client.chat.completions.stream(**ASK) as stream:
            await stream.completion()
        asking = asyncio.create_task(ask(client))
        await server.wait_for_request(5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with client.chat.completions.stream(**ASK) as stream:
            await stream.completion()
        assert tenants.limits("a").in_flight == 0


async def test_a_call_may_wait_a_little_for_its_tenants_place():
    async with FaultServer(HALF, STREAM) as server, client_of(server) as base:
        tenants = Tenants(base, RateLimit(max_concurrency=1), max_wait=5)
        client = tenants.client("a")
        first = await client.chat.completions.create(**ASK, stream=True)
        second = asyncio.create_task(client.chat.completions.create(**ASK, stream=True))
        while not tenants.limits("a").waiting.interactive:
            await asyncio.sleep(0)
        await first.close()
        stream = await second
        assert (await stream.completion()).choices[0].message.content == "Hello"


async def test_what_reached_no_model_costs_nothing():
    limit = RateLimit(requests_per_minute=100, tokens_per_minute=10_000)
    base = AsyncKonko("k", base_url=FaultServer.refused_url(), retry=None)
    async with base:
        tenants = Tenants(base, limit)
        with pytest.raises(Exception, match=r"refused|connect"):
            await ask(tenants.client("a"))
        assert tenants.limits("a").requests.used == 0
        assert tenants.limits("a").tokens.used == 0


async def test_a_refused_request_counts_as_one_without_tokens():
    limit = RateLimit(requests_per_minute=100, tokens_per_minute=10_000)
    async with FaultServer(Answer.error(400)) as server, client_of(server) as base:
        tenants = Tenants(base, limit)
        with pytest.raises(Exception, match="400"):
            await ask(tenants.client("a"))
        assert tenants.limits("a").requests.used == 1
        assert tenants.limits("a").tokens.used == 0


async def test_the_limits_of_the_base_client_hold_over_all_tenants():
    shared = RateLimit(max_concurrency=1)
    async with FaultServer(HALF) as server, client_of(server, rate_limit=shared) as base:
        tenants = Tenants(base, RateLimit(max_concurrency=5), max_wait=0)
        async with tenants.client("a").chat.completions.stream(**ASK):
            with pytest.raises(RateLimitTimeoutError):
                await ask(tenants.client("b"), timeout=Timeout(total=0.05))
            assert tenants.limits("b").in_flight == 0
            assert tenants.limits("b").requests.used == 0
        assert tenants.client("a").limits == base.limits


async def test_the_users_own_middleware_stays():
    seen = []

    async def noting(request, call_next):
        seen.append(request.model)
        return await call_next(request)

    async with Emulator() as emulator, client_of(emulator, middleware=[noting]) as base:
        tenants = Tenants(base, RateLimit(requests_per_minute=10))
        await ask(tenants.client("a"))
        await tenants.client("a").models.list()  # is not limited
        assert tenants.limits("a").requests.used == 1
    assert seen == [MODEL, None]


async def test_plans():
    plans = {"free": RateLimit(requests_per_minute=2, burst=1), "staff": None}
    async with Emulator() as emulator, client_of(emulator) as base:
        tenants = Tenants(base, plans.get, max_wait=0)
        assert tenants.client("staff") is base
        assert tenants.client("free") is tenants.client("free")
        await ask(tenants.client("free"))
        await refused(ask(tenants.client("free")))
        plans["free"] = RateLimit(requests_per_minute=100)
        tenants.forget("free")
        await ask(tenants.client("free"))


def test_half_a_limit_may_be_used_at_once_unless_said_otherwise():
    base = AsyncKonko("k")
    for limit, burst in (
        (RateLimit(requests_per_minute=60), 30),
        (RateLimit(requests_per_minute=1), 1),
        (RateLimit(requests_per_minute=60, burst=5), 5),
        (RateLimit(tokens_per_minute=1000), 500),
        (RateLimit(max_concurrency=3), None),
    ):
        tenants = Tenants(base, limit)
        tenants.client("a")
        assert tenants._tenants["a"].limiter.rate_limit.burst == burst


@pytest.mark.parametrize("name", ["", "x" * 257, None, 7])
def test_ids(name):
    with pytest.raises(ConfigurationError):
        Tenants(AsyncKonko("k"), RateLimit()).client(name)


@pytest.mark.parametrize(
    "arguments",
    [{"rate_limit": 3}, {"max_wait": -1}, {"max_wait": float("inf")}, {"max_tenants": 0}],
)
def test_arguments(arguments):
    with pytest.raises(ConfigurationError):
        Tenants(AsyncKonko("k"), **{"rate_limit": RateLimit(), **arguments})


async def test_a_full_table_forgets_idle_tenants_and_refuses_when_all_are_busy():
    async with FaultServer(HALF, HALF) as server, client_of(server) as base:
        tenants = Tenants(base, RateLimit(max_concurrency=1, window=0.01), max_tenants=2)
        async with tenants.client("a").chat.completions.stream(**ASK):
            for number in range(100):
                tenants.client(f"n{number}")  # each takes the place of the one before
            assert len(tenants) == 2
            assert tenants.limits("a") is not None
            async with tenants.client("n99").chat.completions.stream(**ASK):
                with pytest.raises(RefusalError) as caught:
                    tenants.client("z")
                assert caught.value.status == 503
                assert caught.value.retry_after == 1.0


steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["ask", "end", "wait"]), st.integers(1, 20)),
    max_size=40,
)


@settings(deadline=None, max_examples=50)
@given(steps)
def test_no_tenant_ever_gets_more_than_its_limit(script):
    """Against a count kept by hand: in any window of 10 s at most 6 calls, 2 of them at once."""

    async def go():
        loop = asyncio.get_running_loop()
        limit = RateLimit(requests_per_minute=6, max_concurrency=2, window=10, burst=3)
        held = {name: [] for name in "abc"}
        sent = {name: [] for name in "abc"}

        async def hold(request, call_next):
            name = current
            gate = loop.create_future()
            held[name].append(gate)
            sent[name].append(loop.time())
            await gate
            return await answered(request, call_next)

        tenants = Tenants(AsyncKonko("k", middleware=[hold]), limit, max_wait=0)
        running = []
        for name, what, number in script:
            if what == "ask":
                current = name
                running.append(asyncio.create_task(ask(tenants.client(name))))
                for _ in range(5):
                    await asyncio.sleep(0)
            elif what == "end" and held[name]:
                held[name].pop(0).set_result(None)
                for _ in range(5):
                    await asyncio.sleep(0)
            elif what == "wait":
                await asyncio.sleep(number)
            assert all(len(gates) <= 2 for gates in held.values())
            for times in sent.values():
                assert sum(t > loop.time() - 10 for t in times) <= 6
        for gates in held.values():
            for gate in gates:
                gate.set_result(None)
        results = await asyncio.gather(*running, return_exceptions=True)
        assert all(
            not isinstance(r, BaseException) or (isinstance(r, RefusalError) and r.retry_after > 0)
            for r in results
        )

    run_with_jumping_time(go())


async def test_a_relay_gives_each_identity_its_own_limits():
    async def who(request):
        return request.headers.get("x-user")

    async with FaultServer(default=STREAM) as server, client_of(server) as base:
        tenants = Tenants(base, RateLimit(requests_per_minute=2, burst=1), max_wait=0)
        service = RelayService(tenants.client, RelayOptions(models=[MODEL]), auth=who)
        app = web.Application()
        add_routes(app, service)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/chat/completions"
            found = []
            async with aiohttp.ClientSession() as session:
                for user in ("ann", "ann", "bob", None):
                    headers = {} if user is None else {"X-User": user}
                    async with session.post(
                        url, json={**ASK, "stream": True}, headers=headers
                    ) as answer:
                        await answer.read()
                        found.append((answer.status, "Retry-After" in answer.headers))
                        if answer.status == 429:
                            assert 25 <= int(answer.headers["Retry-After"]) <= 31
            assert found == [(200, False), (429, True), (200, False), (401, False)]
        finally:
            await runner.cleanup()
        assert tenants.limits("ann").in_flight == 0
