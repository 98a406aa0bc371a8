"""The retry budget: what keeps retries from feeding an outage. Pure arithmetic, no clock."""

from __future__ import annotations

__all__ = ["RetryBudget"]

# Long against any outage with traffic on it, short against a process that calls now and then.
_QUIET = 300.0
# Eleven times 1/11 is to make a whole token, whatever the last bit of the sum is.
_ONE = 1.0 - 1e-9
# The share of attempts that are answered is an average over about this many. Above the least, a
# server that names a wait is up, and only some calls meet trouble: retries at that pace add less
# to its load than it turned away.
_HEALTH_OVER = 16.0
_HEALTH_LEAST = 0.5


class RetryBudget:
    """A bucket of tokens that calls which end well fill, and that retries and hedges spend.

    After gRPC A6 ("Client Retry Design", ``retryThrottling``) and the standard retry mode of the
    AWS SDKs: an outage empties it, and from then on calls fail at once with their own error.

    - It starts full, so a new client's first failing calls get all their attempts.
    - Each answer earns ``ratio / (1 + ratio)`` of a token. Over ``n`` calls of which ``s`` end
      well there are at most ``size + s * ratio / (1 + ratio)`` retries: below ``ratio * n``, also
      when only a part of the calls fail, even though a retry that succeeds earns as well.
    - If nobody has asked for a token for 5 minutes, it is full again: a client that calls rarely
      is no danger to the server and is not to pay for an outage of an hour ago. During an outage
      each failing call asks, so this never happens then, unless calls are that rare.

    - A retry by invitation (a 503 or 529 that names a wait) is free while most attempts are
      answered: a few bad replicas are no outage. In an outage it costs a token like any other.

    All calls of a client share one. Not for use from several threads.

    Args:
        ratio: retries earned per answer, at least 0; 0.1 keeps them under 10 % of the calls.
        size: tokens it can hold, at least 0: the retries allowed in one burst of failures.
    """

    __slots__ = ("_asked", "_earned", "_health", "_size", "_tokens")

    def __init__(self, ratio: float = 0.1, size: float = 10.0) -> None:
        self._earned = ratio / (1.0 + ratio)
        self._size = float(size)
        self._tokens = self._size
        self._asked: float | None = None
        self._health = 1.0

    @property
    def tokens(self) -> float:
        """Tokens left, from 0 to ``size``; a retry costs 1."""
        return self._tokens

    def record_success(self) -> None:
        """Count an answer of the server."""
        self._tokens = min(self._size, self._tokens + self._earned)
        self._health += (1.0 - self._health) / _HEALTH_OVER

    def try_spend(self, now: float, *, invited: bool = False) -> bool:
        """Take one token for a retry or hedge.

        Args:
            now: monotonic seconds, such as ``loop.time()``.
            invited: the server named the time of the retry.

        Returns:
            False if there is none left: fail at once.
        """
        if self._asked is not None and now - self._asked > _QUIET:
            self._tokens = self._size
        self._asked = now
        self._health -= self._health / _HEALTH_OVER
        if invited and self._health >= _HEALTH_LEAST:
            return True
        if self._tokens < _ONE:
            return False
        self._tokens = max(0.0, self._tokens - 1.0)
        return True

    def __repr__(self) -> str:
        return f"<RetryBudget {self._tokens:.1f} of {self._size:g}>"
