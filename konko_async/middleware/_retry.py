"""Retries attempts that fail before the first delta; raises the server's own error."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace
from tenacity import RetryCallState, Retrying

from konko_async._core.classification import classify
from konko_async._core.graceful_stop import resting
from konko_async._core.pipeline import AttemptTimes
from konko_async._records import Attempt
from konko_async.errors import (
    APIStatusError,
    CircuitOpenError,
    KonkoError,
    RateLimitError,
    RateLimitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from konko_async._core.pipeline import Handler, Request, Response
    from konko_async._core.policies import RetryPolicy
    from konko_async.middleware._budget import RetryBudget

__all__ = ["RetryMiddleware"]

_log = logging.getLogger("konko_async.retry")

_IDEMPOTENCY_KEY = "Idempotency-Key"
_RANDOM_BYTES = 16 * 64  # drawn from the operating system together
# Up to a fifth is added to a wait that the server asked for, so that its clients do not come back
# together, and never before the time it named.
_SPREAD = 0.2


MayMove = Callable[["Request", KonkoError], bool]


class Random(Protocol):
    """What the back-off draws from: the module ``random`` or a ``random.Random(seed)``."""

    def uniform(self, a: float, b: float, /) -> float:
        """Return a number between ``a`` and ``b``."""


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
            wait is by the server's invitation and costs nothing, one after a 5xx that named a wait
            nothing while most attempts are answered; every other one costs a token.
        rng: source of the jitter. Default: the module ``random``.
        may_move: whether an attempt that failed so may succeed at another endpoint, at once; None:
            there is one server.
    """

    __slots__ = ("_budget", "_may_move", "_policy", "_rng")

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget | None,
        *,
        rng: Random = random,
        may_move: MayMove | None = None,
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._rng = rng
        self._may_move = may_move

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Send ``request``, again if need be, and return the first answer.

        Raises:
            KonkoError: the last attempt's error.
        """
        headers = request.headers
        # Set once, outside the series: a new key per attempt would let the server generate, and
        # bill, twice.
        if request.operation.method == "POST" and not (headers and _has_key(headers)):
            # Not request.replace(), which is for layers that change more than headers; and copy()
            # takes as long to find this method as it takes to copy.
            request = request.__copy__()  # type: ignore[attr-defined]  # every struct has it
            request.headers = {**headers, _IDEMPOTENCY_KEY: f"konko-{_keys.draw()}"}
        try:
            response = await call_next(request)
        except KonkoError as error:
            if not self._may_repeat(request, error):
                raise
            # tenacity comes in only now, as its bookkeeping costs more than all the rest of a call
            # that ends well.
            series = _Series(
                self._policy, self._budget, self._rng, request, call_next,
                first=error, may_move=self._may_move,
            )  # fmt: skip
        else:
            if self._budget is not None:
                self._budget.record_success()
            return response
        # Outside the handler: later errors are not to be chained to the first one.
        response = await series.run()
        if self._budget is not None:
            self._budget.record_success()
        return response

    def _may_repeat(self, request: Request, error: KonkoError) -> bool:
        if classify(error, self._policy.statuses).retryable:
            return True
        return self._may_move is not None and self._may_move(request, error)


class _Keys:
    """Random bits from the operating system, drawn for many calls at once: each time costs 1 µs."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: list[str] = []
        if hasattr(os, "register_at_fork"):
            # Else two processes would give the same keys to different calls.
            os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Drop what is left."""
        self._left.clear()

    def draw(self) -> str:
        """Return 128 bits that nobody was given before, as 32 digits."""
        try:
            # One step, as clients in several threads draw from here.
            return self._left.pop()
        except IndexError:
            digits = os.urandom(_RANDOM_BYTES).hex()
            first, *others = (digits[at : at + 32] for at in range(0, len(digits), 32))
            self._left.extend(others)
            return first


_keys = _Keys()


def _has_key(headers: Mapping[str, str]) -> bool:
    return any(name.lower() == "idempotency-key" for name in headers)


async def _pause(seconds: float) -> None:
    with resting():
        await asyncio.sleep(seconds)


def _given_up(_state: RetryCallState) -> None:
    """End the series without an answer: tenacity would raise an error of its own."""


class _Series:
    """The attempts of one call after the first, which has failed.

    What an attempt returns or raises is left here, and tenacity sees nothing of it. Raised through
    tenacity, an error would hold tenacity's frames, and they the error: a cycle, in which the
    caller's frames would stay alive until the collector comes.
    """

    __slots__ = (
        "budget", "call_next", "delay", "error", "may_move", "number", "policy", "request",
        "response", "rng",
    )  # fmt: skip

    def __init__(
        self,
        policy: RetryPolicy,
        budget: RetryBudget | None,
        rng: Random,
        request: Request,
        call_next: Handler,
        *,
        first: KonkoError,
        may_move: MayMove | None = None,
    ) -> None:
        self.policy = policy
        self.budget = budget
        self.rng = rng
        self.request = request
        self.call_next = call_next
        self.may_move = may_move
        self.number = 0
        self.delay = 0.0
        self.error = first
        self.response: Response | None = None

    async def run(self) -> Response:
        # tenacity drives the loop; the policy, the clock and the error that is raised are ours.
        # Its synchronous iterator, as all that is asked of it decides at once: its asynchronous one
        # makes coroutines of them all, at each attempt, which cost more than the attempt.
        retrying = Retrying(
            sleep=self.sleep,
            retry=self.is_retryable,
            wait=self.wait,
            stop=self.stop,
            before_sleep=self.before_sleep,
            retry_error_callback=_given_up,
        )
        try:
            for attempt in retrying:
                self.number += 1
                if self.number > 1:  # the first one was made before, and failed
                    await _pause(self.delay)
                    await self.attempt()
                attempt.retry_state.set_result(None)
            if self.response is not None:
                return self.response
            raise self.error
        finally:
            del self.error  # its traceback holds this frame, which holds this series

    def sleep(self, seconds: float) -> None:
        """Leave the wait to :meth:`run`, which can await it."""
        self.delay = seconds

    def moves(self) -> bool:
        """Whether the next attempt goes to another endpoint, which asked for no wait."""
        return self.may_move is not None and self.may_move(self.request, self.error)

    def is_retryable(self, _state: RetryCallState) -> bool:
        if self.response is not None:
            return False
        found = classify(self.error, self.policy.statuses)
        bound = found.max_retries
        if found.retryable and (bound is None or self.number <= bound):
            return True
        return self.moves()

    async def attempt(self) -> None:
        request = self.request.replace(attempt=self.number, times=AttemptTimes())
        try:
            self.response = await self.call_next(request)
        except KonkoError as error:
            if isinstance(error, (CircuitOpenError, RateLimitTimeoutError)):
                # Nothing was sent this time: what the server said before is the reason.
                error.__cause__ = self.error
            self.error = error

    def wait(self, _state: RetryCallState) -> float:
        """Seconds before the next attempt: full jitter, or what the server asked for and a bit."""
        policy = self.policy
        if self.moves():
            return 0.0
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
        """Whether to give up; a note on the error says why, unless the attempts are used up."""
        if self.number >= self.policy.max_attempts:
            return True
        asked, wait, now = (
            self.server_delay(),
            state.upcoming_sleep,
            self.request.call.loop.time(),
        )
        # In this order, as the budget is last: a retry that will not be made must not spend a
        # token.
        moves = self.moves()
        if asked is not None and asked > self.policy.max_retry_after and not moves:
            reason = (
                f"the server asks to wait {asked:.1f} s, "
                f"above RetryPolicy.max_retry_after ({self.policy.max_retry_after:g} s)"
            )
        elif (deadline := self.request.call.deadline) is not None and now + wait >= deadline:
            reason = (
                f"{wait:.1f} s to wait, but only {max(0.0, deadline - now):.1f} s are left "
                "of Timeout.total"
            )
        elif not self.may_spend(now, moves=moves):
            reason = "the retry budget is empty, as too many calls of this client have failed"
        else:
            return False
        self.error.add_note(f"not retried: {reason}")
        return True

    def may_spend(self, now: float, *, moves: bool = False) -> bool:
        invited = self.server_delay() is not None
        if self.budget is None or (invited and isinstance(self.error, RateLimitError)):
            return True
        # One that leaves a server takes load from it. It adds load elsewhere only until the others
        # fail as well: then there is no endpoint to move to.
        return moves or self.budget.try_spend(now, invited=invited)

    def before_sleep(self, state: RetryCallState) -> None:
        wait = state.upcoming_sleep
        call = self.request.call
        call.doing = f"waiting {wait:.1f} s before attempt {self.number + 1}"
        if call.attempts:
            # The record was written when the attempt ended, before anybody knew whether it would be
            # repeated.
            call.attempts[-1] = replace(call.attempts[-1], retry_delay=wait)
        if self.policy.on_retry is None:
            return
        try:
            self.policy.on_retry(call.attempts[-1] if call.attempts else self.unlogged(wait))
        except Exception:  # noqa: BLE001  # a hook is the user's code: whatever it raises
            _log.exception("RetryPolicy.on_retry failed; the call goes on")

    def unlogged(self, wait: float) -> Attempt:
        """Make a record for use without the client's own log of attempts."""
        since = self.request.call.loop.time() - self.request.call.started
        return Attempt(
            number=self.number,
            started=0.0 if self.number == 1 else since,
            duration=since if self.number == 1 else 0.0,
            model=self.request.model,
            error_type=type(self.error).__name__,
            error=self.error.message[:500],
            retry_delay=wait,
        )
