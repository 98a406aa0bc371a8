"""HTTP of our own over real sockets: what goes over the wire, what comes back, what is kept."""

# ruff: noqa: SIM117 - a line for each thing that is opened

import asyncio
import functools
import gc
import gzip
import ssl
import sys
from contextlib import asynccontextmanager, suppress
from types import CodeType, ModuleType

import aiohttp
import msgspec
import pytest
import trustme
from client_kit import (
    ASK,
    KEY,
    MODEL,
    ask,
    in_flight,
    make_client,
    others,
    pooled,
    serving,
    text_of,
)

from konko_async import (
    APIConnectionError,
    APIStatusError,
    AsyncKonko,
    KonkoError,
    RetryPolicy,
    StreamTruncatedError,
    Timeout,
    per_attempt,
)
from konko_async._core.pipeline import Request
from konko_async._engine.engine import NO_OPTIONS
from konko_async._engine.operations import CHAT
from konko_async._http.aiohttp_internals import Body
from konko_async._http.session import _SessionAnswer
from konko_async.testing import Answer, Emulator, FaultServer

FAST = RetryPolicy(max_attempts=3, base_delay=0.001)
STREAM = Answer.stream(["Hel", "lo"])
WHOLE = Answer.whole("Hello")
MODELS = Answer.body(b'{"id":"m","object":"model"}')
EMBEDDED = Answer.body(
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}]}'
)
LARGE = 1024 * 1024  # from here on bodies are aiohttp's business
AFTER = STREAM.wire.index(b"\n\n", STREAM.wire.index(b'"Hel"')) + 4


@pytest.fixture(params=[True, False], ids=["ours", "aiohttps"])
def known(request, monkeypatch):
    """Whether requests and bodies are our own, or wholly aiohttp's."""
    monkeypatch.setenv("KONKO_ASYNC_FAST_PATH", str(int(request.param)))
    return request.param


@pytest.fixture
def ours(monkeypatch):
    """Requests are our own, whatever the environment says."""
    monkeypatch.setenv("KONKO_ASYNC_FAST_PATH", "1")


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)


def session_of(client):
    return client._engine.transport._live_session(asyncio.get_running_loop())


class WireServer:
    """Keeps the bytes of each request, and answers by what is asked for."""

    def __init__(self, *, host="127.0.0.1", base="/v1", keep=True):
        self.requests = []  # (head, body), as they came
        self._host, self._base, self._keep = host, base, keep
        self._tasks = set()
        self.drops = 0  # requests that get no answer but the end of their connection

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, self._host, 0, limit=2**24)
        port = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.base_url = f"http://{host}:{port}{self._base}"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        try:
            while True:
                await self._one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _one(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        fields = head.lower()
        if b"\r\nexpect: 100-continue" in fields:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if b"\r\ntransfer-encoding:" in fields:
            body = await reader.readuntil(b"}]}")  # where ASK ends, in whatever framing
        else:
            length = fields.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length or b"0"))
        if self._keep:
            self.requests.append((head, body))
        del body
        if self.drops:
            self.drops -= 1
            raise ConnectionAbortedError
        writer.write(_answer_to(fields).wire)
        await writer.drain()


def _answer_to(fields):
    line = fields.partition(b"\r\n")[0]
    if b"/models" in line:
        return MODELS
    if b"/embeddings" in line:
        return EMBEDDED
    return STREAM if b"text/event-stream" in fields else WHOLE


# -- what is sent ----------------------------------------------------------------------------------


async def outcome(call):
    try:
        await call
    except KonkoError as error:
        return type(error)
    return None


async def both(server, call, monkeypatch, **options):
    """What our own and aiohttp's requests send for a call, and what came of it."""
    sent = []
    for known in (True, False):
        monkeypatch.setenv("KONKO_ASYNC_FAST_PATH", str(int(known)))
        server.requests.clear()
        async with make_client(server, **options) as client:
            came = await outcome(call(client))
            assert client.pool.fast_path is known
        sent.append((came, list(server.requests)))
    return sent


