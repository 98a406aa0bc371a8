"""The run itself: rows in, calls, lines out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

from konko_async import AsyncKonko, KonkoError, MapResult, MapResults
from konko_async.batch._caller import Caller, client_observers, ends_all
from konko_async.batch._errors import BatchError, BatchInputError, BatchOutputError
from konko_async.batch._lines import error_code, failure_line, success_line
from konko_async.batch._options import Options
from konko_async.batch._order import shuffled
from konko_async.batch._pricing import Prices
from konko_async.batch._progress import Tracker
from konko_async.batch._report import BatchReport, StopReason
from konko_async.batch._rows import Row
from konko_async.batch._setup import Input
from konko_async.batch._spending import Spending
from konko_async.batch._splitter import Piece
from konko_async.batch._store import Store

__all__ = ["Run"]

_log = logging.getLogger("konko_async")
_SKIPPED = 2000  # finished rows passed over before other tasks have a turn


class Run:
    """One run over one input.

    Args:
        client: makes the calls.
        options: of the run.
        found: the input.
        store: the output, taken up.
        prices: of the models.
    """

    def __init__(
        self, client: AsyncKonko, options: Options, found: Input, store: Store, prices: Prices
    ) -> None:
        checked = store.journal.checked
        self._options = options
        self._input = found
        self._store = store
        self._prices = prices
        self._resumed = store.ledger.done
        self._tracker = Tracker(
            store.ledger, None if checked is None else checked.rows, prices.currency
        )
        self._spending = Spending(
            store.ledger,
            prices,
            max_cost=options.max_cost,
            max_tokens=options.max_tokens_total,
        )
        observers = (*client_observers(client), self._tracker.observe)
        caller = Caller(client.with_options(observers=observers), max_outage=options.max_outage)
        self._results: MapResults[Any] = MapResults.over(
            caller, self._rows(), max_concurrency=options.max_concurrency
        )
        self._stopped: StopReason | None = None
        self._fatal: KonkoError | None = None

    # -- the rows --------------------------------------------------------------------------------

    async def _rows(self) -> AsyncIterator[Row]:
        """The rows that are left to do, as far as the limits go."""
        begun, limit = 0, self._options.limit
        source, reader = self._input.source, self._input.reader
        for passed, (index, piece) in enumerate(self._pieces()):
            if self._store.ledger.state(index):
                if passed % _SKIPPED == 0:
                    await asyncio.sleep(0)
                continue
            if begun == limit:
                self._stopped = self._stopped or "limit"
                return
            row = reader.read(piece, index)
            if self._spending.active:
                reason = await self._spending.reserve(row)
                if reason is not None:
                    self._stopped = self._stopped or reason
                    return
            begun += 1
            yield row
        if source.changed():
            raise BatchInputError(f"{self._input.shown}: the input was changed during the run")

    def _pieces(self) -> Iterator[tuple[int, Piece]]:
        source, shuffle = self._input.source, self._options.shuffle
        if shuffle is False:
            yield from enumerate(source.pieces())
            return
        for index in shuffled(source.index(_nothing), int(shuffle)):
            if not self._store.ledger.state(index):
                yield index, source.at(index)

    # -- the run ---------------------------------------------------------------------------------

    async def run(self) -> BatchReport:
        """Run to the end, or as far as it goes.

        Raises:
            BatchError: it cannot go on; ``.report`` says what was done.
        """
        ticker = asyncio.create_task(self._tick())
        unlisten = self._options.stop.listen(self._on_stop)
        problem: BatchError | None = None
        try:
            async for result in self._results:
                await self._take(result)
        except BatchError as error:
            problem = error
        finally:
            unlisten()
            await self._results.aclose()
            ticker.cancel()
            await asyncio.wait([ticker])
            problem = await self._finish() or problem
        if problem is None and self._fatal is not None:
            problem = _ended(self._fatal)
        report = self._report()
        if problem is not None:
            problem.report = report
            raise problem
        return report

    async def _take(self, result: MapResult[Any]) -> None:
        """Write what became of a row, unless its error is not its own."""
        row: Row = result.request
        error = result.error
        if error is None:
            self._write(row, result.completion)
        elif ends_all(error):
            self._fatal = self._fatal or error
            self._results.stop()
        else:
            self._store.add(row.index, failure_line(row, error), failed=True)
            self._tracker.failed(error_code(error))
        self._spending.settle(row)
        await self._store.save_if_due(asyncio.get_running_loop().time())

    def _write(self, row: Row, completion: Any) -> None:
        usage = completion.usage
        prompt = answer = 0
        cost = None
        if usage is not None:
            prompt = usage.prompt_tokens
            answer = getattr(usage, "completion_tokens", 0)
            cost = self._prices.cost(row.body["model"], prompt, answer)
        self._store.add(
            row.index,
            success_line(row, completion),
            failed=False,
            prompt_tokens=prompt,
            completion_tokens=answer,
            cost=cost,
        )

    def _on_stop(self, level: int) -> None:
        self._tracker.stopping = True
        if level > 1:
            self._stopped = "cancelled"
            self._results.cancel()
        else:
            self._stopped = self._stopped or "stopped"
            self._results.stop()

    async def _tick(self) -> None:
        """Tell of the progress, and checkpoint what waits while no row ends."""
        options, loop = self._options, asyncio.get_running_loop()
        while True:
            self._tell()
            await asyncio.sleep(options.progress_interval)
            try:
                await self._store.save_if_due(loop.time())
            except BatchOutputError:
                self._results.cancel()  # answers could not be kept: none is waited for
                return

    def _tell(self) -> None:
        tracker, tell = self._tracker, self._options.on_progress
        tracker.in_flight = self._results.in_flight
        if tell is None:
            tracker.sample()
            return
        try:
            tell(tracker.progress())
        except Exception:  # noqa: BLE001 - who watches must not break the run
            _log.exception("on_progress failed")

    async def _finish(self) -> BatchError | None:
        """Write the last checkpoint; returns why that cannot be done."""
        store = self._store
        await store.settle()
        try:
            store.save()
        except BatchOutputError as error:
            return error
        return None

    def _report(self) -> BatchReport:
        self._tell()
        return BatchReport.of(
            self._tracker.progress(),
            paths=(self._options.input, self._options.output),
            resumed=self._resumed,
            stopped=self._stopped,
        )


def _ended(error: KonkoError) -> BatchError:
    problem = BatchError(
        f"the run was ended, as all rows would fail: {error.message} "
        "(rows that met this error are not in the output; the next run does them)"
    )
    problem.attempts = error.attempts
    problem.__cause__ = error
    return problem


def _nothing() -> None:
    """There is nothing to do at a tick."""
