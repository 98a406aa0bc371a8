"""pyreqwest (Rust) and msgspec by hand: whole answers only."""

from __future__ import annotations

from pyreqwest.client import ClientBuilder

from benchmarks.rivals.hand import MODEL, decode_completion, encode


class Client:
    def __init__(self, base_url: str) -> None:
        self.url = f"{base_url}/chat/completions"
        headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
        self.client = ClientBuilder().default_headers(headers).error_for_status(True).build()

    async def whole(self, prompt: str) -> str:
        messages = [{"role": "user", "content": prompt}]
        body = encode({"model": MODEL, "messages": messages, "max_tokens": 300, "stream": False})
        response = await self.client.post(self.url).body_bytes(body).build().send()
        return decode_completion(await response.bytes()).choices[0].message.content

    async def close(self) -> None:
        await self.client.close()


def make(base_url: str, _mode: str) -> Client:
    return Client(base_url)
