"""Lanes of several clients on one real server: order, what is given back, what happens without it."""

import asyncio
import itertools
import logging
import pickle
import subprocess
import sys
import time
from contextlib import asynccontextmanager

import pytest
import redis.asyncio
from redis_kit import Counted, most_in, running_server, until

from konko_async import (
    AsyncKonko,
    ConfigurationError,
    RateLimit,
    RateLimitStoreError,
    RateLimitTimeoutError,
    StoreRecord,
)
from konko_async.integrations.redis import RedisStore
from konko_async.limits import Limiter, SharedPermit
from konko_async.testing import Emulator

_NAMES = itertools.count()
FULL = {"requests_per_minute": 100, "window": 1.0}


@pytest.fixture
def own_server():
    with running_server() as server:
        yield server


@asynccontextmanager
async def sharing(server, count=2, **limits):
    """So many limiters with the same limits, as so many processes have."""
    namespace, seen = f"test{next(_NAMES)}", []
    limiters = []
    for _ in range(count):
        store = Counted(RedisStore(server.url, namespace=namespace))
        limiters.append(Limiter(RateLimit(store=store, **{**FULL, **limits}), seen.append))
    try:
        yield [limiter.lane("model", "key") for limiter in limiters], seen
    finally:
        await asyncio.gather(*(limiter.close() for limiter in limiters))


async def spend(lane, tokens=1, got=None, **how):
    permit = await lane.admit(tokens, **how)
    if got is not None:
        got.append((time.monotonic(), tokens))
    permit.release()
    return permit


async def busy(lane, over, got, tasks=8):
    """Ask as fast as one is let, until it is over."""

    async def work():
        while not over():
            await spend(lane, 1, got)

    await asyncio.gather(*(work() for _ in range(tasks)))


def used(lane):
    return lane.snapshot().requests.used


# --- together


async def test_two_share_one_limit(shared_server):
    got = [[], []]

    def over():
        return len(got[0]) + len(got[1]) > 150

    async with sharing(shared_server) as (lanes, _):
        await asyncio.gather(*(busy(lane, over, g) for lane, g in zip(lanes, got, strict=True)))
        shown = lanes[0].snapshot()
        turns = [len(lane._link.store.turns) for lane in lanes]
    assert shown.store.processes == 2
    assert shown.store.away is None
    assert 0 < shown.requests.used <= 100  # how many of them, a loaded machine decides
    assert shown.requests.available == 100 - shown.requests.used
    # A process that stands still hears late of what was granted: of one call for each of 16 tasks.
    assert most_in(0.95, got[0] + got[1]) <= 100 + 16
    assert abs(len(got[0]) - len(got[1])) < 0.5 * len(got[0])
    assert sum(turns) < 1.3 * (len(got[0]) + len(got[1]))


async def test_many_at_once_take_one_turn(shared_server):
    async with sharing(
        shared_server, 1, tokens_per_minute=1_000_000, requests_per_minute=100_000
    ) as ((lane,), _):
        permits = await asyncio.gather(*(lane.admit(5) for _ in range(60)))
        assert len(lane._link.store.turns) == 1
        assert all(isinstance(permit, SharedPermit) for permit in permits)
        for permit in permits:
            permit.settle(3)
            permit.release()
        await told(lane)
        assert len(lane._link.store.turns) == 2
        turn = lane._link.store.turns[-1]
        assert [(r, t) for _, r, t in turn.settled] == [(0, -120)]  # added up
        assert lane.snapshot().tokens.used == 180
        assert "SharedPermit" not in repr(permits[0])


async def test_one_after_the_other_takes_a_turn_each(shared_server):
    async with sharing(shared_server, 1, requests_per_minute=100_000) as ((lane,), _):
        for _ in range(50):
            await spend(lane)
        assert len(lane._link.store.turns) <= 55


