"""A canary key goes through every fault, and turns up nowhere but on the wire."""

# ruff: noqa: SIM117, PT017 - a line for each thing that is opened; either outcome may be right

import asyncio
import gc
import json
import logging
import pickle
import traceback
import warnings

import aiohttp
import pytest
from client_kit import ASK, ask, make_client, text_of

from konko_async import (
    AsyncKonko,
    Endpoint,
    Fallback,
    KonkoError,
    RateLimit,
    RetryPolicy,
    Timeout,
)
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


def canary_client(server, records, *, max_body=4000, **options):
    return AsyncKonko(
        CANARY,
        server.base_url,
        SECOND,
        default_headers={"X-Auth-Token": THIRD},
        observers=[records.append],
        rate_limit=RateLimit(requests_per_minute=10_000, tokens_per_minute=1e9, max_concurrency=8),
        timeout=Timeout(connect=1, first_token=0.25, idle=0.1),
        max_body_bytes=max_body,
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


ECHO = f"{CANARY} {SECOND} {THIRD} {FOURTH}"
REFUSAL = json.dumps({"error": {"message": f"wrong keys: {ECHO}", "code": ECHO, "type": ECHO}})
ESCAPED = "".join(f"\\u{ord(character):04x}" for character in ECHO)
DELTA = '{"choices":[{"index":0,"delta":{"content":"x"}}]}'
ECHOES = {
    "error": Answer.body(REFUSAL.encode(), status=401),
    "error in HTML": Answer.body(f"<p>{ECHO}</p>".encode(), status=403),
    "error, escaped": Answer.body(b'{"error": {"message": "%b"}}' % ESCAPED.encode(), status=400),
    "error, broken": Answer.body(b'{"error": {"message": "%b' % ESCAPED.encode(), status=500),
    "error in UTF-16": Answer.body(REFUSAL.encode("utf-16"), status=401),
    "error in UTF-16, unmarked": Answer.body(REFUSAL.encode("utf-16-le"), status=500),
    "no JSON, in UTF-16": Answer.body(f"<html>{ECHO}".encode("utf-16-be")),
    "error, cut": Answer.body(b"x" * (64 * 1024 - 15) + CANARY.encode(), status=500),
    "message, cut": Answer.body(b"x" * 470 + CANARY.encode(), status=404),
    "error in a 200": Answer.body(REFUSAL.encode()),
    "no JSON": Answer.body(f"<html>{ECHO}</html>".encode()),
    "error event": Answer.events([REFUSAL]),
    "error event after a delta": Answer.events([DELTA, REFUSAL]),
    "no JSON in an event": Answer.events([DELTA, f"{{{ECHO}"]),
    "location": Answer.body(b"", status=302, headers={"Location": f"https://x.test/?k={ECHO}"}),
    "header": Answer.body(b"{}", status=401, headers={"X-Echo": f"Bearer {ECHO}"}),
    "request id": Answer.body(b"{}", status=401, headers={"X-Request-Id": ECHO}),
    "request id of a stream": Answer.events([DELTA, REFUSAL], headers={"X-Request-Id": ECHO}),
    "retry-after": Answer.body(b"", status=429, headers={"Retry-After": ECHO}),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", ECHOES)
async def test_a_server_that_repeats_the_keys_shows_none(name, stream, listening):
    records = []
    server = FaultServer(ECHOES[name])
    retry = RetryPolicy(max_attempts=2, base_delay=0.0, max_retry_after=0)
    async with server, canary_client(server, records, retry=retry, max_body=10**6) as client:
        with pytest.raises(KonkoError) as caught:
            await ask(client, stream=stream, extra_headers={"X-More": FOURTH})
    error = caught.value
    shown = told(error)
    assert_silent("\n".join([shown, repr(pickle.dumps(error)), repr(records)]), "what is shown")
    assert_silent(listening(), "logs")
    assert error.attempts
    if name not in {"error, cut", "message, cut", "retry-after"}:
        assert "<redacted>" in shown


async def test_a_fallbacks_own_key_is_masked_as_well(listening):
    records = []
    second = FaultServer(Answer.body(f'{{"error": "no such key {FIFTH}"}}'.encode(), status=401))
    async with FaultServer(Answer.error(503)) as first, second:
        fallback = Fallback(base_url=second.base_url, api_key=FIFTH)
        async with canary_client(first, records, retry=None, fallback_models=[fallback]) as client:
            with pytest.raises(KonkoError) as caught:
                await ask(client, stream=False)
    assert caught.value.message == "HTTP 401: no such key <redacted>"
    assert_silent(told(caught.value), "the error")
    assert_silent(repr(records), "records")


def refusing(words):
    return FaultServer(Answer.body(json.dumps({"error": {"message": words}}).encode(), status=503))


def one_of(error, records):
    return f"{told(error)} {records!r}"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_gateway_may_repeat_what_it_got_on_another_way(stream):
    """It may stand before several servers, and know what was sent to each of them."""
    records = []
    async with refusing(f"keys: {CANARY}, {FIFTH}") as first, refusing(CANARY) as second:
        fallback = Fallback(base_url=second.base_url, api_key=FIFTH)
        async with canary_client(first, records, retry=None, fallback_models=[fallback]) as client:
            with pytest.raises(KonkoError) as caught:
                await ask(client, stream=stream)
    assert len(caught.value.attempts) == 2
    assert_silent(one_of(caught.value, records), "what is shown")


async def test_keys_of_other_endpoints_are_masked_until_they_are_removed():
    records, own = [], {"X-Auth": THIRD}
    async with refusing(f"known: {CANARY} {SECOND} {THIRD} {FOURTH}") as server:
        first = Endpoint(server.base_url, api_key=CANARY, headers=own, query={"code": FOURTH})
        second = Endpoint(server.base_url, api_key=SECOND, name="second")
        options = {"endpoints": [first, second], "retry": None, "observers": [records.append]}
        async with AsyncKonko(**options) as client:
            for _ in range(4):
                with pytest.raises(KonkoError) as caught:
                    await ask(client, stream=False)
                assert_silent(one_of(caught.value, records), "what is shown")
                assert str(caught.value).count("<redacted>") == 4
            assert (
                len({attempt.endpoint for attempt in records if hasattr(attempt, "endpoint")}) > 1
            )


async def test_a_key_in_the_query_is_in_no_local_variable():
    async with refusing(f"no: {FOURTH}") as server:
        async with canary_client(server, [], retry=None) as client:
            for stream in (False, True):
                with pytest.raises(KonkoError) as caught:
                    await ask(client, stream=stream, extra_query={"key": FOURTH})
                assert_silent(told(caught.value), "the error")
        assert f"key={FOURTH}" in server.requests[0].path


async def test_the_id_of_a_request_that_succeeds_is_masked_as_well():
    headers = {"X-Request-Id": CANARY}
    for stream in (False, True):
        answer = Answer.stream(headers=headers) if stream else Answer.whole(headers=headers)
        server = FaultServer(answer)
        records = []
        async with server, canary_client(server, records, retry=None) as client:
            completion = await ask(client, stream=stream)
            assert completion.request_id == "<redacted>"
            assert_silent(repr(records), "records")


@pytest.mark.parametrize("key", ["1", "null", "token", "ollama", "x", "EMPTY", "not-needed"])
async def test_a_dummy_key_takes_no_meaning_out_of_an_error(key):
    body = {
        "error": {
            "message": "You exceeded your quota at ollama: 1 token, null, x, EMPTY, not-needed",
            "type": "insufficient_quota", "param": None, "code": "insufficient_quota",
        }
    }  # fmt: skip
    server = FaultServer(Answer.body(json.dumps(body).encode(), status=429))
    async with server, make_client(server, api_key=key, retry=RetryPolicy()) as client:
        with pytest.raises(KonkoError) as caught:
            await ask(client, stream=False)
    assert caught.value.body == body
    assert caught.value.code == "insufficient_quota"
    assert caught.value.message == f"HTTP 429: {body['error']['message']}"
    assert len(server.requests) == 1


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
        print(repr(response))  # noqa: T201 - what a user would do
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
    async with server:
        # Cookie jars ignore what an IP address sets: only a name would show that one is at work.
        base_url = server.base_url.replace("127.0.0.1", "localhost")
        async with AsyncKonko(CANARY, base_url, retry=None) as client:
            await ask(client, stream=False)
            await ask(client, stream=False)
        assert len(server.requests) == 2
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
