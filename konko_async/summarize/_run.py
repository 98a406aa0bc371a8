"""``summarize``: rounds of batches until each document has one summary."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from konko_async import AsyncKonko
from konko_async.batch import BatchError, BatchOutputError, BatchReport, Progress, Stop, run_batch
from konko_async.documents import Document, DocumentError
from konko_async.summarize._merge import merge_reports, no_report
from konko_async.summarize._plan import (
    Answer,
    Entry,
    Request,
    advance,
    enter,
    first_requests,
    rough_rest,
)
from konko_async.summarize._style import Style
from konko_async.summarize._summary import SummaryReport
from konko_async.summarize._workspace import Workspace
from konko_async.summarize._write import OutputFormat, write_summaries

__all__ = ["summarize"]

T = TypeVar("T")
_Planner = Callable[[Callable[[], None]], Iterator[Request]]
Documents = Callable[[], Iterable[Document | DocumentError]]


class _Stopped(Exception):  # noqa: N818 - no error: the user asked for it
    """The user asked to stop while the documents were read."""


async def summarize(
    client: AsyncKonko,
    documents: Documents,
    output: str | os.PathLike[str] | None,
    *,
    style: Style,
    form: OutputFormat = "jsonl",
    max_concurrency: int = 256,
    max_cost: float | None = None,
    max_tokens_total: int | None = None,
    retry_failed: bool = False,
    restart: bool = False,
    dry_run: bool = False,
    stop: Stop | None = None,
    on_round: Callable[[int, int], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    progress_interval: float = 0.5,
) -> SummaryReport:
    """Summarise documents: each in as many parts as it takes, then the summaries of its parts.

    What is asked and answered is kept in the folder ``OUTPUT.work``: the same call after a stop,
    a crash or a ``SIGKILL`` pays again at most for what was in flight, and one with further
    documents pays for those alone. See ``docs/summarize.md``.

    Args:
        client: makes the calls, within its limits.
        documents: begins reading them; called again if some have to be split further.
        output: a file of summaries; None: none is written, and nothing can be resumed.
        style: how the model is asked.
        form: of the output.
        max_concurrency: calls in flight at once.
        max_cost: over all runs of this output; calls that might pass it are not made.
        max_tokens_total: likewise, prompts and answers together.
        retry_failed: ask again what failed in an earlier run.
        restart: drop what an earlier run has kept.
        dry_run: only read, and estimate; writes nothing.
        stop: ends the run early; see :class:`~konko_async.batch.Stop`.
        on_round: called with the number of each round, from 0, and its calls.
        on_progress: called with the progress of the round now and then.
        progress_interval: seconds between two of these.

    Returns:
        The summaries, and what they took.

    Raises:
        ConfigurationError: an option cannot be used.
        BatchError: as for :func:`~konko_async.batch.run_batch`.
    """
    passed = {
        "max_concurrency": max_concurrency,
        "on_progress": on_progress,
        "progress_interval": progress_interval,
        "stop": stop or Stop(),
    }
    with ExitStack() as opened:
        folder = _opened(output, opened, restart=restart, temporary=dry_run)
        work = opened.enter_context(Workspace(folder, restart=restart and not dry_run))
        run = _Run(client, documents, style, work, passed)
        if dry_run:
            return await run.estimate(output)
        run.limits = (max_cost, max_tokens_total)
        run.retry_failed = retry_failed
        report = await run.run(on_round, str(output or "-"))
        if output is not None and (report.rounds or not report.calls.stopped):
            await asyncio.to_thread(write_summaries, output, report.summaries, form)
        return report


def work_folder(output: str | os.PathLike[str]) -> Path:
    """Return the folder in which a run keeps what it was answered."""
    return Path(f"{os.fspath(output)}.work")


def _opened(
    output: str | os.PathLike[str] | None, opened: ExitStack, *, restart: bool, temporary: bool
) -> Path:
    """Return the folder to work in, once the output is known to be usable."""
    if output is None or temporary:
        return Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="konko-async-")))
    target, kept = Path(output), work_folder(output)
    if target.is_dir():
        raise BatchOutputError(f"{target} is a folder; the output is one file")
    if not target.parent.is_dir():
        raise BatchOutputError(f"{target.parent} is no folder; make it first")
    if target.exists() and not kept.exists() and not restart:
        raise BatchOutputError(
            f"{target} exists, and has no {kept.name} beside it: give another output, or "
            "restart=True to write it anew"
        )
    return kept


class _Run:
    """One run.

    Args:
        client: makes the calls.
        documents: begins reading them.
        style: how the model is asked.
        work: keeps requests and answers.
        passed: further arguments of ``run_batch``.
    """

    def __init__(
        self,
        client: AsyncKonko,
        documents: Documents,
        style: Style,
        work: Workspace,
        passed: dict[str, Any],
    ) -> None:
        self.limits: tuple[float | None, int | None] = (None, None)
        self.retry_failed = False
        self._client = client
        self._documents = documents
        self._style = style
        self._work = work
        self._passed = passed
        self._stop: Stop = passed["stop"]
        self._entries: list[Entry] = []
        self._answers: dict[str, Answer] = {}
        self._reports: list[BatchReport] = []

    async def run(
        self, on_round: Callable[[int, int], object] | None, output: str
    ) -> SummaryReport:
        """Send round after round, until there is nothing to ask or the user stops it."""
        number = 0
        planned: _Planner = self._first
        try:
            while calls := await self._written(number, planned):
                if on_round is not None:
                    on_round(number, calls)
                await self._send(number)
                number += 1
                if self._reports[-1].stopped:
                    break
                planned = self._next
        except _Stopped:
            self._reports.append(no_report(output, stopped=True))
        if self._reports and self._reports[-1].stopped:
            await asyncio.to_thread(self._settle)
        summaries = [entry.result for entry in self._entries]
        calls_made = merge_reports(self._reports or [no_report(output)], output=output)
        return SummaryReport(summaries=summaries, calls=calls_made, rounds=number)

    async def _written(self, number: int, planned: _Planner) -> int:
        """Write the requests of a round; returns how many they are."""
        return await _aside(lambda tick: self._work.write(number, planned(tick)), self._stop)

    def _first(self, tick: Callable[[], None]) -> Iterator[Request]:
        """Read all documents. Blocks, as the following do."""
        for found in self._documents():
            tick()
            entry = enter(found, self._style)
            self._entries.append(entry)
            if isinstance(found, Document):
                yield from first_requests(entry, found.text, self._style)

    def _next(self, tick: Callable[[], None]) -> Iterator[Request]:
        """Take up the answers, and ask what follows from them."""
        self._answers.update(self._work.read(len(self._reports) - 1))
        for entry in self._entries:
            tick()
            yield from self._step(entry, ())
        while any(entry.reread for entry in self._entries):
            yield from self._reread(tick)

    def _step(self, entry: Entry, asked: Iterable[Request]) -> Iterator[Request]:
        """Go on with a document until it needs an answer that is not there; yield what it asks."""
        requests = [*asked, *advance(entry, self._answers, self._style)]
        while requests:
            missing = [request for request in requests if request.key not in self._answers]
            if missing:
                yield from missing
                return
            requests = list(advance(entry, self._answers, self._style))

    def _reread(self, tick: Callable[[], None]) -> Iterator[Request]:
        """Read documents again that have to be split into smaller parts."""
        for entry, found in zip_longest(self._entries, self._documents()):
            tick()
            if entry is None:  # there are more documents by now
                return
            if not entry.reread:
                continue
            if isinstance(found, Document) and found.name == entry.result.document:
                asked = list(first_requests(entry, found.text, self._style))
                yield from self._step(entry, asked)
            else:
                entry.reread = False
                error = {"code": "changed", "message": "the document was changed during the run"}
                entry.result.error = error

    def _settle(self) -> None:
        """Finish what answers of this run and earlier ones allow, when no more are asked for."""
        for number in range(self._work.rounds()):
            self._answers.update(self._work.read(number))
        for entry in self._entries:
            for _ in self._step(entry, ()):
                pass

    async def _send(self, number: int) -> None:
        max_cost, max_tokens = self.limits
        cost = sum(report.cost or 0.0 for report in self._reports)
        tokens = sum(report.prompt_tokens + report.completion_tokens for report in self._reports)
        try:
            report = await run_batch(
                self._client,
                self._work.requests(number),
                self._work.answers(number),
                format="openai",
                on_changed_input="redo",
                retry_failed=self.retry_failed,
                max_cost=None if max_cost is None else max(max_cost - cost, 0.0),
                max_tokens_total=None if max_tokens is None else max(max_tokens - tokens, 1),
                **self._passed,
            )
        except BatchError as error:
            if error.report is not None:
                reports = [*self._reports, error.report]
                error.report = merge_reports(reports, output=str(self._work.path))
            raise
        self._reports.append(report)

    async def estimate(self, target: str | os.PathLike[str] | None) -> SummaryReport:
        """Read the documents and estimate; writes to a temporary folder only."""
        output = "-" if target is None else os.fspath(target)
        kept = None if target is None else work_folder(target)
        try:
            calls = await self._written(0, self._first)
        except _Stopped:
            calls = 0
        summaries = [entry.result for entry in self._entries]
        more = rough_rest(self._entries, self._style)
        if not calls:
            nothing = no_report(output, stopped=self._stop.requested)
            return SummaryReport(summaries=summaries, calls=nothing, rounds=0)
        answers = self._work.answers(0)
        requests = None if kept is None else kept / self._work.requests(0).name
        if kept is not None and requests is not None and requests.exists():
            same = await asyncio.to_thread(_same, requests, self._work.requests(0))
            answers = kept / answers.name if same else answers
        self._passed.pop("on_progress")
        report = await run_batch(
            self._client,
            self._work.requests(0),
            answers,
            format="openai",
            dry_run=True,
            **self._passed,
        )
        report = msgspec.structs.replace(report, output=output)
        return SummaryReport(summaries=summaries, calls=report, rounds=0, more=more)


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


async def _aside(work: Callable[[Callable[[], None]], T], stop: Stop) -> T:
    """Do blocking work in a thread; it ends at its next tick when the user asks to stop."""
    left = False

    def tick() -> None:
        if left or stop.requested:
            raise _Stopped

    task = asyncio.ensure_future(asyncio.to_thread(work, tick))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        left = True
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
