"""`konko-async bench`: a process of its own, against the emulator."""

import json
import signal
from array import array

import pytest
from cli_kit import CHAT_MODEL, KEY, command, environment, run, terminal
from lazy_module import LazyModule

from konko_async.bench import ClientCost, Plan, RequestTimes
from konko_async.bench._result import result_of
from konko_async.cli._program import execute
from konko_async.testing import faults

plots = LazyModule("konko_async.cli.bench.plots")
CHAT = "/chat/completions"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def env(env, emulator):
    emulator.answer, emulator.answer_tokens = None, 6
    emulator.latency, emulator.tokens_per_second = 0.02, 200
    return {**env, "KONKO_MODEL": CHAT_MODEL}


def chats(emulator):
    return [request for request in emulator.requests if request.path.endswith(CHAT)]


async def bench(*options, env):
    result = await run("bench", *options, env=env)
    assert KEY not in result.out + result.err
    return result


async def test_a_run_is_told_in_a_table(env, emulator):
    result = await bench("-c", "4", "-n", "12", "--goodput", "ttft:5000", "e2el:9000", env=env)
    assert (result.code, result.err) == (0, "")
    lines = {line[:22].strip(): line[22:].strip() for line in result.out.splitlines()}
    assert lines["requests"] == "12 completed, 0 failed"
    assert "(by the server's usage)" in lines["tokens"]
    assert "72 out" in lines["tokens"]
    assert "(ttft ≤ 5000 ms, e2el ≤ 9000 ms)" in lines["goodput"]
    assert lines["in flight"] == "4 at most"
    assert "of a core" in lines["this client"]
    rows = {line.split()[0]: line.split() for line in result.out.splitlines() if line.strip()}
    assert rows["ms"][1:] == ["mean", "median", "std", "p90", "p95", "p99", "max"]
    assert float(rows["TTFT"][1]) >= 20
    assert float(rows["E2EL"][2]) >= 20 + 5 * 5 - 1
    assert {"TPOT", "ITL"} <= rows.keys()
    # Two calls find out how prompts are counted, and a warm-up for each place.
    assert len(chats(emulator)) == 2 + 4 + 12
    body = chats(emulator)[-1].body
    assert (body["max_tokens"], body["stream"]) == (128, True)
    assert "temperature" not in body


async def test_json_has_a_line_for_each_run(env, emulator):
    options = ("-c", "1,3", "-n", "6", "--warmup", "0", "--json", "--percentiles", "50,99.5")
    result = await bench(*options, env=env)
    assert result.code == 0
    one, other = map(json.loads, result.out.splitlines())
    assert (one["max_concurrency"], other["max_concurrency"]) == (1, 3)
    assert (other["completed"], other["failed"], other["num_prompts"]) == (6, 0, 6)
    assert (other["model_id"], other["total_output_tokens"]) == (CHAT_MODEL, 36)
    assert other["p50_ttft_ms"] == other["median_ttft_ms"]
    assert "p99.5_e2el_ms" in other
    assert "ttfts" not in other
    prompts = [json.dumps(request.body["messages"]) for request in chats(emulator)]
    assert len(set(prompts)) == len(prompts) == 2 + 12


async def test_a_sweep_ends_with_a_table_of_its_runs(env):
    result = await bench("--request-rate", "50,100", "-n", "5", env=env)
    assert (result.code, result.err) == (0, "")
    sweep = result.out.partition("Sweep\n")[2].splitlines()
    assert sweep[0].split()[:3] == ["load", "requests/s", "tokens/s"]
    assert [line.split()[0] for line in sweep[1:]] == ["50", "100"]
    assert "queued" in result.out
    assert "end to end, from when it was due" in result.out


