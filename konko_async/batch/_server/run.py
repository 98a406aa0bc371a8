"""Runs a batch on the server: rows cut into files, submitted as jobs, looked at, and merged."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from konko_async import AsyncKonko, Batch, KonkoError
from konko_async.batch._calls.caller import AnsweredRow
from konko_async.batch._calls.verdict import judge, stopped_by
from konko_async.batch._errors import (
    BatchChangedError,
    BatchError,
    BatchInputError,
    BatchOutputError,
    BatchStoppedError,
)
from konko_async.batch._input.open import Input
from konko_async.batch._input.row_parser import Row, RowError
from konko_async.batch._options import Options
from konko_async.batch._output.record import RunRecord
from konko_async.batch._output.store import OutputStore
from konko_async.batch._pricing import Prices
from konko_async.batch._report import BatchReport
from konko_async.batch._row_feed import RowFeed
from konko_async.batch._server.api import ServerCalls
from konko_async.batch._server.jobs import Job, JobBook
from konko_async.batch._server.parts import Part, PartWriters, RowTooLargeError, server_id
from konko_async.batch._server.results import UnansweredRowError, answer_of, read_results
from konko_async.batch._server.settings import ServerSide
from konko_async.batch._spending import Spending
from konko_async.batch._wait_for_stop import RunStopped, aside, until_stopped

__all__ = ["ServerRun"]

_SLICE: Final = 200  # rows that are merged, or cut, before other tasks may run
_GROWTH: Final = 1.5
_IN_JOB: Final = 9  # a row's state while a job has it
_ROW_PROBLEMS: Final = 20  # lines of a refused file that an error names


class ServerRun:
    """One run on the server.

    Args:
        client: makes the calls.
        options: of the run.
        settings: of the jobs.
        store: takes the rows.
        prices: of the models, as the server asks them of jobs.
        found: the input.
        rows: how many it has.

    Attributes:
        live: whether rows are left for calls of this process.
    """

    def __init__(
        self,
        client: AsyncKonko,
        options: Options,
        settings: ServerSide,
        store: OutputStore,
        prices: Prices,
        *,
        found: Input,
        rows: int,
    ) -> None:
        self._options = options
        self._settings = settings
        self._store = store
        self._found = found
        self._rows = rows
        self._record = RunRecord(options, store, prices, rows=options.own_rows(rows))
        self._spending = Spending(
            store.ledger,
            prices,
            max_cost=options.max_cost,
            max_tokens=options.max_tokens_total,
            waits=False,
        )
        self._feed = RowFeed(options, self._spending)
        self._calls = ServerCalls(client, options, settings)
        self._book = JobBook(options.output, options.files)
        self._again = array("I")  # rows that are to be submitted again
        self._tries: dict[int, int] = {}  # of rows that failed for a reason that passes
        self._fatal: BatchError | None = None
        self.live = False

    # -- the run ---------------------------------------------------------------------------------

    async def run(self) -> BatchReport:
        """Run to the end, or as far as it goes.

        Raises:
            BatchError: it cannot go on; ``.report`` says what was done.
        """
        ticker = asyncio.create_task(self._tick())
        problem: BatchError | None = None
        try:
            await until_stopped(self._work(), self._options.stop)
        except RunStopped:
            self._record.stopped = self._record.stopped or "stopped"
        except BatchError as error:
            problem = error
        finally:
            ticker.cancel()
            await asyncio.wait([ticker])
            problem = await self._record.finish() or problem
            left = self._in_jobs
            open_jobs = len(self._book.open)
            self._book.close()
        if open_jobs:
            self._options.notice(
                f"{_jobs(open_jobs)} with {left} rows go on at the server: the same command takes "
                "their answers, and server_side=ServerSide(cancel=True) cancels them"
            )
        self._record.tell(0)
        if isinstance(problem, BatchStoppedError):
            self._record.stopped = self._record.stopped or "ended"
        self.live = problem is None and self._record.stopped is None and self._settings.then_live
        report = self._record.report(stopped=self._feed.stopped)
        if problem is not None:
            problem.report = report
            raise problem
        return report

    @property
    def _in_jobs(self) -> int:
        return sum(job.size for job in self._book.open.values())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._record.tell(self._in_jobs)
            await asyncio.sleep(self._options.progress_interval)
            with suppress(BatchOutputError):  # the next row that is written meets it too
                await self._store.save_if_due(loop.time())

    async def _work(self) -> None:
        if not self._found.places:  # rows are read by their numbers when their answers come
            await aside(lambda _tick: self._found.source.index(), self._options.stop)
        await self._take_up()
        if self._settings.cancel:
            await self._cancel()
            return
        rows = self._feed.from_file(self._found, self._mask())
        while True:
            before = self._store.ledger.done
            await self._submit(rows)
            while self._book.open:
                await self._wait()
            done = self._store.ledger.done
            if not self._again or self._record.stopped is not None:
                return
            if done == before:
                raise BatchStoppedError(
                    f"the run was ended: {len(self._again)} rows were submitted, and not one of "
                    "them was answered before its job ended. Run the same command again later, or "
                    "without server_side= (then_live=True answers such rows by calls)",
                    reason="outage",
                )
            self._options.notice(f"{len(self._again)} rows are submitted again")
            again, self._again = self._again, array("I")
            rows = self._read_again(again)

    async def _take_up(self) -> None:
        """Take up the jobs of earlier runs."""
        book, header = self._book, self._store.journal.header
        fingerprint = "" if header is None else header.fingerprint
        if book.fingerprint not in {None, fingerprint} and book.open:
            if not self._settings.cancel:
                raise BatchChangedError(
                    f"{_jobs(len(book.open))} at the server were made of another input, prompt, "
                    "model or parameters: run the same command with those to take their answers, "
                    "or cancel them (server_side=ServerSide(cancel=True))"
                )
            await self._drop(list(book.open.values()))
        if book.fingerprint != fingerprint:
            book.begin(fingerprint)
        for job in list(book.open.values()):
            if job.file is None:
                # Nothing was requested yet: its rows are cut into a file anew.
                book.end(job)
        if book.open:
            self._options.notice(
                f"{_jobs(len(book.open))} of earlier runs with {self._in_jobs} rows are taken up"
            )
        for job in list(book.open.values()):
            self._reserve(job)
            if job.batch is None:
                book.submitted(job, (await self._calls.submit(job, maybe=True)).id)

    def _reserve(self, job: Job) -> None:
        if self._spending.active:
            for index in job.indexes():
                if not self._store.ledger.state(index):
                    self._spending.take(self._row(index))

    def _mask(self) -> bytearray:
        """Return the states of the rows, with those that jobs have."""
        mask = bytearray(self._store.ledger.states)
        mask.extend(bytes(max(0, self._rows - len(mask))))
        for job in self._book.open.values():
            for index in job.indexes():
                mask[index] = mask[index] or _IN_JOB
        return mask

    def _row(self, index: int) -> Row:
        try:
            return self._found.reader.read(self._found.source.at(index), index)
        except (RowError, OSError, IndexError) as error:
            problem = f"{self._found.shown}: the input was changed during the run ({error})"
        raise BatchInputError(problem)

    async def _read_again(self, indexes: array[int]) -> AsyncIterator[Row]:
        for index in indexes:
            yield self._row(index)

    # -- submitting ------------------------------------------------------------------------------

    async def _submit(self, rows: AsyncIterator[Row]) -> None:
        """Cut rows into files, and submit each as soon as it is full."""
        writers = PartWriters(self._options.output, self._settings, self._options.files)
        count = 0
        try:
            async for row in rows:
                try:
                    full = writers.add(row)
                except RowTooLargeError as error:
                    self._record.write_failure(row, error)
                    continue
                if full is not None:
                    await self._begin(full)
                count += 1
                if count % _SLICE == 0:
                    await asyncio.sleep(0)
            while (part := writers.rest()) is not None:
                await self._begin(part)
        finally:
            writers.close()

    async def _begin(self, part: Part) -> None:
        most = self._settings.max_jobs
        try:
            while most is not None and len(self._book.open) >= most:
                await self._wait()
            job = self._book.add(part.url, part.rows)
            self._book.uploaded(job, await self._calls.upload(part))
        finally:
            part.remove()
        batch = await self._calls.submit(job)
        self._book.submitted(job, batch.id)
        self._options.notice(f"job {job.number}: {job.size} rows submitted ({batch.id})")

    # -- waiting ---------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Look at the jobs, less and less often, until one has ended, and merge it."""
        pause = self._settings.first_poll
        while True:
            ended = False
            for job in list(self._book.open.values()):
                if job.batch is None:
                    continue  # it is being submitted
                batch = await self._calls.look(job.batch)
                if batch.ended:
                    await self._merge(job, batch)
                    ended = True
            if ended:
                return
            await asyncio.sleep(pause)
            pause = min(pause * _GROWTH, max(self._settings.longest_poll, pause))

    async def _cancel(self) -> None:
        jobs = list(self._book.open.values())
        for job in jobs:
            if job.batch is not None:
                await self._calls.cancel(job.batch)
        while self._book.open:
            await self._wait()
        self._again = array("I")
        self._options.notice(f"{_jobs(len(jobs))} cancelled")
        self._record.stopped = "jobs_cancelled"

    async def _drop(self, jobs: list[Job]) -> None:
        """Cancel jobs of another input; what they have answered is of no use."""
        for job in jobs:
            if job.batch is not None:
                await self._calls.cancel(job.batch)
            self._book.end(job)
        self._options.notice(
            f"{_jobs(len(jobs))} of another input cancelled, and their answers left"
        )

    # -- merging ---------------------------------------------------------------------------------

    async def _merge(self, job: Job, batch: Batch) -> None:
        """Write what a job has brought; what is in the output already is left out."""
        pending = {i for i in job.indexes() if not self._store.ledger.state(i)}
        before, path = self._store.ledger.done, f"{self._options.output}.results"
        try:
            for file_id in (batch.output_file_id, batch.error_file_id):
                if file_id is not None:
                    await self._calls.download(file_id, path)
                    await self._merge_file(path, pending)
        finally:
            _remove(path)
        if batch.status == "failed":
            self._refused(batch, job, pending)
        # Rows in neither file, too: whatever the reason is, they were not answered.
        self._again.extend(sorted(pending))
        # First the rows are on the disk, then it is written down that the job is over.
        await self._store.settle()
        self._store.save()
        self._book.end(job)
        self._options.notice(
            f"job {job.number}: {batch.status}, {self._store.ledger.done - before} rows written"
            + (f", {len(pending)} not answered" if pending else "")
        )
        if self._settings.delete_files:
            await self._calls.forget(job.file, batch.output_file_id, batch.error_file_id)
        self._look_at_failures()

    def _look_at_failures(self) -> None:
        if self._settings.then_live:
            self._again = array("I")
        if self._fatal is not None:
            raise self._fatal
        if self._record.goes_wrong():
            raise RunStopped

    async def _merge_file(self, path: str, pending: set[int]) -> None:
        loop = asyncio.get_running_loop()
        for count, found in enumerate(read_results(path, self._options.files)):
            if count % _SLICE == 0:
                await self._store.save_if_due(loop.time())
                await asyncio.sleep(0)
            if found is None or found[1] not in pending:
                continue  # written before a kill, or a line of no row of this job
            key, index, line = found
            row = self._row(index)
            if server_id(row) != f"{key}-{index}":
                continue
            try:
                answer = answer_of(row, line, self._options.fail_on, self._options.typed)
            except KonkoError as error:
                if not self._failed(row, error):
                    continue
            else:
                self._record.write(row, AnsweredRow.of(row, answer))
            pending.discard(index)
            self._spending.settle(row)
            await self._record.tell_rows()

    def _failed(self, row: Row, error: KonkoError) -> bool:
        """Write a row as failed, unless it may be answered yet; whether it was written."""
        if isinstance(error, UnansweredRowError):
            return False
        verdict = judge(error, self._options.max_outage)
        if verdict.action == "end":
            # No credit, a wrong key: the row's answer is to come, once that is mended.
            self._fatal = stopped_by(error, verdict)
            return False
        if verdict.action not in {"fail", "refused"}:
            tries = self._tries[row.index] = self._tries.get(row.index, 0) + 1
            if tries < self._most_tries or self._settings.then_live:
                return False
        self._record.write_failure(row, error)
        self._tries.pop(row.index, None)
        return True

    @property
    def _most_tries(self) -> int:
        return self._options.max_attempts or self._settings.max_tries

    def _refused(self, batch: Batch, job: Job, pending: set[int]) -> None:
        """Look at why the server refused a whole file: single rows of it, or all of it."""
        problems = [] if batch.errors is None else (batch.errors.data or [])
        order = list(job.indexes())
        named = 0
        for problem in problems:
            if problem.line is None or not 1 <= problem.line <= len(order):
                continue
            named += 1
            index = order[problem.line - 1]
            if index in pending:
                row = self._row(index)
                text = problem.message or "the server refuses this row"
                self._record.write_failure(row, KonkoError(text[:500]))
                pending.discard(index)
                self._spending.settle(row)
        if named:
            return
        texts = [problem.message or problem.code or "" for problem in problems[:_ROW_PROBLEMS]]
        codes = {problem.code for problem in problems}
        if "token_limit_exceeded" in codes and len(self._book.open) > 1:
            return  # there is room for it when another job has ended
        self._fatal = BatchStoppedError(
            f"the server refuses the file of job {job.number}: {'; '.join(filter(None, texts))}. "
            "Correct that (smaller files: rows_per_file=), then run the same command again: no "
            "row was lost or written as failed for it",
            reason="refused",
        )


def _remove(path: str) -> None:
    with suppress(OSError):
        Path(path).unlink()


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"
