"""A client in another process: how it is packed, how its permits are asked for, how frames are read."""

import asyncio
import pickle

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async import (
    AsyncKonko,
    ConfigurationError,
    Endpoint,
    Fallback,
    RateLimit,
    RateLimitTimeoutError,
)
from konko_async.batch._workers.subprocess import Pipe
from konko_async.remote import Admission, RemoteLimiter, pack_client, unpack_client
from konko_async.testing import Emulator

KEY, OTHER = "sk-of-the-client", "sk-of-the-fallback"


class Joined:
    """A limiter and the admission that it asks, joined without a pipe: a turn of the loop apart."""

    def __init__(self, client):
        loop = asyncio.get_running_loop()
        self.sent = []
        self.admission = Admission(client, lambda message: loop.call_soon(self.back, message))
        self.limiter = RemoteLimiter(
            lambda message: loop.call_soon(self.there, message), client.rate_limit
        )

    def there(self, message):
        self.sent.append(message)
        self.admission.handlers[message[0]](*message[1:])

    def back(self, message):
        self.sent.append(message)
        kind, *rest = message
        (self.limiter.granted if kind == "grant" else self.limiter.refused)(*rest)

    @property
    def lane(self):
        return self.limiter.lane("m", "k")


def client_with(limit):
    return AsyncKonko("any", "http://127.0.0.1:9/v1", rate_limit=limit)


def in_flight(client):
    return sum(lane.in_flight for lane in client.limits.lanes)


async def turns(number=5):
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_packed_client_makes_the_same_calls():
    async with Emulator(api_keys=[KEY]) as emulator:
        first = AsyncKonko(
            KEY, emulator.base_url, default_headers={"x-team": "blue"},
            fallback_models=[Fallback(model="other", api_key=OTHER)],
        )  # fmt: skip
        packed = pack_client(first)
        assert KEY.encode() in packed
        assert OTHER.encode() in packed
        joined = Joined(first)
        records = []
        copy, limiter = unpack_client(packed, joined.limiter.send, [records.append])
        joined.limiter = limiter
        assert KEY not in repr(copy) + repr(vars(copy))
        model = "codellama/codellama-13b-instruct"
        await copy.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])
        (sent,) = emulator.requests
        await turns()
        assert in_flight(first) == 0
        assert first.limits.lanes[0].key == first._engine.settings.api_key.fingerprint
        await copy.close()
        await first.close()
    assert sent.headers["x-team"] == "blue"
    assert [type(record).__name__ for record in records] == ["Attempt", "CallRecord"]
    assert {message[0] for message in joined.sent} >= {"ask", "grant", "end"}


async def test_a_packed_client_of_several_servers_balances_by_itself():
    messages = [{"role": "user", "content": "x"}]
    async with Emulator(api_keys=[KEY]) as one, Emulator(api_keys=[OTHER]) as other:
        endpoints = [
            Endpoint(one.base_url, api_key=KEY), Endpoint(other.base_url, api_key=OTHER, name="o"),
        ]  # fmt: skip
        async with AsyncKonko(endpoints=endpoints, balance="round_robin") as first:
            joined = Joined(first)
            copy, joined.limiter = unpack_client(pack_client(first), joined.limiter.send)
            for _ in range(4):
                await copy.chat.completions.create(
                    model="codellama/codellama-13b-instruct", messages=messages
                )
            await turns()
            assert in_flight(first) == 0
            await copy.close()
        assert [len(server.requests) for server in (one, other)] == [2, 2]


async def test_what_cannot_go_along():
    async with aiohttp.ClientSession() as session:
        client = AsyncKonko("any", "http://127.0.0.1:9/v1", session=session)
        with pytest.raises(ConfigurationError, match="session="):
            pack_client(client)
        await client.close()
    client = client_with(RateLimit(estimate_tokens=lambda _: 1))
    with pytest.raises(ConfigurationError, match="estimate_tokens"):
        pack_client(client)
    await client.close()


