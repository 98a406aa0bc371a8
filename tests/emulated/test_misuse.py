"""Typical slips: `for` for `async for`, a forgotten `close()`, a text read twice."""

import asyncio
import gc
import warnings

import pytest
from client_kit import ASK, KEY, make_client, serving, text_of

from konko_async import AsyncKonko, KonkoError, Timeout
from konko_async.errors import ConfigurationError
from konko_async.testing import Answer, FaultServer

STREAM = Answer.stream(["Hel", "lo"])
WHOLE = Answer.whole("Hello")
AFTER = STREAM.wire.index(b"\n\n", STREAM.wire.index(b'"Hel"')) + 4


@pytest.fixture
def client():
    return AsyncKonko(KEY, "http://127.0.0.1:9/v1")


async def test_a_fan_out_is_not_awaited(client):
    with pytest.raises(TypeError, match="async for result in"):
        await client.chat.completions.map([ASK])


MAKERS = {
    "a stream": lambda client: client.chat.completions.stream(**ASK),
    "a text": lambda client: client.completions.stream(model="m", prompt="Hi."),
    "a typed stream": lambda client: client.chat.completions.stream(**ASK, response_format=int),
    "a fan-out": lambda client: client.chat.completions.map([ASK]),
    "the models": lambda client: client.models.list(),
}


@pytest.mark.parametrize("name", MAKERS)
def test_for_is_answered_with_async_for(name, client):
    with pytest.raises(TypeError, match="'async for', not 'for'"):
        for _ in MAKERS[name](client):
            pass


@pytest.mark.parametrize("name", ["a stream", "a text", "a typed stream"])
def test_with_is_answered_with_async_with(name, client):
    with pytest.raises(TypeError, match="'async with', not 'with'"), MAKERS[name](client):
        pass


def test_a_client_is_used_with_async_with(client):
    with pytest.raises(TypeError, match="AsyncKonko is used with 'async with', not 'with'"), client:
        pass


async def test_a_text_that_was_read_says_so_instead_of_being_empty():
    async with serving(FaultServer(STREAM)) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert [text async for text in stream.text()] == ["Hel", "lo"]
        with pytest.raises(KonkoError, match="read already"):
            stream.text()
        assert text_of(await stream.completion()) == "Hello"


async def test_a_text_that_was_left_goes_on():
    async with serving(FaultServer(STREAM)) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        async for first in stream.text():
            assert first == "Hel"
            break
        assert [text async for text in stream.text()] == ["lo"]


@pytest.mark.parametrize("value", [0, -1, 0.0, float("inf"), float("nan"), "5", True], ids=repr)
def test_all_timeouts_that_cannot_be_are_refused_in_the_same_words(value):
    for name in ("connect", "first_token", "idle", "total"):
        with pytest.raises(
            ConfigurationError, match=rf"{name} must be a number of seconds above 0"
        ):
            Timeout(**{name: value})


# -- clients that nobody closes --------------------------------------------------------------------


async def dropped(server):
    """Use a client and forget it."""
    client = make_client(server)
    await client.chat.completions.create(**ASK)
    return id(client)


async def test_a_client_that_is_dropped_warns_in_words_of_its_own_and_lets_go(caplog):
    server = FaultServer(WHOLE)
    async with server:
        gc.collect()  # what earlier tests left must not be met below
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await dropped(server)
            gc.collect()
        await server.wait_until_closed()
        (warning,) = caught
        assert warning.category is ResourceWarning
        assert "unclosed AsyncKonko" in str(warning.message)
        assert "await client.close()" in str(warning.message)
        assert not caplog.records


def test_so_does_one_whose_loop_is_gone(caplog):
    async def use():
        async with FaultServer(WHOLE) as server:
            client = make_client(server)
            await client.chat.completions.create(**ASK)
            return client

    client = asyncio.run(use())
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del client
        gc.collect()
    assert ["unclosed AsyncKonko" in str(warning.message) for warning in caught] == [True]
    assert not caplog.records


async def test_a_stream_outlives_the_client_that_it_was_asked_of():
    server = FaultServer(STREAM.stall(AFTER))
    async with server:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            stream = await make_client(server).chat.completions.create(**ASK, stream=True)
            gc.collect()
        server.release()
        assert text_of(await stream.completion()) == "Hello"
        await server.wait_until_closed()  # no pool is there to keep it
        del stream


def test_one_that_was_never_used_or_was_closed_warns_of_nothing():
    async def close(client):
        async with client:
            pass

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AsyncKonko(KEY, "http://127.0.0.1:9/v1")
        asyncio.run(close(AsyncKonko(KEY, "http://127.0.0.1:9/v1")))
        gc.collect()
