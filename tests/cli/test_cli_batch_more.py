"""`konko-async batch` with the server's jobs, schemas, shards, a webhook; and `merge`."""

import hashlib
import hmac
import json

import click
import pytest
from aiohttp import web
from cli_kit import CHAT_MODEL, run

from konko_async.cli.bulk.batches.webhook import check_webhook

SECRET = "a prompt that nobody else may read"


@pytest.fixture
def env(env):
    return {**env, "KONKO_MODEL": CHAT_MODEL}


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": f"{SECRET} {n}"}) + "\n" for n in range(6)))
    return path


@pytest.fixture
async def hook():
    """A server that takes one refusal to begin with, and keeps what it is sent."""
    got = []

    async def handle(request):
        got.append((dict(request.headers), await request.read()))
        return web.Response(status=500 if len(got) == 1 else 204)

    server = web.Server(handle)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/hook", got
    await runner.cleanup()


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_server_side(env, rows, tmp_path):
    output = tmp_path / "out.jsonl"
    done = await run(
        "batch", rows, output, "--prompt", "{text}", "--server-side", "--poll", "0.02",
        "--rows-per-file", "4", "--progress", "none", env=env,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "job 2: 2 rows submitted" in done.err
    assert "6 rows answered" in done.err
    assert len(read(output)) == 6
    bad = await run("batch", rows, output, "--prompt", "{text}", "--then-live", env=env)
    assert (bad.code, "goes with --server-side" in bad.err) == (2, True)


async def test_steps(env, emulator, rows, tmp_path):
    emulator.answer = lambda body: f"<{body['messages'][-1]['content'][:3]}>"
    output = tmp_path / "out.jsonl"
    done = await run(
        "batch", rows, output, "--step", "one=1: {text}", "--step", "two=2: {answer} = {one}",
        "--progress", "none", env=env,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert all(row["steps"] == {"one": "<1: >", "two": "<2: >"} for row in read(output))
    bad = await run("batch", rows, output, "--step", "nothing", env=env)
    assert (bad.code, "NAME=PROMPT" in bad.err) == (2, True)


async def test_schema_shard_and_merge(env, emulator, rows, tmp_path):
    emulator.answer = lambda _body: '{"n": 1}'
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
    outputs = [tmp_path / f"out-{n}.jsonl" for n in (1, 2)]
    for number, output in enumerate(outputs, 1):
        done = await run(
            "batch", rows, output, "--prompt", "{text}", "--schema", schema, "--shard",
            f"{number}/2", "--progress", "none", env=env,
        )  # fmt: skip
        assert done.code == 0, done.err
        assert all(row["value"] == {"n": 1} for row in read(output))
    merged = tmp_path / "all.jsonl"
    done = await run("merge", merged, outputs[0], env=env)
    assert (done.code, "3 missing" in done.err) == (1, True)
    done = await run("merge", merged, *outputs, "--restart", env=env)
    assert (done.code, "6 rows answered, 0 failed" in done.err) == (0, True)
    assert len(read(merged)) == 6
    done = await run("merge", merged, *outputs, env=env)
    assert (done.code, "--restart" in done.err) == (2, True)
    schema.write_text("[")
    done = await run("batch", rows, merged, "--schema", schema, env=env)
    assert (done.code, "--schema" in done.err) == (2, True)


async def test_a_webhook_gets_figures_and_no_prompt(env, rows, tmp_path, hook):
    url, got = hook
    env = {**env, "KONKO_WEBHOOK_SECRET": "s3cret"}
    done = await run(
        "batch", rows, tmp_path / "out.jsonl", "--prompt", "{text}", "--webhook", url,
        "--progress", "none", env=env,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert len(got) == 2  # refused once, and sent again
    headers, body = got[-1]
    said = json.loads(body)
    assert (said["event"], said["exit_code"], said["done"], said["rows"]) == (
        "batch.ended",
        0,
        6,
        6,
    )
    assert said["output"] == "out.jsonl"
    assert SECRET.encode() not in body
    digest = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert headers["x-konko-signature"] == f"sha256={digest}"


@pytest.mark.parametrize("url", ["http://example.com/x", "https://u:p@example.com", "ftp://a", "x"])
def test_a_webhook_elsewhere_is_refused(url):
    with pytest.raises(click.BadParameter):
        check_webhook(url)
    assert check_webhook("https://example.com/x")
    assert check_webhook("http://[::1]:8000/x")
