"""Tries what :mod:`~konko_async._http.aiohttp_internals` rests on, once per process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Any, Final

import aiohttp
from aiohttp import StreamReader, client_reqrep
from aiohttp.connector import Connection

from konko_async._http import aiohttp_internals
from konko_async._http.aiohttp_internals import (
    Body,
    ClientProtocol,
    ResponseHandler,
    parameters_of,
)

__all__ = ["Known", "probe"]

_log = logging.getLogger("konko_async.http")

_OK: Final = 200


class Known:
    """What of the installed aiohttp was recognised.

    Attributes:
        connector: whether new connections can be bounded and timed by :class:`HookedConnector`.
        channel: whether requests can be sent, and answers read, over connections of our own.
        missing: what was not recognised, in words; empty if all was.
    """

    __slots__ = ("channel", "connector", "missing")

    def __init__(self, connector: str | None, channel: str | None) -> None:
        self.connector = connector is None
        self.channel = connector is None and channel is None
        self.missing = "; ".join(filter(None, (connector, channel)))


# The names that each method which is overridden, or left out, refers to in the versions that this
# was written for, 3.12.15 to 3.14.5. One that refers to another has learned to do something that
# ours does not do.
_OVERRIDDEN: Final[dict[str, str]] = {
    "TCPConnector._get": (
        "BaseException Connection _acquired _acquired_per_host _cleanup_closed_disabled "
        "_cleanup_closed_transports _conns _keepalive_timeout _limit_per_host _loop "
        "_release_acquired add append close get is_connected is_ssl monotonic popleft "
        "send_connection_reuseconn transport"
    ),
    "ResponseHandler.data_received": (
        "BaseException EMPTY_BODY_STATUS_CODES EMPTY_PAYLOAD Exception HttpProcessingError "
        "_buffer_paused _data_received_cb _drop_timeout _parser _pause_reading_for_buffer _payload "
        "_payload_parser _payload_parser_failed _read_bufsize _reschedule_timeout _should_close "
        "_skip_payload _tail _upgraded close code data_received feed_data headers isinstance len "
        "message on_eof set_exception should_close transport"
    ),
    "ResponseHandler.set_exception": "_drop_timeout _should_close set_exception super",
    "ResponseHandler.close": "_drop_timeout _exception _payload close transport",
    "ResponseHandler.abort": "_drop_timeout _exception _payload abort transport",
    "StreamReader.feed_data": (
        "_buffer _eof _high_water _protocol _reading_paused _size _waiter append len pause_reading "
        "set_result total_bytes"
    ),
    "StreamReader.read_nowait": "RuntimeError _exception _read_nowait _waiter done",
    "StreamReader.readany": "_buffer _eof _exception _read_nowait _wait",
    "StreamReader.begin_http_chunk_receiving": (
        "RuntimeError _http_chunk_splits collections deque total_bytes"
    ),
    "StreamReader.end_http_chunk_receiving": (
        "RuntimeError _high_water_chunks _http_chunk_splits _protocol _reading_paused _waiter "
        "append len pause_reading set_result total_bytes"
    ),
}
_SIGNATURES: Final = {
    "_create_connection": ["self", "req", "traces", "timeout"],
    "connect": ["self", "req", "traces", "timeout"],
    "_release": ["self", "key", "protocol", "should_close"],
}
_CONNECTION: Final = ["connector", "key", "protocol", "loop"]
_KEY_FIELDS: Final = (
    "host", "port", "is_ssl", "ssl", "proxy", "proxy_auth", "proxy_headers_hash",
)  # fmt: skip


@functools.cache
def probe() -> Known:
    """Try what this module rests on, once per process; what is not recognised is logged, once."""
    known = Known(_reason(_try_connector), _reason(_try_channel))
    if known.missing:
        _log.warning(
            "aiohttp %s is not one that konko_async knows the insides of (%s): requests go through "
            "its ClientSession, which is right but takes more CPU. KONKO_ASYNC_FAST_PATH=0 chooses "
            "that without this warning",
            aiohttp.__version__,
            known.missing,
        )
    return known


def _reason(check: Callable[[], None]) -> str | None:
    """Return why a check failed, whatever it raised: no change of aiohttp's may break a client."""
    try:
        check()
    except Exception as error:  # noqa: BLE001 - as the docstring says
        return f"{type(error).__name__}: {error}"[:300]
    return None


