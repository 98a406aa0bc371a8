"""A client's link to its store: whether it is available, and the reports when that changes."""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from konko_async._records import StoreRecord
from konko_async.errors import RateLimitStoreError

if TYPE_CHECKING:
    from konko_async._core.policies import RateLimit
    from konko_async.limits._shared.store import Store, StoreReply, StoreRequest

__all__ = ["Notify", "StoreHealth"]

Notify = Callable[[StoreRecord], object]
"""Called when the store becomes unavailable, and when it recovers."""

_log = logging.getLogger("konko_async")
# Seconds between two attempts to reach a store that failed; each takes as long at most, see Store.
_PROBE_AFTER: Final = 0.5
_MESSAGE_LIMIT: Final = 500


class StoreHealth:
    """What the lanes of one client share: the store, our name there, and its health.

    Args:
        rate_limit: with a store.
        notify: called at each change of health.

    Attributes:
        store: the store.
        choice: what is done while it is unavailable.
        error: why it is unavailable; None while it is not.
        since: the moment, by the lane's clock, at which it was last heard of before it went away.
        probe_at: when to try it again.
        processes: how many took part when it was last asked; at least 1.
        took_part: how many did when it went away.
    """

    __slots__ = (
        "_me", "_notify", "_pid", "_started", "choice", "error", "probe_at",
        "processes", "since", "store", "took_part",
    )  # fmt: skip

    def __init__(self, rate_limit: RateLimit, notify: Notify | None = None) -> None:
        self.store: Store = rate_limit.store
        self.choice = rate_limit.on_store_failure
        self.error: RateLimitStoreError | None = None
        self.since = -math.inf
        self.probe_at = math.inf
        self.processes = self.took_part = 1
        self._started = 0.0
        self._notify = notify
        self._pid, self._me = 0, ""

    @property
    def me(self) -> str:
        """Our name in the store: another one in each process, also after a fork."""
        # Two processes of one name would share tickets, and each would take what the other was
        # granted.
        if self._pid != os.getpid():
            self._pid, self._me = os.getpid(), secrets.token_hex(6)
        return self._me

    @property
    def portion(self) -> float:
        """The part of the limits that is ours while the store is away."""
        return 1.0 / self.processes if self.choice == "local_share" else 1.0

    async def exchange(self, lane: str, turn: StoreRequest) -> StoreReply:
        """Send a request to the store.

        Raises:
            RateLimitStoreError: it is unavailable, whatever the reason.
        """
        try:
            return await self.store.exchange(lane, turn)
        except RateLimitStoreError:
            raise
        except Exception as error:
            # Whatever it is, callers wait behind it: what to do then is for the user to choose.
            raise RateLimitStoreError(f"the store of the limits failed: {error!r}") from error

    def heard(self, told: StoreReply) -> None:
        """Note a reply, which ends an outage if there was one."""
        self.processes = max(told.processes, 1)
        # Not on each answer: observers hear of changes only.
        if self.error is None:
            return
        self.error, self.probe_at = None, math.inf
        away = time.monotonic() - self._started
        _log.warning("the store of the limits is back after %.1f s", away)
        self._tell("back", away, None)

    def failed(self, now: float, error: RateLimitStoreError) -> None:
        """Note a failed request; the first of an outage goes to observers and the log."""
        self.probe_at = now + _PROBE_AFTER
        fresh, self.error = self.error is None, error
        if fresh:
            self.since, self._started = now, time.monotonic()
            # Kept until the store is back: so many processes may still spend their own shares by
            # then.
            self.took_part = self.processes
            _log.warning(
                "%s: going on with %s, %d processes took part", error, self.choice, self.processes
            )
            self._tell("away", 0.0, str(error)[:_MESSAGE_LIMIT])

    def _tell(self, state: str, away: float, error: str | None) -> None:
        if self._notify is not None:
            record = StoreRecord(
                state=state,  # type: ignore[arg-type]  # one of the two
                choice=self.choice,
                processes=self.processes,
                at=time.time(),
                away=away,
                error=error,
            )
            self._notify(record)
