"""The emulator as a server: life cycle, endpoints, keys, errors, the log."""

import asyncio
import contextlib
import dataclasses
import io
import json
import threading

import aiohttp
import pytest

import konko_async.testing
from konko_async.testing import Emulator, RequestRecord, faults

CHAT = "codellama/codellama-13b-instruct"
TEXT = "phind/phind-codellama-34b-v2"
HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "Hello there"}]}
KEY = {"Authorization": "Bearer a-key"}


@pytest.fixture
async def emulator():
    async with Emulator() as running:
        yield running


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(headers=KEY, timeout=aiohttp.ClientTimeout(60)) as session:
        yield session


async def get(http, url, **options):
    async with http.get(url, **options) as response:
        return response.status, await response.json()


async def post(http, url, body, **options):
    async with http.post(url, json=body, **options) as response:
        return response.status, await response.json()


# -- life cycle


async def test_start_and_close_are_idempotent():
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="not running"):
        _ = emulator.base_url
    assert "not running" in repr(emulator)
    await emulator.close()
    await emulator.start()
    url = emulator.base_url
    await emulator.start()
    assert emulator.base_url == url
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/v1")
    await emulator.close()
    await emulator.close()
    with pytest.raises(RuntimeError, match="not running"):
        _ = emulator.base_url


async def test_can_be_started_again():
    emulator = Emulator()
    for _ in range(2):
        async with emulator, aiohttp.ClientSession(headers=KEY) as http:
            assert (await get(http, f"{emulator.base_url}/models"))[0] == 200
    assert emulator.received == 2


async def test_close_cuts_streams_in_flight_and_leaves_nothing():
    threads = set(threading.enumerate())
    emulator = Emulator()
    await emulator.start()
    emulator.always(faults.Stall(after_chunks=2))
    async with aiohttp.ClientSession(headers=KEY) as http:
        responses = []
        for _ in range(5):
            response = await http.post(
                f"{emulator.base_url}/chat/completions", json={**HELLO, "stream": True}
            )
            assert await response.content.readany()
            responses.append(response)
        waiting = asyncio.create_task(get(http, f"{emulator.base_url}/models"))
        await emulator.wait_until(lambda: emulator.in_flight == 6)
        async with asyncio.timeout(60):
            await emulator.close()
        for response in responses:
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        with pytest.raises(aiohttp.ClientError):
            await waiting
    assert emulator.in_flight == 0
    assert not any(record.disconnected for record in emulator.requests)
    assert set(threading.enumerate()) == threads


async def test_close_cuts_heartbeats_delays_and_queued_calls(http):
    emulator = Emulator(capacity=1, overload="queue")
    await emulator.start()
    url = f"{emulator.base_url}/chat/completions"
    emulator.script(faults.Stall(1, heartbeat=0.001), faults.Delay(3600))
    first = asyncio.create_task(post(http, url, {**HELLO, "stream": True}))
    await emulator.wait_until(lambda: emulator.requests and emulator.requests[0].chunks_sent)
    emulator.capacity = 2
    tasks = [first, asyncio.create_task(post(http, url, HELLO))]
    await emulator.wait_until(lambda: emulator.in_flight == 2)
    tasks.append(asyncio.create_task(post(http, url, HELLO)))
    await emulator.wait_until(lambda: emulator.queued == 1)
    await emulator.close()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, aiohttp.ClientError) for result in results)
    assert emulator.in_flight == emulator.queued == 0


async def test_close_ends_a_user_function_that_waits(http):
    emulator = Emulator(answer=lambda _: asyncio.get_running_loop().create_future())
    await emulator.start()
    waiting = asyncio.create_task(post(http, f"{emulator.base_url}/chat/completions", HELLO))
    await emulator.wait_until(lambda: emulator.in_flight)
    await emulator.close()
    with pytest.raises(aiohttp.ClientError):
        await waiting


EVERYWHERE = "0.0.0.0"  # noqa: S104 - that is what is to be refused


@pytest.mark.parametrize("host", [EVERYWHERE, "192.0.2.1", "example.com", "::"])
@pytest.mark.parametrize("options", [{}, {"allow_remote": True}, {"api_keys": {"k"}}])
def test_only_loopback_without_both_permissions(host, options):
    with pytest.raises(ValueError, match="loopback"):
        Emulator(host=host, **options)


async def test_another_address_with_both_permissions(http):
    async with Emulator(host=EVERYWHERE, allow_remote=True, api_keys={"k"}) as emulator:
        assert emulator.base_url.startswith("http://0.0.0.0:")
        assert (await get(http, f"{emulator.base_url}/models"))[0] == 401


