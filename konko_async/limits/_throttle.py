"""All limits of a lane that pass with time: the cool-down, the requests and the tokens."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from konko_async.limits._buckets import GRACE
from konko_async.limits._cooldown import MAX_PAUSE, Belief, Ramp, Strikes, accepted_rate
from konko_async.limits._quota import Quota
from konko_async.limits._random_rejections import TRIAL, RandomRejections
from konko_async.limits._rejection import Cause
from konko_async.limits._window import Charge, SlidingSum

if TYPE_CHECKING:
    from konko_async._core.policies import RateLimit
    from konko_async.limits._headers import Told
    from konko_async.limits._shared.store import StoreReply

__all__ = ["MICRO", "Charges", "Throttle"]

Charges = tuple[Charge, Charge | None]
"""Where a call is counted: among the requests, and among the tokens if those are limited."""

MICRO: Final = 1_000_000.0
"""Microseconds of a second; parts of a whole that are millionths."""

# What a rejection leaves of the pace; more of it where the server named a wait, as the cool-down
# itself is then exact.
_LOWER: Final = 0.7
_LOWER_IF_TOLD: Final = 0.9
# Of a limit: what is used beyond makes a rejection plausible, as other processes count as well.
_USED_UP: Final = 0.8


class Throttle:
    """Decides when a call may leave, with the time passed in; knows no queue and no loop.

    Attributes:
        requests: what is known and spent of the requests.
        tokens: what is known and spent of the tokens.
        belief: what rejections left of both.
        strikes: the rejections in a row.
        paused_until: when the cool-down ends.
        gate: nothing leaves before: the end of the cool-down, earlier where a probe is due, or
            later while calls resume spaced out.
        random: the evidence that rejections come at random.
        reads: answers whose headers were read.
        watching: whether calls that are sent and answered say something now.
    """

    __slots__ = (
        "_before", "_certain_until", "_passes", "_ramp", "_rejected", "belief", "gate", "learns",
        "paused_until", "random", "reads", "requests", "strikes", "tokens", "watching",
    )  # fmt: skip

    def __init__(self, rate_limit: RateLimit) -> None:
        window, requests = rate_limit.window, rate_limit.requests_per_minute
        share = rate_limit.burst / requests if rate_limit.burst and requests else None
        self.requests = Quota("requests", requests, window, share)
        self.tokens = Quota("tokens", rate_limit.tokens_per_minute, window, share)
        self.learns = rate_limit.learn
        self.belief = Belief(window)
        self.strikes = Strikes()
        self.random = RandomRejections()
        self.paused_until = self.gate = self._certain_until = -math.inf
        self.watching = False
        self.reads = 0
        self._passes = 0  # calls that may leave during the cool-down
        # The belief and the ramp before the first episode that may prove to be a mistake.
        self._before: tuple[tuple[float, ...], Ramp | None] | None = None
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
                    # All or nothing: a request that was taken for tokens that are not there would
                    # be lost.
                    bucket.settle(now, request, 1.0, 0.0)
                return None
        if request is None:
            request = self.requests.spent.add(now, 1.0)
            if self._ramp is not None:
                self._step_ramp(now, self._ramp)
        if self.watching:
            self._note_sent(now)
        return request, token

    def _note_sent(self, now: float) -> None:
        """Count a call as evidence; a probe that has left leaves all others waiting."""
        self.random.sent()
        if now >= self.paused_until:
            return
        self.random.probed(now)
        self._passes -= 1
        if self._passes <= 0:
            self.gate = self.paused_until
            self._hold(self.gate)

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
        # The buckets hold still in a cool-down, so their part is what comes on top of it.
        return wait, Cause.PAUSE if paused > wait / 2 else cause

    def settle(self, now: float, charges: Charges, reserved: float, used: float) -> None:
        """Correct the tokens of a call to what it used."""
        bucket = self.tokens.bucket
        if bucket is not None and charges[1] is not None:
            bucket.settle(now, charges[1], reserved, used)

    def refund(self, now: float, charges: Charges, reserved: float) -> None:
        """Give a call's request and tokens back."""
        if self.requests.bucket is not None:
            self.requests.bucket.settle(now, charges[0], 1.0, 0.0)
        else:
            self.requests.spent.correct(charges[0], -1.0)
        self.settle(now, charges, reserved, 0.0)

    def read(self, now: float, told: Told, in_flight: int) -> bool:
        """Learn from what the headers of an answer reported.

        Returns:
            Whether a cool-down began.
        """
        requests, tokens = told
        self.reads += 1
        wait, unseen = 0.0, float(in_flight)
        if requests is not None:
            wait = self.requests.learn(now, requests, self.belief.share, unseen)
        if tokens is not None:
            # In tokens: calls in flight times what a call took on average.
            unseen *= self.tokens.spent.total / max(self.requests.spent.total, 1.0)
            wait = max(wait, self.tokens.learn(now, tokens, self.belief.share, unseen))
        if wait > 0:
            self._certain_until = max(self._certain_until, now + min(wait, MAX_PAUSE))
        return wait > 0 and self.pause(now, min(wait, MAX_PAUSE))

    def unconfirmed(self, now: float) -> None:
        """Note an answer without any headers of limits: what they said before expires."""
        for quota in (self.requests, self.tokens):
            if quota.learned is not None:
                quota.unconfirmed(now, self.belief.share)

    def reject(
        self,
        now: float,
        retry_after: float | None,
        *,
        patient: bool,
        sent_at: float | None = None,
    ) -> bool:
        """Learn from a rejection.

        Args:
            now: the time.
            retry_after: seconds that the server asked for, if it did.
            patient: see :meth:`Strikes.add`.
            sent_at: when the rejected call was sent; None where it is certain that a limit was
                reached.

        Returns:
            Whether a pause began or became longer.
        """
        retry_after = _usable(retry_after)
        self._rejected.add(now, 1.0)
        if sent_at is not None and self._is_used_up(now):
            sent_at = None  # by our own count: no wonder
        if sent_at is None or self.random.is_old(now):
            self._before = None  # what was lowered by then was lowered for good reasons
        if sent_at is not None and self.random.presumed(now, retry_after or 0.0):
            return False
        fresh, pause = self.strikes.add(now, retry_after, patient=patient)
        self.watching = True
        if self._before is None:
            self._before = self.belief.state(), self._ramp
        # Once per episode: calls that were in flight together are rejected together, and are one
        # event.
        if fresh and self.learns and pause and not self._in_storm():
            self.belief.lower(now, _LOWER if retry_after is None else _LOWER_IF_TOLD)
            self._apply(now)
        if pause <= 0:
            return False
        return self.pause(now, pause, self._probe_at(now, pause, sent_at, fresh=fresh))

    def _probe_at(
        self, now: float, pause: float, sent_at: float | None, *, fresh: bool
    ) -> float | None:
        """When a probe may be sent during the cool-down; see :meth:`pause`."""
        if sent_at is None:
            self._certain_until = max(self._certain_until, now + pause)
            return math.inf
        if fresh:
            return self.random.begin(now, sent_at, pause)
        at = self.random.rejected(now, sent_at, pause)
        if self.random.confirmed:
            self._before = None
        return at

    def answered(self, now: float, sent_at: float) -> None:
        """Learn from a call that was answered."""
        self.strikes.forgive(sent_at)
        ramp = self._ramp
        if ramp is not None and ramp.young and ramp.start <= sent_at:
            ramp.rate *= 2.0
            if now >= self.paused_until:
                self.gate = min(self.gate, now + ramp.interval(now))
        self.watching = self.random.watching or self.strikes.count > 0
        if not self.random.watching:
            return
        verdict = self.random.answered(now, sent_at)
        # Where the server itself said that nothing remains, answers to other calls prove nothing.
        if verdict == "unknown" or now < self._certain_until:
            return
        if now < self.paused_until:
            self._passes = TRIAL if verdict == "trial" else 1
            self._thaw(now)
        if verdict == "random":
            self._acquit(now)

    def _acquit(self, now: float) -> None:
        """Undo an episode: the rejections came at random, and say nothing of the limits."""
        if self._before is not None:
            state, self._ramp = self._before
            self.belief.restore(state)
            self._before = None
            self._apply(now)
        self.paused_until = self.strikes.until = now
        self.strikes.count = 0

    def is_news(self, now: float, retry_after: float | None, sent_at: float) -> bool:
        """Whether to report a rejection to the store: not one that comes at random."""
        wait = _usable(retry_after) or 0.0
        if self._is_used_up(now):
            return True
        if self.random.presumed(now, wait):
            return False
        self.watching = True
        if now >= self.strikes.until:
            self.random.begin(now, sent_at, wait)
        else:
            self.random.rejected(now, sent_at, wait)
        return True

    def _is_used_up(self, now: float) -> bool:
        """Whether this lane itself filled nearly all of a limit that it knows."""
        for quota in (self.requests, self.tokens):
            if quota.bucket is not None:
                quota.spent.expire(now)
                if quota.spent.total >= quota.bucket.limit * _USED_UP:
                    return True
        return False

    def pause(self, now: float, seconds: float, probe_at: float | None = math.inf) -> bool:
        """Let nothing leave for so long; the longest of overlapping cool-downs counts.

        Args:
            now: the time.
            seconds: from now on.
            probe_at: when one call may leave nevertheless; ``inf``: none may; None: as before.

        Returns:
            Whether that is longer than what was known.
        """
        until = now + seconds
        longer = until > self.paused_until
        if probe_at is None:
            probe_at = self.gate if self._passes > 0 and self.gate < self.paused_until else math.inf
        elif probe_at > now:
            self._passes = 1
        if longer:
            storm = self._in_storm()
            self.paused_until = until
            if self.requests.bucket is None:
                self._ramp = self._make_ramp(now, until, storm=storm)
        elif probe_at == math.inf:
            return False
        if now >= self._certain_until and probe_at < self.paused_until:
            self._thaw(probe_at)
        else:
            self.gate = max(self.gate, self.paused_until)
            self._hold(self.paused_until)
        return longer

    def _in_storm(self) -> bool:
        """Whether even the first call after the last cool-down was rejected.

        That says nothing of the rate: the server rejects everything, whatever is sent.
        """
        if self.strikes.count <= 1:
            return False
        since = self.requests.spent.since(self.paused_until)
        return sum(amount for _, amount in since) <= 1.0

    def _make_ramp(self, now: float, start: float, *, storm: bool) -> Ramp:
        if storm and self._ramp is not None:
            # What the server took before the storm, which must not dilute it.
            return Ramp(start, self._ramp.seen, young=self._ramp.young)
        rate, young = accepted_rate(now, self.requests.spent, self._rejected)
        return Ramp(start, rate, young=young)

    def _hold(self, until: float) -> None:
        self.requests.hold(until)
        self.tokens.hold(until)

    def _thaw(self, at: float) -> None:
        """Let one call leave at this time, whatever was held until later."""
        self.gate = at
        for quota in (self.requests, self.tokens):
            if quota.bucket is not None:
                quota.bucket.thaw(at)

    def review(self, now: float) -> None:
        """Raise the believed share by what is due, and resize the buckets."""
        self.belief.recover(now)
        self._apply(now)

    def divide(self, now: float, portion: float) -> None:
        """Use only this part of the limits from now on, and let no burst gather."""
        self.requests.portion = self.tokens.portion = portion
        if self.belief.share < 1.0:
            self.belief.lower(now, 1.0)  # recovers here again
        self._apply(now)
        # The shares of all processes together may hold one burst, not one each.
        self._hold(now)

    def follow(self, now: float, told: StoreReply) -> bool:
        """Take over what a store knows of the limits.

        Returns:
            Whether a pause began or became longer.
        """
        self.requests.portion = self.tokens.portion = 1.0
        self.requests.learned = told.learned_requests or None
        self.tokens.learned = told.learned_tokens or None
        self.belief.share = told.share / MICRO
        self.belief.review = math.inf  # recovers in the store
        self._apply(now)
        self.strikes.count = told.strikes
        self.watching = self.random.watching or told.strikes > 0
        self.strikes.until = now + told.episode / MICRO
        return told.paused > 0 and self.pause(now, told.paused / MICRO)

    def count(self, now: float, tokens: int) -> Charges:
        """Note what a store granted, as of now."""
        self.random.sent()
        return self.requests.spent.add(now, 1.0), self.tokens.spent.add(now, tokens)

    def correct(self, charges: Charges, requests: float, tokens: float) -> None:
        """Correct what was counted by :meth:`count`."""
        self.requests.spent.correct(charges[0], requests)
        if charges[1] is not None:  # pragma: no branch - count() always counts tokens
            self.tokens.spent.correct(charges[1], tokens)

    def idle(self, now: float) -> bool:
        """Whether there is no cool-down, and nothing in the window."""
        self.requests.spent.expire(now)
        self.tokens.spent.expire(now)
        return now >= self.gate and not (self.requests.spent.total or self.tokens.spent.total)

    def shift(self, delta: float) -> None:
        """Move everything by ``delta`` seconds: the clock was replaced by another."""
        self._before = None
        self._certain_until += delta
        # Both quotas, and whatever else holds a time: one that is left out would wait for years, or
        # not at all, on a loop whose clock starts elsewhere.
        for part in (self.requests, self.tokens, self.belief, self._rejected, self.random):
            part.shift(delta)
        self.paused_until += delta
        self.gate += delta
        self.strikes.until += delta
        if self._ramp is not None:
            self._ramp.start += delta

    def _apply(self, now: float) -> None:
        self.requests.apply(now, self.belief.share)
        self.tokens.apply(now, self.belief.share)

    def _step_ramp(self, now: float, ramp: Ramp) -> None:
        if now < self.paused_until:
            return
        interval = ramp.interval(now)
        if interval:
            self.gate = max(self.gate, now) + interval
        else:
            self._ramp = None


def _usable(retry_after: float | None) -> float | None:
    return retry_after if retry_after is not None and 0.0 < retry_after < math.inf else None
