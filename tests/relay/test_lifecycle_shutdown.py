"""What becomes of open streams when real servers get a real SIGTERM."""

import asyncio
import signal
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from command_server import PROGRAM, environment
from ports import free_port
from relay_kit import chunks_of, events_of, text_of

from konko_async.testing import Answer, FaultServer

HERE = Path(__file__).parent
STREAM = Answer.stream(["Hel", "lo"])
HALF = STREAM.stall(STREAM.wire.index(b'"lo"') - 120)
SERVERS = ["aiohttp", "uvicorn"]


async def listening(port, process):
    async with asyncio.timeout(60):
        while True:
            assert process.returncode is None, (await process.stderr.read()).decode()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)  # another process tells nobody that it listens
            else:
                writer.close()
                await writer.wait_closed()
                return


class Served:
    """A server's process, and a browser in front of it."""

    def __init__(self, process, session):
        self.process, self.session = process, session

    def chat(self):
        return self.session.post("/chat")

    async def ended(self):
        """Wait for the process; return its code and what it said."""
        async with asyncio.timeout(60):
            out, err = await self.process.communicate()
        return self.process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def served(kind, upstream, seconds, *, hold="hold"):
    port = free_port()
    async with upstream:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            str(HERE / f"shutdown_{kind}.py"),
            upstream.base_url,
            str(port),
            str(seconds),
            hold,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            await listening(port, process)
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                yield Served(process, session)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


async def half(response):
    """Read the first half of an answer."""
    data = b""
    while b"Hel" not in data:
        data += await response.content.readany()
    return data


def check_end(ended, number=signal.SIGTERM):
    code, out, err = ended
    assert out == "closed\n"  # the application's own end has run
    assert "Traceback" not in err
    assert "ResourceWarning" not in err
    assert code in {0, -number, 128 + number}, err


@pytest.mark.parametrize("kind", SERVERS)
async def test_streams_may_finish_while_new_ones_are_refused(kind):
    upstream = FaultServer(HALF, STREAM)
    async with served(kind, upstream, 10) as server, server.chat() as running:
        data = await half(running)
        server.process.send_signal(signal.SIGTERM)
        refused = await drained_answer(server)
        assert refused.status == 503
        assert refused.headers["Retry-After"] == "3"
        assert (await refused.json())["error"]["type"] == "overloaded"
        async with server.session.get("/readyz") as ready:
            assert await ready.json() == {"draining": True}
        assert len(upstream.requests) == 1
        upstream.release()
        assert text_of(events_of(data + await running.read())) == "Hello"
        check_end(await server.ended())


async def drained_answer(server):
    """Wait until the signal has arrived; return the first refusal."""
    async with asyncio.timeout(30):
        while True:
            async with server.session.get("/readyz") as ready:
                if (await ready.json())["draining"]:
                    break
    return await server.chat()


@pytest.mark.parametrize("kind", SERVERS)
async def test_what_is_left_after_the_time_is_told_and_ended(kind):
    upstream = FaultServer(HALF, STREAM.stall(0))
    async with served(kind, upstream, 0.2) as server, server.chat() as running:
        data = await half(running)
        opening = asyncio.create_task(server.chat())
        await upstream.wait_for_request(2)
        server.process.send_signal(signal.SIGTERM)
        chunks = chunks_of(events_of(data + await running.read()))
        assert chunks[-1]["relay"] == {"reason": "shutdown"}
        async with await opening as answer:  # its first token had not come
            assert answer.status == 503
            assert "Retry-After" in answer.headers
        check_end(await server.ended())
        await upstream.wait_until_closed()


@pytest.mark.parametrize(
    ("kind", "number"), [("aiohttp", signal.SIGTERM), ("uvicorn", signal.SIGINT)]
)
async def test_without_streams_it_ends_at_once(kind, number):
    async with served(kind, FaultServer(), 60) as server:
        server.process.send_signal(number)
        check_end(await server.ended(), number)


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_second_signal_does_not_wait(kind):
    upstream = FaultServer(HALF)
    async with served(kind, upstream, 60) as server, server.chat() as running:
        await half(running)
        server.process.send_signal(signal.SIGTERM)
        await (await drained_answer(server)).read()
        server.process.send_signal(signal.SIGTERM)
        await no_longer_listening(server.session._base_url.port)
        upstream.release()
        check_end(await server.ended())


async def no_longer_listening(port):
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            writer.close()
            await writer.wait_closed()
            await asyncio.sleep(0.02)


async def test_aiohttps_own_way_drains_as_well():
    """Without holding the signal: the server stops to listen, and streams may finish."""
    upstream = FaultServer(HALF)
    async with served("aiohttp", upstream, 10, hold="no") as server, server.chat() as running:
        data = await half(running)
        server.process.send_signal(signal.SIGTERM)
        upstream.release()
        assert text_of(events_of(data + await running.read())) == "Hello"
        check_end(await server.ended())
