"""The arithmetic of the limits: how long until an amount fits, with the time passed in.

A bucket holds two things at once:

* **a pace**: a leaky level (the GCRA in its continuous form), so that calls leave evenly and nobody
  waits for a minute to end; the larger its burst, the lower its rate;
* **a window**: what was spent in any ``window`` seconds, corrected to what was really used, and
  kept at or below the limit whatever the pace allowed (see :class:`SlidingSum`).

Nothing here sleeps or reads a clock.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

from aiolimiter import AsyncLimiter

from konko_async.limits._window import COVER, Charge, SlidingSum

__all__ = ["GRACE", "Bucket", "RequestBucket", "TokenBucket"]

# Timers and clocks are not exact to the microsecond: what fits a microsecond from now fits now.
# Without it, rounding could ask for a timer at the present moment for ever.
GRACE: Final = 1e-6
"""Seconds by which everything may be early."""

# By default 1 % of a limit may leave back to back (RateLimit.burst). _SLACK forgives late timers;
# below 1 it lets no second request out, see RequestBucket.
_BURST_SHARE: Final = 0.01
_SLACK_SHARE: Final = 0.005
_MAX_SLACK: Final = 0.5


class Bucket(Protocol):
    """A limit of so much in any ``window`` seconds; the in-process lane calls it directly.

    All methods are synchronous, take the time and never wait, so that a lane can decide over
    several limits in one step that no cancellation splits. A limit that is shared between
    processes has to ask somebody over a network, and is a :class:`Store` instead.

    Attributes:
        limit: what any window may hold.
        burst: what may leave back to back.
        rate: what leaves per second in the long run.
        share: the part of the possible rate that this is.
        spent: what was spent in the last window.
    """

    limit: float
    burst: float
    rate: float
    share: float
    spent: SlidingSum

    def try_take(self, now: float, amount: float) -> Charge | None:
        """Take ``amount`` if it fits at ``now``, else return None and change nothing."""

    def delay(self, now: float, amount: float, ahead: float = 0.0) -> float:
        """Return the seconds until ``amount`` fits, once ``ahead`` has been taken before it."""

    def settle(self, now: float, charge: Charge, reserved: float, used: float) -> None:
        """Correct a charge of ``reserved`` to what was really ``used``."""

    def resize(self, now: float, limit: float, share: float = 1.0) -> None:
        """Change the limit; what was spent stays spent.

        Args:
            now: the time.
            limit: what any window may hold.
            share: of the pace that the limit allows. The window itself stays whole: it is full of
                what was accepted before, and a smaller one would stall until that has left it.
        """

    def hold(self, until: float) -> None:
        """Let no burst gather until ``until``, so that a cool-down ends spread out."""

    def thaw(self, at: float) -> None:
        """Hold only until ``at``, earlier than :meth:`hold` said."""

    def shift(self, delta: float) -> None:
        """Move everything by ``delta`` seconds: the clock was replaced by another."""


class RequestBucket(AsyncLimiter):
    """Requests: the leaky level of aiolimiter, with parameters that hold a strict window.

    ``AsyncLimiter(60, 60)`` lets 120 requests through in its first minute: a burst of 60, and 60
    more as they leak out. For a window W to hold at most L with a burst of B, the rate must be at
    most ``(L - B + 1) / W``: N requests within D < W seconds satisfy ``N <= B + rate·D < L + 1``.
    So here ``max_rate`` is B and ``time_period`` is ``B / rate``, with W stretched by 0.75 %
    (0.45 s of a minute), which is what the network may delay one request more than another.

    B has a further ``min(0.5, 0.5 % of L)``, which lets no second request out but forgives timers
    that fire late: with B = 1 exactly, each late one would cost its lateness forever.

    The inherited ``acquire()`` is not used: its heap serves the smallest first. Order is the
    lane's business.
    """

    __slots__ = ("_asked_burst", "_grace", "burst", "limit", "rate", "share", "spent")

    def __init__(
        self,
        limit: float,
        window: float = 60.0,
        *,
        burst: float | None = None,
        spent: SlidingSum | None = None,
    ) -> None:
        self._asked_burst = burst
        self.share = 1.0
        self.spent = SlidingSum(window) if spent is None else spent
        self.limit, self.burst, self.rate = _requests(limit, window, burst)
        super().__init__(self.burst, self.burst / self.rate)
        self._grace = self.burst + self.rate * GRACE

    def try_take(self, now: float, amount: float = 1.0) -> Charge | None:
        """Take ``amount`` requests if they fit now; see :class:`Bucket`."""
        elapsed = now - self._last_check
        level = self._level
        if elapsed > 0:
            self._last_check = now
            level -= elapsed * self._rate_per_sec
            if level < 0.0:  # noqa: PLR1730  (max() is a call, and this is the hot path)
                level = 0.0
            self._level = level
        elif elapsed < 0:
            return None
        level += amount
        # The level first: it is a comparison of floats, the window may have slots to expire.
        if level > self._grace:
            return None
        charge = self.spent.take(now, amount, self.limit)
        if charge is not None:
            self._level = level
        return charge

    def delay(self, now: float, amount: float = 1.0, ahead: float = 0.0) -> float:
        """Seconds until ``amount`` fits after ``ahead`` others; see :class:`Bucket`."""
        elapsed = now - self._last_check
        level = max(self._level - max(elapsed, 0.0) * self._rate_per_sec, 0.0)
        over = level + ahead + amount - self.burst
        wait = over / self._rate_per_sec if over > self._grace - self.burst else 0.0
        return max(wait - min(elapsed, 0.0), _room(self.spent, now, ahead + amount, self.limit))

    def settle(self, now: float, charge: Charge, reserved: float, used: float) -> None:  # noqa: ARG002  (Bucket's signature)
        """Correct a charge; given back, it may be taken again at once if the window has room."""
        self.spent.correct(charge, used - reserved)
        self._level = max(self._level + used - reserved, 0.0)

    def resize(self, now: float, limit: float, share: float = 1.0) -> None:
        """Change the limit and the share of its pace; the level stays, in requests."""
        self._settle_level(now)
        window = self.spent.window
        self.limit, self.burst, rate = _requests(limit, window, self._asked_burst)
        self.share = share
        # One call per window at least.
        self.rate = max(rate * share, min(rate, 1.0 / (window * COVER)))
        self.max_rate, self.time_period = self.burst, self.burst / self.rate
        self._rate_per_sec = self.rate
        self._grace = self.burst + self.rate * GRACE

    def hold(self, until: float) -> None:
        """Be full but for one request at ``until``."""
        self._settle_level(until)
        # Not empty: all that waited would leave in one burst when the cool-down ends.
        self._level = max(self._level, self.burst - 1.0)

    def thaw(self, at: float) -> None:
        """Hold only until ``at``; see :class:`Bucket`."""
        self._last_check = min(self._last_check, at)

    def shift(self, delta: float) -> None:
        """Move to another clock; no aiolimiter warning, as the level is not bound to a loop."""
        self._last_check += delta
        self.spent.shift(delta)

    def _settle_level(self, now: float) -> None:
        elapsed = now - self._last_check
        if elapsed > 0:
            self._level = max(self._level - elapsed * self._rate_per_sec, 0.0)
            self._last_check = now


class TokenBucket:
    """Tokens: first in, first out whatever the size; reserve an estimate, settle to the real usage.

    * An amount above the burst waits until the level is 0, is then charged in full and leaves a
      debt that those after it wait for. One above the whole limit waits until the window is empty.
      So every amount is admitted some time, and none is admitted cheaper than it is.
    * More used than reserved is a debt. Less used is given back: to the window at the moment of the
      reservation, and to the level as credit, which may be spent at once and else fades at the
      bucket's rate. A charge that has left the window gives nothing back.
    * Nobody owes more than one window: by then the server counts from zero again, whatever it
      reported. So absurd figures cost a wait of one window at most.
    """

    __slots__ = ("_at", "_grace", "_level", "burst", "limit", "rate", "share", "spent")

    def __init__(
        self,
        limit: float,
        window: float = 60.0,
        *,
        burst: float | None = None,
        spent: SlidingSum | None = None,
    ) -> None:
        self.spent = SlidingSum(window) if spent is None else spent
        self._level = 0.0
        self._at = 0.0
        self._size(limit, burst, 1.0)

    def _size(self, limit: float, burst: float | None, share: float) -> None:
        self.limit, self.share = limit, share
        self.burst = limit * _BURST_SHARE if burst is None else burst
        # The window keeps the last hundredth. More would cost waiting in one piece once a window,
        # so a larger burst lowers the rate, if not to nothing.
        excess = self.burst - limit * _BURST_SHARE
        amount = max(limit - max(excess, 0.0), limit * _BURST_SHARE)
        self.rate = share * amount / (self.spent.window * COVER)
        self._grace = self.rate * GRACE

    def try_take(self, now: float, amount: float) -> Charge | None:
        """Take ``amount`` tokens if they fit now; see :class:`Bucket`."""
        elapsed = now - self._at
        level = self._level
        if elapsed > 0:
            self._at = now
            if level > 0.0:
                level -= elapsed * self.rate
                if level < 0.0:  # noqa: PLR1730  (max() is a call, and this is the hot path)
                    level = 0.0
                self._level = level
            elif level:
                level += elapsed * self.rate
                if level > 0.0:  # noqa: PLR1730  (min() is a call, and this is the hot path)
                    level = 0.0
                self._level = level
        elif elapsed < 0:
            return None
        if level > self._grace and level > self.burst - amount + self._grace:
            return None
        spent = self.spent
        charge = spent.take(now, amount, self.limit)
        if charge is None:
            if spent.total > 0.0:
                return None
            # An empty window admits any amount: one above the limit would otherwise wait forever.
            charge = spent.add(now, amount)
        self._level = level + amount
        return charge

    def delay(self, now: float, amount: float, ahead: float = 0.0) -> float:
        """Seconds until ``amount`` fits after ``ahead`` others; see :class:`Bucket`."""
        elapsed = now - self._at
        level = self._level
        if elapsed > 0:
            step = elapsed * self.rate
            level = max(level - step, 0.0) if level > 0 else min(level + step, 0.0)
        over = level + ahead - max(self.burst - amount, 0.0)
        wait = over / self.rate if over > self._grace else 0.0
        return max(wait - min(elapsed, 0.0), _room(self.spent, now, ahead + amount, self.limit))

    def settle(self, now: float, charge: Charge, reserved: float, used: float) -> None:
        """Correct a charge; see the class."""
        if self._level:
            self._advance(now)
        elif now > self._at:
            self._at = now
        if now >= self.spent.expires:
            self.spent.expire(now)
        difference = used - reserved
        if difference > 0:
            self._owe(now, charge, min(difference, max(self.limit - reserved, 0.0)))
        elif self.spent.correct(charge, difference):
            self._level += difference

    def _owe(self, now: float, charge: Charge, difference: float) -> None:
        # The charge has left the window, but the excess was used all the same: it counts as of now.
        if not self.spent.correct(charge, difference):
            self.spent.add(now, difference)
        # Bounded by a window, but never below what is owed already: large calls may owe more.
        self._level = max(min(self._level + difference, self.limit), self._level)

    def resize(self, now: float, limit: float, share: float = 1.0) -> None:
        """Change the limit, and the burst in proportion; the level stays, in tokens."""
        self._advance(now)
        self._size(limit, self.burst * limit / self.limit, share)

    def hold(self, until: float) -> None:
        """Be half full at ``until``: enough for one usual call, and then at the rate."""
        self._advance(until)
        self._level = max(self._level, self.burst / 2)

    def thaw(self, at: float) -> None:
        """Hold only until ``at``; see :class:`Bucket`."""
        self._at = min(self._at, at)

    def shift(self, delta: float) -> None:
        """Move to another clock."""
        self._at += delta
        self.spent.shift(delta)

    def _advance(self, now: float) -> None:
        step = (now - self._at) * self.rate
        if step > 0:
            level = self._level
            if level > step:
                self._level = level - step
            else:
                self._level = 0.0 if level > 0 else min(level + step, 0.0)
            self._at = now


def _requests(limit: float, window: float, burst: float | None) -> tuple[float, float, float]:
    """The whole limit, the burst and the rate of a request bucket."""
    whole = float(max(math.floor(limit), 1))
    wanted = max(1.0, math.floor(whole * _BURST_SHARE)) if burst is None else min(burst, whole)
    size = wanted + min(whole * _SLACK_SHARE, _MAX_SLACK)
    # See RequestBucket for why no more than this keeps a strict window.
    return whole, size, (whole - size + 1.0) / (window * COVER)


def _room(spent: SlidingSum, now: float, amount: float, limit: float) -> float:
    """Seconds until the window has room for ``amount``, counting only what is known to expire."""
    if now >= spent.expires:
        spent.expire(now)
    excess = spent.total + amount - limit
    return spent.delay(now, excess) if excess > 0 and spent.total > 0 else 0.0