async def test_results_and_plots_are_written(env, tmp_path):
    out, plot = tmp_path / "out.json", tmp_path / "plot.png"
    options = ("-c", "2", "-n", "6", "--output", out, "--detailed", "--plot", plot)
    result = await bench(*options, env=env)
    assert result.code == 0
    found = json.loads(out.read_text())
    assert len(found["ttfts"]) == len(found["itls"]) == 6
    assert plot.read_bytes().startswith(PNG)
    sweep = await bench("-c", "1,2", "-n", "4", "--output", out, "--plot", plot, env=env)
    assert sweep.code == 0
    assert [entry["max_concurrency"] for entry in json.loads(out.read_text())] == [1, 2]
    assert plot.read_bytes().startswith(PNG)


async def test_prompts_from_a_file(env, emulator, tmp_path):
    file = tmp_path / "data.jsonl"
    rows = [{"prompt": "One", "output_tokens": 3}, {"prompt": "Two"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--dataset", file, "--warmup", "0", "-t", "0", "--extra-body", '{"top_k": 5}')
    result = await bench(*options, env=env)
    assert result.code == 0, result.err
    bodies = [request.body for request in chats(emulator)]
    assert [body["messages"][0]["content"] for body in bodies] == ["One", "Two"]
    assert [body.get("max_tokens") for body in bodies] == [3, None]
    assert [(body["temperature"], body["top_k"]) for body in bodies] == [(0, 5)] * 2
    again = await bench("--dataset", file, "-n", "5", "--warmup", "0", env=env)
    assert "5 completed" in again.out


async def test_other_ways_to_ask(env, emulator):
    options = ("-n", "2", "--no-stream", "--output-tokens", "5", "--ignore-eos", "--input-tokens", "30")  # fmt: skip
    result = await bench(*options, env=env)
    assert result.code == 0
    assert "TTFT" not in result.out
    assert "E2EL" in result.out
    last = chats(emulator)[-1]
    assert last.body.get("stream") is not True
    assert (last.body["max_tokens"], last.body["ignore_eos"]) == (5, True)
    result = await bench("-n", "2", "--no-usage", env=env)
    assert "(chunks)" in result.out
    assert "stream_options" not in chats(emulator)[-1].body


async def test_failures_make_exit_code_1_and_are_not_retried(env, emulator):
    script = [None, None, faults.Status(503), faults.Status(429, retry_after=60)]
    emulator.script(*script, path=CHAT)
    result = await bench("-n", "5", "--warmup", "0", env=env)
    assert result.code == 1
    assert "3 completed, 2 failed" in result.out
    assert "InternalServerError 503 1" in result.out
    assert "RateLimitError 429 1" in result.out
    assert len(chats(emulator)) == 7


async def test_a_server_that_does_not_answer_is_an_error(env):
    result = await bench("--base-url", "http://127.0.0.1:9/v1", env=env)
    assert (result.code, result.out) == (1, "")
    assert result.err.count("\n") == 1


async def test_prompts_that_cannot_be_so_short_or_counted_are_said(env, emulator):
    result = await bench("-n", "1", "--input-tokens", "3", env=env)
    assert result.err == "konko-async: prompts are longer: this server adds 3 tokens to each\n"
    emulator.always(faults.Quirks(usage="none"))
    result = await bench("-n", "1", env=env)
    assert result.err.endswith("reports no prompt tokens: each word counts as one\n")


async def test_a_duration(env):
    result = await bench("--duration", "0.3", "-c", "2", "--json", env=env)
    found = json.loads(result.out)
    assert result.code == 0
    assert found["num_prompts"] is None
    assert 0.25 < found["duration"] < 3
    assert found["completed"] >= 2


async def test_ctrl_c_prints_what_there_is(env, emulator, tmp_path):
    out = tmp_path / "out.json"
    arguments = ("bench", "-c", "2,4", "-n", "9999", "--output", out)
    async with command(*arguments, env=env) as running:
        await emulator.wait_until(lambda: emulator.received > 14, timeout=60)
        running.signal(signal.SIGINT)
        result = await running.finish()
    assert result.code == 130
    assert "concurrency 2" in result.out
    assert "TTFT" in result.out
    assert "stopped early" in result.out
    found = json.loads(out.read_text())
    assert (found["interrupted"], found["failed"]) == (True, 0)
    assert found["completed"] > 0


async def test_a_terminal_shows_how_it_goes_and_draws_the_table(env):
    async with terminal("bench", "-c", "2", "--duration", "1.5", env=env, width=120) as shown:
        await shown.wait_for("first token")
        table = await shown.wait_for("end to end")
        assert await shown.finish() == 0
    assert "│ TTFT" in table
    assert "┃" in table


async def test_a_log_gets_lines_if_it_wants_them(env):
    result = await bench("-n", "4", "--progress", "plain", env=env)
    assert result.err.startswith("konko-async: concurrency 1: ")
    assert "/4 done" in result.err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["-c", "0"], "numbers of at least 1"),
        (["-c", "1,x"], "numbers of at least 1"),
        (["--request-rate", "0"], "rates"),
        (["-c", "1,2", "--request-rate", "1,2"], "not both"),
        (["--burstiness", "-1"], "above 0"),
        (["--percentiles", "90,101"], "percentiles"),
        (["--goodput", "itl:5"], "itl:5"),
        (["--goodput", "ttft:-5"], "ttft:-5"),
        (["--goodput", "ttft:5", "more"], "more"),
        (["more"], "more"),
        (["--no-stream", "--goodput", "ttft:5"], "no first token"),
        (["--extra-body", "[]"], "JSON object"),
        (["--plot", "plot.gif"], ".png"),
        (["--output", "/nowhere/out.json"], "cannot be written"),
        (["--dataset", "/nowhere/data.jsonl"], "cannot be read"),
        (["--duration", "0"], "--duration"),
    ],
)
def test_wrong_usage_is_exit_code_2(monkeypatch, capsys, options, problem):
    monkeypatch.setenv("KONKO_API_KEY", KEY)
    monkeypatch.setenv("KONKO_BASE_URL", "http://127.0.0.1:9/v1")
    assert execute(["bench", "-m", CHAT_MODEL, *options]) == 2
    shown = capsys.readouterr()
    assert problem in shown.err
    assert shown.out == ""


