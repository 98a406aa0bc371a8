"""Applies the limits to attempts: rate and concurrency admit a call in one step.

The two are one layer, although they are two policies: a call that passed the rate limit and then
waited for a free slot would leave later than its permit says, and such calls would leave
together, more in a window than the server allows.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from konko_async._core.classification import Kind, classify
from konko_async._core.graceful_stop import NOBODYS, current_work, resting
from konko_async.errors import APIConnectionError, APIStatusError, KonkoError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from konko_async._core.pipeline import Request, Response
    from konko_async.limits import Lane, Limiter, Permit
    from konko_async.limits._permit import Outcome

__all__ = ["AttemptLimits"]

# A stream that its reader left ("closed") was served in part: like a cancellation, it teaches the
# adaptive limiter nothing.
_OUTCOMES: dict[str, Outcome] = {
    "ok": "ok",
    "error": "error",
    "cancelled": "cancelled",
    "closed": "cancelled",
}
_REJECTED: frozenset[Kind] = frozenset({"rate_limit", "overloaded"})
_TOO_MANY = 429
_REMAINING = ("x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens")


class AttemptLimits:
    """Admits each attempt, and settles with the limits when its answer has ended.

    Args:
        limiter: shared by a client and its copies.
        fingerprint: of the key, as limits are per model and key.
    """

    __slots__ = ("_fingerprint", "_limiter")

    def __init__(self, limiter: Limiter, fingerprint: str) -> None:
        self._limiter = limiter
        self._fingerprint = fingerprint

    def enter(self, request: Request) -> tuple[Lane | None, Permit | None]:
        """Admit an attempt, if that can be done at once.

        Returns:
            The lane, None for a call without a model, which has no limits; and the permit, None if
            it has to :meth:`wait`.

        Raises:
            CancelledError: it belongs to a ``map()`` that was stopped, and need not be sent.
        """
        if request.model is None:
            return None, None
        work = current_work()
        # Before the permit, not after: what is given back by a graceful stop must not use up a
        # limit.
        if work is not NOBODYS:
            work.check()
        fingerprint = self._fingerprint
        if request.target is not None:
            fingerprint = _target_fingerprint(request.target, fingerprint)
        lane = self._limiter.lane(request.model, fingerprint)
        tokens = self._limiter.estimate(request.params) if lane.counts_tokens else 0
        permit = lane.try_admit(tokens, request.priority, request.call.loop)
        if permit is not None and work is not NOBODYS:
            work.begin()
        return lane, permit

    async def wait(self, request: Request, lane: Lane) -> Permit:
        """Wait until the lane admits the attempt.

        Raises:
            RateLimitTimeoutError: it cannot be admitted before its deadline.
        """
        call = request.call
        call.doing = "waiting for the rate limit"
        call.waiting += 1
        loop = call.loop
        since = loop.time()
        # Estimated again: few calls wait, and enter() would have to hand it on for all.
        tokens = self._limiter.estimate(request.params) if lane.counts_tokens else 0
        try:
            with resting():
                permit = await lane.admit(tokens, priority=request.priority, deadline=call.deadline)
        finally:
            call.waiting -= 1
            request.times.queued += loop.time() - since
        current_work().begin()
        return permit

    def unused(self, permit: Permit) -> None:
        """Take back what an attempt was granted that is not sent after all."""
        permit.refund()
        permit.release(outcome="cancelled")
        current_work().fail()

    def answered(self, lane: Lane, permit: Permit, response: Response) -> None:
        """Learn from an answer's headers, and settle when it ends."""
        lane.observe_headers(response.headers)
        if response.closed:  # a whole answer: it has been read
            _settle(permit, response)
        else:
            lane.observe_answer(permit)
            response.on_close(partial(_settle, permit))

    def failed(self, lane: Lane, permit: Permit, error: BaseException) -> None:
        """Settle an attempt that failed, and learn from it."""
        outcome: Outcome = "error"
        if isinstance(error, APIConnectionError) and not error.request_sent:
            permit.refund()  # nothing reached the server: it charges nothing
        elif isinstance(error, APIStatusError):
            found = classify(error)
            # A 400 or 401 reports limits like any answer, while a rejection needs the closer look
            # below.
            if found.kind not in _REJECTED:
                lane.observe_headers(error.headers)
            else:
                # A server that says when to come back limits a rate; one that does not is too full.
                outcome = "rejected" if error.retry_after is None else "error"
                lane.observe_headers(_lasting(error))
                limited = error.status_code == _TOO_MANY or found.kind == "rate_limit"
                if limited or error.retry_after is not None:
                    certain = _says_used_up(error.headers)
                    lane.observe_rejection(error.retry_after, None if certain else permit)
            permit.settle(None)
        else:
            # CancelledError, or a fault in a user's middleware: the server may have done all the
            # work.
            if not isinstance(error, KonkoError):
                outcome = "cancelled"
            permit.settle(None)
        permit.release(outcome=outcome)
        current_work().fail()


def _settle(permit: Permit, ended: Response) -> None:
    permit.settle(None if ended.usage is None else ended.usage.total)
    permit.release(outcome=_OUTCOMES[ended.outcome])


def _target_fingerprint(target: Any, default: str) -> str:
    """Return the name of a target's own limits: another key or server shares none with us."""
    key = default if target.api_key is None else target.api_key.fingerprint
    return key if target.base_url is None else f"{key}@{target.base_url}"


def _says_used_up(headers: Mapping[str, str]) -> bool:
    """Whether a rejection says itself that a limit is used up."""
    return any(headers.get(name, "").strip() in {"0", "0.0"} for name in _REMAINING)


def _lasting(error: APIStatusError) -> Mapping[str, str]:
    """Return the headers that stay valid after a rejection with a Retry-After.

    What is left (nothing) and when all of it will be free again would keep the lane shut for the
    rest of the window, though there may be room for the next call in a moment.
    """
    if error.retry_after is None:
        return error.headers
    return {
        name: value
        for name, value in error.headers.items()
        if name.lower().startswith("x-ratelimit-limit-")
    }