async def test_who_is_cancelled_gives_back(shared_server):
    async with sharing(shared_server, 2, tokens_per_minute=1000) as ((one, other), _):
        await spend(one, 500)
        big = asyncio.create_task(one.admit(900))
        await until(lambda: one._tickets)
        await until(lambda: one._task is None)
        small = asyncio.create_task(spend(other, 50))
        await until(lambda: len(other._link.store.turns) == 1 and other._task is None)
        big.cancel()
        started = time.monotonic()
        await small  # it would have to wait for the 900, which have to wait for the 500
        assert time.monotonic() - started < 30  # not the minute that the 900 wait
        assert isinstance(
            (await asyncio.gather(big, return_exceptions=True))[0], asyncio.CancelledError
        )
        permit = await one.admit(10)
        permit.refund()
        permit.refund()
        permit.release()
        await told(one)
        await spend(other)
        assert other.snapshot().tokens.used <= 551


async def test_a_cancellation_while_the_answer_is_under_way(shared_server):
    async with sharing(shared_server, 1) as ((lane,), _):
        task = asyncio.create_task(lane.admit(5))
        while lane._task is None:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(lambda: lane._task is None)
        await spend(lane)
        await told(lane)
        await spend_nothing(lane)
        assert used(lane) == 1
        assert lane.snapshot().in_flight == 0


async def test_places_stay_each_process_own(shared_server):
    async with sharing(shared_server, 1, max_concurrency=2) as ((lane,), _):
        first, second = await asyncio.gather(lane.admit(1), lane.admit(1))
        waiting = [asyncio.create_task(lane.admit(1)) for _ in range(3)]
        await spend_nothing(lane)
        assert used(lane) == 2  # who waits for a place takes nothing of the window
        first.release()
        third = await waiting[0]
        assert lane.snapshot().in_flight == 2
        for permit in (second, third):
            permit.release()
        for task in waiting[1:]:
            (await task).release()
        assert lane.snapshot().in_flight == 0
        assert lane.idle() in {True, False}


async def told(lane):
    """Wait until all is told."""
    await until(lambda: lane._outbox.flush_at == float("inf") and lane._task is None)


async def spend_nothing(lane):
    """Let a turn happen."""
    before = len(lane._link.store.turns)
    lane._ask()
    await until(lambda: len(lane._link.store.turns) > before and lane._task is None)


async def test_people_of_one_process_pass_the_batch_of_another(shared_server):
    limits = {"requests_per_minute": 50, "burst": 1}
    async with sharing(shared_server, 2, **limits) as ((people, batch), _):
        got = []
        crowd = [asyncio.create_task(spend(batch, 1, got, priority="batch")) for _ in range(60)]
        await until(lambda: len(got) > 2)
        waits = [(await spend(people)).waited for _ in range(5)]
        assert max(waits) < 0.25  # 50 of the batch would take a second
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)


async def test_a_deadline_holds(shared_server):
    async with sharing(shared_server, 2, requests_per_minute=2, window=20.0) as ((one, two), _):
        await spend(one)
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(RateLimitTimeoutError):
            await two.admit(1, deadline=started + 0.3)
        assert 0.25 < loop.time() - started < 10  # the window has 20 s
        assert two.snapshot().waiting.interactive == 0


# --- rejections and headers


async def test_a_rejection_pauses_all(shared_server):
    async with sharing(shared_server, 2, requests_per_minute=100, burst=1) as ((one, two), _):
        await asyncio.gather(spend(one), spend(two))
        got = []
        crowd = [asyncio.create_task(spend(two, 1, got)) for _ in range(80)]
        await until(lambda: got)
        rejected = time.monotonic()
        one.observe_rejection(0.6)
        await until(lambda: one.snapshot().paused_for > 0 and one._task is None)
        # What was granted to the other before is only known once it has heard, too.
        await until(lambda: two.snapshot().believed < 1)
        await asyncio.sleep(0)
        heard = len(got)
        await spend(one)
        assert time.monotonic() - rejected > 0.55
        assert heard < 80
        assert [at for at, _ in got[heard:] if at < rejected + 0.55] == []
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)
        permit = await two.admit(1)
        permit.release()
        await until(lambda: two._throttle.strikes.count == 0)


