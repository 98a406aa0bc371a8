"""Hedging: a second attempt beside a first that is slow to give its first token."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Literal

from konko_async._core.pipeline import AttemptTimes
from konko_async.errors import APIError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from konko_async._core.pipeline import Handler, Request, Response
    from konko_async.middleware._budget import RetryBudget

__all__ = ["FirstTokenTimes", "HedgeMiddleware"]

_log = logging.getLogger("konko_async.hedge")

# The latest 256, so that the delay follows the server. Of 20, the least that count, the 95th
# percentile is the 19th: one outlier does not set the delay.
_SAMPLE = 256
_ENOUGH = 20
_RECOMPUTE_EVERY = 16
# Seconds: below it, jitter of the network and of the event loop would start hedges.
_SHORTEST = 0.05
# Model ids may come from a user's users: beyond this the oldest are forgotten.
_MOST_MODELS = 256
# Below the resolution of the loop's clock: a wait that short might never end.
_CLOCK = 1e-6


class FirstTokenTimes:
    """The last 256 times to a first token, and the 95th percentile of them; pure."""

    __slots__ = ("_added", "_p95", "_times")

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_SAMPLE)
        self._added = 0
        self._p95: float | None = None

    def add(self, seconds: float) -> None:
        """Add one time.

        Args:
            seconds: from the attempt's start to its first token.
        """
        self._times.append(seconds)
        self._added += 1
        # Sorting at each call would cost more than hedging gains.
        if self._added >= _ENOUGH and (self._p95 is None or self._added % _RECOMPUTE_EVERY == 0):
            ranked = sorted(self._times)
            self._p95 = ranked[math.ceil(0.95 * len(ranked)) - 1]

    @property
    def p95(self) -> float | None:
        """Seconds below which 95 % of them were; None until there are 20."""
        return self._p95


class HedgeMiddleware:
    """Starts a second attempt when the first has given no token after a while; the first one wins.

    "First token" is what ``call_next`` returns on: the first delta of a stream, or a whole answer.
    The loser is cancelled, and its connection and permits are free, before the winner is handed
    on. An attempt that fails before the second has been started is raised, for retry to see; if
    it fails later, the second is waited for; if both fail, the first one's error is raised.

    Every hedge costs a token of the retry budget, so they stay below its share of the calls, and
    stop when many calls fail or all are slow. Time in the queue of the local limits does not count
    as slowness: a second place in the queue would help nobody. Both attempts carry the same
    ``Idempotency-Key``: a server that honours it generates (and bills) only once.

    Args:
        hedge_after: seconds without a first token; or ``"p95"``: the 95th percentile of the last
            256 of the same model and kind of answer (at least 20 are needed, and it is never less
            than 0.05 s).
        budget: the client's retry budget; None: hedges are not limited.

    Raises:
        ConfigurationError: ``hedge_after`` is neither a positive number nor ``"p95"``.
    """

    __slots__ = ("_after", "_budget", "_times")

    def __init__(self, hedge_after: float | Literal["p95"], budget: RetryBudget | None) -> None:
        number = isinstance(hedge_after, (int, float)) and not isinstance(hedge_after, bool)
        if hedge_after != "p95" and not (number and 0 < float(hedge_after) < math.inf):
            raise ConfigurationError(
                f'hedge_after must be seconds above 0 or "p95", not {hedge_after!r}'
            )
        self._after: float | None = None if hedge_after == "p95" else float(hedge_after)
        self._budget = budget
        self._times: dict[tuple[Any, str | None, bool], FirstTokenTimes] = {}

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Send ``request``, twice if need be, and return what answers first.

        Raises:
            KonkoError: the attempt failed, or both did.
        """
        # What is no question to a model may change something at the server (an upload, a batch):
        # a second one would do it twice.
        if request.model is None and request.operation.method != "GET":
            return await call_next(request)
        race = _Race(request, call_next)
        if self._after is not None:
            return await race.run(self._after, self._budget)
        times = self._times_of(request)
        after = times.p95
        if after is None:
            response = await call_next(request)
        else:
            response = await race.run(max(_SHORTEST, after), self._budget)
        # Of a first attempt that lost, this is the least it would have taken. To leave it out
        # would pull the percentile, and with it the delay, down and down.
        times.add(race.in_flight())
        return response

    def _times_of(self, request: Request) -> FirstTokenTimes:
        base_url = getattr(request.target, "base_url", None)
        key = base_url, request.model, request.stream
        times = self._times.get(key)
        if times is None:
            if len(self._times) >= _MOST_MODELS:
                del self._times[next(iter(self._times))]
            times = self._times[key] = FirstTokenTimes()
        return times