def parted(head):
    """The request line, and its fields in order."""
    line, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    return line, [(name.lower(), value) for name, value in (f.split(b": ", 1) for f in fields)]


def assert_alike(sent):
    (ours_came, ours), (theirs_came, theirs) = sent
    assert ours_came is theirs_came
    assert len(ours) == len(theirs)
    for (our_head, our_body), (their_head, their_body) in zip(ours, theirs, strict=True):
        line, fields = parted(our_head)
        their_line, their_fields = parted(their_head)
        assert line == their_line
        assert sorted(fields) == sorted(their_fields)
        assert our_body == their_body
        assert fields[0][0] == b"host"
        assert len({name for name, _ in fields}) == len(fields)
        lengths = [value for name, value in fields if name == b"content-length"]
        assert lengths == ([] if line.startswith(b"GET ") else [b"%d" % len(our_body)])


def chat(**more):
    return lambda client: client.chat.completions.create(**{**ASK, **more})


def said(text):
    return [{"role": "user", "content": text}]


CALLS = {
    "whole": chat(),
    "stream": lambda client: ask(client, stream=True),
    "query": chat(extra_query={"a b": "é&=?#/+%", "n": "1", "": "x"}),
    "headers": chat(
        extra_headers={
            "X-One": "1",
            "idempotency-key": "same",
            "user-agent": "mine",
            "Accept": "application/x",
            "X-Latin": "é",
            "X-Empty": "",
            "X-Tab": "a\tb",
        }
    ),
    "stream and headers": lambda client: ask(client, stream=True, extra_headers={"x-one": "1"}),
    "beyond ASCII": chat(messages=said("né\u2028😀\0")),
    "extra body": chat(extra_body={"guided": {"x": [1, None, "é"]}}),
    "embeddings": lambda client: client.embeddings.create(model=MODEL, input=["a", "b"]),
    "a model": lambda client: client.models.retrieve("org/a mödel%2F#?@:x"),
    "just below what is large": chat(messages=said("x" * (LARGE - 200))),
    "large": chat(messages=said("x" * LARGE)),
    "larger": chat(messages=said("é" * LARGE)),
}


@pytest.mark.parametrize("name", CALLS)
async def test_the_bytes_are_those_of_aiohttps_own_request(name, monkeypatch):
    async with WireServer() as server:
        sent = await both(server, CALLS[name], monkeypatch)
    assert_alike(sent)
    assert sent[0][0] is None
    assert len(sent[0][1]) == 1


@pytest.mark.parametrize("size", [LARGE - 1, LARGE, LARGE + 1])
async def test_at_the_size_from_which_bodies_are_aiohttps(size, monkeypatch):
    async with WireServer() as server:
        await both(server, chat(messages=said("")), monkeypatch)
        empty = len(server.requests[0][1])
        sent = await both(server, chat(messages=said("x" * (size - empty))), monkeypatch)
    assert_alike(sent)
    assert len(sent[0][1][0][1]) == size


@pytest.mark.parametrize("base", ["", "/", "/v1", "/a%20b/%C3%A9/~x", "/é", "/a;b=c/@:x", "//v1"])
async def test_below_any_base_url(base, monkeypatch):
    async with WireServer(base=base) as server:
        assert_alike(await both(server, chat(), monkeypatch))
        assert len(server.requests) == 1
        assert_alike(await both(server, chat(extra_query={"q": "é"}), monkeypatch))


@pytest.mark.parametrize("host", ["::1", "localhost", "LOCALHOST", "127.0.0.1"])
async def test_at_any_host(host, monkeypatch):
    server = WireServer(host=host)
    try:
        await server.__aenter__()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    try:
        assert_alike(await both(server, chat(), monkeypatch))
        assert len(server.requests) == 1
    finally:
        await server.__aexit__()


@pytest.mark.parametrize("path", ["/chat/x y", "/chat/é", "/chat\r\nX-Evil: 1\r\n", "/chat/%zz"])
async def test_whatever_middleware_makes_of_the_path(path, monkeypatch):
    async def elsewhere(request, call_next):
        return await call_next(request.replace(path=path))

    async with WireServer() as server:
        assert_alike(await both(server, chat(), monkeypatch, middleware=[per_attempt(elsewhere)]))
        assert all(b"\nX-Evil" not in head for head, _ in server.requests)


