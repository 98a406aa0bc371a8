"""A sliding-window sum of what was spent, which is never too low."""

from __future__ import annotations

import math
from collections import deque
from typing import Final

__all__ = ["COVER", "Charge", "SlidingSum"]

Charge = list[float]
"""A place in a :class:`SlidingSum`: ``[expiry, amount]``, shared by charges close in time."""

# The sum covers between 1.0025 and 1.0075 of the window: the excess is what the network may delay
# one request more than another without a strict server seeing too many (0.15 s of a minute).
_MARGIN: Final = 1.0025
_GRAIN: Final = 0.005
COVER: Final = _MARGIN + _GRAIN
"""The longest stretch that is counted, in windows."""

_DEAD: Final = -math.inf
_AMOUNT: Final = 1


class SlidingSum:
    """The sum of the amounts of the last ``window`` seconds, in O(1) and in at most 202 slots.

    Amounts within 0.5 % of a window share a slot, which expires as a whole, a window after its
    end: the sum is never too low, and too high by 0.75 % of a window's traffic at most. A charge
    can be corrected while it counts, at the moment it was made, as a server that counts what was
    really used does.

    Attributes:
        window: seconds.
        total: the sum, as of the last :meth:`expire`.
        expires: when the oldest slot expires; ``inf`` if there is none.
    """

    __slots__ = ("_current", "_grain", "_lasts", "_slots", "_until", "expires", "total", "window")

    def __init__(self, window: float) -> None:
        self.window = window
        self.total = 0.0
        self.expires = math.inf
        self._grain = window * _GRAIN
        self._lasts = window * COVER
        self._slots: deque[Charge] = deque()
        self._current: Charge = [_DEAD, 0.0]
        self._until = _DEAD

    def take(self, now: float, amount: float, limit: float) -> Charge | None:
        """Count ``amount`` as of now if the sum then is at most ``limit``; see :meth:`add`."""
        if now >= self.expires:
            self.expire(now)
        if self.total + amount > limit:
            return None
        if now >= self._until:
            self._open(now)
        slot = self._current
        slot[1] += amount
        self.total += amount
        return slot

    def add(self, now: float, amount: float) -> Charge:
        """Count ``amount`` as of now and return where it is counted."""
        if now >= self._until:
            self._open(now)
        slot = self._current
        slot[1] += amount
        self.total += amount
        return slot

    def correct(self, charge: Charge, difference: float) -> bool:
        """Add ``difference`` to what was counted in ``charge``; False if that has expired."""
        if charge[0] == _DEAD:
            return False
        charge[1] += difference
        self.total += difference
        return True

    def expire(self, now: float) -> None:
        """Forget what is older than the window."""
        slots = self._slots
        while slots and slots[0][0] <= now:
            slot = slots.popleft()
            self.total -= slot[1]
            # A permit may still refer to the slot: correct() must see that it does not count any
            # more.
            slot[0] = _DEAD
        if slots:
            self.expires = slots[0][0]
        else:
            # Also the place where rounding errors of fractional amounts end.
            self.total = 0.0
            self.expires = math.inf
            self._until = _DEAD

    def delay(self, now: float, excess: float) -> float:
        """Seconds until ``excess`` of the sum has expired, or all of it if that is less."""
        when = now
        for slot in self._slots:
            when = slot[0]
            excess -= slot[_AMOUNT]
            if excess <= 0:
                break
        return max(when - now, 0.0)

    def since(self, when: float) -> list[tuple[float, float]]:
        """What was spent from ``when`` on: times, not too early, and amounts; oldest first."""
        found = [(slot[0] - self._lasts + self._grain, slot[_AMOUNT]) for slot in self._slots]
        return [(at, amount) for at, amount in found if at >= when and amount > 0]

    def oldest(self, now: float) -> float:
        """When the oldest of what is counted was spent; ``now`` if nothing is."""
        return self._slots[0][0] - self._lasts if self._slots else now

    def shift(self, delta: float) -> None:
        """Move everything by ``delta`` seconds: the clock was replaced by another."""
        for slot in self._slots:
            slot[0] += delta
        self.expires += delta
        self._until += delta

    def _open(self, now: float) -> None:
        self.expire(now)
        self._until = now + self._grain
        self._current = [now + self._lasts, 0.0]
        if not self._slots:
            self.expires = self._current[0]
        self._slots.append(self._current)