class _Race:
    """Races the first attempt of one call against a second one, if it is slow."""

    __slots__ = ("call_next", "loop", "request", "started")

    def __init__(self, request: Request, call_next: Handler) -> None:
        self.request = request
        self.call_next = call_next
        self.loop = asyncio.get_running_loop()
        self.started = self.loop.time()

    def in_flight(self) -> float:
        """Seconds since the first attempt got past the local limits."""
        return self.loop.time() - self.started - self.request.times.queued

    async def run(self, after: float, budget: RetryBudget | None) -> Response:
        """Return the first answer of one or two attempts, with the loser cleaned up."""
        runners = [self.loop.create_task(_attempt(self.call_next, self.request))]
        winner: Response | None = None
        try:
            await self.patience(runners[0], after)
            if not runners[0].done() and (budget is None or budget.try_spend(self.loop.time())):
                hedge = self.request.replace(hedge=True, times=AttemptTimes())
                runners.append(self.loop.create_task(_attempt(self.call_next, hedge)))
            winner = await _first_success(runners)
        finally:
            # A single runner that won has nothing to clean up, which is nearly every call.
            if winner is None or len(runners) > 1:
                await _clear(runners, winner)
        return winner

    async def patience(self, first: asyncio.Task[Response], after: float) -> None:
        """Return when the first attempt is done or has been in flight for ``after`` seconds."""
        while not first.done():
            # While it is in the queue of the limits, its time has not begun.
            queues = getattr(self.request.call, "waiting", 0) > 0
            left = after if queues else after - self.in_flight()
            if left <= _CLOCK:
                return
            # Not wait_for(): it would cancel the first attempt, which may well still win.
            await asyncio.wait((first,), timeout=left)


async def _attempt(call_next: Handler, request: Request) -> Response:
    return await call_next(request)


async def _first_success(runners: Sequence[asyncio.Task[Response]]) -> Response:
    """Return the first answer; if all fail, raise the most informative error."""
    while True:
        # In their order: if both have answered, the first attempt's answer counts.
        for runner in runners:
            if runner.done() and not runner.cancelled() and runner.exception() is None:
                return runner.result()
        pending = [runner for runner in runners if not runner.done()]
        if not pending:
            break
        await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    told = [r for r in runners if not r.cancelled() and isinstance(r.exception(), APIError)]
    # That of an open circuit or of the local limits only says that nothing was sent.
    return (told or runners)[0].result()


async def _clear(runners: Sequence[asyncio.Task[Response]], winner: Response | None) -> None:
    """Cancel what still runs, wait for its cleanup, close the answers that nobody wants.

    Cancelling the caller meanwhile does not cut this short: that is raised when all is clean, and
    the winner is then given up as well.
    """
    for runner in runners:
        runner.cancel()
    cancelled = await _outlast(runners)
    answers = [r.result() for r in runners if not r.cancelled() and r.exception() is None]
    cancelled = await _close(a for a in answers if a is not winner) or cancelled
    if cancelled is not None:
        await _close(() if winner is None else (winner,))
        raise cancelled


async def _close(responses: Iterable[Response]) -> asyncio.CancelledError | None:
    # Tasks of their own, so that a cancellation of the caller does not stop a close halfway.
    closers = [asyncio.create_task(response.aclose()) for response in responses]
    cancelled = await _outlast(closers)
    for closer in closers:
        if not closer.cancelled() and closer.exception() is not None:
            _log.debug("closing an unwanted answer failed", exc_info=closer.exception())
    return cancelled


async def _outlast(tasks: Sequence[asyncio.Task[Any]]) -> asyncio.CancelledError | None:
    """Wait for all of them, even when cancelled; return the cancellation, to be raised later."""
    cancelled = None
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