async def test_default_headers_and_keys(monkeypatch):
    headers = {"X-Mine": "é", "accept-encoding": "identity", "Cookie": "a=b"}
    async with WireServer() as server:
        options = {"default_headers": headers, "openai_api_key": "sk-second"}
        sent = await both(server, chat(), monkeypatch, **options)
    assert_alike(sent)
    _, fields = parted(sent[0][1][0][0])
    assert (b"authorization", f"Bearer {KEY}".encode()) in fields
    assert (b"x-openai-api-key", b"sk-second") in fields


async def test_one_call_leaves_nothing_in_the_headers_of_the_next(monkeypatch):
    async def several(client):
        await chat(extra_headers={"X-One": "1"})(client)
        await client.models.retrieve("m")
        await ask(client, stream=True)
        await chat()(client)

    async with WireServer() as server:
        sent = await both(server, several, monkeypatch)
    assert_alike(sent)
    assert sum(b"X-One" in head for head, _ in sent[0][1]) == 1
    assert [b"content-length" in head.lower() for head, _ in sent[0][1]] == [
        True,
        False,
        True,
        True,
    ]


SPECIAL = {
    "Host": "other.example",
    "Connection": "close",
    "Content-Encoding": "x-none",
    "Content-Length": "5",
    "Expect": "100-continue",
    "Transfer-Encoding": "chunked",
}


@pytest.mark.parametrize("where", ["default_headers", "extra_headers"])
@pytest.mark.parametrize("name", SPECIAL)
async def test_special_headers_are_left_to_aiohttp(name, where, monkeypatch):
    headers = {name: SPECIAL[name]}
    default = headers if where == "default_headers" else {}
    extra = headers if where == "extra_headers" else None
    async with WireServer() as server:
        sent = await both(server, chat(extra_headers=extra), monkeypatch, default_headers=default)
    (ours_came, ours), (theirs_came, theirs) = sent
    assert ours_came is theirs_came
    assert ours == theirs  # even their order
    if ours:
        assert f"\r\n{name}: {SPECIAL[name]}\r\n".encode() in ours[0][0]


# -- either way: ours, and aiohttp's where its version is not known --------------------------------


async def test_the_classes_are_those_that_were_asked_for(known):
    async with serving(FaultServer(STREAM)) as client:
        answer = await opened(client)
        assert type(answer.content) is (Body if known else aiohttp.StreamReader)
        assert isinstance(answer, _SessionAnswer) is not known
        got = b""
        while data := await answer.read():
            got += data
        answer.release()
        assert b"[DONE]" in got
        assert pooled(client) == (1, 0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_answers_are_read_and_connections_kept(known, stream):
    server = FaultServer(STREAM if stream else WHOLE)
    async with serving(server) as client:
        for _ in range(3):
            assert text_of(await ask(client, stream=stream)) == "Hello"
        assert server.connections.opened == 1
        assert pooled(client) == (1, 0)
        assert in_flight(client) == 0


async def read_request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))


def framings():
    """The same answer in every way that HTTP has of framing it; each must leave nothing behind."""
    body = WHOLE.wire.partition(b"\r\n\r\n")[2]
    zipped = gzip.compress(body)
    kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    chunks = b"%x\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(body), body)
    plain = kind + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    return [
        kind + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(zipped), zipped),
        plain,
        kind + b"Transfer-Encoding: chunked\r\n\r\n" + chunks,
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + plain,
    ]


async def test_one_connection_carries_answers_of_all_framings(known):
    """One parser reads them all: what it keeps of one must not show in the next."""

    async def serve(reader, writer):
        for wire in framings() * 3:
            await read_request(reader)
            for at in range(0, len(wire), 100):  # in the midst of heads, chunks and trailers
                writer.write(wire[at : at + 100])
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with AsyncKonko(KEY, url, retry=None) as client:
        for _ in range(len(framings()) * 3):
            assert text_of(await ask(client, stream=False)) == "Hello"
    server.close()
    await server.wait_closed()


