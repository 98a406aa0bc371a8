"""The fault server does on the wire exactly what its answers say, and leaves nothing behind."""

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
from urllib.parse import urlsplit

import aiohttp
import pytest
import trustme

from konko_async.testing import Answer, FaultServer

REQUEST = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
SHORT = Answer.events(["a", "b"])
GZIPPED = Answer.whole("Hello", gzip=True)


class Peer(asyncio.Protocol):
    """A plain client that keeps what it was sent, read by read, and how it ended."""

    def __init__(self):
        self.reads, self.lost = [], asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.reads.append(data)
        self._news.set()

    def connection_lost(self, exc):
        self.lost.set_result(exc)
        self._news.set()

    @property
    def data(self):
        return b"".join(self.reads)

    async def receive(self, size):
        async with asyncio.timeout(30):
            while len(self.data) < size and not self.lost.done():
                self._news.clear()
                await self._news.wait()
        return self.data


@contextlib.asynccontextmanager
async def connected(server, data=REQUEST):
    address = urlsplit(server.base_url)
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_connection(Peer, address.hostname, address.port)
    try:
        peer.transport.write(data)
        yield peer
    finally:
        peer.transport.abort()
        await peer.lost


async def exchange(server, size=1 << 62):
    """One request by a plain client: what came, and how it ended if it did."""
    async with connected(server) as peer:
        data = await peer.receive(size)
        return data, peer.lost.result() if peer.lost.done() else "open"


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


# The bytes.


@pytest.mark.parametrize(
    "answer",
    [
        Answer.whole("Grüße"),
        Answer.stream(["Hel", "lo"]),
        Answer.stream(["Hel", "lo"], framing="close", newline="\r\n", done=False),
        Answer.stream(["Hel", "lo"], framing="length", newline="\r", finish_reason=None),
        Answer.stream(["Hel", "lo"], gzip=True, usage={"total_tokens": 3}),
        Answer.error(429, headers=[("retry-after", "1"), ("set-cookie", "a"), ("set-cookie", "b")]),
        Answer.whole().status_line(b"HTP/1.1 2OO"),
        Answer.whole().content_length(7),
        Answer.stream().bad_chunk_size(1),
        Answer.stream().heartbeats(0, times=3),
        Answer.endless_event(200_000),
        Answer.gzip_bomb(3 << 20),
        Answer.whole().corrupt(0, 0).corrupt(-1),
        Answer.raw(b"no HTTP at all"),
        Answer.raw(b"HTTP/1.1 204 No Content\r\n\r\n", closes=False),
        Answer.body(status=599),
    ],
)
async def test_exactly_the_wire_is_sent(answer):
    async with FaultServer(answer) as server:
        data, end = await exchange(server, len(answer))
    assert data == answer.wire
    assert len(answer.wire) == len(answer) == answer.size
    assert end == "open" or (answer.closes and end is None)


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("answer", [SHORT, GZIPPED], ids=["stream", "whole"])
async def test_cut_at_every_byte(answer, how):
    async with FaultServer() as server:
        for at in range(len(answer) + 1):
            server.push(answer.cut(at, how=how))
            data, end = await exchange(server)
            assert data == answer.wire[:at]
            assert (end is None) if how == "fin" else isinstance(end, ConnectionResetError)
        assert len(server.requests) == len(answer) + 1
        assert server.connections.closed_by_server == len(answer) + 1


