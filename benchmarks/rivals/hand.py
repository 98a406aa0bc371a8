"""What an expert would write by hand for this one endpoint, with aiohttp and msgspec.

No retries, no limits, no deadlines, no errors but the status: the least that reads an answer
rightly, also where an event is spread over several reads.
"""

from __future__ import annotations

import aiohttp
import msgspec
import tenacity

MODEL = "codellama/codellama-13b-instruct"


class Delta(msgspec.Struct):
    content: str | None = None


class ChunkChoice(msgspec.Struct):
    delta: Delta
    finish_reason: str | None = None


class Chunk(msgspec.Struct):
    choices: list[ChunkChoice]


class Message(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    message: Message
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(msgspec.Struct):
    choices: list[Choice]
    usage: Usage | None = None


encode = msgspec.json.Encoder().encode
decode_chunk = msgspec.json.Decoder(Chunk).decode
decode_completion = msgspec.json.Decoder(Completion).decode


class Client:
    def __init__(self, base_url: str) -> None:
        self.url = f"{base_url}/chat/completions"
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Authorization": "Bearer key", "Content-Type": "application/json"},
        )

    def body(self, prompt: str, stream: bool) -> bytes:
        messages = [{"role": "user", "content": prompt}]
        return encode({"model": MODEL, "messages": messages, "max_tokens": 300, "stream": stream})

    async def stream(self, pieces: list[str], prompt: str) -> None:
        append = pieces.append
        async with self.session.post(self.url, data=self.body(prompt, True)) as response:
            response.raise_for_status()
            rest = b""
            async for data in response.content.iter_any():
                events = (rest + data).split(b"\n\n")
                rest = events.pop()
                for event in events:
                    if event == b"data: [DONE]":
                        return
                    chunk = decode_chunk(event[6:])
                    append(chunk.choices[0].delta.content)

    async def first(self, prompt: str) -> str:
        async with self.session.post(self.url, data=self.body(prompt, True)) as response:
            response.raise_for_status()
            rest = b""
            async for data in response.content.iter_any():
                events = (rest + data).split(b"\n\n")
                rest = events.pop()
                for event in events:
                    text = decode_chunk(event[6:]).choices[0].delta.content
                    if text:
                        return text
        return ""

    async def whole(self, prompt: str) -> str:
        async with self.session.post(self.url, data=self.body(prompt, False)) as response:
            response.raise_for_status()
            completion = decode_completion(await response.read())
            return completion.choices[0].message.content

    async def close(self) -> None:
        await self.session.close()


class Persistent(Client):
    """The same with tenacity around the call, as its documentation shows."""

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(aiohttp.ClientResponseError),
        wait=tenacity.wait_fixed(0.001),
        stop=tenacity.stop_after_attempt(3),
    )
    async def whole(self, prompt: str) -> str:
        return await super().whole(prompt)


def make(base_url: str, mode: str) -> Client:
    return Persistent(base_url) if mode == "tenacity" else Client(base_url)
