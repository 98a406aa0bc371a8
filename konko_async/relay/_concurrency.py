"""Concurrency slots, in all and per identity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from konko_async.relay._errors import RefusalError

__all__ = ["CallerSlots"]

_SOON = 1.0  # seconds; when a stream ends, and with it a slot comes free, is unknown


class CallerSlots:
    """Counts concurrent calls or readers; nothing queues, as a browser would only wait longer.

    Args:
        limit: in all.
        per_identity: of one identity.

    Attributes:
        taken: how many slots are taken.
    """

    __slots__ = ("_by_identity", "_limit", "_per_identity", "taken")

    def __init__(self, limit: int, per_identity: int) -> None:
        self.taken = 0
        self._limit = limit
        self._per_identity = per_identity
        self._by_identity: Counter[str] = Counter()

    def take(self, identity: str) -> Callable[[], None]:
        """Take a slot.

        Returns:
            What gives it back; idempotent.

        Raises:
            RefusalError: 429 this identity has taken all of its own, 503 no slot is left.
        """
        # The identity first: its 429 says whose limit it is, even where the relay is full as well.
        if self._by_identity[identity] >= self._per_identity:
            raise RefusalError(
                429, "too many streams at once", type="rate_limited", retry_after=_SOON
            )
        if self.taken >= self._limit:
            raise RefusalError(503, "the relay is full", type="overloaded", retry_after=_SOON)
        self.taken += 1
        self._by_identity[identity] += 1
        given = False

        def give_back() -> None:
            nonlocal given
            if not given:
                given = True
                self.taken -= 1
                self._by_identity[identity] -= 1
                # Identities come and go: a counter at 0 would be kept for each that ever called.
                if not self._by_identity[identity]:
                    del self._by_identity[identity]

        return give_back
