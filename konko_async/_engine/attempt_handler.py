"""One attempt: written down, kept from a sick server, admitted by the limits, sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from konko_async._core.pipeline import Handler, Request, Response
    from konko_async.middleware import CircuitBreakerMiddleware
    from konko_async.middleware._limits import AttemptLimits
    from konko_async.middleware._telemetry import AttemptLog

__all__ = ["AttemptHandler"]


class AttemptHandler:
    """The innermost handler: the layers of an attempt that act before and after it.

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
        self._send = send
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
        loop = asyncio.get_running_loop()
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
