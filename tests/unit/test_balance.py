"""Balancing in simulated time: servers with slots and speeds, closed loops, stalls, losses, windows.

The servers are functions behind the handler that a client with endpoints has; time jumps, so that a
minute of a thousand calls takes a second or two. ``benchmarks/bench_endpoints.py`` runs the same
questions over sockets.
"""

import asyncio
import collections
import math
import random
import time

import pytest

from konko_async import Endpoint, RateLimit, RetryPolicy, Timeout
from konko_async._balance.affinity import Placement
from konko_async._balance.build import build
from konko_async._balance.handler import BalancedHandler
from konko_async._balance.load import Fleet, Load
from konko_async._balance.sharing import SharedLoads
from konko_async._core.pipeline import Call, Request, Response
from konko_async._engine.file_operations import FILES
from konko_async._engine.operations import CHAT
from konko_async._http.session import Transport
from konko_async.errors import (
    APIConnectionError,
    CircuitOpenError,
    InternalServerError,
    RateLimitError,
    RateLimitStoreError,
)
from konko_async.limits import Limiter
from konko_async.middleware import CircuitBreaker, Fallback
from konko_async.middleware._retry import RetryMiddleware
from konko_async.testing import run_with_jumping_time
from konko_async.wire import Usage

TOKENS = 100


class Server:
    """A server of so many slots, whose answers take a time that varies by a third.

    Args:
        speed: how fast it writes, beside 1.
        slots: answers that it writes at once; others wait.
        window: requests that it takes in any 60 s; others get a 429.
        cache: how many prompts' beginnings it keeps.
    """

    def __init__(self, speed=1.0, slots=64, *, seed=1, window=None, cache=0):
        self.speed, self.slots = speed, asyncio.Semaphore(slots)
        self.rng = random.Random(seed)
        self.window, self.recent = window, collections.deque()
        self.cache, self.cached, self.hits = cache, {}, 0
        self.served = self.refused = self.broken = 0
        self.stalled_until = 0.0
        self.up, self.open = True, set()

    async def sleep(self, seconds):
        loop = asyncio.get_running_loop()
        await asyncio.sleep(seconds / self.speed)
        while self.stalled_until > loop.time():
            await asyncio.sleep(self.stalled_until - loop.time())

    async def answer(self, request):
        now, task = asyncio.get_running_loop().time(), asyncio.current_task()
        if not self.up:
            raise APIConnectionError("refused", request_sent=False)
        if self.window is not None:
            self.count(now)
        self.read_prompt(request)
        self.open.add(task)
        try:
            async with self.slots:
                return await self.write()
        except asyncio.CancelledError:
            if self.up:
                raise
            task.uncancel()
            self.broken += 1
            raise APIConnectionError("cut", request_sent=True) from None
        finally:
            self.open.discard(task)

    def count(self, now):
        while self.recent and self.recent[0] <= now - 60:
            self.recent.popleft()
        if len(self.recent) >= self.window:
            self.refused += 1
            raise RateLimitError("too many", status_code=429, headers={})
        self.recent.append(now)

    def read_prompt(self, request):
        start = request.params["messages"][0]["content"]
        self.hits += start in self.cached
        self.cached.pop(start, None)
        self.cached[start] = True
        if len(self.cached) > self.cache:
            del self.cached[next(iter(self.cached))]

    async def write(self):
        await self.sleep(0.1)
        response = Response(200, {})
        response.first_token_at = asyncio.get_running_loop().time()
        tokens = self.rng.uniform(0.66, 1.33) * TOKENS
        await self.sleep(tokens / TOKENS)
        self.served += 1
        response.finish("ok", Usage(10, int(tokens), 10 + int(tokens)))
        return response

    def kill(self):
        self.up = False
        for task in list(self.open):
            task.cancel()


def balanced(servers, *, each=None, balance="least_loaded", affinity=None):
    """Return the balancer, and a handler as a client has one over real servers."""
    endpoints = [
        Endpoint(f"http://localhost:{8000 + number}/v1", name=f"s{number}", **(each or {}))
        for number in range(len(servers))
    ]
    balancer = build(
        endpoints,
        {"api_key": "k"},
        balance=balance,
        affinity=affinity,
        rate_limit=RateLimit(),
        breaker=CircuitBreaker(),
        transport=Transport,
        limiter=Limiter,
    )
    where = {node.transport: server for node, server in zip(balancer.nodes, servers, strict=True)}
    handler = BalancedHandler(
        balancer, None, lambda transport: where[transport].answer, log=None, use_breaker=True
    )
    layer = RetryMiddleware(RetryPolicy(max_attempts=4), None, may_move=balancer.may_move)
    return balancer, lambda request: layer(request, handler)


