"""Records for observers, the history on errors and streams, lines in the log."""

# ruff: noqa: PT017 - either outcome may be right

import asyncio
import logging

import pytest
from client_kit import ASK, MODEL, ask, make_client, serving, text_of

from konko_async import (
    Attempt,
    AuthenticationError,
    CallRecord,
    ConfigurationError,
    RateLimitError,
    RetryPolicy,
    StreamTruncatedError,
    Timeout,
)
from konko_async.testing import Answer, FaultServer

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
STREAM = Answer.stream(["Hel", "lo"], usage=USAGE, headers={"x-request-id": "req-7"})
WHOLE = Answer.whole("Hello", usage=USAGE, headers={"x-request-id": "req-8"})
FAST = RetryPolicy(max_attempts=3, base_delay=0.001)
HALF = STREAM.stall(STREAM.wire.index(b'"lo"') - 120)


class Log(list):
    """An observer."""

    def __call__(self, record):
        self.append(record)

    @property
    def call(self):
        (record,) = (record for record in self if isinstance(record, CallRecord))
        return record

    @property
    def attempts(self):
        return [record for record in self if isinstance(record, Attempt)]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_ends_well(stream):
    log = Log()
    async with serving(FaultServer(STREAM if stream else WHOLE), observers=[log]) as client:
        await ask(client, stream=stream, priority="batch")
        call = log.call
        assert (call.operation, call.model, call.response_model) == ("chat", MODEL, MODEL)
        assert call.base_url == client.base_url
        assert (call.stream, call.priority, call.outcome, call.error_type) == (
            stream,
            "batch",
            "ok",
            None,
        )
        assert (call.prompt_tokens, call.completion_tokens) == (3, 2)
        assert 0 < call.time_to_first_token <= call.duration < 5
        assert call.request_id == ("req-7" if stream else "req-8")
        assert call.attempts == tuple(log.attempts)
        (attempt,) = log.attempts
        assert (attempt.number, attempt.status_code, attempt.error_type) == (1, 200, None)
        assert attempt.connect > 0
        assert (attempt.first_token is not None) == stream
        assert log.index(attempt) < log.index(call)
        await ask(client, stream=stream)
        assert log.attempts[-1].connect is None  # pooled


@pytest.mark.parametrize("stream", [False, True])
async def test_retries_are_attempts_of_one_call(stream):
    log = Log()
    server = FaultServer(Answer.hang_up(), Answer.error(503), STREAM if stream else WHOLE)
    async with serving(server, observers=[log], retry=FAST) as client:
        await ask(client, stream=stream)
    assert [a.number for a in log.attempts] == [1, 2, 3]
    assert [a.status_code for a in log.attempts] == [None, 503, 200]
    assert [a.error_type for a in log.call.attempts] == [
        "APIConnectionError",
        "InternalServerError",
        None,
    ]
    assert [a.retry_delay is not None for a in log.call.attempts] == [True, True, False]
    starts = [a.started for a in log.attempts]
    assert starts == sorted(starts)


async def test_the_history_on_an_error():
    log = Log()
    server = FaultServer(
        Answer.error(503), Answer.error(429, "slow down"), Answer.error(401, "who?")
    )
    async with serving(server, observers=[log], retry=FAST) as client:
        with pytest.raises(AuthenticationError) as caught:
            await ask(client, stream=True)
    assert [a.status_code for a in caught.value.attempts] == [503, 429, 401]
    assert caught.value.attempts == log.call.attempts
    assert (log.call.outcome, log.call.error_type) == ("error", "AuthenticationError")
    assert log.call.time_to_first_token is None


async def test_the_history_on_an_error_event_in_a_later_attempt():
    server = FaultServer(
        Answer.error(503), Answer.events(['{"error":{"message":"no","code":429}}'])
    )
    retry = RetryPolicy(max_attempts=2, base_delay=0.001)
    async with serving(server, retry=retry) as client:
        with pytest.raises(RateLimitError) as caught:
            await ask(client, stream=True)
        assert [a.error_type for a in caught.value.attempts] == [
            "InternalServerError",
            "RateLimitError",
        ]


