"""``konko-async batch``: makes a call for each row of a file."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import click

from konko_async.cli._options import Connection, connection_options, model_option
from konko_async.cli.bulk.batches.judging import judging_options
from konko_async.cli.bulk.batches.more import more_options
from konko_async.cli.bulk.batches.server_side import server_options
from konko_async.cli.bulk.options import Bulk, bulk_options

# Named again here, and not taken from konko_async.batch: its import takes aiohttp
# with it, and --help does without.
FORMATS = ("openai", "jsonl", "csv", "lines", "texts")
_ENDPOINTS = ("chat/completions", "completions", "embeddings")


def _names(_context: Any, _option: Any, value: str | None) -> tuple[str, ...] | None:
    """Read a list of columns."""
    return None if value is None else tuple(filter(None, map(str.strip, value.split(","))))


@click.command("batch")
@click.argument("source", metavar="IN")
@click.argument("output", metavar="OUT")
@model_option
@click.option(
    "--prompt",
    metavar="TEXT",
    help='Prompt for rows that are not requests: "Summarise: {text}", with fields of the row.',
)
@click.option("-s", "--system", metavar="TEXT", help="System message to go with --prompt.")
@click.option(
    "-t", "--temperature", type=click.FloatRange(0, 2), help="Temperature for rows that set none."
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Maximum output tokens for rows that set none.",
)
@click.option(
    "--stream",
    is_flag=True,
    help="Stream the answers, which also measures the time to the first token.",
)
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    help="Format of the input, IN.  [default: by its name and content]",
)
@click.option(
    "--api",
    type=click.Choice(_ENDPOINTS),
    default=_ENDPOINTS[0],
    show_default=True,
    help="API for rows that name none.",
)
@click.option(
    "--id-column",
    metavar="NAME",
    help="Field or column that names a row.  [default: custom_id, else id, else its number]",
)
@click.option(
    "--columns",
    metavar="NAMES",
    callback=_names,
    help="Columns of OUT: fields of the rows, and custom_id,answer,error,...  [default: all]",
)
@click.option("--ordered", is_flag=True, help="Write OUT in the input's order, at the end.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Process at most N rows.")
@click.option("--shuffle", is_flag=True, help="Process the rows in random order.")
@click.option("--seed", type=click.IntRange(1), metavar="N", help="Seed of the random order.")
@click.option(
    "--skip-invalid", is_flag=True, help="Process the valid rows even if others are invalid."
)
@click.option(
    "--on-changed-input",
    type=click.Choice(["refuse", "redo"]),
    default="refuse",
    show_default=True,
    help="redo: keep the answers to requests that are unchanged, and make the others.",
)
@click.option(
    "--no-learn",
    is_flag=True,
    help="Ignore the rate limits that the server reports; use --rpm and --tpm alone.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where calls are made: on this machine, or by actors of a Ray cluster (RAY_ADDRESS).",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    metavar="N",
    help="Worker processes (actors with --engine ray), under one limit.",
)
@judging_options
@server_options
@more_options
@bulk_options
@connection_options
def command(connection: Connection, bulk: Bulk, source: str, output: str, **options: Any) -> int:
    """Make a call for each row of a file, and write the answers to another.

    IN is JSON lines in OpenAI's batch format, other JSON lines, a JSON array, CSV or TSV, Parquet,
    Arrow, a text file with a prompt on each line, a folder of text files, a folder or a glob of any
    of these ("shards/*.jsonl"), or compressed (.gz, .xz, .bz2, .zst). OUT gets lines in OpenAI's
    batch result format as they come; one that ends with .parquet, .arrow, .csv or .tsv gets a table
    at the end. Both may be URLs (s3://, gs://, https://). "-" is a pipe. Run the same command again
    to resume a run that was stopped or killed; nothing that was answered is paid for twice. Ctrl-C
    lets the calls in flight finish; a second one cancels them.

    Exit codes: 0 all rows were answered, 1 some failed, 2 usage, 3 the run ended early (no credit,
    a wrong key or model, an outage, --max-failures), 130 interrupted.
    """
    if options["seed"] is not None and not options["shuffle"]:
        raise click.UsageError("--seed is the seed of --shuffle")
    # find_spec() does not import Ray, which takes its time.
    if options["engine"] == "ray" and find_spec("ray") is None:
        raise click.UsageError("--engine ray needs the extra `ray`: pip install 'konko-async[ray]'")
    # aiohttp takes its time to import: --help does without it.
    from konko_async.cli._runner import run  # noqa: PLC0415 - imports aiohttp
    from konko_async.cli.bulk.batch_run import run_command  # noqa: PLC0415 - imports aiohttp

    work = run_command(connection, bulk, source, output, **options)
    return run(work, debug=connection.debug)
