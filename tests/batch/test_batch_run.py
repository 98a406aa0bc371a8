"""run_batch end to end: formats, output, resume, stop, limits."""

import asyncio
import json
import stat

import pytest
from batch_kit import MODEL, asked, content, ids, line, read, run, write

from konko_async import AsyncKonko, ConfigurationError, RateLimit, RetryPolicy
from konko_async.batch import (
    BatchChangedError,
    BatchError,
    BatchLockedError,
    BatchOutputError,
    BatchStoppedError,
    Price,
    Stop,
    run_batch,
)
from konko_async.testing import Emulator, faults

# The two lines that OpenAI's documentation of the Batch API shows (with its model).
OPENAI_EXAMPLE = b"""\
{"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-3.5-turbo-0125", "messages": [{"role": "system", "content": "You are a helpful assistant."},{"role": "user", "content": "Hello world!"}],"max_tokens": 1000}}
{"custom_id": "request-2", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-3.5-turbo-0125", "messages": [{"role": "system", "content": "You are an unhelpful assistant."},{"role": "user", "content": "Hello world!"}],"max_tokens": 1000}}
"""


async def test_openais_documented_example(tmp_path):
    source, output = tmp_path / "batchinput.jsonl", tmp_path / "output.jsonl"
    source.write_bytes(OPENAI_EXAMPLE)
    async with (
        Emulator(models=["gpt-3.5-turbo-0125"]) as emulator,
        AsyncKonko(base_url=emulator.base_url, api_key="any") as client,
    ):
        report = await run_batch(client, source, output)
        sent = {
            record.body["messages"][0]["content"] for record in emulator.requests if record.body
        }
    assert sent == {"You are a helpful assistant.", "You are an unhelpful assistant."}
    assert (report.rows, report.done, report.failed, report.left) == (2, 2, 0, 0)
    assert report.exit_code == 0
    for row in read(output):
        assert list(row) == ["id", "custom_id", "response", "error"]
        assert row["id"].startswith("batch_req_")
        assert row["custom_id"] in {"request-1", "request-2"}
        assert row["error"] is None
        assert list(row["response"]) == ["status_code", "request_id", "body"]
        assert row["response"]["status_code"] == 200
        assert row["response"]["request_id"]
        body = row["response"]["body"]
        assert body["object"] == "chat.completion"
        assert body["choices"][0]["message"]["role"] == "assistant"
        assert body["usage"]["total_tokens"] > 0
        assert "_request_id" not in body


async def test_all_endpoints_in_one_file(client, emulator, tmp_path):
    rows = [
        line(0),
        line(
            1, url="/v1/completions", body={"model": "phind/phind-codellama-34b-v2", "prompt": "p"}
        ),
        line(2, url="/v1/embeddings", body={"model": "thenlper/gte-base", "input": ["a", "b"]}),
        line(3, url="/chat/completions"),
    ]
    output = tmp_path / "out.jsonl"
    report = await run(client, write(tmp_path / "in.jsonl", rows), output)
    assert report.failed == 0
    found = {row["custom_id"]: row["response"]["body"] for row in read(output)}
    assert found["id-0"]["choices"][0]["message"]["content"] == "re: row 0"
    assert found["id-1"]["object"] == "text_completion"
    vectors = [item["embedding"] for item in found["id-2"]["data"]]
    assert len(vectors) == 2
    assert all(isinstance(number, float) for vector in vectors for number in vector)


async def test_the_body_goes_out_as_it_stands(client, emulator, tmp_path):
    body = line(0)["body"] | {
        "guided_json": {"a": [1]},
        "temperature": 1.5,
        "seed": 7,
        "stop": None,
    }
    await run(client, write(tmp_path / "in.jsonl", [line(0, body=body)]), tmp_path / "out")
    assert emulator.requests[-1].body == body


async def test_rows_that_ask_for_streams_are_stored_whole(client, emulator, tmp_path):
    rows = [line(n, body=line(n)["body"] | {"stream": True}) for n in range(3)]
    rows.append(
        line(3, url="/v1/completions",
             body={"model": "phind/phind-codellama-34b-v2", "prompt": "p", "stream": True})
    )  # fmt: skip
    output = tmp_path / "out.jsonl"
    report = await run(client, write(tmp_path / "in.jsonl", rows), output)
    assert all(record.stream for record in emulator.requests)
    assert report.completion_tokens > 0
    assert report.first_token.total == 4
    for row in read(output):
        assert "_request_id" not in row["response"]["body"]
        assert row["response"]["request_id"]
        if row["custom_id"] != "id-3":
            assert content(row) == f"re: row {row['custom_id'][3:]}"


