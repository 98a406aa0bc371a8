"""A canary key goes through every fault, and turns up nowhere but on the wire."""

# ruff: noqa: SIM117, PT017 - a line for each thing that is opened; either outcome may be right

import asyncio
import gc
import logging
import pickle
import traceback
import warnings

import aiohttp
import pytest
from client_kit import ASK, ask, make_client, text_of

from konko_async import AsyncKonko, Fallback, KonkoError, RateLimit, RetryPolicy, Timeout
from konko_async.testing import Answer, FaultServer

CANARY = "sk-canary-51c2e7d94ab8"
SECOND = "sk-canary-openai-0d1e2f"
THIRD = "sk-canary-header-9a8b7c"
FOURTH = "sk-canary-extra-6d5e4f"
FIFTH = "sk-canary-fallback-3c2b1a"
MARK = "sk-canary"
PROMPT = "canary-prompt-7e6f5d"
STREAM = Answer.stream(["Hel", "lo"])
WHOLE = Answer.whole("Hello")
AFTER_DELTA = STREAM.wire.index(b'"lo"') - 120

FAULTS = {
    "ok": STREAM,
    "whole": WHOLE,
    "hang up": Answer.hang_up("fin"),
    "reset": Answer.hang_up("rst"),
    "cut in head": STREAM.cut(30),
    "cut": STREAM.cut(AFTER_DELTA, "rst"),
    "fin": STREAM.cut(AFTER_DELTA),
    "bad chunk": STREAM.bad_chunk_size(2),
    "garbage": STREAM.status_line(b"garbage"),
    "length": WHOLE.content_length(20),
    "short length": WHOLE.content_length(-20),
    "gzip": Answer.body(b"xx", headers={"Content-Encoding": "gzip"}),
    "not json": Answer.body(b"<html>"),
    "bad event": Answer.events(['{"choices":[{"delta":{"content":"x"}}]}', "{broken"]),
    "error event": Answer.events(['{"error":{"message":"boom"}}']),
    "stall": STREAM.stall(AFTER_DELTA),
    "no head": STREAM.stall(0),
    "trickle": STREAM.trickle(1, 0.02),
    "redirect": Answer.body(b"", status=307, headers={"Location": "http://127.0.0.1:1/"}),
    "too long": Answer.body(b"x" * 5000),
    **{
        str(status): Answer.error(status)
        for status in (400, 401, 403, 404, 408, 409, 422, 429, 500, 503)
    },
}


def told(error, seen=None):
    """Everything that an exception shows: text, notes, attributes, tracebacks with locals.

    What stands in the frames of these tests is as visible as users make theirs: left out.
    """
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return ""
    seen.add(id(error))
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    lines = [repr(f.locals) for f in shown.stack if "/tests/" not in f.filename]
    lines += shown.format_exception_only()
    parts = [repr(error), str(error), "".join(lines), repr(vars(error)), repr(error.args)]
    parts += [told(error.__cause__, seen), told(error.__context__, seen)]
    return "\n".join(parts)


@pytest.fixture
def listening(caplog, capfd):
    """Log everything at DEBUG, asyncio's and aiohttp's too; gives what was logged and printed."""
    caplog.set_level(logging.DEBUG)
    for name in (
        "asyncio",
        "aiohttp",
        "aiohttp.client",
        "aiohttp.internal",
        "konko_async",
        "tenacity",
    ):
        logging.getLogger(name).setLevel(logging.DEBUG)

    def heard():
        out, err = capfd.readouterr()
        logged = [f"{r.getMessage()} {r.args!r} {r.exc_text or ''}" for r in caplog.records]
        return "\n".join([out, err, *logged])

    yield heard
    for name in (
        "asyncio",
        "aiohttp",
        "aiohttp.client",
        "aiohttp.internal",
        "konko_async",
        "tenacity",
    ):
        logging.getLogger(name).setLevel(logging.NOTSET)


def canary_client(server, records, **options):
    return AsyncKonko(
        CANARY,
        server.base_url,
        SECOND,
        default_headers={"X-Auth-Token": THIRD},
        observers=[records.append],
        rate_limit=RateLimit(requests_per_minute=10_000, tokens_per_minute=1e9, max_concurrency=8),
        timeout=Timeout(connect=1, first_token=0.25, idle=0.1),
        max_body_bytes=4000,
        **options,
    )


def assert_silent(text, what):
    for secret in (MARK, PROMPT):
        place = text.find(secret)
        assert place < 0, f"{secret} in {what}: …{text[max(0, place - 300) : place + 60]}"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", FAULTS)
async def test_the_key_turns_up_nowhere(name, stream, listening):
    asyncio.get_running_loop().set_debug(True)
    records = []
    server = FaultServer(FAULTS[name])
    retry = RetryPolicy(max_attempts=2, base_delay=0.0, max_retry_after=0)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with server, canary_client(server, records, retry=retry) as client:
            error = None
            try:
                await ask(client, stream=stream, extra_headers={"X-More": FOURTH})
            except KonkoError as failure:
                error = failure
            shown = [
                told(error),
                repr(client),
                repr(client.limits),
                repr(vars(client)),
                repr(records),
            ]
            if error is not None:
                shown.append(repr(pickle.dumps(error)))
                shown.append(told(pickle.loads(pickle.dumps(error))))  # noqa: S301 - our own bytes
                assert error.__cause__ is None
        gc.collect()
    # The prompt may stand in locals of a traceback, as the user put it there; it does not here.
    assert_silent("\n".join(shown), "what the client shows")
    assert_silent(listening(), "logs")
    assert_silent("\n".join(str(w.message) for w in warned), "warnings")
    assert server.requests or name in {"hang up", "reset"}


