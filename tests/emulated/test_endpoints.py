"""Several endpoints: each attempt goes to one of them, and what one of them does stays its own."""

import asyncio
import collections
import contextlib
import sys
from contextlib import asynccontextmanager

import pytest
from ports import free_port

from konko_async import (
    APIStatusError,
    AsyncKonko,
    Attempt,
    AuthenticationError,
    CallRecord,
    CircuitOpenError,
    ConfigurationError,
    Endpoint,
    Fallback,
    RateLimit,
    RateLimitTimeoutError,
    RetryPolicy,
    Timeout,
)
from konko_async.batch import Processes, run_batch
from konko_async.relay import health
from konko_async.testing import Emulator, EmulatorInThread, faults
from konko_async.testing._emulator.log import fingerprint

MODEL = "codellama/codellama-13b-instruct"
TEXT = "phind/phind-codellama-34b-v2"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello."}]}
PATIENT = Timeout(connect=60, first_token=60, idle=60)


@asynccontextmanager
async def fleet(count, *, each=None, **options):
    """So many emulators, and a client of all of them."""
    # One may go and come back at the same place.
    servers = [Emulator(answer_tokens=4, port=0 if n else free_port()) for n in range(count)]
    async with asyncio.TaskGroup() as group:
        for server in servers:
            group.create_task(server.start())
    endpoints = [
        Endpoint(server.base_url, "sk-test-0123456789", name=f"e{number}", **(each or {}))
        for number, server in enumerate(servers)
    ]
    try:
        async with AsyncKonko(endpoints=endpoints, **{"timeout": PATIENT, **options}) as client:
            yield client, servers
    finally:
        for server in servers:
            await server.close()


def counts(servers):
    return [server.received for server in servers]


async def ask(client, **more):
    return await client.chat.completions.create(**{**ASK, **more})


async def test_calls_are_spread():
    async with fleet(4) as (client, servers):
        await asyncio.gather(*(ask(client) for _ in range(200)))
        assert sum(counts(servers)) == 200
        assert min(counts(servers)) >= 25
        assert sum(state.calls for state in client.endpoints) == 200
        assert all(state.in_flight == 0 and state.state == "ready" for state in client.endpoints)


async def test_streams_are_spread_and_counted_until_they_end():
    async with fleet(2) as (client, servers):
        async with client.chat.completions.stream(**ASK) as one:
            await anext(aiter(one))
            assert sum(state.in_flight for state in client.endpoints) == 1
            async with client.chat.completions.stream(**ASK) as two:
                await anext(aiter(two))
                # The second goes where nothing is in flight.
                assert [state.in_flight for state in client.endpoints] == [1, 1]
        assert [state.in_flight for state in client.endpoints] == [0, 0]
        assert counts(servers) == [1, 1]
        assert all(state.time_to_first_token for state in client.endpoints)


async def test_round_robin_goes_by_weight():
    async with fleet(3, balance="round_robin") as (client, servers):
        for _ in range(9):
            await ask(client)
        assert counts(servers) == [3, 3, 3]
        client.endpoints.add(Endpoint(servers[0].base_url, "sk-test", name="again", weight=3))
        assert len(client.endpoints) == 4


async def test_a_priority_is_filled_first_and_spills_over():
    async with fleet(2, balance="priority", each={"max_concurrency": 2}) as (client, servers):
        for server in servers:
            server.latency = 0.2
        await asyncio.gather(*(ask(client) for _ in range(3)))
        assert counts(servers) == [2, 1]
        await ask(client)
        assert counts(servers) == [3, 1]


async def test_tiers_hold_for_every_strategy():
    async with Emulator() as reserved, Emulator() as other:
        endpoints = [
            Endpoint(other.base_url, "sk-a-0123456789", priority=1),
            Endpoint(reserved.base_url, "sk-b-0123456789"),
        ]
        async with AsyncKonko(endpoints=endpoints) as client:
            for _ in range(5):
                await ask(client)
            assert counts([reserved, other]) == [5, 0]
            client.endpoints.drain(client.endpoints[1].name)
            await ask(client)
            assert counts([reserved, other]) == [5, 1]


async def test_a_function_may_choose():
    seen = []

    def last(states, request):
        seen.append((len(states), request.model))
        return states[-1]

    async with fleet(3, balance=last) as (client, servers):
        await ask(client)
        assert counts(servers) == [0, 0, 1]
        assert seen == [(3, MODEL)]
    async with fleet(1, balance=lambda *_: "nowhere") as (client, _):
        with pytest.raises(ConfigurationError, match="nowhere"):
            await ask(client)


