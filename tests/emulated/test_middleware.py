"""The user's middleware around calls, over sockets."""

import asyncio

import pytest
from client_kit import ASK, ask, in_flight, make_client, others, pooled, serving, text_of

from konko_async import (
    APIConnectionError,
    AsyncKonko,
    ConfigurationError,
    InternalServerError,
    RateLimit,
    RateLimitTimeoutError,
    RetryPolicy,
    per_attempt,
)
from konko_async.testing import Answer, FaultServer

STREAM = Answer.stream(["Hel", "lo"])
WHOLE = Answer.whole("Hello")
FAST = RetryPolicy(max_attempts=3, base_delay=0.0, budget_ratio=None)


def tracer(name, seen):
    async def middleware(request, call_next):
        seen.append(f"{name}>{request.attempt}")
        try:
            return await call_next(request)
        finally:
            seen.append(f"<{name}")

    return middleware


class Header:
    """An object with the signature works too."""

    async def __call__(self, request, call_next):
        return await call_next(request.replace(headers={**request.headers, "X-Trace": "7"}))


async def test_outside_and_inside_retry():
    seen = []
    middleware = [tracer("a", seen), per_attempt(tracer("b", seen)), tracer("c", seen), Header()]
    server = FaultServer(Answer.error(503), STREAM)
    async with serving(server, retry=FAST, middleware=middleware) as client:
        assert text_of(await ask(client, stream=True)) == "Hello"
    assert seen == ["a>1", "c>1", "b>1", "<b", "b>2", "<b", "<c", "<a"]
    assert [request.headers["x-trace"] for request in server.requests] == ["7", "7"]


def not_async(request, call_next):
    return call_next(request)


@pytest.mark.parametrize("bad", [3, "x", Header, lambda: None, not_async])
def test_what_is_no_middleware_is_refused_at_once(bad):
    with pytest.raises(ConfigurationError):
        AsyncKonko("k", middleware=[bad])
    with pytest.raises(ConfigurationError):
        per_attempt(bad)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("inside", [False, True])
async def test_a_lost_response_frees_its_connection(stream, inside):
    async def forgetful(request, call_next):
        await call_next(request)

    async def wrong(request, call_next):
        return (await call_next(request)).result

    async def broken(request, call_next):
        await call_next(request)
        raise LookupError("of the user's")

    endless = STREAM.stall(STREAM.wire.index(b'"lo"') - 120)
    for middleware, error in (
        (forgetful, ConfigurationError),
        (wrong, ConfigurationError),
        (broken, LookupError),
    ):
        records = []
        server = FaultServer(endless if stream else WHOLE)
        layer = per_attempt(middleware) if inside else middleware
        async with serving(server, middleware=[layer], observers=[records.append]) as client:
            with pytest.raises((error, AttributeError)):
                await ask(client, stream=stream)
            assert in_flight(client) == 0
            assert pooled(client)[1] == 0
            assert others() == set()
            if stream:
                await server.wait_until_closed()


async def test_a_middleware_that_asks_twice_keeps_one():
    async def twice(request, call_next):
        await call_next(request)
        return await call_next(request)

    endless = STREAM.stall(STREAM.wire.index(b'"lo"') - 120)
    server = FaultServer(endless, STREAM)
    async with serving(server, middleware=[twice]) as client:
        assert text_of(await ask(client, stream=True)) == "Hello"
        await server.wait_until_closed(1)
        assert in_flight(client) == 0
    assert len(server.requests) == 2


async def test_a_middleware_may_answer_by_itself_and_retry_by_itself():
    async def patient(request, call_next):
        for _ in range(3):
            try:
                return await call_next(request)
            except APIConnectionError:
                continue
        raise AssertionError

    server = FaultServer(Answer.hang_up(), Answer.hang_up(), STREAM)
    async with serving(server, middleware=[patient]) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert text_of(await stream.completion()) == "Hello"
        assert [a.error_type for a in stream.attempts] == ["APIConnectionError"] * 2 + [None]


async def test_a_middleware_cannot_change_a_request_in_place_by_mistake():
    async def renames(request, call_next):
        with pytest.raises(TypeError, match="modle"):
            request.replace(modle="x")
        return await call_next(request.replace(params={"model": "other", "messages": []}))

    server = FaultServer(WHOLE)
    async with serving(server, middleware=[renames]) as client:
        await ask(client, stream=False)
    assert server.requests[0].json() == {"model": "other", "messages": []}


