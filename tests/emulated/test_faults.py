"""Each network and protocol fault, as a typed error or as a retry that nobody notices."""

# ruff: noqa: SIM117, PT017 - a line for each thing that is opened; either outcome may be right

import asyncio
import json
import ssl
import tracemalloc

import pytest
import trustme
from client_kit import ASK, KEY, ask, in_flight, make_client, pooled, serving, text_of

from konko_async import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncKonko,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    RateLimit,
    RateLimitError,
    ResponseDecodeError,
    RetryPolicy,
    StreamServerError,
    StreamTruncatedError,
    Timeout,
    UnprocessableEntityError,
)
from konko_async.testing import Answer, FaultServer

FAST = RetryPolicy(max_attempts=3, base_delay=0.001)
STREAM = Answer.stream(["Hel", "lo"])
WHOLE = Answer.whole("Hello")
LIMIT = RateLimit(requests_per_minute=1000, tokens_per_minute=1_000_000)


def after_first_delta(answer=STREAM):
    return answer.wire.index(b"\n\n", answer.wire.index(b'"Hel"')) + 4


# -- connecting ------------------------------------------------------------------------------------


async def test_refused_is_retried_and_charges_nothing():
    async with AsyncKonko(KEY, FaultServer.refused_url(), retry=FAST, rate_limit=LIMIT) as client:
        with pytest.raises(APIConnectionError, match="cannot connect to 127") as caught:
            await ask(client, stream=True)
        assert len(caught.value.attempts) == 3
        assert caught.value.request_sent is False
        (lane,) = client.limits.lanes
        assert (lane.requests.used, lane.tokens.used, lane.in_flight) == (0, 0, 0)


async def test_a_name_that_does_not_resolve():
    timeout = Timeout(connect=100)
    async with AsyncKonko(
        KEY, "https://nowhere.invalid/v1", retry=FAST, timeout=timeout, rate_limit=LIMIT
    ) as client:
        with pytest.raises(APIConnectionError, match=r"nowhere\.invalid") as caught:
            await ask(client, stream=False)
        assert caught.value.request_sent is False
        assert len(caught.value.attempts) == 3
        assert client.limits.lanes[0].requests.used == 0


def _tls(name, *, trusted):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    del trusted
    return context


@pytest.mark.parametrize("name", ["127.0.0.1", "other.example"])
async def test_a_bad_certificate_names_its_cause_and_is_not_retried(name, monkeypatch):
    for off in ("PYTHONHTTPSVERIFY", "SSL_NO_VERIFY", "NODE_TLS_REJECT_UNAUTHORIZED"):
        monkeypatch.setenv(off, "0")
    async with FaultServer(WHOLE, ssl_context=_tls(name, trusted=False)) as server:
        async with make_client(server, retry=FAST) as client:
            with pytest.raises(APIConnectionError, match="certificate") as caught:
                await ask(client, stream=False)
            assert not caught.value.retryable
            assert len(caught.value.attempts) == 1
            assert server.requests == ()


async def test_a_certificate_for_another_host(monkeypatch):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.example").configure_cert(context)
    with authority.cert_pem.tempfile() as path:
        monkeypatch.setenv("SSL_CERT_FILE", path)  # trusted, as a system's store would say
        import aiohttp

        trusting = ssl.create_default_context(cafile=path)
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting))
        async with session, FaultServer(WHOLE, ssl_context=context) as server:
            async with make_client(server, retry=FAST, session=session) as client:
                with pytest.raises(
                    APIConnectionError, match=r"(?i)mismatch|not valid for"
                ) as caught:
                    await ask(client, stream=False)
                assert len(caught.value.attempts) == 1


async def test_tls_that_works_streams():
    import aiohttp

    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting))
    async with session, FaultServer(STREAM, ssl_context=context) as server:
        async with make_client(server, session=session) as client:
            assert text_of(await ask(client, stream=True)) == "Hello"


# -- before a delta: retried; after one: partial ---------------------------------------------------

