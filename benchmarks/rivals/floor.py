"""The floor: a bare asyncio protocol that sends a request and counts what comes, unread."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

STAMP = re.compile(rb"[0-9]{38}")
MODEL = "codellama/codellama-13b-instruct"


class Counter(asyncio.Protocol):
    """One connection: counts the events of a stream, or the bytes of a whole answer."""

    def __init__(self, idle: list[Counter]) -> None:
        self.idle = idle
        self.transport: Any = None
        self.done: asyncio.Future[int] | None = None
        self.events = 0
        self.missing = -1
        self.tail = b""
        self.whole = False
        self.pieces: list[Any] | None = None  # told that the first bytes have come
        self.stamps: list[Any] | None = None  # given the times that are the first token

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(error or ConnectionError("cut off"))

    def ask(self, request: bytes, whole: bool) -> asyncio.Future[int]:
        """Send a request; the future holds what was counted when all of its answer has come."""
        self.events, self.missing, self.tail = 0, -1, b""
        self.whole = whole
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        if self.whole:
            self.whole_received(data)
            return
        if self.pieces is not None:
            self.pieces.append(0)
            self.pieces = None
        if self.stamps is not None and (stamp := STAMP.search(data)):
            self.stamps.append(stamp[0].decode())
            self.stamps = None
        self.events += data.count(b"\n\n")
        if self.tail[-1:] == b"\n" and data[:1] == b"\n":  # cut in two
            self.events += 1
        self.tail = data[-7:] if len(data) >= 7 else (self.tail + data)[-7:]
        if self.tail == b"\r\n0\r\n\r\n":
            self.end()

    def whole_received(self, data: bytes) -> None:
        if self.missing < 0:
            head, _, rest = data.partition(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2]
            self.events = self.missing = int(length.partition(b"\r\n")[0])
            data = rest
        self.missing -= len(data)
        if self.missing == 0:
            self.end()

    def end(self) -> None:
        self.idle.append(self)
        self.done.set_result(self.events)


class Client:
    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        self.host, self.port = parts.hostname, parts.port
        self.path = f"{parts.path}/chat/completions"
        self.idle: list[Counter] = []

    def request(self, prompt: str) -> bytes:
        messages = [{"role": "user", "content": prompt}]
        body = msgspec.json.encode({"model": MODEL, "messages": messages, "max_tokens": 300})
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def counter(self) -> Counter:
        if self.idle:
            return self.idle.pop()
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: Counter(self.idle), self.host, self.port))[1]

    async def stream(self, pieces: list[int], prompt: str) -> None:
        counter = await self.counter()
        counter.pieces = pieces
        pieces.append(await counter.ask(self.request(prompt), whole=False))

    async def stamped(self, stamps: list[str], prompt: str) -> None:
        """Read a stream whose first token is two times; look for these only."""
        counter = await self.counter()
        counter.stamps = stamps
        await counter.ask(self.request(prompt), whole=False)

    async def whole(self, prompt: str) -> int:
        counter = await self.counter()
        return await counter.ask(self.request(prompt), whole=True)

    async def close(self) -> None:
        for counter in self.idle:
            counter.transport.close()


def make(base_url: str, _mode: str) -> Client:
    return Client(base_url)


def wrong(texts: list[list[int]], expect: dict) -> str | None:
    """Tell what is wrong: the number of events of a stream, or the bytes of an answer."""
    right = expect["bytes"] if expect["counts"] == [1] else expect["chunks"] + 1
    return next((f"{sum(t)} instead of {right}" for t in texts if sum(t) != right), None)