async def test_the_limits_are_kept_and_let_go():
    server = FaultServer(WHOLE.pause(0, 0.02))
    limit = RateLimit(max_concurrency=2, tokens_per_minute=1_000_000)
    async with serving(server, rate_limit=limit) as client:
        most = 0

        async def one():
            nonlocal most
            await ask(client, stream=False)
            most = max(most, in_flight(client))

        await asyncio.gather(*(one() for _ in range(8)))
        assert most <= 2
        (lane,) = client.limits.lanes
        assert lane.in_flight == 0
        assert server.connections.opened <= 2


async def test_a_stream_holds_its_place_until_it_ends():
    server = FaultServer(STREAM)
    async with serving(server, rate_limit=RateLimit(max_concurrency=1)) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert in_flight(client) == 1
        with pytest.raises(RateLimitTimeoutError):
            await ask(client, stream=True, timeout=0.05)
        await stream.completion()
        assert in_flight(client) == 0
        await ask(client, stream=True, timeout=1)


async def test_tokens_are_settled_to_what_was_used():
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    whole, stream = Answer.whole("Hello", usage=usage), Answer.stream(["Hello"], usage=usage)
    cut = stream.cut(len(stream) - 10)  # after the usage, before the end
    server = FaultServer(whole, stream, cut, Answer.error(500))
    async with serving(server, rate_limit=RateLimit(tokens_per_minute=100_000)) as client:
        await ask(client, stream=False, max_tokens=500)
        assert client.limits.lanes[0].tokens.used == 7
        await ask(client, stream=True, max_tokens=500)
        assert client.limits.lanes[0].tokens.used == 14
        await ask(client, stream=True, max_tokens=500)
        assert client.limits.lanes[0].tokens.used == 21
        with pytest.raises(InternalServerError):
            await ask(client, stream=True, max_tokens=500)
        assert client.limits.lanes[0].tokens.used > 500  # unknown: the estimate stays


async def test_a_429_pauses_every_call_of_its_model():
    answers = [Answer.error(429, headers={"retry-after-ms": "150"})]
    server = FaultServer(*answers, default=WHOLE)
    async with serving(server, rate_limit=RateLimit(), retry=FAST) as client:
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(ask(client, stream=False) for _ in range(1)))
        assert client.limits.lanes[0].paused_for < 0.15
        assert asyncio.get_running_loop().time() - started >= 0.15


async def test_priority_reaches_the_limits():
    server = FaultServer(WHOLE.stall(0), default=WHOLE)
    async with serving(server, rate_limit=RateLimit(max_concurrency=1)) as client:
        first = asyncio.create_task(ask(client, stream=False))
        await server.wait_for_stall()
        waiting = [
            asyncio.create_task(ask(client, stream=False, priority=priority))
            for priority in ("batch", "interactive", "batch")
        ]
        await asyncio.sleep(0)
        counts = client.limits.lanes[0].waiting
        assert (counts.interactive, counts.batch) == (1, 2)
        server.release()
        await asyncio.gather(first, *waiting)


async def test_per_call_options_change_nothing_else():
    server = FaultServer(WHOLE)
    async with server:
        client = make_client(server)
        await ask(client, stream=False, timeout=3, priority="batch", extra_headers={"X-A": "b"})
        await ask(client, stream=False)
        assert "x-a" not in server.requests[1].headers
        await client.close()


def test_a_middleware_takes_two_arguments():
    async def one_argument(request):
        """Cannot be a layer."""

    with pytest.raises(ConfigurationError, match="must take two arguments"):
        AsyncKonko("k", middleware=[one_argument])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_middleware_returns_the_kind_that_was_asked_for(stream):
    """One that asked another question, and hands its answer on."""
    kept = []

    async def swap(request, call_next):
        kept.append(await call_next(request))
        return kept[0]

    server = FaultServer(*([STREAM, WHOLE] if stream else [WHOLE, STREAM]))
    async with serving(server, middleware=[swap]) as client:
        async with asyncio.timeout(60):
            opened = await client.chat.completions.create(**ASK, stream=stream)
        kind = "no stream was" if stream else "a stream was"
        with pytest.raises(ConfigurationError, match=f"wrong kind: {kind} asked for"):
            await client.chat.completions.create(**ASK, stream=not stream)
        if stream:
            await opened.close()
        kept[1].close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_middleware_sees_which_model_answered_and_what_connecting_took(stream):
    seen = []

    async def look(request, call_next):
        response = await call_next(request)
        seen.append((response.model, request.connect is None))
        return response

    server = FaultServer(STREAM if stream else WHOLE, STREAM if stream else WHOLE)
    async with serving(server, middleware=[per_attempt(look)]) as client:
        for _ in range(2):
            await ask(client, stream=stream)
    # The second call found the first one's connection in the pool.
    assert seen == [(ASK["model"], False), (ASK["model"], True)]
