"""One attempt: kept from a sick server, admitted by the limits, sent, its answer read, recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

from konko_async._core.deadline import Deadline, DeadlineQueue, earliest
from konko_async._core.pipeline import Request, Response, direct
from konko_async._http.error_responses import redirect_error, status_error
from konko_async._http.hints import add_hint
from konko_async._http.map_exceptions import FOREIGN, translate
from konko_async._http.session import OpenResponse, Transport
from konko_async.errors import (
    APIConnectionError,
    APIError,
    APITimeoutError,
    ConfigurationError,
    ResponseDecodeError,
)
from konko_async.wire._base import Received

if TYPE_CHECKING:
    from konko_async._core.pipeline import Handler
    from konko_async.middleware import CircuitBreakerMiddleware
    from konko_async.middleware._limits import AttemptLimits
    from konko_async.middleware._telemetry import AttemptLog

__all__ = ["AttemptHandler", "Exchange"]

_ERROR_BODY = 64 * 1024
_ERROR_PATIENCE = 5.0  # seconds of silence in the middle of an explanation; the status is known
_TIMERS_EARLY = 0.001  # seconds: uvloop rounds times to milliseconds, so that a timer may be early
_FIRST_SUCCESS = 200
_FIRST_ERROR = 300
_FIRST_AFTER_REDIRECTS = 400


class AttemptHandler:
    """The innermost handler: what acts before and after an attempt.

    They share one coroutine, as one for each would cost a tenth of the CPU of a whole answer.

    Args:
        send: makes the request and reads the answer.
        log: writes the attempt down; None where that is done outside the user's own layers.
        breaker: lets it pass or not; None: always.
        limits: admit it.
    """

    __slots__ = ("_breaker", "_limits", "_log", "_send")

    def __init__(
        self,
        send: Handler,
        *,
        log: AttemptLog | None,
        breaker: CircuitBreakerMiddleware | None,
        limits: AttemptLimits,
    ) -> None:
        self._send = direct(send)
        self._log = log
        self._breaker = breaker
        self._limits = limits

    async def __call__(self, request: Request) -> Response:
        """Return the answer.

        Raises:
            CircuitOpenError: the server has been failing; nothing was sent.
            RateLimitTimeoutError: the attempt cannot be admitted before its deadline.
            APIError: it failed.
        """
        loop = request.call.loop
        started = loop.time()
        times = request.times
        times.queued, times.connect = 0.0, None  # facts of each attempt
        log, breaker, limits = self._log, self._breaker, self._limits
        passed, lane, permit = None, None, None
        try:
            # The breaker first: an attempt that it refuses must not use up a limit, or wait for
            # one.
            if breaker is not None:
                passed = breaker.enter(request, started)
            lane, permit = limits.enter(request)
            if lane is not None and permit is None:
                permit = await limits.wait(request, lane)
            response = await self._send(request)
        except BaseException as error:
            now = loop.time()
            # Undone from the inside out, as layers of their own would be. Without a permit nothing
            # was sent, and there is nothing to settle.
            if lane is not None and permit is not None:
                limits.failed(lane, permit, error)
            if breaker is not None and passed is not None:
                breaker.failed(passed, error, now)
            if log is not None:
                log.write(request, started, now, None, error)
            raise
        # By the exchange's clock: an answer that is whole has just come to its end.
        now = response.first_token_at or loop.time()
        # A stream is not over: limits settle at its end, while breaker and log count its first
        # delta.
        if lane is not None and permit is not None:
            limits.answered(lane, permit, response)
        if breaker is not None and passed is not None:
            breaker.answered(passed, now)
        if log is not None:
            log.write(request, started, now, response, None)
        return response


class Exchange:
    """Sends one attempt and reads its answer, within the attempt's deadlines.

    Args:
        transport: the pool.
        max_body_bytes: cap of a whole answer, after decompression.
        attempt_timeout: seconds for one attempt, or None.
    """

    __slots__ = ("_attempt_timeout", "_deadlines", "_max_body", "_transport")

    def __init__(
        self, transport: Transport, *, max_body_bytes: int, attempt_timeout: float | None
    ) -> None:
        self._transport = transport
        self._max_body = max_body_bytes
        self._attempt_timeout = attempt_timeout
        self._deadlines: DeadlineQueue | None = None  # of the loop that made the last attempt

    async def __call__(self, request: Request) -> Response:
        """Return the answer: its body read and decoded, or its stream open at the first delta."""
        call = request.call
        loop = call.loop
        started = loop.time()
        call.doing = "waiting for the answer"
        last = call.deadline
        if self._attempt_timeout is not None:
            last = earliest(last, started + self._attempt_timeout)
        first_token = request.timeout.first_token
        due = last if first_token is None else earliest(last, started + first_token)
        deadlines = self._deadlines
        if deadlines is None or deadlines.loop is not loop:
            deadlines = self._deadlines = DeadlineQueue(loop)
        answer: OpenResponse | None = None
        try:
            with Deadline(deadlines, due, last) as deadline:
                answer = await self._transport.open(request)
                try:
                    if not _FIRST_SUCCESS <= answer.status < _FIRST_ERROR:
                        await self._refuse(request, answer, deadline)
                    if not request.stream:
                        # A body that has come with its head, as most do, needs no coroutine.
                        body = answer.at_hand(self._max_body)
                        if body is None:
                            body = await self._body(request, answer, deadline)
                        return _decoded(request, answer, body, loop.time())
                # A connection with an answer half read cannot go back to the pool.
                except BaseException:
                    answer.abort()
                    raise
            # From the head on, the deadlines of a stream are its reader's.
            return await _opened(request, answer, due)
        except APIError as error:
            failure = self._shown(request, answer, error)
            body = None  # a traceback that shows locals starts here, and this is as it was sent
        except TimeoutError:
            failure = _late(request, started)
        try:
            raise failure
        finally:
            del failure  # this frame would hold it, and its traceback this frame

    async def replay(self, request: Request, answer: Any, body: bytes) -> Response:
        """Return the response of an answer that was received before.

        Args:
            request: the call's.
            answer: has the interface of an ``Answer``.
            body: of it.

        Raises:
            APIError: it cannot be read.
        """
        if request.stream:
            return await _opened(request, answer, None)
        return _decoded(request, answer, body, request.call.loop.time())

    def _shown(self, request: Request, answer: OpenResponse | None, error: APIError) -> APIError:
        """Return an error as the user may see it: with a hint, and without secrets."""
        if answer is not None:
            if not error.headers:
                error.headers = {name.lower(): value for name, value in answer.headers.items()}
            add_hint(error, answer.headers, self._transport.base_url(request))
        return self._transport.redactor(request).error(error)

    async def _refuse(self, request: Request, answer: OpenResponse, deadline: Deadline) -> NoReturn:
        """Raise the error that an answer without a 2xx status stands for."""
        if answer.status < _FIRST_SUCCESS:
            raise APIConnectionError(
                f"{answer.host} broke the HTTP protocol (status {answer.status})"
            )
        # The status is known: from here on the first-token deadline must not turn it into a
        # timeout.
        deadline.allow(None)
        raise _refusal(answer, await _explanation(answer, request.timeout.idle))

    async def _body(self, request: Request, answer: OpenResponse, deadline: Deadline) -> bytes:
        """Read a whole body: at most so much, and never silent for longer than idle."""
        # A list, whose parts are joined; or a file, which has no cap and is not in memory.
        parts = _sink(request)
        kept, size = isinstance(parts, list), 0
        try:
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
                if kept and size > self._max_body:
                    raise ResponseDecodeError(
                        f"the answer is longer than max_body_bytes ({self._max_body})",
                        body=parts[0][:4096],
                        offset=size,
                        request_id=answer.request_id,
                    )
                if answer.at_eof:
                    return _whole(answer, parts)
        except OSError as error:
            failure = ConfigurationError(f"the answer cannot be written: {error.strerror or error}")
        finally:
            if not kept:
                parts.close()
        if isinstance(failure, APIError):
            failure.request_id = answer.request_id
        try:
            raise failure
        finally:
            del failure  # this frame would hold it, and its traceback this frame


def _sink(request: Request) -> Any:
    """Return what takes the parts of a body.

    Raises:
        ConfigurationError: it is a file, and cannot be opened.
    """
    try:
        return request.operation.sink(request.params)
    except OSError as error:
        problem = f"the answer cannot be written: {error.strerror or error}"
    raise ConfigurationError(problem)


def _whole(answer: OpenResponse, parts: Any) -> bytes:
    answer.release()
    if not isinstance(parts, list):  # it is where it belongs already
        return b""
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _opened(request: Request, answer: OpenResponse, due: float | None) -> Response:
    """Return the response of a stream that has had its first delta.

    Until then the attempt may be repeated. A failure in one read with the first delta comes after
    it, as if they came apart.
    """
    response = Response(answer.status, answer.headers, answer.request_id)
    reader = response.stream = request.operation.open_stream(request, answer, response, due)
    try:
        while not reader.accumulated.has_delta and await reader.fill():
            pass
    except BaseException:
        reader.close("error")
        raise
    response.first_token_at = request.call.loop.time()
    # Until the caller has it: middleware that drops it would leave the connection open.
    request.call.open_responses.append(response)
    return response


def _decoded(request: Request, answer: OpenResponse, body: bytes, now: float) -> Response:
    """Return the response of a whole answer."""
    try:
        result = request.operation.decode(body, answer, request.params)
    except APIError as error:
        error.request_id = answer.request_id
        raise
    raw = getattr(result, "_raw", None)
    if raw is not None:  # the head goes with the JSON
        result._raw = Received(raw, answer.headers, answer.redactor)  # noqa: SLF001 - Wire's slot
    # A whole answer has ended here: the layers outside see it closed, and settle at once.
    return Response(
        answer.status,
        answer.headers,
        answer.request_id,
        result=result,
        usage=getattr(result, "usage", None),
        first_token_at=now,
        closed=True,
    )


async def _explanation(answer: OpenResponse, idle: float | None) -> bytes:
    """Read the body of an error answer, up to 64 KiB of it and for a few seconds."""
    body = answer.at_hand(_ERROR_BODY)  # most come with their head, as bodies of answers do
    if body is None:
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


def _refusal(answer: OpenResponse, body: bytes) -> APIError:
    if answer.status < _FIRST_AFTER_REDIRECTS:
        return redirect_error(answer.status, answer.headers, answer.request_id)
    return status_error(answer.status, answer.headers, body, answer.request_id)


def _late(request: Request, started: float) -> APITimeoutError:
    call = request.call
    now, deadline = call.loop.time(), call.deadline
    after = f"after {now - started:.3g} s of this attempt"
    if deadline is not None and now >= deadline - _TIMERS_EARLY:
        return APITimeoutError(f"the call's total timeout passed {after}", phase="total")
    what = "no first token came" if request.stream else "no whole answer came"
    return APITimeoutError(f"{what} {after}", phase="first_token")
