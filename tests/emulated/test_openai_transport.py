"""openai's own client over our pipeline: limits, retries, cancellation, streams and errors."""

import asyncio
import base64
import logging

import pytest
from client_kit import KEY, MESSAGES, MODEL, in_flight, pooled

from konko_async import AsyncKonko, ConfigurationError, RateLimit, RetryPolicy, Timeout
from konko_async.integrations.openai import http_client
from konko_async.testing import Answer, Emulator, FaultServer, faults

openai = pytest.importorskip("openai")

QUICK = RetryPolicy(max_attempts=3, base_delay=0.001, budget_ratio=None)
ASK = {"model": MODEL, "messages": MESSAGES}


class Both:
    """A client of ours and one of openai's over it."""

    def __init__(self, server, *, openai_options=None, **options):
        self.ours = AsyncKonko(KEY, server.base_url, **{"retry": QUICK, **options})
        self.openai = openai.AsyncOpenAI(
            base_url=self.ours.base_url,
            api_key="not-the-key",
            max_retries=0,
            http_client=http_client(self.ours),
            **(openai_options or {}),
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.openai.close()
        assert not self.ours.closed  # it is the caller's
        assert pooled(self.ours)[1] == 0
        assert in_flight(self.ours) == 0
        await self.ours.close()


@pytest.fixture
async def emulator():
    async with Emulator() as running:
        yield running


async def test_whole_answers_of_all_endpoints(emulator):
    records = []
    async with Both(emulator, observers=[records.append]) as both:
        completion = await both.openai.chat.completions.create(**ASK)
        theirs = openai.AsyncOpenAI(base_url=emulator.base_url, api_key=KEY)
        async with theirs:
            same = await theirs.chat.completions.create(**ASK)
        listed = await both.openai.models.list()
        model = await both.openai.models.retrieve(MODEL)
        vectors = await both.openai.embeddings.create(model="thenlper/gte-base", input=["a", "b"])
    drop = {"id", "created"}
    assert completion.model_dump(exclude=drop) == same.model_dump(exclude=drop)
    assert completion._request_id.startswith("req")
    assert model.id == MODEL
    assert MODEL in {each.id for each in listed.data}
    assert len(vectors.data) == 2
    sent = emulator.requests[0]
    assert sent.headers["user-agent"].startswith("AsyncOpenAI/Python")
    assert sent.headers["x-stainless-lang"] == "python"
    # Ours, not the one that openai was given.
    assert sent.key_fingerprint == emulator.requests[1].key_fingerprint
    calls = [record for record in records if hasattr(record, "operation")]
    assert [call.operation for call in calls] == ["chat", "models", "models", "embeddings"]
    assert calls[0].completion_tokens == completion.usage.completion_tokens
    assert calls[0].response_model == MODEL
    assert calls[0].response_id == completion.id
    assert calls[0].finish_reasons == (completion.choices[0].finish_reason,)


@pytest.mark.parametrize("stream", [False, True])
async def test_retries_are_ours(emulator, stream):
    emulator.script(
        faults.Status(503), faults.Status(429, retry_after_ms=1), path="/chat/completions"
    )
    async with Both(emulator) as both:
        answer = await both.openai.chat.completions.create(**ASK, stream=stream)
        if stream:
            assert [chunk async for chunk in answer]
    assert emulator.received == 3
    keys = {record.idempotency_key for record in emulator.requests}
    assert len(keys) == 1


async def test_an_error_at_the_start_of_a_stream_is_retried(emulator):
    emulator.script(faults.ErrorInStream(after_chunks=0, code=503), path="/chat/completions")
    async with Both(emulator) as both:
        stream = await both.openai.chat.completions.create(**ASK, stream=True)
        assert [chunk async for chunk in stream]
    assert emulator.received == 2


async def test_errors_are_what_openai_makes_of_the_bytes(emulator):
    error = {
        "error": {"message": "no such thing", "type": "t", "code": "c", "param": "p"},
        "more": 1,
    }
    emulator.always(faults.Status(422, body=error, headers={"x-more": "yes"}))
    async with Both(emulator) as both:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            await both.openai.chat.completions.create(**ASK)
    raised = caught.value
    assert raised.body == error["error"]
    assert (raised.code, raised.param, raised.type) == ("c", "p", "t")
    assert raised.response.json() == error
    assert raised.response.headers["x-more"] == "yes"
    assert raised.request_id == emulator.requests[0].request_id
    assert emulator.received == 1


@pytest.mark.parametrize("retry", [QUICK, None])
async def test_openai_does_not_repeat_what_was_repeated(emulator, retry, caplog):
    emulator.always(faults.Status(500, retry_after_ms=1))
    caplog.set_level(logging.WARNING, "konko_async.openai")
    async with Both(emulator, retry=retry) as both:
        again = both.openai.with_options(max_retries=2)
        with pytest.raises(openai.InternalServerError):
            await again.chat.completions.create(**ASK)
    # Without retries of ours openai's are the user's choice.
    assert emulator.received == 3
    assert ("max_retries=0" in caplog.text) == (retry is None)


async def test_errors_inside_of_a_200_without_a_status_are_left_to_openai(emulator):
    emulator.always(faults.ErrorInStream(after_chunks=0, shape="text", message="odd"))
    async with Both(emulator) as both:
        stream = await both.openai.chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIError, match="error"):
            [chunk async for chunk in stream]


