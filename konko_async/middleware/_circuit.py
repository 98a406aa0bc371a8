"""The state machine of one circuit: pure, the time is passed in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import msgspec

from konko_async.errors import ConfigurationError

__all__ = ["Circuit", "CircuitBreaker", "CircuitState", "State"]

State = Literal["closed", "open", "half_open"]

# Outcomes expire in tenths of the window: constant memory, whatever the traffic.
_BUCKETS = 10
# 0.07 * 100 is 7.000000000000001: a share that is reached exactly must open the circuit.
_ROUNDING = 1e-9


class CircuitState(msgspec.Struct, frozen=True, kw_only=True):
    """What a circuit is doing.

    Attributes:
        origin: scheme, host and port.
        model: the model, or None for the circuit of the origin's connections.
        state: ``closed`` (all is well), ``open`` (nothing is sent) or ``half_open`` (probes are).
        calls: outcomes in the sliding window; while open, those that opened it.
        failures: how many of them were failures.
        retry_after: seconds until the next probe may be sent; 0 where it may now.
        reason: name of the last failure's exception class, or None.
    """

    origin: str
    model: str | None
    state: State
    calls: int
    failures: int
    retry_after: float
    reason: str | None

    @property
    def name(self) -> str:
        """The origin, and the model where the circuit is a model's."""
        return f"{self.origin} model {self.model!r}" if self.model else self.origin


