"""Updates of one lane for its store: kept until the next request, and merged where possible."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from konko_async.limits._headers import Reported
from konko_async.limits._shared.store import StoreReply, StoreRequest
from konko_async.limits._throttle import MICRO, Throttle

if TYPE_CHECKING:
    from konko_async._core.policies import RateLimit
    from konko_async.limits._headers import Told

__all__ = ["PendingUpdates"]

# Seconds that a correction may wait for others, or for a request that is due anyway: a busy process
# makes no more requests for its corrections' sake.
_FLUSH_AFTER: Final = 0.1
# Less than a hundredth of a limit (or one call) is what calls in flight explain, not other users.
_NOTICE: Final = 0.01
# How long the tickets in the store should last, in seconds and in round trips: shorter, and
# capacity is lost between two requests; longer, and one process holds a larger part of the common
# queue.
_HORIZON: Final = 0.025
_ROUND_TRIPS: Final = 2.0
# Late charges in at most this many groups, so that a full window fits into one request.
_GROUPS: Final = 20
_NOTHING: Final = StoreReply(
    epoch="", slot=0, wait=-1, paused=0, strikes=0, episode=0, used_requests=0, used_tokens=0,
    learned_requests=0, learned_tokens=0, share=int(MICRO), processes=0, granted=[], standing=[],
)  # fmt: skip


class PendingUpdates:
    """Collects updates for the store, and remembers the store's last reply.

    Attributes:
        told: the store's last reply.
        heard: when it came; ``-inf`` if none did.
        flush_at: when the next request is due on its account: ``-inf`` for at once, ``inf`` if
            there is nothing to report.
    """

    __slots__ = (
        "_burst", "_forgive", "_late", "_rejected", "_reported", "_reset", "_returned",
        "_round_trip", "_settled", "_withdrawn", "flush_at", "heard", "rate_limit", "told",
    )  # fmt: skip

    def __init__(self, rate_limit: RateLimit) -> None:
        self.rate_limit = rate_limit
        requests, burst = rate_limit.requests_per_minute, rate_limit.burst
        self._burst = burst / requests if burst and requests else -1.0
        self.told = _NOTHING
        self.heard = self.flush_at = -math.inf
        self._round_trip = 0.0
        self._reset = False
        self._returned = 0
        self._late: list[tuple[int, int, int]] = []
        self._clear()

    def _clear(self) -> None:
        self.flush_at = math.inf
        self._withdrawn: list[int] = []
        self._settled: dict[int, tuple[int, int]] = {}
        self._rejected: list[tuple[int, bool]] = []
        self._forgive = False
        self._reported: dict[str, Reported] = {}

    def settle(
        self, now: float, epoch: str, slot: int, requests: int, tokens: int, *, soon: bool = True
    ) -> None:
        """Correct what was counted in a slot; if not ``soon``, with the next request.

        What was counted before the store lost its memory is in no slot any more: what was used
        beyond it counts as of now, and nothing is given back.
        """
        if epoch != self.told.epoch:
            slot, requests, tokens = self.told.slot, max(requests, 0), max(tokens, 0)
        if not requests and not tokens:
            return
        before = self._settled.get(slot, (0, 0))
        self._settled[slot] = before[0] + requests, before[1] + tokens
        if soon:
            self.flush_at = min(self.flush_at, now + _FLUSH_AFTER)

    def withdraw(self, ticket: int) -> None:
        """Take a ticket out of the line, at once: it is in the way of others."""
        self._withdrawn.append(ticket)
        self.flush_at = -math.inf

    def reject(self, retry_after: float | None, *, patient: bool) -> None:
        """Report a rejection at once; see :meth:`Strikes.add`."""
        wait = -1
        if retry_after is not None and 0.0 < retry_after < math.inf:
            wait = max(int(retry_after * MICRO), 1)
        self._rejected.append((wait, patient))
        self.flush_at = -math.inf

    def forgive(self, now: float) -> None:
        """Report that a call which was sent after the last rejection succeeded."""
        self._forgive = True
        self.flush_at = min(self.flush_at, now + _FLUSH_AFTER)

    def report(self, now: float, said: Told, throttle: Throttle) -> None:
        """Report what headers say, where that is news to the store."""
        told = self.told
        for reported, quota, learned, used in (
            (said[0], throttle.requests, told.learned_requests, told.used_requests),
            (said[1], throttle.tokens, told.learned_tokens, told.used_tokens),
        ):
            if reported is None:
                continue
            limit = reported.limit
            news = limit is not None and int(limit) != learned
            if news or _is_foreign(reported, quota.ceiling or limit, used):
                self._report(now, quota.kind[0], reported)

    def _report(self, now: float, kind: str, reported: Reported) -> None:
        before = self._reported.get(kind)
        if before is not None and before.remaining is not None:
            left = reported.remaining
            # Headers of answers that overtook each other: the lowest figure stays, as it is the
            # safe one.
            if left is None or before.remaining < left:
                reported = Reported(reported.limit, before.remaining, before.reset)
        self._reported[kind] = reported
        self.flush_at = min(self.flush_at, now + _FLUSH_AFTER)

    def come_back(self, now: float, since: float, throttle: Throttle, processes: int) -> None:
        """Report what was spent without the store since ``since``, and how many took part then."""
        self._returned = processes
        requests, tokens = throttle.requests.spent.since(since), throttle.tokens.spent.since(since)
        found = [(at, math.ceil(amount), 0) for at, amount in requests]
        found += [(at, 0, math.ceil(amount)) for at, amount in tokens]
        found.sort()
        size = max(-(-len(found) // _GROUPS), 1)
        for start in range(0, len(found), size):
            group = found[start : start + size]
            # All as of the last of them: counted for longer rather than for too short.
            age = max(int((now - group[-1][0]) * MICRO), 0)
            self._late.append((age, sum(one[1] for one in group), sum(one[2] for one in group)))
        self.flush_at = -math.inf

    def turn(self, now: float, me: str) -> StoreRequest:
        """Make a request of all updates; they are not pending any more."""
        limit = self.rate_limit
        turn = StoreRequest(
            me=me,
            # After a whole window of silence nothing that the store counted then is left in it.
            epoch=self.told.epoch if now - self.heard < limit.window else "",
            requests=limit.requests_per_minute or 0.0,
            tokens=limit.tokens_per_minute or 0.0,
            burst=self._burst,
            window=int(limit.window * MICRO),
            horizon=int(max(_HORIZON, _ROUND_TRIPS * self._round_trip) * MICRO),
            learn=limit.learn,
            withdrawn=self._withdrawn,
            settled=[(slot, *amounts) for slot, amounts in self._settled.items()],
            late=self._late,
            rejected=self._rejected,
            forgive=self._forgive,
            reported=[(kind, _plain(said)) for kind, said in self._reported.items()],
            reset=self._reset,
            returned=self._returned,
        )
        self._late = []
        self._returned = 0
        self._clear()
        return turn

    def answered(self, now: float, told: StoreReply, took: float) -> None:
        """Note a reply, and the seconds that it took."""
        if told.epoch != self.told.epoch and self.told.epoch:
            self._remind()
        self.told, self.heard = told, now
        self._reset = False
        # An upward jolt counts for little, a lasting rise for all.
        self._round_trip += (took - self._round_trip) * 0.2

    def _remind(self) -> None:
        """The store lost its memory: report again what we know of the limits."""
        for kind, learned in (("r", self.told.learned_requests), ("t", self.told.learned_tokens)):
            if learned and kind not in self._reported:
                self._reported[kind] = Reported(float(learned))
                self.flush_at = -math.inf

    def lost(self, turn: StoreRequest) -> None:
        """Note that a request may be lost: queue again what is safe to report twice.

        What lowers a limit, or adds to what was spent, is sent again. What gives back is not.
        """
        self._reset = True
        self._returned = turn.returned
        self._late = turn.late + self._late
        self._rejected = turn.rejected + self._rejected
        for kind, (limit, remaining, reset) in turn.reported:
            seconds = reset / MICRO
            said = Reported(
                *(None if value < 0 else value for value in (limit, remaining, seconds))
            )
            self._reported.setdefault(kind, said)
        for slot, requests, tokens in turn.settled:
            before = self._settled.get(slot, (0, 0))
            self._settled[slot] = before[0] + max(requests, 0), before[1] + max(tokens, 0)


def _is_foreign(reported: Reported, ceiling: float | None, used: float) -> bool:
    """Whether less is left than what all processes spent explains."""
    left = reported.remaining
    if left is None:
        return False
    if ceiling is None:
        return left <= 0 and bool(reported.reset)
    return ceiling - used - left > max(ceiling * _NOTICE, 1.0)


def _plain(said: Reported) -> tuple[float, float, float]:
    limit, remaining, reset = said.limit, said.remaining, said.reset
    return (
        -1.0 if limit is None else float(int(limit)),
        -1.0 if remaining is None else remaining,
        -1.0 if reset is None else reset * MICRO,
    )