@pytest.mark.parametrize(
    ("end", "outcome", "error_type"),
    [
        ("cut", "error", "StreamTruncatedError"),
        ("close", "closed", None),
        ("cancel", "cancelled", None),
        ("stall", "error", "StreamStalledError"),
    ],
)
async def test_how_streams_end(end, outcome, error_type):
    log = Log()
    server = FaultServer(HALF if end != "cut" else STREAM.cut(STREAM.wire.index(b'"lo"') - 120))
    timeout = Timeout(idle=0.05 if end == "stall" else 5)
    async with serving(server, observers=[log], timeout=timeout) as client:

        async def read():
            async with client.chat.completions.stream(**ASK) as stream:
                async for _ in stream:
                    if end == "close" and stream.usage is None and stream.time_to_first_token:
                        break

        task = asyncio.create_task(read())
        if end == "cancel":
            await server.wait_for_stall()
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        del task
        call = log.call
        assert (call.outcome, call.error_type) == (outcome, error_type) or end == "cancel"
        assert call.outcome == outcome
        assert call.request_id == "req-7" or end == "cancel"


async def test_a_call_cancelled_before_its_answer():
    log = Log()
    server = FaultServer(WHOLE.stall(0))
    async with serving(server, observers=[log]) as client:
        task = asyncio.create_task(ask(client, stream=False))
        await server.wait_for_request()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
    assert log.call.outcome == "cancelled"
    assert [a.error_type for a in log.attempts] == ["CancelledError"]


async def test_what_middleware_raises_is_recorded_too():
    async def broken(request, call_next):
        raise LookupError

    log = Log()
    async with serving(FaultServer(WHOLE), observers=[log], middleware=[broken]) as client:
        with pytest.raises(LookupError):
            await ask(client, stream=False)
    assert (log.call.outcome, log.call.error_type, log.call.attempts) == (
        "error",
        "LookupError",
        (),
    )


async def test_observers_that_fail_break_nothing(caplog):
    def broken(record):
        raise LookupError

    log = Log()
    async with serving(FaultServer(STREAM), observers=[broken, log]) as client:
        assert text_of(await ask(client, stream=True)) == "Hello"
    assert len(log) == 2
    assert "an observer failed" in caplog.text
    with pytest.raises(ConfigurationError):
        make_client(FaultServerNever(), observers=[3])


class FaultServerNever:
    base_url = "http://127.0.0.1:1/v1"


async def test_hedges_are_marked():
    log = Log()
    server = FaultServer(STREAM.stall(0), STREAM)
    async with serving(server, observers=[log], hedge_after=0.02) as client:
        assert text_of(await ask(client, stream=True)) == "Hello"
        await server.wait_until_closed(1)
    assert sorted((a.hedge, a.error_type) for a in log.attempts) == [
        (False, "CancelledError"),
        (True, None),
    ]
    assert len(log.call.attempts) == 2


async def test_no_text_of_anybody_in_records_and_logs(caplog):
    caplog.set_level(logging.DEBUG)
    secret, told = "prompt-5d4c3b", "answer-6e7f80"
    log = Log()
    stream = Answer.stream([told, told])
    answers = [
        Answer.whole(told), stream, stream.cut(stream.wire.rindex(told.encode())),
        Answer.events(['{"choices":[{"delta":{"content":"' + told + '"}}']), Answer.body(told.encode()),
    ]  # fmt: skip
    server = FaultServer(*answers)
    async with serving(server, observers=[log]) as client:
        for number in range(len(answers)):
            messages = [{"role": "user", "content": secret}]
            try:
                if number == 0:
                    await client.chat.completions.create(model=MODEL, messages=messages)
                else:
                    async with client.chat.completions.stream(
                        model=MODEL, messages=messages
                    ) as opened:
                        await opened.completion()
            except Exception as error:
                assert secret not in str(error) + repr(error)
                assert told not in str(error)
    shown = repr(log) + caplog.text
    assert secret not in shown
    assert told not in shown
    assert len([r for r in log if isinstance(r, CallRecord)]) == len(answers)


async def test_a_partial_of_a_cut_stream_and_its_attempts():
    server = FaultServer(Answer.error(500), STREAM.cut(STREAM.wire.index(b'"lo"') - 120))
    async with serving(server, retry=FAST) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert len(stream.attempts) == 2
        with pytest.raises(StreamTruncatedError) as caught:
            await stream.completion()
        assert caught.value.attempts == stream.attempts
        assert caught.value.request_id == caught.value.partial.request_id == "req-7"