@pytest.mark.parametrize("stream", [False, True])
async def test_limits_hold_by_the_servers_count(emulator, stream):
    emulator.latency = 0.02
    async with Both(emulator, rate_limit=RateLimit(max_concurrency=3)) as both:

        async def call():
            answer = await both.openai.chat.completions.create(**ASK, stream=stream)
            if stream:
                async for _ in answer:
                    pass

        await asyncio.gather(*[call() for _ in range(12)])
        (lane,) = both.ours.limits.lanes
        assert lane.model == MODEL
    assert emulator.peak_in_flight == 3
    assert emulator.received == 12


async def test_token_limits_settle_with_what_was_used(emulator):
    limit = RateLimit(tokens_per_minute=1_000_000)
    async with Both(emulator, rate_limit=limit) as both:
        usage = {"include_usage": True}
        stream = await both.openai.chat.completions.create(**ASK, stream=True, stream_options=usage)
        used = [chunk.usage async for chunk in stream][-1].total_tokens
        (lane,) = both.ours.limits.lanes
        assert lane.tokens.used == used


async def test_a_cancelled_call_closes_its_socket(emulator):
    emulator.always(faults.Stall())
    async with Both(emulator, rate_limit=RateLimit(max_concurrency=1)) as both:
        task = asyncio.create_task(both.openai.chat.completions.create(**ASK))
        async with asyncio.timeout(60):
            while not emulator.in_flight:
                await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(60):
            while emulator.in_flight:
                await asyncio.sleep(0.001)
        assert emulator.requests[0].disconnected


@pytest.mark.parametrize("how", ["break", "cancel", "close"])
async def test_a_stream_that_is_left_closes_its_socket(emulator, how):
    emulator.always(faults.Stall(after_chunks=2))
    records = []
    async with Both(emulator, observers=[records.append]) as both:
        stream = await both.openai.chat.completions.create(**ASK, stream=True)
        if how == "break":
            async with stream:
                async for _ in stream:
                    break
        elif how == "close":
            await stream.close()
        else:

            async def read():
                async for _ in stream:
                    arrived.set()

            arrived = asyncio.Event()
            task = asyncio.create_task(read())
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with asyncio.timeout(60):
            while emulator.in_flight:
                await asyncio.sleep(0.001)
        assert emulator.requests[0].disconnected
    assert records[-1].outcome == ("cancelled" if how == "cancel" else "closed")
    assert records[-1].response_model == MODEL
    assert records[-1].chunks == records[-1].estimated_completion_tokens == 2


async def test_streams_come_as_they_are_and_connections_are_used_again(emulator):
    async with Both(emulator) as both:
        for _ in range(3):
            stream = await both.openai.chat.completions.create(**ASK, stream=True)
            text = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
            assert text
        assert emulator.connections == 1
        raw = await both.openai.chat.completions.with_raw_response.create(**ASK)
        assert raw.headers["content-type"].startswith("application/json")
        assert raw.parse().choices[0].message.content == text
        async with both.openai.chat.completions.with_streaming_response.create(**ASK) as opened:
            assert b"".join([part async for part in opened.iter_bytes()]).startswith(b"{")


async def test_a_first_token_comes_before_the_last(emulator):
    emulator.always(faults.Stall(after_chunks=1))
    async with Both(emulator) as both:
        stream = await both.openai.chat.completions.create(**ASK, stream=True)
        assert await anext(aiter(stream))
        await stream.close()


async def test_a_cut_stream_is_an_error(emulator):
    emulator.always(faults.Cut(after_chunks=2))
    async with Both(emulator) as both:
        stream = await both.openai.chat.completions.create(**ASK, stream=True)
        with pytest.raises(openai.APIConnectionError) as caught:
            [chunk async for chunk in stream]
    assert "cut" in str(caught.value.__cause__)


