"""HTTP on connections of our own: aiohttp's request, answer and body without what they repeat.

aiohttp works through everything that a request may have: forms, cookies, compression, an upload in
a task of its own. Ours are bytes and a few headers, known beforehand. What is left out here is a
third of the CPU of a whole answer, and a fifth of that of each read of a stream. All of it rests on
aiohttp's insides: versions that it was not tested with, and sessions of the user's, are left alone.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import ClientRequest, ClientResponse, RequestInfo, StreamReader, hdrs, http_writer
from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from yarl import URL

__all__ = ["KNOWN", "Body", "Outbox", "PlainRequest", "PlainResponse"]

_VERSION: Final = tuple(map(int, re.findall(r"\d+", aiohttp.__version__)[:2]))
KNOWN: Final = (3, 12) <= _VERSION <= (3, 14)
"""Whether this version of aiohttp is one that this module was tested with."""

# In those that are; others may lack it.
_serialize: Final[Any] = getattr(http_writer, "_serialize_headers", None)
_BYTES = 33  # what an object of bytes weighs beside its data
# Where one of these is given, or a proxy or a login, aiohttp has to look at it.
_SPECIAL = (
    hdrs.HOST,
    hdrs.CONNECTION,
    hdrs.CONTENT_ENCODING,
    hdrs.CONTENT_LENGTH,
    hdrs.EXPECT,
    hdrs.TRANSFER_ENCODING,
)
_NO_HEADERS: Final[CIMultiDictProxy[str]] = CIMultiDictProxy(CIMultiDict())


class Body(StreamReader):
    """A body between aiohttp's parser and one reader, who takes all that there is.

    aiohttp's own feeds its parser nothing at each read, resumes a transport that nobody paused, and
    keeps where each HTTP chunk ended: 17 calls of the 48 that a read makes.
    """

    __slots__ = ()

    @classmethod
    def take_over(cls, content: StreamReader) -> None:
        """Make a reader of aiohttp's one of these; a body that was empty from the start stays."""
        if type(content) is StreamReader:
            content.__class__ = cls
            buffer: Any = list(content._buffer)  # noqa: SLF001 - an empty deque takes 0.7 kB
            content._buffer = buffer  # noqa: SLF001 - as above
            content._http_chunk_splits = None  # noqa: SLF001 - it is one of these now

    def feed_data(self, data: bytes, size: int = 0) -> bool:  # noqa: ARG002 - aiohttp's signature
        """Take in bytes from the parser."""
        if data:
            self._buffer.append(data)
            length = len(data)
            self.total_bytes += length
            self._size += length + _BYTES
            waiter = self._waiter
            if waiter is not None:
                self._waiter = None
                if not waiter.done():
                    waiter.set_result(None)
            if self._size > self._high_water:
                self._protocol.pause_reading()
        return False

    def begin_http_chunk_receiving(self) -> None:
        """Do nothing."""

    def end_http_chunk_receiving(self) -> None:
        """Do nothing."""

    async def readany(self) -> bytes:
        """Return all that has come, once something has; nothing at the end.

        Raises:
            Exception: what was put in by ``set_exception``, before what had come until then.
        """
        while not self._buffer and not self._eof and self._exception is None:
            if not self._protocol.connected:
                raise RuntimeError("Connection closed.")
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None
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
        if self._protocol._reading_paused and not self._eof:  # noqa: SLF001 - no public way
            self._protocol.resume_reading()  # which may bring more at once
        return data


class Outbox:
    """Writes of one turn of the event loop: the first at once, all others together after it.

    Each write to a server on the same machine wakes it, unless it is awake: one by one, with the
    handling of an answer between them, they cost a quarter more CPU per call.
    """

    __slots__ = ("_loop", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] | None = None

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write now or at the end of this turn."""
        if self._waiting is None:
            self._waiting = []
            self._loop.call_soon(self._flush)
            transport.write(data)
        else:
            self._waiting.append((transport, data))

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting or (), None
        for transport, data in waiting:
            if not transport.is_closing():  # else whoever waits for the answer hears of it
                transport.write(data)


class PlainRequest(ClientRequest):
    """A request whose body is bytes, written together with its head and in no task of its own.

    Anything else that it is asked for is left to aiohttp.
    """

    def __init__(self, method: str, url: URL, **given: Any) -> None:
        data, headers = given["data"], given["headers"]
        self._plain: bytes | None = None
        if (
            type(data) is not bytes
            or given["proxy"] is not None
            or given["auth"] is not None
            or given["cookies"]
            or any(map(headers.__contains__, _SPECIAL))
        ):
            super().__init__(method, url, **given)
            return
        self._plain = data
        self.method = method
        self.url = self.original_url = url
        self.loop = given["loop"]
        self.server_hostname = None
        self.proxy = self.proxy_auth = self.proxy_headers = None
        self._ssl = given["ssl"]
        self._timer = given["timer"]
        self.headers = headers  # the session's own copy
        headers[hdrs.CONTENT_LENGTH] = str(len(data))

    async def send(self, conn: Connection) -> ClientResponse:
        """Write the request; its answer is still to be read."""
        if self._plain is None:
            return await super().send(conn)
        transport = None if conn.protocol is None else conn.protocol.transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")
        url = self.url
        line = f"{self.method} {url.raw_path_qs} HTTP/1.1\r\n".encode()
        # The host comes first (RFC 9110, section 7.2).
        fields = _serialize(f"Host: {url.host_port_subcomponent}", self.headers)
        data = b"".join((line, fields, self._plain))
        outbox: Outbox = conn._connector.outbox  # type: ignore[attr-defined]  # noqa: SLF001 - ours
        outbox.write(transport, data)
        return PlainResponse(self.method, url, self._timer, self.loop)


class PlainResponse(ClientResponse):
    """The answer to a :class:`PlainRequest`; keeps nothing of it but its URL."""

    # Without slots, so many attributes make a dict of 0.8 kB, for each open stream.
    __slots__ = (
        "_cache", "_closed", "_connection", "_headers", "_history", "_loop", "_protocol",
        "_raw_headers", "_real_url", "_released", "_request_info", "_session", "_timer", "_traces",
        "_url", "content", "method", "reason", "status", "version",
    )  # fmt: skip

    def __init__(self, method: str, url: URL, timer: Any, loop: Any) -> None:
        self.method = method
        self._url = self._real_url = url
        # For messages; the headers hold keys.
        self._request_info = RequestInfo(url, method, _NO_HEADERS, url)
        self._timer = timer
        self._loop = loop
        self._cache = {}
        self._traces = []
        self._closed = True
        self._released = False
        self._connection = self._protocol = self._session = None
        # Until the head has come, which aiohttp says less exactly.
        unknown: Any = None
        self.version = self.status = self.reason = unknown
        self.content = self._headers = self._raw_headers = unknown
        self._history = ()

    @property
    def headers(self) -> CIMultiDictProxy[str]:  # else it is kept twice
        """The answer's."""
        return self._headers