async def test_split_is_read_in_those_pieces():
    size = len(SHORT)
    async with FaultServer(
        SHORT.split([1, 2, 30]), SHORT.split_every(10), SHORT.split([5]).split_every(50), SHORT
    ) as server:
        read = []
        for _ in range(4):
            async with connected(server) as peer:
                assert await peer.receive(size) == SHORT.wire
                read.append([len(each) for each in peer.reads])
    assert read[0][:3] == [1, 2, 30]
    assert read[1] == [10] * (size // 10) + [size % 10]
    assert read[2] == [5, 50, 50, size - 105]
    # By itself, each event is a write of its own.
    assert read[3] == [SHORT.head_size, 14, 14, 5]


async def test_trickle_and_pause_wait_between_the_bytes():
    slow = Answer.body(b"{}").trickle(3, 0.001)
    loop = asyncio.get_running_loop()
    async with FaultServer(slow, Answer.body(b"{}").pause(10, 0.05)) as server:
        start = loop.time()
        assert (await exchange(server, len(slow)))[0] == slow.wire
        assert loop.time() - start >= 0.001 * (len(slow) // 3 - 1)
        start = loop.time()
        await exchange(server, len(slow))
        assert loop.time() - start >= 0.04


async def test_heartbeats_keep_the_framing_whole(http):
    answer = Answer.stream(["a"]).heartbeats(0, at_byte=SHORT.head_size + 1, times=5)
    plain = Answer.stream(["a"], framing="close").heartbeats(0, times=2, comment=": x")
    late = Answer.stream(["a"]).heartbeats(0, at_byte=-1, times=1)
    async with FaultServer(answer, plain, late) as server:
        bodies = [await (await http.get(server.base_url)).text() for _ in range(3)]
    first, *rest = bodies[0].split("\n\n")
    assert '"role"' in first
    assert rest[:5] == [": keep-alive"] * 5
    assert bodies[1].startswith(": x\n\n: x\n\ndata: ")
    assert bodies[2].endswith("data: [DONE]\n\n: keep-alive\n\n")


# Faults as a real client sees them.


async def test_lies_about_lengths(http):
    whole = Answer.whole("Hello")
    async with FaultServer(whole.content_length(+5), default=whole.content_length(-5)) as server:
        response = await http.get(server.base_url)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
        with pytest.raises((aiohttp.ClientError, json.JSONDecodeError)):
            await (await http.get(server.base_url)).json()


async def test_bad_chunk_size_and_garbage_status_line(http):
    # In one piece: aiohttp 3.14 hangs if the bad size comes after the headers have been read.
    bad_chunk = Answer.stream(["a"]).bad_chunk_size().split([10_000])
    async with FaultServer(bad_chunk, Answer.whole().status_line(b"garbage")) as server:
        with pytest.raises(aiohttp.ClientError):
            await (await http.get(server.base_url)).read()
        with pytest.raises(aiohttp.ClientError):
            await http.get(server.base_url)


async def test_truncated_gzip_ends_like_a_whole_answer():
    answer = Answer.whole("Hello", gzip=True).truncate_body(8)
    async with FaultServer(answer) as server:
        data, end = await exchange(server, len(answer))
    head, _, body = data.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert end == "open"
    with pytest.raises(EOFError):
        gzip.decompress(body)


async def test_a_gzip_bomb_is_small_on_the_wire_and_a_whole_gzip_stream():
    bomb = Answer.gzip_bomb(5_000_000, prefix=b"data: ", fill=b"x", framing="length")
    assert gzip.decompress(bomb.wire[bomb.head_size :]) == b"data: " + b"x" * 4_999_994
    assert len(bomb) < 10_000
    assert len(Answer.gzip_bomb(1 << 34)) < 20_000_000


@pytest.mark.parametrize("size", [1 << 30, None])
async def test_an_endless_event_is_made_while_it_is_sent(http, size):
    async with FaultServer(Answer.endless_event(size)) as server:
        async with http.get(server.base_url) as response:
            data = await response.content.readexactly(1 << 20)
            assert data == b"data: " + b"x" * ((1 << 20) - 6)
            response.close()
        await server.wait_until_closed()
        assert server.connections.closed_by_peer == 1


# A connection's life.


async def test_a_stall_is_half_open_until_released():
    async with FaultServer(SHORT.stall(50)) as server:
        async with connected(server) as peer:
            await server.wait_for_stall()
            assert await peer.receive(50) == SHORT.wire[:50]
            assert not peer.lost.done()
            assert server.release() == 1
            assert await peer.receive(len(SHORT)) == SHORT.wire
            assert server.release() == 0
        await server.wait_until_closed()


@pytest.mark.parametrize(
    "answer",
    [
        SHORT.stall(0),
        SHORT.stall(len(SHORT)),
        SHORT.pause(60, 3600),
        SHORT.trickle(50, 3600),
        Answer.stream().heartbeats(0.001),
        Answer.endless_event(None).cut(1 << 40),
    ],
)
@pytest.mark.parametrize("leave", ["peer", "server"])
async def test_either_side_may_leave_at_any_time(answer, leave):
    async with FaultServer(answer) as server:
        async with connected(server) as peer:
            await server.wait_for_request()
            if leave == "peer":
                peer.transport.close()
                await server.wait_until_closed()
                assert server.connections.closed_by_peer == 1
            else:
                await server.close()
        assert server.connections.open == 0
        assert server.connections.opened == 1


async def test_a_peer_that_does_not_read_holds_the_server_back():
    async with FaultServer(Answer.endless_event()) as server, connected(server) as peer:
        await peer.receive(1)
        peer.transport.pause_reading()
        # Leaving the block closes both sides, with the kernel's buffers full.


async def test_keep_alive_and_the_queue(http):
    async with FaultServer(Answer.whole("1"), Answer.whole("2")) as server:
        texts = []
        for index in range(4):
            answer = await (await http.get(server.base_url)).json()
            texts.append(answer["choices"][0]["message"]["content"])
            if index == 2:
                server.push(Answer.whole("pushed"))
        assert texts == ["1", "2", "2", "pushed"]
        assert server.connections.opened == server.connections.open == 1


async def test_default_and_functions(http):
    def by_path(request):
        return Answer.error(404) if request.path.endswith("?no") else Answer.body(b"[]")

    async with FaultServer(Answer.error(503, code="busy"), default=by_path) as server:
        first = await http.get(server.base_url)
        assert (first.status, (await first.json())["error"]["code"]) == (503, "busy")
        assert (await http.get(server.base_url)).status == 200
        assert (await http.get(server.base_url + "?no")).status == 404


async def test_a_failing_function_closes_the_connection_and_is_raised_at_the_end(http):
    def fail(request):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        async with FaultServer(fail) as server:
            with pytest.raises(aiohttp.ClientError):
                await http.post(server.base_url)
    with pytest.raises(ZeroDivisionError):
        async with FaultServer(fail) as server:
            with pytest.raises(aiohttp.ClientError):
                await http.post(server.base_url)
            raise ZeroDivisionError


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_idle_connections_are_killed_and_busy_ones_spared(http, how):
    async with FaultServer(Answer.whole(), Answer.whole().stall(5), Answer.whole()) as server:
        await (await http.get(server.base_url)).read()
        await server.wait_until_idle()
        async with connected(server) as peer:
            await server.wait_for_stall()
            assert server.kill_idle(how) == 1
            assert server.kill_idle(how) == 0
            await server.wait_until_closed(1)
            assert not peer.lost.done()
            # The client finds out, and makes another connection.
            assert (await http.get(server.base_url)).status == 200
            assert server.connections.opened == 3
            assert server.kill_all(how) == 2
            end = await peer.lost
            assert (end is None) if how == "fin" else isinstance(end, ConnectionResetError)


async def test_without_keep_alive_each_answer_is_followed_by_a_fin():
    async with FaultServer(Answer.whole(), keep_alive=False) as server:
        data, end = await exchange(server)
    assert data == Answer.whole().wire
    assert end is None


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_hang_up_before_the_request(how):
    async with FaultServer(Answer.hang_up(how), Answer.whole()) as server:
        async with connected(server, b"") as peer:
            end = await peer.lost
            assert (end is None) if how == "fin" else isinstance(end, ConnectionResetError)
        assert not server.requests
        data, _ = await exchange(server, len(Answer.whole()))
        assert data == Answer.whole().wire


async def test_connection_close_is_honoured():
    async with FaultServer(Answer.whole()) as server:
        closing = REQUEST.replace(b"Host", b"Connection: close\r\nHost")
        async with connected(server, closing) as peer:
            assert await peer.lost is None


async def test_refused_url():
    url = urlsplit(FaultServer.refused_url())
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(url.hostname, url.port)


# The log.


async def test_requests_are_logged_without_credentials(http):
    async def pieces():
        yield b'{"a":'
        yield b" 1}"

    async with FaultServer() as server:
        headers = {"Authorization": "Bearer canary", "X-OpenAI-Api-Key": "canary", "X-Mine": "ä"}
        response = await http.post(server.base_url + "/x?y=1", json={"n": 1}, headers=headers)
        await response.read()
        await http.post(server.base_url, data=pieces(), headers=[("a", "1"), ("a", "2")])
        first, second = await server.wait_for_request(1), await server.wait_for_request(2)
    assert (first.method, first.path, first.json()) == ("POST", "/v1/x?y=1", {"n": 1})
    assert first.headers["authorization"] == first.headers["x-openai-api-key"] == "[redacted]"
    assert "canary" not in repr(server.requests)
    assert second.json() == {"a": 1}
    assert second.headers["a"] == "1, 2"
    assert (first.connection, second.connection) == (1, 1)


async def test_a_request_may_come_byte_by_byte_or_several_at_once():
    async with FaultServer(Answer.body(b"{}")) as server, connected(server, b"") as peer:
        for byte in REQUEST:
            peer.transport.write(bytes([byte]))
            await asyncio.sleep(0)
        size = len(Answer.body(b"{}"))
        await peer.receive(size)
        peer.transport.write(REQUEST * 3)
        assert await peer.receive(4 * size) == Answer.body(b"{}").wire * 4
        assert [request.method for request in server.requests] == ["GET"] * 4


async def test_a_request_is_logged_even_if_its_sender_has_left():
    async with FaultServer() as server:
        async with connected(server) as peer:
            peer.transport.close()
        await server.wait_for_request()
        await server.wait_until_closed()


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nXYZ\r\n",
        b"GET / HTTP/1.1\r\n" + b"x" * 300_000,
    ],
)
async def test_what_is_no_request_is_closed(request_):
    async with FaultServer() as server, connected(server, request_) as peer:
        await peer.lost
        assert not server.requests


