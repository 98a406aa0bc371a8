"""The innermost layer: one attempt, from the request to a decoded answer or an opened stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

from konko_async._deadline import Deadline, earliest
from konko_async._foreign import FOREIGN, translate
from konko_async._pipeline import Request, Response
from konko_async._server_errors import redirect_error, status_error
from konko_async._transport import Answer, Transport
from konko_async.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    KonkoError,
    ResponseDecodeError,
)

if TYPE_CHECKING:
    from konko_async._feed import Feed

__all__ = ["Exchange"]

_ERROR_BODY = 64 * 1024
_ERROR_PATIENCE = 5.0  # seconds of silence in the middle of an explanation; the status is known
_FIRST_SUCCESS = 200
_FIRST_ERROR = 300
_FIRST_AFTER_REDIRECTS = 400


class Exchange:
    """Sends one attempt and reads its answer, within the attempt's deadlines.

    Args:
        transport: the pool.
        max_body_bytes: cap of a whole answer, after decompression.
        attempt_timeout: seconds for one attempt, or None.
    """

    __slots__ = ("_attempt_timeout", "_max_body", "_transport")

    def __init__(
        self, transport: Transport, *, max_body_bytes: int, attempt_timeout: float | None
    ) -> None:
        self._transport = transport
        self._max_body = max_body_bytes
        self._attempt_timeout = attempt_timeout

    async def __call__(self, request: Request) -> Response:
        """Return the answer: its body read and decoded, or its stream open at the first delta."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        request.call.doing = "waiting for the answer"
        last = request.call.deadline
        if self._attempt_timeout is not None:
            last = earliest(last, started + self._attempt_timeout)
        first_token = request.timeout.first_token
        due = last if first_token is None else earliest(last, started + first_token)
        try:
            with Deadline(loop, due, last) as deadline:
                answer = await self._transport.open(request)
                try:
                    if not _FIRST_SUCCESS <= answer.status < _FIRST_ERROR:
                        await self._refuse(request, answer, deadline)
                    if request.stream:
                        feed = request.operation.open_stream(request, answer)
                        try:
                            # Not opened before the first delta: until then it may be retried. A
                            # failure in one read with it comes after it, as if they came apart.
                            while not feed.accumulated.has_delta and await feed.fill():
                                pass
                        except BaseException:
                            feed.close("error")
                            raise
                        return _opened(request, answer, feed, loop.time())
                    # A body that has come with its head, as most do, needs no coroutine.
                    body = answer.at_hand(self._max_body)
                    if body is None:
                        body = await self._body(request, answer, deadline)
                    return _decoded(request, answer, body, loop.time())
                except BaseException:
                    answer.abort()
                    raise
        except TimeoutError as error:
            if isinstance(error, KonkoError):
                raise
        raise _late(request, started)

    async def _refuse(self, request: Request, answer: Answer, deadline: Deadline) -> NoReturn:
        """Raise the error that an answer which is none stands for."""
        if answer.status < _FIRST_SUCCESS:
            raise APIConnectionError(
                f"{answer.host} broke the HTTP protocol (status {answer.status})"
            )
        deadline.allow(None)
        body = self._transport.scrub(await _explanation(answer, request.timeout.idle))
        raise _refusal(answer, body)

    async def _body(self, request: Request, answer: Answer, deadline: Deadline) -> bytes:
        """Read a whole body: at most so much, and never silent for longer than idle."""
        parts: list[bytes] = []
        size = 0
        while True:
            try:
                # The head has come: from now on silence is bounded by idle, not by first_token.
                deadline.allow(request.timeout.idle)
                data = await answer.read()
            except FOREIGN as error:
                failure = translate(error, answer.host)
                break
            if not data:
                return _whole(answer, parts)
            parts.append(data)
            size += len(data)
            if size > self._max_body:
                raise ResponseDecodeError(
                    f"the answer is longer than max_body_bytes ({self._max_body})",
                    body=parts[0][:4096],
                    offset=size,
                    request_id=answer.request_id,
                )
            if answer.at_eof:
                return _whole(answer, parts)
        if isinstance(failure, APIError):
            failure.request_id = answer.request_id
        raise failure


def _whole(answer: Answer, parts: list[bytes]) -> bytes:
    answer.release()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _opened(request: Request, answer: Answer, feed: Feed[Any, Any], now: float) -> Response:
    """Return the response of a stream that has had its first delta."""
    response = Response(answer.status, answer.headers, answer.request_id)
    response.stream = feed
    response.first_token_at = now
    request.call.open_responses.append(response)
    return response


def _decoded(request: Request, answer: Answer, body: bytes, now: float) -> Response:
    """Return the response of a whole answer."""
    response = Response(answer.status, answer.headers, answer.request_id)
    try:
        response.result = request.operation.decode(body, answer)
    except APIError as error:
        error.request_id = answer.request_id
        raise
    response.first_token_at = now
    response.finish("ok", getattr(response.result, "usage", None))
    return response


async def _explanation(answer: Answer, idle: float | None) -> bytes:
    """Read what a refusal says, up to 64 KiB of it and for a few seconds."""
    body = b""
    try:
        async with asyncio.timeout(earliest(idle, _ERROR_PATIENCE)):
            while len(body) < _ERROR_BODY and (data := await answer.read()):
                body += data
    except (TimeoutError, *FOREIGN):
        pass  # what was read of the explanation has to do
    if answer.at_eof:
        answer.release()
    else:
        answer.abort()
    return body[:_ERROR_BODY]


def _refusal(answer: Answer, body: bytes) -> APIError:
    if answer.status < _FIRST_AFTER_REDIRECTS:
        return redirect_error(answer.status, answer.headers, answer.request_id)
    return status_error(answer.status, answer.headers, body, answer.request_id)


def _late(request: Request, started: float) -> APITimeoutError:
    now = asyncio.get_running_loop().time()
    deadline = request.call.deadline
    after = f"after {now - started:.3g} s of this attempt"
    if deadline is not None and now >= deadline:
        return APITimeoutError(f"the call's total timeout passed {after}", phase="total")
    what = "no first token came" if request.stream else "no whole answer came"
    return APITimeoutError(f"{what} {after}", phase="first_token")
