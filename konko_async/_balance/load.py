"""What is known of an endpoint's load: calls in flight, and moving averages. Pure.

The score is that of Finagle's ``PeakEwma`` balancer: what a call is expected to take there, times
the calls that share the server with it. The average of the time to a first token is sensitive to
peaks (it rises at once and falls slowly), so that a server that begins to stall is left at its
first slow answer. To that comes what Finagle cannot see, as its calls are short: how long the
oldest call without a first token has been waiting. A server that has stopped answering altogether
is left before any of its answers is late.
"""

from __future__ import annotations

from math import exp
from typing import Final

__all__ = ["Fleet", "Load", "PeakAverage"]

# Seconds. Finagle's default is 10; generation is noisier than the calls that it is made for, and a
# server that stalled for a moment is to be used again soon.
_DECAY: Final = 5.0
# Of an answer, before any has come.
_TOKENS: Final = 64.0
# The weight of one answer in what is true of all, and the least of one in what is true of its own.
_NEWS: Final = 0.02
_RATE_OVER: Final = 10.0
# Seconds per token. The fastest services write a third of that to one stream; what a server reports
# beyond is a mistake, or is meant to draw calls.
_FASTEST: Final = 1e-4
_MOST: Final = 10**6  # tokens of one answer; floats end at 1e308, integers of JSON do not


class PeakAverage:
    """A moving average that follows rises at once and falls exponentially.

    Attributes:
        value: 0 before the first sample.
        at: when it was last brought up to date.
    """

    __slots__ = ("at", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self.at = 0.0

    def add(self, sample: float, now: float) -> None:
        """Add a sample."""
        if sample > self.value:
            self.value = sample
        else:
            kept = exp((self.at - now) / _DECAY)
            self.value = self.value * kept + sample * (1.0 - kept)
        self.at = now

    def read(self, now: float) -> float:
        """Return the average; without news it fades, so that an endpoint is tried again."""
        if now - self.at > 1.0:
            self.value *= exp((self.at - now) / _DECAY)
            self.at = now
        return self.value


class Fleet:
    """What answers take on average, over all endpoints: what a newcomer is taken for.

    Attributes:
        first_token: seconds.
        per_token: seconds.
        tokens: of an answer.
    """

    __slots__ = ("first_token", "per_token", "tokens")

    def __init__(self) -> None:
        self.first_token = 0.0
        self.per_token = 0.0
        self.tokens = _TOKENS


class Load:
    """The load of one endpoint, as this client sees it.

    Args:
        fleet: shared by all endpoints of a client.

    Attributes:
        in_flight: calls that are not over.
        elsewhere: calls of other processes there, where that is known.
        calls: calls that ended.
        errors: how many of them failed.
        first_token: the average time to a first token, in seconds.
        per_token: seconds per token of an answer, or None.
    """

    __slots__ = (
        "_ended", "_ended_at", "_fleet", "_per_token_at", "_waiting", "calls", "elsewhere",
        "errors", "first_token", "in_flight", "per_token",
    )  # fmt: skip

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.in_flight = 0
        self.elsewhere = 0
        self.calls = self.errors = 0
        self.first_token = PeakAverage()
        self.per_token: float | None = None
        self._per_token_at = 0.0
        # In the order in which they were sent: the first entry is the oldest.
        self._waiting: dict[object, float] = {}
        self._ended = 0.0
        self._ended_at = 0.0

    def score(self, now: float) -> float:
        """Return what one more call is expected to cost there; lower is better."""
        average, fleet = self.first_token, self._fleet
        first = average.value
        if now - average.at > 1.0:
            # One that was never asked is no better than the others.
            first = average.read(now) if average.at else fleet.first_token
        for since in self._waiting.values():
            first = max(first, now - since)
            break  # the oldest
        per_token = self.per_token
        if per_token is None:
            per_token = fleet.per_token
        # A microsecond: where nothing is known at all, the calls in flight decide.
        return (self.in_flight + self.elsewhere + 1) * (first + fleet.tokens * per_token + 1e-6)

    def sent(self, ticket: object, now: float, *, stream: bool) -> None:
        """Note that a call was sent; it waits for its first token."""
        # A whole answer comes when its last token would: only what it takes beyond that is late.
        grace = 0.0
        if not stream:
            grace = 2.0 * self._fleet.tokens * (self.per_token or self._fleet.per_token)
        self._waiting[ticket] = now + grace

    def began(self, ticket: object, seconds: float, now: float) -> None:
        """Note a first token, ``seconds`` after the call was sent."""
        self._waiting.pop(ticket, None)
        self.first_token.add(seconds, now)
        fleet = self._fleet
        fleet.first_token += (seconds - fleet.first_token) * _NEWS

    def wrote(self, tokens: int, seconds: float, now: float) -> None:
        """Note the pace of an answer that has come."""
        if not tokens > 0 or seconds <= 0:  # NaN is not above 0 either
            return
        written = min(float(min(tokens, _MOST)), max(seconds / _FASTEST, 1.0))
        pace, fleet = max(seconds / written, _FASTEST), self._fleet
        if not fleet.per_token:
            fleet.per_token, fleet.tokens = pace, written
        fleet.per_token += (pace - fleet.per_token) * _NEWS
        fleet.tokens += (written - fleet.tokens) * _NEWS
        if self.per_token is None:
            self.per_token = pace
        else:
            # By time, not by number: a hundred answers at once are one piece of news.
            new = max(1.0 - exp((self._per_token_at - now) / _DECAY), _NEWS)
            self.per_token += (pace - self.per_token) * new
        self._per_token_at = now

    def ended(self, ticket: object, now: float, *, failed: bool) -> None:
        """Note the end of a call."""
        self._waiting.pop(ticket, None)
        self.calls += 1
        self.errors += failed
        self._ended = self._ended * exp((self._ended_at - now) / _RATE_OVER) + 1.0
        self._ended_at = now

    def rate(self, now: float) -> float:
        """Calls per second that ended lately."""
        return self._ended * exp(min(self._ended_at - now, 0.0) / _RATE_OVER) / _RATE_OVER
