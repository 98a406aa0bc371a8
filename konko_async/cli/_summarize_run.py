"""Summaries from the command line: options in, progress, a table and a report out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from konko_async import AsyncKonko
from konko_async.cli._bulk import Bulk
from konko_async.cli._connect import connect, default_model
from konko_async.cli._figures import count
from konko_async.cli._options import Connection
from konko_async.cli._output import is_terminal, note
from konko_async.cli._progress import SAMPLING, Display, open_display
from konko_async.cli._report import write_report
from konko_async.cli._stopping import ended, graceful, limited, width
from konko_async.cli._summarize_style import choose_style
from konko_async.cli._summarize_table import print_table
from konko_async.cli._summary import print_calls, print_estimate
from konko_async.documents import Document, DocumentError, read_documents
from konko_async.summarize import OutputFormat, SummaryReport, render, summarize, work_folder

__all__ = ["run_command"]

Found = Document | DocumentError


async def run_command(
    connection: Connection,
    bulk: Bulk,
    paths: tuple[str, ...],
    output: str,
    *,
    model: str | None,
    form: OutputFormat | None,
    field: str | None,
    limit: int | None,
    **options: Any,
) -> int:
    """Summarise documents.

    Args:
        connection: whom to ask.
        bulk: the options that other commands have too.
        paths: of the documents.
        output: of the summaries.
        model: that writes them.
        form: of the output; None: as its name says.
        field: that holds the text in JSON lines.
        limit: of documents.
        **options: how the model is asked.

    Returns:
        The exit code.

    Raises:
        KonkoError: the client could not be made, or nothing could be begun.
    """
    # An output in one of the folders is no document.
    own = () if output == "-" else (output, work_folder(output))

    def documents() -> Iterator[Found]:
        return islice(read_documents(paths, field=field, leave_out=own), limit)

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
            if is_terminal(sys.stderr):
                display.say("reading the documents ...")
            done = await summarize(
                _client(client, bulk, connection),
                documents,
                None if output == "-" else output,
                style=style,
                form=chosen,
                stop=stop,
                on_round=_rounds(display),
                on_progress=display.update,
                progress_interval=SAMPLING,
                max_concurrency=width(bulk, local=connection.local),
                **_shared(bulk),
            )
            end.report = done.calls
    if end.failed:
        if end.report is not None:
            print_calls(end.report)
        return end.code
    if not done.summaries and not done.calls.stopped:
        note("there is no document in " + ", ".join(paths))
        return 2
    _tell(done, bulk, output, chosen)
    return done.exit_code


def _client(client: AsyncKonko, bulk: Bulk, connection: Connection) -> AsyncKonko:
    return limited(client, bulk, local=connection.local)


def _shared(bulk: Bulk) -> dict[str, Any]:
    names = ("max_cost", "max_tokens_total", "retry_failed", "restart", "dry_run")
    return {name: getattr(bulk, name) for name in names}


def _form(output: str) -> OutputFormat:
    """The format by the output's name; a person reads Markdown."""
    markdown = is_terminal(sys.stdout) if output == "-" else output.lower().endswith(".md")
    return "markdown" if markdown else "jsonl"


def _rounds(display: Display) -> Callable[[int, int], None]:
    def begin(number: int, calls: int) -> None:
        del calls
        display.stage = "documents" if number == 0 else f"summaries of parts, round {number}"

    return begin


def _tell(report: SummaryReport, bulk: Bulk, output: str, form: OutputFormat) -> None:
    if report.calls.estimate is not None:
        more = (
            f"then about {count(report.more)} calls for summaries of parts" if report.more else ""
        )
        print_estimate(report.calls.estimate, done=report.calls.done, what="calls", more=more)
        _tell_errors(report)
        return
    if output == "-":
        sys.stdout.buffer.writelines(render(report.summaries, form))
        sys.stdout.flush()
    else:
        print_table(report.summaries)
    where = "" if output == "-" else f"{output}: "
    left = f", {count(report.left)} left" if report.left else ""
    done, failed = count(report.done), count(report.failed)
    note(f"{where}{done} documents summarised, {failed} failed{left}")
    print_calls(report.calls)
    if bulk.report is not None:
        write_report(bulk.report, report.calls, title="Summary report")


def _tell_errors(report: SummaryReport) -> None:
    """With a dry run: the documents that could not be read."""
    for entry in report.summaries:
        if entry.error is not None:
            note(entry.error["message"])
