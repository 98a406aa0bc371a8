"""`konko-async batch`: a process of its own, against the emulator."""

import asyncio
import json
import re
import signal

import msgspec
import pytest
from cli_kit import CHAT_MODEL, KEY, command, run, terminal
from lazy_module import LazyModule

from konko_async import AsyncKonko
from konko_async.batch import run_batch
from konko_async.cli.bulk.report import write_report
from konko_async.testing import faults

mpl = LazyModule("matplotlib")
CHAT = "/chat/completions"


@pytest.fixture
def env(env):
    return {**env, "KONKO_MODEL": CHAT_MODEL}


@pytest.fixture(autouse=True)
def no_key_anywhere(tmp_path):
    yield
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


@pytest.fixture
def rows(tmp_path):
    """Ten rows, to go with --prompt."""
    return write(tmp_path / "in.jsonl", [{"text": f"text {number}"} for number in range(10)])


def write(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def openai_row(number):
    body = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": f"Question {number}"}]}
    return {
        "custom_id": f"request-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }


def chats(emulator):
    return [request for request in emulator.requests if request.path.endswith(CHAT)]


async def test_a_file_of_openais_format_runs_as_it_is(env, emulator, tmp_path):
    source = write(tmp_path / "in.jsonl", [openai_row(number) for number in range(3)])
    result = await run("batch", source, tmp_path / "out.jsonl", env=env)
    assert (result.code, result.out) == (0, "")
    lines = read(tmp_path / "out.jsonl")
    assert {line["custom_id"] for line in lines} == {"request-0", "request-1", "request-2"}
    assert {line["response"]["status_code"] for line in lines} == {200}
    assert {line["error"] for line in lines} == {None}
    assert "3 rows answered, 0 failed" in result.err
    assert KEY not in result.err


async def test_every_option_of_the_rows_reaches_the_server(env, emulator, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("Alpha")
    (folder / "b.txt").write_text("Beta")
    options = [
        "--prompt",
        "Say {text}",
        "-s",
        "Be brief.",
        "-t",
        "0",
        "--max-tokens",
        "5",
        "--stream",
    ]
    result = await run(
        "batch",
        folder,
        tmp_path / "out.jsonl",
        *options,
        "-m",
        "codellama/codellama-13b-instruct",
        env=env,
    )
    assert result.code == 0, result.err
    bodies = [request.body for request in chats(emulator)]
    assert {body["messages"][1]["content"] for body in bodies} == {"Say Alpha", "Say Beta"}
    for body in bodies:
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert (body["temperature"], body["max_tokens"], body["stream"]) == (0, 5, True)
    assert "1st token" in result.err


async def test_csv_and_other_endpoints(env, emulator, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("name,text\na,one\nb,two\n")
    options = ["--prompt", "{name}: {text}", "--endpoint", "embeddings", "-m", "thenlper/gte-base"]
    result = await run("batch", source, tmp_path / "out.jsonl", *options, env=env)
    assert result.code == 0, result.err
    assert all(line["response"]["body"]["data"] for line in read(tmp_path / "out.jsonl"))


async def test_failed_rows_make_exit_code_1_and_can_be_retried(rows, env, emulator, tmp_path):
    emulator.script(faults.Status(400), faults.Status(422), path=CHAT)
    out = tmp_path / "out.jsonl"
    command = ["batch", rows, out, "--prompt", "{text}"]
    result = await run(*command, env=env)
    assert result.code == 1
    assert "8 rows answered, 2 failed" in result.err
    assert re.search(r"errors .*(bad_request|unprocessable)", result.err)
    again = await run(*command, env=env)
    assert (again.code, len(chats(emulator))) == (1, 10), "nothing was left to do"
    mended = await run(*command, "--retry-failed", env=env)
    assert (mended.code, len(chats(emulator))) == (0, 12)
    assert len({line["custom_id"] for line in read(out)}) == 10


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nosuch.jsonl", "out"], "nosuch.jsonl"),
        (["in.jsonl"], "OUT"),
        (["in.jsonl", "out", "--rpm", "0"], "auto"),
        (["in.jsonl", "out", "--max-concurrency", "many"], "auto"),
        (["in.jsonl", "out", "--seed", "3"], "--shuffle"),
        (["in.jsonl", "out", "--report", "r.txt"], ".png"),
        (["in.jsonl", "out", "--report", "/nosuch/r.json"], "cannot be written"),
        (["in.jsonl", "out", "--local", "--base-url", "http://localhost/v1"], "--local"),
        (["in.jsonl", "-", "--prompt", "{text}", "--restart"], "pipe"),
        (["in.jsonl", "out", "--prompt", "{nosuch}"], "nosuch"),
        (["bad.jsonl", "out", "--prompt", "{text}"], "line 2"),
        (["empty.jsonl", "out", "--prompt", "{text}"], "no rows"),
    ],
)
async def test_wrong_usage_is_2_and_sends_nothing(arguments, told, env, emulator, tmp_path):
    write(tmp_path / "in.jsonl", [{"text": "fine"}])
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": NaN}\n')
    (tmp_path / "empty.jsonl").write_text("")
    given = [
        str(tmp_path / name) if re.fullmatch(r"\w+\.jsonl|out", name) else name
        for name in arguments
    ]
    result = await run("batch", *given, env=env)
    assert (result.code, result.out) == (2, ""), result.err
    assert told in result.err
    assert "Traceback" not in result.err
    assert not chats(emulator)


async def test_without_a_key_nothing_begins(rows, env, tmp_path):
    del env["KONKO_API_KEY"]
    result = await run("batch", rows, tmp_path / "out", "--prompt", "{text}", env=env)
    assert result.code == 2
    assert "KONKO_API_KEY" in result.err


async def test_a_wrong_key_ends_it_and_is_not_shown(rows, env, emulator, tmp_path):
    wrong = {**env, "KONKO_API_KEY": "canary-of-a-wrong-key"}
    result = await run("batch", rows, tmp_path / "out", "--prompt", "{text}", env=wrong)
    assert result.code == 3
    assert "all rows would fail" in result.err
    assert "canary-of-a-wrong-key" not in result.err


async def test_good_rows_of_a_bad_file_run_when_asked(env, emulator, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "one"}\nbroken\n{"text": "two"}\n')
    result = await run(
        "batch", source, tmp_path / "out", "--prompt", "{text}", "--skip-invalid", env=env
    )
    assert result.code == 1
    assert len(chats(emulator)) == 2
    assert "2 rows answered, 0 failed, 1 invalid (of 3)" in result.err


async def test_from_pipe_to_pipe(env, emulator):
    given = b"".join(json.dumps(openai_row(number)).encode() + b"\n" for number in range(3))
    result = await run("batch", "-", "-", env=env, stdin=given)
    assert result.code == 0, result.err
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert {line["custom_id"] for line in lines} == {"request-0", "request-1", "request-2"}
    assert "standard output: 3 rows answered" in result.err


async def test_from_a_file_to_a_pipe_and_from_a_pipe_to_a_file(rows, env, tmp_path):
    options = ["--prompt", "{text}", "--progress", "none"]
    out = await run("batch", rows, "-", *options, env=env)
    assert (out.code, len(out.out.splitlines())) == (0, 10)
    kept = await run("batch", "-", tmp_path / "out", *options, env=env, stdin=rows.read_bytes())
    assert (kept.code, len(read(tmp_path / "out"))) == (0, 10)


async def test_a_dry_run_sends_and_writes_nothing(rows, env, emulator, tmp_path):
    options = ["--prompt", "{text}", "--dry-run", "--rpm", "5", "--max-tokens", "100"]
    result = await run("batch", rows, tmp_path / "out", *options, env=env)
    assert result.code == 0
    assert not chats(emulator)
    assert not (tmp_path / "out").exists()
    assert "would send 10 rows" in result.err
    assert "up to 1,000 out" in result.err
    assert re.search(r"cost +up to \$0\.0003", result.err)
    assert re.search(r"time +about 1 min|time +about 2 min", result.err)


async def test_a_dry_run_knows_no_price_that_nobody_told(rows, env, emulator, tmp_path):
    emulator.models[CHAT_MODEL].pop("public_endpoint_pricing")
    result = await run("batch", rows, tmp_path / "out", "--prompt", "{text}", "--dry-run", env=env)
    assert re.search(r"cost +unknown", result.err)


async def test_costs_are_told_and_limited(rows, env, emulator, tmp_path):
    options = ["--prompt", "{text}", "--max-tokens", "10"]
    whole = await run("batch", rows, tmp_path / "a", *options, env=env)
    assert re.search(r"cost +\$0\.000\d+\n", whole.err)
    few = await run("batch", rows, tmp_path / "b", *options, "--max-cost", "0.00001", env=env)
    assert few.code == 0
    assert "--max-cost was reached" in few.err
    some = await run("batch", rows, tmp_path / "c", *options, "--max-tokens-total", "60", env=env)
    assert "--max-tokens-total was reached" in some.err
    assert 0 < len(read(tmp_path / "c")) < 10


async def test_an_unknown_price_is_unknown_and_cannot_be_limited(rows, env, emulator, tmp_path):
    emulator.models[CHAT_MODEL].pop("public_endpoint_pricing")
    result = await run("batch", rows, tmp_path / "a", "--prompt", "{text}", env=env)
    assert result.code == 0
    assert re.search(r"cost +unknown", result.err)
    limited = await run(
        "batch", rows, tmp_path / "b", "--prompt", "{text}", "--max-cost", "1", env=env
    )
    assert limited.code == 2
    assert "price" in limited.err


async def test_limit_shuffle_and_resume(rows, env, emulator, tmp_path):
    out = tmp_path / "out"
    options = ["batch", rows, out, "--prompt", "{text}", "--shuffle", "--seed", "7"]
    first = await run(*options, "--limit", "4", env=env)
    assert (first.code, len(read(out))) == (0, 4)
    assert "6 rows (--limit was reached)" in first.err
    assert {line["custom_id"] for line in read(out)} != {f"row-{n}" for n in range(1, 5)}
    second = await run(*options, env=env)
    assert (second.code, len(read(out)), len(chats(emulator))) == (0, 10, 10)
    assert "4 of them by earlier runs" in second.err


async def test_a_changed_prompt_is_refused_redone_or_begun_anew(rows, env, emulator, tmp_path):
    out = tmp_path / "out"
    await run("batch", rows, out, "--prompt", "{text}", env=env)
    refused = await run("batch", rows, out, "--prompt", "Say {text}", env=env)
    assert refused.code == 2
    assert "--on-changed-input redo" in refused.err
    redone = await run(
        "batch", rows, out, "--prompt", "Say {text}", "--on-changed-input", "redo", env=env
    )
    anew = await run("batch", rows, out, "--prompt", "{text}", "--restart", env=env)
    assert (redone.code, anew.code, len(read(out)), len(chats(emulator))) == (0, 0, 10, 30)


async def test_limits_of_the_command_line_hold(rows, env, emulator, tmp_path):
    emulator.latency = 0.05
    options = ["--prompt", "{text}", "--max-concurrency", "2", "--rpm", "600", "--tpm", "auto"]
    result = await run("batch", rows, tmp_path / "a", *options, env=env)
    assert result.code == 0
    assert emulator.peak_in_flight <= 2
    auto = await run(
        "batch", rows, tmp_path / "b", "--prompt", "{text}", "--max-concurrency", "auto", env=env
    )
    assert auto.code == 0


async def test_two_runs_on_one_output(rows, env, emulator, tmp_path):
    emulator.always(faults.Stall(after_chunks=None), path=CHAT)
    arguments = ["batch", rows, tmp_path / "out", "--prompt", "{text}"]
    async with command(*arguments, env=env):
        await emulator.wait_until(lambda: len(chats(emulator)) >= 4)
        second = await run(*arguments, env=env)
    assert second.code == 2
    assert "in use" in second.err


@pytest.fixture
def held(emulator):
    """Answers wait until this event is set."""
    go = asyncio.Event()

    async def answer(_):
        await go.wait()
        return "fine"

    emulator.answer = answer
    return go


async def test_the_first_ctrl_c_lets_calls_in_flight_finish(rows, held, env, emulator, tmp_path):
    out = tmp_path / "out"
    arguments = ["batch", rows, out, "--prompt", "{text}", "--max-concurrency", "3"]
    async with command(*arguments, env=env) as running:
        await emulator.wait_until(lambda: len(chats(emulator)) == 3)
        running.signal(signal.SIGINT)
        await said(running, "calls in flight may finish")
        held.set()
        result = await running.finish()
    assert result.code == 130
    assert len(read(out)) == 3
    assert "7 rows (stopped)" in running.errors + result.err
    resumed = await run(*arguments, env=env)
    assert (resumed.code, len(chats(emulator))) == (0, 10), "nothing was paid twice"


async def test_ctrl_c_does_not_wait_for_the_rate(rows, held, env, emulator, tmp_path):
    out = tmp_path / "out"
    arguments = ["batch", rows, out, "--prompt", "{text}"]
    async with command(*arguments, "--rpm", "2", env=env) as running:
        await emulator.wait_until(lambda: chats(emulator))
        running.signal(signal.SIGINT)
        await said(running, "calls in flight may finish")
        held.set()
        result = await running.finish()
    assert result.code == 130
    assert 1 <= len(read(out)) == len(chats(emulator)) <= 2
    resumed = await run(*arguments, env=env)
    assert (resumed.code, len(chats(emulator))) == (0, 10), "nothing was paid twice"


async def test_the_second_ctrl_c_cancels_them(rows, held, env, emulator, tmp_path):
    arguments = ["batch", rows, tmp_path / "out", "--prompt", "{text}", "--max-concurrency", "3"]
    async with command(*arguments, env=env) as running:
        await emulator.wait_until(lambda: len(chats(emulator)) == 3)
        running.signal(signal.SIGINT)
        await said(running, "may finish")
        running.signal(signal.SIGINT)
        result = await running.finish()
    assert result.code == 130
    assert "10 rows (cancelled)" in running.errors + result.err
    assert "Traceback" not in running.errors + result.err
    held.set()
    await emulator.wait_until(lambda: emulator.in_flight == 0)
    resumed = await run(*arguments, env=env)
    assert (resumed.code, len(read(tmp_path / "out"))) == (0, 10)


async def test_sigterm_leaves_a_whole_journal(rows, held, env, emulator, tmp_path):
    arguments = ["batch", rows, tmp_path / "out", "--prompt", "{text}"]
    async with command(*arguments, env=env) as running:
        await emulator.wait_until(lambda: len(chats(emulator)) >= 4)
        running.signal(signal.SIGTERM)
        result = await running.finish()
    assert result.code == 143
    assert "10 left" in result.err
    assert "run the same command again" in result.err
    held.set()
    assert (await run(*arguments, env=env)).code == 0


async def test_what_goes_wrong_ends_the_run_with_a_reason(rows, env, emulator, tmp_path):
    arguments = ["batch", rows, tmp_path / "out", "--prompt", "{text}"]
    emulator.always(faults.Status(402), path=CHAT)
    result = await run(*arguments, env=env)
    assert (result.code, len(chats(emulator)) <= 4) == (3, True)
    assert "add credit" in result.err
    assert "0 rows answered, 0 failed, 10 left (of 10)" in result.err
    emulator.clear()
    emulator.outage = 503
    result = await run(*arguments, "--max-outage", "0.3", env=env)
    assert result.code == 3
    assert "no row was answered for" in result.err
    emulator.outage = None
    emulator.always(faults.Status(400), path=CHAT)
    result = await run(*arguments, "--max-failures", "20%", env=env)
    assert result.code == 1, "a share is judged from 50 rows on"
    result = await run(*arguments, "--max-failures", "2", "--restart", env=env)
    assert result.code == 3
    for wrong in (["--max-failures", "x"], ["--max-failures", "101%"], ["--fail-on", "lenght"]):
        assert (await run(*arguments, *wrong, env=env)).code == 2


async def test_prices_of_the_command_line(rows, env, emulator, tmp_path):
    arguments = ["batch", rows, tmp_path / "out", "--prompt", "{text}"]
    free = {**env, "KONKO_MODEL": "no/price"}
    emulator.models = []
    result = await run(*arguments, "--price-in", "1e6", "--price-out", "0", "--dry-run", env=free)
    assert "cost      up to" in result.err
    file = tmp_path / "prices.json"
    file.write_text('{"no/price": {"in": 1000000, "out": 2000000, "cached": 0}}')
    result = await run(*arguments, "--prices", file, "--dry-run", env=free)
    assert "cost      up to" in result.err
    file.write_text('{"no/price": {"inn": 1}}')
    for wrong in (["--prices", file], ["--price-out", "1"], ["--prices", tmp_path / "missing"]):
        assert (await run(*arguments, *wrong, env=free)).code == 2


async def test_killed_at_any_time_it_goes_on(rows, env, emulator, tmp_path):
    out = tmp_path / "out"
    arguments = ["batch", rows, out, "--prompt", "{text}", "--max-concurrency", "2"]
    # The server stops answering after so many, so that each kill finds two calls in flight.
    for answered in (0, 3, 6):
        emulator.clear()
        already = len(read(out)) if out.exists() else 0
        emulator.script(*[None] * answered, path=CHAT)
        emulator.always(
            faults.Stall(after_chunks=None), path=CHAT, when=lambda _: not emulator.scripted
        )
        async with command(*arguments, env=env) as running:
            await emulator.wait_until(lambda: emulator.in_flight >= 1 and not emulator.scripted)
            await written(out, min(already + max(answered - 1, 0), 8))
            running.process.kill()
            await running.finish()
        await emulator.wait_until(lambda: emulator.in_flight == 0)
    emulator.clear()
    result = await run(*arguments, env=env)
    assert result.code == 0
    assert sorted(line["custom_id"] for line in read(out)) == sorted(
        f"row-{n}" for n in range(1, 11)
    )


async def written(path, rows):
    """Wait until a file of another process has so many lines."""
    async with asyncio.timeout(60):
        while not path.exists() or path.read_bytes().count(b"\n") < rows:
            await asyncio.sleep(0)


async def said(running, text):
    """Read standard error until a text has come."""
    running.errors = getattr(running, "errors", "")
    async with asyncio.timeout(60):
        while text not in running.errors:
            data = await running.process.stderr.read(4096)
            assert data, running.errors
            running.errors += data.decode()


async def test_progress_in_json_is_for_programs(rows, env, emulator, tmp_path):
    emulator.script(faults.Status(429, headers={"retry-after-ms": "1"}), path=CHAT)
    options = ["--prompt", "{text}", "--progress", "json", "--progress-interval", "0.05"]
    result = await run("batch", rows, tmp_path / "out", *options, env=env)
    lines = [json.loads(line) for line in result.err.splitlines() if line.startswith("{")]
    first, last = lines[0], lines[-1]
    assert (first["done"], last["done"], last["rows"]) == (0, 10, 10)
    assert (last["retried"], last["rate_limited"], last["in_flight"]) == (1, 1, 0)
    assert first["cost"] is None, "unknown, not 0"
    assert last["cost"] > 0
    assert last["currency"] == "USD"


async def test_progress_in_a_pipe_is_plain_lines(rows, env, emulator, tmp_path):
    result = await run("batch", rows, tmp_path / "out", "--prompt", "{text}", env=env)
    lines = [line for line in result.err.splitlines() if " done, " in line]
    assert "cost unknown" in lines[0]
    assert re.search(r"10/10 done, 0 failed, .* tokens/s in, .* x 429, cost \$0\.\d+", lines[-1])
    assert "\x1b" not in result.err
    silent = await run(
        "batch", rows, tmp_path / "b", "--prompt", "{text}", "--progress", "none", env=env
    )
    assert " done, " not in silent.err


async def test_progress_on_a_terminal_is_drawn(rows, env, emulator, tmp_path):
    arguments = ["batch", rows, tmp_path / "out", "--prompt", "{text}"]
    async with terminal(*arguments, env=env, width=100) as shown:
        assert await shown.finish() == 0
    for text in ("failed", "in flight", "tokens/s in", "429", "projected", "eta", "10 / 10"):
        assert text in shown.seen
    assert "10 rows answered" in shown.seen


async def test_ctrl_c_on_a_terminal(rows, held, env, emulator, tmp_path):
    arguments = ["batch", rows, tmp_path / "out", "--prompt", "{text}", "--max-concurrency", "2"]
    async with terminal(*arguments, env=env) as shown:
        await emulator.wait_until(lambda: len(chats(emulator)) == 2)
        shown.type("\x03")
        await shown.wait_for("may finish")
        shown.type("\x03")
        assert await shown.finish() == 130
    assert "Traceback" not in shown.seen
    held.set()
    await emulator.wait_until(lambda: emulator.in_flight == 0)


async def test_a_server_cannot_steer_the_terminal(rows, env, emulator, tmp_path):
    emulator.always(
        faults.Status(401, body='{"error": {"message": "\\u001b]52;c;eA==\\u0007 no"}}'), path=CHAT
    )
    async with terminal("batch", rows, tmp_path / "out", "--prompt", "{text}", env=env) as shown:
        assert await shown.finish() == 3
    assert "\x1b]52" not in shown.seen


async def test_a_report_is_a_page_that_needs_no_other_file(rows, env, emulator, tmp_path):
    emulator.script(faults.Status(400), path=CHAT)
    report = tmp_path / "r.html"
    arguments = ["--prompt", "{text}", "--stream", "--report", report]
    # Where matplotlib keeps what it knows of fonts: finding them again takes seconds.
    env["MPLCONFIGDIR"] = mpl.get_configdir()
    result = await run("batch", rows, tmp_path / "out <b>.jsonl", *arguments, env=env)
    assert result.code == 1
    assert f"report: {report}" in result.err
    text = report.read_text()
    assert text.count("<svg") == 4
    assert "out &lt;b&gt;.jsonl" in text
    assert not re.search(r'(?:src|href)="(?!#)', text)


@pytest.fixture
async def report(rows, emulator, tmp_path):
    async with AsyncKonko(KEY, emulator.base_url) as client:
        yield lambda **more: run_batch(
            client, rows, tmp_path / "out", prompt="{text}", model=CHAT_MODEL, **more
        )


async def test_a_report_as_json_and_as_a_picture(report, emulator, tmp_path, capsys):
    emulator.script(faults.Status(400), path=CHAT)
    done = await report(params={"stream": True})
    for name in ("r.json", "r.PNG", "nosuch/r.json"):
        write_report(str(tmp_path / name), done)
    found = json.loads((tmp_path / "r.json").read_bytes())
    assert (found["done"], found["failed"], found["errors"]) == (10, 1, {"bad_request": 1})
    assert found["first_token"]["count"] == 9
    assert (tmp_path / "r.PNG").read_bytes().startswith(b"\x89PNG")
    assert "nosuch/r.json could not be written" in capsys.readouterr().err


async def test_a_servers_word_for_an_error_is_drawn_as_text(report, tmp_path, recwarn):
    errors = {"bad \x1b]0;x\x07 \x9b2J": 2, "$\\frac{$": 1}
    done = msgspec.structs.replace(await report(), errors=errors, failed=3)
    for name in ("r.html", "r.png"):
        write_report(str(tmp_path / name), done)
    assert not [w for w in recwarn if {"\x1b", "\x9b"} & set(str(w.message))]
    assert not {"\x1b", "\x9b", "\x07"} & set((tmp_path / "r.html").read_text())


async def test_a_report_of_nothing_is_drawn_too(report, emulator, tmp_path):
    emulator.always(faults.Status(400), path=CHAT)
    write_report(str(tmp_path / "r.html"), await report())
    text = (tmp_path / "r.html").read_text()
    assert "no call was answered" in text
    assert "were not streamed" in text


@pytest.mark.local_model
async def test_local_runs_it_on_the_real_model(env, tmp_path):
    pytest.importorskip("xllamacpp")
    source = write(tmp_path / "in.jsonl", [{"text": "Tokyo"}, {"text": "Paris"}])
    del env["KONKO_API_KEY"]
    arguments = ["--prompt", "Where is {text}?", "--local", "--max-tokens", "8"]
    result = await run("batch", source, tmp_path / "out", *arguments, env=env)
    assert result.code == 0, result.err
    assert re.search(r"cost +unknown", result.err)


async def test_a_cache_answers_the_second_run(emulator, env, rows, tmp_path):
    cache = tmp_path / "cache"
    asked = ("batch", str(rows), "--prompt", "{text}", "-t", "0", "--price-in", "1")
    first = await run(*asked, str(tmp_path / "a"), "--cache", str(cache), env=env)
    assert first.code == 0, first.err
    assert "answered by it" not in first.err
    second = await run(*asked, str(tmp_path / "b"), env={**env, "KONKO_CACHE": str(cache)})
    assert "10 rows were answered by it, at no cost" in second.err
    assert len(chats(emulator)) == 10
    third = await run(
        *asked, str(tmp_path / "c"), "--no-cache", env={**env, "KONKO_CACHE": str(cache)}
    )
    assert third.code == 0
    assert len(chats(emulator)) == 20


async def test_a_cache_that_cannot_be_used_is_reported_at_once(emulator, env, rows, tmp_path):
    (tmp_path / "file").write_text("x")
    asked = ("batch", str(rows), str(tmp_path / "a"), "--prompt", "{text}")
    result = await run(*asked, "--cache", str(tmp_path / "file"), env=env)
    assert result.code == 2
    assert "answer cache" in result.err
    assert not chats(emulator)
