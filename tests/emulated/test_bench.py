"""Benchmarks of an emulator whose pace is known: the figures are what the definitions say.

Most run on pipes in memory, where what is not paced takes no time: then they are exact.
"""

import asyncio
import functools
import json
import math
import sys
from pathlib import Path

import msgspec
import pytest

from konko_async import AsyncKonko, ConfigurationError, RateLimit, RetryPolicy
from konko_async.bench import Plan, Prompt, RandomPrompts, Slo, calibrated, read_dataset, run_bench
from konko_async.bench._arrivals import arrivals
from konko_async.testing import Emulator, faults

sys.path.insert(0, str(Path(__file__).parents[1]))
from pipe_loop import on_pipes

MODEL = "codellama/codellama-13b-instruct"
PACE = {"latency": 0.5, "tokens_per_second": 10, "answer_tokens": 8}
exact = functools.partial(pytest.approx, rel=1e-9, abs=1e-9)


def plan(**options):
    return Plan(**{"model": MODEL, "requests": 6, "concurrency": 2, **options})


async def measured(emulator, options=None, *, prompts=None, **more):
    """Run a benchmark in the loop's time; ``more`` goes to run_bench where it is not the plan's."""
    own = {name: more.pop(name) for name in ("on_progress", "stop") if name in more}
    clock = asyncio.get_running_loop().time
    async with AsyncKonko(emulator.api_key, emulator.base_url, **(options or {})) as client:
        return await run_bench(client, plan(**more), prompts=prompts, clock=clock, **own)


@on_pipes
async def test_each_latency_is_what_its_definition_says():
    async with Emulator(**PACE) as emulator:
        result = await measured(emulator)
    # The first token comes after 0.5 s, and each of the 7 others 0.1 s after the one before.
    for summary, seconds, number in (
        (result.ttft, 0.5, 6),
        (result.tpot, 0.1, 6),
        (result.itl, 0.1, 42),
        (result.e2el, 1.2, 6),
    ):
        assert summary.count == number
        assert (summary.mean, summary.median) == (exact(seconds), exact(seconds))
        assert summary.std == exact(0)
        assert list(summary.percentiles.values()) == [exact(seconds)] * 3
    assert result.queued is result.e2el_queued is None
    assert (result.completed, result.failed, result.errors) == (6, 0, {})
    assert result.duration == exact(3 * 1.2)
    assert result.request_throughput == exact(6 / 3.6)
    assert result.output_throughput == exact(48 / 3.6)
    assert result.total_token_throughput == exact((48 + result.input_tokens) / 3.6)
    assert result.token_source == "usage"


@on_pipes
async def test_tokens_are_the_servers_where_it_tells():
    async with Emulator(**PACE, chunk_tokens=2) as emulator:
        result = await measured(emulator)
    # 4 chunks of 2 tokens, 0.2 s apart: the time per token is by tokens, that between by chunks.
    assert result.output_tokens == 6 * 8
    assert result.itl.count == 6 * 3
    assert result.itl.mean == exact(0.2)
    assert result.tpot.mean == exact(3 * 0.2 / 7)


@on_pipes
async def test_chunks_are_counted_where_the_server_tells_nothing():
    async with Emulator(**PACE, chunk_tokens=2) as emulator:
        emulator.always(faults.Quirks(usage="none"))
        silent = await measured(emulator)
        unasked = await measured(emulator, ask_usage=False)
        assert "stream_options" not in emulator.requests[-1].body
        emulator.clear()
        emulator.script(faults.Quirks(usage="none"))
        partly = await measured(emulator, concurrency=1)
    for result in (silent, unasked):
        assert (result.token_source, result.output_tokens) == ("chunks", 6 * 4)
        assert any("counted as tokens" in warning for warning in result.warnings)
    assert (partly.token_source, partly.output_tokens) == ("both", 4 + 5 * 8)