async def test_ipv6_loopback(http):
    try:
        async with Emulator(host="::1") as emulator:
            assert emulator.base_url.startswith("http://[::1]:")
            assert (await get(http, f"{emulator.base_url}/models"))[0] == 200
    except OSError:
        pytest.skip("this machine has no IPv6")


@pytest.mark.parametrize(
    "options",
    [
        {"capacity": 0},
        {"chunk_tokens": 0},
        {"limit_window": 0},
        {"api_keys": "a-key"},
        {"api_keys": [""]},
        {"models": [{"name": "no id"}]},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError):
        Emulator(**options)


def test_lazy_names_are_all_there():
    for name in konko_async.testing.__all__:
        assert getattr(konko_async.testing, name) is not None
    assert set(konko_async.testing.__all__) <= set(dir(konko_async.testing))
    with pytest.raises(AttributeError, match="nothing"):
        _ = konko_async.testing.nothing


# -- models


async def test_models_of_the_guide_have_all_fields(emulator, http):
    status, page = await get(http, f"{emulator.base_url}/models")
    assert status == 200
    assert page["object"] == "list"
    models = {model["id"]: model for model in page["data"]}
    assert models[CHAT] == {
        "id": CHAT,
        "created": 1702453635,
        "object": "model",
        "owned_by": "Meta",
        "is_chat": True,
        "is_text": False,
        "creator": "Meta",
        "creator_logo_url": models[CHAT]["creator_logo_url"],
        "name": "codellama-13b-instruct",
        "description": "WIP",
        "category": "Coding: Generalist",
        "censorship": "Censored",
        "max_context_length": 8192,
        "license_name": "Llama 2 Community License",
        "license_url": models[CHAT]["license_url"],
        "public_endpoint_pricing": "$0.0003 / 1k tokens",
        "private_endpoint_pricing": "$2 / hour",
        "docs_url": models[CHAT]["docs_url"],
        "prompt_guide_url": models[CHAT]["prompt_guide_url"],
    }
    other = models[TEXT]
    assert (other["created"], other["is_chat"], other["is_text"]) == (1702496623, False, True)
    assert (other["creator"], other["max_context_length"]) == ("Phind", 16384)
    assert other["public_endpoint_pricing"] == "$0.0008 / 1k tokens"
    assert other["private_endpoint_pricing"] == "$2.8 / hour"
    assert len(models) == 7


@pytest.mark.parametrize("path", ["/v1/models/", "/models/"])
@pytest.mark.parametrize("id", [CHAT, CHAT.replace("/", "%2F"), CHAT.replace("/", "%2f")])
async def test_retrieve_with_a_slash_in_the_id(emulator, http, path, id):
    url = emulator.base_url.removesuffix("/v1") + path
    from yarl import URL

    status, model = await get(http, URL(url + id, encoded=True))
    assert (status, model["id"]) == (200, CHAT)


async def test_own_models(http):
    own = [{"id": "mine", "owned_by": "me", "max_context_length": 10}, "plain"]
    async with Emulator(models=own) as emulator:
        _, page = await get(http, f"{emulator.base_url}/models")
        assert page["data"] == [
            {
                "created": 1700000000,
                "object": "model",
                "id": "mine",
                "owned_by": "me",
                "max_context_length": 10,
            },
            {"created": 1700000000, "object": "model", "owned_by": "emulator", "id": "plain"},
        ]
        url = f"{emulator.base_url}/chat/completions"
        assert (await post(http, url, {**HELLO, "model": "plain"}))[0] == 200
        assert (await post(http, url, HELLO))[0] == 404
        status, body = await post(http, url, {**HELLO, "model": "mine", "max_tokens": 10})
        assert (status, body["error"]["code"]) == (400, "context_length_exceeded")


async def test_kind_of_model_enforced_when_asked(http):
    async with Emulator(enforce_model_kind=True) as emulator:
        status, body = await post(
            http, f"{emulator.base_url}/chat/completions", {**HELLO, "model": TEXT}
        )
        assert (status, body["error"]["param"]) == (404, "model")
        assert "is_chat" in body["error"]["message"]
        emulator.enforce_model_kind = False
        body = {**HELLO, "model": TEXT}
        assert (await post(http, f"{emulator.base_url}/chat/completions", body))[0] == 200


# -- errors


async def test_unknown_paths_and_wrong_methods(emulator, http):
    status, body = await get(http, f"{emulator.base_url}/nothing")
    assert (status, body["error"]["type"]) == (404, "invalid_request_error")
    async with http.get(f"{emulator.base_url}/chat/completions") as response:
        assert (response.status, response.headers["allow"]) == (405, "POST")
        assert "error" in await response.json()
    async with http.post(f"{emulator.base_url}/models") as response:
        assert (response.status, response.headers["allow"]) == (405, "GET")


async def test_paths_without_v1(emulator, http):
    root = emulator.base_url.removesuffix("/v1")
    assert (await get(http, f"{root}/models"))[0] == 200
    assert (await post(http, f"{root}/chat/completions?x=1", HELLO))[0] == 200


@pytest.mark.parametrize(
    ("authorization", "code"),
    [(None, 401), ("Bearer ", 401), ("Basic abc", 401), ("Bearer x", 200), ("bearer x", 200)],
)
async def test_any_key_by_default(emulator, authorization, code):
    headers = {"authorization": authorization} if authorization is not None else {}
    async with aiohttp.ClientSession(headers=headers) as http:
        status, body = await get(http, f"{emulator.base_url}/models")
    assert status == code
    if code == 401:
        assert body["error"]["code"] == "invalid_api_key"


async def test_only_these_keys():
    async with Emulator(api_keys=["one", "two"]) as emulator, aiohttp.ClientSession() as http:
        assert emulator.api_key == "one"
        url = f"{emulator.base_url}/models"
        for key, expected in (("one", 200), ("two", 200), ("three", 401)):
            status, body = await get(http, url, headers={"Authorization": f"Bearer {key}"})
            assert status == expected
            assert "three" not in json.dumps(body)


def test_the_default_key_is_accepted():
    assert Emulator().knows_key(Emulator().api_key)


MESSAGES = HELLO["messages"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages.[0]"),
        ({"messages": [*MESSAGES, {"content": "x"}]}, "messages.[1].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.[0].role"),
        ({"messages": [{"role": "user"}]}, "messages.[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.[0].tool_call_id"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"n": 0}, "n"),
        ({"n": 1.5}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": 5}, "stream_options"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools.[0].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"model": None}, "model"),
        ({"max_tokens": 100_000}, "messages"),
    ],
)
async def test_invalid_chat_requests(emulator, http, change, param):
    status, body = await post(http, f"{emulator.base_url}/chat/completions", {**HELLO, **change})
    assert status == 400
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["param"] == param
    assert body["error"]["message"]
    assert body["error"]["code"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/completions", {"model": TEXT}, "prompt"),
        ("/completions", {"model": TEXT, "prompt": []}, "prompt"),
        ("/completions", {"model": TEXT, "prompt": ["a", 1]}, "prompt"),
        ("/completions", {"model": TEXT, "prompt": "x", "echo": 1}, "echo"),
        ("/embeddings", {"model": TEXT}, "input"),
        ("/embeddings", {"model": TEXT, "input": [""] * 2049}, "input"),
        ("/embeddings", {"model": TEXT, "input": [[]]}, "input"),
        ("/embeddings", {"model": TEXT, "input": "x", "dimensions": 0}, "dimensions"),
        (
            "/embeddings",
            {"model": TEXT, "input": "x", "encoding_format": "int8"},
            "encoding_format",
        ),
    ],
)
async def test_invalid_other_requests(emulator, http, path, body, param):
    status, answer = await post(http, f"{emulator.base_url}{path}", body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_unknown_model(emulator, http):
    status, body = await post(
        http, f"{emulator.base_url}/chat/completions", {**HELLO, "model": "no/such"}
    )
    assert status == 404
    assert body["error"]["code"] == "model_not_found"
    assert body["error"]["param"] == "model"
    assert body["error"]["type"] == "invalid_request_error"
    assert (await get(http, f"{emulator.base_url}/models/no/such"))[0] == 404


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b"\xff\xfe"])
async def test_what_is_no_json_object(emulator, http, data):
    async with http.post(f"{emulator.base_url}/chat/completions", data=data) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "invalid_json"
    assert not isinstance(emulator.requests[-1].body, dict)


