"""Separate deadlines for connecting, the first token, silence between tokens, and all of it."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import contextlib

import pytest
from client_kit import ASK, ask, in_flight, make_client, others, serving, text_of

from konko_async import (
    APITimeoutError,
    AsyncKonko,
    InternalServerError,
    RetryPolicy,
    StreamStalledError,
    Timeout,
)
from konko_async.testing import Answer, FaultServer

SHORT = 0.05
STREAM = Answer.stream(["Hel", "lo", "!"])


def start_of(token, answer=STREAM):
    """Where the chunk that brings a token begins."""
    event = answer.wire.rindex(b"data:", 0, answer.wire.index(b'"%b"' % token))
    return answer.wire.rindex(b"\r\n", 0, event - 2) + 2


AFTER_FIRST = start_of(b"lo")
FAST_RETRY = RetryPolicy(max_attempts=3, base_delay=0.001)


async def after(seconds):
    """Let time pass where the passing of time is what is tested."""
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, done.set)
    await done.wait()


async def test_a_tls_handshake_that_never_ends_is_a_connect_timeout():
    accepted = asyncio.Event()
    left = asyncio.Event()

    async def silent(reader, writer):
        accepted.set()
        with contextlib.suppress(ConnectionError):
            while await reader.read(1024):
                pass
        writer.close()
        left.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server, AsyncKonko("k", url, retry=None, timeout=Timeout(connect=SHORT)) as client:
        with pytest.raises(APITimeoutError) as caught:
            await ask(client, stream=False)
        assert caught.value.phase == "connect"
        assert caught.value.request_sent is False
        assert caught.value.attempts[0].connect >= SHORT * 0.9
        assert accepted.is_set()
        await asyncio.wait_for(left.wait(), 30)
        assert client.limits.lanes[0].requests.used == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_slow_loris_headers(stream):
    server = FaultServer(STREAM.trickle(1, 0.01))
    async with serving(server, timeout=Timeout(first_token=SHORT)) as client:
        with pytest.raises(APITimeoutError) as caught:
            await ask(client, stream=stream)
        assert caught.value.phase == "first_token"
        await server.wait_until_closed()


@pytest.mark.parametrize(
    "answer",
    [
        STREAM.heartbeats(0.01),
        STREAM.stall(STREAM.head_size),
        STREAM.stall(0),
        # The role alone is no token.
        STREAM.stall(start_of(b"Hel")),
        STREAM.heartbeats(0.01, start_of(b"Hel")),
    ],
    ids=["heartbeats", "after head", "silence", "after role", "heartbeats after role"],
)
async def test_no_first_token(answer):
    server = FaultServer(answer)
    async with serving(server, timeout=Timeout(first_token=SHORT)) as client:
        with pytest.raises(APITimeoutError) as caught:
            await client.chat.completions.create(**ASK, stream=True)
        assert caught.value.phase == "first_token"
        assert in_flight(client) == 0
        await server.wait_until_closed()


async def test_the_first_token_has_its_own_time_however_short_the_silence_may_be():
    server = FaultServer(STREAM.pause(start_of(b"Hel"), 3 * SHORT))
    async with serving(server, timeout=Timeout(first_token=60, idle=SHORT)) as client:
        assert text_of(await ask(client, stream=True)) == "Hello!"


@pytest.mark.parametrize(
    "answer",
    [
        STREAM.stall(AFTER_FIRST),
        STREAM.heartbeats(0.01, AFTER_FIRST),
        # Chunks that bring nothing are no tokens either.
        Answer.events(
            ['{"choices":[{"index":0,"delta":{"content":"Hel"}}]}']
            + ['{"choices":[{"index":0,"delta":{"content":""}}]}'] * 200
        ).trickle(100, 0.01),
        Answer.events(
            ['{"choices":[{"index":0,"delta":{"content":"Hel"}}]}'] + ['{"choices":[]}'] * 500
        ).trickle(50, 0.01),
    ],
    ids=["half-open", "heartbeats", "empty deltas", "empty chunks"],
)
async def test_silence_between_tokens(answer):
    server = FaultServer(answer)
    async with serving(server, timeout=Timeout(idle=SHORT)) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(StreamStalledError) as caught:
            async for _ in stream:
                pass
        assert text_of(caught.value.partial) == "Hel"
        assert len(caught.value.attempts) == 1
        assert in_flight(client) == 0
        await server.wait_until_closed()
        with pytest.raises(StreamStalledError):  # also when asked again
            await stream.completion()


async def test_a_consumer_that_takes_its_time_is_not_a_silent_server():
    server = FaultServer(STREAM.stall(AFTER_FIRST))
    async with serving(server, timeout=Timeout(idle=6 * SHORT)) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            texts = stream.text()
            assert await anext(texts) == "Hel"
            await after(10 * SHORT)
            assert not stream.closed
            server.release()
            assert await anext(texts) == "lo"
            await after(10 * SHORT)
            assert [text async for text in texts] == ["!"]
            assert text_of(await stream.completion()) == "Hello!"


async def test_the_silence_goes_on_where_the_consumer_left_it():
    server = FaultServer(STREAM.stall(AFTER_FIRST))
    async with serving(server, timeout=Timeout(idle=4 * SHORT)) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            texts = stream.text()
            await anext(texts)
            started = asyncio.get_running_loop().time()
            with pytest.raises(StreamStalledError):
                while True:  # many short waits are one long silence
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(SHORT):
                            await anext(texts)
            assert asyncio.get_running_loop().time() - started < 3


async def test_total_while_the_stream_is_read():
    server = FaultServer(STREAM.heartbeats(0.01, AFTER_FIRST))
    async with serving(server, timeout=Timeout(total=2 * SHORT)) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        with pytest.raises(APITimeoutError) as caught:
            await stream.completion()
        assert caught.value.phase == "total"
        assert not caught.value.retryable
        assert text_of(caught.value.partial) == "Hel"
        await server.wait_until_closed()


async def test_total_while_nobody_reads():
    server = FaultServer(STREAM.stall(AFTER_FIRST))
    ended = asyncio.Event()
    async with serving(
        server, timeout=Timeout(total=2 * SHORT), observers=[lambda _: stream and ended.set()]
    ) as client:
        stream = None
        stream = await client.chat.completions.create(**ASK, stream=True)
        await ended.wait()
        await server.wait_until_closed()
        assert stream.closed
        assert in_flight(client) == 0
        with pytest.raises(APITimeoutError) as caught:
            await stream.completion()
        assert text_of(caught.value.partial) == "Hel"


@pytest.mark.parametrize("stream", [False, True])
async def test_total_covers_all_attempts(stream):
    server = FaultServer(Answer.error(503), Answer.error(503), STREAM.stall(0))
    async with serving(server, retry=FAST_RETRY) as client:
        started = asyncio.get_running_loop().time()
        with pytest.raises(APITimeoutError) as caught:
            await ask(client, stream=stream, timeout=3 * SHORT)
        assert caught.value.phase == "total"
        assert asyncio.get_running_loop().time() - started < 3
        assert [a.status_code for a in caught.value.attempts] == [503, 503, None]


async def test_each_attempt_has_its_own_time():
    server = FaultServer(STREAM.stall(0), Answer.whole("Hello").stall(-5), Answer.whole("Hello"))
    retry = RetryPolicy(base_delay=0.001, attempt_timeout=5 * SHORT)
    async with serving(server, retry=retry) as client:
        completion = await ask(client, stream=False)
        assert text_of(completion) == "Hello"
        assert len(server.requests) == 3
        assert server.connections.closed_by_peer == 2


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_whole_answer_that_stops_half_way(framing):
    whole = Answer.whole("Hello", framing=framing)
    server = FaultServer(whole.stall(whole.head_size + 20))
    async with serving(server, timeout=Timeout(idle=SHORT)) as client:
        with pytest.raises(APITimeoutError, match="no whole answer") as caught:
            await ask(client, stream=False)
        assert caught.value.phase == "first_token"
        await server.wait_until_closed()
        with pytest.raises(APITimeoutError) as caught:
            await ask(client, stream=False, timeout=Timeout(total=SHORT))
        assert caught.value.phase == "total"


async def test_a_slow_whole_answer_is_no_silent_one():
    server = FaultServer(Answer.whole("Hello").trickle(20, 0.05))  # nearly a second in all
    async with serving(server, timeout=Timeout(idle=0.6)) as client:
        assert text_of(await ask(client, stream=False)) == "Hello"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_explanation_that_stops_half_way_does_not_hide_the_status(stream):
    error = Answer.error(500, "the reason")
    server = FaultServer(error.stall(error.head_size + 30))
    async with serving(server, timeout=Timeout(idle=SHORT, first_token=5)) as client:
        with pytest.raises(InternalServerError):
            await ask(client, stream=stream)
        await server.wait_until_closed()


async def test_silence_after_every_choice_has_ended_is_success():
    answer = Answer.stream(["Hel", "lo"], done=False)
    server = FaultServer(answer.stall(len(answer) - 5))
    async with serving(server, timeout=Timeout(idle=SHORT)) as client:
        assert text_of(await ask(client, stream=True)) == "Hello"
        await server.wait_until_closed()


def stops(*texts):
    """Chunks of a server that says "stop" in each of them."""
    return [
        f'{{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":"stop"}}]}}'
        for text in texts
    ]


async def test_a_finish_reason_is_not_the_end():
    """What comes later than anybody would wait for an end that was said already is read all the same."""
    whole = Answer.events([*stops("One, ", "two, ", "three."), "[DONE]"])
    paused = whole.pause(start_of(b"three.", whole), 6.0)
    server = FaultServer(paused)

    async def read():
        async with serving(server, timeout=Timeout(first_token=60, idle=60)) as client:
            return text_of(await ask(client, stream=True))

    assert await read() == "One, two, three."


async def test_silence_behind_a_finish_reason_that_was_none_is_an_error():
    """A server that has gone on after a finish_reason may do so again."""
    whole = Answer.events([*stops("One, ", "two, ", "three."), "[DONE]"])
    server = FaultServer(whole.stall(start_of(b"three.", whole)))
    async with serving(server, timeout=Timeout(idle=SHORT)) as client:
        with pytest.raises(StreamStalledError) as caught:
            await ask(client, stream=True)
        assert text_of(caught.value.partial) == "One, two, "


@pytest.mark.parametrize(
    ("answer", "doing"),
    [
        (STREAM.stall(0), "waiting for the answer"),
        (STREAM.stall(AFTER_FIRST), "waiting for the next token"),
        (Answer.error(503), "before attempt 2"),
    ],
)
async def test_a_timeout_of_the_users_names_what_was_waited_for(answer, doing):
    server = FaultServer(answer)
    async with serving(server, retry=RetryPolicy(base_delay=1000, max_delay=1000)) as client:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(SHORT):
                await ask(client, stream=True)
        assert type(caught.value) is TimeoutError
        notes = "\n".join(caught.value.__cause__.__notes__)
        assert doing in notes
        assert "codellama" in notes
        assert others() == set()
        assert in_flight(client) == 0


async def test_waiting_for_the_rate_limit_is_named():
    server = FaultServer(STREAM.stall(0))
    from konko_async import RateLimit

    async with serving(server, rate_limit=RateLimit(max_concurrency=1)) as client:
        first = asyncio.create_task(ask(client, stream=False))
        await server.wait_for_request()
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(SHORT):
                await ask(client, stream=False)
        assert "rate limit" in "\n".join(caught.value.__cause__.__notes__)
        assert client.limits.lanes[0].waiting.interactive == 0
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert in_flight(client) == 0


async def test_a_deadline_in_the_past_sends_nothing_late():
    server = FaultServer(STREAM)
    async with server:
        client = make_client(server, timeout=1e-9)
        with pytest.raises(APITimeoutError) as caught:
            await ask(client, stream=True)
        assert caught.value.phase == "total"
        await client.close()


def test_timers_of_uvloop_that_are_early_are_no_other_timeout():
    """They are rounded to milliseconds: the total timeout may be over a moment before its time."""
    uvloop = pytest.importorskip("uvloop")

    async def phases():
        async with serving(FaultServer(STREAM.stall(0))) as client:
            for number in range(20):
                with pytest.raises(APITimeoutError) as caught:
                    await ask(client, stream=True, timeout=0.01 + number / 9000)
                yield caught.value.phase

    async def all_of_them():
        return {phase async for phase in phases()}

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(all_of_them()) == {"total"}