async def test_the_key_is_on_the_wire():
    """The tests above would pass with a key that is never sent."""
    async with FaultServer(WHOLE) as server:
        heads = []

        async def tap(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            heads.append(head)
            writer.write(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            await writer.wait_closed()

        listener = await asyncio.start_server(tap, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        async with listener:
            client = AsyncKonko(
                CANARY, url, SECOND, default_headers={"X-Auth-Token": THIRD}, retry=None
            )
            with pytest.raises(KonkoError):
                await ask(client, stream=False, extra_headers={"X-More": FOURTH})
            await client.close()
        del server
        text = heads[0].decode()
        assert f"Authorization: Bearer {CANARY}\r\n" in text
        assert f"X-OpenAI-Api-Key: {SECOND}\r\n" in text
        assert f"X-Auth-Token: {THIRD}\r\n" in text
        assert f"X-More: {FOURTH}\r\n" in text


@pytest.mark.parametrize("at", ["connecting", "head", "token", "backoff", "place"])
async def test_a_cancelled_call_shows_no_key(at, listening):
    records = []
    answers = {
        "head": STREAM.stall(0),
        "token": STREAM.stall(AFTER_DELTA),
        "backoff": Answer.error(503),
    }
    server = FaultServer(answers.get(at, STREAM.stall(0)))
    retry = RetryPolicy(base_delay=1000, max_delay=1000)
    async with server, canary_client(server, records, retry=retry) as client:
        patient = client.with_options(timeout=Timeout(), rate_limit=RateLimit(max_concurrency=1))
        other = None
        if at == "place":
            other = asyncio.create_task(ask(patient, stream=True))
            await server.wait_for_request()
        try:
            async with asyncio.timeout(0.0 if at == "connecting" else 0.05):
                await ask(patient, stream=True, extra_headers={"X-More": FOURTH})
        except TimeoutError as error:
            assert_silent(told(error), "a user's timeout")
            assert isinstance(error.__cause__, asyncio.CancelledError)
        else:
            pytest.fail("nothing was cancelled")
        if other is not None:
            other.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await other
            assert_silent(told(caught.value), "a cancellation")
    assert_silent(listening(), "logs")
    assert_silent(repr(records), "records")


async def test_hedges_and_fallbacks_show_no_key(listening):
    records = []
    first = FaultServer(STREAM.stall(0))
    second = FaultServer(Answer.error(500))
    async with first, second:
        fallback = Fallback(base_url=second.base_url, api_key=FIFTH)
        async with canary_client(
            first, records, retry=None, fallback_models=[fallback], hedge_after=0.01
        ) as client:
            with pytest.raises(KonkoError) as caught:
                await ask(client, stream=True)
            assert_silent(told(caught.value), "the error")
        assert len(first.requests) == 2
        headers = second.requests[0].headers
        assert "x-openai-api-key" not in headers
        assert "x-auth-token" not in headers
        assert headers["authorization"] == "[redacted]"
    assert_silent(listening(), "logs")
    assert_silent(repr(records), "records")


async def test_middleware_that_prints_requests_shows_no_key(listening):
    async def nosy(request, call_next):
        print(repr(request), str(request), f"{request}")  # noqa: T201 - what a user would do
        logging.getLogger("nosy").debug("%s %r", request, request)
        response = await call_next(request)
        print(repr(response))  # noqa: T201 - as above
        return response

    server = FaultServer(WHOLE)
    async with server, canary_client(server, [], middleware=[nosy]) as client:
        assert text_of(await ask(client, stream=False)) == "Hello"
    assert_silent(listening(), "what was printed")


async def test_clients_cannot_be_pickled():
    server = FaultServer(WHOLE)
    async with server:
        client = make_client(server, api_key=CANARY)
        for thing in (client, client._engine, client._engine.settings):
            with pytest.raises((TypeError, AttributeError, pickle.PicklingError)) as caught:
                pickle.dumps(thing)
            assert_silent(told(caught.value), "a refusal to pickle")
        assert_silent(repr(client._engine.settings), "settings")
        assert_silent(repr(client._engine.transport._headers), "headers")
        await client.close()


async def test_no_cookies_are_kept():
    server = FaultServer(Answer.whole("Hello", headers={"Set-Cookie": "session=1; Path=/"}))
    async with server, make_client(server) as client:
        await ask(client, stream=False)
        await ask(client, stream=False)
        assert "cookie" not in server.requests[1].headers


async def test_no_proxy_netrc_or_openai_key_of_the_environment(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("OPENAI_API_KEY", SECOND)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with FaultServer(WHOLE) as server, AsyncKonko(CANARY, server.base_url) as client:
        assert text_of(await client.chat.completions.create(**ASK)) == "Hello"
        assert "x-openai-api-key" not in server.requests[0].headers


async def test_a_foreign_session_adds_nothing_to_what_is_shown(listening):
    records = []
    server = FaultServer(Answer.error(400), STREAM.cut(AFTER_DELTA), STREAM.bad_chunk_size(2))
    async with server, aiohttp.ClientSession() as session:
        async with canary_client(server, records, retry=None, session=session) as client:
            for _ in range(3):
                with pytest.raises(KonkoError) as caught:
                    await ask(client, stream=True)
                assert_silent(told(caught.value), "the error")
    assert_silent(listening(), "logs")
