"""The session pool: sends requests and hands out their answers.

One pool per client and event loop, made on first use. Requests go over its connections directly
(see :mod:`~konko_async._http.aiohttp_internals`). aiohttp's ``ClientSession`` is for what is out of
the ordinary: large bodies, a session of the user's, a proxy, an aiohttp that is not known.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import msgspec
from aiohttp import hdrs
from multidict import CIMultiDict, istr
from yarl import URL

from konko_async._core.forks import lineage
from konko_async._core.key_source import KeySource
from konko_async._core.redaction import Redactor, SecretsInUse, secrets_in
from konko_async._core.secret import Secret, masked
from konko_async._http.aiohttp_internals import (
    MAX_FIELD_SIZE,
    MAX_FIELDS,
    Body,
    Destination,
    at_hand,
    close,
    count,
    fast_path_wanted,
    is_patched,
    is_recorded,
    middlewares_of,
    silence,
    unread,
)
from konko_async._http.aiohttp_probe import probe
from konko_async._http.connector import (
    Connecting,
    Connector,
    connecting,
    dropped,
    notice_loss,
    socket_options,
)
from konko_async._http.map_exceptions import FOREIGN, translate
from konko_async._http.multipart import LARGE, payload
from konko_async._http.recording import as_plain_text, without_keys
from konko_async._version import __version__
from konko_async.errors import ConfigurationError, KonkoError

if TYPE_CHECKING:
    from konko_async._core.config import Settings
    from konko_async._core.pipeline import Request, Target
    from konko_async._http.write_batcher import WriteBatcher

__all__ = ["OpenResponse", "Transport"]

_STALE = 3  # pooled connections that one attempt may find closed under it
_CLOSED_UNDER_US = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
# Names that know their lower case: each copy of the headers asks for it.
_IDEMPOTENCY_KEY = "Idempotency-Key"
_KEY_NAME = istr(_IDEMPOTENCY_KEY)
_OPENAI_KEY = istr("X-OpenAI-Api-Key")
_REQUEST_ID = istr("x-request-id")
_UNAUTHORIZED = 401
# Headers that say how a request is to be sent: where one of them is given, aiohttp has to do it.
_SPECIAL = frozenset(
    {"connection", "content-encoding", "content-length", "expect", "host", "transfer-encoding"}
)
_URL_SAFE = "!#$%&'()*+,-./:;=?@[]_~"  # RFC 3986; with "%", as some is escaped already


class OpenResponse:
    """An answer whose head has arrived.

    Attributes:
        status: HTTP status.
        headers: case-insensitive.
        request_id: ``x-request-id``, or None.
        host: the server's name (and port), for messages.
        content: the body; at its end the connection goes back to the pool by itself.
        read: coroutine function; the bytes that are there, ``b""`` at the end of the body. Raises
            one of :data:`FOREIGN`, to be given to :func:`translate`.
        redactor: masks the secrets of the request that is answered.
    """

    __slots__ = ("_held", "content", "headers", "host", "read", "redactor", "request_id", "status")

    def __init__(self, head: Any, body: Any, held: Any, host: str, redactor: Redactor) -> None:
        # What has release() and close(): a connection of ours; None: it is back in the pool.
        self._held = held
        self.status: int = head.code
        self.headers: Mapping[str, str] = head.headers
        self.redactor = redactor
        request_id = self.headers.get(_REQUEST_ID)
        self.request_id = None if request_id is None else redactor.text(request_id)
        self.host = host
        self.content = body
        self.read = body.readany

    def reading(self, take: Callable[[bytes], bytes | None]) -> Callable[[], Awaitable[bytes]]:
        """Return what reads as ``read``, by :meth:`Body.readany_or` where nothing is in between."""
        own = type(self.content) is Body and self.read == self.content.readany
        return partial(self.content.readany_or, take) if own else self.read

    def at_hand(self, limit: int) -> bytes | None:
        """Return the body if all of it has come with its head.

        Args:
            limit: bytes that it may have.
        """
        return at_hand(self.content, limit)

    def leftover(self) -> bytes:
        """Return what had arrived before ``read`` failed; aiohttp gives the failure out first."""
        return unread(self.content)

    @property
    def at_eof(self) -> bool:
        """Whether the body has been read to its end."""
        return bool(self.content.at_eof())

    @property
    def received_all(self) -> bool:
        """Whether the body's end has arrived, though it may not have been read yet."""
        return bool(self.content.is_eof())

    def interrupt(self, error: Exception) -> None:
        """Make the pending (or next) ``read`` raise ``error``."""
        self.content.set_exception(error)

    def release(self) -> None:
        """Give the connection back to the pool; the body must have been read."""
        if self._held is not None:
            self._held.release()

    def abort(self) -> None:
        """Close the connection: the server sees that nobody listens any more."""
        self._give_up()
        close(self._held)

    def _give_up(self) -> None:
        if self.content.exception() is None:
            # Else aiohttp puts in one exception that all share, whose traceback keeps us alive.
            self.content.set_exception(KonkoError("the answer was given up"))