BROKEN_HEADS = {
    "fin at accept": Answer.hang_up("fin"),
    "rst at accept": Answer.hang_up("rst"),
    "fin before headers": STREAM.cut(0, "fin"),
    "rst before headers": STREAM.cut(0, "rst"),
    "fin in headers": STREAM.cut(30, "fin"),
    "rst in headers": STREAM.cut(30, "rst"),
    "garbage status line": STREAM.status_line(b"HTP/1.1 2OO"),
    "binary": Answer.raw(bytes(range(256))),
    "status 000": STREAM.status_line(b"HTTP/1.1 000 OK"),
    "status 101": STREAM.status_line(b"HTTP/1.1 101 Switching Protocols"),
    "bad chunk size": STREAM.bad_chunk_size(0),
    "bad second chunk size": STREAM.bad_chunk_size(1),
    "half a header": Answer.raw(b"HTTP/1.1 200 OK\r\nContent-Type"),
    "negative length": Answer.raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"),
    "length of letters": Answer.raw(b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nhello"),
    "unknown coding": Answer.body(b"xxxx", headers={"Content-Encoding": "gzip"}),
    "empty body": Answer.body(b""),
    "cut json": Answer.whole("Hello").truncate_body(5),
    "cut json, closed": Answer.whole("Hello", framing="close").truncate_body(5),
    "cut gzip": Answer.whole("Hello" * 100, gzip=True).truncate_body(60),
    "too long a length": Answer.whole("Hello").content_length(10),
    "too short a length": Answer.whole("Hello").content_length(-10),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", BROKEN_HEADS)
async def test_before_the_first_delta_it_is_retried(name, stream):
    if stream and name in {"cut json", "cut json, closed", "cut gzip", "too short a length"}:
        pytest.skip("no event stream at all: see the test of other bodies")
    good = STREAM if stream else WHOLE
    server = FaultServer(BROKEN_HEADS[name], good)
    async with serving(server, retry=FAST) as client:
        assert text_of(await ask(client, stream=stream)) == "Hello"
        assert in_flight(client) == 0
    server = FaultServer(BROKEN_HEADS[name])
    async with serving(server) as client:
        with pytest.raises(APIError) as caught:
            await ask(client, stream=stream)
        # Never "bad request", as aiohttp words some of these.
        assert not isinstance(caught.value, (APIStatusError, APITimeoutError)), repr(caught.value)
        assert caught.value.partial is None
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert in_flight(client) == 0
        assert pooled(client)[1] == 0


AFTER = after_first_delta()
BROKEN_STREAMS = {
    "fin": STREAM.cut(AFTER, "fin"),
    "rst": STREAM.cut(AFTER, "rst"),
    "bad chunk size": STREAM.bad_chunk_size(2),
    "closed": Answer.stream(["Hel", "lo"], framing="close").cut(
        after_first_delta(Answer.stream(["Hel", "lo"], framing="close"))
    ),
    "length too long": Answer.stream(
        ["Hel"], framing="length", done=False, finish_reason=None
    ).content_length(50),
    "length too short": Answer.stream(["Hel", "lo"], framing="length").content_length(-300),
    "no end": Answer.stream(["Hel"], done=False, finish_reason=None),
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
async def test_after_the_first_delta_what_came_is_kept(name):
    server = FaultServer(BROKEN_STREAMS[name], STREAM)
    async with serving(server, retry=FAST) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(StreamTruncatedError) as caught:
            await stream.completion()
        partial = caught.value.partial
        assert text_of(partial).startswith("Hel")
        assert partial.choices[0].finish_reason is None
        assert len(server.requests) == 1
        assert len(caught.value.attempts) == 1
        assert in_flight(client) == 0
        assert pooled(client)[1] == 0


async def test_what_had_arrived_comes_before_the_reset():
    """A slow consumer loses nothing that was there before the connection broke."""
    whole = STREAM.cut(len(STREAM) - 3, "fin")  # everything but the end of the framing
    server = FaultServer(whole)
    async with serving(server) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        await server.wait_until_closed()
        assert text_of(await stream.completion()) == "Hello"


async def test_an_idle_connection_found_dead_is_retried():
    """At once and on another connection: it says nothing of the server, so it is no attempt."""
    server = FaultServer(WHOLE)
    async with serving(server, retry=None) as client:
        for how in ("rst", "fin"):
            await ask(client, stream=False)
            await server.wait_until_idle()
            assert server.kill_idle(how) == 1
            assert text_of(await ask(client, stream=False)) == "Hello"


@pytest.mark.parametrize("index", range(4))
async def test_a_bad_chunk_size_is_noticed_at_once(index):
    server = FaultServer(STREAM.bad_chunk_size(index))
    started = asyncio.get_running_loop().time()
    async with serving(server, timeout=Timeout(first_token=30, idle=30)) as client:
        try:
            completion = await ask(client, stream=True)
        except (StreamTruncatedError, APIConnectionError) as error:
            assert index < 4
            assert (error.partial is not None) == (index >= 2)
        else:
            assert text_of(completion) == "Hello"  # its finish_reason was there
    assert asyncio.get_running_loop().time() - started < 5


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize(
    ("done", "finish_reason"),
    [(True, "stop"), (False, "stop"), (True, None)],
    ids=["both", "no done", "no reason"],
)
async def test_either_end_is_an_end(framing, done, finish_reason):
    answer = Answer.stream(["Hel", "lo"], done=done, finish_reason=finish_reason, framing=framing)
    async with serving(FaultServer(answer)) as client:
        completion = await ask(client, stream=True)
        assert text_of(completion) == "Hello"
        assert completion.choices[0].finish_reason == finish_reason


@pytest.mark.parametrize("missing", [1, 2])
async def test_done_without_its_empty_line_is_an_end(missing):
    answer = Answer.stream(["Hel", "lo"], finish_reason=None, framing="close")
    async with serving(FaultServer(answer.cut(-missing))) as client:
        assert text_of(await ask(client, stream=True)) == "Hello"
    async with serving(FaultServer(answer.cut(-3))) as client:  # "[DONE" is no end
        with pytest.raises(StreamTruncatedError):
            await ask(client, stream=True)


async def test_one_choice_of_two_is_not_all():
    events = [
        '{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}',
        '{"choices":[{"index":1,"delta":{"content":"b"}}]}',
    ]
    async with serving(FaultServer(Answer.events(events))) as client:
        with pytest.raises(StreamTruncatedError) as caught:
            await ask(client, stream=True, n=2)
        assert [choice.message.content for choice in caught.value.partial.choices] == ["a", "b"]


async def test_done_without_a_choice_is_no_answer():
    async with serving(FaultServer(Answer.events(["[DONE]"]))) as client:
        with pytest.raises(StreamTruncatedError):
            await ask(client, stream=True)


async def test_two_hundred_streams_use_one_connection():
    server = FaultServer(STREAM)
    async with serving(server) as client:
        for _ in range(100):
            async with client.chat.completions.stream(**ASK) as stream:
                assert [text async for text in stream.text()] == ["Hel", "lo"]
        for _ in range(100):
            await ask(client, stream=True)
        assert server.connections.opened == 1
        assert pooled(client) == (1, 0)


async def test_a_body_kept_open_after_done_costs_a_tenth_of_a_second():
    server = FaultServer(STREAM.stall(len(STREAM) - 5))
    async with serving(server) as client:
        started = asyncio.get_running_loop().time()
        assert text_of(await ask(client, stream=True)) == "Hello"
        assert 0.09 < asyncio.get_running_loop().time() - started < 3
        await server.wait_until_closed()


async def test_errors_whose_body_was_read_keep_the_connection():
    server = FaultServer(Answer.error(500), Answer.error(429), Answer.error(400), WHOLE)
    async with serving(server) as client:
        for kind in (InternalServerError, RateLimitError, BadRequestError):
            with pytest.raises(kind):
                await ask(client, stream=True)
        await ask(client, stream=False)
        assert server.connections.opened == 1


# -- errors inside a 200 ---------------------------------------------------------------------------

IN_STREAM = {
    "error object": Answer.events(['{"error":{"message":"boom","type":"server_error"}}']),
    "error text": Answer.events(['{"error":"boom"}']),
    "event error": Answer.events(['{"message":"boom"}'], name="error"),
    "event error, text": Answer.events(["boom"], name="error"),
    "object error": Answer.events(
        ['{"object":"error","message":"boom","type":"internal_error","code":500}']
    ),
    "detail": Answer.events(['{"detail":"boom"}']),
    "json body": Answer.body(b'{"error":{"message":"boom","type":"server_error"}}'),
}
ONE = '{"choices":[{"index":0,"delta":{"content":"Hel"}}]}'


@pytest.mark.parametrize("name", IN_STREAM)
async def test_an_error_in_the_stream_before_the_first_delta_is_retried(name):
    server = FaultServer(IN_STREAM[name], STREAM)
    async with serving(server, retry=FAST) as client:
        assert text_of(await ask(client, stream=True)) == "Hello"
    async with serving(FaultServer(IN_STREAM[name])) as client:
        with pytest.raises((StreamServerError, APIStatusError), match="boom"):
            await ask(client, stream=True)


@pytest.mark.parametrize("name", [name for name in IN_STREAM if name != "json body"])
async def test_an_error_in_the_stream_after_a_delta_has_partial(name):
    error = IN_STREAM[name].shape.payload[0]
    server = FaultServer(
        Answer.body(
            [f"data: {ONE}\n\n".encode(), error],
            content_type="text/event-stream",
            framing="chunked",
        )
    )
    async with serving(server, retry=FAST) as client:
        with pytest.raises(StreamServerError, match="boom") as caught:
            await ask(client, stream=True)
        assert text_of(caught.value.partial) == "Hel"
        assert len(server.requests) == 1


async def test_an_error_that_names_a_status_is_that_status():
    body = (
        '{"error":{"message":"no credit","type":"insufficient_quota","code":"insufficient_quota"}}'
    )
    server = FaultServer(Answer.events([body]))
    async with serving(server, retry=FAST) as client:
        with pytest.raises(RateLimitError):
            await ask(client, stream=True)
        assert len(server.requests) == 1  # no wait mends that


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"boom","code":503}}',
        b'{"error":"boom"}',
        b'{"object":"error","message":"boom"}',
        b'{"detail":"boom"}',
    ],
)
async def test_an_error_in_a_whole_200(body):
    async with serving(FaultServer(Answer.body(body))) as client:
        with pytest.raises((StreamServerError, APIStatusError), match="boom"):
            await ask(client, stream=False)


