"""Everything that rests on aiohttp's insides: the only module that touches its private names.

aiohttp's client works through all that a request may have: forms, cookies, redirects, uploads in a
task of their own. Ours are bytes and a few headers, known beforehand. So requests are written to,
and answers read from, the connections of aiohttp's connector directly: its pool, resolver, happy
eyeballs, TLS and parser stay, and its ``ClientSession`` is left out (31 µs instead of 106 µs for a
whole answer, 11 µs instead of 17 µs for a chunk of a stream).

aiohttp may change what this rests on in any release, so no version number is trusted:
:mod:`~konko_async._http.aiohttp_probe` tries all of it once per process. What it does not recognise
is left to aiohttp's own way, with one warning in the log. ``KONKO_ASYNC_FAST_PATH=0`` chooses
aiohttp's own way.
"""

# ruff: noqa: SLF001 - private names of aiohttp and asyncio are what this module is for

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import EMPTY_PAYLOAD, StreamReader, client_proto, client_reqrep
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    # Where a future aiohttp has no such class, only the probe fails, not the import of this module.
    from aiohttp.client_proto import ResponseHandler
    from yarl import URL
else:
    ResponseHandler = getattr(client_proto, "ResponseHandler", asyncio.Protocol)

__all__ = [
    "MAX_FIELDS", "MAX_FIELD_SIZE", "READ_PARAMS", "Body", "ClientProtocol", "Destination",
    "HookedConnector", "ResponseHandler", "at_hand", "close", "count", "fast_path_wanted",
    "is_patched", "is_recorded", "middlewares_of", "parameters_of", "silence", "take_idle",
    "unread",
]  # fmt: skip

MAX_FIELD_SIZE: Final = 64 * 1024
"""Bytes of one header's name or value, or of the status line; aiohttp's own limit is 8190."""
MAX_FIELDS: Final = 500
"""Headers of one answer; aiohttp's own limit is 128 (before 3.14 it has none)."""

# Bytes of one read, and after which a reader that does not read is paused: twice this.
_READ_SIZE: Final = 2**16
_TRIM_SIZE: Final = 2**22  # bytes
_BYTES: Final = 33  # what an object of bytes weighs beside its data (sys.getsizeof(b""))
_SWITCHING: Final = 101  # protocols
_FIRST_STATUS: Final = 100
_FIRST_FINAL: Final = 200
_WITHOUT_BODY: Final = frozenset({_SWITCHING, 204, 304})
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None)  # connecting is bounded by the connector


# -- connections -----------------------------------------------------------------------------------


class Destination:
    """Where a request goes, with the attributes that a connector asks a request for.

    Attributes:
        name: host, and port if it is not the scheme's own, for messages.
        url: the whole address.
        start: the rest of the request line and the Host header, which comes first (RFC 9110, 7.2).
    """

    __slots__ = (
        "connection_key", "host", "name", "port", "proxy", "proxy_auth", "proxy_headers",
        "server_hostname", "ssl", "start", "url",
    )  # fmt: skip

    def __init__(self, url: URL) -> None:
        self.url = url
        self.host = url.raw_host or ""
        self.name = url.host_port_subcomponent or ""
        self.port = url.port
        self.ssl = True  # verified, by the connector's own context
        self.proxy = self.proxy_auth = self.proxy_headers = self.server_hostname = None
        self.start = f" {url.raw_path_qs} HTTP/1.1\r\nHost: {self.name}\r\n".encode()
        # As aiohttp's own requests have it, so that both ways share one pool.
        self.connection_key: Any = client_reqrep.ConnectionKey(
            self.host, self.port, url.scheme == "https", True, None, None, None
        )

    def is_ssl(self) -> bool:
        """Whether the connection is to be TLS."""
        return bool(self.connection_key.is_ssl)