async def test_failed_rows_are_lines_with_an_error(client, emulator, tmp_path):
    emulator.always(faults.Status(422), when=lambda record: "row 1" in str(record.body))
    emulator.always(faults.Cut(), when=lambda record: "row 2" in str(record.body))
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(4)]), tmp_path / "out"
    report = await run(client, source, output, max_attempts=1)
    found = {row["custom_id"]: row for row in read(output)}
    assert found["id-1"]["response"]["status_code"] == 422
    assert found["id-1"]["error"]["message"]
    assert found["id-2"]["response"] is None
    assert found["id-2"]["error"]["code"] == "connection"
    assert found["id-0"]["error"] is None
    assert (report.done, report.failed, report.exit_code) == (4, 2, 1)
    assert sum(report.errors.values()) == 2
    again = await run(client, tmp_path / "in.jsonl", output)
    assert (again.finished, again.failed) == (0, 2)  # they count as done ...
    emulator.clear()
    retried = await run(client, tmp_path / "in.jsonl", output, retry_failed=True)
    assert (retried.finished, retried.failed, retried.resumed) == (2, 0, 2)  # ... until asked
    assert ids(output) == [f"id-{n}" for n in range(4)]
    assert all(row["error"] is None for row in read(output))
    assert max(asked(emulator).values()) == 2


async def test_nothing_is_paid_twice(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(50)]), tmp_path / "out"
    first = await run(client, source, output, limit=20)
    assert (first.finished, first.stopped, first.left) == (20, "limit", 30)
    second = await run(client, source, output)
    assert (second.resumed, second.finished, second.stopped) == (20, 30, None)
    assert second.prompt_tokens > first.prompt_tokens  # sums are of the whole output
    third = await run(client, source, output)
    assert (third.resumed, third.finished, third.rows_per_second) == (50, 0, 0)
    assert set(asked(emulator).values()) == {1}
    assert ids(output) == [f"id-{n}" for n in range(50)]


async def test_files_are_private(client, tmp_path):
    output = tmp_path / "out.jsonl"
    await run(client, write(tmp_path / "in.jsonl", [line(0)]), output)
    for path in (output, tmp_path / "out.jsonl.journal"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_an_output_that_others_could_read_is_narrowed(client, tmp_path):
    output = tmp_path / "out.jsonl"
    output.touch()
    output.chmod(0o666)
    await run(client, write(tmp_path / "in.jsonl", [line(0)]), output)
    assert stat.S_IMODE(output.stat().st_mode) == 0o600


async def test_a_link_planted_beside_the_output_is_not_followed(client, emulator, tmp_path):
    victim, output = tmp_path / "victim", tmp_path / "out.jsonl"
    victim.write_text("precious\n")
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(2)])
    emulator.script(faults.Status(400), path="/chat/completions")
    assert (await run(client, source, output)).failed == 1
    (tmp_path / "out.jsonl.new").symlink_to(victim)
    report = await run(client, source, output, retry_failed=True)
    assert report.failed == 0
    assert victim.read_text() == "precious\n"
    assert not output.is_symlink()
    assert ids(output) == ["id-0", "id-1"]


async def test_ids_never_become_paths(client, tmp_path):
    rows = [
        line(n, custom_id=name) for n, name in enumerate(["../../evil", "/etc/evil", "a\0b", ""])
    ]
    folder = tmp_path / "inside"
    folder.mkdir()
    await run(client, write(tmp_path / "in.jsonl", rows), folder / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"inside", "in.jsonl"}
    assert {path.name for path in folder.iterdir()} == {"out", "out.journal"}


