"""Admission under limits that several processes share; works without the store if it fails."""

from __future__ import annotations

import asyncio
import hashlib
import math
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Final

from msgspec import structs

from konko_async.errors import RateLimitStoreError
from konko_async.limits._cooldown import MAX_PAUSE
from konko_async.limits._headers import Reported, read_limits
from konko_async.limits._lane import RESERVE_FOR, Lane
from konko_async.limits._permit import Outcome, Permit, SharedPermit
from konko_async.limits._shared.pending_updates import PendingUpdates
from konko_async.limits._stats import LaneLimits, Quantity, StoreState
from konko_async.limits._throttle import MICRO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from konko_async._core.policies import Priority, RateLimit
    from konko_async.limits._queue import Line, Waiter
    from konko_async.limits._shared.store import StoreReply, StoreRequest
    from konko_async.limits._shared.store_health import StoreHealth

__all__ = ["SharedLane"]

# Tickets offered in one request at most (MOST_TICKETS in redis_lane.lua). _adapt() lowers it to
# about what the store takes, as the rest is sent again; a few more find out when it takes more.
_MOST_OFFERED: Final = 64
_FEW_MORE: Final = 2
# Seconds by which pending updates may be late (after PendingUpdates' own 0.1 s) if a request for
# tickets is due by then: one round trip instead of two.
_TOGETHER: Final = 0.15
# The longest contexts that models advertise hold 10 million tokens.
_MOST_TOKENS: Final = 10_000_000
# Between two visits for tickets that stand in line, in seconds: at high rates several are granted
# per visit, and whatever changed in the meantime is heard of soon.
_SHORTEST_WAIT: Final = 0.002
_LONGEST_WAIT: Final = 0.5