async def test_models_have_other_names_elsewhere():
    async with Emulator() as one, Emulator() as two:
        endpoints = [
            Endpoint(one.base_url, "sk-a-0123456789", models={"fast": MODEL}),
            Endpoint(two.base_url, "sk-b-0123456789", models=[MODEL, "other"]),
        ]
        records = []
        async with AsyncKonko(endpoints=endpoints, observers=[records.append]) as client:
            assert (await ask(client, model="fast")).model == MODEL
            assert counts([one, two]) == [1, 0]
            await ask(client)
            assert counts([one, two]) == [1, 1]
            with pytest.raises(ConfigurationError, match="no endpoint serves 'unknown'"):
                await ask(client, model="unknown")
        calls = [record for record in records if isinstance(record, CallRecord)]
        assert [call.endpoint for call in calls[:2]] == [
            state.split("/")[2] for state in (one.base_url, two.base_url)
        ]
        assert [call.base_url for call in calls[:2]] == [one.base_url, two.base_url]


async def test_a_retry_goes_elsewhere_at_once():
    records = []
    async with fleet(2, balance="priority", observers=[records.append]) as (client, servers):
        servers[0].script(faults.Status(503, retry_after=30))
        await ask(client)
        attempts = [record for record in records if isinstance(record, Attempt)]
        assert [one.endpoint for one in attempts] == ["e0", "e1"]
        assert counts(servers) == [1, 1]
        # It asked for 30 s, and only it is given them.
        await ask(client)
        assert counts(servers) == [1, 2]
        assert [state.state for state in client.endpoints] == ["cooling_down", "ready"]


async def test_one_endpoints_key_may_be_wrong():
    async with fleet(2, balance="priority") as (client, servers):
        servers[0].always(faults.Status(401))
        for _ in range(3):
            await ask(client)
        assert counts(servers)[1] == 3
        servers[1].always(faults.Status(401))
        with pytest.raises(AuthenticationError) as caught:
            await ask(client)
        assert {one.endpoint for one in caught.value.attempts} == {"e0", "e1"}


async def test_a_hedge_goes_elsewhere():
    async with fleet(2, balance="priority", hedge_after=0.05) as (client, servers):
        servers[0].latency = 30
        await ask(client)
        assert counts(servers) == [1, 1]


async def test_calls_wait_for_whichever_endpoint_has_room_first():
    async with fleet(3, each={"max_concurrency": 2}) as (client, servers):
        servers[0].latency = 5
        for server in servers[1:]:
            server.latency = 0.02
        slow = [asyncio.create_task(ask(client)) for _ in range(6)]
        while counts(servers)[0] < 1:
            await asyncio.sleep(0.005)
        # None of these stands behind those that the slow one holds.
        async with asyncio.timeout(4):
            await asyncio.gather(*(ask(client) for _ in range(40)))
        assert counts(servers)[0] <= 2
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        assert all(state.in_flight == 0 for state in client.endpoints)


async def test_a_call_that_cannot_be_admitted_in_time_is_refused():
    async with fleet(2, each={"rate_limit": RateLimit(requests_per_minute=1)}) as (client, servers):
        await ask(client)
        await ask(client)
        with pytest.raises(RateLimitTimeoutError):
            await ask(client, timeout=1)
        assert counts(servers) == [1, 1]


async def test_waiting_calls_that_are_cancelled_leave_nothing_behind():
    async with fleet(2, each={"max_concurrency": 1}) as (client, servers):
        for server in servers:
            server.latency = 0.05
        tasks = [asyncio.create_task(ask(client)) for _ in range(10)]
        await asyncio.sleep(0)
        while sum(counts(servers)) < 2:
            await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(ask(client) for _ in range(4)))
        assert all(lane.in_flight == 0 for lane in client.limits.lanes)


async def test_a_server_that_is_gone_is_put_out_and_comes_back():
    async with fleet(3) as (client, servers):
        port = int(servers[0].base_url.split(":")[2].split("/")[0])
        await servers[0].close()
        results = await asyncio.gather(*(ask(client) for _ in range(120)))
        assert len(results) == 120
        assert client.endpoints["e0"].state == "ejected"
        assert client.endpoints["e0"].reason == "APIConnectionError"
        tried = client.endpoints["e0"].errors
        await asyncio.gather(*(ask(client) for _ in range(60)))
        assert client.endpoints["e0"].errors <= tried + 2  # probes
        back = servers[0] = Emulator(answer_tokens=4, port=port)
        await back.start()
        async with asyncio.timeout(60):
            while client.endpoints["e0"].state == "ejected":
                await ask(client)
                await asyncio.sleep(0.02)
        assert client.endpoints["e0"].state == "starting"