async def test_templates_for_json_lines_csv_and_texts(client, emulator, tmp_path):
    plain = write(tmp_path / "plain.jsonl", [{"text": "a {text}", "id": 7}, b'"b"'])
    table = tmp_path / "table.csv"
    table.write_bytes('\ufeffid,text\r\nx,"line 1\nline 2, ""quoted"""\r\n\r\ny,ß\r\n'.encode())
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    (folder / "one.txt").write_text("1")
    (folder / "sub" / "two.md").write_text("2")
    (folder / "ignored.bin").write_bytes(b"\xff")
    prompt = 'Say {text} {"no": field} {{text}}'
    options = {"prompt": prompt, "model": MODEL, "system": "Be short.", "params": {"max_tokens": 9}}
    seen = {}
    for source in (plain, table, folder):
        output = tmp_path / f"{source.name}.out"
        report = await run(client, source, output, **options)
        assert report.failed == 0
        seen |= {row["custom_id"]: content(row) for row in read(output)}
    # Nine tokens are the start of the answer.
    assert seen["7"].startswith("re: Say a {text}")
    assert set(seen) == {"7", "row-2", "x", "y", "one.txt", "sub/two.md"}
    body = emulator.requests[0].body
    assert body["messages"][0] == {"role": "system", "content": "Be short."}
    assert body["messages"][1]["content"].endswith('{"no": field} {text}')
    assert body["max_tokens"] == 9
    assert 'line 1\nline 2, "quoted"' in str([r.body["messages"][1]["content"] for r in emulator.requests]).replace("\\n", "\n")  # fmt: skip


async def test_rows_that_are_requests_without_an_envelope(client, emulator, tmp_path):
    rows = [{"messages": [{"role": "user", "content": "a"}], "temperature": 0.5}]
    output = tmp_path / "out"
    report = await run(client, write(tmp_path / "in.jsonl", rows), output, model=MODEL)
    assert report.failed == 0
    assert emulator.requests[-1].body["temperature"] == 0.5
    assert read(output)[0]["custom_id"] == "row-1"


@pytest.mark.parametrize("endpoint", ["/v1/completions", "/v1/embeddings"])
async def test_templates_for_other_endpoints(client, emulator, tmp_path, endpoint):
    model = "thenlper/gte-base" if "emb" in endpoint else "phind/phind-codellama-34b-v2"
    source = write(tmp_path / "in.jsonl", [{"text": "x"}])
    report = await run(
        client, source, tmp_path / "out", prompt="q: {text}", model=model, endpoint=endpoint
    )
    assert report.failed == 0
    assert "q: x" in emulator.requests[-1].body.values()


# -- changes ---------------------------------------------------------------------------------------


async def test_a_changed_input_is_refused_and_can_be_redone_by_content(client, emulator, tmp_path):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    await run(client, write(source, [line(n) for n in range(6)]), output)
    # Row 0 goes, row 1 is another, a new one comes first, row 5 comes twice under other names.
    rows = [
        line(9),
        line(1, text="changed"),
        *(line(n) for n in range(2, 6)),
        line(10, text="row 5"),
    ]
    write(source, rows)
    with pytest.raises(BatchChangedError, match="on_changed_input"):
        await run(client, source, output)
    assert len(read(output)) == 6
    report = await run(client, source, output, on_changed_input="redo")
    assert (report.resumed, report.finished, report.rows) == (4, 3, 7)
    found = {row["custom_id"]: content(row) for row in read(output)}
    assert found == {
        "id-9": "re: row 9", "id-1": "re: changed", "id-2": "re: row 2", "id-3": "re: row 3",
        "id-4": "re: row 4", "id-5": "re: row 5", "id-10": "re: row 5",
    }  # fmt: skip
    assert asked(emulator)["row 5"] == 2
    assert {name: count for name, count in asked(emulator).items() if count > 1} == {"row 5": 2}
    final = await run(client, source, output)
    assert final.finished == 0


async def test_a_changed_prompt_is_a_change(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [{"text": "a"}, {"text": "b"}]), tmp_path / "out"
    options = {"model": MODEL, "prompt": "One: {text}"}
    await run(client, source, output, **options)
    for change in (
        {"prompt": "Two: {text}"},
        {"params": {"seed": 1}},
        {"model": "mistralai/Mistral-7B-Instruct-v0.1"},
    ):
        with pytest.raises(BatchChangedError):
            await run(client, source, output, **(options | change))
    report = await run(client, source, output, **(options | {"prompt": "Two: {text}"}), on_changed_input="redo")  # fmt: skip
    assert report.finished == 2
    assert len(read(output)) == 2


async def test_an_input_mended_before_anything_was_done_is_no_change(client, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(0), b"{broken"]), tmp_path / "out"
    with pytest.raises(BatchError, match="line 2"):
        await run(client, source, output)
    report = await run(client, write(source, [line(0), line(1)]), output)
    assert report.done == 2


