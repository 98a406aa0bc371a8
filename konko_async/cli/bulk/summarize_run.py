"""Summaries from the command line: options in, progress, a table and a report out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from konko_async import AsyncKonko
from konko_async.cli._connect import connect, default_model
from konko_async.cli._number_format import count, plural
from konko_async.cli._options import Connection
from konko_async.cli._output import clean, clean_json, is_terminal, note
from konko_async.cli.bulk.batches.judging import read_judging
from konko_async.cli.bulk.displays import open_display
from konko_async.cli.bulk.options import Bulk
from konko_async.cli.bulk.progress import SAMPLING, Display
from konko_async.cli.bulk.report import write_report
from konko_async.cli.bulk.stopping import ended, graceful, limited, width
from konko_async.cli.bulk.summarize_style import choose_style
from konko_async.cli.bulk.summarize_table import print_table
from konko_async.cli.bulk.summary import print_calls, print_estimate
from konko_async.documents import Document, DocumentError, read_documents
from konko_async.summarize import OutputFormat, SummaryReport, render, summarize, work_folder

__all__ = ["run_command"]

Found = Document | DocumentError
_NAMED = 3
_ENDINGS = 8


async def run_command(
    connection: Connection,
    bulk: Bulk,
    paths: tuple[str, ...],
    output: str,
    *,
    model: str | None,
    form: OutputFormat | None,
    limit: int | None,
    digest: bool,
    **options: Any,
) -> int:
    """Summarise documents.

    Args:
        connection: which server is used.
        bulk: the options that other commands have too.
        paths: of the documents.
        output: of the summaries.
        model: that writes them.
        form: of the output; None: as its name says.
        limit: how many documents are read at most.
        digest: whether to make one text of all summaries, too.
        **options: how documents are read, and what the requests say.

    Returns:
        The exit code.

    Raises:
        KonkoError: the client could not be made, or nothing could be started.
    """
    # An output in one of the folders is no document.
    own = () if output == "-" else (output, work_folder(output))
    reading = {name: options.pop(name) for name in ("field", "encoding", "include", "exclude")}
    judged = read_judging(options)
    documents = _Reading(paths, limit, {"leave_out": own, **reading})
    chosen = form or _form(output)
    async with connect(connection, model) as (client, known):
        style = await choose_style(
            client, await default_model(client, known), local=connection.local, **options
        )
        with (
            ended(debug=connection.debug) as end,
            open_display(bulk) as display,
            graceful(display) as stop,
        ):
            # Progress begins with the first call, and many documents take a while to read.
            if is_terminal(sys.stderr):
                display.say("reading the documents ...")
            done = await summarize(
                _client(client, bulk, connection),
                documents,
                None if output == "-" else output,
                style=style,
                form=chosen,
                digest=digest,
                stop=stop,
                on_round=_rounds(display, digest=digest),
                on_progress=display.update,
                progress_interval=SAMPLING,
                max_concurrency=width(bulk, local=connection.local),
                **_shared(bulk),
                **judged,
            )
            end.report = done.calls
    # ``done`` is not set then: the error has been shown, and what had been called is all there is.
    if end.failed:
        if end.report is not None:
            print_calls(end.report)
        return end.code
    # Only now are all of them read, some perhaps twice, so that the count is final.
    documents.report()
    if not done.summaries and not done.calls.stopped:
        note("no documents found in " + ", ".join(paths))
        # The exit code of a wrong command line: these paths hold nothing that can be summarised.
        return 2
    _report(done, bulk, output, chosen)
    return done.exit_code


def _client(client: AsyncKonko, bulk: Bulk, connection: Connection) -> AsyncKonko:
    return limited(client, bulk, local=connection.local)


def _shared(bulk: Bulk) -> dict[str, Any]:
    names = ("max_cost", "max_tokens_total", "retry_failed", "restart", "dry_run")
    return {name: getattr(bulk, name) for name in names}


def _form(output: str) -> OutputFormat:
    """Return the format by the output's name; on a terminal it is Markdown."""
    markdown = is_terminal(sys.stdout) if output == "-" else output.lower().endswith(".md")
    return "markdown" if markdown else "jsonl"


def _rounds(display: Display, *, digest: bool) -> Callable[[int, int], None]:
    what = "summaries of parts and digest" if digest else "summaries of parts"

    def begin(number: int, calls: int) -> None:
        del calls
        display.stage = "documents" if number == 0 else f"{what}, round {number}"

    return begin


class _Reading:
    """Reads the documents, and counts by their endings the files that are left out.

    Args:
        paths: of files and folders.
        limit: how many documents are read at most.
        options: of :func:`read_documents`.
    """

    def __init__(self, paths: tuple[str, ...], limit: int | None, options: dict[str, Any]) -> None:
        self._paths = paths
        self._limit = limit
        self._options = options
        self._left_out: Counter[str] = Counter()

    def __call__(self) -> Iterator[Found]:
        self._left_out.clear()  # documents may be read again, in smaller parts
        found = read_documents(self._paths, on_left_out=self._leave_out, **self._options)
        # islice() also ends the search: files behind the limit are neither read nor counted.
        return islice(found, self._limit)

    def _leave_out(self, path: Path) -> None:
        self._left_out[path.suffix.lower() or path.name] += 1

    def report(self) -> None:
        """Say how many files were not read, by their endings."""
        if not self._left_out:
            return
        shown = ", ".join(
            f"{ending} {number}" for ending, number in self._left_out.most_common(_ENDINGS)
        )
        more = ", ..." if len(self._left_out) > _ENDINGS else ""
        total = plural(self._left_out.total(), "file")
        note(f"{total} left out: {shown}{more} (--include GLOB reads them)")


def _report(report: SummaryReport, bulk: Bulk, output: str, form: OutputFormat) -> None:
    if report.calls.estimate is not None:
        more = (
            f"then about {count(report.more)} calls for summaries of summaries"
            if report.more
            else ""
        )
        print_estimate(report.calls.estimate, done=report.calls.done, what="calls", more=more)
        _report_errors(report)
        return
    if output == "-" and form != "files":  # a pipe is no folder
        # As bytes: a text stream would translate line ends on Windows,
        # and has an encoding of its own.
        safe = clean_json if form == "jsonl" else clean
        for piece in render(report.summaries, form, digest=report.digest):
            sys.stdout.buffer.write(safe(piece.decode()).encode())
        sys.stdout.flush()
    else:
        print_table(report.summaries)
    where = "" if output == "-" else f"{output}: "
    left = f", {count(report.left)} left" if report.left else ""
    done, failed = plural(report.done, "document"), count(report.failed)
    note(f"{where}{done} summarised, {failed} failed{left}")
    if report.digest is not None and report.digest.error is not None:
        note(f"  no digest: {report.digest.error['message']}")
    if report.warned:
        which = [entry.document for entry in report.summaries if entry.warnings or entry.cut]
        more = ", ..." if len(which) > _NAMED else ""
        note(
            f"  {plural(report.warned, 'document')} read or summarised only in part: "
            f"{', '.join(which[:_NAMED])}{more}; see `warnings` and `cut` in the output"
        )
    print_calls(report.calls)
    if bulk.report is not None:
        write_report(bulk.report, report.calls, title="Summary report")


def _report_errors(report: SummaryReport) -> None:
    """With a dry run: the documents that could not be read."""
    for entry in report.summaries:
        if entry.error is not None:
            note(entry.error["message"])