async def test_a_permit_is_settled_and_given_back():
    client = client_with(RateLimit(tokens_per_minute=1000, max_concurrency=1))
    joined = Joined(client)
    permit = await joined.lane.admit(600)
    assert in_flight(client) == 1
    waiting = asyncio.ensure_future(joined.lane.admit(300))
    await turns()
    assert not waiting.done()  # there is one place
    permit.settle(100)
    permit.release()
    permit.release()
    second = await waiting
    assert client.limits.lanes[0].tokens.used == pytest.approx(400, abs=1)
    second.refund()
    second.release()
    await turns()
    assert client.limits.lanes[0].tokens.used == pytest.approx(100, abs=1)
    assert in_flight(client) == joined.admission.held == 0
    await client.close()


async def test_giving_up_at_any_turn_loses_nothing():
    client = client_with(RateLimit(max_concurrency=1))
    joined = Joined(client)
    for patience in range(8):
        task = asyncio.ensure_future(joined.lane.admit())
        await turns(patience)
        if task.done():
            task.result().release()
        else:
            task.cancel()
            await asyncio.wait([task])
        await turns()
        assert in_flight(client) == 0, patience
    held = await joined.lane.admit()
    for patience in range(8):
        task = asyncio.ensure_future(joined.lane.admit())
        await turns(patience)
        task.cancel()
        await asyncio.wait([task])
        await turns()
        assert in_flight(client) == 1, patience
    held.release()
    await turns()
    assert in_flight(client) == 0
    await client.close()


async def test_a_deadline_that_cannot_be_met_is_told_at_once():
    client = client_with(RateLimit(requests_per_minute=60, burst=1))
    joined = Joined(client)
    await joined.lane.admit()
    loop = asyncio.get_running_loop()
    with pytest.raises(RateLimitTimeoutError) as caught:
        await joined.lane.admit(deadline=loop.time() + 0.2)
    assert 0.5 < caught.value.would_have_waited < 1.5
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert copy.would_have_waited == caught.value.would_have_waited
    await joined.admission.close()
    await client.close()


async def test_headers_and_rejections_reach_the_limits():
    client = client_with(RateLimit())
    joined = Joined(client)
    joined.lane.observe_headers({"X-RateLimit-Limit-Requests": "90", "content-type": "text/plain"})
    joined.lane.observe_rejection(30.0)
    await turns()
    (lane,) = client.limits.lanes
    assert lane.requests.learned == 90
    assert 29 < lane.paused_for <= 30.1
    assert joined.sent[0][3] == {"x-ratelimit-limit-requests": "90"}
    await client.close()


async def test_one_that_is_gone_lets_go_of_all():
    client = client_with(RateLimit(max_concurrency=2))
    joined = Joined(client)
    await joined.lane.admit()
    await joined.lane.admit()
    waiting = asyncio.ensure_future(joined.lane.admit())
    await turns()
    await joined.admission.close()
    assert in_flight(client) == 0
    assert client.limits.lanes[0].waiting.batch == client.limits.lanes[0].waiting.interactive == 0
    waiting.cancel()
    await asyncio.wait([waiting])
    await client.close()


MESSAGES = st.lists(
    st.tuples(st.sampled_from(["row", "done"]), st.integers(), st.binary(max_size=50)), min_size=1
)


@given(st.lists(MESSAGES, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_frames_are_read_wherever_they_are_cut(frames, sizes):
    async def main():
        heard = []
        pipe = Pipe(heard.append, lambda: None)
        data = b""
        for messages in frames:
            body = pickle.dumps(messages)
            data += len(body).to_bytes(8, "big") + body
        place = turn = 0
        while place < len(data):
            size = sizes[turn % len(sizes)]
            pipe.data_received(data[place : place + size])
            place, turn = place + size, turn + 1
        pipe.connection_lost(None)
        assert heard == frames

    asyncio.run(main())