def make_request(content="hello", model="m"):
    loop = asyncio.get_running_loop()
    params = {"model": model, "messages": [{"role": "user", "content": content}]}
    return Request(
        operation=CHAT, path="/chat/completions", params=params, model=model, stream=False,
        headers={"Idempotency-Key": "k"}, query=None, timeout=Timeout(), priority="interactive",
        call=Call(loop.time(), None, loop), content=b"{}",
    )  # fmt: skip


async def closed_loop(handle, width, seconds, prompts=None):
    """Keep ``width`` calls in flight for so long; return when answers came, and first tokens."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    done = []

    async def worker():
        while loop.time() < end:
            started = loop.time()
            response = await handle(make_request("hello" if prompts is None else prompts()))
            done.append((loop.time(), response.first_token_at - started))

    await asyncio.gather(*(worker() for _ in range(width)))
    return [one for one in done if one[0] <= end]


def test_equal_servers_share_equally_and_are_used_in_full():
    async def run():
        servers = [Server(seed=number) for number in range(8)]
        _, handle = balanced(servers)
        await closed_loop(handle, 1000, 9)
        served = [server.served for server in servers]
        alone = Server()
        _, handle = balanced([alone])
        await closed_loop(handle, 125, 9)
        assert sum(served) >= 0.98 * 8 * alone.served
        assert max(served) / min(served) <= 1.1

    random.seed(7)
    run_with_jumping_time(run())


async def unequal(balance="least_loaded"):
    """Servers of speeds 1 : 2 : 4, one of which stalls: share of the ideal, p99 of first tokens."""
    speeds = (1, 1, 1, 2, 2, 2, 4, 4)
    servers = [Server(speed, slots=8, seed=n) for n, speed in enumerate(speeds)]
    stalls = 0

    async def stall():
        nonlocal stalls
        while True:
            await asyncio.sleep(5)
            servers[-1].stalled_until = asyncio.get_running_loop().time() + 1.0
            stalls += 1

    balancer, handle = balanced(servers, balance=balance)
    if balance == "round_robin":  # the best fixed split
        for node, speed in zip(balancer.nodes, speeds, strict=True):
            node.weight = float(speed)
    stalling = asyncio.create_task(stall())
    done = await closed_loop(handle, 125, 30)
    stalling.cancel()
    ideal = sum(8 * speed / 1.1 for speed in speeds) * 30 - stalls * 8 * 4 / 1.1
    firsts = sorted(first for at, first in done if at > 10)
    return len(done) / ideal, firsts[int(len(firsts) * 0.99)]


def test_unequal_servers_one_of_which_stalls():
    random.seed(7)
    share, p99 = run_with_jumping_time(unequal())
    _, fixed = run_with_jumping_time(unequal("round_robin"))
    assert share >= 0.95
    assert p99 <= 1.3 * fixed


def test_two_of_eight_servers_are_lost_and_come_back():
    async def run():
        servers = [Server(slots=8, seed=number) for number in range(8)]
        _, handle = balanced(servers)
        loop, in_flight = asyncio.get_running_loop(), 0

        async def lose():
            nonlocal in_flight
            await asyncio.sleep(10)
            in_flight = sum(len(server.open) for server in servers[:2])
            for server in servers[:2]:
                server.kill()
            await asyncio.sleep(10)
            for server in servers[:2]:
                server.up = True

        losing = loop.create_task(lose())
        # No call fails: closed_loop() would raise its error.
        done = await closed_loop(handle, 120, 40)
        await losing
        assert sum(server.broken for server in servers) <= in_flight

        def rate(start, end):
            return sum(start <= at < end for at, _ in done) / (end - start)

        each = rate(3, 10) / 8
        assert rate(12, 20) >= 0.95 * 6 * each  # from 2 s after the loss on
        assert rate(30, 40) >= 0.95 * 8 * each  # from 10 s after the return on

    random.seed(7)
    run_with_jumping_time(run())


def test_five_keys_with_strict_windows():
    async def run():
        keys = [Server(slots=1000, seed=number, window=60) for number in range(5)]
        _, handle = balanced(keys, each={"rate_limit": RateLimit(requests_per_minute=60)})
        await closed_loop(handle, 100, 300)
        assert sum(key.refused for key in keys) == 0
        assert sum(key.served for key in keys) >= 0.97 * 5 * 60 * 5

    random.seed(7)
    run_with_jumping_time(run())


def test_prompts_that_begin_alike_find_what_their_server_has_cached():
    async def run():
        servers = [Server(seed=number, cache=10) for number in range(8)]
        _, handle = balanced(servers, affinity="prefix")
        drawn = random.Random(3)
        await closed_loop(handle, 128, 30, lambda: f"You are number {drawn.randrange(64)}.")
        served = [server.served for server in servers]
        assert sum(server.hits for server in servers) >= 0.9 * sum(served)
        assert max(served) <= 1.25 * sum(served) / 8

    run_with_jumping_time(run())


def test_a_popular_beginning_spills_over():
    async def run():
        servers = [Server(slots=8, seed=number, cache=10) for number in range(4)]
        _, handle = balanced(servers, affinity="prefix")
        await closed_loop(handle, 64, 20)
        served = [server.served for server in servers]
        assert max(served) <= 1.5 * sum(served) / 4

    run_with_jumping_time(run())


async def cost_of_choosing(count, calls=4000):
    """Microseconds of CPU per choice and what is learned of its end."""
    balancer, _ = balanced([Server() for _ in range(count)])
    loop, request = asyncio.get_running_loop(), make_request()
    balancer.attach(loop)
    best = float("inf")
    strategy = balancer.strategy
    nodes = balancer.nodes
    for node in nodes:
        node.load.began(node, 0.1, 1.0)
        node.load.in_flight = random.randrange(20)
    for _ in range(5):
        began = time.process_time()
        for _ in range(calls):
            strategy.first(nodes, request, 1.5)
        best = min(best, time.process_time() - began)
    return best / calls * 1e6


def test_the_choice_costs_the_same_for_any_number_of_endpoints():
    few, many = (run_with_jumping_time(cost_of_choosing(count)) for count in (8, 64))
    # Of a few microseconds; the figures are printed by benchmarks/bench_endpoints.py.
    assert many < 3 * few + 5


@pytest.mark.parametrize(
    "tokens", [10**9, 10**400, 1e308, math.inf, math.nan, -5, -(10**400), 0, True]
)
def test_no_figure_of_a_servers_draws_all_calls_or_upsets_the_others(tokens):
    fleet = Fleet()
    honest, other = Load(fleet), Load(fleet)
    for load in (honest, other):
        load.began(object(), 0.2, 1.0)
        load.wrote(100, 1.0, 1.0)
    for at in range(50):
        other.wrote(tokens, 1.0, 2.0 + at)
    assert 0 < fleet.per_token <= 1.0
    assert 0 < fleet.tokens <= 10_000
    for load in (honest, other):
        assert math.isfinite(load.score(60.0))
        assert 1e-4 <= load.per_token <= 1.0
    assert honest.per_token == pytest.approx(0.01)


# -- what is rare ----------------------------------------------------------------------------------


class Broken:
    """A server that answers every call with an error of its own."""

    answered = 0

    async def answer(self, _request):
        await asyncio.sleep(0.01)
        self.answered += 1
        raise InternalServerError("broken", status_code=500, headers={})


async def until_refused(handle, request):
    """Call until the circuits refuse; return the refusal."""
    for _ in range(200):
        try:
            await handle(request())
        except CircuitOpenError as error:
            return error
        except InternalServerError:
            await asyncio.sleep(0.01)
    raise AssertionError("the circuits never opened")


@pytest.mark.parametrize("each", [{}, {"max_concurrency": 8}])
def test_when_all_circuits_are_open_the_error_says_when_the_first_closes(each):
    async def test():
        servers = [Broken(), Broken()]
        balancer, handle = balanced(servers, each=each)
        refused = await until_refused(handle, make_request)
        asked = sum(server.answered for server in servers)
        with pytest.raises(CircuitOpenError):
            await handle(make_request())
        assert sum(server.answered for server in servers) == asked
        # What was taken from the limits meanwhile has been given back.
        assert all(state.in_flight == 0 for state in states(balancer))
        await asyncio.sleep(refused.retry_after + 1)
        with pytest.raises((InternalServerError, CircuitOpenError)):
            await handle(make_request())
        assert sum(server.answered for server in servers) > asked  # probes are sent
        return refused.retry_after

    assert 0 < run_with_jumping_time(test()) <= 60


def test_a_call_that_names_no_model_is_refused_by_the_circuit_of_where_its_files_are():
    async def test():
        servers = [Broken(), Server()]
        _, handle = balanced(servers)

        def files():
            return make_request().replace(operation=FILES, path="/files", model=None, params=None)

        await until_refused(handle, files)
        assert servers[1].served == 0  # the other has not got them

    run_with_jumping_time(test())


def states(balancer):
    now = asyncio.get_running_loop().time()
    return [node.state(now) for node in balancer.nodes]


def test_a_slot_that_comes_after_the_circuit_has_opened_is_given_back():
    async def test():
        servers = [Broken()]
        balancer, handle = balanced(servers, each={"max_concurrency": 2})
        results = await asyncio.gather(
            *(handle(make_request()) for _ in range(60)), return_exceptions=True
        )
        assert {type(result) for result in results} == {InternalServerError, CircuitOpenError}
        assert states(balancer)[0].in_flight == 0
        lane = balancer.nodes[0].lane("m")
        assert lane.snapshot().in_flight == lane.snapshot().waiting.interactive == 0

    run_with_jumping_time(test())


def test_a_call_to_another_server_does_not_move_to_an_endpoint():
    async def test():
        balancer, _ = balanced([Server(), Server()])
        error = InternalServerError("broken", status_code=500, headers={})
        request = make_request()
        request.call.tried = (balancer.nodes[0],)
        assert balancer.may_move(request, error)
        assert not balancer.may_move(request.replace(target=Fallback(model="other")), error)
        files = request.replace(operation=FILES, path="/files", model=None, params=None)
        assert not balancer.may_move(files, error)

    run_with_jumping_time(test())


def test_names_of_models_without_end_cost_no_memory_without_end():
    async def test():
        balancer, _ = balanced([Server(), Server()])
        for number in range(1100):
            request = make_request(model=f"m{number}")
            assert balancer.choose(request, 0.0) is not None
        return len(balancer._tiers)

    assert run_with_jumping_time(test()) <= 1024


@pytest.mark.parametrize("balance", ["round_robin", lambda found, _: found[0]])
def test_the_others_in_order_when_the_chosen_one_is_full(balance):
    async def test():
        balancer, _ = balanced(
            [Server() for _ in range(4)], each={"max_concurrency": 1}, balance=balance
        )
        chosen = []
        for _ in range(4):
            request = make_request()
            request.call.tried = (balancer.nodes[0],)
            chosen.append(balancer.choose(request, 0.0).node.name)
        # The one that it has failed at comes last.
        assert sorted(chosen[:3]) == ["s1", "s2", "s3"]
        assert chosen[3] == "s0"
        assert balancer.choose(make_request(), 0.0) is None

    run_with_jumping_time(test())


def test_a_model_has_another_name_in_plain_parameters_too():
    async def test():
        balancer, _ = balanced([Server()], each={"models": {"m": "there"}})
        sent = balancer.choose(make_request(), 0.0).request
        assert (sent.model, sent.params["model"]) == ("there", "there")
        assert sent.params["messages"] == make_request().params["messages"]

    run_with_jumping_time(test())


def test_beginnings_without_end_cost_no_memory_without_end():
    async def test():
        balancer, _ = balanced([Server() for _ in range(3)])
        placement = Placement()
        assert placement.pick([1], lambda _: True) is None  # there is no endpoint
        placement.place(balancer.nodes)
        for number in range(4200):
            assert placement.pick([number, *(f"{number}/{n}" for n in range(3))], lambda _: True)
        assert placement.pick([0], lambda _: False) is None
        return placement

    placement = run_with_jumping_time(test())
    assert len(placement._known) <= 16384
    assert len(placement._roots) <= 4096


def test_loads_are_not_shared_while_the_store_is_away():
    class Store:
        away, asked = True, 0

        async def share_loads(self, _process, mine):
            self.asked += 1
            await asyncio.sleep(0.001)
            if self.away:
                raise RateLimitStoreError("away")
            return dict.fromkeys(mine, 7)

    async def test():
        loop, store = asyncio.get_running_loop(), Store()
        balancer, _ = balanced([Server(), Server()])
        shared = SharedLoads(store, lambda: balancer.nodes)
        shared.renew(loop.time())
        shared.renew(loop.time())  # one at a time
        await asyncio.sleep(0.1)
        assert (store.asked, [node.load.elsewhere for node in balancer.nodes]) == (1, [0, 0])
        assert shared.due > loop.time() + 0.5  # less often meanwhile
        store.away = False
        shared.renew(loop.time())
        await asyncio.sleep(0.1)
        assert [node.load.elsewhere for node in balancer.nodes] == [7, 7]
        shared.renew(loop.time())
        await shared.close()
        await shared.close()

    run_with_jumping_time(test())
