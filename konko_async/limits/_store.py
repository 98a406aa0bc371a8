"""The contract of a limit that several processes share, such as one kept in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from konko_async._options import Priority

__all__ = ["Reservation", "SharedLimits", "Store"]


class SharedLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the limits are, told with every reservation: the store keeps counts, not policies.

    Attributes:
        requests: requests per window, or None.
        tokens: tokens per window, or None.
        burst: requests that may leave back to back.
        window: seconds.
    """

    requests: float | None
    tokens: float | None
    burst: float
    window: float = 60.0


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the order of a shared limit: taken, and usable after ``wait``.

    Attributes:
        id: names it to the store; opaque.
        wait: seconds, by the store's own clock, until the call may leave.
        requests: what was reserved.
        tokens: what was reserved.
    """

    id: str
    wait: float
    requests: int
    tokens: int


class Store(Protocol):
    """A shared limit. A :class:`Bucket` decides at once; a store has to be asked over a network.

    It cannot be asked "does it fit now?" again and again: two callers would race between question
    and answer, and every waiter would poll. So it *reserves*: it moves the level (GCRA) at once,
    in one atomic step on its own clock, and says how long the caller has to wait for what it got.
    First asked is first served, whatever the size, and nobody has to come back. Pauses, places,
    priorities and order inside one process stay with the :class:`Lane`, which asks the store for
    the head of its queue and sleeps for ``wait`` before it lets go of it; a head that is cancelled
    in that time is refunded.

    A store must hold ``burst + rate·window <= limit``, count a settled call at the time at which it
    was reserved, never use the callers' clocks, and answer or fail within its own time-out.
    """

    async def reserve(
        self,
        lane: str,
        limits: SharedLimits,
        *,
        requests: int,
        tokens: int,
        priority: Priority,
        max_wait: float | None = None,
    ) -> Reservation | float:
        """Reserve, in one atomic step.

        Args:
            lane: names model and key, hashed; both counts of a lane live under it.
            limits: what holds.
            requests: how many.
            tokens: how many, in all.
            priority: of the head of the queue.
            max_wait: seconds; if it would be longer, nothing is reserved.

        Returns:
            The reservation, or the seconds that were too long.
        """

    async def settle(self, reservation: Reservation, tokens: int) -> None:
        """Correct the reserved tokens to those that were used; a second call does nothing."""

    async def refund(self, reservation: Reservation) -> None:
        """Give everything back; does nothing after :meth:`settle`."""

    async def pause(self, lane: str, seconds: float) -> None:
        """Let no process admit anything for so long; the longest of overlapping pauses counts."""

    async def close(self) -> None:
        """Let go of connections; idempotent."""
