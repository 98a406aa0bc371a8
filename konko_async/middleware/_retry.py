"""Retry: tenacity inside, the real error outside; only what fails before the first delta."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from typing import TYPE_CHECKING, Protocol

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from konko_async._records import Attempt
from konko_async._work import resting
from konko_async.errors import (
    APIConnectionError,
    APIStatusError,
    CircuitOpenError,
    KonkoError,
    RateLimitError,
    RateLimitTimeoutError,
    ResponseDecodeError,
    StreamError,
    StreamServerError,
)
from konko_async.middleware._classify import blames_request, is_out_of_credit, named_status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from konko_async._options import RetryPolicy
    from konko_async._pipeline import Handler, Request, Response
    from konko_async.middleware._budget import RetryBudget

__all__ = ["RetryMiddleware", "is_retryable"]

_log = logging.getLogger("konko_async.retry")

_IDEMPOTENCY_KEY = "Idempotency-Key"
# Up to a fifth is added to a wait that the server asked for, so that its clients do not come back
# together, and never before the time it named.
_SPREAD = 0.2


class Random(Protocol):
    """What the back-off draws from: the module ``random`` or a ``random.Random(seed)``."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between ``a`` and ``b``."""


def is_retryable(error: BaseException, policy: RetryPolicy) -> bool:
    """Tell whether a repetition of the same request may mend ``error``.

    It may for connection errors and timeouts of one attempt, the statuses of the policy, answers
    and streams cut short, and error events that do not blame the request. The header
    ``x-should-retry`` (``true`` or ``false``) overrides the statuses. A used-up credit, an open
    circuit and a refusal of the local limits are never retried.

    Args:
        error: what an attempt raised before its first delta.
        policy: gives the statuses.
    """
    if isinstance(error, (APIConnectionError, ResponseDecodeError)):
        return error.retryable
    if is_out_of_credit(error):
        return False
    if isinstance(error, APIStatusError):
        asked = error.headers.get("x-should-retry", "").strip().lower()
        if asked in {"true", "false"}:
            return asked == "true"
        return error.status_code in policy.statuses
    if isinstance(error, StreamServerError):
        status = named_status(error)
        return not blames_request(error) if status is None else status in policy.statuses
    return isinstance(error, StreamError)


