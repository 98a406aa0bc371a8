"""Sets how many calls of a run may be in flight while a server fails and recovers.

Pure: the time is passed in. The rows of a run share one server, so they slow down together:

- Some calls fail: each row backs off on its own, and the run goes on at full width. Only when most
  of them fail is the width halved, as an overloaded server answers more when fewer requests come.
- All calls fail: an outage. One probe goes out at a time, with growing pauses between them, until
  an answer comes; then the width doubles twice a second, for as long as the server copes.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Pace"]

_CANARY: Final = 4
"""Calls that go first: a wrong key or model costs so many calls, not ``max_concurrency``."""
_CANARY_SECONDS: Final = 1.0
"""Refusals come within a second; a slow first answer must not hold up the run for longer."""
# Failures in a row, at least, that make an outage: 5 of 6 rejected by chance is rare.
_FEW: Final = 5
_PART: Final = 4  # ... or a quarter of the calls in flight
_OVERLOAD: Final = 0.6  # share of failures above which asking less may get more answers
_LEAST: Final = 4  # the width is never halved below this while answers come
_STEP: Final = 0.5  # seconds between two doublings
# Seconds between two steps above a width at which the server was overloaded.
_SLOW_STEP: Final = 1.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_HUNG: Final = 30.0  # seconds after which a probe that got no answer is not waited for


class Pace:
    """Says when the next call may begin.

    Args:
        width: calls in flight while all is well.
        now: monotonic seconds.

    Attributes:
        width: calls in flight while all is well.
        limit: calls in flight at present.
        probing: whether there is an outage: one call at a time.
    """

    __slots__ = (
        "_bad", "_canary", "_ceiling", "_good", "_grow_at", "_hold_until", "_probe_at", "_streak",
        "_streak_since", "limit", "probing", "width",
    )  # fmt: skip

    def __init__(self, width: int, now: float) -> None:
        self.width = width
        self.limit = float(min(_CANARY, width))
        self.probing = False
        self._canary = True
        self._ceiling = float(width)  # above it the width grows slowly
        self._grow_at = now + _CANARY_SECONDS
        self._hold_until = -math.inf
        self._probe_at = -math.inf
        self._good = self._bad = 0  # outcomes since the width was looked at last
        self._streak = 0  # failures since the last answer
        self._streak_since = now

    def wait(self, now: float, in_flight: int) -> float:
        """Return the seconds until a call may begin; 0: now; infinity: when another has ended.

        Args:
            now: monotonic seconds.
            in_flight: calls that have begun and not ended.
        """
        if now < self._hold_until:
            return self._hold_until - now
        if self.probing:
            return max(0.0, self._probe_at + _HUNG - now)
        # Growth is caught up with whenever somebody looks, so that
        # the pace needs no timer of its own.
        while self.limit < self.width and now >= self._grow_at:
            self._grow()
        if in_flight < self.limit:
            return 0.0
        return self._grow_at - now if self.limit < self.width else math.inf

    def _grow(self) -> None:
        slow = self.limit >= self._ceiling
        # Near a width that was too much before, an eighth at a time; else it doubles.
        grown = self.limit + max(1.0, self._ceiling / 8) if slow else self.limit * 2
        self.limit = min(float(self.width), grown)
        self._grow_at += _SLOW_STEP if slow else _STEP

    def begin(self, now: float) -> None:
        """Note that a call begins."""
        if self.probing:
            self._probe_at = now

    def answered(self, now: float) -> None:
        """Note that the server answered a call, well or with an error that is the row's own."""
        self._good += 1
        self._streak = 0
        if self.probing:
            self.probing = False
            self._hold_until = -math.inf
            # One answer is no proof that all is well: two calls follow
            # it, then twice as many each time.
            self._restart(now, limit=2.0, ceiling=float(self.width))
        # The key and the model are right: all others may follow at once.
        elif self._canary:
            self.limit = float(self.width)
        self._canary = False

    def failed(self, now: float, jitter: float, asked: float | None = None) -> None:
        """Note that a call failed for a reason that passes.

        Args:
            now: monotonic seconds.
            jitter: 1 or a little more; so much longer are pauses.
            asked: Retry-After in seconds, if the server sent it.
        """
        self._bad += 1
        self._streak += 1
        if self._streak == 1:
            self._streak_since = now
        if self.probing or self._streak >= max(_FEW, int(self.limit) // _PART):
            self._pause(now, jitter, asked)
        # Judged over about two rounds of calls, and no fewer than 16: a smaller share is chance.
        elif self._good + self._bad >= max(16.0, 2 * self.limit):
            if self._bad > _OVERLOAD * (self._good + self._bad):
                limit = max(min(float(_LEAST), self.limit), self.limit // 2)
                self._restart(now, limit=limit, ceiling=limit)
            self._good = self._bad = 0

    def _pause(self, now: float, jitter: float, asked: float | None) -> None:
        """Hold the next probe back: for a quarter of the time that the outage has lasted."""
        self.probing = True
        self._canary = False
        self.limit = 1.0
        self._probe_at = -math.inf
        pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, (now - self._streak_since) / 4))
        self._hold_until = max(self._hold_until, now + max(pause, asked or 0.0) * jitter)

    def _restart(self, now: float, *, limit: float, ceiling: float) -> None:
        self.limit = min(limit, float(self.width))
        self._ceiling = ceiling
        self._grow_at = now + _STEP
        self._good = self._bad = 0

    def gave_up(self) -> None:
        """Note that a call ended without an outcome, such as a cancelled one."""
        # If it was the probe, the next one may go out at once.
        self._probe_at = -math.inf

    def narrow(self, width: int) -> bool:
        """Lower the width for good, as this process cannot open more files; whether it changed."""
        width = max(1, width)
        if width >= self.width:
            return False
        self.width = width
        self.limit = min(self.limit, float(width))
        self._ceiling = min(self._ceiling, float(width))
        return True

    def resume(self, now: float) -> None:
        """Forget a pause: the machine slept, and the outage with it may be over."""
        self._hold_until = min(self._hold_until, now)
