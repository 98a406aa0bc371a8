"""After a rejection: the cool-down, how calls resume, and how far the limits are trusted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from konko_async.limits._window import SlidingSum

__all__ = ["MAX_PAUSE", "Belief", "Ramp", "Strikes", "accepted_rate"]

MAX_PAUSE: Final = 120.0
"""Seconds. A server that asks for more is asked again after this, by one call."""

# The cool-down without Retry-After, in seconds, doubled with each episode in a row up to the last.
_FIRST_BACKOFF: Final = 0.25
_LAST_BACKOFF: Final = 16.0


class Strikes:
    """Rejections in a row, as episodes: what was in flight together is rejected together.

    Attributes:
        count: episodes since a call that was admitted after the last one went well.
        until: when the present episode ends; later rejections are a new one.
    """

    __slots__ = ("count", "until")

    def __init__(self) -> None:
        self.count = 0
        self.until = -math.inf

    def add(self, now: float, retry_after: float | None, *, patient: bool) -> tuple[bool, float]:
        """Note a rejection.

        Args:
            now: the time.
            retry_after: seconds the server asked for, above 0, if it did.
            patient: without ``retry_after``, cool down only from the third episode on: the adaptive
                limiter takes care of the first ones.

        Returns:
            Whether a new episode began, and the seconds to cool down, counted from now.
        """
        fresh = now >= self.until
        if fresh:
            self.count += 1
        pause = 0.0
        if retry_after is not None:
            pause = min(retry_after, MAX_PAUSE)
        elif fresh and (not patient or self.count > 2):  # noqa: PLR2004  (the third episode, see patient)
            pause = min(_FIRST_BACKOFF * 2.0 ** min(self.count - 1, 10), _LAST_BACKOFF)
        # At least an eighth of a second, also without a cool-down: what was in flight with the
        # rejected call is rejected a little later, and is the same episode.
        self.until = max(self.until, now + max(pause, _FIRST_BACKOFF / 2))
        return fresh, pause

    def forgive(self, admitted_at: float) -> None:
        """Note that a call went well; one admitted before the last cool-down ended says nothing."""
        if admitted_at >= self.until:
            self.count = 0


class Belief:
    """The share of its limits that a server is believed to grant: additive up, multiplicative down.

    Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance"
    (1989): it is what lets processes that do not know of each other share a limit fairly. As in
    CUBIC (RFC 9438), the way back is fast up to a little below where the rejection came, and slow
    from there on.

    Attributes:
        share: 1 is all of it.
        review: when the share is next worth looking at; ``inf`` while it is 1.
    """

    __slots__ = ("_fast", "_goal", "_since", "_step", "_window", "review", "share")

    # Not 0: a lane must go on trying, or it would never learn that the server has recovered.
    _LOWEST: Final = 0.02
    _STEPS: Final = 20
    # The additive increase, of the full limit per window.
    _UP_PER_WINDOW: Final = 0.1
    # CUBIC's way back, in 4 s (or a window, if shorter) to 95 % of where the rejection came. At a
    # tenth per window alone, the way back from 0.7 would take three windows.
    _FAST_TO: Final = 0.95
    _FAST_WITHIN: Final = 4.0

    def __init__(self, window: float) -> None:
        self.share = 1.0
        self.review = math.inf
        self._since = 0.0
        self._window = window
        self._step = min(window / self._STEPS, self._FAST_WITHIN / self._STEPS)
        self._goal = 0.0
        self._fast = 0.0  # of the share, per second, up to the goal

    def lower(self, now: float, factor: float) -> None:
        """Multiply the share."""
        # Lowered again on the way back, it was still too high: the goal goes down with it.
        self._goal = self.share * self._FAST_TO
        self.share = max(self.share * factor, self._LOWEST)
        self._fast = max(self._goal - self.share, 0.0) / min(self._FAST_WITHIN, self._window)
        self._since = now
        self.review = now + self._step

    def recover(self, now: float) -> None:
        """Add what has been earned since the last call."""
        elapsed = now - self._since
        if self.share < self._goal:
            # Seconds of the fast part; the rest of the time counts at the slow pace.
            fast = min((self._goal - self.share) / self._fast, elapsed)
            self.share += fast * self._fast
            elapsed -= fast
        self.share = min(self.share + elapsed / self._window * self._UP_PER_WINDOW, 1.0)
        self._since = now
        self.review = math.inf if self.share >= 1.0 else now + self._step

    def state(self) -> tuple[float, ...]:
        """Return the state, for :meth:`restore`."""
        return self.share, self.review, self._since, self._goal, self._fast

    def restore(self, state: tuple[float, ...]) -> None:
        """Go back to an earlier state: what lowered the share proved to be a mistake."""
        self.share, self.review, self._since, self._goal, self._fast = state

    def shift(self, delta: float) -> None:
        """Move to another clock."""
        self._since += delta
        self.review += delta


class Ramp:
    """How calls resume where no rate is known: spaced out, faster and faster.

    It begins at 0.7 of the rate at which calls were accepted before, and gains a tenth of that rate
    every second: slowly around the rate that may have been the limit. A fifth above it was not the
    limit: from there on it doubles every 5 seconds, and is over at four times of it.

    A lane that was young when it was rejected has seen no rate, only a few calls. There each answer
    doubles it, as in TCP's slow start, so that at most as many calls as were accepted are too many.

    Attributes:
        start: when the cool-down ends.
        seen: calls per second that were accepted before.
        rate: the same, or what it was raised to.
        young: whether there was less than a second of traffic to judge by.
    """

    __slots__ = ("rate", "seen", "start", "young")

    _BEGIN: Final = 0.7
    _GAIN: Final = 0.1
    _FREE_FROM: Final = 1.2
    _DOUBLED_IN: Final = 5.0
    _OVER: Final = 4.0

    def __init__(self, start: float, rate: float, *, young: bool = False) -> None:
        self.start = start
        self.rate = self.seen = rate
        self.young = young

    def interval(self, now: float) -> float:
        """Seconds between two calls at ``now``; 0 once it is over."""
        elapsed = max(now - self.start, 0.0)
        share = self._BEGIN + elapsed * self._GAIN
        if share > self._FREE_FROM:
            since = (share - self._FREE_FROM) / self._GAIN
            share = self._FREE_FROM * 2.0 ** min(since / self._DOUBLED_IN, 10.0)
        return 0.0 if share >= self._OVER else 1.0 / (share * self.rate)


# Seconds of traffic below which a rate is a guess from a few calls; see Ramp.
_YOUNG: Final = 1.0


def accepted_rate(now: float, admitted: SlidingSum, rejected: SlidingSum) -> tuple[float, bool]:
    """Calls per second that a server took lately, and whether that is from less than a second.

    Within the last window; at least 0.1.
    """
    admitted.expire(now)
    rejected.expire(now)
    taken = max(admitted.total - rejected.total, 1.0)
    age = now - admitted.oldest(now)
    return max(taken / max(age, _YOUNG), 0.1), age < _YOUNG
