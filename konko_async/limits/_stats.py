"""The values that ``client.limits`` returns: frozen snapshots, made on each access."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["LaneLimits", "Limits", "Quantity", "StoreState", "WaitingCounts"]


class Quantity(msgspec.Struct, frozen=True, kw_only=True):
    """Requests or tokens of one model and key.

    Attributes:
        configured: the user's limit per window, or None.
        learned: what the server's headers said last, or None.
        limit: what is kept now: the lower of both, less what rejections took from it; None: none.
        used: spent in the last window, by this client and, as far as headers show, by others.
        available: what is left of ``limit``; None without a limit.
    """

    configured: float | None
    learned: float | None
    limit: float | None
    used: float
    available: float | None

    def __str__(self) -> str:
        if self.limit is None:
            return f"{self.used:.0f} used, no limit"
        learned = "" if self.learned is None else f", learned {self.learned:.0f}"
        return f"{self.used:.0f} of {self.limit:.0f} used{learned}"


class WaitingCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls wait.

    Attributes:
        interactive: of priority ``interactive``.
        batch: of priority ``batch``.
    """

    interactive: int
    batch: int


class StoreState(msgspec.Struct, frozen=True, kw_only=True):
    """How limits are shared.

    Attributes:
        processes: how many take part, as far as is known.
        away: why the store is unavailable; None while it is not.
    """

    processes: int
    away: str | None = None


class LaneLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one model and key at one moment.

    Attributes:
        model: the model's id; None for calls that name none.
        key: the key's fingerprint, never the key.
        requests: requests per window.
        tokens: tokens per window.
        window: seconds.
        in_flight: calls that hold a slot.
        max_concurrency: slots at present; None for any number.
        configured_concurrency: what the user asked for.
        waiting: calls that wait.
        paused_for: seconds until the cool-down after a rejection ends; 0 if there is none.
        believed: the share of the limits left by rejections; 1 is all.
        store: who else keeps them; None where this client keeps them alone. With a store, what is
            used and available of requests and tokens is that of all processes, as last heard.
    """

    model: str | None
    key: str
    requests: Quantity
    tokens: Quantity
    window: float
    in_flight: int
    max_concurrency: int | None
    configured_concurrency: int | Literal["auto"] | None
    waiting: WaitingCounts
    paused_for: float
    believed: float
    store: StoreState | None = None

    def __repr__(self) -> str:
        places = "any number" if self.max_concurrency is None else str(self.max_concurrency)
        paused = f", paused for {self.paused_for:.1f} s" if self.paused_for else ""
        return (
            f"<LaneLimits {self.model or '-'}: requests {self.requests}; tokens {self.tokens}; "
            f"in flight {self.in_flight} of {places}; waiting {self.waiting.interactive} "
            f"interactive, {self.waiting.batch} batch{paused}>"
        )


class Limits(msgspec.Struct, frozen=True):
    """What is used, waiting and learned, per model.

    Attributes:
        lanes: one entry per model and key that was called.
    """

    # A tuple, as the snapshot is frozen and may be kept.
    lanes: tuple[LaneLimits, ...] = ()

    @property
    def models(self) -> dict[str | None, LaneLimits]:
        """By model; where several keys call one model, the key that came last."""
        return {lane.model: lane for lane in self.lanes}

    def __repr__(self) -> str:
        return f"<Limits {', '.join(map(repr, self.lanes)) or 'nothing was called yet'}>"
