"""All limits of a lane that time alone lifts: the pause, the requests and the tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from konko_async.limits._buckets import GRACE
from konko_async.limits._pause import MAX_PAUSE, Belief, Ramp, Strikes, accepted_rate
from konko_async.limits._quota import Quota
from konko_async.limits._refusal import Cause
from konko_async.limits._window import Charge, SlidingSum

if TYPE_CHECKING:
    from konko_async._options import RateLimit
    from konko_async.limits._learn import Told
    from konko_async.limits._store import Reply

__all__ = ["MICRO", "Charges", "Throttle"]

Charges = tuple[Charge, Charge | None]
"""Where a call is counted: among the requests, and among the tokens if those are limited."""

MICRO: Final = 1_000_000.0
"""Microseconds of a second; parts of a whole that are millionths."""

_LOWER: Final = 0.7
_LOWER_IF_TOLD: Final = 0.9


class Throttle:
    """Decides when a call may leave, with the time passed in; knows no queue and no loop.

    Attributes:
        requests: what is known and spent of the requests.
        tokens: what is known and spent of the tokens.
        belief: what rejections left of both.
        strikes: the rejections in a row.
        paused_until: when the pause ends.
        gate: nothing leaves before; the end of the pause, or later while calls resume spaced out.
        portion: the part of the limits that is ours, below 1 where processes divide them.
    """

    __slots__ = (
        "_ramp", "_rejected", "belief", "gate", "learns", "paused_until", "portion", "requests",
        "strikes", "tokens",
    )  # fmt: skip

    def __init__(self, rate_limit: RateLimit) -> None:
        window, requests = rate_limit.window, rate_limit.requests_per_minute
        share = rate_limit.burst / requests if rate_limit.burst and requests else None
        self.requests = Quota("requests", requests, window, share)
        self.tokens = Quota("tokens", rate_limit.tokens_per_minute, window, share)
        self.learns = rate_limit.learn
        self.belief = Belief(window)
        self.portion = 1.0
        self.strikes = Strikes()
        self.paused_until = self.gate = -math.inf
        self._rejected = SlidingSum(window)
        self._ramp: Ramp | None = None

    def try_take(self, now: float, tokens: float) -> Charges | None:
        """Take one request and its tokens, or nothing if either does not fit now."""
        if now < self.gate:
            return None
        bucket = self.requests.bucket
        if bucket is None:
            request = None
        elif (request := bucket.try_take(now, 1.0)) is None:
            return None
        token: Charge | None = None
        tokens_bucket = self.tokens.bucket
        if tokens_bucket is not None:
            token = tokens_bucket.try_take(now, tokens)
            if token is None:
                if bucket is not None and request is not None:
                    bucket.settle(now, request, 1.0, 0.0)
                return None
        if request is None:
            request = self.requests.spent.add(now, 1.0)
            if self._ramp is not None:
                self._step_ramp(now, self._ramp)
        return request, token

    def ready_at(self, now: float, tokens: float) -> float:
        """When a call could leave; after ``now``, as it was tried at ``now``."""
        wait = 0.0
        if self.requests.bucket is not None:
            wait = self.requests.bucket.delay(now, 1.0)
        if self.tokens.bucket is not None:
            wait = max(wait, self.tokens.bucket.delay(now, tokens))
        # Never the present moment again, whatever rounding says.
        return max(self.gate, now + wait, now + GRACE)

    def outlook(
        self, now: float, tokens: float, ahead: int, tokens_ahead: float
    ) -> tuple[float, Cause]:
        """Seconds until a call could leave after those ahead of it, and what keeps it.

        It is the least that it can be: what comes later, and goes first, is not known.
        """
        paused = wait = max(self.gate - now, 0.0)
        cause = Cause.PAUSE
        if self._ramp is not None:
            wait += ahead * self._ramp.interval(self.gate)
        bucket = self.requests.bucket
        if bucket is not None:
            needed = bucket.delay(now, 1.0, ahead)
            if paused:
                needed = max(needed, paused + ahead / bucket.rate)
            if needed > wait:
                wait, cause = needed, Cause.REQUESTS
        bucket = self.tokens.bucket
        if bucket is not None and (needed := bucket.delay(now, tokens, tokens_ahead)) > wait:
            wait, cause = needed, Cause.TOKENS
        # The buckets hold still in a pause, so their part is what comes on top of it.
        return wait, Cause.PAUSE if paused > wait / 2 else cause

    def settle(self, now: float, charges: Charges, reserved: float, used: float) -> None:
        """Correct the tokens of a call to what it used."""
        if self.tokens.bucket is not None and charges[1] is not None:
            self.tokens.bucket.settle(now, charges[1], reserved, used)

    def refund(self, now: float, charges: Charges, reserved: float) -> None:
        """Give a call's request and tokens back."""
        if self.requests.bucket is not None:
            self.requests.bucket.settle(now, charges[0], 1.0, 0.0)
        else:
            self.requests.spent.correct(charges[0], -1.0)
        self.settle(now, charges, reserved, 0.0)

    def read(self, now: float, told: Told, in_flight: int) -> bool:
        """Learn from what the headers of an answer told.

        Returns:
            Whether a pause began.
        """
        requests, tokens = told
        wait, unseen = 0.0, float(in_flight)
        if requests is not None:
            wait = self.requests.learn(now, requests, self._share, unseen)
        if tokens is not None:
            unseen *= self.tokens.spent.total / max(self.requests.spent.total, 1.0)
            wait = max(wait, self.tokens.learn(now, tokens, self._share, unseen))
        return wait > 0 and self.pause(now, min(wait, MAX_PAUSE))

    def reject(self, now: float, retry_after: float | None, *, patient: bool) -> bool:
        """Learn from a rejection; ``patient`` as in :meth:`Strikes.add`.

        Returns:
            Whether a pause began or became longer.
        """
        if retry_after is not None and not 0.0 < retry_after < math.inf:
            retry_after = None
        fresh, pause = self.strikes.add(now, retry_after, patient=patient)
        self._rejected.add(now, 1.0)
        if fresh and self.learns and pause:
            self.belief.lower(now, _LOWER if retry_after is None else _LOWER_IF_TOLD)
            self._apply(now)
        return pause > 0 and self.pause(now, pause)

    def pause(self, now: float, seconds: float) -> bool:
        """Let nothing leave for so long; the longest of overlapping pauses counts.

        Returns:
            Whether that is longer than what was known.
        """
        until = now + seconds
        if until <= self.paused_until:
            return False
        self.paused_until = until
        self.gate = max(self.gate, until)
        self.requests.hold(until)
        self.tokens.hold(until)
        if self.requests.bucket is None:
            self._ramp = Ramp(until, accepted_rate(now, self.requests.spent, self._rejected))
        return True

    def review(self, now: float) -> None:
        """Recover what is due of the belief."""
        self.belief.recover(now)
        self._apply(now)

    def divide(self, now: float, portion: float) -> None:
        """Keep this part of the limits from now on, and let no burst gather."""
        self.portion = portion
        if self.belief.share < 1.0:
            self.belief.lower(now, 1.0)  # recovers here again
        self._apply(now)
        self.requests.hold(now)
        self.tokens.hold(now)

    def follow(self, now: float, told: Reply) -> bool:
        """Take over what a store knows of the limits.

        Returns:
            Whether a pause began or became longer.
        """
        self.portion = 1.0
        self.requests.learned = told.learned_requests or None
        self.tokens.learned = told.learned_tokens or None
        self.belief.share = told.share / MICRO
        self.belief.review = math.inf  # recovers in the store
        self._apply(now)
        self.strikes.count = told.strikes
        self.strikes.until = now + told.episode / MICRO
        return told.paused > 0 and self.pause(now, told.paused / MICRO)

    def count(self, now: float, tokens: int) -> Charges:
        """Note what a store granted, as of now."""
        return self.requests.spent.add(now, 1.0), self.tokens.spent.add(now, tokens)

    def correct(self, charges: Charges, requests: float, tokens: float) -> None:
        """Correct what was counted by :meth:`count`."""
        self.requests.spent.correct(charges[0], requests)
        if charges[1] is not None:
            self.tokens.spent.correct(charges[1], tokens)

    def idle(self, now: float) -> bool:
        """Whether there is no pause, and nothing in the window."""
        self.requests.spent.expire(now)
        self.tokens.spent.expire(now)
        return now >= self.gate and not (self.requests.spent.total or self.tokens.spent.total)

    def shift(self, delta: float) -> None:
        """Move everything by ``delta`` seconds: the clock was replaced by another."""
        for part in (self.requests, self.tokens, self.belief, self._rejected):
            part.shift(delta)
        self.paused_until += delta
        self.gate += delta
        self.strikes.until += delta
        if self._ramp is not None:
            self._ramp.start += delta

    @property
    def _share(self) -> float:
        return self.belief.share * self.portion

    def _apply(self, now: float) -> None:
        self.requests.apply(now, self._share)
        self.tokens.apply(now, self._share)

    def _step_ramp(self, now: float, ramp: Ramp) -> None:
        interval = ramp.interval(now)
        if interval:
            self.gate = max(self.gate, now) + interval
        else:
            self._ramp = None
