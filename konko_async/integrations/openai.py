"""The engine under ``openai``'s own client, and so under every framework that is built on it.

``openai.AsyncOpenAI`` takes the HTTP client that it sends with. :func:`http_client` returns one
whose requests go through an :class:`~konko_async.AsyncKonko`: its limits, retries, circuit breaker,
fallbacks, hedging, observers and pool. Bytes pass through as they are, both ways.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from konko_async import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    AsyncKonko,
    CircuitOpenError,
    ConfigurationError,
    KonkoError,
    RateLimitTimeoutError,
    StreamStalledError,
    Timeout,
)

if TYPE_CHECKING:
    from konko_async import RawResponse

__all__ = ["http_client"]

_log = logging.getLogger("konko_async.openai")

# How bytes go over a connection is the pool's business, and the key is the client's.
_NOT_PASSED = frozenset(
    {
        "accept-encoding", "authorization", "connection", "content-length", "host", "keep-alive",
        "transfer-encoding",
    }
)  # fmt: skip
# What is handed on is neither compressed nor chunked any more.
_NOT_RETURNED = frozenset({"connection", "content-encoding", "keep-alive", "transfer-encoding"})
_RAW = "x-stainless-raw-response"
_RETRIES = "x-stainless-retry-count"
_FIRST_REDIRECT, _FIRST_ERROR = 300, 400


def http_client(client: AsyncKonko) -> Any:
    """Return the HTTP client for ``openai.AsyncOpenAI(http_client=...)``.

    It is an ``AsyncClient`` of the library that the installed ``openai`` uses: ``httpx2`` since
    openai 3, ``httpx`` before. Closing it, or the ``AsyncOpenAI`` that has it, leaves ``client``
    open.

    Make the client of ``openai`` with ``base_url=client.base_url``, as requests to other places are
    refused; with any ``api_key``, as that of ``client`` is sent; and with ``max_retries=0``, as
    ``client`` retries. Answers with an error status tell openai not to repeat them
    (``x-should-retry: false``) unless the client was made with ``retry=None``.

    Every path passes: what names a ``model`` (``/responses`` and ``/audio`` too) has the limits of
    that model. ``timeout=`` of ``AsyncOpenAI`` or of a call becomes that of the call here
    (``connect`` as it is, ``read`` as ``first_token`` and ``idle``); without one, and for None, the
    client's hold.

    Args:
        client: stays the caller's, who closes it after ``openai``'s.

    Returns:
        An ``httpx2.AsyncClient`` (or ``httpx.AsyncClient``).

    Raises:
        ConfigurationError: ``openai`` is not installed, or ``client`` is no AsyncKonko.

    Example:
        >>> async def main() -> None:
        ...     async with AsyncKonko() as client:
        ...         openai_client = openai.AsyncOpenAI(
        ...             base_url=client.base_url,
        ...             api_key="held by the client",
        ...             max_retries=0,
        ...             http_client=http_client(client),
        ...         )
    """
    if not isinstance(client, AsyncKonko):
        raise ConfigurationError(
            f"http_client() takes the AsyncKonko that is to send, not {type(client).__name__}"
        )
    httpx = _httpx()
    # openai takes the timeout of an HTTP client for its own where it is not httpx's default (5 s),
    # and sends it with every request. So requests that have just this one have none of their own.
    default = client.timeout
    timeout = httpx.Timeout(
        connect=default.connect, read=default.first_token, write=None, pool=default.idle
    )
    if timeout == httpx.Timeout(5.0):
        timeout = httpx.Timeout(connect=5.0, read=5.0, write=None, pool=None)
    return httpx.AsyncClient(
        base_url=client.base_url,
        transport=_transport(httpx, client, timeout.as_dict()),
        timeout=timeout,
        trust_env=False,
    )


def _httpx() -> Any:
    """Return the HTTP library of the installed ``openai``.

    Raises:
        ConfigurationError: ``openai`` is not installed.
    """
    try:
        openai = importlib.import_module("openai")
    except ImportError:
        raise ConfigurationError(
            "the package openai is not installed: pip install openai"
        ) from None
    for kind in openai.DefaultAsyncHttpxClient.__mro__:
        if kind.__name__ == "AsyncClient":
            return importlib.import_module(kind.__module__.partition(".")[0])
    raise ConfigurationError(
        f"openai {openai.__version__} uses no HTTP library that is known here (httpx2, httpx)"
    )


def _transport(httpx: Any, client: AsyncKonko, default: dict[str, Any]) -> Any:
    """Return the transport; its classes are made here, as two libraries have the same names."""
    sender = _RequestSender(httpx, client, default)

    class Body(httpx.AsyncByteStream):  # type: ignore[misc]  # of the library found at run time
        """The bytes of an answer, as they come."""

        def __init__(self, answer: RawResponse) -> None:
            self._answer = answer

        async def __aiter__(self) -> AsyncIterator[bytes]:
            try:
                async for data in self._answer.aiter_bytes():
                    yield data
            except KonkoError as error:
                raise _translated(httpx, error) from error

        async def aclose(self) -> None:
            await self._answer.close()

    class Transport(httpx.AsyncBaseTransport):  # type: ignore[misc]  # of the library found at run time
        """Sends the requests of ``openai`` through the pipeline of an AsyncKonko."""

        async def handle_async_request(self, request: Any) -> Any:
            answer = await sender.send(request)
            if isinstance(answer, httpx.Response):
                return answer  # that of an error
            headers = _returned(answer.headers)
            return httpx.Response(answer.status_code, headers=headers, stream=Body(answer))

    return Transport()


class _RequestSender:
    """Makes calls of an AsyncKonko out of requests of httpx.

    Args:
        httpx: the library that ``openai`` uses.
        client: sends.
        default: the timeout of requests that have none of their own.
    """

    def __init__(self, httpx: Any, client: AsyncKonko, default: dict[str, Any]) -> None:
        self._httpx = httpx
        self._client = client
        self._default = default
        self._base = httpx.URL(client.base_url)
        self._prefix = self._base.raw_path.rstrip(b"/")

    async def send(self, request: Any) -> Any:
        """Return a RawResponse; of what was refused, a response of httpx."""
        client, httpx = self._client, self._httpx
        path = self._path(request.url)
        content = await request.aread()
        try:
            return await client.request(
                request.method,
                path,
                content or None,
                stream=_is_streamed(request, content),
                headers=_passed(request.headers),
                query=_query(request.url.params),
                timeout=_timeout(client, request, self._default),
            )
        except APIStatusError as error:
            return _refused(client, httpx, error)
        except KonkoError as error:
            answered = getattr(error, "content", None)
            if not isinstance(error, APIError) or answered is None:
                raise _translated(httpx, error) from error
            # An error event that names no status: openai reads it, and raises its own.
            return httpx.Response(200, headers=_returned(error.headers), content=answered)

    def _path(self, url: Any) -> str:
        base, path = self._base, url.raw_path.partition(b"?")[0]
        own = (url.scheme, url.host, url.port) == (base.scheme, base.host, base.port)
        if not own or not path.startswith(self._prefix + b"/"):
            # Not openai's to translate: it is a mistake in the program.
            raise ConfigurationError(
                f"openai's client sends to {url.scheme}://{url.netloc.decode()}, and the one under "
                f"it to {self._client.base_url}: make it with base_url=client.base_url"
            )
        found: str = path.removeprefix(self._prefix).decode()
        return found


def _is_streamed(request: Any, content: bytes) -> bool:
    """Whether the answer is to be read piece by piece."""
    if request.headers.get(_RAW) == "stream":  # with_streaming_response
        return True
    if b'"stream"' not in content or not content.startswith(b"{"):
        return False
    try:
        return msgspec.json.decode(content, type=_Streamed).stream is True
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


class _Streamed(msgspec.Struct):
    stream: Any = None


def _passed(headers: Any) -> dict[str, str]:
    if headers.get(_RETRIES, "0") != "0":
        _log.warning(
            "openai repeats a call that this client has retried already: make it with max_retries=0"
        )
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_PASSED}


def _query(params: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in params:
        values = params.get_list(name)
        found[name] = values[0] if len(values) == 1 else values
    return found


def _timeout(client: AsyncKonko, request: Any, default: dict[str, Any]) -> Timeout | None:
    given = request.extensions.get("timeout") or default
    if all(given.get(name) == value for name, value in default.items()):
        return None
    # Frameworks pass None where their user has said nothing; the client's own deadlines then hold.
    read, connect, own = given.get("read"), given.get("connect"), client.timeout
    return Timeout(
        connect=connect or own.connect,
        first_token=read or own.first_token,
        idle=read or own.idle,
        total=own.total,
    )


def _returned(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    gone = _NOT_RETURNED
    if "content-encoding" in headers:
        gone = _NOT_RETURNED | {"content-length"}  # which counts compressed bytes
    return [(name, value) for name, value in headers.items() if name.lower() not in gone]


def _refused(client: AsyncKonko, httpx: Any, error: APIStatusError) -> Any:
    """Return the answer that an error was made from."""
    headers = [pair for pair in _returned(error.headers) if pair[0].lower() != "content-length"]
    if client.retry is not None:
        # All attempts have been made: openai's own would only multiply them.
        headers = [pair for pair in headers if pair[0].lower() != "x-should-retry"]
        headers.append(("x-should-retry", "false"))
    content = error.content
    if _FIRST_REDIRECT <= error.status_code < _FIRST_ERROR:
        # openai's message would be empty; ours says what to do.
        content = msgspec.json.encode({"error": {"message": error.message}})
        headers = [pair for pair in headers if pair[0].lower() != "content-type"]
        headers.append(("content-type", "application/json"))
    elif content.lstrip().startswith(b"data:"):  # an error event, which is now a status
        content = msgspec.json.encode(error.body)
        headers = [pair for pair in headers if pair[0].lower() != "content-type"]
        headers.append(("content-type", "application/json"))
    return httpx.Response(error.status_code, headers=headers, content=content)


def _translated(httpx: Any, error: KonkoError) -> Exception:
    """Return the error that httpx would raise, for openai to make its own of."""
    if isinstance(error, APITimeoutError):
        kind = httpx.ConnectTimeout if error.phase == "connect" else httpx.ReadTimeout
    elif isinstance(error, StreamStalledError):
        kind = httpx.ReadTimeout
    elif isinstance(error, RateLimitTimeoutError):
        kind = httpx.PoolTimeout  # as a wait for a free connection
    elif isinstance(error, CircuitOpenError):
        kind = httpx.ConnectError
    elif isinstance(error, APIConnectionError):
        kind = httpx.ReadError if error.request_sent else httpx.ConnectError
    elif isinstance(error, APIError):
        kind = httpx.RemoteProtocolError
    else:
        return error  # a mistake in the program, such as a client that is closed
    made: Exception = kind(error.message)
    return made
