"""Admits the calls of one model and key: the decision is synchronous, only waiting awaits."""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import TYPE_CHECKING, ClassVar, Final

from konko_async.errors import ConfigurationError
from konko_async.limits._adaptive import concurrency
from konko_async.limits._headers import read_limits
from konko_async.limits._permit import Outcome, Permit
from konko_async.limits._queue import Line, Waiter, Waiting
from konko_async.limits._rejection import Cause, refusal
from konko_async.limits._stats import LaneLimits, WaitingCounts
from konko_async.limits._throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from konko_async._core.policies import Priority, RateLimit
    from konko_async.errors import RateLimitTimeoutError

__all__ = ["RESERVE_FOR", "Lane"]

_running_loop = asyncio.get_running_loop

RESERVE_FOR: Final = 10.0
"""Seconds for which places are kept free of batch calls after an interactive call was seen."""

# One slot in sixteen stays free for the next interactive call (at least one); see "Priorities" in
# docs/explanation/limits.md.
_RESERVE_SHARE: Final = 16
_RESETS_FIRST: Final = 16
_RESETS_EVERY: Final = 32


class Lane:
    """Admits the calls of one model and key; made by :meth:`Limiter.lane`.

    A call is admitted in one synchronous step when there is no cool-down and a slot, a request of
    the window and its tokens are all there; else it waits, and takes nothing while it waits. It
    must be used from one thread, on one running loop at a time.

    Attributes:
        model: the model's id.
        key: fingerprint of the key.
        counts_tokens: whether tokens are limited, so that an estimate is worth making.
    """

    __slots__ = (
        "_adaptive", "_again", "_cap", "_era", "_in_flight", "_loop", "_pid", "_pumping",
        "_queue", "_rate_limit", "_reserve_until", "_throttle", "_time", "_timer", "_wake_at",
        "key", "model",
    )  # fmt: skip

    def __init__(self, model: str | None, key: str, rate_limit: RateLimit) -> None:
        self.model = model
        self.key = key
        self._rate_limit = rate_limit
        self._throttle = Throttle(rate_limit)
        self._adaptive, self._cap = concurrency(rate_limit.max_concurrency)
        self._in_flight = 0
        self._reserve_until = -math.inf
        self._queue = Waiting()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = math.inf
        self._pumping = self._again = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._time = time.monotonic
        self._era = 0

    immediate: ClassVar[bool] = True
    """Whether :meth:`try_admit` decides; else somebody else has to be asked, by :meth:`admit`."""

    def outlook(self, tokens: int = 0) -> tuple[float, Cause]:
        """Return the least seconds until a call could be admitted, and what keeps it."""
        ahead = self._queue.ahead(self._queue.interactive)
        return self._throttle.outlook(self._clock(), tokens, *ahead)

    @property
    def paused_for(self) -> float:
        """Seconds until the cool-down after a rejection ends; 0 if there is none."""
        return max(self._throttle.paused_until - self._clock(), 0.0)

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited here, by the user or by what the server reported."""
        return self._throttle.tokens.bucket is not None

    def try_admit(
        self,
        tokens: int = 0,
        priority: Priority = "interactive",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Permit | None:
        """Admit a call now, or say that it would have to wait.

        Args:
            tokens: what to reserve; see :meth:`Limiter.estimate`.
            priority: ``interactive`` or ``batch``.
            loop: the running one, where the caller knows it.

        Returns:
            A permit, or None: then :meth:`admit` waits.

        Raises:
            ConfigurationError: the lane is in use on another loop that is running.
            RuntimeError: no loop is running.
        """
        if loop is None:
            loop = _running_loop()
        if loop is not self._loop:
            self._attach(loop)
        now = self._time()
        cap = self._cap
        if priority == "batch":
            cap = self._batch_cap(now)
        else:
            self._reserve_until = now + RESERVE_FOR
        # The common case, nobody waiting, needs no look at the order.
        if not self._queue.total:
            return self._take(now, tokens, cap)
        permit = self._take(now, tokens, cap) if self._queue.may_pass(priority) else None
        if permit is not None:
            self._queue.passed()
        return permit

    async def admit(
        self,
        tokens: int = 0,
        priority: Priority = "interactive",
        deadline: float | None = None,
    ) -> Permit:
        """Admit a call, after those of its priority that came before it.

        Args:
            tokens: what to reserve.
            priority: ``interactive`` or ``batch``.
            deadline: ``loop.time()`` after which there is no use in it, or None.

        Returns:
            The permit.

        Raises:
            RateLimitTimeoutError: it cannot be admitted before its deadline. Raised at once where
                the wait is known (cool-down, requests, tokens); a wait for a slot ends when others
                do, at an unknown time, so that one is refused at its deadline.
            ConfigurationError: see :meth:`try_admit`.
        """
        permit = self.try_admit(tokens, priority)
        if permit is not None:
            return permit
        # No await between try_admit() and this: a call that released its permit in between would
        # not know that somebody waits.
        waiter = self._enqueue(tokens, priority, deadline)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def _take(self, now: float, tokens: int, cap: float) -> Permit | None:
        """Take everything that a call needs, or nothing."""
        in_flight = self._in_flight
        if in_flight >= cap:
            return None
        # Last, as it is the only step that changes counts: nothing has to be undone.
        charges = self._throttle.try_take(now, tokens)
        if charges is None:
            return None
        self._in_flight = in_flight = in_flight + 1
        return Permit(self, self._era, now, in_flight, tokens, charges)

    def _batch_cap(self, now: float) -> float:
        """The slots that batch calls may fill: the last are reserved for interactive calls."""
        cap = self._cap
        if now >= self._reserve_until or cap == math.inf or self._queue.batch_turn():
            return cap
        return max(cap - max(cap // _RESERVE_SHARE, 1), 1)

    def _enqueue(self, tokens: int, priority: Priority, deadline: float | None) -> Waiter:
        queue, now = self._queue, self._time()
        line = queue.line(priority)
        if deadline is not None:
            wait, cause = self._throttle.outlook(now, tokens, *queue.ahead(line))
            if now + wait > deadline:
                raise self._refusal(wait, cause, deadline - now)
        assert self._loop is not None  # noqa: S101  (try_admit has attached it)
        waiter = Waiter(self._loop.create_future(), line, tokens, now, deadline)
        queue.join(waiter)
        if line.count == 1:
            self._pump()  # a new head may be next, and needs a timer
        elif deadline is not None:
            self._sleep_until(deadline)
        return waiter

    def _give_up(self, waiter: Waiter) -> None:
        """Remove a cancelled waiter; what it was granted in the meantime goes back."""
        future = waiter.future
        if waiter.alive:
            self._queue.leave(waiter)
            self._pump()
        elif not future.cancelled() and future.exception() is None:
            permit = future.result()
            # Granted in the same event-loop iteration as the cancellation: nobody will ever use
            # this permit.
            permit.refund()
            permit.release(outcome="cancelled")

    def _pump(self) -> None:
        """Admit every call that fits; not re-entered, as a finaliser may release a permit."""
        if self._pumping:
            self._again = True
            return
        self._pumping = self._again = True
        try:
            while self._again:
                self._again = False
                self._serve()
        finally:
            self._pumping = False

    def _serve(self) -> None:
        queue, now, wake = self._queue, self._time(), math.inf
        earliest = now
        # Here, and not on a timer: a lane without traffic need not recover.
        if now >= self._throttle.belief.review:
            self._throttle.review(now)
        # Without a free slot there is nobody to look at: no line may fill more of them.
        while queue.total and self._in_flight < self._cap:
            line = queue.next()
            waiter = line.head()
            if waiter.future.done():  # cancelled, and its task has not run yet
                queue.leave(waiter)
                continue
            cap = self._cap_of(line, now)
            permit = self._take(now, waiter.tokens, cap)
            if permit is None:
                ready = self._ready_at(now, waiter.tokens, cap)
                # A slot may become free at any moment, the time of the others is known.
                earliest = ready if self._in_flight < cap else now
                if waiter.deadline is None or earliest <= waiter.deadline:
                    # One head at a time: the others wait in order, whatever would fit.
                    wake = ready
                    break
                self._refuse(waiter, now)
                continue
            permit.waited = now - waiter.since
            queue.serve(line, waiter)
            waiter.future.set_result(permit)
        if queue.deadlines.heap:
            wake = self._refuse_hopeless(now, earliest, wake)
        if wake != self._wake_at:
            self._sleep_until(wake)

    def _cap_of(self, line: Line, now: float) -> float:
        return self._cap if line is self._queue.interactive else self._batch_cap(now)

    def _ready_at(self, now: float, tokens: int, cap: float) -> float:
        """When to look again; ``inf`` if only a slot that becomes free can help."""
        if self._in_flight < cap:
            return self._throttle.ready_at(now, tokens)
        if self._in_flight < self._cap:  # what keeps a batch call out is a reserved slot
            return max(self._throttle.ready_at(now, tokens), self._reserve_until)
        return math.inf

    def _refuse_hopeless(self, now: float, earliest: float, wake: float) -> float:
        """Refuse those whose deadline comes before anybody is admitted; when to look again."""
        deadlines = self._queue.deadlines
        while (waiter := deadlines.first()) is not None:
            assert waiter.deadline is not None  # noqa: S101  (only such are watched)
            if waiter.deadline > earliest or waiter.deadline == earliest > now:
                return min(wake, waiter.deadline)
            self._refuse(waiter, now)
        return wake

    def _sleep_until(self, wake: float) -> None:
        """Keep one timer, for ``wake`` or a little earlier."""
        # A timer that fires too early costs one look at the queue, not a new timer per call.
        if wake == self._wake_at or (self._wake_at < wake < math.inf):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake_at = wake
        if wake < math.inf and self._loop is not None and not self._loop.is_closed():
            self._timer = self._loop.call_at(wake, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._wake_at = math.inf
        self._pump()

    def _refuse(self, waiter: Waiter, now: float) -> None:
        """Fail a waiting call whose deadline has passed, or is certain to."""
        line, waited = waiter.line, now - waiter.since
        self._queue.leave(waiter)
        if waiter.future.done():
            return
        served = line.served - waiter.served
        ahead = max(waiter.ahead - served, 0)
        wait, cause = self._throttle.outlook(now, waiter.tokens, ahead, 0)
        if self._in_flight >= self._cap_of(line, now):
            # As fast as it went so far; for ever, if nobody ahead was admitted in all that time.
            wait, cause = (waited / served * (ahead + 1) if served else math.inf), Cause.CONCURRENCY
        assert waiter.deadline is not None  # noqa: S101  (only such are refused)
        error = self._refusal(waited + wait, cause, waiter.deadline - waiter.since)
        waiter.future.set_exception(error)

    def _refusal(self, wait: float, cause: Cause, patience: float) -> RateLimitTimeoutError:
        waiting = self._queue.total
        return refusal(self.model, cause, wait=wait, patience=patience, waiting=waiting)

    def settle(self, permit: Permit, used: int) -> None:
        """Correct the reserved tokens of a permit to ``used``."""
        bucket, charge = self._throttle.tokens.bucket, permit.charges[1]
        if bucket is not None and charge is not None:
            bucket.settle(self._time(), charge, permit.tokens, used)
        # Only tokens that come back can admit somebody, and only where there is a slot as well.
        if self._queue.total and used < permit.tokens and self._in_flight < self._cap:
            self._pump()

    def refund(self, permit: Permit) -> None:
        """Take back the request and the tokens of a call that never reached the server."""
        self._throttle.refund(self._time(), permit.charges, permit.tokens)
        if self._queue.total:
            self._pump()

    def release(self, permit: Permit, latency: float | None, outcome: Outcome) -> None:
        """Free the concurrency slot of a permit."""
        if permit.era != self._era:
            return  # of a loop that is gone: its slots were freed with it
        # Before anything else: the call that is admitted below needs the slot.
        self._in_flight -= 1
        if self._throttle.watching and outcome == "ok":
            self._throttle.answered(self._time(), permit.admitted_at)
        if self._adaptive is not None:
            now = self._time()
            if latency is None:
                latency = now - permit.admitted_at
            self._cap = self._adaptive.observe(
                now, permit.admitted_at, permit.in_flight, latency, outcome
            )
        if self._queue.total:
            self._pump()

    def observe_headers(self, headers: Mapping[str, str]) -> None:
        """Learn from an answer's ``x-ratelimit-*`` headers; what is not usable is ignored.

        Args:
            headers: names in lower case, or a case-insensitive mapping.
        """
        throttle = self._throttle
        if not throttle.learns:
            return
        # Resets say what period a limit is for; that hardly changes.
        reads = throttle.reads
        told = read_limits(headers, resets=reads < _RESETS_FIRST or not reads % _RESETS_EVERY)
        if told is not None:
            now = self._clock()
            self._news(now, paused=throttle.read(now, told, self._in_flight))
        elif throttle.requests.learned is not None or throttle.tokens.learned is not None:
            now = self._clock()
            throttle.unconfirmed(now)
            self._news(now, paused=False)

    def observe_answer(self, permit: Permit) -> None:
        """Note that a stream has begun: the server accepted the call, long before it ends."""
        throttle = self._throttle
        if throttle.watching and permit.era == self._era:
            throttle.answered(self._time(), permit.admitted_at)
            if self._queue.total:
                self._pump()

    def observe_rejection(
        self, retry_after: float | None = None, permit: Permit | None = None
    ) -> None:
        """Note a 429, or a 503 that says when to come back: all calls of this lane cool down.

        The cool-down is the longest one asked for. It ends spread out: one call, then the next ones
        at the known rate, or at 0.7 of the rate that the server took before, growing. It is lifted,
        and what was learned from it is undone, if calls that were sent after the rejected one are
        answered meanwhile; see :class:`RandomRejections`.

        Args:
            retry_after: seconds the server asked for. Without it the cool-down is 0.25 s, doubling
                with each further episode up to 16 s; with adaptive concurrency, which answers the
                first two in a row itself, only from the third on.
            permit: of the rejected call. None where it is certain that a limit was reached, such
                as when headers say that nothing remains.
        """
        now, patient = self._clock(), self._adaptive is not None
        sent_at = None if permit is None else permit.admitted_at
        paused = self._throttle.reject(now, retry_after, patient=patient, sent_at=sent_at)
        self._news(now, paused=paused)

    def _news(self, now: float, *, paused: bool) -> None:
        if self._queue.total:
            if paused and self._queue.deadlines.heap:
                self._refuse_overtaken(now)
            self._pump()

    def _refuse_overtaken(self, now: float) -> None:
        """After the outlook got worse: refuse those that will not make it from where they stand."""
        for line in (self._queue.interactive, self._queue.batch):
            ahead = tokens_ahead = 0
            for waiter in list(line):
                wait, _ = self._throttle.outlook(now, waiter.tokens, ahead, tokens_ahead)
                if waiter.deadline is not None and now + wait > waiter.deadline:
                    self._refuse(waiter, now)
                else:
                    ahead += 1
                    tokens_ahead += waiter.tokens

    def snapshot(self) -> LaneLimits:
        """Return what is used, waiting and learned now."""
        throttle, now, queue = self._throttle, self._clock(), self._queue
        return LaneLimits(
            model=self.model,
            key=self.key,
            requests=throttle.requests.quantity(now),
            tokens=throttle.tokens.quantity(now),
            window=self._rate_limit.window,
            in_flight=self._in_flight,
            max_concurrency=None if self._cap == math.inf else int(self._cap),
            configured_concurrency=self._rate_limit.max_concurrency,
            waiting=WaitingCounts(interactive=queue.interactive.count, batch=queue.batch.count),
            paused_for=max(throttle.paused_until - now, 0.0),
            believed=throttle.belief.share,
        )

    def idle(self) -> bool:
        """Whether nothing is in flight, waiting, paused, or still in the window."""
        now, busy = self._clock(), self._in_flight + self._queue.total
        return not busy and self._throttle.idle(now)

    def __repr__(self) -> str:
        return f"<Lane {self.model or '-'}: {self._in_flight} in flight, {self._queue.total} wait>"

    def _clock(self) -> float:
        """The time, also before the first call and outside of any loop."""
        try:
            loop = _running_loop()
        except RuntimeError:
            return self._time()
        if loop is not self._loop:
            self._attach(loop)
        return self._time()

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Switch to another event loop: what was spent stays spent, on the new loop's clock."""
        old = self._loop
        if old is not None:
            # After a fork the parent's loop still says that it runs.
            if not old.is_closed() and old.is_running() and self._pid == os.getpid():
                raise ConfigurationError(
                    "a rate limiter (a client) is in use on another running event loop: "
                    "make one client per loop"
                )
            # Whoever waited or held a slot there is gone.
            self._queue = Waiting()
            # Permits of the old loop may still be released, by finalisers; they must not free slots
            # twice.
            self._era += 1
            self._in_flight = 0
            self._timer, self._wake_at = None, math.inf
        # What was spent on the old clock still counts: a new loop per asyncio.run() must not reset
        # limits.
        delta = loop.time() - self._time()
        self._throttle.shift(delta)
        self._reserve_until += delta
        self._loop, self._pid = loop, os.getpid()
        self._time = _clock_of(loop)


def _clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the clock of a loop; of asyncio's own loops the one below, without their method."""
    usual = getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time
    return time.monotonic if usual else loop.time
