"""openai's own client: as it comes (httpx2), or with DefaultAioHttpClient, as its README shows.

One shared client; the pool's limit, 1,000 connections as it comes, is lifted so that nobody queues.
"""

from __future__ import annotations

import openai
from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultAsyncHttpxClient

try:
    from httpx2 import Limits  # openai >= 3
except ImportError:
    from httpx import Limits

MODEL = "codellama/codellama-13b-instruct"
# Not None: aiohttp would then keep to its own limit of 100.
FREE = Limits(max_connections=100_000, max_keepalive_connections=100_000, keepalive_expiry=60)
# Its 5 s to connect are too few where 10,000 connections are begun at once.
PATIENT = openai.Timeout(600, connect=60)


class Client:
    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self.client = client

    async def stream(self, pieces: list[str], prompt: str) -> None:
        append = pieces.append
        async with await self.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=300,
            stream=True,
        ) as stream:
            async for chunk in stream:
                append(chunk.choices[0].delta.content)

    async def first(self, prompt: str) -> str:
        async with await self.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=300,
            stream=True,
        ) as stream:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    return chunk.choices[0].delta.content
        return ""

    async def whole(self, prompt: str) -> str:
        completion = await self.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}], max_tokens=300
        )
        return completion.choices[0].message.content

    async def close(self) -> None:
        await self.client.close()


def make(base_url: str, mode: str) -> Client:
    http = DefaultAioHttpClient if mode == "aiohttp" else DefaultAsyncHttpxClient
    client = AsyncOpenAI(
        api_key="key", base_url=base_url, http_client=http(limits=FREE), timeout=PATIENT
    )
    return Client(client)
