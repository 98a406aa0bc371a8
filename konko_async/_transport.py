"""The session pool: the only place that talks to aiohttp's client.

One ``aiohttp.ClientSession`` per client and event loop, made on first use. aiohttp's exceptions
are turned into ours here and are never chained to them: their ``repr`` shows the headers.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import ssl
import zlib
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from konko_async._checks import check_model
from konko_async._secret import Secret
from konko_async._version import __version__
from konko_async.errors import APIConnectionError, APITimeoutError, ConfigurationError, KonkoError

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.tracing import Trace

    from konko_async._pipeline import Request
    from konko_async._settings import Settings
    from konko_async.middleware import Fallback

__all__ = ["FOREIGN", "Answer", "Transport", "translate"]

FOREIGN = (aiohttp.ClientError, HttpProcessingError, OSError, zlib.error, ValueError, EOFError)
"""What aiohttp is known to raise while it connects, sends and reads."""

_KEEPALIVE = 60.0  # seconds that an idle connection stays in the pool
_LARGE_BODY = 1024 * 1024  # aiohttp warns about larger bodies given as bytes
_connecting: ContextVar[Request | None] = ContextVar("konko_async_connecting", default=None)


def translate(  # noqa: PLR0911 - a table, read from top to bottom
    error: BaseException, host: str, *, sent: bool = True
) -> KonkoError:
    """Return our error for one of aiohttp's; the caller raises it outside the ``except`` block.

    Args:
        error: one of :data:`FOREIGN`.
        host: named in the message.
        sent: whether the request may have reached the server.
    """
    if isinstance(error, KonkoError):
        return error
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return APITimeoutError(
            f"no connection to {host} within the connect timeout",
            phase="connect",
            request_sent=False,
        )
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return ConfigurationError(f"the address of {host} cannot be used: {type(error).__name__}")
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLCertVerificationError)):
        return APIConnectionError(
            f"TLS with {host} failed: {_tls_cause(error)}", request_sent=False, retryable=False
        )
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return APIConnectionError(
            f"the name of {host} cannot be resolved: {_reason(error)}", request_sent=False
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        return APIConnectionError(f"cannot connect to {host}: {_reason(error)}", request_sent=False)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return APIConnectionError(f"{host} closed the connection without an answer")
    if isinstance(error, (aiohttp.ClientResponseError, HttpProcessingError)):
        return APIConnectionError(f"{host} broke the HTTP protocol ({type(error).__name__})")
    if isinstance(error, aiohttp.ClientPayloadError):
        return APIConnectionError(f"the answer of {host} broke off (incomplete payload)")
    return APIConnectionError(
        f"the connection to {host} failed: {_reason(error)}", request_sent=sent
    )


def _reason(error: BaseException) -> str:
    number = getattr(error, "os_error", error)
    text = getattr(number, "strerror", None) or type(error).__name__
    return str(text)[:200]


def _tls_cause(error: BaseException) -> str:
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    return str(getattr(inner, "verify_message", "") or inner)[:200]


class _Connector(aiohttp.TCPConnector):
    """Bounds and times the making of new connections; reused ones cost nothing here."""

    async def _create_connection(
        self,
        req: Any,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> ResponseHandler:
        request = _connecting.get()
        if request is None:
            return await super()._create_connection(req, traces, timeout)
        loop = asyncio.get_running_loop()
        started = loop.time()
        request.call.doing = "connecting"
        try:
            async with asyncio.timeout(request.timeout.connect):
                return await super()._create_connection(req, traces, timeout)
        except TimeoutError as error:
            failed = error
        finally:
            request.connect = loop.time() - started
            request.call.doing = "waiting for the answer"
        raise aiohttp.ConnectionTimeoutError(str(failed))


def _socket(address: Any) -> socket.socket:
    """Make a socket whose peer's silent death is noticed."""
    family, kind, protocol, *_ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return made


