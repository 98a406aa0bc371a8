"""Drains, health, deadlines and priorities, clients of applications."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import signal

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from relay_kit import ASK, CHAT, KEY, MODEL, events_of, relaying, text_of

from konko_async import (
    AsyncKonko,
    CircuitBreaker,
    CircuitOpenError,
    ConfigurationError,
    InternalServerError,
    PoolStats,
    RateLimit,
    Timeout,
)
from konko_async.relay import Drain, RefusalError, call_keywords, health
from konko_async.relay._lifecycle.signals import holding_signals
from konko_async.relay.aiohttp_web import CLIENT, client_context, error_middleware
from konko_async.testing import Answer, Emulator, FaultServer, run_with_jumping_time

STREAM = Answer.stream(["Hel", "lo"])
HALF = STREAM.stall(STREAM.wire.index(b'"lo"') - 120)
ASKED = {"model": MODEL, "messages": ASK["messages"]}


class Reading:
    """A source as a drain sees it."""

    def __init__(self):
        self.stopped = None
        self.told = asyncio.Event()

    def stop(self, reason):
        self.stopped = reason
        self.told.set()


# -- drains --------------------------------------------------------------------------------------


def test_a_drain_without_streams_ends_at_once():
    async def go():
        drain = Drain(20)
        drain.check()
        started = asyncio.get_running_loop().time()
        await drain.run()
        await drain.run()
        assert drain.finished
        with pytest.raises(RefusalError) as caught:
            drain.check()
        assert (caught.value.status, caught.value.retry_after) == (503, 5.0)
        return asyncio.get_running_loop().time() - started

    assert run_with_jumping_time(go()) == 0


@pytest.mark.parametrize(("lasts", "told", "over"), [(3, None, 3), (50, "shutdown", 20)])
def test_streams_may_go_on_for_some_seconds(lasts, told, over):
    async def go():
        drain, source = Drain(20), Reading()

        async def read():
            with drain.watch(source):
                _, pending = await asyncio.wait(
                    [asyncio.create_task(source.told.wait())], timeout=lasts
                )
                for task in pending:
                    task.cancel()

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        assert drain.active == 1
        # Several may wait for it, and one that gives up does not end it.
        waiting = asyncio.create_task(drain.run())
        await asyncio.sleep(0)
        waiting.cancel()
        await drain.run()
        assert reading.done()
        return source.stopped, asyncio.get_running_loop().time()

    assert run_with_jumping_time(go()) == (told, over)


def test_readers_that_take_nothing_do_not_hold_the_end_up():
    async def go():
        drain, source = Drain(20), Reading()
        with drain.watch(source):
            await drain.run()
            assert source.stopped == "shutdown"
            late = Reading()
            with drain.watch(late):  # what comes after it is told at once
                assert late.stopped == "shutdown"
        return asyncio.get_running_loop().time()

    assert run_with_jumping_time(go()) == 25


@pytest.mark.parametrize("arguments", [(-1,), (float("inf"),), (True,), ("5",)])
def test_arguments_of_a_drain(arguments):
    with pytest.raises(ConfigurationError):
        Drain(*arguments)


async def test_a_service_is_drained_and_closed():
    upstream = FaultServer(HALF, STREAM)
    async with relaying(upstream) as relay:
        drain = Drain(10, retry_after=7)
        drain.add(relay.service)
        drain.add(relay.service)
        async with relay.ask() as running:
            await upstream.wait_for_stall()
            assert drain.active == 1
            draining = asyncio.create_task(drain.run())
            await asyncio.sleep(0)
            status, headers, _ = await whole(relay)
            assert (status, headers["Retry-After"]) == (503, "7")
            async with relay.session.get("/readyz") as ready:
                assert ready.status == 503
            upstream.release()
            assert text_of(events_of(await running.read())) == "Hello"
        await draining
        assert drain.active == 0


async def whole(relay):
    async with relay.session.post(CHAT, json=ASK) as answer:
        return answer.status, answer.headers, await answer.read()


async def test_whole_answers_are_refused_in_the_end():
    upstream = FaultServer(Answer.whole("Hello").stall(0))
    async with relaying(upstream) as relay:
        drain = Drain(0.05)
        drain.add(relay.service)
        asking = asyncio.create_task(relay.session.post(CHAT, json={**ASK, "stream": False}))
        await upstream.wait_for_stall()
        await drain.run()
        async with await asking as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"]
        await upstream.wait_until_closed()


async def test_a_signal_is_held_until_streams_are_over_and_then_passed_on():
    heard = asyncio.Event()
    seen = []

    def server(number, frame):
        seen.append(number)
        heard.set()

    before = signal.signal(signal.SIGTERM, server)
    try:
        drain, source = Drain(10), Reading()
        with holding_signals(drain):
            with drain.watch(source):
                signal.raise_signal(signal.SIGTERM)
                while not drain.draining:
                    await asyncio.sleep(0)
                assert not seen
            await heard.wait()
            assert seen == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is server
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_signals_that_nobody_handles_are_left_alone():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with holding_signals(Drain()):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


# -- deadlines and priorities --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "options", "expected"),
    [
        ({}, {}, (60, "interactive")),
        ({}, {"timeout": 5}, (5, "interactive")),
        ({}, {"timeout": 500, "priority": "batch"}, (60, "batch")),
        ({"x-request-timeout": "2.5"}, {}, (2.5, "interactive")),
        ({"x-request-timeout": "1e9"}, {}, (60, "interactive")),
        ({"x-request-priority": " Batch "}, {}, (60, "batch")),
        ({"x-request-priority": "interactive"}, {"priority": "batch"}, (60, "batch")),
    ],
)
def test_what_callers_ask_for(headers, options, expected):
    found = call_keywords(headers, max_timeout=60, **options)
    assert (found["timeout"], found["priority"]) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-timeout": value}
        for value in ("", "0", "-1", "nan", "inf", "1_0e400", "x", "1" * 40, "１")
    ]
    + [{"x-request-priority": value} for value in ("", "high", "batch,interactive")],
)
def test_headers_that_mean_nothing_are_refused(headers):
    with pytest.raises(RefusalError) as caught:
        call_keywords(headers, max_timeout=60)
    assert caught.value.status == 400
    assert caught.value.param.lower() in headers


@given(st.text(max_size=12))
def test_no_header_gets_more_than_is_granted(value):
    try:
        found = call_keywords({"x-request-timeout": value}, max_timeout=60)
    except RefusalError:
        return
    assert 0 < found["timeout"] <= 60


async def test_a_relay_grants_a_deadline_up_to_its_own():
    seen = []

    async def note(request, call_next):
        seen.append((request.timeout.total, request.timeout.idle, request.priority))
        return await call_next(request)

    upstream = FaultServer(default=STREAM)
    usual = Timeout(idle=7, total=20)
    client = {"middleware": [note]}
    async with relaying(upstream, client=client, max_timeout=30, timeout=usual) as relay:
        for headers in (
            {},
            {"X-Request-Timeout": "2.5"},
            {"X-Request-Timeout": "50", "X-Request-Priority": "batch"},
        ):
            status, _, events = await relay.events(headers=headers)
            assert (status, text_of(events)) == (200, "Hello")
        async with relay.ask(headers={"X-Request-Timeout": "soon"}) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["param"] == "X-Request-Timeout"
    assert seen == [(20, 7, "interactive"), (2.5, 7, "interactive"), (30, 7, "batch")]


async def test_without_a_limit_of_its_own_a_relay_takes_no_deadline():
    seen = []

    async def note(request, call_next):
        seen.append((request.timeout.total, request.priority))
        return await call_next(request)

    upstream = FaultServer(default=STREAM)
    async with relaying(upstream, client={"middleware": [note]}) as relay:
        await relay.events(headers={"X-Request-Timeout": "1", "X-Request-Priority": "batch"})
    assert seen == [(None, "interactive")]


# -- health --------------------------------------------------------------------------------------


async def test_health_tells_how_a_client_is_and_names_no_key():
    limit = RateLimit(requests_per_minute=100, tokens_per_minute=10_000, max_concurrency=5)
    async with FaultServer(HALF, STREAM) as server:
        async with AsyncKonko(KEY, base_url=server.base_url, rate_limit=limit) as client:
            assert client.pool == PoolStats()
            assert client.circuits == ()
            async with client.chat.completions.stream(**ASKED) as stream:
                assert client.pool == PoolStats(in_use=1, idle=0)
                found = health(client, active_streams=1)
                await server.wait_for_stall()
                server.release()
                await stream.completion()
            assert client.pool == PoolStats(in_use=0, idle=1)
        plain = found.as_dict()
        assert (plain["ready"], plain["status"], plain["active_streams"]) == (True, "ok", 1)
        assert (plain["pool"]["in_use"], plain["pool"]["idle"]) == (1, 0)
        (model,) = plain["limits"]
        assert (model["model"], model["in_flight"], model["waiting"]) == (MODEL, 1, 0)
        assert (model["requests_used"], model["requests_limit"]) == (1, 100)
        assert {c["state"] for c in plain["circuits"]} == {"closed"}
        shown = repr(plain)
        assert "canary" not in shown
        assert "127.0.0.1" not in shown
        assert client.circuits[0].origin not in shown
        closed = health(client)
        assert (closed.ready, closed.status, closed.pool) == (False, "closed", PoolStats())


async def test_an_open_circuit_degrades_but_does_not_take_out_of_service():
    breaker = CircuitBreaker(min_calls=1, min_duration=0)
    async with FaultServer(Answer.error(500)) as server:
        client = AsyncKonko(KEY, base_url=server.base_url, retry=None, circuit_breaker=breaker)
        async with client:
            with pytest.raises(InternalServerError):
                await client.chat.completions.create(**ASKED)
            with pytest.raises(CircuitOpenError):
                await client.chat.completions.create(**ASKED)
            found = health(client)
            assert (found.ready, found.status) == (True, "degraded")
            states = {c.model: c.state for c in found.circuits}
            assert states == {None: "closed", MODEL: "open"}
            assert health(client, draining=True).status == "draining"
            assert not health(client, draining=True).ready
            copy = client.with_options(circuit_breaker=None)
            assert copy.circuits == ()
            assert copy.pool == client.pool


async def test_the_connections_of_a_foreign_session_are_counted():
    async with Emulator() as emulator, aiohttp.ClientSession() as session:
        async with AsyncKonko(KEY, base_url=emulator.base_url, session=session) as client:
            await client.chat.completions.create(**ASKED)
            assert (client.pool.in_use, client.pool.idle) == (0, 1)


# -- clients of applications ---------------------------------------------------------------------


async def test_an_application_has_one_client_and_closes_it():
    async with Emulator() as emulator:
        second = web.AppKey("second", AsyncKonko)
        app = web.Application(middlewares=[error_middleware])
        app.cleanup_ctx.append(client_context(lambda: AsyncKonko(KEY, base_url=emulator.base_url)))
        other = AsyncKonko("other", base_url=FaultServer.refused_url(), retry=None)
        app.cleanup_ctx.append(client_context(other, key=second))

        async def ask(request):
            key = second if "other" in request.query else CLIENT
            completion = await request.app[key].chat.completions.create(**ASKED)
            return web.json_response({"text": completion.choices[0].message.content})

        app.router.add_get("/", ask)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            async with aiohttp.ClientSession(url) as session:
                async with session.get("/") as answer:
                    assert (await answer.json())["text"]
                async with session.get("/?other=1") as answer:
                    assert answer.status == 502
                    assert (await answer.json())["error"]["type"] == "upstream_error"
            client = app[CLIENT]
            assert not client.closed
        finally:
            await runner.cleanup()
        assert client.closed
        assert other.closed
