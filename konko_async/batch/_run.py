"""Runs a batch: rows in, calls, lines out."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from konko_async import AsyncKonko, MapResult, MapResults, RetryPolicy, Timeout
from konko_async.batch._calls.caller import AnsweredRow, CallSettings, RowCaller
from konko_async.batch._calls.dispatch import Dispatcher
from konko_async.batch._calls.open_files import connections_that_fit
from konko_async.batch._errors import BatchError, BatchOutputError, BatchStoppedError
from konko_async.batch._input.row_parser import Row
from konko_async.batch._options import Options
from konko_async.batch._output.record import RowSink, RunRecord
from konko_async.batch._pricing import Prices
from konko_async.batch._progress import Tracker
from konko_async.batch._report import BatchReport
from konko_async.batch._row_feed import RowFeed
from konko_async.batch._spending import Spending
from konko_async.batch._steps.book import StepBook
from konko_async.batch._steps.caller import StepCaller
from konko_async.batch._steps.plan import StepPlan
from konko_async.batch._workers.pool import WorkerPool

__all__ = ["BatchRun"]

_FIRST_TOKEN = 600.0  # seconds, as the openai package waits


class BatchRun:
    """One run.

    Args:
        client: makes the calls.
        options: of the run.
        store: takes the answers.
        prices: of the models.
        rows: in the input; None if that is not known.

    Attributes:
        feed: yields the rows to be sent.
    """

    def __init__(
        self,
        client: AsyncKonko,
        options: Options,
        store: RowSink,
        prices: Prices,
        *,
        rows: int | None,
    ) -> None:
        self._options = options
        self._store = store
        self._record = RunRecord(options, store, prices, rows=rows)
        self._tracker = self._record.tracker
        self._spending = Spending(
            store.ledger, prices, max_cost=options.max_cost, max_tokens=options.max_tokens_total
        )
        self.feed = RowFeed(options, self._spending)
        self._client = _for_rows(client, self._tracker)
        self._base_delay = (client.retry or RetryPolicy()).base_delay

    async def run(self, rows: AsyncIterator[Row]) -> BatchReport:
        """Run to the end, or as far as it goes.

        Raises:
            BatchError: it cannot go on; ``.report`` says what was done.
        """
        # A name of this run for its idempotency keys: a row that a later run does again is a new
        # request, not a repetition for which the server may replay its answer.
        options = self._options
        settings = CallSettings(secrets.token_hex(8), options.fail_on, options.typed)
        if options.plan is not None:
            return await self._run_steps(rows, RowCaller(self._client, settings), options.plan)
        if options.workers is None:
            return await self._run(rows, RowCaller(self._client, settings))
        pool = WorkerPool(
            options.workers, self._client, settings=settings, repeated=self._tracker.repeat
        )
        async with pool:
            return await self._run(rows, pool)

    async def _run_steps(
        self, rows: AsyncIterator[Row], call: RowCaller, plan: StepPlan
    ) -> BatchReport:
        options, journal = self._options, getattr(self._store, "journal", None)
        header = None if journal is None else journal.header
        output = None if header is None else options.output
        fingerprint = "" if header is None else header.fingerprint
        book = StepBook(output, fingerprint, self._store.ledger, options.files)
        left: int | None = None
        try:
            report = await self._run(rows, StepCaller(call, plan, book, options.typed))
            left = report.left
        finally:
            book.close(remove=left == 0)
        return report

    def _dispatcher(self, call: Callable[[Row], Awaitable[Any]]) -> Dispatcher:
        options = self._options
        processes = 1 if options.workers is None else options.workers.count
        wanted = options.max_concurrency
        # The limit of open files holds for each process; workers
        # share the calls evenly, rounded up.
        width = min(wanted, processes * connections_that_fit(-(-wanted // processes)))
        if width < wanted:
            options.notice(
                f"max_concurrency was cut from {wanted} to {width}: this process may open no more "
                "files (see `ulimit -n`)"
            )
        return Dispatcher(
            call,
            width=width,
            max_outage=options.max_outage,
            max_attempts=options.max_attempts,
            base_delay=self._base_delay,
            # No row was ever answered: what the first rows meet
            # may be a slip that all of them share.
            fresh=self._store.ledger.done == self._store.ledger.failed,
            notice=options.notice,
            retried=self._tracker.retry,
        )

    async def _run(
        self, rows: AsyncIterator[Row], call: Callable[[Row], Awaitable[Any]]
    ) -> BatchReport:
        calls = self._dispatcher(call)
        # Beside the rows in flight there is room for those that wait for their next attempt.
        at_once = self._options.max_concurrency + calls.spare
        results = MapResults.over(calls, calls.paced(rows), max_concurrency=at_once, window=at_once)
        # Set afterwards, as each of the two needs the other.
        calls.on_end = results.stop
        ticker = asyncio.create_task(self._tick(results, calls))
        # Calls back at once if the stop was requested before the run began.
        unlisten = self._options.stop.listen(lambda level: self._on_stop(results, level))
        problem: BatchError | None = None
        try:
            async for result in results:
                await self._take(result, calls)
                if self._record.goes_wrong():
                    results.stop()
        except BatchError as error:
            problem = error
        finally:
            # A later stop must not reach results that are being closed.
            unlisten()
            ticker.cancel()
            calls.close()
            # Closing may fail or be cancelled: the last checkpoint is written all the same.
            try:
                await results.aclose()
                await asyncio.wait([ticker])
            finally:
                # An output that cannot be written is reported before whatever else ended the run.
                problem = await self._record.finish() or problem
            self._record.tell(0)
        problem = problem or calls.ended
        if isinstance(problem, BatchStoppedError):
            self._record.stopped = self._record.stopped or "ended"
        # A pipe's number of rows is known only once its end was seen.
        report = self._record.report(stopped=self.feed.stopped, rows=self.feed.rows)
        if problem is not None:
            problem.report = report
            raise problem
        return report

    async def _take(self, result: MapResult[Any], calls: Dispatcher) -> None:
        """Write what became of a row, unless its error is not its own."""
        row: Row = result.request
        error = result.error
        # A BatchError is that of the run: its row is not written, so that the next run does it.
        if not isinstance(error, BatchError):
            if error is None:
                # Made into a line here, not in the call's task: its memory is used again at once.
                found = result.completion
                answer = found if type(found) is AnsweredRow else AnsweredRow.of(row, found)
                self._record.write(row, answer)
            else:
                self._record.write_failure(row, error)
            if self._record.observed:
                await self._record.tell_rows()
            # Only now is the row's slot free: a slow disk holds the calls
            # back, instead of piling up answers.
            calls.written()
        # After the write: what the row used is in the ledger,
        # so that it is never counted as unspent.
        if self._spending.active:
            self._spending.settle(row)
        await self._store.save_if_due(asyncio.get_running_loop().time())

    def _on_stop(self, results: MapResults[Any], level: int) -> None:
        self._tracker.stopping = True
        if level > 1:
            self._record.stopped = "cancelled"
            results.cancel()
        else:
            self._record.stopped = "stopped"
            results.stop()

    async def _tick(self, results: MapResults[Any], calls: Dispatcher) -> None:
        """Report the progress, and checkpoint what waits while no row ends."""
        options, loop = self._options, asyncio.get_running_loop()
        while True:
            self._record.tell(calls.in_flight)
            await asyncio.sleep(options.progress_interval)
            try:
                await self._store.save_if_due(loop.time())
            except BatchOutputError:
                results.cancel()  # answers could not be kept: none is waited for
                return


def _for_rows(client: AsyncKonko, tracker: Tracker) -> AsyncKonko:
    """Return a copy of the client that makes one attempt at a time.

    A run has its own discipline for all of its rows: retries with a budget, and a circuit breaker,
    which are made for interactive calls, would fail rows that have time.
    """
    retry = client.retry
    if not client.fallback_models:  # they come after all attempts at the first, or its circuit
        client = client.with_options(circuit_breaker=None)
        # With several endpoints the further attempts go elsewhere, at once.
        if retry is not None and len(client.endpoints) < 2:  # noqa: PLR2004 - there is another
            retry = msgspec.structs.replace(retry, max_attempts=1)
    if retry is not None:
        retry = msgspec.structs.replace(retry, budget_ratio=None)
    timeout = client.timeout
    # A value that the user has set stays.
    if timeout.first_token == Timeout().first_token:
        # Whole answers come with their first token: those of slow models take minutes.
        timeout = msgspec.structs.replace(timeout, first_token=_FIRST_TOKEN)
    return client.with_options(observers=(*client.observers, tracker), retry=retry, timeout=timeout)