def _require(fact: object, what: str) -> None:
    if not fact:
        raise LookupError(what)


def _try_connector() -> None:
    for name, expected in _SIGNATURES.items():
        found = parameters_of(getattr(aiohttp.TCPConnector, name, None))
        _require(found == expected, f"TCPConnector.{name}({', '.join(found)})")
    for name in ("_conns", "_acquired", "_factory", "_closed", "_force_close"):
        source = (aiohttp.BaseConnector.__init__.__code__, aiohttp.TCPConnector.__init__.__code__)
        _require(any(name in code.co_names for code in source), f"no TCPConnector.{name}")


def _try_channel() -> None:
    owners: dict[str, Any] = {
        "ResponseHandler": ResponseHandler,
        "StreamReader": StreamReader,
        "TCPConnector": aiohttp.TCPConnector,
    }
    for path, expected in _OVERRIDDEN.items():
        owner, _, method = path.partition(".")
        kind = owners[owner]
        unknown = set(getattr(kind, method).__code__.co_names) - set(expected.split())
        _require(not unknown, f"{path} refers to {', '.join(sorted(unknown))}")
    fields = client_reqrep.ConnectionKey._fields[: len(_KEY_FIELDS)]
    _require(fields == _KEY_FIELDS, f"ConnectionKey({', '.join(fields)})")
    _require(parameters_of(Connection) == _CONNECTION, "Connection has other parameters")
    _require(
        len(aiohttp_internals.READ_PARAMS) >= len(("all", "but", "max_headers", "of", "6")),
        "no size limits",
    )
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        _try_answer(loop)


class _NoTransport(asyncio.Transport):
    """What a protocol is connected to while it is tried."""

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


def _try_answer(loop: asyncio.AbstractEventLoop) -> None:
    """Read an answer in pieces off a transport that is none: heads, chunks, pause, end, reuse."""
    protocol = ClientProtocol(loop)
    protocol.connection_made(_NoTransport())
    expected = protocol.expect()
    protocol.data_received(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    protocol.data_received(b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    head, content = _result_of(expected)
    _require(head.code == _OK, f"a head of {head.code}")
    _require(head.headers.get("transfer-encoding") == "chunked", "headers of a head")
    _require(protocol.should_close, "an open body keeps its connection out of the pool")
    ended: list[bool] = []
    content.on_eof(lambda: ended.append(True))
    Body.take_over(content)
    _require(type(content) is Body, "StreamReader cannot be taken over")
    protocol.data_received(b"3\r\nc\r\n\r\n1\r\n")
    _require(_result_of(content.readany()) == b"abc\r\n", "pieces of a body")
    protocol.data_received(b"d\r\n0\r\n\r\n")
    _require(content.is_eof() and ended == [True], "the end of a body")
    _require(content.read_nowait() == b"d" and content.at_eof(), "the last piece of a body")
    _require(content.total_bytes == len(b"abc\r\nd"), "the length of a body")
    _require(not protocol.should_close, "a connection that can be used again")
    expected = protocol.expect()
    protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ne")
    _, content = _result_of(expected)
    _require(content.is_eof() and content.read_nowait() == b"e", "another answer")
    _require(not protocol.should_close, "a connection that can be used a third time")
    protocol.close()


def _result_of(awaitable: Any) -> Any:
    """Return what an awaitable gives that has nothing to wait for."""
    steps = awaitable.__await__()
    try:
        steps.send(None)
    except StopIteration as done:
        return done.value
    steps.close()
    raise LookupError("it waits")
