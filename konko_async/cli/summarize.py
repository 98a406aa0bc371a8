"""``konko-async summarize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from konko_async.cli._bulk import Bulk, bulk_options
from konko_async.cli._options import Connection, connection_options, model_option

_OWN_OPTIONS = (
    click.option(
        "-o", "--output", default="-", metavar="OUT", help='A file; "-", the default, is a pipe.'
    ),
    click.option(
        "--format",
        "form",
        type=click.Choice(["jsonl", "markdown"]),
        help="Of OUT.  [default: markdown for .md and terminals, else jsonl]",
    ),
    click.option(
        "--instructions", metavar="TEXT", help='Your own, such as "Write in German, for lawyers".'
    ),
    click.option(
        "--context",
        type=click.IntRange(1),
        metavar="N",
        help="Tokens that the model takes.  [default: as the model list tells]",
    ),
    click.option(
        "--max-tokens", type=click.IntRange(1), metavar="N", help="Of a summary.  [default: 400]"
    ),
    click.option("-t", "--temperature", type=click.FloatRange(0, 2), help="[default: 0.2]"),
    click.option(
        "--field", metavar="NAME", help="That holds the text in JSON lines.  [default: text, ...]"
    ),
    click.option("--limit", type=click.IntRange(1), metavar="N", help="Only N documents."),
)


def _own_options(function: Any) -> Any:
    for option in reversed(_OWN_OPTIONS):
        function = option(function)
    return function


@click.command("summarize")
@click.argument("paths", metavar="PATHS...", nargs=-1, required=True)
@model_option
@_own_options
@bulk_options
@connection_options
def command(
    connection: Connection, bulk: Bulk, paths: tuple[str, ...], output: str, **options: Any
) -> int:
    """Summarise documents: text, Markdown, HTML, PDF, Word (.docx) and JSON lines.

    PATHS are files and folders, which are searched. A document that is longer than the model's
    context is split at its paragraphs; its parts are summarised, and then their summaries. What
    was paid for is kept in OUT.work: the same command again goes on where a run was stopped or
    killed, and with more PATHS it pays for those alone. --local reads the opening of each
    document, as its small model gets worse with more; with --context it reads all.
    """
    if output == "-" and (bulk.retry_failed or bulk.restart):
        raise click.UsageError("a pipe as output has no earlier run: --retry-failed and --restart")
    if connection.local and options["instructions"]:
        raise click.UsageError("the local model follows no --instructions")
    if output != "-" and Path(output).is_dir():
        raise click.UsageError(f"{output} is a folder; OUT is one file")
    # aiohttp takes its time to import: --help does without it.
    from konko_async.cli._run import run  # noqa: PLC0415 - see above
    from konko_async.cli._summarize_run import run_command  # noqa: PLC0415 - see above

    work = run_command(connection, bulk, paths, output, **options)
    return run(work, debug=connection.debug)
