"""One limit of one lane: what was configured, what was learned, and the bucket that keeps both."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

from konko_async.limits._buckets import RequestBucket, TokenBucket
from konko_async.limits._headers import Reported
from konko_async.limits._stats import Quantity
from konko_async.limits._window import Charge, SlidingSum

if TYPE_CHECKING:
    from konko_async.limits._headers import Kind

__all__ = ["Quota"]

# A limit that only the server's headers report is kept by the window; its pace is a loose one, so
# that a few calls at once do not wait for each other where nobody asked for a limit.
_LEARNED_BURST: Final = 0.1
_NOTICE: Final = 0.01
# A learned limit below this is believed from the second answer on, and where no reset shows its
# period it is taken for at least one call per second: it may well be a limit per second.
_LOW: Final = 10.0
_LEAST_PER_SECOND: Final = 1.0
# Answers from which the period of a limit is read, the least of them, and the shortest period.
_ANSWERS: Final = 16
_ANSWERS_LEAST: Final = 2
_SHORTEST: Final = 0.5
# Answers without a limit after which the last one reported has expired.
_FORGET_AFTER: Final = 5
# Resets beyond so many windows belong to another limit; pauses in a row for "nothing remains".
_FAR: Final = 2.0
_EMPTY_MOST: Final = 2
# Answers with one and the same "remaining", after which it is no live figure.
_STALE_AFTER: Final = 8


class Quota:
    """Requests or tokens per window.

    The limit in force is the lower of what the user set and what the server last said, times the
    share of it that rejections leave believable.

    Attributes:
        kind: what is counted.
        configured: the user's limit, or None.
        portion: the part of the limits that is ours, below 1 where processes divide them.
        learned: the server's ``x-ratelimit-limit-*``, or None.
        bucket: keeps the limit in force; None while there is none.
        spent: what this lane spent (and saw others spend) in the last window.
    """

    __slots__ = (
        "_doubtful", "_empty", "_empty_until", "_foreign", "_period", "_remaining", "_same",
        "_seen", "_share_of_burst", "_silent", "bucket", "configured", "kind", "learned", "portion",
        "spent",
    )  # fmt: skip

    def __init__(
        self, kind: Kind, configured: float | None, window: float, share_of_burst: float | None
    ) -> None:
        self.kind = kind
        self.configured = configured
        self.portion = 1.0
        self.learned: float | None = None
        self.spent = SlidingSum(window)
        self.bucket: RequestBucket | TokenBucket | None = None
        self._share_of_burst = share_of_burst
        self._foreign: deque[tuple[Charge, float]] = deque()
        self._doubtful: float | None = None  # a very low limit, reported once so far
        self._silent = 0  # answers since the last one that reported a limit
        # Pauses in a row because nothing remained, and when the last one ends.
        self._empty = 0
        self._empty_until = -math.inf
        self._remaining, self._same = -1.0, 0
        # Of the last answers: the seconds to the reset, and the period that follows from them.
        self._seen: deque[tuple[float, float]] = deque(maxlen=_ANSWERS)
        self._period = window
        self.apply(0.0, 1.0)

    @property
    def ceiling(self) -> float | None:
        """The lower of what was configured and what was learned."""
        if self.configured is None:
            return self.learned
        return self.configured if self.learned is None else min(self.configured, self.learned)

    def apply(self, now: float, share: float) -> None:
        """Make the bucket keep the ceiling, at ``share`` of the pace."""
        ceiling = self.ceiling
        if ceiling is None:
            self.bucket = None  # what was learned has expired
            return
        limit = max(ceiling * self.portion, 1.0)
        if self.bucket is None:
            self.bucket = self._make(limit)
        if limit != self.bucket.limit or share != self.bucket.share:
            self.bucket.resize(now, limit, share)

    def _make(self, limit: float) -> RequestBucket | TokenBucket:
        share = self._share_of_burst
        if share is None and self.configured is None:
            share = _LEARNED_BURST
        burst = None if share is None else limit * share
        window = self.spent.window
        if self.kind == "requests":
            whole = None if burst is None else max(round(burst), 1)
            return RequestBucket(limit, window, burst=whole, spent=self.spent)
        return TokenBucket(limit, window, burst=burst, spent=self.spent)

    def learn(self, now: float, reported: Reported, share: float, unseen: float) -> float:
        """Take in what an answer said of this limit.

        Args:
            now: the time.
            reported: what it said.
            share: see :meth:`apply`.
            unseen: the most that this lane may have sent and the server not yet counted.

        Returns:
            Seconds until the server grants anything again; 0 if it does now.
        """
        if reported.limit is not None:
            self._silent = 0
            self._learn_period(reported)
            self._learn_limit(now, self._per_window(reported), share)
        if reported.remaining is None:
            return 0.0
        return self._compare(now, reported, unseen)

    def _learn_limit(self, now: float, limit: float, share: float) -> None:
        if limit == self.learned:
            return
        if limit < _LOW and self.learned is None and self._doubtful is None:
            self._doubtful = limit  # one such answer may be a slip, and would stop everything
            return
        self._doubtful = None
        self.learned = limit
        self.apply(now, share)

    def translate(self, reported: Reported) -> Reported:
        """Return what is reported to a store: the limit in our window, and nothing doubtful."""
        if reported.limit is None:
            return reported
        self._learn_period(reported)
        limit = self._per_window(reported)
        if self._is_short:
            return Reported(limit)
        if limit < _LOW and self.learned is None and self._doubtful is None:
            self._doubtful = limit
            return Reported(None, reported.remaining, reported.reset)
        return Reported(limit, reported.remaining, reported.reset)

    def _learn_period(self, reported: Reported) -> None:
        """Infer the period that a limit is meant for, which no header gives.

        Where it refills steadily (OpenAI), the reset is the used part of the period; where it
        begins anew, resets are up to a whole period. So the period is at least any reset, and at
        most the least that follows from used parts.
        """
        limit, remaining, reset = reported.limit, reported.remaining, reported.reset
        if limit is None or remaining is None or not reset:
            return
        used = limit - remaining
        if used < 1:
            return
        self._seen.append((reset, reset * limit / used))
        longest, least = (max(r for r, _ in self._seen), min(p for _, p in self._seen))
        self._period = max(longest, least)

    def _per_window(self, reported: Reported) -> float:
        """The limit in our window: of a limit per second, sixty times as much per minute."""
        limit, window = reported.limit or 0.0, self.spent.window
        if reported.reset is None and not self._seen:
            # The period is not known. What really limits so much says so by a rejection.
            return max(limit, window * _LEAST_PER_SECOND) if limit < _LOW else limit
        if not self._is_short:
            return limit
        # In steps, so that the pace does not change with every answer.
        return limit * max(round(window / max(self._period, _SHORTEST)), 1)

    @property
    def _is_short(self) -> bool:
        """Whether the limit is for a period much shorter than our window."""
        return len(self._seen) >= _ANSWERS_LEAST and self._period <= self.spent.window / 2

    def unconfirmed(self, now: float, share: float) -> None:
        """Note an answer that reported no limit: after some of them, what was learned expires."""
        self._silent += 1
        if self._silent >= _FORGET_AFTER and self.learned is not None:
            self.learned = self._doubtful = None
            self._seen.clear()
            self.apply(now, share)

    def _compare(self, now: float, reported: Reported, unseen: float) -> float:
        """Hold the server's count against ours: the difference is what others spend.

        A window that we filled ourselves is no news: it opens bit by bit, while ``reset`` is when
        all of it is free. Pausing for that would waste most of every limit that is well used.
        """
        spent, ceiling = self.spent, self.ceiling
        spent.expire(now)
        remaining, reset = reported.remaining or 0.0, reported.reset
        if remaining > 0:
            self._empty = 0
        if ceiling is None:
            return self._until_reset(now, reset) if remaining <= 0 else 0.0
        self._same = self._same + 1 if remaining == self._remaining else 0
        self._remaining = remaining
        if self._is_short or self._same >= _STALE_AFTER:
            # There again in a moment, or always the same, whatever is sent: it says nothing.
            return 0.0
        ours = max(ceiling - spent.total, 0.0)
        if ours - remaining > max(ceiling * _NOTICE, 1.0):
            if remaining <= 0:
                wait = self._until_reset(now, reset or spent.window)
                if reset or not wait:
                    return wait
            taken = ours - remaining
            while self._foreign and self._foreign[0][0][0] < now:
                self._foreign.popleft()  # has left the window
            self._foreign.append((spent.add(now, taken), taken))
        elif self._foreign and remaining - ours > unseen:
            self._forget(remaining - ours - unseen)
        return 0.0

    def _until_reset(self, now: float, reset: float | None) -> float:
        """Seconds to wait as nothing remains, unless the figure cannot be true.

        Resets far beyond the window are of longer limits, which reject by themselves. And a server
        that keeps answering although nothing remains, also after waits, does not mean it.
        """
        if not reset or reset > _FAR * self.spent.window:
            return 0.0
        if now >= self._empty_until:
            if self._empty >= _EMPTY_MOST:
                return 0.0
            self._empty += 1
        self._empty_until = max(self._empty_until, now + reset)
        return reset

    def _forget(self, amount: float) -> None:
        """Take back what was attributed to others: the server has it free again."""
        while self._foreign and amount > 0:
            charge, taken = self._foreign.pop()
            back = min(taken, amount)
            self.spent.correct(charge, -back)
            amount -= back
            if back < taken:
                self._foreign.append((charge, taken - back))

    def hold(self, until: float) -> None:
        """Let no burst gather during a cool-down."""
        if self.bucket is not None:
            self.bucket.hold(until)

    def quantity(self, now: float) -> Quantity:
        """Return what ``client.limits`` shows of this limit."""
        self.spent.expire(now)
        limit = None if self.bucket is None else self.bucket.limit * self.bucket.share
        return Quantity(
            configured=self.configured,
            learned=self.learned,
            limit=limit,
            used=self.spent.total,
            available=None if limit is None else max(limit - self.spent.total, 0.0),
        )

    def shift(self, delta: float) -> None:
        """Move to another clock."""
        (self.bucket or self.spent).shift(delta)