@on_pipes
async def test_a_chunk_with_the_role_brings_no_token_and_one_without_text_does():
    async with Emulator(**PACE, answer=lambda _: ["a", "b", "c"]) as emulator:
        emulator.always(faults.Quirks(role_in_each=True, usage="none"))
        result = await measured(emulator, requests=1)
    assert result.output_tokens == 3
    assert result.ttft.mean == exact(0.5)


@on_pipes
async def test_whole_answers_have_an_end_and_no_first_token():
    async with Emulator(**PACE) as emulator:
        result = await measured(emulator, stream=False, slo=Slo(e2el=2))
        assert emulator.requests[-1].body.get("stream") is not True
    assert result.ttft is result.tpot is result.itl is None
    assert result.e2el.mean == exact(0.5 + 8 * 0.1)
    assert result.output_tokens == 48
    assert result.goodput == exact(result.request_throughput)
    assert result.to_dict()["mean_ttft_ms"] is None


@on_pipes
@pytest.mark.parametrize(("concurrency", "waves"), [(1, 6), (4, 2), (6, 1), (None, 1), (50, 1)])
async def test_so_many_requests_are_in_flight(concurrency, waves):
    async with Emulator(**PACE) as emulator:
        result = await measured(emulator, concurrency=concurrency)
        assert emulator.peak_in_flight == result.peak_in_flight == min(concurrency or 6, 6)
        assert emulator.received == 6
    assert result.duration == exact(waves * 1.2)


@on_pipes
async def test_a_duration_ends_the_beginning_of_requests_not_their_answers():
    async with Emulator(**PACE) as emulator:
        result = await measured(emulator, requests=None, duration=3.0, concurrency=2)
        first = await measured(emulator, requests=2, duration=3.0, concurrency=2)
    # Begun at 0, 1.2 and 2.4 s.
    assert (result.completed, result.duration) == (6, exact(3.6))
    assert first.completed == 2


@on_pipes
async def test_a_rate_sends_when_it_is_time_whatever_the_server_does():
    async with Emulator(**PACE) as emulator:
        result = await measured(emulator, concurrency=None, request_rate=5.0, seed=3, requests=20)
    due = list(arrivals(5.0, number=20, seed=3))
    assert [record.intended for record in result.records] == due
    assert [record.started for record in result.records] == exact(due)
    assert result.queued.maximum == exact(0)
    assert result.duration == exact(20 / 5 + 1.2)
    assert result.to_dict()["request_rate"] == 5.0


@on_pipes
async def test_waiting_for_a_place_is_told_apart_from_latency():
    """Coordinated omission: a request that had to wait here would have been answered later."""
    async with Emulator(**PACE) as emulator:
        result = await measured(
            emulator, concurrency=1, request_rate=2.0, burstiness=math.inf, requests=4
        )
    # Due at 0.5, 1, 1.5, 2; sent when the one before has ended, every 1.2 s.
    assert result.e2el.mean == exact(1.2)
    queued = [0.0, 0.7, 1.4, 2.1]
    assert [record.queued for record in result.records] == exact(queued)
    assert result.e2el_queued.maximum == exact(1.2 + 2.1)
    found = result.to_dict()
    assert found["mean_client_queue_time_ms"] == exact(1000 * sum(queued) / 4)
    assert found["mean_e2el_including_client_queue_ms"] == exact(1200 + 1000 * sum(queued) / 4)


@on_pipes
async def test_a_rate_for_a_duration():
    async with Emulator(**PACE) as emulator:
        result = await measured(
            emulator,
            requests=None,
            duration=2.0,
            concurrency=None,
            request_rate=4.0,
            burstiness=math.inf,
        )
    assert [record.started for record in result.records] == exact([0.25 * n for n in range(1, 8)])


