"""The Prometheus observer: what a scrape shows, and what the dashboard asks for."""

import asyncio
import json
import re
import threading
from pathlib import Path

import pytest
from client_kit import ASK, MODEL, ask, make_client, serving
from prometheus_client import CollectorRegistry, generate_latest

from konko_async import CircuitBreaker, ConfigurationError, RateLimit, RetryPolicy, StoreRecord
from konko_async.integrations.prometheus import PrometheusObserver
from konko_async.testing import Answer, Emulator, FaultServer, faults

FAST = RetryPolicy(max_attempts=3, base_delay=0.001)
DASHBOARD = Path(__file__).parents[2] / "examples" / "grafana-dashboard.json"
CHAT = {"operation": "chat", "model": MODEL}


@pytest.fixture
def metrics():
    return PrometheusObserver(registry=CollectorRegistry())


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"konko_{name}", labels)


def both(metrics, **options):
    return {"observers": [metrics], "middleware": [metrics], **options}


async def test_calls_attempts_and_tokens(metrics):
    async with Emulator() as emulator, make_client(emulator, **both(metrics, retry=FAST)) as client:
        emulator.script(faults.Status(429, retry_after_ms=1), faults.Status(503))
        done = await ask(client, stream=False)
        await ask(client, stream=True, stream_options={"include_usage": True})
        emulator.script(faults.Status(400))
        with pytest.raises(Exception, match="400"):
            await ask(client, stream=False)
    assert value(metrics, "calls_total", **CHAT, outcome="ok") == 2
    assert value(metrics, "calls_total", **CHAT, outcome="error") == 1
    assert value(metrics, "call_errors_total", **CHAT, error="BadRequestError") == 1
    for status, count in (("200", 2), ("429", 1), ("503", 1), ("400", 1)):
        assert value(metrics, "attempts_total", **CHAT, status=status) == count
    assert value(metrics, "retries_total", **CHAT) == 2
    assert value(metrics, "rate_limited_total", **CHAT) == 1
    assert value(metrics, "call_duration_seconds_count", **CHAT) == 3
    assert value(metrics, "time_to_first_token_seconds_count", **CHAT) == 1
    assert value(metrics, "limiter_wait_seconds_count", **CHAT) == 5
    assert value(metrics, "tokens_total", **CHAT, kind="prompt") == 2 * done.usage.prompt_tokens
    assert value(metrics, "in_flight", **CHAT) == 0


async def test_a_stream_that_its_reader_left(metrics):
    whole = Answer.stream(["Hel", "lo"])
    server = FaultServer(whole.stall(whole.wire.index(b'"lo"') - 120))
    async with serving(server, **both(metrics)) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        await anext(stream)
        assert value(metrics, "in_flight", **CHAT) == 1
        await stream.close()
    assert value(metrics, "in_flight", **CHAT) == 0
    assert value(metrics, "calls_total", **CHAT, outcome="closed") == 1
    assert value(metrics, "tokens_total", **CHAT, kind="estimated_completion") >= 1
    assert value(metrics, "tokens_total", **CHAT, kind="estimated_prompt") > 1


async def test_hedges(metrics):
    stream = Answer.stream(["Hel", "lo"])
    server = FaultServer(stream.stall(0), stream)
    async with serving(server, **both(metrics, hedge_after=0.02)) as client:
        await ask(client, stream=True)
    assert value(metrics, "hedges_total", **CHAT) == 1
    assert value(metrics, "retries_total", **CHAT) is None
    assert value(metrics, "attempts_total", **CHAT, status="CancelledError") == 1


async def test_limits_circuits_and_connections_as_they_are(metrics):
    breaker = CircuitBreaker(min_calls=2, failure_rate=0.5, min_duration=0, open_for=5)
    limit = RateLimit(requests_per_minute=100, max_concurrency=2)
    options = both(metrics, circuit_breaker=breaker, rate_limit=limit)
    async with Emulator() as emulator, make_client(emulator, **options) as client:
        metrics.watch(client)
        emulator.script(faults.Stall(), faults.Stall())
        tasks = [asyncio.create_task(ask(client, stream=False)) for _ in range(3)]
        await emulator.wait_until(lambda: emulator.in_flight == 2)
        assert value(metrics, "limit_in_flight", model=MODEL) == 2
        assert value(metrics, "limit_waiting", model=MODEL) == 1
        assert value(metrics, "limit_used_ratio", model=MODEL, quantity="requests") >= 0.02
        assert value(metrics, "connections", state="in_use") == 2
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        emulator.outage = 503
        for _ in range(2):
            with pytest.raises(Exception, match="503"):
                await ask(client, stream=False)
        states = {(c.origin, c.model or ""): c.state for c in client.circuits}
        for (origin, model), state in states.items():
            shown = value(metrics, "circuit_open", origin=origin, model=model)
            assert shown == {"open": 1, "closed": 0}[state]
        assert "open" in states.values()
    del client, tasks, task


async def test_labels_stay_few():
    metrics = PrometheusObserver(registry=CollectorRegistry(), max_models=2)
    async with (
        Emulator(models=[f"m{n}" for n in range(5)]) as emulator,
        make_client(emulator, **both(metrics)) as client,
    ):
        metrics.watch(client)
        for number in range(5):
            messages = [{"role": "user", "content": "Hi"}]
            await client.chat.completions.create(model=f"m{number}", messages=messages)
        text = generate_latest(metrics.registry).decode()
    assert set(re.findall(r'model="([^"]*)"', text)) == {"m0", "m1", "other"}
    assert value(metrics, "calls_total", operation="chat", model="other", outcome="ok") == 3
    only = PrometheusObserver(registry=CollectorRegistry(), models=["a"])
    assert [only._label(name) for name in ("a", "b", "a")] == ["a", "other", "a"]


async def test_scrapes_come_from_another_thread(metrics):
    async with Emulator() as emulator, make_client(emulator, **both(metrics)) as client:
        metrics.watch(client)
        await ask(client, stream=False)
        got = []
        thread = threading.Thread(target=lambda: got.append(generate_latest(metrics.registry)))
        thread.start()
        thread.join()
    assert b"konko_limit_in_flight" in got[0]


def test_the_store_of_shared_limits(metrics):
    assert value(metrics, "limit_store_up") == 1
    for state, up in (("away", 0), ("back", 1)):
        metrics(StoreRecord(state=state, choice="open", processes=1, at=0.0))
        assert value(metrics, "limit_store_up") == up


async def test_the_dashboard_asks_for_what_there_is(metrics):
    async with Emulator() as emulator, make_client(emulator, **both(metrics)) as client:
        metrics.watch(client)
        await ask(client, stream=False)
    dashboard = json.loads(DASHBOARD.read_text())
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked |= set(re.findall(r"konko_\w+", target["expr"]))
    there = set()
    for family in metrics.registry.collect():
        there.add(family.name if family.type == "gauge" else f"{family.name}_total")
        if family.type == "histogram":
            there |= {f"{family.name}_bucket"}
    assert asked <= there
    assert {name for name in there if name.endswith("_total")} - asked <= {
        f"{family.name}_total"
        for family in metrics.registry.collect()
        if family.type == "histogram"
    }
    assert len({panel["title"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_bad_arguments(metrics):
    with pytest.raises(ConfigurationError):
        PrometheusObserver(registry=CollectorRegistry(), max_models=0)
    with pytest.raises(ValueError, match="Duplicated"):
        PrometheusObserver(registry=metrics.registry)
