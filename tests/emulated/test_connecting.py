"""Making connections: so many at once to one host, however many calls begin together."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

from client_kit import KEY, MODEL, PATIENT, ask, make_client

from konko_async import APITimeoutError, Timeout, per_attempt
from konko_async.middleware import Fallback
from konko_async.testing import Emulator


@asynccontextmanager
async def silent():
    """A server that accepts, and never answers the first word of TLS."""
    reached, gone = asyncio.Queue(), asyncio.Queue()

    async def handle(reader, writer):
        reached.put_nowait(None)
        while await reader.read(4096):
            pass
        writer.close()
        gone.put_nowait(None)

    server = await asyncio.start_server(handle, "127.0.0.1")
    base_url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield SimpleNamespace(base_url=base_url, reached=reached, gone=gone)
    finally:
        server.close()
        await server.wait_closed()


async def test_no_more_than_so_many_are_made_at_once(monkeypatch):
    monkeypatch.setattr("konko_async._http.connector._AT_ONCE", 2)
    begun = asyncio.Queue()

    async def note(request, call_next):
        begun.put_nowait(None)
        if "x-elsewhere" in request.headers:
            request = request.replace(
                target=Fallback(model=MODEL, base_url=emulator.base_url, api_key=KEY)
            )
        return await call_next(request)

    async with silent() as server, Emulator() as emulator:
        options = {"timeout": Timeout(connect=None), "middleware": [per_attempt(note)]}
        async with make_client(server, **options) as client:
            calls = [asyncio.create_task(ask(client, stream=False)) for _ in range(3)]
            for _ in calls:
                await begun.get()
            for _ in range(2):
                await server.reached.get()
            # Who waits for one host is in nobody's way at another.
            await ask(client, stream=False, extra_headers={"x-elsewhere": "1"}, timeout=PATIENT)
            assert server.reached.empty()
            calls[0].cancel()
            await server.reached.get()
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        for _ in range(3):
            await server.gone.get()


async def test_the_wait_for_a_turn_counts_as_connecting(monkeypatch):
    monkeypatch.setattr("konko_async._http.connector._AT_ONCE", 1)
    async with silent() as server:
        async with make_client(server, timeout=Timeout(connect=0.05)) as client:
            calls = [ask(client, stream=False) for _ in range(3)]
            errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [APITimeoutError] * 3
        assert {error.phase for error in errors} == {"connect"}
        while not server.reached.empty():
            await server.reached.get()
            await server.gone.get()
