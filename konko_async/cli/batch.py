"""``konko-async batch``."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import click

from konko_async.cli._bulk import Bulk, bulk_options
from konko_async.cli._options import Connection, connection_options, model_option

_ENDPOINTS = ("chat/completions", "completions", "embeddings")
_OWN_OPTIONS = (
    click.option(
        "--prompt",
        metavar="TEXT",
        help='For rows that are no requests: "Summarise: {text}", with fields of the row.',
    ),
    click.option("-s", "--system", metavar="TEXT", help="A system message to go with --prompt."),
    click.option(
        "-t", "--temperature", type=click.FloatRange(0, 2), help="For rows that set none."
    ),
    click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Likewise."),
    click.option(
        "--stream",
        is_flag=True,
        help="Let answers be streamed: bounded by silence, not by length; first tokens are timed.",
    ),
    click.option(
        "--format",
        type=click.Choice(["openai", "jsonl", "csv", "texts"]),
        help="Of IN.  [default: by its name and content]",
    ),
    click.option(
        "--endpoint",
        type=click.Choice(_ENDPOINTS),
        default=_ENDPOINTS[0],
        show_default=True,
        help="For rows that name none.",
    ),
    click.option("--limit", type=click.IntRange(1), metavar="N", help="Begin at most N rows."),
    click.option("--shuffle", is_flag=True, help="Begin them in random order."),
    click.option("--seed", type=click.IntRange(1), metavar="N", help="Of that order."),
    click.option("--skip-invalid", is_flag=True, help="Run the good rows of an IN with bad ones."),
    click.option(
        "--on-changed-input",
        type=click.Choice(["refuse", "redo"]),
        default="refuse",
        show_default=True,
        help="redo: keep the answers to requests that are the same, make the others.",
    ),
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Where calls are made: here, or by actors of a Ray cluster (RAY_ADDRESS).",
    ),
    click.option(
        "--processes",
        type=click.IntRange(1),
        metavar="N",
        help="Worker processes (actors with --engine ray), under one limit.",
    ),
)


def _own_options(function: Any) -> Any:
    for option in reversed(_OWN_OPTIONS):
        function = option(function)
    return function


@click.command("batch")
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@model_option
@_own_options
@bulk_options
@connection_options
def command(connection: Connection, bulk: Bulk, source: str, output: str, **options: Any) -> int:
    """Make the calls of a file, and write the answers to another.

    IN is JSON lines in OpenAI's batch format, other JSON lines, CSV, or a folder of text files;
    OUT gets lines in OpenAI's batch result format as they come. "-" is a pipe. The same command
    again goes on where a run was stopped or killed, and pays for nothing twice. Ctrl-C lets the
    calls in flight finish; a second one cancels them.
    """
    if options["seed"] is not None and not options["shuffle"]:
        raise click.UsageError("--seed is the seed of --shuffle")
    if options["engine"] == "ray" and find_spec("ray") is None:
        raise click.UsageError("--engine ray needs the extra `ray`: pip install 'konko-async[ray]'")
    # aiohttp takes its time to import: --help does without it.
    from konko_async.cli._batch_run import run_command  # noqa: PLC0415 - see above
    from konko_async.cli._run import run  # noqa: PLC0415 - see above

    work = run_command(connection, bulk, source, output, **options)
    return run(work, debug=connection.debug)
