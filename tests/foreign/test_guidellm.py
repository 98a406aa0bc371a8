"""The client and ``bench`` against guidellm's mock server, and beside guidellm's own client.

Run by ``make foreign``. The mock waits 50 ms before the first token and 10 ms between tokens.
"""

import asyncio
import contextlib
import json
import os
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from ports import free_port

from konko_async import AsyncKonko
from konko_async.bench import Plan, run_bench

FOREIGN = os.environ.get("KONKO_FOREIGN")
MODEL = "llama-3.1-8b-instruct"
TOKENS = 32
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not FOREIGN, reason="needs what `make foreign` installs"),
    pytest.mark.timeout(300),
]


async def run(*arguments, **options):
    program = Path(FOREIGN, "guidellm", "bin", "guidellm")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return await asyncio.create_subprocess_exec(program, *arguments, env=environment, **options)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def mock(tmp_path_factory):
    port = free_port()
    with (tmp_path_factory.mktemp("guidellm") / "log").open("wb") as log:
        process = await run(
            "mock-server", "--port", str(port), "--workers", "1", "--ttft-ms", "50",
            "--itl-ms", "10", "--output-tokens", str(TOKENS), stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with asyncio.timeout(120), aiohttp.ClientSession() as session:
            up = False
            while not up:
                assert process.returncode is None
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{port}/health") as answer:
                        up = answer.status == 200
                await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()  # its workers end with it
        await process.wait()


@pytest_asyncio.fixture(loop_scope="module")
async def client(mock):
    async with AsyncKonko("any", f"{mock}/v1") as made:
        yield made


QUESTION = [{"role": "user", "content": "how far is the moon?"}]


async def test_whole_and_streamed(client):
    create = client.chat.completions.create
    whole = await create(model=MODEL, messages=QUESTION, max_tokens=TOKENS)
    assert whole.choices[0].message.content
    assert whole.usage.completion_tokens == TOKENS
    asked = {"model": MODEL, "messages": QUESTION, "stream_options": {"include_usage": True}}
    async with client.chat.completions.stream(**asked) as stream:
        completion = await stream.completion()
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.completion_tokens == TOKENS


async def test_its_tool_calls(client):
    tool = {"type": "function", "function": {"name": "far", "parameters": {"type": "object"}}}
    asked = {"model": MODEL, "messages": QUESTION, "tools": [tool], "tool_choice": "required"}
    async with client.chat.completions.stream(**asked) as stream:
        (call,) = (await stream.completion()).choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("far", "{}")


async def test_64_streams_at_once(client):
    async def one():
        asked = {"model": MODEL, "messages": QUESTION, "max_tokens": TOKENS}
        async with client.chat.completions.stream(**asked) as stream:
            return (await stream.completion()).choices[0].finish_reason

    assert set(await asyncio.gather(*(one() for _ in range(64)))) == {"stop"}


async def test_one_at_a_time_both_benchmarks_read_the_same_time_to_first_token(
    mock, client, tmp_path
):
    prompts = [f"{number}: how far is the moon, and what is on the way?" for number in range(20)]
    Path(tmp_path, "prompts.txt").write_text("\n".join(prompts))
    process = await run(
        "run", "--backend", f"kind=openai_http,target={mock},model={MODEL}",
        "--profile", "kind=synchronous", "--constraint", "kind=max_requests,count=20",
        "--data", f"kind=text_file,path={tmp_path / 'prompts.txt'}",
        "--output", f"kind=json,path={tmp_path / 'theirs.json'}", "--disable-console",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await process.wait() == 0
    (benchmark,) = json.loads((tmp_path / "theirs.json").read_text())["benchmarks"]
    theirs = benchmark["metrics"]["time_to_first_token_ms"]["successful"]["median"]
    ours = (await run_bench(client, Plan(model=MODEL, requests=20, concurrency=1))).ttft.median
    print(  # noqa: T201 - a figure of `make foreign`
        f"median time to first token: ours {ours * 1000:.1f} ms, guidellm {theirs:.1f} ms"
    )
    assert ours >= 0.05
    assert abs(ours * 1000 - theirs) < 15