async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(ours):
    """As a server's 408 is, which has waited for long enough and is about to close."""
    stray = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"
    opened = []

    async def serve(reader, writer):
        opened.append(writer)
        with suppress(asyncio.IncompleteReadError):
            while True:
                await read_request(reader)
                writer.write(WHOLE.wire)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with AsyncKonko(KEY, url, retry=None) as client:
        await ask(client, stream=False)
        opened[0].write(stray)
        ((idle, _),) = next(iter(session_of(client).connector._conns.values()))
        await until(lambda: len(idle))  # it has come
        assert text_of(await ask(client, stream=False)) == "Hello"
        assert len(opened) == 2
        assert pooled(client) == (1, 0)
    for writer in opened:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_a_read_asks_for_no_more_than_malloc_keeps_free():
    async with Emulator() as server, make_client(server) as client:
        await client.chat.completions.create(**ASK)
        ((protocol, _),) = next(iter(session_of(client).connector._conns.values()))
        # 128 KiB and more are mapped anew for each read, in a process that has freed no such block.
        assert protocol.transport.max_size < 128 * 1024


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_dropped_connection_is_retried(known, stream, how):
    good = STREAM if stream else WHOLE
    server = FaultServer(Answer.hang_up(how), good.cut(0, how), good.cut(30, how), good)
    async with serving(server, retry=RetryPolicy(max_attempts=4, base_delay=0.001)) as client:
        assert text_of(await ask(client, stream=stream)) == "Hello"
        # And one that died in the pool, without an attempt being counted.
        await server.wait_until_idle()
        server.kill_idle(how)
        assert text_of(await ask(client, stream=stream)) == "Hello"
    async with serving(FaultServer(good.cut(0, how))) as client:
        with pytest.raises(APIConnectionError):
            await ask(client, stream=stream)
        assert in_flight(client) == 0
        assert pooled(client) == (0, 0)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_stream_that_is_cut(known, how):
    server = FaultServer(STREAM.stall(AFTER))
    async with serving(server, retry=FAST) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        reading = asyncio.create_task(stream.completion())
        await asyncio.sleep(0)
        assert server.kill_all(how) == 1
        with pytest.raises(StreamTruncatedError) as caught:
            await reading
        assert text_of(caught.value.partial) == "Hel"
        assert len(server.requests) == 1
        assert pooled(client) == (0, 0)
        del reading


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_one_cancelled_before_the_head_closes_its_connection(known, stream):
    server = FaultServer((STREAM if stream else WHOLE).stall(0))
    async with serving(server) as client:
        call = asyncio.create_task(ask(client, stream=stream))
        await server.wait_for_request()
        assert pooled(client) == (0, 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert pooled(client) == (0, 0)
        assert in_flight(client) == 0
        assert not others()
        await server.wait_until_closed()
        assert server.connections.closed_by_peer == 1


async def test_one_reader_at_a_time(known):
    server = FaultServer(STREAM.stall(AFTER))
    async with serving(server) as client:
        async with client.chat.completions.stream(**ASK) as stream:
            assert await stream.read() is not None
            first = asyncio.create_task(stream.read())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="already being read"):
                await stream.read()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            # After which it can be read on.
            server.release()
            assert text_of(await stream.completion()) == "Hello"


async def test_a_failure_that_is_told_is_read_in_full(known):
    server = FaultServer(Answer.error(503), Answer.error(429), WHOLE)
    async with serving(server) as client:
        for status in (503, 429):
            with pytest.raises(APIStatusError) as caught:
                await ask(client, stream=False)
            assert caught.value.status_code == status
        assert text_of(await ask(client, stream=False)) == "Hello"
        assert server.connections.opened == 1


