"""The run itself: rows in, calls, lines out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from konko_async import AsyncKonko, KonkoError, MapResult, MapResults
from konko_async.batch._caller import Answer, Caller, ends_all
from konko_async.batch._crew import Crew
from konko_async.batch._errors import BatchError, BatchOutputError
from konko_async.batch._feed import Feed
from konko_async.batch._journal import Ledger
from konko_async.batch._lines import error_code, failure_line
from konko_async.batch._options import Options
from konko_async.batch._pricing import Prices
from konko_async.batch._progress import Tracker
from konko_async.batch._report import BatchReport, StopReason
from konko_async.batch._rows import Row
from konko_async.batch._spending import Spending

__all__ = ["Run", "Sink"]

_log = logging.getLogger("konko_async")


class Sink(Protocol):
    """Where rows go: a file with its journal, or a pipe."""

    @property
    def ledger(self) -> Ledger:
        """What is in it."""

    def add(
        self,
        index: int,
        line: bytes,
        *,
        failed: bool,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        cost: float | None = None,
    ) -> None:
        """Write a finished row; raises BatchOutputError."""

    async def save_if_due(self, now: float) -> None:
        """Make last what was written, now and then; raises BatchOutputError."""

    async def settle(self) -> None:
        """Wait for what is being written."""

    def save(self) -> None:
        """Make last all that was written; raises BatchOutputError."""


class Run:
    """One run.

    Args:
        client: makes the calls.
        options: of the run.
        store: takes the answers.
        prices: of the models.
        rows: in the input; None if that is not known.

    Attributes:
        feed: what hands out the rows.
    """

    def __init__(
        self,
        client: AsyncKonko,
        options: Options,
        store: Sink,
        prices: Prices,
        *,
        rows: int | None,
    ) -> None:
        ledger = store.ledger
        self._options = options
        self._store = store
        self._prices = prices
        self._resumed = ledger.done
        self._tracker = Tracker(ledger, rows, prices.currency)
        self._spending = Spending(
            ledger, prices, max_cost=options.max_cost, max_tokens=options.max_tokens_total
        )
        self.feed = Feed(options, self._spending)
        self._client = client.with_options(observers=(*client.observers, self._tracker.observe))
        self._stopped: StopReason | None = None
        self._fatal: KonkoError | None = None

    async def run(self, rows: AsyncIterator[Row]) -> BatchReport:
        """Run to the end, or as far as it goes.

        Raises:
            BatchError: it cannot go on; ``.report`` says what was done.
        """
        options = self._options
        if options.workers is None:
            return await self._run(rows, Caller(self._client, max_outage=options.max_outage))
        crew = Crew(
            options.workers,
            self._client,
            max_outage=options.max_outage,
            repeated=self._tracker.repeat,
        )
        async with crew:
            return await self._run(rows, crew)

    async def _run(
        self, rows: AsyncIterator[Row], call: Callable[[Row], Awaitable[Any]]
    ) -> BatchReport:
        # An answer that has not been written counts as in flight: a crash would lose it.
        at_once = self._options.max_concurrency
        results = MapResults.over(call, rows, max_concurrency=at_once, window=at_once)
        ticker = asyncio.create_task(self._tick(results))
        unlisten = self._options.stop.listen(lambda level: self._on_stop(results, level))
        problem: BatchError | None = None
        try:
            async for result in results:
                await self._take(results, result)
        except BatchError as error:
            problem = error
        finally:
            unlisten()
            ticker.cancel()
            try:
                await results.aclose()
                await asyncio.wait([ticker])
            finally:
                problem = await self._finish() or problem
            self._tell(0)
        if problem is None and self._fatal is not None:
            problem = _ended(self._fatal)
        report = self._report()
        if problem is not None:
            problem.report = report
            raise problem
        return report

    async def _take(self, results: MapResults[Any], result: MapResult[Any]) -> None:
        """Write what became of a row, unless its error is not its own."""
        row: Row = result.request
        error = result.error
        if error is None:
            # Made into a line here, not in the call's task: so its memory is used again at once.
            found = result.completion
            self._write(row, found if type(found) is Answer else Answer.of(row, found))
        elif ends_all(error):
            self._fatal = self._fatal or error
            results.stop()
        else:
            self._store.add(row.index, failure_line(row, error), failed=True)
            self._tracker.failed(error_code(error))
        if self._spending.active:
            self._spending.settle(row)
        await self._store.save_if_due(asyncio.get_running_loop().time())

    def _write(self, row: Row, answer: Answer) -> None:
        cost = None
        if answer.told:
            cost = self._prices.cost(
                row.body["model"], answer.prompt_tokens, answer.completion_tokens
            )
        self._store.add(
            row.index,
            answer.line,
            failed=False,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            cost=cost,
        )

    def _on_stop(self, results: MapResults[Any], level: int) -> None:
        self._tracker.stopping = True
        if level > 1:
            self._stopped = "cancelled"
            results.cancel()
        else:
            self._stopped = "stopped"
            results.stop()

    async def _tick(self, results: MapResults[Any]) -> None:
        """Tell of the progress, and checkpoint what waits while no row ends."""
        options, loop = self._options, asyncio.get_running_loop()
        while True:
            self._tell(results.in_flight)
            await asyncio.sleep(options.progress_interval)
            try:
                await self._store.save_if_due(loop.time())
            except BatchOutputError:
                results.cancel()  # answers could not be kept: none is waited for
                return

    def _tell(self, in_flight: int) -> None:
        tracker, tell = self._tracker, self._options.on_progress
        tracker.in_flight = in_flight
        if tell is None:
            tracker.sample()
            return
        try:
            tell(tracker.progress())
        except Exception:  # noqa: BLE001 - who watches must not break the run
            _log.exception("on_progress failed")

    async def _finish(self) -> BatchError | None:
        """Write the last checkpoint; returns why that cannot be done."""
        await self._store.settle()
        try:
            self._store.save()
        except BatchOutputError as error:
            return error
        return None

    def _report(self) -> BatchReport:
        self._tracker.rows = self._tracker.rows or self.feed.rows
        return BatchReport.of(
            self._tracker.progress(),
            paths=(self._options.input, self._options.output),
            resumed=self._resumed,
            stopped=self._stopped or self.feed.stopped,
        )


def _ended(error: KonkoError) -> BatchError:
    if isinstance(error, BatchError):
        return error
    problem = BatchError(
        f"the run was ended, as all rows would fail: {error.message} "
        "(rows that met this error are not in the output; the next run does them)"
    )
    problem.attempts = error.attempts
    problem.__cause__ = error
    return problem
