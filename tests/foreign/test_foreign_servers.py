"""The client against servers that none of us wrote; run by ``make foreign``, which installs them.

LiteLLM's proxy and vllm-router stand in front of llama.cpp with the tiny model, so the exact answers
have to come through them; aimock answers from a file of ours.
"""

import asyncio
import contextlib
import json
import os
import secrets
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from dialogues import ANSWERS, TOOLS
from ports import free_port

from konko_async import APIStatusError, AsyncKonko
from konko_async.local import LocalServer

FOREIGN = os.environ.get("KONKO_FOREIGN")
MODEL = Path(__file__).with_name("tiny.gguf")
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not FOREIGN, reason="needs the servers that `make foreign` installs"),
    pytest.mark.timeout(300),
]


@contextlib.asynccontextmanager
async def running(*command, port, path, env=None, log):
    """Run a server until the block ends; it is up when ``path`` answers."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=output, stderr=output, env={**os.environ, **(env or {})}
        )
    try:
        async with asyncio.timeout(120), aiohttp.ClientSession() as session:
            while True:
                assert process.returncode is None, log.read_text()[-2000:]
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                        if answer.status < 500:
                            break
                await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def litellm(folder, llama):
    port = free_port()
    config = folder / "litellm.json"
    config.write_text(
        json.dumps(
            {
                "model_list": [
                    {
                        "model_name": llama.model,
                        "litellm_params": {
                            "model": f"openai/{llama.model}",
                            "api_base": llama.base_url,
                            "api_key": llama.api_key,
                        },
                    }
                ],
                "litellm_settings": {"telemetry": False, "num_retries": 0},
            }
        )
    )
    command = (f"{FOREIGN}/litellm/bin/litellm", "--config", str(config), "--host", "127.0.0.1",
               "--port", str(port))  # fmt: skip
    key = f"sk-{secrets.token_hex(16)}"
    env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": key}
    log = folder / "litellm.log"
    async with running(*command, port=port, path="/health/liveliness", env=env, log=log) as url:
        yield url, llama.model, key


@contextlib.asynccontextmanager
async def vllm_router(folder, llama):
    port = free_port()
    worker = llama.base_url.removesuffix("/v1")
    command = (f"{FOREIGN}/router/bin/vllm-router", "--worker-urls", worker, "--policy",
               "round_robin", "--host", "127.0.0.1", "--port", str(port))  # fmt: skip
    log = folder / "router.log"
    async with running(*command, port=port, path="/health", log=log) as url:
        yield url, llama.model, llama.api_key


@contextlib.asynccontextmanager
async def aimock(folder, llama):
    del llama  # it answers by itself
    port = free_port()
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}
    fixtures = [
        {"match": {"userMessage": "weather Paris"}, "response": {"toolCalls": [call]}},
        *(
            {"match": {"userMessage": question}, "response": {"content": answer}}
            for question, answer in ANSWERS.items()
        ),
    ]
    (folder / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}))
    command = (f"{FOREIGN}/npm/node_modules/.bin/llmock", "--port", str(port), "--strict",
               "--fixtures", str(folder / "fixtures.json"))  # fmt: skip
    async with running(*command, port=port, path="/health", log=folder / "aimock.log") as url:
        yield url, "gpt-4o", "any-key"


SERVERS = {"litellm": litellm, "vllm-router": vllm_router, "aimock": aimock}


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=sorted(SERVERS))
async def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    async with (
        LocalServer(model_path=MODEL, n_parallel=8, n_threads=1, log_path=folder / "l") as llama,
        SERVERS[request.param](folder, llama) as (url, model, key),
    ):
        yield request.param, url, model, key


@pytest_asyncio.fixture(loop_scope="module")
async def client(server):
    _, url, _, key = server
    async with AsyncKonko(key, url) as made:
        yield made


@pytest.fixture
def ask(server, client):
    model = server[2]

    def create(question, **options):
        return client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            temperature=0,
            max_tokens=500,
            **options,
        )

    return create


def said(completion):
    """Return what the model wrote; LiteLLM hands its thoughts on in a field of their own."""
    message = completion.choices[0].message
    thoughts = message.reasoning_content
    before = "" if thoughts is None else f"<think>{thoughts}</think>"
    return before + message.content


@pytest.mark.parametrize("question", sorted(ANSWERS))
async def test_answers_come_through_whole_and_streamed(question, ask):
    whole = await ask(question)
    assert said(whole) == ANSWERS[question]
    assert whole.usage.completion_tokens > 0
    stream = await ask(question, stream=True)
    async with stream:
        streamed = await stream.completion()
    assert said(streamed) == ANSWERS[question]
    assert streamed.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
async def test_tool_calls_come_through(stream, ask):
    answer = await ask("weather Paris", tools=TOOLS, stream=stream)
    if stream:
        async with answer:
            answer = await answer.completion()
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_64_streams_at_once(ask):
    async def one(number):
        question = sorted(ANSWERS)[number % len(ANSWERS)]
        stream = await ask(question, stream=True)
        async with stream:
            return question, said(await stream.completion())

    for question, text in await asyncio.gather(*map(one, range(64))):
        assert text == ANSWERS[question]


async def test_errors_are_typed_and_have_the_servers_reason(server, client):
    name, _, model, _ = server
    wrong = {"temperature": "hot"} if name != "aimock" else {"messages": []}
    with pytest.raises(APIStatusError) as caught:
        await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "nothing like it"}], extra_body=wrong
        )
    assert 400 <= caught.value.status_code < 600
    assert caught.value.message