class Early(WireServer):
    """Refuses a body before it has read it, and reads it then."""

    async def _one(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        refused = length > 1000
        if refused:
            writer.write(Answer.error(413).wire)
            await writer.drain()
        self.requests.append((head, await reader.readexactly(length)))
        if not refused:
            writer.write(WHOLE.wire)


async def test_a_body_that_is_refused_before_it_was_read(known):
    async with Early() as server, make_client(server) as client:
        for _ in range(2):
            with pytest.raises(APIStatusError) as caught:
                await client.chat.completions.create(
                    model=MODEL, messages=said("x" * (LARGE - 500))
                )
            assert caught.value.status_code == 413
            assert text_of(await ask(client, stream=False)) == "Hello"
        sizes = [len(body) > 1000 for _, body in server.requests]
        assert sizes == [True, False, True, False]
        assert len(server._tasks) == 1  # all on one connection


async def test_over_tls(known, monkeypatch):
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    server = FaultServer(STREAM, WHOLE, STREAM, ssl_context=context)
    async with serving(server) as client:
        for stream in (True, False, True):
            assert text_of(await ask(client, stream=stream)) == "Hello"
        assert server.connections.opened == 1


# -- back pressure ---------------------------------------------------------------------------------


class Flood(asyncio.Protocol):
    """Answers with pieces as fast as they are taken."""

    def __init__(self, piece, count):
        self.left, self._piece = count, piece

    def connection_made(self, transport):
        self._transport, self.held = transport, False

    def data_received(self, data):
        if b"\r\n\r\n" in data:
            self._transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self.resume_writing()

    def pause_writing(self):
        self.held = True

    def resume_writing(self):
        self.held = False
        while self.left and not self.held:
            self.left -= 1
            self._transport.write(self._piece)
            if not self.left:
                self._transport.write(b"0\r\n\r\n")


@asynccontextmanager
async def flooding(piece, count):
    """A server that floods the one who asks, its protocol, and a client."""
    made = Flood(piece, count)
    server = await asyncio.get_running_loop().create_server(lambda: made, "127.0.0.1", 0)
    try:
        made.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with make_client(made) as client:
            yield made, client
    finally:
        server.close()


async def opened(client):
    """An answer whose head has come."""
    engine = client._engine
    request = engine._request(
        CHAT, CHAT.path, dict(ASK), model=MODEL, stream=True, options=NO_OPTIONS
    )
    return await engine.transport.open(request)


MANY = {"of 64 KiB": (b"10000\r\n" + bytes(65536) + b"\r\n", 256, 65536)}
MANY["of a byte"] = (b"1\r\nx\r\n" * 1000, 1000, 1000)


@pytest.mark.parametrize("name", MANY)
async def test_who_reads_slowly_slows_the_server(name, known):
    if not known and name == "of a byte" and aiohttp.__version__.startswith("3.12."):
        pytest.skip("that one's own reader is not bounded so")
    piece, count, carried = MANY[name]
    async with flooding(piece, count) as (server, client):
        answer = await opened(client)
        protocol = answer.content._protocol
        seen = 0
        for _ in range(3):
            await until(lambda: protocol._reading_paused)
            assert not protocol.transport.is_reading()
            for _ in range(20):  # nothing more comes in
                held = answer.content._size
                await asyncio.sleep(0)
                assert answer.content._size == held
            kept = sum(map(sys.getsizeof, answer.content._buffer))
            assert kept < 2 * 2**20
            assert server.left
            seen += len(await answer.read())
        while data := await answer.read():
            seen += len(data)
        assert seen == count * carried
        assert server.left == 0
        answer.release()
        assert pooled(client) == (1, 0)


async def test_a_failure_put_in_wakes_who_reads(known):
    server = FaultServer(STREAM.stall(AFTER))
    async with serving(server) as client:
        answer = await opened(client)
        while b'"Hel"' not in await answer.read():
            pass
        reader = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        answer.interrupt(KonkoError("enough"))
        with pytest.raises(KonkoError, match="enough"):
            await reader
        answer.abort()
        await server.wait_until_closed()
        assert server.connections.closed_by_peer == 1


# -- many at once ----------------------------------------------------------------------------------


def _echo(request):
    return request["messages"][-1]["content"]


async def test_two_hundred_calls_at_once_get_their_own_answers(known):
    async def one(client, number):
        text = f"number {number:04}"
        call = {"model": MODEL, "messages": said(text)}
        if number % 2:
            async with client.chat.completions.stream(**call) as stream:
                got = await stream.completion()
        else:
            got = await client.chat.completions.create(**call)
        assert text_of(got) == text

    async with serving(Emulator(answer=_echo), api_key="any") as client:
        for _ in range(2):  # on new connections, and on those in the pool
            await asyncio.gather(*(one(client, number) for number in range(200)))
        assert pooled(client)[1] == 0
        assert in_flight(client) == 0


async def two_connections(client, server):
    """Have two connections in the pool."""
    await asyncio.gather(ask(client, stream=False), ask(client, stream=False))
    await server.wait_until_idle(2)
    assert pooled(client) == (2, 0)
    return session_of(client).connector.outbox


async def test_one_closed_before_its_write_is_sent_again_on_another(ours, caplog):
    server = FaultServer(WHOLE)
    async with serving(server) as client:
        outbox = await two_connections(client, server)
        calls = [asyncio.create_task(ask(client, stream=False)) for _ in range(2)]
        await asyncio.sleep(0)  # both have written in this turn, of which one waits for its end
        ((transport, _),) = outbox._waiting
        transport.abort()
        assert [text_of(await call) for call in calls] == ["Hello", "Hello"]
        assert len(server.requests) == 4
        assert server.connections.opened == 3
    assert not caplog.records


@pytest.mark.parametrize("retry", [None, FAST], ids=["once", "retried"])
async def test_where_no_other_connection_is_tried_it_is_an_attempt_that_failed(
    ours, retry, monkeypatch
):
    monkeypatch.setattr("konko_async._http.session._STALE", 0)
    server = FaultServer(WHOLE)
    async with serving(server, retry=retry) as client:
        outbox = await two_connections(client, server)
        calls = [asyncio.create_task(ask(client, stream=False)) for _ in range(2)]
        await asyncio.sleep(0)
        ((transport, _),) = outbox._waiting
        transport.abort()
        first, second = await asyncio.gather(*calls, return_exceptions=True)
        assert text_of(first) == "Hello"
        if retry is None:
            assert isinstance(second, APIConnectionError)
            assert len(second.attempts) == 1
        else:
            assert text_of(second) == "Hello"
        assert in_flight(client) == 0
        assert pooled(client)[1] == 0
        del second, calls


async def test_one_cancelled_before_its_write_sends_nothing(ours, caplog):
    server = FaultServer(WHOLE)
    async with serving(server) as client:
        outbox = await two_connections(client, server)
        calls = [asyncio.create_task(ask(client, stream=False)) for _ in range(2)]
        await asyncio.sleep(0)
        assert len(outbox._waiting) == 1
        calls[1].cancel()
        assert text_of(await calls[0]) == "Hello"
        with pytest.raises(asyncio.CancelledError):
            await calls[1]
        assert pooled(client) == (1, 0)
        assert text_of(await ask(client, stream=False)) == "Hello"
        # It may have gone out before the cancellation was delivered, but was answered to nobody.
        assert len(server.requests) <= 5
    assert not caplog.records


# -- what is kept ----------------------------------------------------------------------------------

MARK = "mark-5b1f9a"


def _keeps_the_mark(text):
    return len(text) > 5000 and (MARK if isinstance(text, str) else MARK.encode()) in text


def _referents(value):
    if isinstance(value, ModuleType):
        return []  # _asyncio of Python 3.12 gives out dead objects; the names are roots by themselves
    found = gc.get_referents(value)
    if isinstance(value, msgspec.Struct):  # some are unknown to the collector
        found += [getattr(value, name, None) for name in value.__struct_fields__]
    return found


def _referents_of(values):
    """What all of these hold: of most, the collector is asked in one call, as there are 100,000."""
    others = [value for value in values if isinstance(value, _OF_THEIR_OWN)]
    found = gc.get_referents(*(value for value in values if not isinstance(value, _OF_THEIR_OWN)))
    for value in others:
        found += _referents(value)
    return found


def _owner(owners, inner):
    """The name of the type of the first that holds something."""
    return next(
        type(owner).__name__
        for owner in owners
        if any(value is inner for value in _referents(owner))
    )


_OF_THEIR_OWN = (ModuleType, msgspec.Struct)  # see _referents
_TEXTS = (str, bytes, bytearray)
_FIXED = (str, bytes, int, float, CodeType)  # hold what they held when they were made
HOLDERS = frozenset({"aiohttp", "asyncio", "konko_async", "multidict", "yarl"})


def _modules():
    """The names of the modules that see a prompt: conftest.py froze them, so no walk meets them."""
    return [
        vars(module)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in HOLDERS
    ]


def _namespaces():
    """The numbers of what all modules hold: functions have it, and by it everything is reached."""
    return {id(vars(module)) for module in list(sys.modules.values())}


def _new_below(owners, seen):
    """What these hold and was not seen, by its number; most of a million was."""
    inners = _referents_of(owners)
    new = set(map(id, inners)) - seen
    return {id(inner): inner for inner in inners if id(inner) in new} if new else {}


@pytest.fixture(scope="module")
def keeping(request):
    """Tells where long texts with the mark are, and requests that have one."""
    # What modules hold before the tests: each search looks at what that holds anew.
    held, owners = [], _modules()
    beside = _numbers_of_pytest(request.session)
    seen = _namespaces() | beside
    while owners:
        found = _new_below(owners, seen)
        owners = list(found.values())
        seen |= found.keys()
        held += owners
    may_hold = [value for value in held if not isinstance(value, _FIXED)]
    search = functools.partial(_keeping, held, beside | {*map(id, held)}, may_hold)
    gc.collect()
    gc.freeze()  # else each search looks at all these numbers
    return search


def _numbers_of_pytest(session):
    """Where all tests are reached from: of a prompt that is kept there, the package knows nothing."""
    roots = [session, session.config, session._fixturemanager]
    return {id(value) for root in roots for value in (root, vars(root))}


def _keeping(_held, known, may_hold):
    gc.collect()
    young = gc.get_objects()  # before there are sets of 100,000 numbers among them
    found, seen = {}, known | _namespaces()

    def look(owners, *, beyond):
        while owners:
            inners = _new_below(owners, seen)
            below = []
            for key, inner in inners.items():
                if isinstance(inner, _TEXTS):
                    if _keeps_the_mark(inner):
                        found.setdefault(key, f"{type(inner).__name__} in {_owner(owners, inner)}")
                elif beyond or not gc.is_tracked(inner):  # it is nowhere but below others
                    seen.add(key)
                    below.append(inner)
            owners = below

    look(young, beyond=False)
    look(_modules() + may_hold, beyond=True)
    kept = list(found.values())
    for owner in young:  # other tests may have kept some of theirs
        if isinstance(owner, Request) and MARK.encode() in (owner.content or b""):
            kept.append("a Request")
    return kept


def marked():
    """A prompt that nobody else has, which the caller must not keep."""
    return said(MARK + "." * 20_000)


async def test_the_search_finds_what_is_kept(keeping):
    kept = [bytes(20_000) + MARK.encode()]
    assert keeping() == ["bytes in list"]
    kept[0] = memoryview(bytearray(kept[0]))
    assert len(keeping()) == 1
    kept.clear()
    prompt = marked()
    assert len(keeping()) == 1
    del prompt
    assert keeping() == []
    deep = {"a": [{"b": functools.partial(print, MARK + "." * 9000)}]}
    aiohttp.hdrs.konko_test_kept = deep  # as a cache of a module would
    try:
        gc.freeze()
        del deep
        assert len(keeping()) == 1
    finally:
        del aiohttp.hdrs.konko_test_kept
    assert keeping() == []


async def test_a_pooled_connection_keeps_no_prompt(known, keeping):
    async with WireServer(keep=False) as server, make_client(server) as client:
        for _ in range(2):
            await client.chat.completions.create(model=MODEL, messages=marked())
            assert keeping() == []
            stream = await client.chat.completions.create(
                model=MODEL, messages=marked(), stream=True
            )
            assert text_of(await stream.completion()) == "Hello"
            assert keeping() == []
            del stream
        await client.embeddings.create(model=MODEL, input=[marked()[0]["content"]])
        assert keeping() == []
        assert pooled(client) == (1, 0)


async def test_nor_do_many_that_were_written_together(known, keeping):
    async with WireServer(keep=False) as server, make_client(server) as client:
        for _ in range(2):
            await asyncio.gather(
                *(client.chat.completions.create(model=MODEL, messages=marked()) for _ in range(5))
            )
            assert keeping() == []
        assert pooled(client) == (5, 0)


async def test_nor_a_large_one(known, keeping):
    async with WireServer(keep=False) as server, make_client(server) as client:
        await client.chat.completions.create(model=MODEL, messages=said(MARK + "." * 2 * LARGE))
        assert keeping() == []
        assert pooled(client) == (1, 0)


class Quiet(WireServer):
    """Sends the head and the first delta of a stream, and the rest when it may."""

    def __init__(self):
        super().__init__(keep=False)
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def _one(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        self.asked.set()
        writer.write(STREAM.wire[:AFTER])
        gone = asyncio.create_task(reader.read())
        go_on = asyncio.create_task(self.go_on.wait())
        await asyncio.wait((gone, go_on), return_when="FIRST_COMPLETED")
        gone.cancel()
        go_on.cancel()
        writer.write(STREAM.wire[AFTER:])
        await asyncio.gather(gone, go_on, return_exceptions=True)

    def all_gone(self):
        """Whether somebody came, and nobody is there any more."""
        return bool(self._tasks) and all(task.done() for task in self._tasks)


async def test_an_open_stream_keeps_no_prompt(known, keeping):
    # keeping() walks all objects, which takes as long as it takes: no deadline may depend on that.
    patient = {"retry": FAST, "timeout": Timeout(connect=None, first_token=None, idle=None)}
    async with Quiet() as server, make_client(server, **patient) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=marked(), stream=True)
        assert keeping() == []
        assert await stream.read() is not None
        reading = asyncio.create_task(stream.completion())
        await asyncio.sleep(0)
        assert keeping() == []
        server.go_on.set()
        assert text_of(await reading) == "Hello"
        assert pooled(client) == (1, 0)
        del reading


async def test_nor_does_one_that_was_paused_and_resumed(known, keeping):
    """A transport that is resumed takes the context of whoever resumes it."""
    piece = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"x" * 40_000)
    async with flooding(b"%x\r\n%b\r\n" % (len(piece), piece), 200) as (server, client):
        stream = await client.chat.completions.create(model=MODEL, messages=marked(), stream=True)
        (protocol,) = session_of(client).connector._acquired
        await until(lambda: protocol._reading_paused)
        while protocol._reading_paused:
            assert await stream.read() is not None
        assert server.left
        assert keeping() == []
        await stream.close()


@pytest.mark.parametrize("at", ["connecting", "head"])
async def test_nor_is_anything_left_of_a_call_that_was_cancelled(known, at, keeping):
    async with Quiet() as server, make_client(server) as client:
        call = asyncio.create_task(client.chat.completions.create(model=MODEL, messages=marked()))
        await until(lambda: pooled(client) == (0, 1))
        if at == "head":
            await until(server.asked.is_set)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        del call
        await until(server.all_gone)
        assert keeping() == []


async def test_nor_of_one_that_failed(known, keeping):
    async with WireServer(keep=False) as server, make_client(server, retry=FAST) as client:
        await client.chat.completions.create(**ASK)
        server.drops = 4  # of which one is of the pool, and counts for nothing
        with pytest.raises(APIConnectionError):
            await client.chat.completions.create(model=MODEL, messages=marked())
        await asyncio.sleep(0)  # the loop holds what woke us, which failed, until the next turn
        assert keeping() == []
        server.drops = 2
        await client.chat.completions.create(model=MODEL, messages=marked())
        assert keeping() == []
        assert server.drops == 0
        assert pooled(client) == (1, 0)