# -- what is not what was promised -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>Sorry</html>", "text/html"),
        (b"", "text/event-stream"),
        (b"Hello", "text/plain"),
        (b"[1]", "application/json"),
        (WHOLE.shape.payload[0], "application/json"),
    ],
    ids=["html", "nothing", "text", "array", "completion"],
)
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_body_that_is_no_event_stream(body, kind, framing):
    async with serving(
        FaultServer(Answer.body(body, content_type=kind, framing=framing))
    ) as client:
        with pytest.raises((ResponseDecodeError, StreamTruncatedError)) as caught:
            await ask(client, stream=True)
        assert caught.value.partial is None


@pytest.mark.parametrize(
    "body",
    [b"<html>Sorry</html>", b"Hello", b"[1]", b"null", b"3", b'{"id":"x"}', b'{"choices":3}'],
)
async def test_a_whole_body_that_is_no_completion(body):
    async with serving(FaultServer(Answer.body(body))) as client:
        with pytest.raises(ResponseDecodeError) as caught:
            await ask(client, stream=False)
        assert caught.value.body == body


async def test_malformed_json_in_one_event():
    secret = "the quick brown fox"
    broken = ONE.replace("Hel", secret).replace("}}", "}")
    async with serving(FaultServer(Answer.events([ONE, broken]))) as client:
        with pytest.raises(ResponseDecodeError, match="at byte") as caught:
            await ask(client, stream=True)
        assert caught.value.offset is not None
        assert secret not in str(caught.value)
        assert text_of(caught.value.partial) == "Hel"


