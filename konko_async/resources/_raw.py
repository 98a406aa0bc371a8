"""``client.request()``: any path of the API through the pipeline, its answer as bytes."""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import msgspec

from konko_async._core.config import check_headers, check_query, masked_values
from konko_async._core.misuse import AsyncContextOnly
from konko_async._core.not_given import given_or
from konko_async._core.secret import masked
from konko_async._engine.engine import CallOptions, Engine
from konko_async._engine.raw import RawEndpoint, RawParams
from konko_async.errors import ConfigurationError, KonkoError

if TYPE_CHECKING:
    from konko_async._core.pipeline import Call, Response
    from konko_async._core.policies import Priority, TimeoutLike
    from konko_async._records import Attempt
    from konko_async._streaming.raw_bytes import RawDecoder
    from konko_async._streaming.reader import StreamReader
    from konko_async.wire import Usage

__all__ = ["RawResponse", "send_raw"]

_METHOD = re.compile(r"[A-Z]{3,12}")
# Of a form (multipart/form-data, RFC 7578) such as that of /audio/transcriptions.
_MODEL_FIELD = re.compile(rb'name="model"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,200})\r\n')
_Body = bytes | Mapping[str, Any] | None


class RawResponse(AsyncContextOnly):
    """An answer as the server sent it; made by :meth:`AsyncKonko.request`.

    Iterate over :meth:`aiter_bytes`, or :meth:`read` it whole. One that is streamed holds its
    connection until it has been read or closed: use it with ``async with``.

    Attributes:
        status_code: 200 to 299; everything else is raised.
        headers: the answer's, case-insensitive, secrets of the request masked.
        request_id: ``x-request-id``, or None.
    """

    __slots__ = (
        "_call", "_content", "_loop", "_owned", "_response", "_taken", "head", "headers",
        "request_id", "status_code",
    )  # fmt: skip

    status_code: int
    headers: Mapping[str, str]
    request_id: str | None

    def __init__(self, response: Response, call: Call) -> None:
        self._response = response
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._content: bytes | None = None
        self._taken = False
        self._owned = True
        self.head: Any
        """The answer's (of the transport): status, headers, request_id and redactor."""
        if response.stream is None:
            self._content = response.result.content
            self.head = response.result.answer
        else:
            self.head = response.stream.answer
        redactor = self.head.redactor
        self.status_code = response.status
        self.headers = redactor.headers(response.headers)
        self.request_id = response.request_id

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        """Yield the body piece by piece, as it comes.

        Raises:
            APIError: it was cut, fell silent, or took too long.
        """
        reader: StreamReader[Any, Any] | None = self._response.stream
        if self._content is not None or reader is None:
            if self._content:
                yield self._content
            return
        self._taken = True
        decoder: RawDecoder = reader.decoder  # type: ignore[assignment]  # what RawEndpoint reads into
        while True:
            more = bool(decoder.ready) or await reader.fill()
            pieces, decoder.ready = decoder.ready, []
            for piece in pieces:
                yield piece
            if not more:
                return

    async def read(self) -> bytes:
        """Return the whole body; may be called again.

        Raises:
            KonkoError: pieces of it have been taken.
            APIError: as for :meth:`aiter_bytes`.
        """
        if self._content is None:
            if self._taken:
                raise KonkoError("the body has been taken piece by piece, and comes only once")
            self._content = b"".join([piece async for piece in self.aiter_bytes()])
        return self._content

    @property
    def content(self) -> bytes:
        """The whole body, once it has been read.

        Raises:
            KonkoError: it has not.
        """
        if self._content is None:
            raise KonkoError("the body has not been read: await response.read(), or parse() it")
        return self._content

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts that were made, oldest first."""
        return tuple(self._call.attempts)

    @property
    def usage(self) -> Usage | None:
        """Tokens used, once the answer has been read; None if it does not tell."""
        return self._response.usage

    @property
    def is_closed(self) -> bool:
        """Whether it holds no connection (any more)."""
        return self._response.closed

    async def close(self) -> None:
        """Give the answer up; the server sees it at once. Idempotent."""
        reader: StreamReader[Any, Any] | None = self._response.stream
        if reader is not None and not reader.ended and reader.decoder.done:
            await reader.fill()  # what follows [DONE]: the connection may be used again
        self._response.close()

    def hand_on(self) -> None:
        """Leave the closing to a stream that has been made of it."""
        self._owned = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        response = getattr(self, "_response", None)
        if response is None or response.closed or not self._owned:
            return
        warnings.warn(
            "unclosed RawResponse: use 'async with', or await response.close()",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )
        if not self._loop.is_closed():
            # The collector may run in any thread.
            self._loop.call_soon_threadsafe(response.close)

    def __repr__(self) -> str:
        return f"<RawResponse {self.status_code}>"


async def send_raw(
    engine: Engine,
    method: str,
    path: str,
    *,
    body: _Body,
    stream: bool,
    headers: Mapping[str, str] | None,
    query: Mapping[str, Any] | None,
    timeout: TimeoutLike | None,  # noqa: ASYNC109 - the same as of every call
    priority: Priority | None,
) -> RawResponse:
    """Make one call of any path; see :meth:`AsyncKonko.request`."""
    method = str(method).upper()
    if _METHOD.fullmatch(method) is None:
        raise ConfigurationError("method must be an HTTP method such as 'POST'")
    _check_path(path)
    params = _params(body)
    given = check_headers(given_or(headers, {}))
    options = CallOptions(
        timeout=given_or(timeout, None),
        priority=given_or(priority, None),
        extra_headers={name: masked(value) for name, value in given.items()},
        extra_query=masked_values(_query(given_or(query, {}))),
    )
    model = None if params is None else params.get("model")
    if not isinstance(model, str):
        found = None if params is None else _MODEL_FIELD.search(params.content)
        model = None if found is None else found[1].decode("utf-8", "replace")
    response, call = await engine.call(
        RawEndpoint(method, path), path, params, model=model, stream=stream, options=options
    )
    return RawResponse(response, call)


def _check_path(path: object) -> None:
    if not isinstance(path, str) or not path.startswith("/"):
        raise ConfigurationError(
            "path must be a path below the base URL that begins with a slash, such as '/responses'"
        )
    # An address would send the key elsewhere, and ".." to what the base URL does not mean.
    if path.startswith("//") or any(part in {".", ".."} for part in path.split("/")):
        raise ConfigurationError("path holds '//' at its start, or a '.' or '..' segment")
    if "?" in path or "#" in path or not path.isprintable():
        raise ConfigurationError(
            "path holds a query, a fragment or a control character; pass query={...}"
        )


def _params(body: _Body) -> RawParams | None:
    if body is None:
        return None
    if isinstance(body, Mapping):
        try:
            return RawParams(msgspec.json.encode(body), body)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"body cannot be written as JSON: {error}") from None
    if not isinstance(body, bytes):
        raise ConfigurationError(f"body must be bytes or a mapping, not {type(body).__name__}")
    try:
        values = msgspec.json.decode(body) if body[:1] == b"{" else {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        values = {}  # passed on as it is: what it means is the server's business
    return RawParams(body, values)


def _query(query: Mapping[str, Any]) -> dict[str, Any]:
    """Check a query, in which a name may stand several times."""
    single = {name: value for name, value in query.items() if not isinstance(value, (list, tuple))}
    several = {
        name: list(map(masked, value)) for name, value in query.items() if name not in single
    }
    for name, values in several.items():
        for value in values:
            check_query("query", {name: value})
    return {**check_query("query", single), **several}
