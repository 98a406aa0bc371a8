"""The client as a whole, over sockets."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import json

import pytest
from client_kit import ASK, KEY, MESSAGES, MODEL, ask, make_client, serving, text_of

from konko_async import (
    APITimeoutError,
    AsyncKonko,
    AuthenticationError,
    ChatMessage,
    ConfigurationError,
    NotFoundError,
    RetryPolicy,
    Timeout,
)
from konko_async.testing import Answer, Emulator, FaultServer

WHOLE = Answer.whole("Hello", headers={"x-request-id": "req-1"})


async def test_the_environment_says_where_and_who(monkeypatch):
    async with FaultServer(WHOLE) as server:
        monkeypatch.setenv("KONKO_API_KEY", KEY)
        monkeypatch.setenv("KONKO_API_BASE", "http://127.0.0.1:1/v1")
        monkeypatch.setenv("KONKO_BASE_URL", server.base_url + "/")
        async with AsyncKonko() as client:
            assert client.base_url == server.base_url
            assert repr(client) == f"<AsyncKonko base_url={server.base_url!r}>"
            completion = await ask(client, stream=False)
            assert completion.request_id == "req-1"
        (request,) = server.requests
        assert (request.method, request.path) == ("POST", "/v1/chat/completions")
        assert request.json() == ASK
        assert request.headers["user-agent"].startswith("konko-async/")
        assert request.headers["accept-encoding"] == "gzip, deflate"


async def test_a_stream_asks_for_uncompressed_events():
    server = FaultServer(Answer.stream(["Hello"]))
    async with serving(server) as client:
        await ask(client, stream=True, stream_options={"include_usage": True})
    (request,) = server.requests
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["accept-encoding"] == "identity"
    assert request.json() == {**ASK, "stream": True, "stream_options": {"include_usage": True}}


async def test_every_parameter_travels():
    given = {
        "temperature": 0, "top_p": 0.5, "n": 2, "stop": ["a", "b"], "max_tokens": 0, "presence_penalty": -2,
        "frequency_penalty": 2.0, "logit_bias": {"50256": -100}, "seed": 0, "top_k": 1, "min_p": 0.1,
        "repetition_penalty": 1.1, "logprobs": False, "top_logprobs": 2, "response_format": {"type": "json_object"},
        "tools": [], "tool_choice": "none", "parallel_tool_calls": False, "user": "ü", "reasoning_effort": "low",
        "max_completion_tokens": 7,
    }  # fmt: skip
    server = FaultServer(WHOLE)
    async with serving(server) as client:
        try:
            await ask(client, stream=False, **given)
        except ConfigurationError:  # 0 tokens are refused before they are sent
            given["max_tokens"] = 1
            await ask(client, stream=False, **given)
    assert server.requests[-1].json() == {**ASK, **given}


async def test_messages_may_be_structs_and_large():
    server = FaultServer(WHOLE)
    async with serving(server) as client:
        text = "ünïcode 🎉" * 200_000  # over a megabyte: aiohttp warns about such bytes
        answer = await ask(client, stream=False)
        messages = [
            ChatMessage("user", text),
            answer.choices[0].message,
            {"role": "user", "content": "go on"},
        ]
        await client.chat.completions.create(model=MODEL, messages=messages)
    sent = server.requests[-1].json()["messages"]
    assert sent == [
        {"role": "user", "content": text},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "go on"},
    ]


async def test_a_large_body_survives_a_retry():
    server = FaultServer(Answer.error(503), Answer.hang_up(), WHOLE)
    async with serving(server, retry=RetryPolicy(base_delay=0.0)) as client:
        messages = [{"role": "user", "content": "x" * 2_000_000}]
        await client.chat.completions.create(model=MODEL, messages=messages)
    assert {len(json.dumps(request.json())) for request in server.requests} == {
        2_000_000 + len(json.dumps({**ASK, "messages": [{"role": "user", "content": ""}]}))
    }


async def test_an_answer_that_comes_before_the_request_was_read():
    """A server may refuse a large body before it has read it."""

    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error":{"message":"too large"}}'
        writer.write(
            b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (len(body), body)
        )
        await writer.drain()
        writer.write_eof()
        while await reader.read(65536):
            pass
        writer.close()
        done.set()

    done = asyncio.Event()
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        async with AsyncKonko(KEY, url, retry=None) as client:
            with pytest.raises(
                Exception, match=r"too large|closed|reset|broke off|failed"
            ) as caught:
                await client.chat.completions.create(
                    model=MODEL, messages=[{"role": "user", "content": "x" * 20_000_000}]
                )
            assert type(caught.value).__module__ == "konko_async.errors"
        await done.wait()


async def test_timeouts_per_client_copy_and_call():
    server = FaultServer(WHOLE.stall(0))
    async with serving(server, timeout=Timeout(first_token=10)) as client:
        copy = client.with_options(timeout=Timeout(first_token=0.05))
        with pytest.raises(APITimeoutError) as caught:
            await ask(copy, stream=False)
        assert caught.value.phase == "first_token"
        with pytest.raises(APITimeoutError) as caught:
            await ask(client, stream=False, timeout=0.05)
        assert caught.value.phase == "total"


async def test_models_are_verified_once():
    async with Emulator() as emulator:
        async with make_client(emulator, api_key="any", verify_models=True) as client:
            for _ in range(2):
                assert text_of(await client.chat.completions.create(model=MODEL, messages=MESSAGES))
            with pytest.raises(ConfigurationError, match="codellama/codellama-13b-instruct"):
                await client.chat.completions.create(model="codellama-13b", messages=MESSAGES)
            with pytest.raises(ConfigurationError, match="no chat model"):
                await client.chat.completions.create(
                    model="phind/phind-codellama-34b-v2", messages=MESSAGES
                )
            with pytest.raises(ConfigurationError, match="no text model"):
                await client.completions.create(model=MODEL, prompt="x")
            asked = [request for request in emulator.requests if request.path.endswith("/models")]
            assert len(asked) == 1


LISTED = b'{"object":"list","data":[{"id":"a/b","max_model_len":4096},{"id":"c"}]}'


@pytest.mark.parametrize("status", [404, 405])
async def test_a_model_is_found_in_the_list_where_it_has_no_path(status):
    server = FaultServer(Answer.error(status, "no such path"), Answer.body(LISTED))
    async with serving(server) as client:
        model = await client.models.retrieve("a/b")
        assert (model.id, model.raw["max_model_len"]) == ("a/b", 4096)
        assert [request.path for request in server.requests] == ["/v1/models/a/b", "/v1/models"]


@pytest.mark.parametrize("then", [Answer.body(LISTED), Answer.error(404), Answer.error(401)])
async def test_a_model_that_is_not_listed_is_not_found_in_the_servers_own_words(then):
    server = FaultServer(Answer.error(404, "there is no such model"), then)
    async with serving(server) as client:
        with pytest.raises(NotFoundError, match="there is no such model"):
            await client.models.retrieve("d")


async def test_other_failures_of_a_model_are_raised_at_once():
    server = FaultServer(Answer.error(401, "who are you"))
    async with serving(server) as client:
        with pytest.raises(AuthenticationError):
            await client.models.retrieve("d")
        assert len(server.requests) == 1


@pytest.mark.parametrize("indexes", [(1, 1, 1), (0, 1, 2)])
async def test_the_text_of_one_choice_is_whole_whatever_its_index(indexes):
    chunks = [
        json.dumps({"choices": [{"index": index, "delta": {"content": text}}]})
        for index, text in zip(indexes, ("Hel", "lo", "!"), strict=True)
    ]
    server = FaultServer(Answer.events([*chunks, "[DONE]"]))
    async with serving(server) as client, client.chat.completions.stream(**ASK) as stream:
        assert [text async for text in stream.text()] == ["Hel", "lo", "!"]
        assert text_of(await stream.completion()) == "Hello!"


async def test_model_ids_are_paths_that_go_nowhere_else():
    server = FaultServer(Answer.body(b'{"id":"x"}'))
    async with serving(server) as client:
        await client.models.retrieve("a/b c?d#e%2f")
        assert server.requests[0].path == "/v1/models/a/b%20c%3Fd%23e%252f"
        for bad in ("../keys", "a/../b", "a//b", "./a", "", "/", "a/"):
            with pytest.raises(ConfigurationError):
                await client.models.retrieve(bad)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"retry": 3}, {"rate_limit": 5}, {"timeout": "x"}, {"observers": [3]}, {"fallback_models": "m"},
        {"hedge_after": -1}, {"max_body_bytes": 0}, {"circuit_breaker": True},
        {"base_url": "ftp://x/"}, {"base_url": "http://example.com/v1"}, {"base_url": "https://u:p@example.com"}, {"api_key": ""},
    ],
)  # fmt: skip
def test_options_that_cannot_be_used(options):
    with pytest.raises(ConfigurationError):
        AsyncKonko(**{"api_key": KEY, **options})