class ClientProtocol(ResponseHandler):
    """A connection that reports its loss to the reader of a body, and feeds a body without detours.

    aiohttp forgets to report it in two cases, and the reader waits forever: where the body breaks
    HTTP's rules after the head was read (a chunk's size that is not a number, in its C parser), and
    where the session is closed meanwhile.
    """

    _ours: Any = ()  # the parser, if expect() made it
    _expected: asyncio.Future[tuple[Any, StreamReader]] | None = None
    _tap: Tap | None = None  # of a body whose reader waits at one

    def expect(self) -> asyncio.Future[tuple[Any, StreamReader]]:
        """Return the head of the next answer (``code``, ``headers``) and its body, to be awaited.

        Heads of 1xx, such as 103 Early Hints, come before the answer and are left out; 101 would be
        one, of its own kind.
        """
        # aiohttp makes a parser for each answer, which takes as long as parsing its head. One is
        # enough, as on aiohttp's servers: between two messages it is as it was when it was made.
        if self._ours is not self._parser:
            self.set_response_params(**READ_PARAMS)
            self._ours = self._parser
        # Which set_exception() looks at: what ends the connection is raised to who awaits it.
        expected: Any = self._loop.create_future()
        self._expected = self._waiter = expected
        return expected  # type: ignore[no-any-return]  # aiohttp's own gives nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; asyncio's own transports are to read no more at once than malloc keeps free.

        They ask for 256 KiB at each read, however little has come. In a fresh process malloc maps
        memory for that each time and gives it back, which took a sixth of a whole answer's CPU.
        """
        super().connection_made(transport)
        if hasattr(transport, "max_size"):  # uvloop and TLS read into a buffer that they keep
            transport.max_size = _READ_SIZE

    def data_received(self, data: bytes) -> None:
        """Take in what was read: of an answer of ours, only its parser needs to see it."""
        payload = self._payload
        if (type(payload) is not Body or payload._eof) and self._expected is None:
            if data and self._ours is self._parser and (payload is None or payload.is_eof()):
                self._should_close = True  # nobody asked for it
            super().data_received(data)
            return
        try:
            messages, upgraded, tail = self._parser.feed_data(data)  # type: ignore[union-attr]  # an answer is open
        except Exception as error:  # noqa: BLE001 - whatever a parser raises, as aiohttp does
            if self.transport is not None:
                self.transport.close()
            self.set_exception(
                HttpProcessingError(message=str(getattr(error, "message", ""))), error
            )
            return
        if messages or upgraded:
            for head, body in messages:
                self._take(head, body)
            if upgraded:
                self._upgraded = True
                super().data_received(tail)
        if self._tap is not None:
            self._tap.take()

    def _take(self, head: Any, body: Any) -> None:
        """Give a head, with its body, to who expects it."""
        code, expected = head.code, self._expected
        if head.should_close:
            self._should_close = True
        if expected is None or expected.done():
            self._should_close = True  # nobody asked for this one, or does any more
        elif not _FIRST_STATUS <= code < _FIRST_FINAL or code == _SWITCHING:
            self._expected = self._waiter = None
            self._payload = body
            expected.set_result((head, EMPTY_PAYLOAD if code in _WITHOUT_BODY else body))

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        """Take the failure to the body as well."""
        self._report(exc)
        super().set_exception(exc, *cause)

    def close(self) -> None:
        """Close the connection, and report that to the body."""
        self._report(aiohttp.ClientConnectionError("closed"))
        super().close()

    def abort(self) -> None:
        """Close the connection at once, and report that to the body."""
        self._report(aiohttp.ClientConnectionError("closed"))
        super().abort()

    def _report(self, error: BaseException) -> None:
        """Give an error to the body, unless that has ended or has one already."""
        payload = self._payload
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            payload.set_exception(error)


Connect = Callable[[], Awaitable[Any]]


@functools.cache
def _keep_heap() -> None:
    """Let glibc's malloc keep what reads free, instead of giving it back to the kernel each time.

    By default it trims its heap where more than 128 KiB are free at the end, which is what two
    reads leave there. Whether they lie there is chance: the same program took 1.0 or 1.7 µs per
    chunk of a burst. Once a larger block that was mapped is freed, it trims at twice that size
    (mallopt(3), "dynamic mmap threshold"). The block is never written to, and so takes no memory.
    """
    bytes(_TRIM_SIZE)


class HookedConnector(aiohttp.TCPConnector):
    """A connector whose new connections are made through :meth:`make`; pooled ones cost nothing.

    Args:
        loop: the running loop.
        **options: of ``aiohttp.TCPConnector``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        super().__init__(**options)
        _keep_heap()
        self._longest_idle: float = options["keepalive_timeout"]
        self._factory: Any = functools.partial(ClientProtocol, loop=loop)

    async def _create_connection(
        self,
        req: Any,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature is aiohttp's
    ) -> Any:
        connect = functools.partial(super()._create_connection, req, traces, timeout)
        return await self.make((req.url.raw_host, req.url.port), connect)

    async def make(self, address: tuple[str | None, int | None], connect: Connect) -> Any:
        """Make a connection to a host and port: ``await connect()``."""
        raise NotImplementedError

    def take_idle(self, to: Destination) -> Any:
        """Take an idle connection out of the pool, or return None.

        As :meth:`connect` does, whose coroutines cost more than all the rest of a warm connection.
        """
        key = to.connection_key
        idle = self._conns.get(key)
        if idle is None:
            return None
        oldest = monotonic() - self._longest_idle
        while idle:
            protocol, since = idle.popleft()
            # It should close where something came that nobody asked for, such as a 408 of a server
            # that waited for long enough; the next call would get it for its answer. All else that
            # aiohttp's should_close looks at was looked at when the connection came back.
            if protocol.is_connected() and since >= oldest and not protocol._should_close:
                break
            protocol.close()
        else:
            protocol = None
        if not idle:
            del self._conns[key]  # as aiohttp has it: there is no empty queue
        if protocol is not None:
            self._acquired.add(protocol)
        return protocol

    async def make_new(self, to: Destination) -> Any:
        """Return a connection where :meth:`take_idle` has none.

        Raises:
            Exception: whatever aiohttp raises while it connects.
        """
        request_like: Any = to
        connection = await self.connect(request_like, [], _NO_TIMEOUT)
        # From here on it is what was taken: a protocol that carries a call.
        protocol: Any = connection.protocol
        connection._protocol = None
        if not protocol.is_connected():
            self.drop(to, protocol)
            raise aiohttp.ClientConnectionResetError
        return protocol

    def drop(self, to: Destination, protocol: Any) -> None:
        """Close a connection that was taken."""
        # Its error holds frames, and those this connection.
        protocol._expected = None
        self._release(to.connection_key, protocol, should_close=True)

    def keep(self, to: Destination, protocol: Any, body: StreamReader) -> Connection | None:
        """Have a connection that was taken go back to the pool when a body has come to its end.

        Returns:
            The connection, to be closed by :func:`close` where the body is not read to its end;
            None: it is back already, as all of the body came with its head.
        """
        if body.is_eof():
            self._release(to.connection_key, protocol)
            return None
        Body.take_over(body)
        held = Connection(self, to.connection_key, protocol, self._loop)
        body.on_eof(held.release)
        return held


