"""What is put on the wire: method, address, headers and body. No socket is needed for that."""

import inspect
import math
from decimal import Decimal
from unittest import mock

import aiohttp
import msgspec
import pytest
from aioresponses import CallbackResult, aioresponses

from konko_async import AsyncKonko, ChatMessage, ConfigurationError

BASE = "https://api.konko.ai/v1"
HELLO = [{"role": "user", "content": "hello"}]
ANSWER = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}


class Response(aiohttp.ClientResponse):
    """aioresponses does not know yet of an argument that aiohttp 3.14 asks for."""

    def __init__(self, *args, **kwargs):
        if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
            kwargs.setdefault("stream_writer", mock.Mock())
        super().__init__(*args, **kwargs)


class Sent:
    """Keeps the one request that is made, and answers it."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, url, *, headers, data, **_):
        self.url = url
        self.headers = {name.lower(): str(value) for name, value in headers.items()}
        self.body = None if data is None else msgspec.json.decode(data)
        return CallbackResult(payload=self.answer, response_class=Response)


@pytest.fixture
async def client():
    async with AsyncKonko("key", default_headers={"X-Team": "blue"}) as client:
        yield client


async def test_a_chat_call(client):
    sent = Sent(ANSWER)
    with aioresponses() as server:
        server.post(f"{BASE}/chat/completions", callback=sent)
        await client.chat.completions.create(
            model="m",
            messages=[ChatMessage("system", "be brief"), *HELLO],
            temperature=0.5,
            stop="x",
        )
    assert sent.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "be brief"}, *HELLO],
        "temperature": 0.5,
        "stop": "x",
    }
    assert sent.headers["authorization"] == "Bearer key"
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["x-team"] == "blue"
    assert sent.headers["user-agent"].startswith("konko-async/")
    assert sent.headers["idempotency-key"]
    assert "x-openai-api-key" not in sent.headers


async def test_what_every_call_takes_beside(client):
    sent = Sent(ANSWER)
    with aioresponses() as server:
        server.post(f"{BASE}/chat/completions?a=1", callback=sent)
        await client.chat.completions.create(
            model="m",
            messages=HELLO,
            max_tokens=5,
            extra_headers={"X-Team": "red", "Idempotency-Key": "mine"},
            extra_query={"a": "1"},
            extra_body={"max_tokens": -1, "mirostat": 2},
        )
    assert sent.body == {"model": "m", "messages": HELLO, "max_tokens": -1, "mirostat": 2}
    assert sent.headers["x-team"] == "red"
    assert sent.headers["idempotency-key"] == "mine"


async def test_a_false_that_is_given_is_sent_beside_extra_body(client):
    sent = Sent(ANSWER)
    with aioresponses() as server:
        server.post(f"{BASE}/chat/completions", callback=sent)
        await client.chat.completions.create(
            model="m", messages=HELLO, stream=False, logprobs=False, extra_body={"mirostat": None}
        )
    asked = {"stream": False, "logprobs": False, "mirostat": None}
    assert sent.body == {"model": "m", "messages": HELLO, **asked}


@pytest.mark.parametrize(
    "value", [math.nan, -math.inf, [{"a": math.inf}], {"b": (1, Decimal("NaN"))}, Decimal("inf")]
)
async def test_no_extra_body_carries_what_json_cannot(client, value):
    with pytest.raises(ConfigurationError, match=r"extra_body holds NaN|as JSON"):
        await client.chat.completions.create(
            model="m", messages=HELLO, extra_body={"text": "NaN", "x": value}
        )


async def test_ids_of_models_keep_their_slash(client):
    sent = Sent({"id": "codellama/codellama-13b-instruct"})
    with aioresponses() as server:
        server.get(f"{BASE}/models/codellama/codellama-13b-instruct", callback=sent)
        model = await client.models.retrieve("codellama/codellama-13b-instruct")
    assert model.id == "codellama/codellama-13b-instruct"
    assert sent.body is None
    with pytest.raises(ConfigurationError):
        await client.models.retrieve("../chat/completions")


async def test_vectors_travel_as_base64_unless_told(client):
    answer = {"data": [{"embedding": "AACAPwAAAMA=", "index": 0}], "model": "m"}
    sent = Sent(answer)
    with aioresponses() as server:
        server.post(f"{BASE}/embeddings", callback=sent)
        result = await client.embeddings.create(model="m", input=["a"])
    assert sent.body == {"model": "m", "input": ["a"], "encoding_format": "base64"}
    assert result.data[0].embedding == [1.0, -2.0]
