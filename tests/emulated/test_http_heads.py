"""Heads of answers as proxies make them: large ones, contradictions, and what is said of them."""

import os
import socket

import aiohttp
import pytest
from client_kit import ASK, KEY, ask, make_client, serving, text_of

from konko_async import (
    APIConnectionError,
    APIError,
    AsyncKonko,
    ConfigurationError,
    KeepAlive,
    NotFoundError,
    ResponseDecodeError,
    RetryPolicy,
)
from konko_async.testing import Answer, Emulator, FaultServer

FAST = RetryPolicy(max_attempts=3, base_delay=0.001)
STREAM = Answer.stream(["Hel", "lo"])
WHOLE = Answer.whole("Hello")
OK = b"HTTP/1.1 200 OK\r\n"
SINCE_3_14 = tuple(map(int, aiohttp.__version__.split(".")[:2])) >= (3, 14)


@pytest.fixture(params=["1", "0"], ids=["direct", "aiohttps"])
def either_way(request, monkeypatch):
    monkeypatch.setenv("KONKO_ASYNC_FAST_PATH", request.param)


LARGE = {
    "a field of nearly 64 KiB": {"X-Policy": "p" * (64 * 1024 - 100)},
    "several long ones": {f"X-Policy-{number}": "p" * 30_000 for number in range(5)},
    "490 fields": {f"X-Upstream-{number}": "y" for number in range(490)},
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", LARGE)
async def test_large_heads_are_taken(name, stream, either_way):
    make = Answer.stream if stream else Answer.whole
    async with serving(FaultServer(make(headers=LARGE[name]))) as client:
        assert text_of(await ask(client, stream=stream)) == "Hello"


HOPELESS = {
    "too long a field": (OK + b"X: " + b"a" * 70_000 + b"\r\n\r\n", "line longer than 65536"),
    "length and chunks": (
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "both Content-Length and Transfer-Encoding",
    ),
    "two lengths": (
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "several Content-Length headers",
    ),
    "a coding that needs more": (
        OK + b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\nhello",
        "compressed in a way that was not asked for",
    ),
    "an unknown coding": (
        OK + b"Content-Encoding: x-ours\r\nContent-Length: 5\r\n\r\nhello",
        "encoded as 'x-ours', which was not asked for",
    ),
}
if SINCE_3_14:  # before, a status line is measured piece by piece, as its bytes were read
    HOPELESS["too long a status line"] = (
        b"HTTP/1.1 200 " + b"a" * 70_000 + b"\r\n\r\n",
        "longer than 65536",
    )
    HOPELESS["too many fields"] = (OK + b"X: y\r\n" * 600 + b"\r\n", "more than 500 headers")


@pytest.mark.parametrize("name", HOPELESS)
async def test_what_no_repetition_mends_is_explained_and_not_repeated(name, either_way):
    wire, words = HOPELESS[name]
    async with serving(FaultServer(Answer.raw(wire)), retry=FAST) as client:
        with pytest.raises(APIError, match=words) as caught:
            await ask(client, stream=False)
        assert len(caught.value.attempts) == 1
        assert not caught.value.retryable


PASSING = {
    "no HTTP": (b"SSH-2.0-OpenSSH_9\r\n\r\n", "base_url begin with https"),
    "HTTP/2": (b"HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 answer"),
    "no number": (OK + b"Content-Length: abc\r\n\r\nhello", "is no number"),
    "no chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "no valid size"),
}
if SINCE_3_14:  # before, such headers are let through
    PASSING["a control character"] = (OK + b"X: a\0b\r\n\r\n", "header of its answer is malformed")


@pytest.mark.parametrize("name", PASSING)
async def test_what_may_pass_is_explained_and_repeated(name, either_way):
    wire, words = PASSING[name]
    server = FaultServer(Answer.raw(wire))
    async with serving(server, retry=FAST) as client:
        with pytest.raises(APIConnectionError, match=words) as caught:
            await ask(client, stream=False)
        assert len(caught.value.attempts) == 3
        assert server.base_url.split("/")[2] in caught.value.message  # host and port


@pytest.mark.parametrize("value", ["a\r\nX-More: b", "a\nb", "a\0b"])
async def test_a_header_of_a_middleware_cannot_bring_in_another(value):
    async def noting(request, call_next):
        return await call_next(request.replace(headers={"X-Note": value}))

    server = FaultServer(Answer.whole("Hello"))
    async with serving(server, middleware=[noting]) as client:
        with pytest.raises(ConfigurationError, match="line break or NUL"):
            await ask(client, stream=False)
        assert not server.requests


# -- where there is no API ---------------------------------------------------------------------------


async def test_a_dead_port_is_named_with_what_to_check():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with AsyncKonko(KEY, f"http://127.0.0.1:{port}/v1", retry=None) as client:
        with pytest.raises(APIConnectionError) as caught:
            await ask(client, stream=False)
    assert f"cannot connect to 127.0.0.1:{port}" in caught.value.message
    assert os.strerror(111 if os.name == "posix" else 10061) in caught.value.message
    assert "is a server running there, and is base_url right?" in caught.value.message


NO_API = {
    "a web server's page": Answer.body(b"404: Not Found", status=404, content_type="text/plain"),
    "a framework's": Answer.body(b'{"detail":"Not Found"}', status=404),
    "a method that is not allowed": Answer.body(b"<h1>405</h1>", status=405),
    "nothing": Answer.body(b"", status=404),
}


@pytest.mark.parametrize("name", NO_API)
async def test_a_base_url_of_no_api_is_doubted(name):
    server = FaultServer(NO_API[name])
    async with serving(server) as client:
        with pytest.raises(APIError) as caught:
            await ask(client, stream=False)
    assert f"Is {server.base_url} the address (base_url) of an" in caught.value.message
    assert "/v1" in caught.value.message
    assert str(caught.value) == caught.value.message


async def test_a_web_page_for_an_answer_is_doubted_too():
    server = FaultServer(Answer.body(b"<!doctype html><p>Welcome", content_type="text/html"))
    async with serving(server) as client:
        for stream in (False, True):
            with pytest.raises(ResponseDecodeError, match=r"is a web page\. Is http"):
                await ask(client, stream=stream)


async def test_a_404_of_an_api_is_left_as_it_is():
    async with Emulator() as server, make_client(server, api_key="any") as client:
        with pytest.raises(NotFoundError) as caught:
            await client.chat.completions.create(**{**ASK, "model": "no/such"})
    assert "base_url" not in caught.value.message


# -- silent connections ------------------------------------------------------------------------------

OPTIONS = {
    "default": ({}, (1, 60, 60, 5)),
    "of one's own": ({"keepalive": KeepAlive(idle=30, interval=10, count=3)}, (1, 30, 10, 3)),
    "seconds": ({"keepalive": 45}, (1, 45, 60, 5)),
    "three numbers": ({"keepalive": (20, 5, 4)}, (1, 20, 5, 4)),
    "none given": ({"keepalive": None}, (1, 60, 60, 5)),
    "on": ({"keepalive": True}, (1, 60, 60, 5)),
    "off": ({"keepalive": False}, (0, None, None, None)),
}


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="this platform has no such option")
@pytest.mark.parametrize("name", OPTIONS)
async def test_silent_connections_are_probed(name, either_way):
    given, expected = OPTIONS[name]
    async with serving(FaultServer(STREAM), **given) as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        (protocol,) = client._engine.transport._session.connector._acquired
        made = protocol.transport.get_extra_info("socket")
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        options += [(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
        found = [made.getsockopt(*option) for option in options]
        await stream.close()
    assert all(f == e or e is None for f, e in zip(found, expected, strict=True)), found


WRONG = [0, -1, 40_000, "60", (1, 2), (1, 2, 3, 4), 1.5, {"idle": 60}, (60, 60, 128)]


@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_other_values_are_refused(value):
    with pytest.raises(ConfigurationError, match=r"keepalive|KeepAlive"):
        AsyncKonko(KEY, keepalive=value)