async def test_headers_that_one_saw_hold_for_all(shared_server):
    async with sharing(shared_server, 2, window=60.0, requests_per_minute=600) as ((one, two), _):
        await spend(one)
        one.observe_headers({"x-ratelimit-limit-requests": "60"})
        one.observe_headers({"nothing": "here"})
        await until(lambda: one.snapshot().requests.learned == 60)
        await spend(two)
        assert two.snapshot().requests.limit == 60
        two.observe_headers({"x-ratelimit-remaining-requests": "20"})
        await until(lambda: two.snapshot().requests.used == 40)
        turns = len(two._link.store.turns)
        two.observe_headers({"x-ratelimit-remaining-requests": "20"})  # no news
        await asyncio.sleep(0)
        assert two._outbox.flush_at == float("inf")
        assert len(two._link.store.turns) == turns


# --- the store is away


async def test_closed_fails_fast_and_recovers(own_server, caplog):
    async with sharing(own_server, 1, on_store_failure="closed") as ((lane,), seen):
        await spend(lane)
        own_server.stop()
        started = time.monotonic()
        results = await asyncio.gather(*(spend(lane) for _ in range(5)), return_exceptions=True)
        assert all(isinstance(result, RateLimitStoreError) for result in results)
        assert time.monotonic() - started < 30  # 0.5 s and a busy machine
        with pytest.raises(RateLimitStoreError, match="within"):
            await spend(lane)
        own_server.go_on()
        async with asyncio.timeout(60):
            while True:
                try:
                    await spend(lane)
                    break
                except RateLimitStoreError:
                    await asyncio.sleep(0.02)
        assert [record.state for record in seen] == ["away", "back"]
        assert seen[0].choice == "closed"
        assert seen[0].error
        assert seen[1].away > 0
        assert isinstance(seen[0], StoreRecord)
    warnings = [r for r in caplog.records if r.name == "konko_async"]
    assert [r.levelno for r in warnings] == [logging.WARNING] * 2


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_local_share_goes_on_and_comes_back(own_server, how):
    got, window, over = [[], []], 0.5, asyncio.Event()
    limits = {"requests_per_minute": 50, "window": window}
    async with sharing(own_server, 2, **limits) as (lanes, seen):
        for lane in lanes:
            await spend(lane)
        assert [lane.snapshot().store.processes for lane in lanes][1] == 2
        tasks = [
            asyncio.create_task(busy(lane, over.is_set, g, 4))
            for lane, g in zip(lanes, got, strict=True)
        ]
        await until(lambda: len(got[0]) > 15)
        own_server.stop() if how == "stopped" else own_server.kill()
        began = time.monotonic()
        # Not that it is so for the first time: a server that gets no turn is away for a moment, too.
        await until(lambda: all(lane.snapshot().store.away for lane in lanes))
        assert time.monotonic() - began < 30
        went_on = [len(g) for g in got]
        await until(lambda: all(len(g) > n + 15 for g, n in zip(got, went_on, strict=True)))
        shown = lanes[0].snapshot()
        assert shown.store.away
        assert shown.requests.limit == pytest.approx(25, abs=1)  # half of it
        own_server.go_on() if how == "stopped" else own_server.start()
        await until(lambda: not any(lane.snapshot().store.away for lane in lanes))
        states = [record.state for record in seen]
        assert states.count("back") == states.count("away") >= 2
        over.set()
        await asyncio.gather(*tasks)
        assert lanes[0].snapshot().requests.limit == 50
    # A strict window, but for what is written in docs/explanation/limits.md, and for what each of
    # the 8 tasks heard of late.
    assert most_in(window * 0.95, got[0] + got[1]) <= 50 + 5 + 8


async def test_open_goes_on_with_all(own_server):
    async with sharing(own_server, 2, on_store_failure="open") as ((one, two), _):
        await asyncio.gather(spend(one), spend(two))
        own_server.kill()
        await spend(one)
        assert one.snapshot().requests.limit == 100
        await spend(one)
        own_server.start()


