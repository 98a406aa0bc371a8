"""A stream straight to a browser: what arrives, when, and what happens when either end fails."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import json
import logging

import aiohttp
import openai
import pytest
from aiohttp import web
from relay_kit import (
    ASK,
    CHAT,
    KEY,
    MODEL,
    QUICK,
    chunks_of,
    events_of,
    read_until,
    relaying,
    text_of,
)

from konko_async import AsyncKonko, RetryPolicy, Timeout
from konko_async.relay import Delivery, OpenAIFormat
from konko_async.relay.aiohttp_web import stream_response
from konko_async.sse import SSEDecoder
from konko_async.testing import Answer, Emulator, FaultServer, faults

HELLO = Answer.stream(["Hel", "lo"])


def before(answer, text):
    """A place within the event that holds a text, before it."""
    return answer.wire.index(text) - 60


# -- what arrives ----------------------------------------------------------------------------------


async def test_headers_and_events():
    async with relaying(
        Emulator(answer=lambda _: ["Hel", "lo", " \u2028\r\n\0", "data: x"])
    ) as relay:
        status, headers, events = await relay.events()
    assert status == 200
    assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "X-Stream-Id" not in headers
    assert text_of(events) == "Hello \u2028\r\n\0data: x"
    assert {(event.event, event.id) for event in events} == {("message", None)}
    assert chunks_of(events)[-1]["choices"][0]["finish_reason"] == "stop"


async def test_whole_answers():
    async with relaying(Emulator(answer=lambda _: "Hello")) as relay:
        async with relay.ask({"stream": False}) as response:
            assert response.status == 200
            assert response.headers["Cache-Control"] == "no-store"
            assert (await response.json())["choices"][0]["message"]["content"] == "Hello"
        assert relay.service.running == 0


async def test_nothing_that_is_not_on_the_list_gets_through():
    emulator = Emulator()
    emulator.always(faults.Quirks(extra={"timings": "INTERNAL"}, extra_delta={"debug": "INTERNAL"}))
    async with relaying(emulator) as relay:
        for stream in (True, False):
            async with relay.ask({"stream": stream}) as response:
                assert response.status == 200
                assert "INTERNAL" not in await response.text()


async def test_the_figures_come_last():
    async with relaying(Emulator(), stats=True) as relay:
        _, _, events = await relay.events({"stream_options": {"include_usage": True}})
        told = chunks_of(events)[-1]
        assert told["object"] == "relay.stats"
        assert told["choices"] == []
        assert 0 < told["relay"]["time_to_first_token"] <= told["relay"]["duration"] < 5
        assert told["relay"]["usage"]["completion_tokens"] > 0


async def test_names_of_ones_own_for_models():
    async with relaying(emulator := Emulator(), models={"fast": MODEL, "other": "m"}) as relay:
        _, _, events = await relay.events()
        assert {chunk["model"] for chunk in chunks_of(events)} == {"fast"}
        assert emulator.requests[-1].body["model"] == MODEL
        async with relay.ask({"stream": False}) as response:
            assert (await response.json())["model"] == "fast"
        async with relay.session.get("/v1/models") as response:
            assert [m["id"] for m in (await response.json())["data"]] == ["fast", "other"]
        async with relay.ask({"model": MODEL}) as response:  # its own name is nobody's business
            assert response.status == 404


async def test_the_openai_client_reads_it():
    emulator = Emulator(answer=lambda _: ["Hel", "lo"])
    async with relaying(emulator, stats=True, open_early=True) as relay:
        url = f"http://127.0.0.1:{relay.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0) as client:
            ask = {"model": MODEL, "messages": ASK["messages"], "stream": True}
            chunks = [c async for c in await client.chat.completions.create(**ask)]
            assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello"
            emulator.script(faults.Cut(2))
            with pytest.raises(openai.APIError, match="cut off"):
                async for _ in await client.chat.completions.create(**ask):
                    pass


async def test_our_own_client_reads_it():
    async with relaying(FaultServer(HELLO, HELLO.cut(-60))) as relay:
        async with AsyncKonko("any", f"http://127.0.0.1:{relay.port}/v1", retry=None) as client:
            ask = {"model": MODEL, "messages": ASK["messages"]}
            assert (
                "".join([t async for t in client.chat.completions.stream(**ask).text()]) == "Hello"
            )


async def test_tokens_arrive_while_the_answer_is_still_being_made():
    server = FaultServer(HELLO.stall(before(HELLO, b'"lo"')))
    async with relaying(server) as relay, relay.ask() as response:
        decoder, texts = SSEDecoder(), ""
        while "Hel" not in texts:
            texts += "".join(event.data for event in decoder.feed(await response.content.readany()))
        await server.wait_for_stall()
        assert "[DONE]" not in texts
        server.release()
        rest = await response.read()
        assert b'"lo"' in rest
        assert rest.endswith(b"data: [DONE]\n\n")


async def test_merged_and_coalesced():
    emulator = Emulator(answer=lambda _: ["tok"] * 100, tokens_per_second=400)
    async with relaying(emulator, merge=True, delivery=Delivery(flush_every=0.1)) as relay:
        _, _, events = await relay.events()
    assert text_of(events) == "tok" * 100
    assert 3 <= len(events) < 40


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "type"),
    [
        (faults.Status(429, retry_after=0.01), 429, "rate_limited"),
        (faults.Status(500), 502, "upstream_error"),
        (faults.Status(503), 503, "overloaded"),
        (faults.Status(401), 502, "upstream_error"),
        (faults.Status(400, code="context_length_exceeded"), 400, "invalid_request_error"),
        (faults.Cut(0), 502, "upstream_error"),
        (faults.Cut(0, reset=False), 502, "upstream_error"),
        (faults.ErrorInStream(0), 502, "upstream_error"),
        (faults.Stall(), 504, "timeout"),
    ],
)
async def test_failures_before_the_first_delta_are_statuses(fault, status, type):
    emulator = Emulator()
    async with relaying(emulator, client={"timeout": Timeout(first_token=0.2)}) as relay:
        for stream in (True, False) if isinstance(fault, faults.Status) else (True,):
            emulator.script(fault)
            async with relay.ask({"stream": stream}) as response:
                assert response.status == status
                assert response.headers["Cache-Control"] == "no-store"
                error = (await response.json())["error"]
                assert error["type"] == type
                assert response.headers.get("Retry-After") == ("1" if status == 429 else None)
        assert relay.service.running == 0
        assert not relay.service.live


async def test_failures_before_the_first_delta_are_events_where_the_head_has_gone_out():
    emulator = Emulator()
    async with relaying(emulator, open_early=True) as relay:
        emulator.script(faults.Status(503))
        status, _, events = await relay.events()
        assert status == 200
        (chunk,) = chunks_of(events)
        assert chunk["error"]["type"] == "overloaded"


async def test_the_upstream_server_is_not_there():
    async with relaying(FaultServer(HELLO)) as relay:
        refused = AsyncKonko("k", FaultServer.refused_url(), retry=None)
        async with refused:
            relay.service._calls._client = refused
            async with relay.ask() as response:
                assert response.status == 502
                assert "127.0.0.1" not in await response.text()


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("early", [False, True])
async def test_cut_anywhere_it_never_looks_like_an_end(how, early):
    """Either an HTTP error, or events whose last ones say that it failed; or all of the text."""
    answer = Answer.stream(["Hel", "lo"], finish_reason=None)
    server = FaultServer(default=HELLO, keep_alive=False)
    failed = 0
    async with relaying(server, open_early=early) as relay:
        for at in range(0, len(answer), 23):
            server.push(answer.cut(at, how=how))
            status, _, events = await relay.events()
            if status != 200:
                assert not early
                failed += 1
                continue
            chunks = chunks_of(events)
            if "error" in chunks[-1]:
                assert chunks[-1]["error"]["type"] in {"stream_truncated", "upstream_error"}
                failed += 1
            else:
                assert text_of(events) == "Hello"
    assert failed > 10


@pytest.mark.parametrize(
    "fault",
    [faults.ErrorInStream(3), faults.MalformedJSON(3), faults.Cut(3), faults.Cut(3, reset=False)],
)
async def test_failures_after_the_first_delta_are_a_typed_event(fault):
    emulator = Emulator(answer=lambda _: ["Hel", "lo", "!"])
    async with relaying(emulator) as relay:
        emulator.script(fault)
        status, _, events = await relay.events()
        assert status == 200
        assert chunks_of(events)[-1]["error"]["type"] in {"upstream_error", "stream_truncated"}
        assert "Hel" in events[1].data


async def test_a_fault_of_ours_is_an_event_too(caplog):
    class Broken(OpenAIFormat):
        def take(self, _):
            raise LookupError(ASK["messages"][0]["content"])

    async def handler(request):
        stream = client.chat.completions.stream(model=MODEL, messages=ASK["messages"])
        return await stream_response(request, stream, format=Broken())

    async with FaultServer(HELLO) as server, AsyncKonko("k", server.base_url) as client:
        async with served(handler) as session, session.get("/") as response:
            (error,) = chunks_of(events_of(await response.read()))
            assert error["error"]["type"] == "internal_error"
    assert "LookupError" in caplog.text
    assert "Say hello" not in caplog.text


async def test_a_fault_where_no_task_is_woken_is_an_event_too(caplog, monkeypatch):
    """Chunks that come while a read waits are written by the connection that they came by."""
    monkeypatch.setenv("KONKO_ASYNC_FAST_PATH", "1")
    taken, at_once = 0, 0

    class Broken(OpenAIFormat):
        def take(self, batch):
            nonlocal taken, at_once
            if asyncio.current_task() is None:
                at_once += 1
                if at_once == 3:
                    raise LookupError
            elif at_once:
                raise AssertionError("of the batch that failed, nothing is written")
            taken += len(batch)
            return super().take(batch)

    async def handler(request):
        stream = client.chat.completions.stream(model=MODEL, messages=ASK["messages"])
        return await stream_response(request, stream, format=Broken())

    emulator = Emulator(answer=lambda _: ["tok"] * 8, tokens_per_second=100)
    async with emulator as server, AsyncKonko("k", server.base_url) as client:
        async with served(handler) as session, session.get("/") as response:
            *chunks, error = chunks_of(events_of(await response.read()))
    assert at_once == 3
    assert len(chunks) == taken
    assert error["error"]["type"] == "internal_error"
    assert "LookupError" in caplog.text


async def test_nothing_of_what_was_said_is_logged(caplog):
    caplog.set_level(logging.DEBUG)
    emulator = Emulator(answer=lambda _: ["PRIVATE", " words", " here"])
    async with relaying(
        emulator, client={"retry": RetryPolicy(max_attempts=2, base_delay=0.001)}
    ) as relay:
        for fault in (
            None,
            faults.Cut(3),
            faults.Status(500),
            faults.ErrorInStream(3),
            faults.MalformedJSON(3),
        ):
            emulator.script(fault, fault)
            for headers in ({}, {"X-Resumable": "1"}):
                await relay.events({"messages": [{"role": "user", "content": "PRIVATE"}]}, headers)
        async with relay.ask({"messages": [{"role": "PRIVATE", "content": "PRIVATE"}]}) as response:
            assert response.status == 400
    assert "stream failed: StreamTruncatedError" in caplog.text
    for record in caplog.records:
        shown = record.getMessage() + str(record.__dict__)
        assert "PRIVATE" not in shown
        assert KEY not in shown


# -- a handler of one's own ------------------------------------------------------------------------


class served:  # noqa: N801 - reads like the functions beside it
    """A handler of aiohttp.web, and a session to ask it."""

    def __init__(self, handler, **options):
        app = web.Application()
        app.router.add_get("/", handler)
        self.runner = web.AppRunner(app, shutdown_timeout=1, **options)

    async def __aenter__(self):
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{self.runner.addresses[0][1]}")
        return self.session

    async def __aexit__(self, *_):
        await self.session.close()
        await self.runner.cleanup()


@pytest.mark.parametrize("early", [False, True])
async def test_a_handler_of_ones_own(early):
    async def handler(request):
        stream = client.chat.completions.stream(model=MODEL, messages=ASK["messages"])
        return await stream_response(
            request, stream, open_early=early, format=OpenAIFormat(merge=True)
        )

    async with FaultServer(HELLO, Answer.error(429, "busy")) as server:
        async with (
            AsyncKonko("k", server.base_url, retry=None) as client,
            served(handler) as session,
        ):
            async with session.get("/") as response:
                assert text_of(events_of(await response.read())) == "Hello"
            async with session.get("/") as response:
                assert response.status == (200 if early else 429)
                assert "rate_limited" in await response.text()


@pytest.mark.parametrize("cancellation", [False, True])
@pytest.mark.parametrize("stalled", [0, before(HELLO, b'"lo"')])
async def test_a_browser_leaves_a_handler_of_ones_own(cancellation, stalled):
    async def handler(request):
        stream = client.chat.completions.stream(model=MODEL, messages=ASK["messages"])
        return await stream_response(request, stream, delivery=QUICK)

    async with FaultServer(HELLO.stall(stalled)) as server:
        async with AsyncKonko("k", server.base_url, retry=None) as client:
            async with served(handler, handler_cancellation=cancellation) as session:
                asking = asyncio.create_task(session.get("/"))
                await server.wait_for_stall()
                if stalled:
                    response = await asking
                    response.close()
                else:
                    asking.cancel()
                await server.wait_until_closed()
                assert server.connections.closed_by_peer == 1


# -- waiting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [False, True])
async def test_heartbeats_while_there_is_nothing_to_send(early):
    place = 0 if early else before(HELLO, b'"lo"')
    server = FaultServer(HELLO.stall(place))
    delivery = Delivery(heartbeat=0.04, look=0.02)
    async with (
        relaying(server, open_early=early, delivery=delivery) as relay,
        relay.ask() as response,
    ):
        data = b""
        while data.count(b": ping\n\n") < 3:
            data += await response.content.readany()
        assert (b"data: " in data) is not early
        server.release()
        data += await response.read()
        assert text_of(events_of(data)) == "Hello"


async def test_the_first_heartbeat_of_an_early_head_is_at_once():
    server = FaultServer(HELLO.stall(0))
    async with relaying(server, open_early=True) as relay, relay.ask() as response:
        assert response.status == 200
        assert await response.content.readany() == b": ping\n\n"
        await server.wait_for_stall()
        server.release()
        assert text_of(events_of(await response.read())) == "Hello"


# -- browsers that leave ---------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("place", [0, before(HELLO, b'"lo"')])
async def test_a_browser_that_leaves_cancels_upstream(place, early, reset):
    server = FaultServer(HELLO.stall(place), patience=1)  # a second, at most
    async with relaying(server, open_early=early, delivery=Delivery()) as relay:
        reader, writer = await relay.raw()
        if place:
            await read_until(reader, b'"Hel"')
        await server.wait_for_stall()
        if reset:
            writer.transport.abort()
        else:
            writer.close()
        await server.wait_until_closed()
        assert server.connections.closed_by_peer == 1
        await relay.service.until_idle()
        assert relay.service.running == 0
        assert sum(lane.in_flight for lane in relay.client.limits.lanes) == 0


async def test_a_browser_that_leaves_during_a_whole_answer_cancels_it():
    server = FaultServer(Answer.whole("Hello").stall(0))
    async with relaying(server) as relay:
        _, writer = await relay.raw({"stream": False})
        await server.wait_for_stall()
        writer.close()
        await server.wait_until_closed()


class Flood:
    """An upstream server that sends as fast as it is let; counts what the socket took."""

    EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 1000)
    EVENTS = 40_000

    async def __aenter__(self):
        self.sent, self.stalled, self.closed = 0, asyncio.Event(), asyncio.Event()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    async def _serve(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        )
        timer = None
        try:
            for _ in range(self.EVENTS):
                writer.write(self.EVENT)
                timer = asyncio.get_running_loop().call_later(0.3, self.stalled.set)
                await writer.drain()
                timer.cancel()
                self.sent += len(self.EVENT)
            writer.write(b"data: [DONE]\n\n")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            timer.cancel()
            writer.transport.abort()
            self.closed.set()


async def test_a_slow_browser_holds_the_server_up():
    async with relaying(flood := Flood()) as relay:
        reader, writer = await relay.raw()
        await flood.stalled.wait()
        assert flood.sent < 20_000_000 < Flood.EVENTS * len(Flood.EVENT)
        async with asyncio.timeout(60):  # it leaves while a write waits for it
            writer.transport.abort()
            await flood.closed.wait()
        assert reader.at_eof() is False


async def test_a_slow_browser_gets_all_of_it_in_the_end():
    emulator = Emulator(answer=lambda _: ["x" * 1000] * 3000)
    async with relaying(emulator) as relay, relay.ask() as response:
        await emulator.wait_until(lambda: emulator.requests)
        data = b""
        async for piece in response.content.iter_chunked(65536):
            data += piece
            await asyncio.sleep(0)
    assert text_of(events_of(data)) == "x" * 3_000_000


async def test_a_browser_that_takes_nothing_for_long_is_let_go():
    delivery = Delivery(look=0.05, write_timeout=0.3)
    async with relaying(flood := Flood(), delivery=delivery) as relay:
        reader, writer = await relay.raw()
        await asyncio.wait_for(flood.closed.wait(), 30)
        await relay.service.until_idle()
        data = b""
        while piece := await reader.read(2**20):
            data = data[-100:] + piece
        assert not data.endswith(b"0\r\n\r\n")  # cut, and visibly so
        writer.close()


# -- the end ---------------------------------------------------------------------------------------


async def test_a_shutdown_ends_streams_with_an_event():
    server = FaultServer(HELLO.stall(before(HELLO, b'"lo"')))
    async with relaying(server) as relay, relay.ask() as response:
        data = await response.content.readany()
        await server.wait_for_stall()
        await relay.service.close()
        data += await response.read()
        assert chunks_of(events_of(data))[-1]["relay"] == {"reason": "shutdown"}
        async with relay.ask() as late:
            assert late.status == 503
            assert late.headers["Retry-After"] == "5"
        await relay.service.until_idle()
        await server.wait_until_closed()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_shutdown_ends_what_is_waited_for(stream):
    server = FaultServer(HELLO.stall(0))
    async with relaying(server) as relay:
        asking = asyncio.create_task(relay.events({"stream": stream}))
        await server.wait_for_stall()
        await relay.service.close()
        status, headers, _ = await asking
        assert status == 503
        assert "Retry-After" in headers
        await relay.service.until_idle()
        await server.wait_until_closed()


async def test_a_shutdown_ends_what_has_not_begun():
    server = FaultServer(HELLO.stall(0))
    async with relaying(server, open_early=True) as relay, relay.ask() as response:
        await server.wait_for_stall()
        await relay.service.close()
        assert b"relay.shutdown" in await response.read()
        await server.wait_until_closed()


async def test_half_a_hundred_at_once():
    emulator = Emulator(tokens_per_second=300)
    async with relaying(emulator) as relay:
        found = await asyncio.gather(*(relay.events() for _ in range(50)))
    assert len({text_of(events) for _, _, events in found}) == 1


async def test_paths_below_a_prefix():
    from konko_async.relay import RelayOptions, RelayService
    from konko_async.relay.aiohttp_web import add_routes

    async with FaultServer(HELLO) as server, AsyncKonko("k", server.base_url) as client:
        app = web.Application()
        service = RelayService(client, RelayOptions(models=[MODEL]), auth="open", host="::1")
        add_routes(app, service, "/deep/relay")
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with aiohttp.ClientSession(url) as session:
            async with session.post(f"/deep/relay{CHAT}", json=ASK) as response:
                assert text_of(events_of(await response.read())) == "Hello"
            async with session.get("/healthz") as response:
                assert response.status == 404
            async with session.get("/deep/relay/healthz") as response:
                assert json.loads(await response.read()) == {"status": "ok"}
        await runner.cleanup()