class CircuitBreaker(msgspec.Struct, frozen=True, kw_only=True):
    """When a circuit opens, and how it is closed again.

    It opens when, of at least ``min_calls`` attempts that ended within ``window`` seconds,
    ``failure_rate`` or more failed; or when the last ``min_calls`` of them all failed, which tells
    sooner where there is much traffic. Either way the failures must have gone on for
    ``min_duration``: a hundred streams cut by one restart are no outage.

    Then nothing is sent for ``open_for`` seconds, doubled with each probe that fails, up to
    ``max_open_for``. After that up to ``probes`` attempts go through: the first to end decides.
    With the defaults, a server that is well again is used in full within ``max_open_for`` (5 s)
    and the duration of one attempt.

    Attributes:
        failure_rate: share of failures that opens it, above 0 and at most 1. Default 0.6.
        min_calls: attempts in the window below which it never opens. Default 20.
        min_duration: seconds, at most ``window``, from the first failure to the last. Default 0.5.
        window: seconds. Default 10.
        open_for: seconds until the first probe. Default 1.
        max_open_for: the longest time between probes, in seconds. A probe without an outcome for
            as long is not waited for: others go. Default 5.
        probes: attempts let through at once while it is half open. Default 3.
        on_change: called with the :class:`CircuitState` after each change.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    failure_rate: float = 0.6
    min_calls: int = 20
    min_duration: float = 0.5
    window: float = 10.0
    open_for: float = 1.0
    max_open_for: float = 5.0
    probes: int = 3
    on_change: Callable[[CircuitState], object] | None = None

    def __post_init__(self) -> None:
        for name in ("failure_rate", "min_duration", "window", "open_for", "max_open_for"):
            value = getattr(self, name)
            good = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not good or not 0 <= value < math.inf or (value == 0 and name != "min_duration"):
                raise ConfigurationError(
                    f"CircuitBreaker: {name} must be a number above 0, not {value!r}"
                )
        for name in ("min_calls", "probes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(
                    f"CircuitBreaker: {name} must be an integer of at least 1, not {value!r}"
                )
        if self.failure_rate > 1:
            raise ConfigurationError("CircuitBreaker: failure_rate is a share, at most 1")
        if self.max_open_for < self.open_for:
            raise ConfigurationError("CircuitBreaker: max_open_for must not be below open_for")
        if self.min_duration > self.window:
            raise ConfigurationError("CircuitBreaker: min_duration must not be above window")


class _Window:
    """Outcomes of the last seconds, counted in a ring of buckets.

    Attributes:
        newest: the bucket of the present: how many failures, and how many successes.
        until: when it ends.
    """

    __slots__ = ("_last", "_ring", "_width", "newest", "until")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / _BUCKETS
        self._ring = [[0, 0] for _ in range(_BUCKETS)]
        self._last = 0
        self.newest = self._ring[0]
        self.until = self._width

    @property
    def bad(self) -> int:
        """Failures."""
        return sum(bucket[False] for bucket in self._ring)

    @property
    def good(self) -> int:
        """Successes."""
        return sum(bucket[True] for bucket in self._ring)

    def advance(self, now: float) -> None:
        """Forget what is too old."""
        tick = int(now / self._width)
        # A clock that went back (another loop's) counts on in the newest bucket.
        if tick <= self._last:
            return
        for old in range(max(self._last + 1, tick - _BUCKETS + 1), tick + 1):
            self.newest = self._ring[old % _BUCKETS]
            self.newest[:] = 0, 0
        self._last = tick
        self.until = (tick + 1) * self._width


class Circuit:
    """One circuit. Each ticket is ended by one :meth:`answered`, :meth:`record` or :meth:`leave`.

    Args:
        options: see :class:`CircuitBreaker`.
        origin: for the snapshot.
        model: for the snapshot.

    Attributes:
        ticket: of all attempts while it is closed; 0: :meth:`enter` gives one, if at all.
    """

    __slots__ = (
        "_bad_since", "_closed_at", "_generation", "_model", "_next_probe", "_opened", "_options",
        "_origin", "_probes", "_reason", "_seen", "_state", "_streak", "_streak_since", "_until",
        "_window", "ticket",
    )  # fmt: skip

    def __init__(self, options: CircuitBreaker, origin: str = "", model: str | None = None) -> None:
        self._options = options
        self._origin = origin
        self._model = model
        self._state: State = "closed"
        self._window = _Window(options.window)
        self._bad_since = 0.0  # when the window got its first failure
        self._streak = 0  # failures since the last success
        self._streak_since = 0.0
        # Tickets of the closed state carry this number: what began before a change of state says
        # nothing about what came after it.
        self.ticket = self._generation = 1
        self._closed_at = -math.inf
        self._opened = 0  # how often in a row, which sets the open time
        self._until = 0.0
        self._seen = 0.0
        # Probes under way, by their (negative) ticket, with the time they began.
        self._probes: dict[int, float] = {}
        self._next_probe = -1
        self._reason: str | None = None

    @property
    def closed(self) -> bool:
        """Whether all is well."""
        return self._state == "closed"

    def enter(self, now: float) -> int | None:
        """Request permission to send an attempt.

        Args:
            now: monotonic seconds.

        Returns:
            A ticket, or None: do not send it.
        """
        if self._state == "closed":
            return self._generation
        self._seen = now
        if self._state == "open":
            if now < self._until:
                return None
            self._state = "half_open"
        if len(self._fresh_probes(now)) >= self._options.probes:
            return None
        ticket = self._next_probe
        self._next_probe -= 1
        self._probes[ticket] = now
        return ticket

    def answered(self, ticket: int, now: float) -> bool:
        """Record that an attempt ended well; see :meth:`record`."""
        if ticket != self.ticket:
            return self.record(ticket, now, well=True)
        window = self._window
        if now >= window.until:
            window.advance(now)
        window.newest[True] += 1
        self._streak = 0
        return False

    def record(self, ticket: int, now: float, *, well: bool, reason: str | None = None) -> bool:
        """Record how an attempt ended.

        Args:
            ticket: from :meth:`enter`.
            now: monotonic seconds.
            well: whether the server was in good health.
            reason: the failure's name, for messages.

        Returns:
            Whether the circuit opened or closed by it.
        """
        # Tickets of probes are negative, those of the closed state are its generation.
        if ticket < 0:
            return self._record_probe(ticket, now, well=well, reason=reason)
        if self._state != "closed" or ticket != self._generation:
            return False
        window = self._window
        if now >= window.until:
            window.advance(now)
        window.newest[well] += 1
        if well:
            self._streak = 0
            return False
        self._reason = reason
        if not self._is_outage(now):
            return False
        # One that fails again soon after it was closed has not recovered: keep doubling.
        if now - self._closed_at > self._options.window:
            self._opened = 0
        self._open(now)
        return True

    def _is_outage(self, now: float) -> bool:
        options, window = self._options, self._window
        self._streak += 1
        if self._streak == 1:
            self._streak_since = now
        bad = window.bad
        if bad == 1:
            self._bad_since = now
        # The failures of a run may be older than the window: a small user's are.
        if min(self._streak, bad) >= options.min_calls:
            return now - self._streak_since >= options.min_duration
        calls = window.good + bad
        return (
            calls >= options.min_calls
            and bad >= options.failure_rate * calls - _ROUNDING
            and now - self._bad_since >= options.min_duration
        )

    def leave(self, ticket: int) -> None:
        """End an attempt that says nothing, such as a cancelled one; a probe's slot is free.

        Args:
            ticket: from :meth:`enter`.
        """
        self._probes.pop(ticket, None)

    def snapshot(self, now: float | None = None) -> CircuitState:
        """Return the state as a value.

        Args:
            now: monotonic seconds; None: the last time the circuit was used.
        """
        now = self._seen if now is None else now
        if self._state == "closed":
            self._window.advance(now)
        return CircuitState(
            origin=self._origin,
            model=self._model,
            state=self._state,
            calls=self._window.good + self._window.bad,
            failures=self._window.bad,
            retry_after=self._retry_after(now),
            reason=self._reason,
        )

    def _retry_after(self, now: float) -> float:
        if self._state == "open":
            return max(0.0, self._until - now)
        if self._state == "half_open":
            fresh = self._fresh_probes(now)
            if len(fresh) >= self._options.probes:
                return max(0.0, min(fresh) + self._options.max_open_for - now)
        return 0.0

    def _fresh_probes(self, now: float) -> list[float]:
        # A hung probe is not waited for: it may hang on a connection of before the recovery.
        patience = self._options.max_open_for
        return [start for start in self._probes.values() if start + patience > now]

    def _record_probe(self, ticket: int, now: float, *, well: bool, reason: str | None) -> bool:
        started = self._probes.pop(ticket, None)
        # Another probe was faster and decided, or this one is of an earlier half-open state.
        if self._state != "half_open" or started is None:
            return False
        if well:
            self._state = "closed"
            self._closed_at = now
            self._generation += 1
            self.ticket = self._generation
            self._window = _Window(self._options.window)
            self._streak = 0
            self._probes.clear()
            return True
        # It hung and was given up before, so its failure is about the server as it was then.
        if started + self._options.max_open_for <= now:
            return False
        self._reason = reason
        self._open(now)
        return True

    def _open(self, now: float) -> None:
        options = self._options
        # The exponent is capped, as 2.0**1024 is an OverflowError.
        wait = min(options.max_open_for, options.open_for * 2.0 ** min(self._opened, 60))
        self._state = "open"
        self.ticket = 0
        self._opened += 1
        self._until = now + wait
        self._seen = now
        self._probes.clear()