async def test_a_body_that_is_too_large(emulator, http, monkeypatch):
    monkeypatch.setattr("konko_async.testing._emulator.emulator._MAX_BODY", 1000)
    async with http.post(f"{emulator.base_url}/embeddings", data=b"x" * 2000) as response:
        assert response.status == 413


async def test_a_body_of_some_megabytes(emulator, http):
    messages = [{"role": "user", "content": "x" * 3_000_000}]
    emulator.models[CHAT].pop("max_context_length")
    body = io.BytesIO(json.dumps({**HELLO, "messages": messages}).encode())
    async with http.post(f"{emulator.base_url}/chat/completions", data=body) as response:
        assert response.status == 200
        assert (await response.json())["usage"]["prompt_tokens"] == 3 + 3_000_000 / 8


async def test_a_body_with_a_broken_encoding(emulator, http):
    headers = {"Content-Encoding": "gzip"}
    url = f"{emulator.base_url}/chat/completions"
    async with http.post(url, data=b"not gzip", headers=headers) as response:
        assert response.status == 400


async def test_expect_100_continue(emulator, http):
    async with http.post(
        f"{emulator.base_url}/chat/completions", json=HELLO, expect100=True
    ) as response:
        assert response.status == 200


async def test_http_1_0(emulator):
    host, port = emulator.base_url.removesuffix("/v1").removeprefix("http://").split(":")
    for stream in (False, True):
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps({**HELLO, "stream": stream}).encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.0\r\nAuthorization: Bearer k\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert b" 200 OK\r\n" in answer
        assert b"chunked" not in answer
        assert (b"data: [DONE]\n\n" in answer) is stream


