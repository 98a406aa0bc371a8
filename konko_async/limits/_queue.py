"""FIFO wait queues, one per priority, with deadlines."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from konko_async.limits._permit import Permit

__all__ = ["INTERACTIVE_PER_BATCH", "Deadlines", "Line", "Waiter", "Waiting"]

INTERACTIVE_PER_BATCH: Final = 4
"""Interactive calls admitted in a row before a waiting batch call is admitted."""


# Fewer dead entries than this are not worth a sweep.
_SWEEP_FROM: Final = 64


class Waiter:
    """A waiting call: its future, and what it needs to be admitted.

    Attributes:
        future: gets the permit, or the error.
        tokens: what it reserves.
        since: when it began to wait.
        deadline: when it fails, or None.
        line: where it stands.
        alive: False once it was admitted, refused or cancelled.
        ahead: how many stood before it when it came.
        served: the line's ``served`` when it came.
        ticket: what a store knows it by; 0 if it does not.
    """

    __slots__ = (
        "ahead", "alive", "deadline", "future", "line", "served", "since", "ticket", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        future: asyncio.Future[Permit],
        line: Line,
        tokens: int,
        since: float,
        deadline: float | None,
    ) -> None:
        self.future = future
        self.line = line
        self.tokens = tokens
        self.since = since
        self.deadline = deadline
        self.alive = True
        # Both are compared when it is refused, to say how long it would have waited.
        self.ahead = line.count
        self.served = line.served
        self.ticket = 0


class Line:
    """A FIFO queue of one priority; leaving it from the middle is O(1), amortised.

    Who leaves stays in the deque until it comes to the front, or until the dead outnumber the
    living and are swept: callers that come and give up again and again cost no memory.

    Attributes:
        priority: whose line it is.
        count: how many wait.
        tokens: what they wait for, together.
        served: how many were admitted from it.
    """

    __slots__ = ("_dead", "_waiters", "count", "priority", "served", "tokens")

    def __init__(self, priority: str) -> None:
        self.priority = priority
        self.count = 0
        self.tokens = 0
        self.served = 0
        self._dead = 0
        self._waiters: deque[Waiter] = deque()

    def push(self, waiter: Waiter) -> None:
        """Put a waiter at the end."""
        self._waiters.append(waiter)
        self.count += 1
        self.tokens += waiter.tokens

    def head(self) -> Waiter:
        """The first of those who wait; there must be one."""
        waiters = self._waiters
        while not waiters[0].alive:
            waiters.popleft()
            self._dead -= 1
        return waiters[0]

    def serve(self) -> None:
        """Take the head out: it was admitted."""
        waiter = self._waiters.popleft()
        waiter.alive = False
        self.count -= 1
        self.tokens -= waiter.tokens
        self.served += 1

    def leave(self, waiter: Waiter) -> None:
        """Take a waiter out, wherever it stands."""
        waiter.alive = False
        self.count -= 1
        self.tokens -= waiter.tokens
        self._dead += 1
        if not self.count:
            self._waiters.clear()
            self._dead = 0
        elif self._dead > _SWEEP_FROM and self._dead > self.count:
            self._waiters = deque(one for one in self._waiters if one.alive)
            self._dead = 0

    def __iter__(self) -> Iterator[Waiter]:
        """Those who wait, first come first."""
        return (waiter for waiter in self._waiters if waiter.alive)


class Deadlines:
    """The deadlines of those who wait, soonest first; O(log n) each.

    Attributes:
        heap: empty where nobody who waits has one.
    """

    __slots__ = ("_count", "_dead", "heap")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Waiter]] = []
        self._count = itertools.count()
        self._dead = 0

    def add(self, deadline: float, waiter: Waiter) -> None:
        """Watch a waiter."""
        # The counter decides between equal deadlines: waiters cannot be compared.
        heapq.heappush(self.heap, (deadline, next(self._count), waiter))

    def drop(self) -> None:
        """Note that one that is watched does not wait any more."""
        self._dead += 1
        # Half dead before a sweep, so that its O(n) is paid for by as many drops.
        if self._dead > _SWEEP_FROM and self._dead * 2 > len(self.heap):
            self.heap = [entry for entry in self.heap if entry[2].alive]
            heapq.heapify(self.heap)
            self._dead = 0

    def first(self) -> Waiter | None:
        """The one whose deadline is the soonest."""
        heap = self.heap
        while heap and not heap[0][2].alive:
            heapq.heappop(heap)
            self._dead -= 1
        return heap[0][2] if heap else None


class Waiting:
    """All waiting calls, and which priority is admitted next.

    Interactive calls go first, but of every five admissions for which both wait, one is a batch
    call's: enough for a batch never to starve. The price is one batch call in front of a fifth of
    the interactive ones, and only while they come faster than they can be served.

    Attributes:
        interactive: calls that somebody waits for.
        batch: calls that have time.
        deadlines: of either.
        total: how many wait.
    """

    __slots__ = ("_streak", "batch", "deadlines", "interactive", "total")

    def __init__(self) -> None:
        self.interactive = Line("interactive")
        self.batch = Line("batch")
        self.deadlines = Deadlines()
        self.total = 0
        self._streak = 0

    def line(self, priority: str) -> Line:
        """The line of a priority."""
        return self.batch if priority == "batch" else self.interactive

    def next(self) -> Line:
        """The line whose head is next; somebody must be waiting."""
        batch = self.batch.count
        if self.interactive.count and (not batch or self._streak < INTERACTIVE_PER_BATCH):
            return self.interactive
        return self.batch

    def batch_turn(self) -> bool:
        """Whether it is the batch's turn though somebody interactive may wait."""
        return self._streak >= INTERACTIVE_PER_BATCH

    def may_pass(self, priority: str) -> bool:
        """Whether a newcomer overtakes nobody whom it may not overtake, if it is admitted now."""
        # Whoever waits came first. Only a batch call may be overtaken, and only by an interactive
        # call, while the 4 : 1 share allows it.
        if self.interactive.count or priority == "batch":
            return not self.total
        return not self.batch.count or self._streak < INTERACTIVE_PER_BATCH

    def passed(self) -> None:
        """Count an interactive newcomer that was admitted while a batch call waits."""
        self._streak += 1

    def join(self, waiter: Waiter) -> None:
        """Let a waiter stand in its line."""
        waiter.line.push(waiter)
        self.total += 1
        if waiter.deadline is not None:
            self.deadlines.add(waiter.deadline, waiter)

    def serve(self, line: Line, waiter: Waiter) -> None:
        """Take out the head of a line, which was admitted."""
        line.serve()
        self.total -= 1
        if waiter.deadline is not None:
            self.deadlines.drop()
        # Without batch calls waiting, interactive ones take nobody's turn, and are not counted.
        self._streak = self._streak + 1 if line is self.interactive and self.batch.count else 0

    def leave(self, waiter: Waiter) -> None:
        """Take out one that was refused or cancelled."""
        waiter.line.leave(waiter)
        self.total -= 1
        if waiter.deadline is not None:
            self.deadlines.drop()

    def ahead(self, line: Line) -> tuple[int, int]:
        """How many, and how many tokens, are surely served before a newcomer of this line."""
        if line is self.interactive:
            return line.count, line.tokens
        # Interactive calls that come later may go first as well, so this is a lower bound: a batch
        # call is refused at once only if it is certain to miss its deadline.
        first = max(INTERACTIVE_PER_BATCH - self._streak, 0)
        before = first + INTERACTIVE_PER_BATCH * line.count
        if self.interactive.count <= before:
            return line.count + self.interactive.count, line.tokens + self.interactive.tokens
        return line.count + before, line.tokens
