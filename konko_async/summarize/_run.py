"""Runs a summary job: rounds of batches until each document has one summary."""

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

from konko_async import AsyncKonko, ConfigurationError
from konko_async.batch import BatchError, BatchOutputError, BatchReport, Progress, Stop, run_batch
from konko_async.documents import Document, DocumentError
from konko_async.summarize._merge import merge_reports, no_report
from konko_async.summarize._plan import (
    DocumentEntry,
    RoundAnswer,
    RoundRequest,
    advance,
    begin_digest,
    check_digest,
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
# Arguments of run_batch() that mean the same for the calls of summaries.
_PASSED = frozenset(
    {"max_outage", "max_attempts", "max_failures", "max_failures_in_a_row", "fail_on", "prices"}
)
_Planner = Callable[[Callable[[], None]], Iterator[RoundRequest]]
Documents = Callable[[], Iterable[Document | DocumentError]]


class _StopRequested(Exception):  # noqa: N818 - no error: the user asked for it
    """The user asked to stop while the documents were read."""


async def summarize(
    client: AsyncKonko,
    documents: Documents,
    output: str | os.PathLike[str] | None,
    *,
    style: Style,
    form: OutputFormat = "jsonl",
    digest: bool = False,
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
    **more: Any,
) -> SummaryReport:
    """Summarise documents: each in as many parts as it takes, then the summaries of its parts.

    Requests and answers are kept in the folder ``OUTPUT.work``: the same call after a stop,
    a crash or a ``SIGKILL`` pays again at most for what was in flight, and one with further
    documents pays for those alone. See ``docs/how-to/summarize.md``.

    Args:
        client: makes the calls, within its limits.
        documents: begins reading them; called again if some have to be split further.
        output: a file of summaries, or with ``form="files"`` a folder; None: none is written, and
            nothing can be resumed.
        style: how requests are made.
        form: of the output.
        digest: make one text of all summaries, too, once they are there.
        max_concurrency: calls in flight at once.
        max_cost: over all runs of this output; calls that might pass it are not made.
        max_tokens_total: prompts and answers together, over all runs of this output.
        retry_failed: send again what failed in an earlier run.
        restart: drop what an earlier run has kept.
        dry_run: only read, and estimate; writes nothing.
        stop: ends the run early; see :class:`~konko_async.batch.Stop`.
        on_round: called with the number of each round, from 0, and its calls.
        on_progress: called with the progress of the round now and then.
        progress_interval: seconds between two of these.
        **more: further arguments of :func:`~konko_async.batch.run_batch` about how calls are made
            and judged: ``max_outage``, ``max_attempts``, ``max_failures``,
            ``max_failures_in_a_row``, ``fail_on``, ``prices``.

    Returns:
        The summaries, and what they took.

    Raises:
        ConfigurationError: an option cannot be used; with ``digest`` also if two summaries do not
            fit into one call.
        BatchError: as for :func:`~konko_async.batch.run_batch`.
    """
    unknown = more.keys() - _PASSED
    if unknown:
        raise ConfigurationError(f"summarize() takes no {', '.join(sorted(unknown))}")
    passed = {
        **more,
        "max_concurrency": max_concurrency,
        "on_progress": on_progress,
        "progress_interval": progress_interval,
        "stop": stop or Stop(),
    }
    if digest:
        check_digest(style)
    with ExitStack() as opened:
        # One stack for both: the workspace's lock is closed before the temporary folder around it
        # goes.
        folder = _opened(output, opened, form, restart=restart, temporary=dry_run)
        work = opened.enter_context(Workspace(folder, restart=restart and not dry_run))
        run = _SummaryRun(client, documents, style, work, passed)
        run.digesting = digest
        if dry_run:
            return await run.estimate(output)
        run.limits = (max_cost, max_tokens_total)
        run.retry_failed = retry_failed
        report = await run.run(on_round, str(output or "-"))
        # A run that was stopped before its first call has nothing new: an older output is left as
        # it is.
        if output is not None and (report.rounds or not report.calls.stopped):
            await asyncio.to_thread(
                write_summaries, output, report.summaries, form, digest=report.digest
            )
        return report


def work_folder(output: str | os.PathLike[str]) -> Path:
    """Return the folder in which a run keeps what it was answered."""
    # By way of Path, which drops the slash that a folder's name may end with.
    return Path(f"{Path(output)}.work")


def _opened(
    output: str | os.PathLike[str] | None,
    opened: ExitStack,
    form: OutputFormat,
    *,
    restart: bool,
    temporary: bool,
) -> Path:
    """Return the folder to work in, once the output is known to be usable."""
    if output is None or temporary:
        return Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="konko-async-")))
    target, kept = Path(output), work_folder(output)
    if target.is_dir() and form != "files":
        raise BatchOutputError(f"{target} is a folder; the output is one file")
    if form == "files" and target.exists() and not target.is_dir():
        raise BatchOutputError(f"{target} is a file; the output is a folder of files")
    if not target.parent.is_dir():
        raise BatchOutputError(f"{target.parent} is no folder; make it first")
    # A file without a work folder was not written by us, so writing over it might lose somebody's
    # work. A folder may be there already, as long as it is empty.
    there = any(target.iterdir()) if target.is_dir() else target.exists()
    if there and not kept.exists() and not restart:
        raise BatchOutputError(
            f"{target} exists, and has no {kept.name} beside it: give another output, or "
            "restart=True to write it anew"
        )
    return kept