async def test_a_server_that_was_never_there(own_server):
    own_server.kill()
    async with sharing(own_server, 1) as ((lane,), seen):
        started = time.monotonic()
        permit = await lane.admit(3)
        assert time.monotonic() - started < 30
        permit.settle(2)
        permit.release()
        assert seen[0].processes == 1
        lane.observe_rejection(0.01)
        lane.observe_headers({"x-ratelimit-limit-requests": "60"})
        assert lane.snapshot().requests.learned == 60


async def test_an_emptied_server_is_survived(own_server):
    got = []
    async with sharing(own_server, 2) as ((one, two), seen):
        over = asyncio.Event()
        tasks = [asyncio.create_task(busy(lane, over.is_set, got, 4)) for lane in (one, two)]
        await until(lambda: len(got) > 60)
        async with redis.asyncio.Redis(port=own_server.port) as client:
            await client.flushall()
            await client.script_flush()
        await until(lambda: len(got) > 200)
        over.set()
        await asyncio.gather(*tasks)
        assert seen == []
    # Each of 8 tasks may have heard late that one call may go.
    assert most_in(0.95, got) <= 100 + 2 + 8


async def test_a_connection_that_breaks_is_made_anew(own_server):
    async with sharing(own_server, 1) as ((lane,), seen):
        permit = await lane.admit(5)
        async with redis.asyncio.Redis(port=own_server.port) as client:
            await client.client_kill_filter(_type="normal", skipme=True)
        permit.settle(2)
        await spend(lane)
        permit.release()
        assert seen == []


async def test_what_a_server_refuses_counts_as_away(own_server):
    async with sharing(own_server, 1, on_store_failure="closed") as ((lane,), seen):
        async with redis.asyncio.Redis(port=own_server.port) as client:
            await client.replicaof("127.0.0.1", own_server.port + 1)
            with pytest.raises(RateLimitStoreError, match=r"(?i)read.?only"):
                await spend(lane)
            await client.replicaof("NO", "ONE")
        assert len(seen) == 1


async def test_a_store_with_a_bug_does_not_hang_callers():
    class Broken:
        async def exchange(self, *_):
            raise KeyError("oops")  # whatever it is

        async def close(self):
            pass

    limiter = Limiter(RateLimit(store=Broken(), on_store_failure="closed"))
    with pytest.raises(RateLimitStoreError, match="oops"):
        await limiter.lane("m", "k").admit(1)
    await limiter.close()


# --- loops, clients, processes


def test_a_lane_moves_to_another_loop(shared_server):
    limit = RateLimit(store=RedisStore(shared_server.url, namespace=f"test{next(_NAMES)}"), **FULL)
    limiter = Limiter(limit)
    lane = limiter.lane("m", "k")

    async def use():
        await asyncio.gather(*(spend(lane) for _ in range(5)))
        await limiter.close()
        return used(lane)

    assert asyncio.run(use()) <= 5
    assert asyncio.run(use()) <= 10


async def test_two_processes_share(shared_server):
    script = (
        "import asyncio, pickle, sys\n"
        "from konko_async.limits import Limiter\n"
        "async def main():\n"
        "    limiter = Limiter(pickle.loads(bytes.fromhex(sys.argv[1])))\n"
        "    permit = await limiter.lane('m', 'k').admit(7)\n"
        "    permit.release()\n"
        "    await limiter.close()\n"
        "asyncio.run(main())\n"
    )
    store = RedisStore(shared_server.url, namespace=f"test{next(_NAMES)}")
    # A window that no process outlives, however slowly it ends.
    limit = RateLimit(store=store, requests_per_minute=100_000, window=600.0)
    code = await asyncio.to_thread(
        subprocess.call, [sys.executable, "-W", "error", "-c", script, pickle.dumps(limit).hex()]
    )
    assert code == 0
    limiter = Limiter(limit)
    lane = limiter.lane("m", "k")
    await spend(lane)
    assert lane.snapshot().requests.used == 2
    # The other one has left; on a loaded machine its word may come late, or only its time run out.
    async with asyncio.timeout(60):
        while lane.snapshot().store.processes != 1:
            await asyncio.sleep(0.05)
            await spend(lane)
    await limiter.close()