@pytest.mark.parametrize("per_call", [True, False])
async def test_timeouts(emulator, per_call):
    emulator.always(faults.Stall())
    options = {"timeout": 0.05} if per_call else {}
    timeout = Timeout() if per_call else Timeout(first_token=0.05)
    async with Both(emulator, retry=None, timeout=timeout) as both:
        with pytest.raises(openai.APITimeoutError):
            await both.openai.chat.completions.create(**ASK, **options)


async def test_local_limits_are_timeouts_and_refused_connections_are_connection_errors(emulator):
    async with Both(
        emulator, timeout=Timeout(total=0.05), rate_limit=RateLimit(requests_per_minute=1, burst=1)
    ) as both:
        await both.openai.chat.completions.create(**ASK)
        with pytest.raises(openai.APITimeoutError):
            await both.openai.chat.completions.create(**ASK)
    nobody = FaultServer(WHOLE)
    async with nobody:
        both = Both(nobody, retry=None)
    async with both:
        with pytest.raises(openai.APIConnectionError):
            await both.openai.chat.completions.create(**ASK)


WHOLE = Answer.whole("Hello")


async def test_other_paths_pass():
    seen = []

    def answer(request):
        seen.append(request)
        if "audio" in request.path:
            return Answer.body(b'{"text":"hello"}')
        return Answer.body(
            b'{"id":"r","object":"response","created_at":1,"model":"m","output":[],"error":null,'
            b'"status":"completed","parallel_tool_calls":true,"tool_choice":"auto","tools":[],'
            b'"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}'
        )

    records = []
    async with FaultServer(answer) as server, Both(server, observers=[records.append]) as both:
        response = await both.openai.responses.create(model="m", input="hello")
        heard = await both.openai.audio.transcriptions.create(
            model="whisper", file=("a.wav", b"RIFF\x00\xff")
        )
        assert {lane.model for lane in both.ours.limits.lanes} == {"m", "whisper"}
    assert response.usage.output_tokens == 4
    assert heard.text == "hello"
    assert b"RIFF\x00\xff" in seen[1].body
    assert seen[1].headers["content-type"].startswith("multipart/form-data; boundary=")
    calls = [record for record in records if hasattr(record, "operation")]
    assert [(c.operation, c.completion_tokens) for c in calls] == [
        ("responses", 4),
        ("audio/transcriptions", None),
    ]


async def test_another_base_url_is_refused(emulator):
    async with Both(emulator) as both:
        elsewhere = both.openai.with_options(base_url="http://localhost:9/v1")
        with pytest.raises(ConfigurationError, match=r"base_url=client\.base_url"):
            await elsewhere.chat.completions.create(**ASK)
    assert not emulator.received


async def test_queries_and_keys(emulator):
    options = {"default_query": {"api-version": "1"}, "default_headers": {"x-a": "b"}}
    async with Both(emulator, openai_options=options) as both:
        await both.openai.chat.completions.create(**ASK, extra_query={"q": ["1", "2"]})
        with pytest.raises(ConfigurationError):
            http_client(both.openai)
    sent = emulator.requests[0]
    assert sent.headers["x-a"] == "b"
    query = sent.path.partition("?")[2]
    assert "api-version=1" in query
    assert query.count("q") == 2


async def test_a_client_of_ours_calls_any_path(emulator):
    async with AsyncKonko(KEY, emulator.base_url, retry=QUICK) as client:
        emulator.script(faults.Status(503), None)
        answer = await client.request("post", "/chat/completions", {**ASK, "n": 1})
        assert answer.status_code == 200
        assert b'"choices"' in await answer.read()
        assert len(answer.attempts) == 2
        assert answer.usage.total > 0
        async with await client.request(
            "POST", "/chat/completions", {**ASK, "stream": True}, stream=True
        ) as opened:
            body = b"".join([piece async for piece in opened.aiter_bytes()])
        assert body.rstrip().endswith(b"data: [DONE]")
        assert opened.is_closed
        for path in ("chat", "//evil", "/a/../b", "/a?b=1", "https://evil"):
            with pytest.raises(ConfigurationError):
                await client.request("GET", path)
        for wrong in (1, "text", {"a": object()}):
            with pytest.raises(ConfigurationError):
                await client.request("POST", "/x", wrong)


async def test_keys_that_come_back_are_masked():
    echo = Answer.body(base64.b64encode(b"x"), headers={"x-echo": f"Bearer {KEY}"})
    async with FaultServer(echo) as server, AsyncKonko(KEY, server.base_url) as client:
        answer = await client.request("GET", "/x")
        assert KEY not in str(dict(answer.headers))