async def test_restart(client, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(3)]), tmp_path / "out"
    await run(client, source, output)
    report = await run(client, write(source, [line(5)]), output, restart=True)
    assert (report.done, report.resumed) == (1, 0)
    assert ids(output) == ["id-5"]


async def test_a_lost_journal(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(5)]), tmp_path / "out"
    await run(client, source, output, limit=3)
    (tmp_path / "out.journal").unlink()
    with pytest.raises(BatchOutputError, match="has no journal"):
        await run(client, source, output)
    report = await run(client, source, output, on_changed_input="redo")
    assert (report.resumed, report.finished) == (3, 2)
    assert set(asked(emulator).values()) == {1}


@pytest.mark.parametrize("data", [b"precious\n", b"precious", b'{"id":1}\n{"id":2}\n'])
async def test_files_of_others_are_never_touched(client, tmp_path, data):
    source = write(tmp_path / "in.jsonl", [line(0)])
    output = tmp_path / "out"
    output.write_bytes(data)
    for choice in ("refuse", "redo"):
        with pytest.raises(BatchOutputError):
            await run(client, source, output, on_changed_input=choice)
        assert not (tmp_path / "out.journal").exists()
    (tmp_path / "other.journal").write_bytes(data)
    with pytest.raises(BatchOutputError, match="no journal of a batch"):
        await run(client, source, tmp_path / "other")
    assert output.read_bytes() == data == (tmp_path / "other.journal").read_bytes()


async def test_an_output_that_was_shortened_is_refused(client, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(5)]), tmp_path / "out"
    await run(client, source, output)
    output.write_bytes(output.read_bytes()[:-20])
    with pytest.raises(BatchOutputError, match="changed by something else"):
        await run(client, source, output)


async def test_the_input_is_not_the_output(client, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(0)])
    with pytest.raises(BatchOutputError, match="is the input"):
        await run(client, source, source)
    with pytest.raises(BatchOutputError, match="folder"):
        await run(client, source, tmp_path)
    with pytest.raises(BatchOutputError, match="cannot be opened"):
        await run(client, source, tmp_path / "missing" / "out")


# -- two runs --------------------------------------------------------------------------------------


async def test_two_runs_on_one_output(client, emulator, tmp_path):
    emulator.always(faults.Stall())
    source, output = write(tmp_path / "in.jsonl", [line(0)]), tmp_path / "out"
    first = asyncio.ensure_future(run(client, source, output))
    await emulator.wait_until(lambda: emulator.in_flight == 1)
    async with asyncio.timeout(60):
        with pytest.raises(BatchLockedError, match="in use"):
            await run(client, source, output)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    emulator.clear()
    report = await run(client, source, output)  # the lock died with its owner
    assert report.done == 1


# -- order and limits ------------------------------------------------------------------------------


async def test_shuffle(client, emulator, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(60)])
    orders = []
    for seed in (True, 5, 5):
        output = tmp_path / f"out{len(orders)}"
        before = emulator.received
        await run(client, source, output, shuffle=seed, max_concurrency=1, limit=40)
        await run(client, source, output, shuffle=seed, max_concurrency=1)
        assert ids(output) == [f"id-{n}" for n in range(60)]
        orders.append([r.body["messages"][0]["content"] for r in emulator.requests[before:]])
    assert orders[0] != orders[1] == orders[2]
    assert orders[0][:20] != [f"row {n}" for n in range(20)]


async def test_max_tokens_total(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(200)]), tmp_path / "out"
    report = await run(client, source, output, max_tokens_total=200, max_concurrency=16)
    assert report.stopped == "max_tokens_total"
    used = report.prompt_tokens + report.completion_tokens
    assert 150 <= used <= 200
    assert (await run(client, source, output, max_tokens_total=200)).finished == 0


async def test_max_cost(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(200)]), tmp_path / "out"
    prices = {MODEL: Price(prompt=0.001, completion=0.002)}
    report = await run(client, source, output, max_cost=0.3, prices=prices)
    assert report.stopped == "max_cost"
    assert 0.2 <= report.cost <= 0.3
    assert report.currency == "USD"
    with pytest.raises(BatchError, match=r"price of .* not known"):
        await run(client, source, tmp_path / "other", max_cost=1)
    assert not read(tmp_path / "other")


