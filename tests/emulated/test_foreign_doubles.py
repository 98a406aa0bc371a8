"""Other people's doubles in tests of applications: cassettes of vcrpy, and aioresponses."""

from pathlib import Path

import aiohttp
import pytest
from client_kit import ASK, MODEL

from konko_async import AsyncKonko, RateLimitError, RetryPolicy
from konko_async.testing import Emulator

vcr = pytest.importorskip("vcr")

KEY = "sk-vcrTest0123456789"
OTHER = "ghp_0123456789AbCdEf"
BASE = "https://api.konko.ai/v1"


def client_of(base_url, **options):
    headers = {"X-Team": "blue", "X-Secret": OTHER}
    return AsyncKonko(KEY, base_url, default_headers=headers, **options)


async def use(client):
    """What an application does; the texts of its answers."""
    assert not client.pool.fast_path
    whole = await client.chat.completions.create(**ASK)
    async with client.chat.completions.stream(**ASK) as stream:
        pieces = [text async for text in stream.text()]
    vectors = await client.embeddings.create(model="thenlper/gte-base", input="Hello")
    return whole.choices[0].message.content, pieces, vectors.data[0].embedding


async def test_a_cassette_is_recorded_without_keys_and_played_back(tmp_path):
    cassette = str(tmp_path / "cassette.yaml")
    async with Emulator(api_keys=[KEY]) as emulator:  # which refuses anything but the real key
        url = emulator.base_url
        with vcr.use_cassette(cassette):
            async with client_of(url) as client:
                first = await use(client)
        assert [record.status for record in emulator.requests] == [200] * 3
        assert emulator.requests[0].headers["x-team"] == "blue"
        assert emulator.requests[0].headers["authorization"] != "Bearer <redacted>"
    text = Path(cassette).read_text()
    assert KEY not in text
    assert OTHER not in text
    assert "Bearer <redacted>" in text
    assert "blue" in text
    assert "python/object" not in text
    # The server is gone: all that follows is from the file.
    with vcr.use_cassette(cassette, record_mode="none") as played:
        async with client_of(url) as client:
            assert await use(client) == first
        assert played.all_played


async def test_a_cassette_of_a_session_with_middlewares(tmp_path):
    seen = []

    async def note(request, handler):
        seen.append(request.headers.get("X-Secret"))
        return await handler(request)

    cassette = str(tmp_path / "cassette.yaml")
    async with (
        Emulator(api_keys=[KEY]) as emulator,
        aiohttp.ClientSession(middlewares=[note]) as session,
    ):
        with vcr.use_cassette(cassette):
            async with client_of(emulator.base_url, session=session) as client:
                await client.chat.completions.create(**ASK)
    assert seen == ["<redacted>"]
    assert KEY not in Path(cassette).read_text()


async def test_the_direct_way_is_back_after_the_cassette(tmp_path):
    async with Emulator() as emulator, client_of(emulator.base_url) as client:
        with vcr.use_cassette(str(tmp_path / "cassette.yaml")):
            await client.chat.completions.create(**ASK)
            assert not client.pool.fast_path
        assert client.pool.fast_path
        await client.chat.completions.create(**ASK)
        assert emulator.received == 2


async def test_aioresponses_on_todays_aiohttp(konko_aioresponses):
    answer = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"},
        "finish_reason": "stop",
    }
    chunk = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
    url = f"{BASE}/chat/completions"
    konko_aioresponses.post(url, status=429, body="slow down")
    konko_aioresponses.post(url, payload={"model": MODEL, "choices": [answer]})
    konko_aioresponses.post(url, body=chunk + b"data: [DONE]\n\n", content_type="text/event-stream")
    konko_aioresponses.post(url, status=429, body="slow down")
    async with client_of(BASE, retry=RetryPolicy(max_attempts=2, base_delay=0.001)) as client:
        whole = await client.chat.completions.create(**ASK)
        assert whole.choices[0].message.content == "Hi"
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert (await stream.completion()).choices[0].message.content == "Hi"
        with pytest.raises(RateLimitError):
            await client.with_options(retry=None).chat.completions.create(**ASK)
    ((_, calls),) = konko_aioresponses.requests.items()
    headers = calls[0].kwargs["headers"]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert {type(value) for value in headers.values()} == {str}
