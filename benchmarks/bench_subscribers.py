"""What a browser that only waits costs the relay: memory per idle subscriber of a resumable stream.

    python -m benchmarks.bench_subscribers [N]

One stream that has begun and is silent, and N readers of it over real sockets (default 9,000; each
takes a file descriptor in two processes). Also: memory kept by calls with ids of 1 MB that fail.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from pathlib import Path

from aiohttp import web

from konko_async import AsyncKonko
from konko_async.relay import MemoryStore, RelayOptions, RelayService
from konko_async.relay.aiohttp_web import add_routes, listening
from konko_async.testing import Answer, FaultServer

MODEL = "m"
MIB = 2**20
FAILING = 100
ID = 1_000_000  # characters


def resident(process: int | str = "self") -> float:
    """Return a process's resident memory in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096 / MIB


async def serve() -> None:
    """Be the relay: prints its port, then lives until its input ends."""
    answer = Answer.stream(["Hello", "never"])
    at = answer.wire.index(b'"never"') - 120
    many = {"max_readers": 10**6, "max_readers_per_identity": 10**6}
    options = RelayOptions(models=[MODEL], resumable=True, linger=3600, **many)
    async with (
        FaultServer(answer.stall(at), default=Answer.error(500)) as server,
        AsyncKonko("k", server.base_url, retry=None, circuit_breaker=None) as client,
    ):
        app = web.Application()
        store = MemoryStore()
        add_routes(app, RelayService(client, options, auth="open", host="127.0.0.1", store=store))
        async with listening(app) as port:
            print(port, flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def request(port: int, method: str, path: str, body: object = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {len(data)}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + data


async def measure(count: int) -> None:
    """Measure a relay in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_subscribers", "serve"]
    relay = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert relay.stdout is not None
    port = int(await relay.stdout.readline())

    async def opened(sent: bytes) -> tuple[str, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.read(100)  # something of the answer
        return head, writer

    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    head, first = await opened(request(port, "POST", "/v1/chat/completions", body))
    lines = [line.split(": ") for line in head.split("\r\n")]
    (stream,) = (line[1] for line in lines if line[0].lower() == "x-stream-id")
    writers = [first]
    before = resident(relay.pid)
    for start in range(0, count, 100):
        wave = [opened(request(port, "GET", f"/v1/streams/{stream}")) for _ in range(100)]
        writers += [writer for _, writer in await asyncio.gather(*wave)]
        if not start % 1000:
            await asyncio.sleep(0)
    await asyncio.sleep(2)  # until nothing is on its way any more
    grown = resident(relay.pid) - before
    print(f"{count} idle subscribers: {grown:.0f} MiB, {grown * 1024 / count:.1f} KiB each")
    before = resident(relay.pid)
    for number in range(FAILING):
        name = f"{number}{'x' * ID}"
        parts = [{"type": "text", "text": "x"}]
        asked = {"id": name, "messages": [{"id": "m", "role": "user", "parts": parts}]}
        _, writer = await opened(request(port, "POST", "/api/chat", asked))
        writer.close()
    print(f"{FAILING} failing calls with ids of 1 MB: {resident(relay.pid) - before:.1f} MiB")
    for writer in writers:
        writer.transport.abort()
    assert relay.stdin is not None
    relay.stdin.close()
    await relay.wait()
    gc.collect()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        asyncio.run(measure(int(sys.argv[1]) if sys.argv[1:] else 9_000))