async def test_costs_come_from_the_model_list_and_the_unknown_is_unknown(
    emulator, client, tmp_path
):
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(4)])
    report = await run_batch(client, source, tmp_path / "out")
    tokens = report.prompt_tokens + report.completion_tokens
    assert report.cost == pytest.approx(tokens * 0.0003 / 1000)
    assert (report.currency, report.unpriced) == ("USD", 0)
    unknown = await run(client, source, tmp_path / "out2")
    assert (unknown.cost, unknown.currency, unknown.unpriced) == (None, None, 4)
    assert json.loads(unknown.to_json())["cost"] is None


async def test_dry_run(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(10)]), tmp_path / "out"
    prices = {MODEL: Price(prompt=1e-6, completion=2e-6)}
    report = await run(client, source, output, prices=prices, dry_run=True)
    estimate = report.estimate
    assert emulator.received == 0
    assert not output.exists()
    assert not (tmp_path / "out.journal").exists()
    assert (estimate.rows, estimate.max_tokens, estimate.models) == (10, 80, {MODEL: 10})
    assert estimate.cost == pytest.approx(estimate.prompt_tokens * 1e-6 + 80 * 2e-6)
    assert estimate.seconds is None
    await run(client, source, output, prices=prices, limit=4)
    left = await run(client, source, output, prices={}, dry_run=True)
    assert (left.estimate.rows, left.done, left.estimate.cost) == (6, 4, None)
    assert left.estimate.unpriced_models == (MODEL,)


async def test_dry_run_tells_the_time_at_the_limits(emulator, tmp_path):
    limit = RateLimit(requests_per_minute=60, tokens_per_minute=100_000)
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(120)])
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", rate_limit=limit) as client:
        report = await run(client, source, tmp_path / "out", dry_run=True)
    assert report.estimate.seconds == pytest.approx(120)


# -- stopping --------------------------------------------------------------------------------------


async def test_a_graceful_stop_lets_rows_in_flight_finish(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(100)]), tmp_path / "out"
    stop = Stop()
    emulator.latency = 0.02
    task = asyncio.ensure_future(run(client, source, output, stop=stop, max_concurrency=8))
    await emulator.wait_until(lambda: emulator.received == 20)
    stop.request()
    report = await task
    assert (report.stopped, report.exit_code) == ("stopped", 130)
    assert len(read(output)) == report.done == emulator.received < 40
    assert (await run(client, source, output)).left == 0
    assert set(asked(emulator).values()) == {1}


async def test_a_second_stop_gives_rows_back(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(20)]), tmp_path / "out"
    emulator.always(faults.Stall(), when=lambda record: record.index >= 10)
    stop = Stop()
    task = asyncio.ensure_future(run(client, source, output, stop=stop, max_concurrency=4))
    await emulator.wait_until(lambda: emulator.received == 14)
    stop.request()
    stop.request()
    stop.request()
    report = await task
    assert (report.stopped, report.done) == ("cancelled", 10)
    await emulator.wait_until(lambda: emulator.in_flight == 0)
    emulator.clear()
    assert (await run(client, source, output)).left == 0
    assert ids(output) == [f"id-{n}" for n in range(20)]


@pytest.mark.parametrize(
    "limit", [RateLimit(max_concurrency=4), RateLimit(requests_per_minute=4, burst=4)]
)
async def test_a_stop_does_not_wait_for_the_limits(client, emulator, tmp_path, limit):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(400)]), tmp_path / "out"
    held, stop = asyncio.Event(), Stop()

    async def answer(_body):
        await held.wait()
        return "fine"

    emulator.answer = answer
    limited = client.with_options(rate_limit=limit)
    task = asyncio.ensure_future(run(limited, source, output, stop=stop))
    await emulator.wait_until(lambda: emulator.in_flight == 4)
    stop.request()
    held.set()
    report = await task
    assert (report.stopped, report.done, report.failed, report.left) == ("stopped", 4, 0, 396)
    assert emulator.received == 4
    assert (await run(client, source, output)).done == 400
    assert ids(output) == [f"id-{n}" for n in range(400)]
    assert set(asked(emulator).values()) == {1}