class SharedLane(Lane):
    """Admits the calls of one model and key, together with other processes; see :class:`Store`.

    Calls wait in the queue of :class:`Lane`, with its slots, priorities and deadlines. What time
    alone lifts is decided by the store: the first few of the queue stand in line there, at most one
    request is under way, and all that happens meanwhile goes into the next one. While the store is
    away the queue is served as in any lane, by what :attr:`RateLimit.on_store_failure` leaves of
    the limits.
    """

    __slots__ = (
        "_come_back",
        "_divided",
        "_eager",
        "_left",
        "_link",
        "_name",
        "_outbox",
        "_seqs",
        "_task",
        "_tickets",
    )

    def __init__(
        self, model: str | None, key: str, rate_limit: RateLimit, link: StoreHealth
    ) -> None:
        super().__init__(model, key, rate_limit)
        self._link = link
        # What is written into a store names neither a model nor a key.
        name = f"{model or ''}\n{key}\n{rate_limit.window!r}"
        self._name = hashlib.sha256(name.encode()).hexdigest()[:32]
        self._outbox = PendingUpdates(rate_limit)
        # From 1: a waiter's ticket is 0 while the store does not know it.
        self._seqs = count(1)
        self._tickets: dict[int, Waiter] = {}
        self._task: asyncio.Task[None] | None = None
        self._come_back = math.inf
        # Whether the limits are this process's share at present; lags behind the health of the
        # store until _follow_health() has moved the counts over.
        self._divided = False
        self._eager = _MOST_OFFERED
        self._left = False

    immediate = False

    # --- coming and going

    def try_admit(
        self,
        tokens: int = 0,
        priority: Priority = "interactive",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> Permit | None:
        """Return None, as only the store can admit; while it is unavailable, see :class:`Lane`.

        Raises:
            RateLimitStoreError: it is away, and ``on_store_failure`` is ``"closed"``.
        """
        link, self._left = self._link, False
        if link.error is None and not self._divided:
            now = self._clock()
            # Lane.try_admit() does this for local limits; here it is not reached while the store is
            # available.
            if priority != "batch":
                self._reserve_until = now + RESERVE_FOR
            return None
        now = self._clock()
        self._follow_health(now)
        if link.error is None:
            return None
        if now >= link.probe_at:
            self._ask()
        if link.choice != "closed":
            return super().try_admit(tokens, priority, loop)
        if self._task is None:
            raise _closed(link.error)
        return None  # it is being asked right now: its answer decides

    def settle(self, permit: Permit, used: int) -> None:
        """Correct the reserved tokens of a permit to ``used``, as far as that can be true."""
        self._correct(permit, 0, int(min(used, _MOST_TOKENS)) - permit.tokens)

    def refund(self, permit: Permit) -> None:
        """Take back the request and the tokens of a call that never reached the server."""
        self._correct(permit, -1, -permit.tokens)

    def _correct(self, permit: Permit, requests: int, tokens: int) -> None:
        if not isinstance(permit, SharedPermit):  # admitted while the store was away
            if requests:
                super().refund(permit)
            else:
                super().settle(permit, permit.tokens + tokens)
            return
        now = self._time()
        # Counted here as well as in the store: what this process spent is its share of the evidence
        # when a rejection comes (is_news), and is reported when the store returns.
        self._throttle.correct(permit.charges, requests, tokens)
        soon = requests != 0 or self.counts_tokens  # else it is for show
        self._outbox.settle(now, permit.epoch, permit.slot, requests, tokens, soon=soon)
        self._arrange(now)

    def release(self, permit: Permit, latency: float | None, outcome: Outcome) -> None:
        """Free the concurrency slot of a permit."""
        strikes = self._throttle.strikes
        before = strikes.count
        super().release(permit, latency, outcome)
        # The base class forgave the strikes of this process; those that count are the store's.
        if before and not strikes.count and not self._divided:
            self._outbox.forgive(self._time())
            self._arrange(self._time())

    def observe_headers(self, headers: Mapping[str, str]) -> None:
        """Report to the store what headers say, for all processes; see :class:`Lane`."""
        throttle = self._throttle
        if not throttle.learns or (said := read_limits(headers, resets=True)) is None:
            return
        now = self._clock()
        requests, tokens = said
        said = (
            None if requests is None else throttle.requests.translate(requests),
            None if tokens is None else throttle.tokens.translate(tokens),
        )
        if self._divided:
            # What is left says nothing of our part: the others use theirs.
            limits = tuple(None if one is None else Reported(one.limit) for one in said)
            self._throttle.read(now, (limits[0], limits[1]), 0)
        else:
            self._outbox.report(now, said, self._throttle)
            self._arrange(now)

    def observe_rejection(
        self, retry_after: float | None = None, permit: Permit | None = None
    ) -> None:
        """Report a rejection to the store: all processes cool down; see :class:`Lane`.

        One that comes at random, by what this process saw, is not reported.
        """
        if self._divided:
            super().observe_rejection(retry_after, permit)
            return
        now, patient = self._clock(), self._adaptive is not None
        if permit is not None and not self._throttle.is_news(now, retry_after, permit.admitted_at):
            return
        self._outbox.reject(retry_after, patient=patient)
        if retry_after is not None and 0.0 < retry_after < math.inf:
            # What is granted before the store has heard of it does not leave.
            self._news(now, paused=self._throttle.pause(now, min(retry_after, MAX_PAUSE)))
        self._arrange(now)

    # --- serving

    def _serve(self) -> None:
        now = self._time()
        self._follow_health(now)
        if self._link.error is None:
            hopeless = self._refuse_hopeless(now, max(now, self._throttle.paused_until), math.inf)
            # Deadlines are enforced here, as the store does not know them.
            self._arrange(now, hopeless)
        elif self._link.choice != "closed":
            super()._serve()
            if self._queue.total:
                self._probe(now)
        elif self._task is None:
            self._refuse_all(self._link.error)

    def _arrange(self, now: float, wake: float = math.inf) -> None:
        """Send a request to the store now, or keep a timer for when one is due."""
        # One request at a time; what arrives meanwhile is collected for the next one.
        if self._task is None and not self._divided and not self._left:
            due = self._due(now)
            if due > now:
                wake = min(wake, due)
            else:
                self._ask()
        if wake < math.inf:  # a timer that is there may be for a deadline
            self._sleep_until(wake)

    def _due(self, now: float) -> float:
        """When the next request to the store is due."""
        in_line = {"interactive": 0, "batch": 0}
        for ticket, waiter in list(self._tickets.items()):
            if waiter.alive and not waiter.future.done():
                in_line[waiter.line.priority] += 1
            else:
                self._drop(ticket)
        for line in (self._queue.interactive, self._queue.batch):
            if line.count and not in_line[line.priority] and self._places(line, now) > 0:
                return now
        flush = self._outbox.flush_at
        if not self._tickets:
            return flush
        # Updates wait for the next request for tickets, if that is due soon.
        return self._come_back if self._come_back < flush + _TOGETHER else flush

    def _drop(self, ticket: int) -> None:
        self._tickets.pop(ticket).ticket = 0
        self._outbox.withdraw(ticket)

    def _places(self, line: Line, now: float) -> float:
        return self._cap_of(line, now) - self._in_flight

    def _ask(self) -> None:
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._exchange(), name="konko_async: shared limits")

    def _probe(self, now: float) -> None:
        """While calls wait and the store is unavailable, try it from time to time."""
        if now >= self._link.probe_at:
            self._ask()
        elif self._task is None:
            self._sleep_until(self._link.probe_at)

    async def _exchange(self) -> None:
        """Make one request to the store.

        As a task, it begins in the next event-loop iteration, and so carries all that came
        together in this one.
        """
        started = self._time()
        turn = self._offer(started)
        try:
            told = await self._link.exchange(self._name, turn)
        except RateLimitStoreError as error:
            # Whether the store acted on the request is unknown; see PendingUpdates.lost().
            self._outbox.lost(turn)
            self._link.failed(self._time(), error)
            paused = False
        else:
            self._adapt(turn, told)
            paused = self._hear(told, started)
        finally:
            # After a change of event loop the field may hold the task of the new one.
            if self._task is asyncio.current_task():
                self._task = None
        self._news(self._time(), paused=paused)
        self._pump()

    def _hear(self, told: StoreReply, started: float) -> bool:
        now = self._time()
        self._link.heard(told)
        # Before follow() and _take_in(): corrections of what is granted below refer to the new
        # epoch.
        self._outbox.answered(now, told, now - started)
        paused = self._throttle.follow(now, told)
        self._follow_health(now)
        self._take_in(now, told)
        return paused

    def _offer(self, now: float) -> StoreRequest:
        """Make a request of the pending updates, and tickets for the first waiting calls."""
        turn = self._outbox.turn(now, self._link.me)
        if self._link.error is None:
            turn.interactive = self._tickets_of(self._queue.interactive, now)
            turn.batch = self._tickets_of(self._queue.batch, now)
        return turn

    def _adapt(self, turn: StoreRequest, told: StoreReply) -> None:
        """Adjust how many tickets are offered to how many the store takes."""
        taken = {ticket for ticket, _ in told.granted} | set(told.standing)
        offered = [ticket for ticket, _ in (*turn.interactive, *turn.batch)]
        kept = sum(ticket in taken for ticket in offered)
        if kept < len(offered):
            self._eager = kept + _FEW_MORE
        elif kept:
            self._eager = min(self._eager * 2, _MOST_OFFERED)

    def _tickets_of(self, line: Line, now: float) -> list[tuple[int, int]]:
        offered: list[tuple[int, int]] = []
        left = min(self._places(line, now), _MOST_OFFERED)
        for waiter in line:
            if left <= 0 or len(offered) >= self._eager:
                break
            if waiter.future.done():
                continue
            left -= 1
            if not waiter.ticket:
                waiter.ticket = next(self._seqs)
                self._tickets[waiter.ticket] = waiter
                offered.append((waiter.ticket, waiter.tokens))
        return offered

    def _take_in(self, now: float, told: StoreReply) -> None:
        """Admit the calls that the store granted, and note which tickets still wait there."""
        for ticket, tokens in told.granted:
            waiter = self._tickets.pop(ticket, None)
            # Granted to a call that was cancelled meanwhile, or cannot leave: it goes back, so that
            # others can have it.
            if waiter is None or not self._let_go(now, waiter, told):
                self._outbox.settle(now, told.epoch, told.slot, -1, -tokens)
        standing = set(told.standing)
        for ticket, waiter in list(self._tickets.items()):
            if ticket not in standing:
                waiter.ticket = 0
                del self._tickets[ticket]
        # Tickets of calls that ended here must not keep others waiting in the store.
        for ticket in standing - self._tickets.keys():
            self._outbox.withdraw(ticket)
        if told.wait >= 0:
            wait = min(max(told.wait / MICRO, _SHORTEST_WAIT), _LONGEST_WAIT)
            self._come_back = now + wait

    def _let_go(self, now: float, waiter: Waiter, told: StoreReply) -> bool:
        """Admit a granted call; False if it no longer waits, or there is no free slot."""
        waiter.ticket = 0
        line, queue = waiter.line, self._queue
        if not waiter.alive or waiter.future.done():
            return False
        if now < self._throttle.paused_until or self._places(line, now) <= 0:
            return False  # it stays where it is in the queue
        self._in_flight += 1
        # Counted as of now: the call is sent now, not when the store granted it.
        charges = self._throttle.count(now, waiter.tokens)
        permit = SharedPermit(self, self._era, now, self._in_flight, waiter.tokens, charges)
        permit.epoch, permit.slot = told.epoch, told.slot
        permit.waited = now - waiter.since
        # The head may be a call whose ticket the store did not take, or whose grant came to
        # nothing.
        if waiter is line.head():
            queue.serve(line, waiter)
        else:
            queue.leave(waiter)
        waiter.future.set_result(permit)
        return True

    # --- without the store

    def _follow_health(self, now: float) -> None:
        """Switch to this process's share of the limits when the store goes away, and back."""
        away = self._link.error is not None
        if away == self._divided:
            return
        self._divided = away
        if away:
            self._forget_tickets()
            self._throttle.divide(now, self._link.portion)
        else:
            self._outbox.come_back(now, self._link.since, self._throttle, self._link.took_part)

    def _forget_tickets(self) -> None:
        for waiter in self._tickets.values():
            waiter.ticket = 0
        self._tickets.clear()
        self._come_back = math.inf

    def _refuse_all(self, error: RateLimitStoreError) -> None:
        queue = self._queue
        while queue.total:
            waiter = queue.next().head()
            queue.leave(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(_closed(error))

    # --- the rest

    def snapshot(self) -> LaneLimits:
        """Return what all processes use, what waits here, and what was learned."""
        own, told = super().snapshot(), self._outbox.told
        state = StoreState(
            away=None if self._link.error is None else str(self._link.error),
            processes=self._link.processes,
        )
        # Nothing was heard from the store yet, or it is away: only the counts of this process are
        # known.
        if self._divided or not told.epoch:
            return structs.replace(own, store=state)
        return structs.replace(
            own,
            store=state,
            requests=_used(own.requests, told.used_requests),
            tokens=_used(own.tokens, told.used_tokens),
        )

    def idle(self) -> bool:
        """Whether nothing is in flight, waiting, cooling down, in the window, or unreported."""
        return super().idle() and self._task is None and self._outbox.flush_at == math.inf

    async def close(self) -> None:
        """Send the pending updates to the store, and leave it; takes half a second at most."""
        self._sleep_until(math.inf)
        self._left = True  # what ends later is not reported any more
        loop, task = asyncio.get_running_loop(), self._task
        if loop is not self._loop:
            return
        if task is not None:
            await asyncio.wait([task])
        self._sleep_until(math.inf)
        if self._outbox.told.epoch and self._link.error is None:
            turn = self._outbox.turn(self._time(), self._link.me)
            # Without it the store keeps our tickets for 5 s more, and counts this process for a
            # minute (STALE and REGISTERED in redis_lane.lua).
            turn.leave = True
            with suppress(RateLimitStoreError):  # it forgets us by itself
                await self._link.exchange(self._name, turn)
        self._outbox = PendingUpdates(self._rate_limit)
        self._forget_tickets()

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        super()._attach(loop)
        self._task = None  # its event loop is gone, and the task with it
        self._forget_tickets()


def _closed(error: RateLimitStoreError) -> RateLimitStoreError:
    """Return a copy of an error: each caller gets a traceback of its own."""
    return RateLimitStoreError(error.message)


def _used(own: Quantity, used: int) -> Quantity:
    available = None if own.limit is None else max(own.limit - used, 0.0)
    return structs.replace(own, used=float(used), available=available)