def close(connection: Connection | None) -> None:
    """Close a connection; one whose loop is gone is closed with its pool (see :func:`silence`)."""
    if connection is None:
        return
    protocol = connection.protocol
    if protocol is not None and not protocol._loop.is_closed():
        connection.close()


def _read_params() -> dict[str, Any]:
    """Return how answers are to be parsed, by the parameters that this version of aiohttp has."""
    wanted = {
        "read_until_eof": True,
        "auto_decompress": True,
        "read_bufsize": _READ_SIZE,
        "max_line_size": MAX_FIELD_SIZE,
        "max_field_size": MAX_FIELD_SIZE,
        "max_headers": MAX_FIELDS,  # since 3.14
    }
    known = parameters_of(getattr(ResponseHandler, "set_response_params", None))
    return {name: value for name, value in wanted.items() if name in known}


def parameters_of(function: Any) -> list[str]:
    """Return the names of a function's parameters; none where it has no signature."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


READ_PARAMS: Final = _read_params()


# -- bodies ----------------------------------------------------------------------------------------


Take = Callable[[bytes], bytes | None]


class Tap(asyncio.Future[bytes | None]):
    """What a reader of a body waits for, where what comes may be dealt with on the spot.

    It saves waking the reader's task, which takes an iteration of the event loop.
    """

    def __init__(self, body: Body, take: Take) -> None:
        super().__init__(loop=body._loop)
        self._body = body
        self._take = take
        protocol: Any = body._protocol  # a ClientProtocol
        protocol._tap = self

    def set_result(self, data: bytes | None) -> None:
        """Take in bytes from the parser, which may bring more; None: the body has ended."""
        if data is None:
            super().set_result(None)
        else:
            body: Any = self._body
            body._buffer.append(data)
            body._size += len(data) + _BYTES
            body._waiter = self

    def take(self) -> None:
        """Deal with all that one read of the connection brought, or wake the reader with it."""
        body: Any = self._body
        if self.done():
            body._protocol._tap = None
        elif body._buffer:
            rest = self._take(body.read_nowait())
            if rest is not None:
                body._waiter = None
                if rest:
                    body._buffer.append(rest)
                    body._size += len(rest) + _BYTES
                super().set_result(rest)


class Body(StreamReader):
    """A body between aiohttp's parser and one reader, who takes all that there is.

    What arrives while the reader waits goes straight to it, by way of no buffer.
    """

    __slots__ = ()

    @classmethod
    def take_over(cls, content: StreamReader) -> None:
        """Make a reader of aiohttp's one of these; a body that was empty from the start stays."""
        if type(content) is StreamReader:
            content.__class__ = cls
            buffer: Any = list(content._buffer)  # an empty deque takes 0.7 kB of each open stream
            content._buffer = buffer
            content._http_chunk_splits = None

    def feed_data(self, data: bytes, size: int = 0) -> bool:  # noqa: ARG002 - aiohttp's signature
        """Take in bytes from the parser."""
        if data:
            length = len(data)
            self.total_bytes += length
            waiter: Any = self._waiter  # aiohttp's own gives nothing
            if waiter is not None:
                self._waiter = None
                if not waiter.done():  # straight to the reader, which nothing has to overtake
                    waiter.set_result(data)
                    return False
            self._buffer.append(data)
            # Counted with their objects: 100,000 chunks of a byte weigh 3 MB, not 0.1.
            self._size += length + _BYTES
            if self._size > self._high_water:
                self._protocol.pause_reading()
        return False

    def begin_http_chunk_receiving(self) -> None:
        """Do nothing."""

    def end_http_chunk_receiving(self) -> None:
        """Do nothing."""

    async def readany_or(self, take: Take) -> bytes:
        """Do what :meth:`readany` does.

        Args:
            take: gets what comes while this waits, in the moment in which it comes; what it returns
                is what this returns. None: it has been dealt with, and this waits on.
        """
        waits = not self._buffer and not self._eof and self._exception is None
        if waits and self._protocol.transport is not None:
            tap: Any = Tap(self, take)
            self._waiter = tap
            try:
                if await tap == b"":
                    return b""
            finally:
                self._waiter = None
        return await self.readany()  # what was left is in the buffer, also where this is cancelled

    async def readany(self) -> bytes:
        """Return all that has come, once something has; nothing at the end.

        Raises:
            Exception: what was put in by ``set_exception``, before what had come until then.
        """
        while not self._buffer and not self._eof and self._exception is None:
            if self._protocol.transport is None:
                raise RuntimeError("Connection closed.")
            waiter: Any = self._loop.create_future()
            self._waiter = waiter
            try:
                data: bytes | None = await waiter
            except BaseException:
                self._waiter = None
                # Cancelled between the arrival and the turn of its task: the next read has it.
                failed = not waiter.done() or waiter.cancelled() or waiter.exception() is not None
                if not failed and waiter.result() is not None:
                    self._buffer.insert(0, waiter.result())
                    self._size += len(self._buffer[0]) + _BYTES
                del waiter  # it may hold data, and a traceback may show this frame's locals
                raise
            if data is not None:
                if not self._buffer:
                    return data
                self._buffer.insert(0, data)  # more has come since
                data = None
        return self.read_nowait()

    def read_nowait(self, n: int = -1) -> bytes:  # noqa: ARG002 - aiohttp's signature
        """Return all that has come, which may be nothing; ``n`` has no meaning here.

        Raises:
            Exception: as for :meth:`readany`.
        """
        if self._exception is not None:
            raise self._exception
        buffer = self._buffer
        data = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        buffer.clear()
        self._size = 0
        # At the end aiohttp has resumed, and the next call may have paused.
        if self._protocol._reading_paused and not self._eof:
            self._protocol.resume_reading()  # which may bring more at once
        return data