@pytest.mark.parametrize("policy", [None, RetryPolicy(base_delay=3600, max_delay=3600)])
async def test_a_stop_does_not_wait_for_the_next_attempt(client, emulator, tmp_path, policy):
    """Neither of a call, nor of a row that waits out a burst of refusals."""
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(40)]), tmp_path / "out"
    stop = Stop()
    emulator.always(faults.Status(429, headers={"retry-after": "50"}))
    refused = client.with_options(retry=policy, rate_limit=RateLimit(max_concurrency=None))
    options = {"stop": stop, "max_concurrency": 4, "max_outage": 3600}
    told = asyncio.Event()

    def see(progress):
        if progress.rate_limited == 4:
            told.set()

    options |= {"on_progress": see, "progress_interval": 0.01}
    task = asyncio.ensure_future(run(refused, source, output, **options))
    await asyncio.wait_for(told.wait(), 60)
    stop.request()
    report = await task
    assert (report.stopped, report.done) == ("stopped", 0)
    assert (emulator.received, read(output)) == (4, [])
    emulator.clear()
    assert (await run(client, source, output)).done == 40


async def test_stopped_before_it_began(client, emulator, tmp_path):
    stop = Stop()
    stop.request()
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(5)])
    report = await run(client, source, tmp_path / "out", stop=stop)
    assert (report.stopped, report.finished, emulator.received) == ("stopped", 0, 0)
    assert (await run(client, source, tmp_path / "out")).done == 5


async def test_cancelling_the_run_keeps_what_is_finished(client, emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(60)]), tmp_path / "out"
    emulator.latency = 0.01
    task = asyncio.ensure_future(run(client, source, output, max_concurrency=4))
    await emulator.wait_until(lambda: emulator.received == 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    done = len(read(output))
    assert done >= 20
    report = await run(client, source, output)
    assert (report.resumed, report.left) == (done, 0)


# -- servers that fail -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [faults.Status(401), faults.Status(429, code="insufficient_quota")]
)
async def test_an_error_that_all_rows_would_meet_ends_the_run(client, emulator, tmp_path, fault):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(500)]), tmp_path / "out"
    emulator.always(fault, when=lambda record: record.index >= 20)
    with pytest.raises(BatchError, match="all rows would fail") as caught:
        await run(client, source, output, max_concurrency=4)
    assert caught.value.report.failed == 0
    assert caught.value.report.done == 20 == len(read(output))
    assert emulator.received < 40
    emulator.clear()
    assert (await run(client, source, output)).left == 0


async def test_rows_wait_while_the_server_is_away(emulator, tmp_path):
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(100)]), tmp_path / "out"
    emulator.script(*[faults.Status(503)] * 12)
    policy = RetryPolicy(base_delay=0.01, budget_size=0)  # which are for interactive calls
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", retry=policy) as client:
        report = await run(client, source, output, max_concurrency=2)
        assert (report.done, report.failed, report.retried) == (100, 0, 12)
        emulator.outage = 503
        notices = []
        with pytest.raises(BatchStoppedError, match=r"no row was answered for 0\.2") as caught:
            await run(client, write(tmp_path / "b", [line(n) for n in range(500)]), tmp_path / "out2",
                      format="openai", max_concurrency=2, max_outage=0.2, on_notice=notices.append)  # fmt: skip
    report = caught.value.report
    assert (caught.value.reason, report.stopped, report.exit_code) == ("outage", "ended", 3)
    assert (report.failed, report.left) == (0, 500)
    assert len(notices) == 1
    assert "HTTP 503" in notices[0]


@pytest.mark.parametrize("status", [403, 404])
async def test_first_rows_that_are_all_refused_end_the_run(client, emulator, tmp_path, status):
    emulator.always(faults.Status(status))
    source, output = write(tmp_path / "in.jsonl", [line(n) for n in range(200)]), tmp_path / "out"
    with pytest.raises(BatchStoppedError) as caught:
        await run(client, source, output)
    assert emulator.received <= 4
    assert (read(output), caught.value.report.left) == ([], 200)
    emulator.clear()
    emulator.script(faults.Status(status))  # one among others is a row's own
    report = await run(client, source, output)
    assert (report.done, report.failed) == (200, 1)


