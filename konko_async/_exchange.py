"""The innermost layer: one attempt, from the request to a decoded answer or an opened stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from konko_async._foreign import FOREIGN, translate
from konko_async._pipeline import Request, Response
from konko_async._server_errors import redirect_error, status_error
from konko_async._transport import Answer, Transport
from konko_async.errors import (
    APIError,
    APITimeoutError,
    KonkoError,
    ResponseDecodeError,
)

if TYPE_CHECKING:
    from konko_async.errors import Phase

__all__ = ["Exchange"]

_ERROR_BODY = 64 * 1024
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
        now = loop.time()
        call = request.call
        call.doing = "waiting for the answer"
        due, phase = self._due(request, now)
        try:
            async with asyncio.timeout_at(due) as scope:
                answer = await self._transport.open(request)
                try:
                    return await self._read(request, answer, scope)
                except BaseException:
                    answer.abort()
                    raise
        except TimeoutError as error:
            if isinstance(error, KonkoError):
                raise
        raise self._late(request, phase, now)

    def _due(self, request: Request, now: float) -> tuple[float | None, Phase]:
        """Return the earliest deadline and its name."""
        due, phase = request.call.deadline, "total"
        for seconds in (request.timeout.first_token, self._attempt_timeout):
            if seconds is not None and (due is None or now + seconds < due):
                due, phase = now + seconds, "first_token"
        return due, phase  # type: ignore[return-value]  # the literals of Phase

    def _late(self, request: Request, phase: Phase, started: float) -> APITimeoutError:
        waited = asyncio.get_running_loop().time() - started
        what = {
            "total": "the call's total timeout passed",
            "first_token": "no first token came" if request.stream else "no answer came",
        }[phase]
        return APITimeoutError(f"{what} after {waited:.3g} s of this attempt", phase=phase)

    async def _read(self, request: Request, answer: Answer, scope: asyncio.Timeout) -> Response:
        response = Response(answer.status, answer.headers, answer.request_id)
        if answer.status >= _FIRST_ERROR:
            raise await self._refusal(answer)
        if request.stream:
            feed = request.operation.open_stream(request, answer)
            try:
                await feed.prime()
            except BaseException:
                feed.close("error")
                raise
            response.stream = feed
            response.first_token_at = asyncio.get_running_loop().time()
            request.call.open_responses.append(response)
            return response
        body = await self._body(request, answer, scope)
        try:
            response.result = request.operation.decode(body, answer)
        except APIError as error:
            error.request_id = answer.request_id
            raise
        response.first_token_at = asyncio.get_running_loop().time()
        response.finish("ok", getattr(response.result, "usage", None))
        return response

    async def _body(self, request: Request, answer: Answer, scope: asyncio.Timeout) -> bytes:
        """Read a whole body: at most so much, and never silent for longer than idle."""
        parts: list[bytes] = []
        size = 0
        while True:
            data = await self._some(request, answer, scope)
            if not data:
                break
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
                break
        answer.release()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _some(self, request: Request, answer: Answer, scope: asyncio.Timeout) -> bytes:
        if not answer.received_all:
            self._watch_idle(request, scope)
        try:
            return await answer.read()
        except FOREIGN as error:
            failure = translate(error, answer.host)
        if isinstance(failure, APIError):
            failure.request_id = answer.request_id
        raise failure

    def _watch_idle(self, request: Request, scope: asyncio.Timeout) -> None:
        """The head has come: from here on silence is bounded by idle, not by first_token."""
        idle = request.timeout.idle
        dues = [request.call.deadline]
        if idle is not None:
            dues.append(asyncio.get_running_loop().time() + idle)
        if not scope.expired():
            scope.reschedule(min((due for due in dues if due is not None), default=None))

    async def _refusal(self, answer: Answer) -> APIError:
        if answer.status < _FIRST_AFTER_REDIRECTS:
            return redirect_error(answer.status, answer.headers, answer.request_id)
        body = b""
        try:
            while len(body) < _ERROR_BODY and (data := await answer.read()):
                body += data
        except FOREIGN:
            pass  # what was read of the explanation has to do
        if answer.at_eof:
            answer.release()
        return status_error(answer.status, answer.headers, body[:_ERROR_BODY], answer.request_id)