async def test_where_all_are_out_each_is_still_asked():
    async with fleet(2, circuit_breaker=None, retry=None) as (client, servers):
        for server in servers:
            server.always(faults.Status(500))
        for _ in range(20):
            with pytest.raises(APIStatusError):
                await ask(client)
        assert {state.state for state in client.endpoints} == {"ejected"}
        for server in servers:
            server.clear()
        await ask(client)
        assert "starting" in {state.state for state in client.endpoints}


async def test_endpoints_come_and_go_while_calls_run():
    async with fleet(2) as (client, servers), Emulator(answer_tokens=4) as third:
        for server in servers:
            server.latency = 0.05
        running = [asyncio.create_task(ask(client)) for _ in range(20)]
        await asyncio.sleep(0)
        state = client.endpoints.add(Endpoint(third.base_url, "sk-test-0123456789", name="new"))
        assert (state.name, state.state) == ("new", "starting")
        await client.endpoints.remove("e0")
        assert [one.name for one in client.endpoints] == ["e1", "new"]
        await asyncio.gather(*running)
        before = counts(servers)[0]
        await asyncio.gather(*(ask(client) for _ in range(20)))
        assert counts(servers)[0] == before
        assert third.received
        with pytest.raises(ConfigurationError, match="no endpoint 'e0'"):
            client.endpoints.drain("e0")
        client.endpoints.drain("e1")
        client.endpoints.resume("e1")
        await client.endpoints.remove("e1")
        await client.endpoints.remove("new")
        with pytest.raises(ConfigurationError, match=r"endpoints\.add"):
            await ask(client)


async def test_a_client_of_one_server_has_no_endpoints():
    async with AsyncKonko(api_key="k") as client:
        assert len(client.endpoints) == 0
        with pytest.raises(ConfigurationError, match="made for one server"):
            client.endpoints.add(Endpoint("http://localhost:1/v1"))


async def test_a_copy_shares_endpoints_and_may_have_other_limits():
    async with fleet(2) as (client, servers):
        copy = client.with_options(retry=None)
        await ask(copy)
        assert sum(state.calls for state in client.endpoints) == 1
        limited = client.with_options(rate_limit=RateLimit(max_concurrency=1))
        await asyncio.gather(*(ask(limited) for _ in range(6)))
        assert {lane.max_concurrency for lane in limited.limits.lanes} == {1}
        assert sum(counts(servers)) == 7


# -- credentials -----------------------------------------------------------------------------------


def keys_of(server):
    return {entry.key_fingerprint for entry in server.requests}


def prints(*keys):
    return {key and fingerprint(key) for key in keys}


async def test_each_endpoint_gets_its_own_key_and_headers_only():
    async with Emulator() as one, Emulator() as two:
        endpoints = [
            Endpoint(one.base_url, "sk-one-0123456789", headers={"X-Team": "one"}),
            Endpoint(two.base_url, lambda: "sk-two-0123456789"),
        ]
        async with AsyncKonko(endpoints=endpoints, default_headers={"X-All": "yes"}) as client:
            await asyncio.gather(*(ask(client) for _ in range(20)))
        assert keys_of(one) == prints("sk-one-0123456789")
        assert keys_of(two) == prints("sk-two-0123456789")
        assert {entry.headers.get("x-team") for entry in one.requests} == {"one"}
        assert {entry.headers.get("x-team") for entry in two.requests} == {None}
        assert {entry.headers.get("x-all") for entry in two.requests} == {"yes"}


async def test_headers_of_a_call_cross_to_no_other_server():
    async with fleet(2) as (client, servers):
        with pytest.raises(ConfigurationError, match="X-Secret may hold a credential"):
            await ask(client, extra_headers={"X-Secret": "s"})
        with pytest.raises(ConfigurationError, match="query parameter sig"):
            await ask(client, extra_query={"sig": "s"})
        await ask(client, extra_headers={"X-Request-Id": "mine"})
        assert sum(counts(servers)) == 1
    async with Emulator() as server:
        keys = [Endpoint(server.base_url, f"sk-key-{n}-0123456789") for n in range(2)]
        async with AsyncKonko(endpoints=keys) as client:
            await ask(client, extra_headers={"X-Mine": "s"})
            assert [one.name.partition("#")[2] for one in client.endpoints] == ["1", "2"]