async def test_a_row_that_fails_alone_is_its_own_fault_in_the_end(emulator, tmp_path, monkeypatch):
    """Beyond chance, and for longer than a replica takes to restart."""
    monkeypatch.setattr("konko_async.batch._calls.dispatch._ALONE_FOR", 0.05)
    emulator.always(faults.Status(500), when=lambda record: "row 7" in str(record.body))
    emulator.latency = 0.002
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(100, 400)] + [line(7)])
    lines = source.read_bytes().splitlines(keepends=True)
    source.write_bytes(lines[-1] + b"".join(lines[:-1]))
    policy = RetryPolicy(base_delay=0.02)
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", retry=policy) as client:
        report = await run(client, source, tmp_path / "out", max_concurrency=1, max_outage=30)
    assert (report.done, report.failed) == (301, 1)
    assert asked(emulator)["row 7"] >= 5


@pytest.mark.parametrize(("most", "left"), [(10, True), ("5%", True), ("50%", False), (40, False)])
async def test_a_run_that_goes_wrong_is_ended(client, emulator, tmp_path, most, left):
    emulator.always(faults.Status(400), when=lambda record: record.index % 4 == 1)
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(100)])
    report = await run(client, source, tmp_path / "out", max_concurrency=2, max_failures=most)
    assert bool(report.left) is left
    assert (report.stopped, report.exit_code) == (("max_failures", 3) if left else (None, 1))


async def test_many_failures_in_a_row_end_a_run(client, emulator, tmp_path):
    emulator.always(faults.Status(400), when=lambda record: record.index >= 20)
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(200)])
    report = await run(client, source, tmp_path / "out", max_concurrency=2)
    assert report.stopped == "max_failures"
    assert 100 <= report.failed <= 102


async def test_retries_and_rejections_are_counted(emulator, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(20)])
    emulator.script(*[faults.Status(429, headers={"retry-after": "0"})] * 3)
    retry = RetryPolicy(max_attempts=5, base_delay=0.001, budget_ratio=None)
    seen = []
    async with AsyncKonko(
        base_url=emulator.base_url, api_key="any", retry=retry, observers=[seen.append]
    ) as client:
        report = await run(client, source, tmp_path / "out")
    assert (report.retried, report.rate_limited, report.failed) == (3, 3, 0)
    assert report.latency.total == 20
    assert seen  # the client's own observers are called too


async def test_progress(client, emulator, tmp_path):
    emulator.latency = 0.005
    seen = []
    source = write(tmp_path / "in.jsonl", [line(n) for n in range(40)])

    def note(progress):
        seen.append(progress)
        if len(seen) == 2:
            raise ZeroDivisionError  # must not break the run

    report = await run(
        client, source, tmp_path / "out", on_progress=note, progress_interval=0.01,
        max_concurrency=4, prices={MODEL: Price(prompt=1e-6, completion=1e-6)},
    )  # fmt: skip
    assert seen[0].finished == 0
    assert seen[-1].finished == 40
    assert seen[-1].in_flight == 0
    # Calls may all have ended just when progress is reported, so not each report finds one in flight.
    assert 1 <= max(progress.in_flight for progress in seen) <= 4
    middle = next(progress for progress in seen if 8 <= progress.finished < 36)
    assert middle.rows == 40
    assert middle.eta > 0
    assert middle.rows_per_second > 0
    assert middle.completion_tokens_per_second > 0
    assert middle.projected_cost == pytest.approx(report.cost, rel=0.3)
    assert len(report.history) >= 3
    found = json.loads(report.to_json())
    assert found["latency"]["count"] == 40
    assert found["history"][-1]["done"] == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "format"),
        ({"on_changed_input": "maybe"}, "on_changed_input"),
        ({"limit": 0}, "limit"),
        ({"max_cost": -1}, "max_cost"),
        ({"max_cost": float("nan")}, "max_cost"),
        ({"checkpoint_rows": 0}, "checkpoint_rows"),
        ({"restart": True, "retry_failed": True}, "restart"),
        ({"prompt": "no field"}, "field"),
        ({"prompt": "{text}"}, "prompt cannot be applied"),
        ({"system": "x"}, "system="),
        ({"endpoint": "/v1/images"}, "endpoint"),
        ({"max_concurrency": 0}, "max_concurrency"),
    ],
)
async def test_options_are_checked_before_anything_is_written(client, tmp_path, options, message):
    source = write(tmp_path / "in.jsonl", [line(0)])
    with pytest.raises(ConfigurationError, match=message):
        await run(client, source, tmp_path / "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
