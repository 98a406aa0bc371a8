"""What the tests of the relay share: a relay between an upstream server and browsers."""

import asyncio
import json
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from konko_async import AsyncKonko, Timeout
from konko_async.relay import Delivery, RelayOptions, RelayService
from konko_async.relay.aiohttp_web import add_routes
from konko_async.sse import SSEDecoder

MODEL = "codellama/codellama-13b-instruct"
ASK = {"messages": [{"role": "user", "content": "Say hello."}], "stream": True}
KEY = "sk-canary-0123456789"
PATIENT = Timeout(connect=60, first_token=60, idle=60)
QUICK = Delivery(look=0.05)
CHAT = "/v1/chat/completions"
RESUMABLE = {"X-Resumable": "1"}


class Relay:
    """A relay that runs, seen from a browser."""

    def __init__(self, service, session, port, client):
        self.service, self.session, self.port, self.client = service, session, port, client

    def ask(self, body=None, headers=None, path=CHAT):
        return self.session.post(path, json={**ASK, **(body or {})}, headers=headers)

    async def events(self, body=None, headers=None, path=CHAT):
        """Ask, and return (status, headers, events); no events where it is refused."""
        async with self.ask(body, headers, path) as response:
            data = await response.read()
            events = events_of(data) if response.status == 200 else []
            return response.status, response.headers, events

    async def raw(self, body=None, headers=None):
        """Ask over a bare socket; returns reader and writer before anything is read."""
        data = json.dumps({**ASK, **(body or {})}).encode()
        lines = [
            f"POST {CHAT} HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Content-Length: {len(data)}",
        ]
        lines += [
            "Content-Type: application/json",
            *(f"{n}: {v}" for n, v in (headers or {}).items()),
        ]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        await writer.drain()
        return reader, writer


@asynccontextmanager
async def relaying(upstream, *, service=None, client=None, **options):
    """Start an upstream server, a relay before it and a browser's session."""
    arguments = {"auth": "open", "host": "127.0.0.1", **(service or {})}
    many = {"max_calls_per_identity": 100, "max_readers_per_identity": 100}
    options = {"models": [MODEL], "delivery": QUICK, **many, **options}
    defaults = {"api_key": KEY, "retry": None, "circuit_breaker": None, "timeout": PATIENT}
    async with (
        upstream,
        AsyncKonko(base_url=upstream.base_url, **{**defaults, **(client or {})}) as konko,
    ):
        served = RelayService(konko, RelayOptions(**options), **arguments)
        app = web.Application()
        add_routes(app, served)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                yield Relay(served, session, port, konko)
        finally:
            await runner.cleanup()


def events_of(data):
    """The events of a whole body; fails if it is cut."""
    decoder = SSEDecoder()
    events = decoder.feed(data)
    assert data.endswith(b"\n\n"), data[-100:]
    assert decoder.flush() == []
    return events


def chunks_of(events):
    """The JSON of events before [DONE], which must be the last."""
    assert events[-1].data == "[DONE]", events[-1:]
    return [json.loads(event.data) for event in events[:-1]]


def text_of(events):
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks_of(events)
        for choice in chunk.get("choices", ())
    )


async def read_until(reader, mark):
    """Read from a bare socket until something has come; returns all that came."""
    data = b""
    while mark not in data:
        piece = await reader.read(65536)
        assert piece, f"the connection ended before {mark!r}: {data[-200:]!r}"
        data += piece
    return data