def at_hand(content: Any, limit: int) -> bytes | None:
    """Take all of a body, if it has come to its end and is no longer than ``limit``."""
    if type(content) is StreamReader:  # it came with its head, as most do
        if not content._eof or content._exception is not None or content.total_bytes > limit:
            return None
        data = b"".join(content._buffer)
        content._buffer.clear()
        return data
    if not content.is_eof() or content.exception() is not None or content.total_bytes > limit:
        return None
    # What stands in for aiohttp's answers in tests may have another kind of body.
    return unread(content) if isinstance(content, StreamReader) else content.read_nowait()


def unread(content: StreamReader) -> bytes:
    """Take what has arrived, also before a read failed; aiohttp gives the failure out first."""
    buffer = getattr(content, "_buffer", None) or []
    data = b"".join(buffer)
    buffer.clear()
    return data


# -- pools -----------------------------------------------------------------------------------------


def count(connector: aiohttp.BaseConnector) -> tuple[int, int]:
    """Return how many connections carry a call (or are being made for one), and how many idle."""
    idle = sum(protocol.is_connected() for protocol in _idle(connector))
    return len(getattr(connector, "_acquired", ())), idle


def _idle(connector: aiohttp.BaseConnector) -> list[Any]:
    pools = getattr(connector, "_conns", {}).values()
    return [protocol for entries in pools for protocol, *_ in entries]


