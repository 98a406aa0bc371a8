"""One limit of one lane: what was configured, what was learned, and the bucket that keeps both."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from konko_async.limits._buckets import RequestBucket, TokenBucket
from konko_async.limits._snapshot import Quantity
from konko_async.limits._window import Charge, SlidingSum

if TYPE_CHECKING:
    from konko_async.limits._learn import Kind, Reported

__all__ = ["Quota"]

# A limit that only the server's headers tell is kept by the window; its pace is a loose one, so
# that a few calls at once do not wait for each other where nobody asked for a limit.
_LEARNED_BURST: Final = 0.1
_NOTICE: Final = 0.01


class Quota:
    """Requests or tokens per window.

    The limit in force is the lower of what the user set and what the server last said, times the
    share of it that rejections leave believable.

    Attributes:
        kind: what is counted.
        configured: the user's limit, or None.
        learned: the server's ``x-ratelimit-limit-*``, or None.
        bucket: keeps the limit in force; None while there is none.
        spent: what this lane spent (and saw others spend) in the last window.
    """

    __slots__ = ("_foreign", "_share_of_burst", "bucket", "configured", "kind", "learned", "spent")

    def __init__(
        self, kind: Kind, configured: float | None, window: float, share_of_burst: float | None
    ) -> None:
        self.kind = kind
        self.configured = configured
        self.learned: float | None = None
        self.spent = SlidingSum(window)
        self.bucket: RequestBucket | TokenBucket | None = None
        self._share_of_burst = share_of_burst
        self._foreign: deque[tuple[Charge, float]] = deque()
        self.apply(0.0, 1.0)

    @property
    def ceiling(self) -> float | None:
        """The lower of what was configured and what was learned."""
        if self.configured is None:
            return self.learned
        return self.configured if self.learned is None else min(self.configured, self.learned)

    def apply(self, now: float, share: float) -> None:
        """Make the bucket keep ``share`` of the ceiling."""
        ceiling = self.ceiling
        if ceiling is None:
            return
        limit = max(ceiling * share, 1.0)
        if self.bucket is None:
            self.bucket = self._make(limit)
        elif limit != self.bucket.limit:
            self.bucket.resize(now, limit)

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
        if reported.limit is not None and reported.limit != self.learned:
            self.learned = reported.limit
            self.apply(now, share)
        if reported.remaining is None:
            return 0.0
        return self._compare(now, reported.remaining, reported.reset, unseen)

    def _compare(self, now: float, remaining: float, reset: float | None, unseen: float) -> float:
        """Hold the server's count against ours: the difference is what others spend.

        A window that we filled ourselves is no news: it opens bit by bit, while ``reset`` is when
        all of it is free. Pausing for that would waste most of every limit that is well used.
        """
        spent, ceiling = self.spent, self.ceiling
        spent.expire(now)
        if ceiling is None:
            return reset or 0.0 if remaining <= 0 else 0.0
        ours = max(ceiling - spent.total, 0.0)
        if ours - remaining > max(ceiling * _NOTICE, 1.0):
            if remaining <= 0 and reset:
                return reset
            taken = ours - remaining
            while self._foreign and self._foreign[0][0][0] < now:
                self._foreign.popleft()  # has left the window
            self._foreign.append((spent.add(now, taken), taken))
        elif self._foreign and remaining - ours > unseen:
            self._forget(remaining - ours - unseen)
        return 0.0

    def _forget(self, amount: float) -> None:
        """Take back what was put down to others: the server has it free again."""
        while self._foreign and amount > 0:
            charge, taken = self._foreign.pop()
            back = min(taken, amount)
            self.spent.correct(charge, -back)
            amount -= back
            if back < taken:
                self._foreign.append((charge, taken - back))

    def hold(self, until: float) -> None:
        """Let no burst gather during a pause."""
        if self.bucket is not None:
            self.bucket.hold(until)

    def quantity(self, now: float) -> Quantity:
        """What is to be seen of it."""
        self.spent.expire(now)
        limit = None if self.bucket is None else self.bucket.limit
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