class _SessionAnswer(OpenResponse):
    """An answer that came through aiohttp's ``ClientSession``."""

    __slots__ = ()

    def __init__(self, response: aiohttp.ClientResponse, host: str, redactor: Redactor) -> None:
        head = _Head(response.status, response.headers)
        super().__init__(head, response.content, response, host, redactor)

    def release(self) -> None:
        """Give the connection back to the pool; the body must have been read."""
        # aiohttp has done it at the end of the body; what stands in for its responses may not.
        if not self._held.closed:  # pragma: no cover - no stand-in that is tested leaves it to us
            self._held.release()

    def abort(self) -> None:
        """Close the connection: the server sees that nobody listens any more."""
        self._give_up()
        self._held.close()


class _Head:
    """What aiohttp's own head of an answer is named."""

    __slots__ = ("code", "headers")

    def __init__(self, code: int, headers: Mapping[str, str]) -> None:
        self.code = code
        self.headers = headers


class Transport:
    """The pool of one client and its copies.

    Args:
        settings: where requests go.
        session: the user's own session, which is then never closed here, or None.
        secrets: what the client knows to be secret, shared by its pools; None: this one's only.
    """

    def __init__(
        self,
        settings: Settings,
        session: aiohttp.ClientSession | None = None,
        *,
        secrets: SecretsInUse | None = None,
    ) -> None:
        self.settings = settings
        self.closed = False
        self._own = session is None
        self._session = session
        self._watch: weakref.finalize[..., Transport] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forks = lineage.forks
        self._places: dict[str, Destination] = {}
        self._hooked = self._direct = False  # decided when a session is made
        self._connector: Any = None  # of that session, if it is one of ours
        self.secrets = secrets or SecretsInUse()
        self.secrets.put(self, _secrets_of(settings))
        key = settings.api_key
        self._source = key if isinstance(key, KeySource) else None
        self._key: Secret | None = None
        self._use_key(key if isinstance(key, Secret) else None)
        # connect is bounded in Connector, and everything else by the layers above.
        self._timeout = aiohttp.ClientTimeout(total=None)

    def _use_key(self, key: Secret | None) -> None:
        """Prepare the headers that most requests have."""
        settings = self.settings
        self._key = key
        self._headers = _base_headers(key, settings.openai_api_key, settings.headers)
        self._encoded = (_encoded(self._headers), _encoded(_for_stream(self._headers)))
        # What cannot be added to the encoded ones: it takes the place of one, or is aiohttp's job.
        self._taken = _SPECIAL.union(map(str.lower, self._headers))
        self._plain = _is_plain(self._headers)

    async def open(self, request: Request, *, key_known: bool = False) -> OpenResponse:
        """Send a request and return its answer once the head has arrived.

        Args:
            request: the attempt's.
            key_known: whether the key has been obtained, where it comes from a function.

        Raises:
            APIConnectionError: no usable answer.
            APITimeoutError: no connection in time (phase ``connect``).
            ConfigurationError: no key could be obtained.
        """
        if self._source is not None and not key_known:
            return await self._open_with_source(request, self._source)
        session = self._live_session(request.call.loop)
        place = self._place(request)
        try:
            for stale in range(_STALE + 1):
                try:
                    outgoing = self._outgoing(request, place)
                    if outgoing is None:
                        return await self._through_session(session, request, place)
                    connector = self._connector
                    connection = connector.take_idle(place)
                    if connection is None:
                        with _connecting(request):
                            connection = await connector.make_new(place)
                    try:
                        outgoing(connection.transport)
                        head, body = await connection.expect()
                    except BaseException:
                        connector.drop(place, connection)
                        raise
                    held = connector.keep(place, connection, body)
                    return OpenResponse(head, body, held, place.name, self.redactor(request))
                except _CLOSED_UNDER_US as error:
                    if stale == _STALE or not self._own or request.times.connect is not None:
                        failure = translate(error, place.name)
                        break
                    # A server may close an idle connection just as the next request goes out on
                    # it. That says nothing of its health: the next connection is tried at once,
                    # and no attempt is counted (RFC 9112, 9.3.1 and RFC 9110, 9.2.2).
        except FOREIGN as error:
            failure = translate(error, place.name)
        raise failure

    async def _open_with_source(self, request: Request, source: KeySource) -> OpenResponse:
        """Obtain the key first; if the server does not accept it, obtain another, once."""
        target = request.target
        if target is not None and (target.base_url or target.api_key):
            return await self.open(request, key_known=True)
        await self._renew(source)
        used = self._key
        answer = await self.open(request, key_known=True)
        if answer.status == _UNAUTHORIZED:
            await self._renew(source, used)
            if self._key is not used:
                answer.abort()
                answer = await self.open(request, key_known=True)
        return answer

    async def _renew(self, source: KeySource, refused: Secret | None = None) -> None:
        key = await source.secret(refused)
        if key is not self._key and (self._key is refused or refused is None):
            # The one before may still be on its way, and come back in an answer.
            keys = [known.header() for known in (key, self._key) if known is not None]
            self.secrets.put(self, [*_secrets_of(self.settings), *keys])
            self._use_key(key)

    async def _through_session(
        self, session: aiohttp.ClientSession, request: Request, place: Destination
    ) -> OpenResponse:
        """Send a request in aiohttp's own way."""
        bound = self._timeout
        if not self._hooked:  # these connections are not made by a connector of ours
            bound = aiohttp.ClientTimeout(total=None, connect=request.timeout.connect)
        headers = self._request_headers(request)
        _encoded(request.headers)  # a line break is an error of the caller's, not of the connection
        more: dict[str, Any] = {}
        if is_recorded():
            headers, put_in = without_keys(headers)
            more["middlewares"] = (*middlewares_of(session), put_in)
        elif is_patched():
            headers = as_plain_text(headers)
        with _connecting(request):
            response = await session.request(
                request.operation.method,
                place.url,
                data=payload(request.content, headers),
                headers=headers,
                allow_redirects=False,
                raise_for_status=False,
                timeout=bound,
                **more,
            )
        if not self._hooked:
            notice_loss(response)
        elif self._direct:
            Body.take_over(response.content)
        return _SessionAnswer(response, place.name, self.redactor(request))

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections carry a call, and how many are kept for the next."""
        connector = None if self._session is None else self._session.connector
        return (0, 0) if connector is None else count(connector)

    @property
    def fast_path(self) -> bool:
        """Whether requests go over the pool's connections directly."""
        # A proxy of the environment is aiohttp's business.
        if not self._own or self.settings.trust_env or not fast_path_wanted() or is_patched():
            return False
        if not probe().channel:
            return False
        return self._session is None or not self._session.trace_configs

    def redactor(self, request: Request) -> Redactor:
        """Return what masks the secrets that an answer to this request may repeat."""
        known = self.secrets.redactor
        target, headers = request.target, request.headers
        if target is not None and isinstance(target.api_key, Secret):
            known = known.plus((target.api_key.header(),))  # of a middleware's own making
        if headers and (len(headers) > 1 or _IDEMPOTENCY_KEY not in headers):
            known = known.plus(secrets_in(headers))
        return known.plus(secrets_in(request.query)) if request.query else known

    def base_url(self, request: Request) -> str:
        """Return where a request goes: to another server, if it has one of its own."""
        target = request.target
        return (None if target is None else target.base_url) or self.settings.base_url

    def _place(self, request: Request) -> Destination:
        # The client's own server needs no name: no path begins as a URL does.
        key = request.path if request.target is None else self.base_url(request) + request.path
        place = self._places.get(key)
        if place is None:
            # Escaped here and nowhere else, as UTF-8 (RFC 3986, 2.5); escapes stay as they are.
            url = URL(quote(self.base_url(request) + request.path, safe=_URL_SAFE), encoded=True)
            query = self.settings.query
            if query and (request.target is None or request.target.base_url is None):
                url = url.update_query(query)
            place = Destination(url)
            if len(self._places) < 1024:  # noqa: PLR2004 - paths hold model ids: keep it bounded
                self._places[key] = place
        return Destination(place.url.update_query(request.query)) if request.query else place

    def _outgoing(self, request: Request, place: Destination) -> _Outgoing | None:
        """Return a request as it is sent; None: it is out of the ordinary, and aiohttp's job."""
        content = request.content
        if content is None:
            content, end = b"", b"\r\n"
        elif content.__class__ is bytes and len(content) < LARGE:
            end = b"Content-Length: %d\r\n\r\n" % len(content)
        else:
            return None
        if not self._direct or is_patched() or (fields := self._fields(request)) is None:
            return None
        method = request.operation.method.encode()
        return _Outgoing(self._connector.outbox, (method, place.start, fields, end, content))

    def _fields(self, request: Request) -> bytes | None:
        """Return the headers as they are sent; None: one says how the request is to be sent."""
        if request.target is None and self._plain:
            fields = self._encoded[request.stream]
            for name, value in request.headers.items():
                if name.lower() in self._taken:
                    break
                fields += _line(name, value)
            else:
                return fields
        headers = self._request_headers(request)
        return _encoded(headers) if _is_plain(headers) else None

    def _request_headers(self, request: Request) -> CIMultiDict[str]:
        target = request.target
        base = self._headers if target is None else self._target_headers(target)
        base = _for_stream(base) if request.stream else base.copy()
        for name, value in request.headers.items():
            base[_KEY_NAME if name == _IDEMPOTENCY_KEY else name] = value
        return base

    def _target_headers(self, target: Target) -> CIMultiDict[str]:
        """Another server gets its own key or none; never this client's keys or headers."""
        key = target.api_key if isinstance(target.api_key, Secret) else None
        if target.base_url is not None:
            return _base_headers(key, None, {})
        settings = self.settings
        return _base_headers(key or self._key, settings.openai_api_key, settings.headers)

    def _live_session(self, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
        if self.closed:
            raise ConfigurationError("the client is closed; make a new AsyncKonko")
        if self._loop is loop and self._session is not None and self._forks == lineage.forks:
            if not self._own and self._session.closed:
                raise ConfigurationError("session= is closed; it must stay open for its clients")
            return self._session
        if self._own:
            self._abandon()
            self._session = self._new_session(loop)
        elif self._loop is not None:
            raise ConfigurationError(
                "session= belongs to another event loop or process; make a client per loop, or "
                "leave session= out and one is made for each"
            )
        self._loop, self._forks = loop, lineage.forks
        assert self._session is not None  # noqa: S101 - the user's, or made above
        if self._own:
            made = self._session, loop, self._forks
            watch = weakref.finalize(self, dropped, *made, self.settings)
            watch.atexit = False  # what is left at exit goes with the process
            self._watch = watch
        return self._session

    def _new_session(self, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
        self._hooked = probe().connector
        keepalive = self.settings.keepalive
        if self._hooked:
            self._connector = Connector(loop, keepalive)
        session = aiohttp.ClientSession(
            connector=self._connector
            if self._hooked
            else aiohttp.TCPConnector(**socket_options(keepalive)),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            trust_env=self.settings.trust_env,
            **_HEAD_LIMITS,
        )
        # Instrumentation (OpenTelemetry's, Sentry's) puts its hooks into every new session.
        self._direct = self._hooked and self.fast_path and not session.trace_configs
        return session

    def _unwatch(self) -> None:
        """Warn no longer: the session is closed, or was given up."""
        if self._watch is not None:
            self._watch.detach()
            self._watch = None

    def _abandon(self) -> None:
        """Let go of a session whose loop is gone, or that a fork left here.

        Raises:
            ConfigurationError: its loop runs, in another thread, and uses it.
        """
        session, loop = self._session, self._loop
        if session is None or session.closed:
            return
        forked = self._forks != lineage.forks
        if loop is not None and loop.is_running() and not forked:
            raise ConfigurationError(
                "this client is in use on another event loop, which runs: make a client per loop"
            )
        self._session = None
        self._unwatch()
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
            if self._loop is asyncio.get_running_loop() and self._forks == lineage.forks:
                self.closed = True
                self._session = None
                self._unwatch()
                await session.close()
            else:
                self._abandon()
        self.closed = True


@contextmanager
def _connecting(request: Request) -> Iterator[None]:
    """Let connections that are made meanwhile be bounded and timed for a request."""
    wanted = Connecting(request.call, request.timeout.connect)
    token = connecting.set(wanted)
    try:
        yield
    finally:
        connecting.reset(token)
        request.times.connect = wanted.seconds


class _Outgoing(msgspec.Struct):
    """A request that is ready to be sent; it shows neither the keys nor the prompt in it."""

    _outbox: WriteBatcher
    _parts: tuple[bytes, ...]

    def __call__(self, transport: asyncio.WriteTransport) -> None:
        parts, self._parts = self._parts, ()  # the answer may be waited for a long time
        self._outbox.write(transport, b"".join(parts))

    def __repr__(self) -> str:
        return "<a request>"


# Since 3.14 the number of headers can be bounded, too; before that it is not.
_HEAD_LIMITS: dict[str, Any] = {
    name: value
    for name, value in (
        ("max_line_size", MAX_FIELD_SIZE),
        ("max_field_size", MAX_FIELD_SIZE),
        ("max_headers", MAX_FIELDS),
    )
    if name in inspect.signature(aiohttp.ClientSession).parameters
}


def _secrets_of(settings: Settings) -> list[str]:
    keys = (settings.api_key, settings.openai_api_key)
    given = [key.header() for key in keys if isinstance(key, Secret)]
    return [*given, *secrets_in(settings.headers), *secrets_in(settings.query)]


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


def _for_stream(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    """Return a copy of the headers that asks for an event stream."""
    headers = headers.copy()
    headers[hdrs.ACCEPT] = "text/event-stream"
    # Compressing proxies hold tokens back.
    headers[hdrs.ACCEPT_ENCODING] = "identity"
    return headers


def _is_plain(headers: Mapping[str, str]) -> bool:
    """Whether no header says how the request is to be sent."""
    return _SPECIAL.isdisjoint(map(str.lower, headers))


def _encoded(headers: Mapping[str, str]) -> bytes:
    return b"".join(_line(name, value) for name, value in headers.items())


def _line(name: str, value: str) -> bytes:
    """Return a header as it is sent; in UTF-8, as aiohttp has it.

    Raises:
        ConfigurationError: it holds a line break, by which it could smuggle in another header.
    """
    line = f"{name}: {value}"
    if "\n" in line or "\r" in line or "\0" in line:  # a regular expression takes far longer
        raise ConfigurationError("a header of this request holds a line break or NUL")
    return f"{line}\r\n".encode()