async def test_a_client_of_the_user_is_used_and_left_open(shared_server):
    async with redis.asyncio.Redis(port=shared_server.port, decode_responses=True) as client:
        store = RedisStore(client, namespace=f"test{next(_NAMES)}")
        limiter = Limiter(RateLimit(store=store, **FULL))
        await spend(limiter.lane("m", "k"))
        await limiter.close()
        assert await client.ping()
        with pytest.raises(TypeError, match="URL"):
            pickle.dumps(store)


async def test_a_cluster(tmp_path):
    options = ("--cluster-enabled", "yes", "--dir", str(tmp_path))
    with running_server(*options) as server:
        async with redis.asyncio.Redis(port=server.port) as node:
            for first in range(0, 16384, 2048):
                slots = range(first, first + 2048)
                await node.execute_command("CLUSTER ADDSLOTS", *slots)
            async with asyncio.timeout(60):
                while "ok" not in str(await node.execute_command("CLUSTER INFO"))[:60]:
                    await asyncio.sleep(0.02)
        async with redis.asyncio.RedisCluster("127.0.0.1", server.port) as client:
            limiter = Limiter(RateLimit(store=RedisStore(client), **FULL))
            for model in "abc":
                permit = await limiter.lane(model, "k").admit(5)
                assert isinstance(permit, SharedPermit)
                permit.release()
            await limiter.close()


async def test_what_ends_after_the_client_was_closed_opens_nothing(shared_server):
    async with sharing(shared_server, 1) as ((lane,), _):
        permit = await lane.admit(5)
        await lane.close()
        permit.settle(1)
        permit.release()
        assert lane._timer is None
        assert lane._task is None
        await spend(lane)


async def test_a_whole_client(shared_server):
    store = RedisStore(shared_server.url, namespace=f"test{next(_NAMES)}")
    limit = RateLimit(requests_per_minute=600, tokens_per_minute=60_000, store=store)
    ask = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    seen = []
    async with Emulator(models=["m"]) as emulator:
        client = AsyncKonko(
            api_key="k", base_url=emulator.base_url, rate_limit=limit, observers=[seen.append]
        )
        copy = client.with_options(rate_limit=limit)
        answers = [await one.chat.completions.create(**ask) for one in (client, copy)]
        total = sum(answer.usage.total_tokens for answer in answers)
        await copy.chat.completions.create(**ask, priority="batch")
        lane = copy.limits.models["m"]
        assert lane.store.processes == 2
        assert lane.requests.used == 3
        assert lane.tokens.used >= total
        await client.close()
        async with redis.asyncio.Redis(port=shared_server.port) as plain:
            keys = await plain.keys(f"{store._server.namespace}:*")
            assert len({key.split(b"}")[0] for key in keys}) == 1
            assert min([await plain.ttl(key) for key in keys]) > 0
            assert not any(key == b"m" for key in keys)
            members = [key for key in keys if key.endswith(b":processes")]
            assert members == []  # both have left
    assert all(not isinstance(record, StoreRecord) for record in seen)


def test_what_is_no_store_is_refused():
    with pytest.raises(ConfigurationError) as caught:
        RedisStore("http://user:secret@host/")
    assert "secret" not in str(caught.value)
    for arguments in ({"namespace": ""}, {"namespace": "a{b}"}, {"timeout": 0.6}, {"timeout": 0}):
        with pytest.raises(ConfigurationError):
            RedisStore(**arguments)
    with pytest.raises(ConfigurationError, match="client"):
        RedisStore(42)
    with pytest.raises(ConfigurationError, match="store"):
        RateLimit(store="redis://localhost")
    with pytest.raises(ConfigurationError, match="on_store_failure"):
        RateLimit(on_store_failure="panic")
    assert "localhost" not in repr(RedisStore("redis://:secret@localhost"))