async def test_waiting_in_vain_says_what_there_was():
    async with FaultServer(patience=0.01) as server:
        with pytest.raises(TimeoutError, match=r"2 requests; there are 0 requests.*opened=0"):
            await server.wait_for_request(2)
        async with connected(server):
            await server.wait_for_connection()
            with pytest.raises(TimeoutError, match="all connections closed"):
                await server.wait_until_closed()


async def test_start_and_close():
    server = FaultServer()
    with pytest.raises(RuntimeError, match="not been started"):
        _ = server.base_url
    await server.close()
    await server.start()
    with pytest.raises(RuntimeError, match="once"):
        await server.start()
    address = urlsplit(server.base_url)
    # Accepted by the kernel, but not yet by the server when it closes.
    with socket.create_connection((address.hostname, address.port)):
        await server.close()
    await server.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(address.hostname, address.port)


# TLS.


def server_side(name):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return context, trusting


async def test_tls(http):
    context, trusting = server_side("127.0.0.1")
    async with FaultServer(
        Answer.whole(), Answer.whole().cut(50, how="rst"), ssl_context=context
    ) as server:
        assert server.base_url.startswith("https://")
        assert (await http.get(server.base_url, ssl=trusting)).status == 200
        with pytest.raises((aiohttp.ClientError, OSError)):
            await http.post(server.base_url, ssl=trusting)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(server.base_url)
        async with connected(server) as peer:
            # Plain text on a TLS port: the handshake fails.
            await peer.lost
        assert server.connections.opened == 2


async def test_tls_for_another_host(http):
    context, trusting = server_side("other.example")
    async with FaultServer(ssl_context=context) as server:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(server.base_url, ssl=trusting)