async def test_the_key_of_the_environment_goes_to_one_host_only(monkeypatch):
    monkeypatch.setenv("KONKO_API_KEY", "sk-env-0123456789")
    async with Emulator() as one, Emulator() as two:
        async with AsyncKonko(endpoints=[Endpoint(one.base_url), Endpoint(two.base_url)]) as client:
            await asyncio.gather(*(ask(client) for _ in range(20)))
        assert keys_of(one) == keys_of(two) == prints("sk-env-0123456789")
    far = Endpoint("https://example.com/v1")
    async with Emulator(api_keys=None) as one:
        async with AsyncKonko(endpoints=[Endpoint(one.base_url), far], retry=None) as client:
            client.endpoints.drain("example.com")
            with pytest.raises(AuthenticationError):
                await ask(client)
        assert keys_of(one) == prints(None)


async def test_one_idempotency_key_goes_with_all_attempts():
    async with fleet(3, balance="priority", retry=RetryPolicy(base_delay=0.001)) as (
        client,
        servers,
    ):
        servers[0].script(faults.Status(500))
        servers[1].script(faults.Status(500))
        await ask(client)
        found = {s.requests[0].headers["idempotency-key"] for s in servers}
        assert len(found) == 1


async def test_a_fallback_is_a_server_beside_the_endpoints():
    async with (
        Emulator() as beside,
        fleet(
            2,
            fallback_models=[Fallback(base_url=beside.base_url, api_key="sk-beside-0123")],
            retry=None,
        ) as (client, servers),
    ):
        for server in servers:
            server.always(faults.Status(500))
        await ask(client)
        assert keys_of(beside) == prints("sk-beside-0123")


# -- affinity --------------------------------------------------------------------------------------


async def test_prompts_that_begin_alike_go_to_one_endpoint():
    async with fleet(4, affinity="prefix") as (client, servers):
        for round_ in range(5):
            for topic in range(12):
                system = {"role": "system", "content": f"You know all about topic {topic}."}
                await ask(client, messages=[system, {"role": "user", "content": f"Q{round_}"}])
        homes = collections.defaultdict(set)
        for number, server in enumerate(servers):
            for entry in server.requests:
                homes[entry.body["messages"][0]["content"]].add(number)
        assert all(len(where) == 1 for where in homes.values())
        # Bounded: at most 1.25 times the even share of 12 beginnings.
        owned = collections.Counter(number for where in homes.values() for number in where)
        assert max(owned.values()) <= 4


async def test_a_conversation_may_be_named():
    async with fleet(4) as (client, servers):
        for _ in range(6):
            await ask(client, affinity="conversation-1")
        assert sorted(counts(servers)) == [0, 0, 0, 6]
        home = counts(servers).index(6)
        client.endpoints.drain(f"e{home}")
        for _ in range(3):
            await ask(client, affinity="conversation-1")
        assert sorted(counts(servers)) == [0, 0, 3, 6]
        with pytest.raises(ConfigurationError, match="affinity must be a text"):
            await ask(client, affinity=5)


async def test_a_function_may_say_what_belongs_together():
    async with fleet(3, affinity=lambda request: request.params.user) as (client, servers):
        for _ in range(4):
            await ask(client, user="ann")
        assert sorted(counts(servers)) == [0, 0, 4]


async def test_what_belongs_to_nothing_goes_anywhere():
    async with fleet(3, affinity=lambda _: None) as (client, servers):
        await asyncio.gather(*(ask(client) for _ in range(9)))
        assert sum(counts(servers)) == 9
    async with fleet(3, affinity="prefix") as (client, servers):
        # Prompts of tokens have no beginning that anybody could tell.
        for prompt in ([1, 2, 3], [[1], [2]]):
            await client.completions.create(model=TEXT, prompt=prompt, max_tokens=1)
        assert sum(counts(servers)) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look."}]}]},
        {"messages": [{"role": "assistant", "content": None, "refusal": "No."}, *ASK["messages"]]},
    ],
)
async def test_any_content_has_a_beginning(body):
    async with fleet(3, affinity="prefix") as (client, servers):
        for _ in range(4):
            await ask(client, **body)
        assert sorted(counts(servers)) == [0, 0, 4]


