"""``with_raw_response`` and ``with_streaming_response``: answers with the HTTP around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, Self, TypeVar

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from konko_async._core.misuse import AsyncContextOnly
from konko_async._engine.raw import RawEndpoint
from konko_async.resources._raw import RawResponse
from konko_async.wire._base import Received
from konko_async.wire._json import decode_json

if TYPE_CHECKING:
    from functools import partial

    from konko_async._engine.engine import CallOptions, Engine
    from konko_async._engine.operations import ApiOperation

__all__ = ["APIResponse", "HTTPRequest", "PreparedCall", "StreamedAPIResponse", "raw", "streamed"]

P = ParamSpec("P")
# As openai's own client says it; servers and proxies count by them.
_SAYS = {"X-Stainless-Lang": "python"}
_RAW = "X-Stainless-Raw-Response"


class HTTPRequest:
    """What was sent.

    Attributes:
        method: such as ``POST``.
        url: without the query.
        headers: those of this call, case-insensitive; those that every call has, the keys among
            them, are not shown.
        content: the body.
    """

    __slots__ = ("content", "headers", "method", "url")

    def __init__(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> None:
        self.method = method
        self.url = url
        self.headers: Mapping[str, str] = CIMultiDictProxy(CIMultiDict(headers))
        self.content = content

    def __repr__(self) -> str:
        return f"<HTTPRequest {self.method} {self.url}>"


class SentCall(NamedTuple):
    """An answer, what was sent, and what reads the answer as its result."""

    answer: RawResponse
    request: HTTPRequest
    read: Callable[[], Any]
    is_stream: bool


class PreparedCall:
    """A call whose arguments have been checked, before it is sent.

    Args:
        engine: sends it.
        endpoint: decodes the answer.
        path: below the base URL.
        body: a wire struct, or None.
        options: of the call.
        result: makes the result out of a decoded answer (or of an opener of a stream).
        helper: the method's name for the server, where it is not the endpoint's own.
    """

    __slots__ = ("_body", "_endpoint", "_engine", "_helper", "_options", "_path", "_result")

    def __init__(
        self,
        engine: Engine,
        endpoint: ApiOperation,
        *,
        path: str,
        body: Any,
        options: CallOptions,
        result: Callable[[Any], Any],
        helper: str | None = None,
    ) -> None:
        self._engine = engine
        self._endpoint = endpoint
        self._path = path
        self._body = body
        self._options = options
        self._result = result
        self._helper = helper

    @classmethod
    def of(
        cls,
        engine: Engine,
        opened: partial[Any],
        result: Callable[[Any], Any],
        *,
        helper: str | None = None,
    ) -> Self:
        """Return the call that a resource would make by ``opened``."""
        endpoint, body, options = opened.args
        return cls(
            engine,
            endpoint,
            path=endpoint.path,
            body=body,
            options=options,
            result=result,
            helper=helper,
        )

    async def result(self) -> Any:
        """Send it the usual way, and return what it returns."""
        response, _ = await self._engine.call(
            self._endpoint, self._path, self._body, model=None, options=self._options
        )
        return self._result(response.result)

    async def send(self, *, streaming: bool) -> SentCall:
        """Send it; ``streaming`` leaves the body to be read."""
        engine, endpoint, body = self._engine, self._endpoint, self._body
        is_stream = bool(getattr(body, "stream", None))
        says = {**_SAYS, _RAW: "stream" if streaming else "true"}
        if self._helper is not None:
            says["X-Stainless-Helper-Method"] = self._helper
        if streaming and not is_stream:
            says["Accept"] = "application/json"
        headers = {**says, **(self._options.extra_headers or {})}
        options = msgspec.structs.replace(self._options, extra_headers=headers)
        model = getattr(body, "model", None)
        operation = RawEndpoint(endpoint.method, self._path)
        if engine.policies.verify_models and model is not None and endpoint.name != "embeddings":
            await engine.index.check(model, "chat" if endpoint.name == "chat" else "text")
        response, call = await engine.call(
            operation,
            self._path,
            body,
            model=model,
            stream=is_stream or streaming,
            options=options,
        )
        answer = RawResponse(response, call)
        sent = HTTPRequest(
            endpoint.method,
            engine.settings.base_url + self._path,
            {**engine.settings.headers, **engine.policies.headers, **headers},
            operation.encode(body) or b"",
        )

        def read() -> Any:
            head = answer.head
            if not is_stream:
                content = answer.content
                value = endpoint.decode(content, head, body)
                text = getattr(value, "_raw", None)
                if text is not None and not isinstance(text, Received):
                    value._raw = Received(text, head.headers, head.redactor)  # noqa: SLF001 - the slot of Wire
                return self._result(value)
            endpoint.decode_from_here(response.stream, body)
            answer.hand_on()

            async def opened() -> Any:
                return response, call

            return _open_now(self._result(opened))

        return SentCall(answer, sent, read, is_stream)


def _open_now(stream: Any) -> Any:
    """Open a stream whose answer is there: nothing is waited for, so no loop is needed."""
    try:
        stream._open().send(None)  # noqa: SLF001 - a stream is opened by its resource
    except StopIteration:
        return stream
    raise AssertionError("the answer is there")


class _Response:
    """What both kinds of responses have in common."""

    __slots__ = ("_answer", "_closed", "_parsed", "_read", "_streams", "http_request")

    http_request: HTTPRequest

    def __init__(self, call: SentCall, *, closed: bool) -> None:
        self._answer = call.answer
        self._streams = call.is_stream
        sent, read = call.request, call.read
        self._read = read
        self._closed = closed
        self._parsed: Any = None
        self.http_request = sent

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's, case-insensitive."""
        return self._answer.headers

    @property
    def status_code(self) -> int:
        """The HTTP status."""
        return self._answer.status_code

    @property
    def request_id(self) -> str | None:
        """``x-request-id``, or None."""
        return self._answer.request_id

    @property
    def url(self) -> str:
        """Where the request went, without its query."""
        return self.http_request.url

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.http_request.method

    @property
    def retries_taken(self) -> int:
        """How often it was tried again."""
        return max(0, len(self._answer.attempts) - 1)

    @property
    def is_closed(self) -> bool:
        """Whether it holds no connection, or was closed."""
        return self._closed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status_code} {self.method} {self.url}>"


