"""A store that goes away, hangs or forgets: answers go on, new ones degrade, one line says why."""

import asyncio
import logging

import pytest
from relay_kit import RESUMABLE, events_of, relaying, text_of

from konko_async.errors import ConfigurationError, KonkoError
from konko_async.relay import MemoryStore, RelayOptions, StreamLostError
from konko_async.sse import SSEDecoder
from konko_async.testing import Answer, FaultServer

TOKENS = [f"tok{number} " for number in range(20)]
TEXT = "".join(TOKENS)
LONG = Answer.stream(TOKENS)
PLACE = LONG.wire.index(b"tok12") - 60


class Away:
    """A store that works, until it is told not to."""

    def __init__(self):
        self._inner = MemoryStore()
        self.how = None

    def __getattr__(self, name):
        async def asked(*args, **kwargs):
            if self.how == "refuses":
                raise KonkoError("the store of the streams cannot be asked: ConnectionError")
            if self.how == "forgets":
                raise StreamLostError("there is no such stream")
            if self.how == "breaks":
                raise OSError("secret words of a user")
            return await getattr(self._inner, name)(*args, **kwargs)

        return asked


async def some(response, mark):
    decoder, events = SSEDecoder(), []
    while not any(mark in event.data for event in events):
        events += decoder.feed(await response.content.readany())
    return events


def told(caplog):
    return [r.getMessage() for r in caplog.records if "store of streams" in r.getMessage()]


async def in_the_middle(relay, store, how, caplog):
    """An answer during which the store fails; returns its events."""
    async with relay.ask(headers=RESUMABLE) as response:
        events = await some(response, "tok5")
        await relay.server.wait_for_stall()
        store.how = how
        relay.server.release()
        rest = SSEDecoder().feed(await response.read())
    return [*events, *rest]


@pytest.mark.parametrize("how", ["refuses", "forgets", "breaks"])
async def test_a_running_answer_goes_on(how, caplog):
    caplog.set_level(logging.INFO, "konko_async.relay")
    store = Away()
    relay_server = FaultServer(LONG.stall(PLACE))
    async with relaying(relay_server, service={"store": store}) as relay:
        relay.server = relay_server
        events = await in_the_middle(relay, store, how, caplog)
        assert text_of(events) == TEXT
        assert len({event.id for event in events}) == len(events)
        await relay.service.until_idle()
    assert len(told(caplog)) == (0 if how == "forgets" else 1)
    assert "secret words" not in caplog.text


@pytest.mark.parametrize("how", ["refuses", "breaks"])
async def test_new_answers_degrade_or_are_refused(how, caplog):
    caplog.set_level(logging.INFO, "konko_async.relay")
    store = Away()
    hello = Answer.stream(["Hel", "lo"])
    async with relaying(FaultServer(default=hello), service={"store": store}) as relay:
        store.how = how
        for _ in range(3):
            status, headers, events = await relay.events(headers=RESUMABLE)
            assert (status, "X-Stream-Id" in headers, text_of(events)) == (200, False, "Hello")
        async with relay.session.get("/readyz") as response:
            assert (response.status, (await response.json())["status"]) == (200, "degraded")
        for path in ("/v1/streams/abc", "/api/chat/c/stream"):
            async with relay.session.get(path) as response:
                assert response.status == 503
                assert int(response.headers["Retry-After"]) >= 1
        async with relay.session.delete("/api/chat/c/stream") as response:
            assert response.status == 204
        assert len(told(caplog)) == 1
        if how == "refuses":
            assert "ConnectionError" in told(caplog)[0]
    refusing = {"service": {"store": store}, "store_away": "refuse"}
    async with relaying(FaultServer(default=hello), **refusing) as relay:
        status, headers, _ = await relay.events(headers=RESUMABLE)
        assert (status, headers["Retry-After"]) == (503, "5")
        async with relay.ask() as response:  # what is not to be kept needs no store
            assert text_of(events_of(await response.read())) == "Hello"


async def test_a_store_that_comes_back_is_used_again(caplog):
    caplog.set_level(logging.INFO, "konko_async.relay")
    store = Away()
    server = FaultServer(default=Answer.stream(["Hel", "lo"]))
    async with relaying(server, service={"store": store}) as relay:
        store.how = "refuses"
        assert "X-Stream-Id" not in (await relay.events(headers=RESUMABLE))[1]
        store.how = None
        relay.service._calls.store_health._next = 0  # the pause before it is tried again is over
        assert "X-Stream-Id" in (await relay.events(headers=RESUMABLE))[1]
        async with relay.session.get("/readyz") as response:
            assert (await response.json())["status"] == "ok"
    assert [line.split(" (")[0] for line in told(caplog)] == [
        "the store of streams is not available",
        "the store of streams is available again",
    ]


async def test_a_reader_that_waits_when_the_store_hangs():
    """Nothing comes, the store takes no words, and then the model goes on."""
    store = Away()
    server = FaultServer(LONG.stall(PLACE))
    async with (
        relaying(server, service={"store": store}) as relay,
        relay.ask(headers=RESUMABLE) as response,
        asyncio.timeout(30),
    ):
        await some(response, "tok11")
        await server.wait_for_stall()
        store.how = "refuses"  # the read under way goes on to wait
        server.release()
        rest = await response.read()
        assert b"tok19" in rest
        assert rest.endswith(b"[DONE]\n\n")


def test_the_choice_is_checked():
    with pytest.raises(ConfigurationError):
        RelayOptions(models=["m"], store_away="maybe")