async def test_texts_that_begin_alike_go_to_one_endpoint():
    async with fleet(3, affinity="prefix") as (client, servers):
        for end in range(4):
            prompt = "Once upon a time " * 100 + str(end)
            await client.completions.create(model=TEXT, prompt=prompt, max_tokens=1)
        assert sorted(counts(servers)) == [0, 0, 4]


async def test_what_belongs_to_a_busy_or_failing_endpoint_goes_to_the_next():
    async with fleet(3, each={"max_concurrency": 1}) as (client, servers):
        for server in servers:
            server.latency = 0.05
        await asyncio.gather(*(ask(client, affinity="a") for _ in range(3)))
        assert counts(servers) == [1, 1, 1]
    async with fleet(3) as (client, servers):
        await ask(client, affinity="a")
        home = counts(servers).index(1)
        servers[home].script(faults.Status(500))
        await ask(client, affinity="a")
        assert sorted(counts(servers)) == [0, 1, 2]


@pytest.mark.parametrize("balance", ["round_robin", lambda states, _: states[0]])
async def test_whatever_chooses_the_others_are_used_when_the_first_is_full(balance):
    async with fleet(4, each={"max_concurrency": 1}, balance=balance) as (client, servers):
        for server in servers:
            server.latency = 0.05
        await asyncio.gather(*(ask(client) for _ in range(4)))
        assert counts(servers) == [1, 1, 1, 1]


async def test_round_robin_forgets_who_is_gone():
    async with fleet(3, balance="round_robin") as (client, servers):
        for _ in range(3):
            await ask(client)
        for name in ("e0", "e1"):
            await client.endpoints.remove(name)
        for _ in range(3):
            await ask(client)
        assert counts(servers) == [1, 1, 4]


async def test_calls_that_wait_go_on_when_endpoints_are_drained_removed_and_added():
    async with fleet(2, each={"max_concurrency": 1}) as (client, servers):
        for server in servers:
            server.latency = 0.05
        tasks = [asyncio.create_task(ask(client)) for _ in range(6)]
        while sum(counts(servers)) < 2:
            await asyncio.sleep(0.005)
        client.endpoints.drain("e0")
        assert client.endpoints["e0"].state == "draining"
        assert "e0: draining" in repr(client.endpoints)
        await asyncio.gather(*tasks)
        assert counts(servers) == [1, 5]
        client.endpoints.drain("e1")
        with pytest.raises(ConfigurationError, match=r"all endpoints that serve .* are draining"):
            await ask(client)
        client.endpoints.resume("e1")
        tasks = [asyncio.create_task(ask(client)) for _ in range(3)]
        while counts(servers)[1] < 6:
            await asyncio.sleep(0.005)
        for name in ("e0", "e1"):  # the call in flight is waited for, the others have no hope
            await client.endpoints.remove(name)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in ended[1:]] == [ConfigurationError] * 2
        assert "are draining" in str(ended[1])
        assert not isinstance(ended[0], Exception)
        assert (len(client.endpoints), repr(client.endpoints)) == (0, "<Endpoints none>")
        with pytest.raises(KeyError):
            client.endpoints["e1"]
        with pytest.raises(ConfigurationError, match="this client has no endpoint"):
            await ask(client)
        client.endpoints.add(Endpoint(servers[0].base_url, "k", name="again"))
        await ask(client)
        assert client.endpoints["again"].state == "ready"


async def test_calls_that_wait_for_a_server_that_dies_go_to_the_other():
    async with fleet(2, each={"max_concurrency": 1}, retry=RetryPolicy(max_attempts=5)) as (
        client,
        servers,
    ):
        for server in servers:
            server.latency = 0.05
        tasks = [asyncio.create_task(ask(client)) for _ in range(12)]
        while sum(counts(servers)) < 2:
            await asyncio.sleep(0.005)
        await servers[0].close()
        await asyncio.gather(*tasks)
        assert counts(servers)[1] >= 11


def test_endpoints_are_used_on_one_loop_after_another():
    with EmulatorInThread() as server:
        endpoints = [Endpoint(server.base_url, "k", name=name) for name in "ab"]
        client = AsyncKonko(endpoints=endpoints, timeout=PATIENT)

        async def cut():
            task = asyncio.create_task(ask(client))
            await asyncio.sleep(0)
            return task  # is left to the end of the loop

        for work in (ask(client), cut(), ask(client)):
            asyncio.run(work)

        async def end():
            await ask(client)
            states = list(client.endpoints)
            await client.close()
            return states

        states = asyncio.run(end())
    assert [state.in_flight for state in states] == [0, 0]
    assert sum(state.calls for state in states) >= 3