async def test_without_a_model_it_says_how_to_name_one(emulator, tmp_path):
    result = await bench(env=environment(emulator, tmp_path))
    assert result.code == 2
    assert "--model" in result.err


# -- the plots, of figures that no emulator gives ----------------------------------------------------


def made(records, **options):
    cost = ClientCost(cpu_seconds=1, cpu_share=0.9, cpu_per_chunk=None, loop_lag=0.1)
    plan = Plan(**{"model": "m", "requests": 9, "concurrency": 1, **options})
    return result_of(
        plan,
        tuple(records),
        base_url="http://127.0.0.1/v1",
        started_at=0,
        duration=3.0,
        peak_in_flight=1,
        interrupted=False,
        cancelled=0,
        client=cost,
    )


def record(*times, **more):
    values = {"started": 0, "ended": 1, "times": array("d", times), "output_tokens": len(times)}
    return RequestTimes(**{**values, **more})


FAILED = record(error="RateLimitError 429", message="no")


@pytest.mark.parametrize(
    "records",
    [
        [],
        [FAILED],
        [record(0.5)],
        [record(0.5, 0.5, 0.5)],
        [record(1e-5, 2.0), FAILED, record(3.0, 3.001)],
        [record(0.0, 0.0)],
        [record(1.0, streamed=False)],
    ],
)
def test_anything_can_be_drawn(records):
    kind = "svg" if len(records) % 2 else "png"
    runs = [made(records, concurrency=places) for places in (1, 2, 64)]
    for results in (runs[:1], runs):
        assert plots.picture(results, kind).startswith(PNG if kind == "png" else b"<?xml")