class RetryMiddleware:
    """Repeats attempts that failed, as :class:`~konko_async.RetryPolicy` says.

    A POST gets one ``Idempotency-Key`` for all its attempts (128 random bits from the operating
    system, so that they are unique over processes and forks and cannot be guessed), unless the
    caller set a header of that name. An error that is not retried is raised as it is, at once; a
    note on it (``__notes__``) says so where the attempts alone do not tell why: the server asks
    for too long a wait, the total deadline would pass, the budget is empty.

    Args:
        policy: when and how to retry.
        budget: shared by all calls of a client; None for none. A retry after a 429 that named a
            wait is by the server's invitation and costs nothing; every other one costs a token.
        rng: source of the jitter. Default: the module ``random``.
    """

    __slots__ = ("_budget", "_policy", "_rng")

    def __init__(
        self, policy: RetryPolicy, budget: RetryBudget | None, *, rng: Random = random
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._rng = rng

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Send ``request``, again if need be, and return the first answer.

        Raises:
            KonkoError: the last attempt's error.
        """
        headers = request.headers
        if request.operation.method == "POST" and not (headers and _has_key(headers)):
            key = f"konko-{os.urandom(16).hex()}"
            request = request.replace(headers={**headers, _IDEMPOTENCY_KEY: key})
        try:
            response = await call_next(request)
        except KonkoError as error:
            if not is_retryable(error, self._policy):
                raise
            first = error
        else:
            if self._budget is not None:
                self._budget.record_success()
            return response
        # Outside the handler: later errors are not to be chained to the first one. tenacity comes
        # in only here, as its bookkeeping costs more than all the rest of a call that ends well.
        series = _Series(self._policy, self._budget, self._rng, request, call_next)
        response = await series.run(first)
        if self._budget is not None:
            self._budget.record_success()
        return response


def _has_key(headers: Mapping[str, str]) -> bool:
    return any(name.lower() == "idempotency-key" for name in headers)


async def _pause(seconds: float) -> None:
    with resting():
        await asyncio.sleep(seconds)


class _Series:
    """The attempts of one call after the first, which has failed."""

    __slots__ = ("budget", "call_next", "error", "number", "policy", "request", "rng")

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget | None,
        rng: Random,
        request: Request,
        call_next: Handler,
    ) -> None:
        self.policy = policy
        self.budget = budget
        self.rng = rng
        self.request = request
        self.call_next = call_next
        self.number = 0

    async def run(self, first: KonkoError) -> Response:
        self.error: KonkoError = first
        retrying = AsyncRetrying(
            sleep=_pause,
            retry=retry_if_exception(lambda error: is_retryable(error, self.policy)),
            wait=self.wait,
            stop=self.stop,
            before_sleep=self.before_sleep,
            reraise=True,
        )
        response: Response = await retrying(self.attempt)
        return response

    async def attempt(self) -> Response:
        self.number += 1
        if self.number == 1:
            raise self.error  # made before tenacity was asked; this tells it the outcome
        previous = self.error
        # The time in queues and the connection are facts of each attempt.
        request = self.request.replace(attempt=self.number, queued=0.0, connect=None)
        try:
            return await self.call_next(request)
        except (CircuitOpenError, RateLimitTimeoutError) as error:
            # Nothing was sent this time: what the server said before is the reason.
            self.error = error
            raise error from previous
        except KonkoError as error:
            self.error = error
            raise

    def wait(self, _state: RetryCallState) -> float:
        """Seconds before the next attempt: full jitter, or what the server asked for and a bit."""
        policy = self.policy
        # The exponent is capped: 2.0**1024 is an OverflowError, and max_delay rules long before.
        cap = min(policy.max_delay, policy.base_delay * 2.0 ** min(self.number - 1, 60))
        backoff = self.rng.uniform(0.0, cap)
        asked = self.server_delay()
        if asked is None:
            return backoff
        return max(asked, backoff) * (1.0 + self.rng.uniform(0.0, _SPREAD))

    def server_delay(self) -> float | None:
        return self.error.retry_after if isinstance(self.error, APIStatusError) else None

    def stop(self, state: RetryCallState) -> bool:
        """Whether to raise now; the reason goes onto the error, except for the attempts' number."""
        if self.number >= self.policy.max_attempts:
            return True
        asked, wait, now = (
            self.server_delay(),
            state.upcoming_sleep,
            asyncio.get_running_loop().time(),
        )
        if asked is not None and asked > self.policy.max_retry_after:
            reason = (
                f"the server asks to wait {asked:.1f} s, "
                f"above RetryPolicy.max_retry_after ({self.policy.max_retry_after:g} s)"
            )
        elif (deadline := self.request.call.deadline) is not None and now + wait >= deadline:
            reason = (
                f"{wait:.1f} s to wait, but only {max(0.0, deadline - now):.1f} s are left "
                "of Timeout.total"
            )
        elif not self.may_spend(now):
            reason = "the retry budget is empty, as too many calls of this client have failed"
        else:
            return False
        self.error.add_note(f"not retried: {reason}")
        return True

    def may_spend(self, now: float) -> bool:
        invited = isinstance(self.error, RateLimitError) and self.error.retry_after is not None
        return invited or self.budget is None or self.budget.try_spend(now)

    def before_sleep(self, state: RetryCallState) -> None:
        wait = state.upcoming_sleep
        call = self.request.call
        call.doing = f"waiting {wait:.1f} s before attempt {self.number + 1}"
        if call.attempts:
            call.attempts[-1] = msgspec.structs.replace(call.attempts[-1], retry_delay=wait)
        if self.policy.on_retry is None:
            return
        try:
            self.policy.on_retry(call.attempts[-1] if call.attempts else self.unlogged(wait))
        except Exception:  # noqa: BLE001  # a hook is the user's code: whatever it raises
            _log.exception("RetryPolicy.on_retry failed; the call goes on")

    def unlogged(self, wait: float) -> Attempt:
        """Make a record for use without the client's own log of attempts."""
        since = asyncio.get_running_loop().time() - self.request.call.started
        return Attempt(
            number=self.number,
            started=0.0 if self.number == 1 else since,
            duration=since if self.number == 1 else 0.0,
            model=self.request.model,
            error_type=type(self.error).__name__,
            error=self.error.message[:500],
            retry_delay=wait,
        )