class _SummaryRun:
    """One run.

    Args:
        client: makes the calls.
        documents: begins reading them.
        style: how requests are made.
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
        self.digesting = False
        self._digest: DocumentEntry | None = None
        self._client = client
        self._documents = documents
        self._style = style
        self._work = work
        self._passed = passed
        self._stop: Stop = passed["stop"]
        self._entries: list[DocumentEntry] = []
        self._answers: dict[str, RoundAnswer] = {}
        self._reports: list[BatchReport] = []

    async def run(
        self, on_round: Callable[[int, int], object] | None, output: str
    ) -> SummaryReport:
        """Send round after round, until there is nothing to ask or the user stops it."""
        number = 0
        planned: _Planner = self._first
        try:
            # A round without requests is the end: each document has its summary or its error.
            while calls := await self._written(number, planned):
                if on_round is not None:
                    on_round(number, calls)
                await self._send(number)
                number += 1
                if self._reports[-1].stopped:
                    break
                planned = self._next
        except _StopRequested:
            self._reports.append(no_report(output, stopped=True))
        # Answers that were paid for are used, though no further call is made for them.
        if self._reports and self._reports[-1].stopped:
            await asyncio.to_thread(self._settle)
        summaries = [entry.result for entry in self._entries]
        calls_made = merge_reports(self._reports or [no_report(output)], output=output)
        digest = None if self._digest is None else self._digest.result
        return SummaryReport(summaries=summaries, calls=calls_made, rounds=number, digest=digest)

    async def _written(self, number: int, planned: _Planner) -> int:
        """Write the requests of a round; returns how many they are."""
        return await _aside(lambda tick: self._work.write(number, planned(tick)), self._stop)

    def _first(self, tick: Callable[[], None]) -> Iterator[RoundRequest]:
        """Read all documents. Blocks, as the following do."""
        for found in self._documents():
            tick()
            entry = enter(found, self._style)
            self._entries.append(entry)
            if isinstance(found, Document):
                yield from first_requests(entry, found.text, self._style)

    def _next(self, tick: Callable[[], None]) -> Iterator[RoundRequest]:
        """Take up the answers, and ask what follows from them."""
        # Answers of all rounds stay in memory: a later step may need one that an earlier run
        # obtained in another round.
        self._answers.update(self._work.read(len(self._reports) - 1))
        for entry in self._entries:
            tick()
            yield from self._step(entry, ())
        # Repeated, as the smaller parts may have answers of an earlier run that overflowed, too,
        # and then the document is to be read once more.
        while any(entry.reread for entry in self._entries):
            yield from self._reread(tick)
        # A finished document waits for no answer.
        if self.digesting and not any(entry.keys for entry in self._entries):
            yield from self._step_digest()

    def _step_digest(self) -> Iterator[RoundRequest]:
        """Begin the digest, as all documents are finished, or go on with it."""
        begun: list[RoundRequest] = []
        if self._digest is None:
            self._digest, begun = begin_digest(self._entries, self._style)
        yield from self._step(self._digest, begun)

    def _step(self, entry: DocumentEntry, asked: Iterable[RoundRequest]) -> Iterator[RoundRequest]:
        """Go on with a document until it needs an answer that is not there; yield what it asks."""
        requests = [*asked, *advance(entry, self._answers, self._style)]
        while requests:
            # A resumed run replays its decisions here without a call: what is known is taken, and
            # the first unknown answer ends the step.
            missing = [request for request in requests if request.key not in self._answers]
            if missing:
                yield from missing
                return
            requests = list(advance(entry, self._answers, self._style))

    def _reread(self, tick: Callable[[], None]) -> Iterator[RoundRequest]:
        """Read documents again that have to be split into smaller parts."""
        # By position: texts of all documents are not kept in memory, so `documents` is called
        # again, and has to yield the same ones in the same order.
        for entry, found in zip_longest(self._entries, self._documents()):
            tick()
            if entry is None:  # there are more documents by now
                return
            if not entry.reread:
                continue
            # Files may have changed meanwhile; parts of another document must not end up in this
            # summary.
            if isinstance(found, Document) and found.name == entry.result.document:
                asked = list(first_requests(entry, found.text, self._style))
                yield from self._step(entry, asked)
            else:
                entry.reread = False
                error = {"code": "changed", "message": "the document was changed during the run"}
                entry.result.error = error

    def _settle(self) -> None:
        """Finish what answers of this run and earlier ones allow, when no more are asked for."""
        # More rounds than this run has made: an earlier run may have been further when it was
        # stopped.
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
                # What is left of the limit: a batch knows only its own round's journal.
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
        except _StopRequested:
            calls = 0
        summaries = [entry.result for entry in self._entries]
        more = rough_rest(self._entries, self._style, digest=self.digesting)
        if not calls:
            nothing = no_report(output, stopped=self._stop.requested)
            return SummaryReport(summaries=summaries, calls=nothing, rounds=0)
        answers = self._work.answers(0)
        requests = None if kept is None else kept / self._work.requests(0).name
        if kept is not None and requests is not None and requests.exists():
            # Answers of an earlier run count as done in the estimate, but only if they belong to
            # the very requests that would be sent now.
            same = await asyncio.to_thread(_same, requests, self._work.requests(0))
            answers = kept / answers.name if same else answers
        # An estimate makes no calls, so there is no progress to report.
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
            raise _StopRequested

    task = asyncio.ensure_future(asyncio.to_thread(work, tick))
    try:
        # A thread cannot be cancelled. Shielded, so that its end can be awaited below: it still
        # writes into the workspace, whose lock must not be released under it.
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        left = True
        await asyncio.wait([task])
        if not task.cancelled():
            # Retrieved, or asyncio would log it as "exception was never retrieved".
            task.exception()
        raise