def take_idle(connector: Any) -> list[Any]:
    """Take the idle connections out of a connector that nobody owns any more, to be closed.

    Those that carry a call are closed when it ends, instead of going back to the pool.
    """
    connector._force_close = True
    protocols = _idle(connector)
    getattr(connector, "_conns", {}).clear()
    return protocols


def silence(connector: aiohttp.BaseConnector, loop: asyncio.AbstractEventLoop | None) -> None:
    """Close the connector of a loop that does not run: nothing can be closed through the loop.

    Args:
        connector: of the session that is given up.
        loop: the loop; None after a fork. Its sockets then belong to the parent, which goes on
            talking through them: closing the copies here says nothing to the peer.
    """
    for protocol in (*_idle(connector), *getattr(connector, "_acquired", ())):
        _drop(getattr(protocol, "transport", None), loop)
    _forget(connector)


def _forget(connector: Any) -> None:
    for name in ("_conns", "_acquired"):
        getattr(connector, name, set()).clear()
    connector._closed = True  # nothing warns of an unclosed connector now


def _drop(transport: Any, loop: Any) -> None:
    """Close the socket below a transport of asyncio's whose loop no longer runs."""
    if transport is None:
        return
    tls = getattr(transport, "_ssl_protocol", None)
    if tls is not None:
        transport._closed = True  # keeps its finaliser silent
    below = transport if tls is None else tls._transport
    raw = getattr(below, "_sock", None)
    if raw is None:  # uvloop closes its own with the loop
        return
    if loop is not None and not loop.is_closed():
        # A loop that only rests must not meet another socket under this number later. The public
        # remove_reader() refuses the sockets of transports.
        loop._remove_reader(raw.fileno())
        loop._remove_writer(raw.fileno())
    raw.close()
    below._closing = True  # the loop asks, before it gives out this number again
    below._sock = None  # keeps its finaliser silent


# -- other ways ------------------------------------------------------------------------------------


def fast_path_wanted() -> bool:
    """Whether ``KONKO_ASYNC_FAST_PATH`` lets requests leave aiohttp's own way."""
    return os.environ.get("KONKO_ASYNC_FAST_PATH", "1").strip().lower() not in {"0", "false", "no"}


_SESSION_REQUEST: Final = aiohttp.ClientSession._request


def is_patched() -> bool:
    """Whether somebody put himself between aiohttp's client and its callers, as aioresponses does.

    Tests of applications do so; the direct way would send past their doubles.
    """
    return aiohttp.ClientSession._request is not _SESSION_REQUEST


def is_recorded() -> bool:
    """Whether vcrpy stands there, which writes requests down in files."""
    home = getattr(aiohttp.ClientSession._request, "__globals__", {}).get("__name__", "")
    return str(home).startswith("vcr.")


def middlewares_of(session: aiohttp.ClientSession) -> tuple[Any, ...]:
    """Return the middlewares of a session, in whose place those of a request stand."""
    return tuple(getattr(session, "_middlewares", ()))
