"""litellm: acompletion(), which keeps one client per server; its pool's limits are lifted."""

from __future__ import annotations

import os

os.environ |= {
    "AIOHTTP_CONNECTOR_LIMIT": "0",
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "0",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the network on import
}
import litellm

MODEL = "openai/codellama/codellama-13b-instruct"


class Client:
    def __init__(self, base_url: str) -> None:
        self.common = {"model": MODEL, "api_base": base_url, "api_key": "key", "max_tokens": 300}

    async def stream(self, pieces: list[str], prompt: str) -> None:
        append = pieces.append
        messages = [{"role": "user", "content": prompt}]
        async for chunk in await litellm.acompletion(messages=messages, stream=True, **self.common):
            append(chunk.choices[0].delta.content)

    async def whole(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        completion = await litellm.acompletion(messages=messages, **self.common)
        return completion.choices[0].message.content

    async def close(self) -> None:
        """Leave litellm's own cache of clients alone: a closed one would be used again."""


def make(base_url: str, _mode: str) -> Client:
    return Client(base_url)
