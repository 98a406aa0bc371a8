"""Sends rows until they are answered or fail for good: no transient failure costs a row."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Final

from konko_async import KonkoError
from konko_async.batch._calls.pace import Pace
from konko_async.batch._calls.verdict import RowVerdict, judge, outage, stopped_by
from konko_async.batch._errors import BatchError
from konko_async.batch._input.row_parser import Row
from konko_async.middleware import resting

__all__ = ["Dispatcher"]

_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 30.0
_SPREAD: Final = 0.2  # waits are so much longer at random: rows that failed together part
_HISTORY: Final = 20  # attempts that the error of a row remembers
_REFUSALS: Final = 3  # first rows that must be refused, to take it for what all rows would meet
_NOTICES: Final = 5.0  # seconds between two lines about the server
_LATE: Final = 1.0  # a timer later than this was held up by a machine that slept
# A row that fails while others are answered may be the cause itself. It is written as failed once
# chance is ruled out: with the share of failures among the others, as many in a row are rarer than
# this; and after a minute, which a replica that is restarted needs.
_CHANCE: Final = 1e-9
_ALONE_FOR: Final = 60.0


class _Trial:
    """The attempts at a row whose first one has failed."""

    __slots__ = ("alone", "attempts", "began", "counts", "failures", "progress", "sent")

    def __init__(self) -> None:
        self.sent = 1
        self.failures = 0
        self.alone = 0  # failures in a row, between each two of which another row was answered
        self.progress = -1
        self.began = 0.0
        self.counts = (0, 0)  # of the run, when the row failed first
        self.attempts: list[Any] = []


class Dispatcher:
    """Sends the rows of a run, again and again if need be, and says when the run cannot go on.

    All rows share a :class:`Pace`. A row whose attempt failed for a reason that passes waits
    and is sent again, for as long as the run makes progress: after ``max_outage`` seconds in which
    no row was finished, the run ends, and what is not in the output is left for the next run.

    Args:
        call: makes one attempt at a row.
        width: calls in flight while all is well.
        max_outage: seconds.
        max_attempts: after which a row fails even so; None: never.
        base_delay: seconds, about the wait after a row's first failure.
        fresh: whether the output has no answers of earlier runs.
        notice: called with a line for the user.
        retried: called for each attempt after a row's first.

    Attributes:
        ended: why the run cannot go on; None while it can.
        on_end: called once with nothing when it cannot.
    """

    def __init__(
        self,
        call: Callable[[Row], Awaitable[Any]],
        *,
        width: int,
        max_outage: float,
        max_attempts: int | None,
        base_delay: float,
        fresh: bool,
        notice: Callable[[str], object],
        retried: Callable[[], object],
    ) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(width, self._loop.time())
        self._max_outage = max_outage
        self._max_attempts = max_attempts
        self._base_delay = base_delay
        self._fresh = fresh
        self._notice = notice
        self._retried = retried
        self._in_flight = 0  # sent, or answered and not written yet
        self._coming = 0  # handed to the fan-out, and not here yet
        self._line: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._feeder: asyncio.Future[None] | None = None
        self._fed = False  # the input has no more rows
        self._good = self._bad = 0  # outcomes of all attempts
        self._refused: list[asyncio.Future[None]] = []
        self._verdict: RowVerdict | None = None  # on the first of these
        self._noticed = -math.inf
        self._cut_at = -math.inf
        self._trouble: float | None = None  # since when nothing was finished, though rows were sent
        self._met: KonkoError | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.ended: BatchError | None = None
        self.on_end: Callable[[], object] = lambda: None

    @property
    def in_flight(self) -> int:
        """Rows that were sent, and whose answer is not in the output yet."""
        return self._in_flight

    @property
    def spare(self) -> int:
        """How many rows may wait for their next attempt while others are sent."""
        # Rows that back off stay in memory, so their number is bounded; a narrow run may have 64 of
        # them, or a few that fail would hold up all others.
        return max(64, self._pace.width)

    # -- the rows' way in ------------------------------------------------------------------------

    async def paced(self, rows: AsyncIterator[Row]) -> AsyncIterator[Row]:
        """Yield rows as fast as calls may begin: what has not been read need not be kept."""
        try:
            async for row in rows:
                while not self._has_room(self._coming + len(self._line)):
                    self._feeder = self._loop.create_future()
                    self._arm()
                    await self._feeder
                self._coming += 1
                yield row
        finally:
            if isinstance(rows, AsyncGenerator):  # it may hold files
                await rows.aclose()
        self._fed = True
        self._decide()

    def _has_room(self, ahead: int) -> bool:
        now, started = self._loop.time(), self._in_flight + ahead
        if self._pace.probing:
            # During an outage one row is enough: it becomes the probe.
            return ahead == 0 and not self._pace.wait(now, started)
        return not self._pace.wait(now, started)

    def _wake(self) -> None:
        """Let the first in line look again, or the feeder where nobody is."""
        while self._line:
            if not self._line[0].done():
                if self._pace.wait(self._loop.time(), self._in_flight) <= 0:
                    self._line.popleft().set_result(None)
                else:
                    self._arm()
                return
            # Cancelled while it waited.
            self._line.popleft()
        if self._feeder is not None and not self._feeder.done():
            self._feeder.set_result(None)

    def _arm(self) -> None:
        """Set a timer for when the pace allows another call."""
        wait = self._pace.wait(self._loop.time(), self._in_flight)
        if self._timer is not None:
            self._timer.cancel()
        if 0.0 < wait < math.inf:
            self._timer = self._loop.call_later(max(wait, 0.001), self._wake)

    def _must_wait(self) -> bool:
        # A newcomer goes to the end of the line, even if there is room at this moment.
        return bool(self._line) or self._pace.wait(self._loop.time(), self._in_flight) > 0

    async def _wait_in_line(self) -> None:
        """Wait until a call may begin."""
        loop, pace = self._loop, self._pace
        while self._must_wait():
            turn = loop.create_future()
            self._line.append(turn)
            self._arm()
            try:
                with resting():
                    await turn
            except BaseException:
                # Woken and cancelled at once: the slot is passed on,
                # or the line would wait for it forever.
                if turn.done() and not turn.cancelled():
                    self._wake()
                raise
            # Between waking and running the pace may have been cut: then the row waits again.
            if pace.wait(loop.time(), self._in_flight) <= 0:
                break

    def _enter(self) -> None:
        """Begin a call."""
        self._in_flight += 1
        self._pace.begin(self._loop.time())
        self._wake()

    def _leave(self) -> None:
        self._in_flight -= 1
        self._wake()

    def written(self) -> None:
        """Note that what became of a row is in the output: progress, and room for another."""
        self._trouble = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._leave()

    def close(self) -> None:
        """Cancel the timers."""
        for timer in (self._timer, self._watch):
            if timer is not None:
                timer.cancel()

    # -- one row ---------------------------------------------------------------------------------

    async def __call__(self, row: Row) -> Any:
        """Return the answer to a row; :meth:`written` is to be called for it, or for its error.

        Raises:
            KonkoError: the row's own failure.
            BatchError: what every other row would meet too.
        """
        self._coming -= 1
        trial: _Trial | None = None
        while True:
            if self._must_wait():
                await self._wait_in_line()
            self._enter()
            if trial is not None:
                trial.sent += 1
                self._retried()
            try:
                answer = await self._call(row)
            except KonkoError as error:
                failure = error
            except BaseException:
                # Cancelled, for one: there is no outcome that says anything about the server.
                self._pace.gave_up()
                self._leave()
                raise
            else:
                self._answered()
                # The slot is kept until written() is called: an
                # answer in memory counts as in flight.
                return answer
            trial = trial or _Trial()
            trial.attempts += failure.attempts
            verdict = judge(failure, self._max_outage)
            if await self._is_final(trial, failure, verdict):
                failure.attempts = tuple(trial.attempts[-_HISTORY:])
                raise failure
            self._leave()
            await self._back_off(trial, verdict)

    def _answered(self) -> None:
        now = self._loop.time()
        if self._pace.probing:
            self._tell("the server answers again: the run goes on")
        self._good += 1
        self._pace.answered(now)
        for held in self._refused:
            if not held.done():
                held.set_result(None)
        self._refused.clear()

    async def _is_final(self, trial: _Trial, error: KonkoError, verdict: RowVerdict) -> bool:
        """Whether an error is the row's own; else the row is to be sent again.

        Raises:
            BatchError: it is everybody's.
        """
        action = verdict.action
        if action == "end":
            self._end(stopped_by(error, verdict))
        if action == "refused" and not self._good:
            await self._first_refusal(error, verdict)
        if self.ended is not None and action in {"end", "refused"}:
            self._leave()
            raise self.ended.with_traceback(None)
        if action in {"fail", "refused"}:
            self._answered()  # the server is well
            return True
        trial.failures += 1
        if action == "again":
            # The server did answer: what is wrong with the answer is no reason to slow down.
            self._pace.answered(self._loop.time())
            return trial.failures >= (verdict.tries or 1)
        self._note_trouble(error)
        if action == "files":
            self._cut(error)
            return False
        return self._failed(trial, error, verdict)

    async def _first_refusal(self, error: KonkoError, verdict: RowVerdict) -> None:
        """Wait for what the first rows meet: a slip that all share, or an error of one row."""
        self._met = error
        held = self._loop.create_future()
        self._refused.append(held)
        self._verdict = verdict
        self._decide()
        # Nothing of this row is under way, so that a stop may give it back.
        with resting():
            await held

    def _decide(self) -> None:
        waiting = [held for held in self._refused if not held.done()]
        # All that is left of the input is held here: no other row can show what is right.
        alone = self._fed and not self._coming and self._in_flight <= len(waiting)
        if self._met is None or self._verdict is None or not waiting:
            return
        if len(waiting) >= _REFUSALS or (alone and self._fresh):
            self._end(stopped_by(self._met, self._verdict))
        if self.ended is not None or alone:
            for held in waiting:
                if not held.done():
                    held.set_result(None)

    def _cut(self, error: KonkoError) -> None:
        """Send fewer at once: this process cannot open more files."""
        now = self._loop.time()
        if now - self._cut_at < 1.0:  # those that failed together are one sign
            return
        self._cut_at = now
        # A tenth below what was too many: other files are opened too.
        if self._pace.narrow(self._in_flight - 1 - self._in_flight // 10):
            self._notice(
                f"max_concurrency was cut to {self._pace.width}: {error.message} (see `ulimit -n`)"
            )

    def _failed(self, trial: _Trial, error: KonkoError, verdict: RowVerdict) -> bool:
        """Note a failure that passes; whether it shows to be the row's own."""
        now, pace = self._loop.time(), self._pace
        self._bad += 1
        was_probing = pace.probing
        limited = verdict.kind in {"rate_limit", "local_limit"} and (verdict.wait or 0.0) > 0
        if not limited:  # the client's limits see to those: they hold back every call already
            pace.failed(now, random.uniform(1.0, 1.0 + _SPREAD), verdict.wait)  # noqa: S311 - jitter, no secret
        if pace.probing and not was_probing:
            met = " ".join(error.message.split()).rstrip(".")
            self._tell(f"no answer ({met}): the run waits, and sends one call now and then")
        if self._max_attempts is not None and trial.sent >= self._max_attempts:
            return True
        return self._is_alone(trial, now)

    def _note_trouble(self, error: KonkoError) -> None:
        self._met = error
        if self._trouble is None:
            self._trouble = now = self._loop.time()
            self._watch = self._loop.call_later(self._max_outage, self._look, now)

    def _tell(self, text: str) -> None:
        """Say what the server does, unless that changes all the time."""
        now = self._loop.time()
        if now - self._noticed >= _NOTICES:
            self._noticed = now
            self._notice(text)

    def _is_alone(self, trial: _Trial, now: float) -> bool:
        """Whether a row fails alone, beyond chance."""
        if trial.progress == self._good:  # nobody was answered meanwhile: it says nothing
            return False
        if trial.alone == 0:
            trial.began, trial.counts = now, (self._good, self._bad)
        trial.alone += 1
        trial.progress = self._good
        good = self._good - trial.counts[0]
        bad = max(0, self._bad - trial.counts[1] - trial.alone)
        # Laplace's rule of succession: a few good answers among the others do not make the share 0.
        share = (bad + 1) / (good + bad + 2)
        return now - trial.began >= _ALONE_FOR and share**trial.alone < _CHANCE

    def _look(self, since: float) -> None:
        """End the run if nothing was finished for too long, in which the machine was awake."""
        if self._trouble is None or self.ended is not None or self._met is None:
            return
        assert self._watch is not None  # noqa: S101 - it has called this
        late = self._loop.time() - self._watch.when()
        if late > _LATE:
            self._pace.resume(self._loop.time())
            # Time asleep does not count, so the run gets as much again.
            self._watch = self._loop.call_later(min(late, self._max_outage), self._look, since)
            return
        self._end(outage(self._met, self._loop.time() - since))

    def _end(self, problem: BatchError) -> None:
        if self.ended is None:
            self.ended = problem
            self.on_end()

    async def _back_off(self, trial: _Trial, verdict: RowVerdict) -> None:
        """Wait before the next attempt at a row."""
        wait = verdict.wait or 0.0
        if not self._pace.probing:  # then the run waits as a whole
            cap = min(_LONGEST_BACKOFF, self._base_delay * 2.0 ** min(trial.failures - 1, 20))
            wait = max(wait, cap * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        wait *= random.uniform(1.0, 1.0 + _SPREAD)  # noqa: S311 - jitter, no secret
        with resting():
            await asyncio.sleep(wait)