R = TypeVar("R")


class APIResponse(_Response, Generic[R]):
    """The answer of ``with_raw_response``: HTTP as it came, and :meth:`parse`."""

    __slots__ = ()

    @property
    def content(self) -> bytes:
        """The body; of a stream use :meth:`parse`."""
        return self._answer.content

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the body, decoded."""
        return decode_json(self.content)

    def parse(self) -> R:
        """Return what the call returns without ``with_raw_response``; the same each time."""
        if self._parsed is None:
            self._parsed = self._read()
        return self._parsed  # type: ignore[no-any-return]  # what the method returns


class StreamedAPIResponse(_Response, Generic[R]):
    """The answer of ``with_streaming_response``: its body is read only when somebody asks."""

    __slots__ = ()

    async def read(self) -> bytes:
        """Return the whole body."""
        return await self._answer.read()

    async def text(self) -> str:
        """Return the whole body as text."""
        return (await self.read()).decode("utf-8", "replace")

    async def json(self) -> Any:
        """Return the whole body, decoded."""
        return decode_json(await self.read())

    async def iter_bytes(self) -> AsyncIterator[bytes]:
        """Yield the body piece by piece, as it comes."""
        async for piece in self._answer.aiter_bytes():
            yield piece

    async def iter_lines(self) -> AsyncIterator[str]:
        """Yield the body's lines, without their ends."""
        left = b""
        async for piece in self._answer.aiter_bytes():
            *lines, left = (left + piece).split(b"\n")
            for line in lines:
                yield line.removesuffix(b"\r").decode("utf-8", "replace")
        if left:
            yield left.decode("utf-8", "replace")

    async def parse(self) -> R:
        """Return what the call returns without ``with_streaming_response``."""
        if self._parsed is None:
            if not self._streams:
                await self._answer.read()
            self._parsed = self._read()
        return self._parsed  # type: ignore[no-any-return]  # what the method returns

    async def close(self) -> None:
        """Give the answer up; idempotent."""
        self._closed = True
        await self._answer.close()


class _Opening(AsyncContextOnly, Generic[R]):
    """What ``async with`` opens a streamed response by."""

    __slots__ = ("_call", "_response")

    def __init__(self, call: PreparedCall) -> None:
        self._call = call
        self._response: StreamedAPIResponse[R] | None = None

    async def __aenter__(self) -> StreamedAPIResponse[R]:
        self._response = StreamedAPIResponse(await self._call.send(streaming=True), closed=False)
        return self._response

    async def __aexit__(self, *_: object) -> None:
        if self._response is not None:
            await self._response.close()


def raw(prepare: Callable[P, PreparedCall]) -> Callable[P, Coroutine[Any, Any, APIResponse[Any]]]:
    """Return the method of ``with_raw_response`` for one that prepares a call."""

    async def send(*arguments: P.args, **keywords: P.kwargs) -> APIResponse[Any]:
        call = await prepare(*arguments, **keywords).send(streaming=False)
        return APIResponse(call, closed=not call.is_stream)

    return send


def streamed(prepare: Callable[P, PreparedCall]) -> Callable[P, _Opening[Any]]:
    """Return the method of ``with_streaming_response`` for one that prepares a call."""

    def open_(*arguments: P.args, **keywords: P.kwargs) -> _Opening[Any]:
        return _Opening(prepare(*arguments, **keywords))

    return open_