async def test_bytes_that_are_no_utf8_do_not_lose_the_stream():
    bad = ONE.encode().replace(b"Hel", b"\xff\xfel")
    last = b'{"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}'
    body = [b"data: " + each + b"\n\n" for each in (bad, last)]
    for pieces in (body, [b"".join(body)]):
        answer = Answer.body(pieces, content_type="text/event-stream", framing="chunked")
        async with serving(FaultServer(answer)) as client:
            assert text_of(await ask(client, stream=True)) == "\ufffd\ufffdllo"


async def test_invalid_utf8_in_a_whole_answer():
    body = WHOLE.shape.payload[0].replace(b"Hello", b"Hel\xff")
    async with serving(FaultServer(Answer.body(body))) as client:
        assert text_of(await ask(client, stream=False)) == "Hel\ufffd"


async def test_thousands_of_odd_events_in_one_read():
    odd = '{"choices":[],"usage":{}}'
    answer = Answer.body(
        "".join(f"data: {each}\n\n" for each in [ONE, *[odd] * 3000, "[DONE]"]).encode(),
        content_type="text/event-stream",
    )
    async with serving(FaultServer(answer)) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert len([chunk async for chunk in stream]) == 3001


# -- too much --------------------------------------------------------------------------------------


async def _peak(work):
    """Most memory that Python held while ``work`` ran, in bytes."""
    tracemalloc.start()
    try:
        await work
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