# -- the log


async def test_the_log(emulator, http):
    headers = {"Idempotency-Key": "once", "X-OpenAI-Api-Key": "s3cret", "X-Other": "seen"}
    await post(http, f"{emulator.base_url}/chat/completions", HELLO, headers=headers)
    async with http.post(
        f"{emulator.base_url}/chat/completions", json={**HELLO, "stream": True}
    ) as response:
        data = await response.read()
        assert response.headers["x-request-id"] == emulator.requests[1].request_id
    whole, stream = emulator.requests
    assert isinstance(whole, RequestRecord)
    assert (whole.index, whole.method, whole.path) == (0, "POST", "/v1/chat/completions")
    assert whole.body == HELLO
    assert (whole.model, whole.status, whole.stream) == (CHAT, 200, False)
    assert whole.idempotency_key == "once"
    assert whole.headers["authorization"] == whole.headers["x-openai-api-key"] == "[redacted]"
    assert whole.headers["x-other"] == "seen"
    assert "s3cret" not in repr(emulator.requests[0])
    assert "a-key" not in repr(emulator.requests[0])
    assert whole.key_fingerprint == stream.key_fingerprint
    assert len(whole.key_fingerprint) == 12
    assert whole.started <= whole.first_byte <= whole.finished <= stream.started
    assert not whole.disconnected
    assert stream.stream
    assert stream.bytes_sent == len(data)
    assert stream.chunks_sent == data.count(b"data: {")
    assert stream.faults == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        whole.status = 500


async def test_the_log_is_a_live_bounded_sequence(http):
    async with Emulator(log_limit=2) as emulator:
        log = emulator.requests
        assert not log
        for _ in range(3):
            await get(http, f"{emulator.base_url}/models")
        assert [record.index for record in log] == [1, 2]
        assert log[-1].index == 2
        assert [record.index for record in log[:1]] == [1]
        assert emulator.received == 3
        assert "2" in repr(log)


async def test_a_request_in_flight_is_in_the_log(emulator, http):
    emulator.script(faults.Stall())
    task = asyncio.create_task(get(http, f"{emulator.base_url}/models"))
    await emulator.wait_until(lambda: emulator.in_flight == 1)
    record = emulator.requests[-1]
    assert (record.status, record.first_byte, record.finished) == (None, None, None)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await emulator.wait_until(lambda: emulator.in_flight == 0)
    assert emulator.requests[-1].disconnected


@pytest.mark.parametrize("pace", [{"tokens_per_second": 50}, {}])
async def test_a_client_that_leaves_in_a_stream(emulator, http, caplog, pace):
    emulator.answer_tokens = 1000
    emulator.tokens_per_second = pace.get("tokens_per_second")
    if not pace:
        emulator.script(faults.Stall(3, heartbeat=0.001))
    response = await http.post(
        f"{emulator.base_url}/chat/completions", json={**HELLO, "stream": True}
    )
    await response.content.readany()
    response.close()
    await emulator.wait_until(lambda: emulator.in_flight == 0)
    record = emulator.requests[-1]
    assert record.disconnected
    assert 0 < record.chunks_sent < 1000
    assert record.finished
    assert not caplog.records


async def test_wait_until_times_out(emulator):
    with pytest.raises(TimeoutError):
        await emulator.wait_until(lambda: emulator.received, timeout=0.01)


async def test_connections_are_kept(emulator, http):
    for stream in (False, True, False):
        async with http.post(
            f"{emulator.base_url}/chat/completions", json={**HELLO, "stream": stream}
        ) as response:
            await response.read()
    assert emulator.connections == 1