@on_pipes
async def test_failures_are_counted_by_kind_and_in_no_latency():
    async with Emulator(**PACE) as emulator:
        script = (
            faults.Status(503),
            faults.Status(429, retry_after=30),
            faults.Status(429),
            faults.Cut(after_chunks=3, reset=False),
            faults.ErrorInStream(after_chunks=2),
            faults.Stall(after_chunks=2),
            None,
            None,
        )
        emulator.script(*script)
        result = await measured(
            emulator,
            # All of these would hide what fails, and are not heeded.
            {"retry": RetryPolicy(), "rate_limit": RateLimit(requests_per_minute=1)},
            requests=8,
            concurrency=1,
            timeout=5.0,
        )
        assert emulator.received == 8
    assert result.errors == {
        "InternalServerError 503": 1,
        "RateLimitError 429": 2,
        "StreamTruncatedError": 1,
        "StreamServerError": 1,
        "APITimeoutError": 1,
    }
    assert set(result.messages) == set(result.errors)
    assert (result.completed, result.failed) == (2, 6)
    assert result.ttft.count == 2
    assert result.e2el.maximum == exact(1.2)
    assert result.output_tokens == 16
    # A 429 that asks for 30 s holds nothing up.
    assert result.duration < 5 + 5 * 1.2
    assert [record.ok for record in result.records] == [fault is None for fault in script]
    assert result.to_dict()["errors_by_class"] == result.errors


@on_pipes
async def test_a_server_that_is_not_there_is_a_failure_too():
    async with Emulator() as emulator:
        base_url = emulator.base_url
    async with AsyncKonko("sk-test-0123456789", base_url) as client:
        result = await run_bench(client, plan(requests=3))
    assert result.errors == {"APIConnectionError": 3}
    assert result.ttft is result.e2el is None
    assert result.request_throughput == 0
    assert json.loads(json.dumps(result.to_dict(detailed=True)))["failed"] == 3


@on_pipes
async def test_an_answer_without_a_token_has_failed():
    async with Emulator(answer=lambda _: "") as emulator:
        result = await measured(emulator, requests=2)
    assert result.errors == {"NoToken": 2}


@on_pipes
async def test_warm_ups_do_not_count():
    async with Emulator(**PACE) as emulator:
        emulator.script(faults.Status(503))
        result = await measured(emulator, warmup=3)
        assert emulator.received == 9
    assert (result.completed, result.failed, len(result.records)) == (6, 0, 6)
    assert result.records[0].started == exact(0)
    assert result.to_dict()["num_warmups"] == 3


@on_pipes
async def test_goodput_counts_who_met_every_objective():
    slow = faults.Delay(1.0)
    async with Emulator(**PACE) as emulator:
        emulator.script(None, slow, None, slow)
        result = await measured(emulator, requests=4, concurrency=1, slo=Slo(ttft=0.6, tpot=0.2))
        none = await measured(emulator, requests=4, slo=Slo(ttft=0.6, tpot=0.05))
    assert result.goodput == exact(2 / result.duration)
    assert result.to_dict()["request_goodput"] == result.goodput
    assert result.to_dict()["goodput_slo_ms"] == {"ttft": exact(600), "tpot": exact(200)}
    assert none.goodput == 0


@on_pipes
async def test_what_is_asked_is_what_the_plan_says():
    prompts = iter([Prompt([{"role": "user", "content": "Hi"}], None, 5), *[Prompt([{"role": "user", "content": "Ho"}])] * 2])  # fmt: skip
    params = {"temperature": 0.5, "extra_body": {"top_k": 7}}
    async with Emulator() as emulator:
        await measured(
            emulator,
            prompts=prompts,
            requests=2,
            concurrency=1,
            output_tokens=9,
            ignore_eos=True,
            params=params,
        )
        one, other = (request.body for request in emulator.requests)
    assert one["messages"] == [{"role": "user", "content": "Hi"}]
    assert (one["max_tokens"], other["max_tokens"]) == (5, 9)
    for body in (one, other):
        assert body["stream_options"] == {"include_usage": True}
        assert (body["temperature"], body["top_k"], body["ignore_eos"]) == (0.5, 7, True)
    assert params == {"temperature": 0.5, "extra_body": {"top_k": 7}}


