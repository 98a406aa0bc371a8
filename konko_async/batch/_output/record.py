"""What a run records: rows that are written, counts, progress, and the report at its end."""

from __future__ import annotations

import logging
from typing import Protocol

from konko_async import KonkoError
from konko_async.batch._calls.caller import AnsweredRow
from konko_async.batch._errors import AnswerError, BatchError, BatchOutputError
from konko_async.batch._input.row_parser import Row
from konko_async.batch._options import Options
from konko_async.batch._output.answers import Used, read_usage
from konko_async.batch._output.ledger import Ledger
from konko_async.batch._output.result_lines import error_code, failure_line
from konko_async.batch._output.row_results import RowObserver
from konko_async.batch._pricing import Prices
from konko_async.batch._progress import Tracker
from konko_async.batch._report import BatchReport, StopReason

__all__ = ["RowSink", "RunRecord"]

_log = logging.getLogger("konko_async")


class RowSink(Protocol):
    """Where rows go: a file with its journal, or a pipe."""

    @property
    def ledger(self) -> Ledger:
        """What has been written to it."""

    def add(
        self,
        index: int,
        line: bytes,
        *,
        failed: bool,
        used: Used | None = None,
    ) -> None:
        """Write a finished row; raises BatchOutputError."""

    async def save_if_due(self, now: float) -> None:
        """Write a checkpoint if one is due; raises BatchOutputError."""

    async def settle(self) -> None:
        """Wait for a checkpoint that is being written."""

    def save(self) -> None:
        """Write a checkpoint of all rows so far; raises BatchOutputError."""


class RunRecord:
    """Writes the rows of one run, however they are answered, and counts them.

    Args:
        options: of the run.
        store: takes the rows.
        prices: of the models.
        rows: in the input; None if that is not known.

    Attributes:
        store: takes the rows.
        tracker: counts.
        resumed: rows that earlier runs had done.
        stopped: why the run ends early; None while it does not.
        observed: whether rows are handed to ``on_row``.
    """

    def __init__(
        self, options: Options, store: RowSink, prices: Prices, *, rows: int | None
    ) -> None:
        self._options = options
        self._prices = prices
        self.store = store
        self.resumed = store.ledger.done
        self.tracker = Tracker(store.ledger, rows, prices.currency)
        self.stopped: StopReason | None = None
        self._failed = self._in_a_row = 0  # rows of this run
        self._observer = None if options.on_row is None else RowObserver(options.on_row)
        self.observed = self._observer is not None

    def write(self, row: Row, answer: AnsweredRow) -> None:
        """Write the answer to a row; raises BatchOutputError."""
        used = answer.used
        if used.reported:
            used.cost = self._prices.cost(row.body["model"], used)
        self.store.add(row.index, answer.line, failed=False, used=used)
        if self._observer is not None:
            self._observer.add(row, answer.line)
        self._in_a_row = 0

    def write_failure(self, row: Row, error: KonkoError) -> None:
        """Write a row as failed; raises BatchOutputError."""
        used = Used()
        if isinstance(error, AnswerError):  # it has to be paid for
            used = read_usage(error.usage)
            if used.reported:
                used.cost = self._prices.cost(row.body["model"], used)
        line = failure_line(row, error)
        self.store.add(row.index, line, failed=True, used=used)
        if self._observer is not None:
            self._observer.add(row, line)
        self.tracker.failed(error_code(error))
        self._failed += 1
        self._in_a_row += 1

    async def tell_rows(self) -> None:
        """Hand the rows that were just written to ``on_row``; raises BatchError."""
        if self._observer is not None:
            await self._observer.tell()

    def goes_wrong(self) -> bool:
        """Whether more rows have failed than the options allow; then the run is to end."""
        options, most = self._options, self._options.max_failures_in_a_row
        if not self._failed or self.stopped is not None:
            return False
        finished = self.store.ledger.done - self.resumed
        too_many = self._failed > options.failures_allowed(finished)
        if not too_many and (most is None or self._in_a_row < most):
            return False
        self.stopped = "max_failures"
        what = f"{self._failed} of {finished} rows failed"
        if not too_many:
            what = f"{self._in_a_row} rows failed one after another"
        errors = ", ".join(f"{kind} {count}" for kind, count in self.tracker.errors.items())
        options.notice(f"the run is ended: {what} ({errors})")
        return True

    def tell(self, in_flight: int) -> None:
        """Report the progress, with so many rows in flight."""
        tracker, report = self.tracker, self._options.on_progress
        tracker.in_flight = in_flight
        if report is None:
            tracker.sample()
            return
        try:
            report(tracker.progress())
        except Exception:  # noqa: BLE001 - an observer must not break the run
            _log.exception("on_progress failed")

    async def finish(self) -> BatchError | None:
        """Write the last checkpoint; returns why that cannot be done."""
        # A checkpoint may still be under way in a thread, and save() appends to the same journal.
        await self.store.settle()
        try:
            self.store.save()
        except BatchOutputError as error:
            return error
        return None

    def report(self, *, stopped: StopReason | None, rows: int | None = None) -> BatchReport:
        """Return what was done.

        Args:
            stopped: the limit that was reached, if nothing else has ended the run.
            rows: of a pipe, whose number is known once its end was seen.
        """
        self.tracker.rows = self.tracker.rows or rows
        return BatchReport.of(
            self.tracker.progress(),
            paths=(self._options.input, self._options.output),
            resumed=self.resumed,
            stopped=self.stopped or stopped,
        )