MB = 1024 * 1024


@pytest.mark.parametrize(
    ("answer", "stream"),
    [
        (Answer.endless_event(64 * MB), True),
        (Answer.gzip_bomb(256 * MB, prefix=b"data: ", content_type="text/event-stream"), True),
        (Answer.gzip_bomb(256 * MB, content_type="text/event-stream"), True),
        (Answer.gzip_bomb(256 * MB), True),
        (Answer.gzip_bomb(256 * MB), False),
        (Answer.gzip_bomb(256 * MB, fill=b"x", status=500), False),
    ],
    ids=["event", "bomb event", "bomb of blanks", "bomb for a stream", "bomb", "bomb of an error"],
)
async def test_more_than_anybody_can_take(answer, stream):
    server = FaultServer(answer)
    async with serving(
        server, max_body_bytes=8 * MB, timeout=Timeout(first_token=60, idle=60)
    ) as client:

        async def work():
            with pytest.raises(APIError) as caught:
                await ask(client, stream=stream)
            assert not isinstance(caught.value, APITimeoutError)
            assert len(getattr(caught.value, "body", b"") or b"") <= 64 * 1024

        assert await _peak(work()) < 80 * MB
        await server.wait_until_closed()


async def test_a_whole_answer_up_to_the_cap_is_read():
    server = FaultServer(Answer.whole("x" * 100_000), Answer.whole("x" * 100_000, gzip=True))
    async with serving(server, max_body_bytes=101_000) as client:
        assert len(text_of(await ask(client, stream=False))) == 100_000
        assert len(text_of(await ask(client, stream=False))) == 100_000
    async with serving(FaultServer(Answer.whole("x" * 100_000)), max_body_bytes=100_000) as client:
        with pytest.raises(ResponseDecodeError, match="max_body_bytes"):
            await ask(client, stream=False)


@pytest.mark.parametrize("size", [500, 70_000, 3_000_000])
async def test_an_explanation_is_cut_to_what_anybody_reads(size):
    server = FaultServer(Answer.body(b"x" * size, status=500, content_type="text/plain"))
    async with serving(server) as client:
        with pytest.raises(InternalServerError) as caught:
            await ask(client, stream=False)
        assert len(caught.value.message) < 550
        assert len(caught.value.body) == min(size, 64 * 1024)


# -- statuses --------------------------------------------------------------------------------------