@on_pipes
async def test_stopping_gives_what_there_is():
    stop = asyncio.Event()
    async with Emulator(**PACE) as emulator:
        asyncio.get_running_loop().call_later(3.0, stop.set)
        result = await measured(emulator, requests=100, stop=stop)
        await emulator.wait_until(lambda: emulator.in_flight == 0)
        assert emulator.received == 6
        early = await measured(emulator, warmup=5, stop=stop)
    assert (result.interrupted, result.completed, result.cancelled) == (True, 4, 2)
    assert (result.failed, result.duration) == (0, exact(3.0))
    assert any("2 requests in flight" in warning for warning in result.warnings)
    assert (early.interrupted, early.records) == (True, ())
    assert asyncio.current_task().cancelling() == 0


@on_pipes
async def test_cancelling_it_leaves_nothing_behind():
    async with Emulator(**PACE) as emulator:
        before = asyncio.all_tasks()
        task = asyncio.create_task(measured(emulator, requests=100, stop=asyncio.Event()))
        await asyncio.sleep(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await emulator.wait_until(lambda: emulator.connections == 0)
        assert asyncio.all_tasks() <= before


@on_pipes
async def test_a_request_that_cannot_be_sent_is_said_at_once():
    async with Emulator() as emulator:
        for more in ({}, {"request_rate": 100.0}):
            with pytest.raises(ConfigurationError, match="temperature"):
                await measured(emulator, params={"temperature": "hot"}, **more)
        assert emulator.received == 0


@on_pipes
async def test_progress_is_told_while_it_runs():
    states = []
    async with Emulator(**PACE) as emulator:
        await measured(emulator, warmup=2, on_progress=states.append)
    assert states[0].warming_up
    assert [state.requests for state in states if state.warming_up] == [2, 2]
    last = states[-1]
    assert (last.completed, last.failed, last.in_flight, last.chunks) == (6, 0, 0, 48)
    assert last.ttft == exact(0.5)
    assert any(state.in_flight == 2 for state in states)


@on_pipes
async def test_an_error_of_the_progress_function_is_raised():
    def fail(state):
        raise ZeroDivisionError

    async with Emulator(**PACE) as emulator:
        with pytest.raises(ZeroDivisionError):
            await measured(emulator, on_progress=fail)


# What `vllm bench serve` writes, of what this measures (vllm 0.33, vllm/benchmarks/serve.py).
VLLM_TEXT = """
    date backend model_id num_prompts request_rate burstiness max_concurrency duration completed
    failed total_input_tokens total_output_tokens request_throughput request_goodput
    output_throughput total_token_throughput max_output_tokens_per_s max_concurrent_requests
    mean_ttft_ms median_ttft_ms std_ttft_ms p99_ttft_ms mean_tpot_ms median_tpot_ms std_tpot_ms
    p99_tpot_ms mean_itl_ms median_itl_ms std_itl_ms p99_itl_ms mean_e2el_ms median_e2el_ms
    std_e2el_ms p99_e2el_ms
"""
VLLM = set(VLLM_TEXT.split())
VLLM_DETAILED = {
    "input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times",
    "errors",
}  # fmt: skip


@on_pipes
async def test_results_have_vllms_names():
    async with Emulator(**PACE) as emulator:
        result = await measured(emulator, percentiles=(99.0, 99.9))
    found = result.to_dict(detailed=True)
    assert found.keys() >= VLLM | VLLM_DETAILED
    assert not VLLM_DETAILED & result.to_dict().keys()
    assert "p99.9_ttft_ms" in found
    assert found["request_rate"] == "inf"
    assert found["mean_ttft_ms"] == exact(500)
    assert found["ttfts"] == [exact(0.5)] * 6
    assert found["itls"] == [[exact(0.1)] * 7] * 6
    # Its busiest second counts chunks; and requests that were in flight in any part of it.
    assert found["max_output_tokens_per_s"] == max(
        sum(second <= time < second + 1 for record in result.records for time in [record.started + t for t in record.times])
        for second in range(4)
    )  # fmt: skip
    assert json.loads(json.dumps(found)) == found


@on_pipes
async def test_random_prompts_have_the_length_that_was_asked_for():
    async with Emulator() as emulator:
        async with AsyncKonko(emulator.api_key, emulator.base_url) as client:
            prompts, told = await calibrated(client, MODEL, 400, seed=1)
        result = await measured(emulator, prompts=prompts, requests=40)
    assert told
    assert prompts.overhead > 0
    assert result.input_tokens / 40 == pytest.approx(400, rel=0.01)


@on_pipes
async def test_a_word_is_a_token_where_the_server_does_not_tell():
    async with Emulator() as emulator:
        emulator.always(faults.Quirks(usage="none"))
        async with AsyncKonko(emulator.api_key, emulator.base_url) as client:
            prompts, told = await calibrated(client, MODEL, 20)
        result = await measured(emulator, prompts=prompts, requests=3)
    assert not told
    assert len(next(prompts).messages[0]["content"].split()) == 20
    assert result.input_tokens == 60


def test_random_prompts_are_the_same_by_seed_and_never_alike():
    one, other, third = (RandomPrompts(50, seed=seed) for seed in (1, 1, 2))
    texts = [json.dumps(next(one).messages) for _ in range(50)]
    assert texts == [json.dumps(next(other).messages) for _ in range(50)]
    assert len({*texts, json.dumps(next(third).messages)}) == 51


def test_a_dataset_is_read(tmp_path):
    file = tmp_path / "data.jsonl"
    conversation = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows = [{"prompt": "One", "output_tokens": 7}, {"messages": conversation}]
    file.write_text("\n\n".join(json.dumps(row) for row in rows))
    assert read_dataset(file) == [
        Prompt([{"role": "user", "content": "One"}], None, 7),
        Prompt(conversation),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no lines"),
        ("{}", 'data.jsonl:1: needs "prompt"'),
        ('{"prompt": "a"}\nnope', "data.jsonl:2: not JSON"),
        ("[1]", "needs"),
        ('{"messages": []}', "needs"),
        ('{"messages": ["a"]}', "needs"),
        ('{"prompt": "a", "messages": [{}]}', None),
        ('{"prompt": "a", "output_tokens": 0}', "output_tokens"),
        ('{"prompt": "a", "output_tokens": true}', "output_tokens"),
    ],
)
def test_a_dataset_that_is_none_is_refused(tmp_path, text, problem):
    file = tmp_path / "data.jsonl"
    file.write_text(text)
    if problem is None:
        assert len(read_dataset(file)) == 1
        return
    with pytest.raises(ConfigurationError, match=problem):
        read_dataset(file)


