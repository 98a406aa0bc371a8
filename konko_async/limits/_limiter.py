"""The entry point of the limits: one limiter for a client and its copies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from konko_async.limits._estimate import estimate_tokens, estimate_with
from konko_async.limits._lane import Lane
from konko_async.limits._stats import Limits

if TYPE_CHECKING:
    from konko_async._core.policies import RateLimit
    from konko_async.limits._shared.store_health import Notify, StoreHealth

__all__ = ["Limiter"]

# A relay's users may name any model; from here on each new one first looks for lanes to drop.
_MANY_LANES: Final = 1024


class Limiter:
    """Keeps the limits of every model and key of a client; needs no loop before the first call.

    Args:
        rate_limit: the limits of each model and key. None of them set: only what the server says
            (headers, rejections) is kept.
        notify: called when a store of shared limits becomes unavailable, and when it recovers.
    """

    __slots__ = ("_lanes", "_link", "_rate_limit", "estimate")

    estimate: Callable[[Any], int]
    """Guesses the tokens of a call, by ``RateLimit.estimate_tokens`` or by the default.

    Takes the arguments of ``create()``, as a dict or as a struct. Raises a ConfigurationError where
    the user's function failed or returned no count.
    """

    def __init__(self, rate_limit: RateLimit, notify: Notify | None = None) -> None:
        self._rate_limit = rate_limit
        self._link = None if rate_limit.store is None else _link(rate_limit, notify)
        self._lanes: dict[tuple[str | None, str], Lane] = {}
        function = rate_limit.estimate_tokens
        self.estimate = estimate_tokens if function is None else partial(estimate_with, function)

    @property
    def rate_limit(self) -> RateLimit:
        """What was configured."""
        return self._rate_limit

    def lane(self, model: str | None, key_fingerprint: str = "") -> Lane:
        """Return the lane of a model and key; made on first use.

        Args:
            model: the model's id, or None for calls that name none.
            key_fingerprint: anything that tells keys apart and is none; it is shown in snapshots.
        """
        lane = self._lanes.get((model, key_fingerprint))
        if lane is None:
            # Only idle lanes go, so this is no bound: a lane in use holds counts that must not be
            # lost.
            if len(self._lanes) >= _MANY_LANES:
                self._forget_idle()
            lane = self._make(model, key_fingerprint)
            self._lanes[model, key_fingerprint] = lane
        return lane

    def _make(self, model: str | None, key: str) -> Lane:
        if self._link is None:
            return Lane(model, key, self._rate_limit)
        from konko_async.limits._shared.shared_lane import SharedLane  # noqa: PLC0415 - few share their limits

        return SharedLane(model, key, self._rate_limit, self._link)

    def snapshot(self) -> Limits:
        """Return what is used, waiting and learned now."""
        return Limits(tuple(lane.snapshot() for lane in self._lanes.values()))

    async def close(self) -> None:
        """Send pending updates to the store, if there is one, and disconnect; idempotent."""
        if self._link is None:
            return
        lanes: Iterable[Any] = self._lanes.values()  # all of them shared ones
        # All at once, as each may take half a second where the store does not answer.
        await asyncio.gather(*(lane.close() for lane in lanes))
        await self._link.store.close()

    def _forget_idle(self) -> None:
        """Drop idle lanes, which would pile up where model names come from outside."""
        self._lanes = {name: lane for name, lane in self._lanes.items() if not lane.idle()}


def _link(rate_limit: RateLimit, notify: Notify | None) -> StoreHealth:
    from konko_async.limits._shared.store_health import StoreHealth  # noqa: PLC0415 - few have a store

    return StoreHealth(rate_limit, notify)