# -- wrong use -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoints": []}, "endpoints is empty"),
        ({"endpoints": ["http://localhost/v1"]}, "list of Endpoint"),
        (
            {"endpoints": [Endpoint("http://localhost/v1")], "base_url": "http://x/v1"},
            "names one server",
        ),
        (
            {"endpoints": [Endpoint("http://localhost/v1")], "balance": "best"},
            "balance must be one of",
        ),
        ({"endpoints": [Endpoint("http://localhost/v1")], "affinity": "yes"}, "affinity must be"),
        ({"endpoints": [Endpoint("http://example.com/v1")]}, "plain http"),
        (
            {"endpoints": [Endpoint("http://localhost/v1", name="a")] * 2},
            "two endpoints are called",
        ),
    ],
)
def test_what_cannot_be_used_is_said(options, said):
    with pytest.raises(ConfigurationError, match=said):
        AsyncKonko(**options)


@pytest.mark.parametrize(
    "bad",
    [
        {"base_url": "ftp://x"},
        {"weight": 0},
        {"weight": "2"},
        {"priority": 1.5},
        {"models": "gpt"},
        {"models": {}},
        {"models": {"*": "x"}},
        {"models": {"a": 3}},
        {"rate_limit": 5},
        {"max_concurrency": 0},
        {"headers": {"A\n": "b"}},
        {"query": {"a": True}},
        {"name": " "},
        {"api_key": 3},
    ],
)
def test_endpoints_are_checked(bad):
    with pytest.raises(ConfigurationError):
        Endpoint(**{"base_url": "http://localhost/v1", **bad})


def test_an_endpoint_shows_no_key():
    shown = repr(Endpoint("http://localhost/v1", "sk-secret-0123", headers={"X": "sk-secret-0123"}))
    assert "sk-secret" not in shown


# -- what stands on a client -----------------------------------------------------------------------


async def test_readiness_shows_endpoints_without_their_names():
    async with fleet(2) as (client, servers):
        await ask(client)
        found = health(client)
        assert found.status == "ok"
        assert sum(one.calls for one in found.endpoints) == 1
        assert "127.0.0.1" not in str(found.as_dict())
        servers[0].always(faults.Status(500))
        servers[1].always(faults.Status(500))
        for _ in range(12):
            with contextlib.suppress(APIStatusError, CircuitOpenError):
                await ask(client, timeout=5)
        assert health(client).status == "degraded"
        assert {one.state for one in health(client).endpoints} == {"ejected"}


async def test_a_batch_loses_nothing_when_an_endpoint_dies(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(f'{{"prompt": "Question {n}"}}' for n in range(300)))
    async with fleet(3) as (client, servers):
        for server in servers:
            server.latency = 0.01

        async def kill():
            while servers[0].received < 40:
                await asyncio.sleep(0.005)
            await servers[0].close()

        killing = asyncio.create_task(kill())
        report = await run_batch(
            client,
            source,
            tmp_path / "out.jsonl",
            model=MODEL,
            prompt="{prompt}",
            max_concurrency=30,
        )
        await killing
    assert (report.done, report.failed) == (300, 0)
    assert sum(made - failed for made, failed in report.endpoints.values()) == 300
    assert report.endpoints["e0"][1] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="worker processes need a POSIX system")
async def test_worker_processes_use_all_endpoints_within_their_limits(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(f'{{"prompt": "Question {n}"}}' for n in range(60)))
    async with fleet(2, each={"max_concurrency": 3}) as (client, servers):
        for server in servers:
            server.latency = 0.01
        report = await run_batch(
            client,
            source,
            tmp_path / "out.jsonl",
            model=MODEL,
            prompt="{prompt}",
            workers=Processes(2),
        )
        assert (report.done, report.failed) == (60, 0)
        assert all(server.received >= 10 for server in servers)
        assert all(server.peak_in_flight <= 3 for server in servers)
        assert sum(made - failed for made, failed in report.endpoints.values()) == 60


async def test_calls_that_name_no_model_go_to_the_first_endpoint():
    async with fleet(3) as (client, servers):
        for _ in range(6):
            await client.models.list()
        assert counts(servers) == [6, 0, 0]
        servers[0].always(faults.Status(503))
        await client.models.list()
        assert counts(servers) == [7, 1, 0]