def test_a_dataset_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_dataset(tmp_path / "none.jsonl")


async def test_over_sockets_and_by_the_clock():
    """Not exact, but never faster than the server's own pace."""
    async with (
        Emulator(latency=0.05, tokens_per_second=200, answer_tokens=10) as emulator,
        AsyncKonko(emulator.api_key, emulator.base_url) as client,
    ):
        result = await run_bench(client, plan(requests=8, concurrency=8, warmup=8))
    assert result.completed == 8
    assert result.ttft.minimum >= 0.05
    assert result.e2el.minimum >= 0.05 + 9 / 200 - 0.001
    assert result.client.cpu_share > 0
    assert result.client.cpu_seconds > 0
    assert result.client.cpu_per_chunk == result.client.cpu_seconds / 80


@pytest.mark.parametrize(("share", "warned"), [(0.05, False), (0.8, False), (0.81, True)])
@on_pipes
async def test_a_client_that_is_too_busy_warns(share, warned):
    async with Emulator(**PACE) as emulator:
        result = await measured(emulator)
    cost = msgspec.structs.replace(result.client, cpu_share=share)
    result = msgspec.structs.replace(result, client=cost)
    assert cost.is_bottleneck is warned
    assert any("it measured itself" in warning for warning in result.warnings) is warned