class Answer:
    """An answer whose head has arrived.

    Attributes:
        status: HTTP status.
        headers: case-insensitive.
        request_id: ``x-request-id``, or None.
        read: coroutine function; the bytes that are there, ``b""`` at the end of the body. Raises
            one of :data:`FOREIGN`, to be given to :func:`translate`.
        host: of the server, for messages.
    """

    __slots__ = ("_response", "content", "headers", "host", "read", "request_id", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.request_id = self.headers.get("x-request-id")
        self.content = response.content
        self.read = response.content.readany
        self.host = response.url.host or ""

    @property
    def at_eof(self) -> bool:
        """Whether the body has been read to its end."""
        return self.content.at_eof()

    @property
    def received_all(self) -> bool:
        """Whether the body's end has arrived, though it may not have been read yet."""
        return self.content.is_eof()

    def interrupt(self, error: Exception) -> None:
        """Make the pending (or next) ``read`` raise ``error``."""
        self.content.set_exception(error)

    def release(self) -> None:
        """Give the connection back to the pool; the body must have been read."""
        self._response.release()

    def abort(self) -> None:
        """Close the connection: the server sees that nobody listens any more."""
        self._response.close()


class Transport:
    """The pool of one client and its copies.

    Args:
        settings: where requests go.
        session: the user's own session, which is then never closed here, or None.
    """

    def __init__(self, settings: Settings, session: aiohttp.ClientSession | None = None) -> None:
        self.settings = settings
        self.closed = False
        self._own = session is None
        self._session = session
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._urls: dict[str, URL] = {}
        self._headers = _base_headers(settings.api_key, settings.openai_api_key, settings.headers)
        # connect is bounded in _Connector, and everything else by the layers above.
        self._timeout = aiohttp.ClientTimeout(total=None)

    async def open(self, request: Request) -> Answer:
        """Send a request and return its answer once the head has arrived.

        Raises:
            APIConnectionError: no usable answer.
            APITimeoutError: no connection in time (phase ``connect``).
        """
        session = self._live_session()
        token = _connecting.set(request)
        host = ""
        try:
            url = self._url(request)
            host = url.host or ""
            response = await session.request(
                request.operation.method,
                url,
                data=_body(request.content),
                headers=self._request_headers(request),
                allow_redirects=False,
                raise_for_status=False,
                timeout=self._timeout if self._own else _foreign_timeout(request),
            )
        except FOREIGN as error:
            failure = translate(error, host)
        else:
            return Answer(response)
        finally:
            _connecting.reset(token)
        raise failure

    def _url(self, request: Request) -> URL:
        base = self.settings.base_url if request.target is None else request.target.base_url
        key = (base or self.settings.base_url) + request.path
        url = self._urls.get(key)
        if url is None:
            url = URL(key, encoded=True)
            if len(self._urls) < 1024:  # noqa: PLR2004 - paths hold model ids: keep it bounded
                self._urls[key] = url
        return url.update_query(request.query) if request.query else url

    def _request_headers(self, request: Request) -> CIMultiDict[str]:
        base = self._headers if request.target is None else self._target_headers(request.target)
        if request.stream:
            base = base.copy()
            base["Accept"] = "text/event-stream"
            # Compressing proxies hold tokens back.
            base["Accept-Encoding"] = "identity"
        elif request.headers:
            base = base.copy()
        if request.headers:
            base.update(request.headers)
        return base

    def _target_headers(self, target: Fallback) -> CIMultiDict[str]:
        """Another server gets its own key or none; never this client's keys or headers."""
        key = target.api_key if isinstance(target.api_key, Secret) else None
        if target.base_url is not None:
            return _base_headers(key, None, {})
        settings = self.settings
        return _base_headers(key or settings.api_key, settings.openai_api_key, settings.headers)

    def _live_session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._loop is loop and self._pid == os.getpid() and self._session is not None:
            if self.closed:
                raise ConfigurationError("the client is closed; make a new AsyncKonko")
            return self._session
        if self.closed:
            raise ConfigurationError("the client is closed; make a new AsyncKonko")
        if not self._own:
            self._check_foreign()
        else:
            self._abandon()
            self._session = self._new_session()
        self._loop, self._pid = loop, os.getpid()
        assert self._session is not None  # noqa: S101 - both branches above leave one
        return self._session

    def _check_foreign(self) -> None:
        if self._loop is not None:
            raise ConfigurationError(
                "session= belongs to another event loop or process; make a client per loop, or "
                "leave session= out and one is made for each"
            )

    def _new_session(self) -> aiohttp.ClientSession:
        connector = _Connector(
            limit=0,
            keepalive_timeout=_KEEPALIVE,
            ttl_dns_cache=300,
            socket_factory=_socket,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            trust_env=False,
        )

    def _abandon(self) -> None:
        """Let go of a session whose loop is gone, or that a fork left here.

        Its sockets are closed without a word: after a fork they belong to the parent, which goes
        on talking through them.
        """
        session, self._session = self._session, None
        if session is None or session.closed:
            return
        connector = session.connector
        session.detach()
        if connector is not None:
            _silence(connector)

    async def close(self) -> None:
        """Close the pool (not a session of the user's); idempotent."""
        self.closed = True
        session, self._session = self._session, None
        if session is None or not self._own or session.closed:
            return
        if self._loop is asyncio.get_running_loop() and self._pid == os.getpid():
            await session.close()
        else:
            self._session = session
            self._abandon()


def _silence(connector: aiohttp.BaseConnector) -> None:
    """Close a dead loop's connector: its transports cannot be closed through the loop."""
    for entries in connector._conns.values():  # noqa: SLF001 - there is no public way
        for protocol, _ in entries:
            _drop(protocol.transport)
    connector._conns.clear()  # noqa: SLF001 - as above
    connector._closed = True  # noqa: SLF001 - nothing warns of an unclosed connector now


def _drop(transport: Any) -> None:
    """Close the socket below a transport of asyncio's whose loop no longer runs."""
    if transport is None:
        return
    tls = getattr(transport, "_ssl_protocol", None)
    if tls is not None:
        transport._closed = True  # noqa: SLF001 - keeps its finaliser silent
    below = transport if tls is None else tls._transport  # noqa: SLF001 - no public way
    raw = getattr(below, "_sock", None)
    if raw is not None:
        raw.close()
        below._sock = None  # noqa: SLF001 - keeps its finaliser silent


def _body(content: bytes | None) -> bytes | io.BytesIO | None:
    if content is not None and len(content) > _LARGE_BODY:
        return io.BytesIO(content)
    return content


def _foreign_timeout(request: Request) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=request.timeout.connect)


def _base_headers(
    key: Secret | None, openai_key: Secret | None, extra: Mapping[str, str]
) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    if key is not None:
        headers["Authorization"] = key.header("Bearer ")
    if openai_key is not None:
        headers["X-OpenAI-Api-Key"] = openai_key.header()
    headers["Accept"] = "application/json"
    headers["Accept-Encoding"] = "gzip, deflate"
    headers["Content-Type"] = "application/json"
    headers["User-Agent"] = f"konko-async/{__version__}"
    headers.update(extra)
    return headers


def model_path(model: str) -> str:
    """Return the path of a model; ids hold slashes, but must not walk the server's tree.

    Raises:
        ConfigurationError: not a usable id; it is not echoed.
    """
    check_model(model)
    if any(part in {"", ".", ".."} for part in model.split("/")):
        raise ConfigurationError("the model id holds an empty, '.' or '..' path segment")
    return "/models/" + quote(model, safe="/:@-._~")
