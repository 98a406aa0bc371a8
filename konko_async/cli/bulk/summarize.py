"""``konko-async summarize``: writes summaries of documents."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Any, BinaryIO

import click

from konko_async.cli._options import Connection, connection_options, model_option
from konko_async.cli.bulk.batches.judging import judging_options
from konko_async.cli.bulk.options import Bulk, bulk_options


def _form(output: str, form: str | None) -> str | None:
    """Return the format: a folder gets files of Markdown."""
    if output == "-" or not (output.endswith(("/", os.sep)) or Path(output).is_dir()):
        return form
    if form == "jsonl":
        raise click.UsageError(f"{output} is a folder, which gets pages of Markdown, not jsonl")
    return "files"


def _prompt(file: BinaryIO) -> str:
    try:
        return file.read().decode("utf-8-sig").strip()  # editors on Windows write a mark
    except UnicodeDecodeError as error:
        problem = f"--prompt-file {file.name} is not UTF-8: {error.reason} at byte {error.start}"
    raise click.UsageError(problem)


@click.command("summarize")
@click.argument("paths", metavar="PATHS...", nargs=-1, required=True)
@model_option
@click.option(
    "-o",
    "--output",
    default="-",
    metavar="OUT",
    help="A file, or a folder for a Markdown page per document: one that is there, or a name "
    'that ends with "/". "-", the default, is a pipe.',
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "markdown"]),
    help="Format of OUT.  [default: markdown for .md, folders and terminals, else jsonl]",
)
@click.option(
    "--digest", is_flag=True, help="Also make one text of all summaries; it heads a page."
)
@click.option(
    "--instructions",
    metavar="TEXT",
    help='Your own instructions, such as "Write for lawyers"; they win over everything else.',
)
@click.option(
    "--prompt-file", type=click.File("rb"), metavar="FILE", help="A file with your instructions."
)
@click.option(
    "--language", metavar="NAME", help="Language of summaries.  [default: the document's]"
)
@click.option(
    "--length", metavar="TEXT", help="Length of a summary.  [default: three to five sentences]"
)
@click.option(
    "--style",
    "shape",
    metavar="TEXT",
    help="Form of a summary, such as 'five bullet points'.  [default: plain prose]",
)
@click.option("--seed", type=int, metavar="N", help="Seed, for servers that sample with one.")
@click.option(
    "--context",
    type=click.IntRange(1),
    metavar="N",
    help="Context length of the model in tokens.  [default: from the model list]",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Maximum output tokens of a summary.  [default: 400, or what a small context allows]",
)
@click.option("-t", "--temperature", type=click.FloatRange(0, 2), help="[default: 0]")
@click.option(
    "--field",
    metavar="NAME",
    help="Field that holds the text in JSON lines.  [default: text, content, ...]",
)
@click.option("--encoding", metavar="NAME", help="Encoding of all text files.  [default: detected]")
@click.option(
    "--include",
    multiple=True,
    metavar="GLOB",
    help="Files of folders to read, instead of those with a known ending; repeatable.",
)
@click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Files and folders to leave out; repeatable."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Read at most N documents.")
@judging_options
@bulk_options
@connection_options
def command(
    connection: Connection, bulk: Bulk, paths: tuple[str, ...], output: str, **options: Any
) -> int:
    """Summarise documents.

    Reads text, Markdown, source code, HTML, PDF, Word, PowerPoint, Excel, OpenDocument, RTF, EPUB,
    mail, notebooks and JSON lines. PATHS are files, and folders that are searched. A document that
    is longer than the model's context is split at its paragraphs; its parts are summarised, and
    then their summaries. Answers are kept in OUT.work: the same command resumes a run that was
    stopped or killed, and with more PATHS it pays for those alone. --local reads the opening of
    each document, as its small model gets worse with more; with --context it reads all.
    """
    prompt_file = options.pop("prompt_file")
    if prompt_file is not None:
        own = [options["instructions"], _prompt(prompt_file)]
        options["instructions"] = "\n".join(text for text in own if text)
    if output == "-" and (bulk.retry_failed or bulk.restart):
        raise click.UsageError("--retry-failed and --restart need a file as OUT, not a pipe")
    if connection.local:
        # The small model learns the form of a summary from examples, and heeds no instructions.
        for name in ("instructions", "language", "length", "shape", "seed"):
            if options[name] is not None:
                option = "style" if name == "shape" else name
                raise click.UsageError(f"the local model does not follow --{option}")
    # Checked before anything is read: otherwise every file would fail with the same error.
    if options["encoding"] is not None:
        try:
            codecs.lookup(options["encoding"])
        except LookupError:
            raise click.UsageError(f"unknown --encoding {options['encoding']}") from None
    if connection.local and options["digest"]:
        raise click.UsageError("the local model is too small for --digest")
    options["form"] = _form(output, options["form"])
    # aiohttp takes its time to import: --help does without it.
    from konko_async.cli._runner import run  # noqa: PLC0415 - imports aiohttp
    from konko_async.cli.bulk.summarize_run import run_command  # noqa: PLC0415 - imports aiohttp

    work = run_command(connection, bulk, paths, output, **options)
    return run(work, debug=connection.debug)
