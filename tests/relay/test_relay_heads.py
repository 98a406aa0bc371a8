"""Connections whose request never gets whole: cut with 408, whatever they drip."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from relay_kit import read_until

from konko_async.errors import ConfigurationError
from konko_async.relay.aiohttp_web import listening

HALF = b"POST / HTTP/1.1\r\nHost: localhost\r\nX-A: "
WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SOON = 0.2


@asynccontextmanager
async def served(handler, seconds=SOON):
    app = web.Application()
    app.router.add_route("*", "/", handler)
    async with listening(app, head_timeout=seconds) as port, asyncio.timeout(60):
        yield port


async def fine(_):
    return web.Response(text="fine")


async def test_half_heads_are_cut_however_slowly_they_come():
    async with served(fine) as port:
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        answers = await asyncio.gather(*(dripped(*connection) for connection in connections))
        for answer in answers:
            assert answer.startswith(b"HTTP/1.1 408 ")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert f"Content-Length: {len(body)}".encode() in head


async def dripped(reader, writer):
    """Send a head byte by byte until something is answered; returns that."""
    answer = asyncio.create_task(reader.readuntil(b"}}"))
    for byte in HALF + b"a" * 10_000:
        writer.write(bytes([byte]))
        done, _ = await asyncio.wait([answer], timeout=0.01)
        if done:
            break
    writer.close()
    return await answer


async def test_a_crowd_of_half_heads_is_cut_without_a_word():
    async with served(fine) as port:
        connections = []
        for _ in range(120):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HALF)
            connections.append((reader, writer))
        answers = await asyncio.gather(*(reader.read() for reader, _ in connections))
        assert answers.count(b"") > 100
        for _, writer in connections:
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE)
        await read_until(reader, b"fine")
        writer.close()


async def test_a_connection_that_says_nothing_is_closed_without_an_answer():
    async with served(fine) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()


async def test_the_next_request_of_a_connection_has_its_own_time():
    async with served(fine) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(WHOLE)
            await read_until(reader, b"fine")
        writer.write(HALF)
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_an_answer_may_take_its_time():
    release = asyncio.Event()

    async def slow(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begun")
        await release.wait()
        await response.write(b"ended")
        return response

    async with served(slow, 0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE)
        await read_until(reader, b"begun")
        silent, other = await asyncio.open_connection("127.0.0.1", port)
        assert await silent.read() == b""  # the time of a head is over
        other.close()
        release.set()
        await read_until(reader, b"ended")
        writer.close()


async def test_what_is_no_request_is_a_400_and_a_wrong_path_a_404():
    async with served(fine) as port:
        for sent, status in (
            (b"no request\r\n\r\n", b"400"),
            (WHOLE.replace(b"/ ", b"/x "), b"404"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert (await reader.readline()).split()[1] == status
            writer.close()


async def test_options_are_checked():
    for wrong in (0, -1):
        with pytest.raises(ConfigurationError):
            async with listening(web.Application(), head_timeout=wrong):
                pass
