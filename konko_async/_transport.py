"""The session pool: the only place that sends through aiohttp's client.

One ``aiohttp.ClientSession`` per client and event loop, made on first use.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict, istr
from yarl import URL

from konko_async._checks import check_model
from konko_async._connector import Connector, connecting, count, notice_loss, silence
from konko_async._foreign import FOREIGN, translate
from konko_async._http import KNOWN, Body, PlainRequest
from konko_async._secret import Secret, masked
from konko_async._version import __version__
from konko_async.errors import ConfigurationError, KonkoError

if TYPE_CHECKING:
    from konko_async._pipeline import Request
    from konko_async._settings import Settings
    from konko_async.middleware import Fallback

__all__ = ["Answer", "Transport"]

_STALE = 3  # pooled connections that one attempt may find closed under it
_CLOSED_UNDER_US = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
_DRAIN = 0.1
# Names that know their lower case: each copy of the headers asks for it.
_IDEMPOTENCY_KEY = istr("Idempotency-Key")
_OPENAI_KEY = istr("X-OpenAI-Api-Key")
_REQUEST_ID = istr("x-request-id")
_LARGE = 1024 * 1024  # aiohttp warns about larger bodies given as bytes


class Answer:
    """An answer whose head has arrived.

    Attributes:
        status: HTTP status.
        headers: case-insensitive.
        request_id: ``x-request-id``, or None.
        read: coroutine function; the bytes that are there, ``b""`` at the end of the body. Raises
            one of :data:`FOREIGN`, to be given to :func:`translate`.
    """

    __slots__ = ("_response", "content", "headers", "read", "request_id", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.request_id = self.headers.get(_REQUEST_ID)
        self.content = response.content
        self.read = response.content.readany

    @property
    def host(self) -> str:
        """The server's, for messages."""
        return self._response.url.host or ""

    def at_hand(self, limit: int) -> bytes | None:
        """Return the body and let go of the connection, if all of it has come with its head.

        Args:
            limit: bytes that it may have.
        """
        content = self.content
        if not content.is_eof() or content.exception() is not None or content.total_bytes > limit:
            return None
        body = content.read_nowait()
        self.release()
        return body

    def leftover(self) -> bytes:
        """Return what had arrived before ``read`` failed; aiohttp gives the failure out first."""
        buffer = getattr(self.content, "_buffer", None)
        if not buffer:
            return b""
        data = b"".join(buffer)
        buffer.clear()
        return data

    async def drain(self) -> None:
        """Read what follows ``[DONE]``, 0.1 s at most: undrained connections are not reused."""
        if self.at_eof:
            return
        try:
            async with asyncio.timeout(_DRAIN):
                while await self.read():
                    pass
        except (TimeoutError, KonkoError, *FOREIGN):
            pass

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
        if not self._response.closed:  # aiohttp has done it at the end of the body
            self._response.release()

    def abort(self) -> None:
        """Close the connection: the server sees that nobody listens any more."""
        if self.content.exception() is None:
            # Else aiohttp puts in one exception that all share, whose traceback keeps us alive.
            self.content.set_exception(KonkoError("the answer was given up"))
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
        asking = [request]
        token = connecting.set(asking)
        content = request.content
        try:
            for stale in range(_STALE + 1):
                try:
                    response = await session.request(
                        request.operation.method,
                        self._url(request),
                        data=content
                        if content is None or len(content) < _LARGE
                        else BytesIO(content),
                        headers=self._request_headers(request),
                        allow_redirects=False,
                        raise_for_status=False,
                        timeout=self._timeout if self._own else _foreign_timeout(request),
                    )
                except _CLOSED_UNDER_US as error:
                    if stale == _STALE or not self._own or request.connect is not None:
                        failure = translate(error, self._url(request).host or "")
                        break
                    # A server may close an idle connection just as the next request goes out on
                    # it. That says nothing of its health: the next connection is tried at once,
                    # and no attempt is counted (RFC 9112, 9.3.1 and RFC 9110, 9.2.2).
                else:
                    if not self._own:
                        notice_loss(response)
                    elif KNOWN:
                        Body.take_over(response.content)
                    return Answer(response)
        except FOREIGN as error:
            failure = translate(error, self._url(request).host or "")
        finally:
            connecting.reset(token)
            # Timers and transports keep copies of this context, some of them for good.
            asking.clear()
        raise failure

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections carry a call, and how many are kept for the next."""
        connector = None if self._session is None else self._session.connector
        return (0, 0) if connector is None else count(connector)

    def scrub(self, body: bytes) -> bytes:
        """Return what a server said without our keys in it: some repeat the key they refuse."""
        for key in (self.settings.api_key, self.settings.openai_api_key):
            if key is not None:
                body = key.scrub(body)
        return body

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
            base[hdrs.ACCEPT] = "text/event-stream"
            # Compressing proxies hold tokens back.
            base[hdrs.ACCEPT_ENCODING] = "identity"
        elif request.headers:
            base = base.copy()
        for name, value in request.headers.items():
            base[_IDEMPOTENCY_KEY if name == _IDEMPOTENCY_KEY else name] = value
        return base

    def _target_headers(self, target: Fallback) -> CIMultiDict[str]:
        """Another server gets its own key or none; never this client's keys or headers."""
        key = target.api_key if isinstance(target.api_key, Secret) else None
        if target.base_url is not None:
            return _base_headers(key, None, {})
        settings = self.settings
        return _base_headers(key or settings.api_key, settings.openai_api_key, settings.headers)

    def _live_session(self) -> aiohttp.ClientSession:
        if self.closed:
            raise ConfigurationError("the client is closed; make a new AsyncKonko")
        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is loop and self._pid == os.getpid():
            if self._session.closed:
                raise ConfigurationError("session= is closed; it must stay open for its clients")
            return self._session
        if self._own:
            self._abandon()
            self._session = self._new_session()
        elif self._loop is not None:
            raise ConfigurationError(
                "session= belongs to another event loop or process; make a client per loop, or "
                "leave session= out and one is made for each"
            )
        self._loop, self._pid = loop, os.getpid()
        assert self._session is not None  # noqa: S101 - the user's, or made above
        return self._session

    def _new_session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=Connector(),
            request_class=PlainRequest if KNOWN else aiohttp.ClientRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            trust_env=False,
        )

    def _abandon(self) -> None:
        """Let go of a session whose loop is gone, or that a fork left here.

        Raises:
            ConfigurationError: its loop runs, in another thread, and uses it.
        """
        session, loop = self._session, self._loop
        if session is None or session.closed:
            return
        forked = self._pid != os.getpid()
        if loop is not None and loop.is_running() and not forked:
            raise ConfigurationError(
                "this client is in use on another event loop, which runs: make a client per loop"
            )
        self._session = None
        connector = session.connector
        session.detach()
        if connector is not None:
            silence(connector, None if forked else loop)

    async def close(self) -> None:
        """Close the pool (not a session of the user's); idempotent.

        Raises:
            ConfigurationError: it is in use on another loop that runs.
        """
        session = self._session
        if session is not None and self._own and not session.closed:
            if self._loop is asyncio.get_running_loop() and self._pid == os.getpid():
                self.closed = True
                self._session = None
                await session.close()
            else:
                self._abandon()
        self.closed = True


def _foreign_timeout(request: Request) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=request.timeout.connect)


def _base_headers(
    key: Secret | None, openai_key: Secret | None, extra: Mapping[str, str]
) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    if key is not None:
        headers[hdrs.AUTHORIZATION] = key.header("Bearer ")
    if openai_key is not None:
        headers[_OPENAI_KEY] = openai_key.header()
    headers[hdrs.ACCEPT] = "application/json"
    headers[hdrs.ACCEPT_ENCODING] = "gzip, deflate"
    headers[hdrs.CONTENT_TYPE] = "application/json"
    headers[hdrs.USER_AGENT] = f"konko-async/{__version__}"
    # Any of them may be a credential: none is to be read in a traceback that shows locals.
    headers.update({istr(name): masked(value) for name, value in extra.items()})
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
