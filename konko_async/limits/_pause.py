"""After a rejection: how long nobody calls, how calls resume, what is believed of the limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from konko_async.limits._window import SlidingSum

__all__ = ["MAX_PAUSE", "Belief", "Ramp", "Strikes", "accepted_rate"]

MAX_PAUSE: Final = 120.0
"""Seconds. A server that asks for more is asked again after this, by one call."""

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
            patient: without ``retry_after``, pause only from the third episode on: somebody else
                (the adaptive limiter) takes care of the first ones.

        Returns:
            Whether a new episode began, and the seconds to pause, counted from now.
        """
        fresh = now >= self.until
        if fresh:
            self.count += 1
        pause = 0.0
        if retry_after is not None:
            pause = min(retry_after, MAX_PAUSE)
        elif fresh and (not patient or self.count > 2):  # noqa: PLR2004  (said above)
            pause = min(_FIRST_BACKOFF * 2.0 ** min(self.count - 1, 10), _LAST_BACKOFF)
        self.until = max(self.until, now + max(pause, _FIRST_BACKOFF / 2))
        return fresh, pause

    def forgive(self, admitted_at: float) -> None:
        """Note that a call went well; one admitted before the last pause ended says nothing."""
        if admitted_at >= self.until:
            self.count = 0


class Belief:
    """The share of its limits that a server is believed to grant: additive up, multiplicative down.

    Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance"
    (1989): it is what lets processes that do not know of each other share a limit fairly.

    Attributes:
        share: 1 is all of it.
        review: when the share is next worth looking at; ``inf`` while it is 1.
    """

    __slots__ = ("_since", "_step", "review", "share")

    _LOWEST: Final = 0.02
    _STEPS: Final = 20
    _UP_PER_WINDOW: Final = 0.1

    def __init__(self, window: float) -> None:
        self.share = 1.0
        self.review = math.inf
        self._since = 0.0
        self._step = window / self._STEPS

    def lower(self, now: float, factor: float) -> None:
        """Multiply the share."""
        self.share = max(self.share * factor, self._LOWEST)
        self._since = now
        self.review = now + self._step

    def recover(self, now: float) -> None:
        """Add what has been earned since the last call: 10 points per window without rejection."""
        earned = (now - self._since) / (self._step * self._STEPS) * self._UP_PER_WINDOW
        self.share = min(self.share + earned, 1.0)
        self._since = now
        self.review = math.inf if self.share >= 1.0 else now + self._step

    def shift(self, delta: float) -> None:
        """Move to another clock."""
        self._since += delta
        self.review += delta


class Ramp:
    """A way back for a lane that knows no rate: spaced calls, faster and faster.

    It begins at 0.7 of the rate at which calls were accepted before, gains a tenth of that rate
    every second, and is over at four times of it: by then the server has shown that it takes more.

    Attributes:
        start: when the pause ends.
    """

    __slots__ = ("_rate", "start")

    _BEGIN: Final = 0.7
    _GAIN: Final = 0.1
    _OVER: Final = 4.0

    def __init__(self, start: float, rate: float) -> None:
        self.start = start
        self._rate = rate

    def interval(self, now: float) -> float:
        """Seconds between two calls at ``now``; 0 once it is over."""
        share = self._BEGIN + max(now - self.start, 0.0) * self._GAIN
        return 0.0 if share >= self._OVER else 1.0 / (share * self._rate)


def accepted_rate(now: float, admitted: SlidingSum, rejected: SlidingSum) -> float:
    """Calls per second that a server took lately, within the last window; at least 0.1."""
    admitted.expire(now)
    rejected.expire(now)
    taken = max(admitted.total - rejected.total, 1.0)
    return max(taken / max(now - admitted.oldest(now), 1.0), 0.1)
