"""The contract of a limit that several processes share, such as one kept in Redis."""

from __future__ import annotations

from typing import Protocol

import msgspec

__all__ = ["Store", "StoreReply", "StoreRequest"]


class StoreRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that a process reports to a store at once, and the tickets it offers. In microseconds.

    Attributes:
        me: names the process.
        epoch: the :attr:`StoreReply.epoch` that it knows, if it heard of it within the last window.
        requests: its limit on requests per window; 0: none.
        tokens: its limit on tokens per window; 0: none.
        burst: the share of a limit that may leave back to back; below 0: the default, 1 %.
        window: of the limits.
        horizon: how long what stands in line for it should last: more than a round trip.
        learn: whether limits learned from headers and rejections hold for it.
        interactive: calls that came, ``(ticket, tokens)``, first come first.
        batch: the same for calls of priority ``batch``.
        withdrawn: tickets of calls that were cancelled or refused.
        settled: corrections, ``(slot, requests, tokens)`` to be added where they were counted.
        late: spent while the store was away, ``(age, requests, tokens)``.
        rejected: 429s, ``(retry after, or -1; patient)``, see :meth:`Strikes.add`.
        forgive: a call that left after the last rejection went well.
        reported: what headers said, ``("r" or "t", (limit, remaining, reset))``; -1: nothing.
        returned: set in the first request after the store was away: how many took part before.
            Until that many have returned, or some seconds have passed, each gets its share only, as
            those that have not noticed yet still spend theirs.
        reset: forget my tickets: the reply to an earlier request may be lost.
        leave: the same, and that I take part.
    """

    me: str
    epoch: str
    requests: float
    tokens: float
    burst: float
    window: int
    horizon: int
    learn: bool
    # msgspec copies an empty list for each struct, so these defaults are not shared.
    interactive: list[tuple[int, int]] = []
    batch: list[tuple[int, int]] = []
    withdrawn: list[int] = []
    settled: list[tuple[int, int, int]] = []
    late: list[tuple[int, int, int]] = []
    rejected: list[tuple[int, bool]] = []
    forgive: bool = False
    reported: list[tuple[str, tuple[float, float, float]]] = []
    returned: int = 0
    reset: bool = False
    leave: bool = False


class StoreReply(msgspec.Struct, kw_only=True):
    """What a store replies. Times are microseconds, from now.

    Attributes:
        epoch: changes when the store has lost its memory.
        slot: where what was granted now is counted.
        wait: until it is worth while to come back for a ticket; -1: none stands in line.
        paused: until the cool-down ends; 0: there is none.
        strikes: rejections in a row.
        episode: until the last of them is over; below 0 if it is.
        used_requests: by all, in the last window.
        used_tokens: by all, in the last window.
        learned_requests: what headers said last of the limit; 0: nothing.
        learned_tokens: what headers said last of the token limit; 0: nothing.
        share: what rejections left of the limits, in millionths.
        processes: that take part.
        granted: ``(ticket, tokens)`` of calls that may leave now.
        standing: tickets that stand in line; others that were offered have to be offered again.
    """

    epoch: str
    slot: int
    wait: int
    paused: int
    strikes: int
    episode: int
    used_requests: int
    used_tokens: int
    learned_requests: int
    learned_tokens: int
    share: int
    processes: int
    granted: list[tuple[int, int]]
    standing: list[int]


class Store(Protocol):
    """A shared limit. A :class:`Bucket` decides at once; a store is reached over a network.

    It cannot be asked "does it fit now?" again and again: two callers would race between question
    and answer. So calls *stand in line* in the store: one first-in-first-out line for all
    processes, interactive calls before batch calls (4 : 1), served on the store's own clock in one
    atomic step. A process offers the first few calls of its own queue, sleeps for
    :attr:`StoreReply.wait` and comes back for what was granted. That request carries all else as
    well: what came since, settlements, rejections. So a busy process needs about one round trip
    per call, or fewer.

    As nothing is promised before it is granted, whatever happens meanwhile holds for those who
    wait as well: a cool-down, a lower limit, tokens given back, an interactive call that goes
    first. What was granted is counted from then on, and again from when it is fetched, since it
    is sent then: a process that is late breaks no window.

    A store must hold ``burst + rate·window <= limit``, count a settled call at the time at which it
    was fetched, never use the callers' clocks, and answer or fail within half a second.
    """

    async def exchange(self, lane: str, turn: StoreRequest) -> StoreReply:
        """Take in what a process reports, and reply, in one atomic step.

        Args:
            lane: names model, key and window, hashed; all counts of a lane live under it.
            turn: what it reports.

        Raises:
            RateLimitStoreError: the store is unavailable; whether it took the request is unknown.
        """

    async def close(self) -> None:
        """Close connections; idempotent. A later :meth:`exchange` opens them again."""


# Their names of before; kept for stores that were written against them.
Turn = StoreRequest
Reply = StoreReply