KINDS = {
    400: BadRequestError, 401: AuthenticationError, 403: PermissionDeniedError, 404: NotFoundError,
    409: ConflictError, 422: UnprocessableEntityError, 429: RateLimitError, 408: APIStatusError,
    500: InternalServerError, 502: InternalServerError, 503: InternalServerError, 504: InternalServerError, 529: InternalServerError,
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "body",
    [b'{"error":{"message":"boom","type":"t","param":"p","code":"c"}}', b"<html>boom</html>", b""],
)
@pytest.mark.parametrize("status", KINDS)
async def test_statuses_are_typed(status, body, stream):
    server = FaultServer(Answer.body(body, status=status, headers={"x-request-id": "req-1"}))
    async with serving(server, retry=RetryPolicy(max_attempts=2, base_delay=0.0)) as client:
        with pytest.raises(KINDS[status]) as caught:
            await ask(client, stream=stream)
        error = caught.value
        assert error.status_code == status
        assert error.request_id == "req-1"
        retried = status not in {400, 401, 403, 404, 422}
        assert len(server.requests) == len(error.attempts) == (2 if retried else 1)
        assert [attempt.status_code for attempt in error.attempts] == [status] * len(error.attempts)
        if body.startswith(b"{"):
            assert (error.code, error.type, error.param) == ("c", "t", "p")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 304])
async def test_redirects_are_never_followed(status):
    async with FaultServer(WHOLE) as thief:
        location = {"Location": thief.base_url + "/chat/completions"}
        server = FaultServer(Answer.body(b"", status=status, headers=location))
        async with serving(server, retry=FAST) as client:
            with pytest.raises(APIStatusError, match="redirect"):
                await ask(client, stream=False)
            with pytest.raises(APIStatusError, match="redirect"):
                await client.models.list()
        assert thief.connections.opened == 0


async def test_every_attempt_has_the_same_idempotency_key():
    server = FaultServer(
        Answer.error(503), Answer.hang_up(), Answer.whole("Hello"), Answer.whole("Hello")
    )
    async with serving(server, retry=FAST) as client:
        await ask(client, stream=False)
        await ask(client, stream=False)
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert len(set(keys[:-1])) == 1
    assert keys[-1] != keys[0]


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0b"])
@pytest.mark.parametrize(
    "use",
    [
        lambda client, value: ask(client, stream=False, extra_headers={"X-A": value}),
        lambda client, value: ask(client, stream=False, extra_headers={value: "x"}),
        lambda client, value: client.models.retrieve(value),
        lambda client, value: client.chat.completions.create(model=value, messages=ASK["messages"]),
    ],
)
async def test_line_breaks_never_leave(value, use):
    server = FaultServer(WHOLE)
    async with serving(server) as client:
        with pytest.raises(ConfigurationError) as caught:
            await use(client, value)
        assert value not in str(caught.value)
        assert server.connections.opened == 0
    for argument in (
        {"api_key": value},
        {"openai_api_key": value},
        {"default_headers": {"X": value}},
    ):
        with pytest.raises(ConfigurationError) as caught:
            AsyncKonko(**{"api_key": KEY, **argument})
        assert value not in str(caught.value)


async def test_odd_extras_are_configuration_errors():
    async with serving(FaultServer(WHOLE)) as client:
        for extra in (
            {"extra_query": {"a": object()}},
            {"extra_query": 3},
            {"extra_headers": 3},
            {"extra_headers": {"X": 3}},
            {"extra_body": 3},
            {"extra_body": {"x": object()}},
            {"timeout": "soon"},
            {"priority": "high"},
        ):
            with pytest.raises(ConfigurationError):
                await ask(client, stream=False, **extra)


async def test_extras_reach_the_server():
    server = FaultServer(WHOLE)
    async with serving(server) as client:
        await ask(
            client,
            stream=False,
            extra_query={"a": "1 2", "b": 3},
            extra_headers={"X-Extra": "yes"},
            extra_body={"custom": [1], "model": "other"},
            temperature=0.5,
        )
    (request,) = server.requests
    assert request.path == "/v1/chat/completions?a=1+2&b=3"
    assert request.headers["x-extra"] == "yes"
    assert json.loads(request.body) == {**ASK, "temperature": 0.5, "custom": [1], "model": "other"}
