"""What `make demo` runs: a real small model on this machine, through this package's own client.

First it streams one answer, token by token. Then it summarises documents that every machine has,
the descriptions of the installed Python packages, many at once and under a rate limit. It needs no
key and no network. Every figure it prints was measured in this run: tokens are counted by the
server, times come from the client's records of its calls.
"""

import argparse
import ast
import asyncio
import importlib.metadata
import importlib.util
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from konko_async import AsyncKonko, Attempt, CallRecord, KonkoError, RateLimit
from konko_async.local import SUMMARY_OPTIONS, LocalServer, summary_messages

QUESTION = "What is the Internet?"
DOCUMENTS = 32
AT_LEAST = 24
AT_ONCE = 16  # calls in flight
SLOTS = 4  # of them, how many the model works on; with more, two cores only get slower
REQUESTS_PER_MINUTE = 240
SHORTEST = 400  # characters of a text that is worth summarising
ALIKE = 20  # characters that no two of them begin with
# Modules of the standard library with long descriptions, for machines with few packages.
MODULES = (
    *("argparse", "base64", "calendar", "cmd", "configparser", "csv", "datetime", "difflib"),
    *("doctest", "fractions", "heapq", "ipaddress", "locale", "mailbox", "mimetypes", "netrc"),
    *("optparse", "pdb", "pickle", "pickletools", "profile", "pstats", "random", "sched", "shelve"),
    *("smtplib", "socketserver", "statistics", "string", "tarfile", "tempfile", "textwrap"),
    *("timeit", "trace", "types", "unittest", "uuid", "weakref", "xmlrpc.client", "zipapp"),
)


@dataclass
class Document:
    """Something to summarise, and what came of it."""

    name: str
    text: str
    summary: str = ""
    problem: str = ""


@dataclass
class Records:
    """What the client tells its observers: one record for each call and each attempt."""

    calls: list[CallRecord] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)

    def __call__(self, record: CallRecord | Attempt) -> None:
        """Keep a record; the client calls this."""
        if isinstance(record, CallRecord):
            self.calls.append(record)
        else:
            self.attempts.append(record)


# -- documents ------------------------------------------------------------------------------------


def find_documents(limit: int) -> list[Document]:
    """Find texts of which no two begin alike: descriptions of packages, then of modules."""
    found: dict[str, Document] = {}
    for name, text in (*package_descriptions(), *module_descriptions()):
        if len(text) >= SHORTEST and len(found) < limit:
            found.setdefault(text[:ALIKE], Document(name, text))
    return list(found.values())


def package_descriptions() -> Iterator[tuple[str, str]]:
    """Yield name and long description of each installed package."""
    packages = importlib.metadata.distributions()
    for package in sorted(packages, key=lambda package: package.name.lower()):
        payload = package.metadata.get_payload()
        text = payload if isinstance(payload, str) else ""
        yield package.name, text or package.metadata.get("Description", "")


def module_descriptions() -> Iterator[tuple[str, str]]:
    """Yield name and documentation of modules of the standard library."""
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.has_location and spec.origin is not None:
            source = Path(spec.origin).read_bytes()
            yield f"{name} (module)", ast.get_docstring(ast.parse(source)) or ""


# -- the two parts of the demo --------------------------------------------------------------------


async def stream_one(client: AsyncKonko, model: str, console: Console) -> None:
    """Print one answer as its tokens arrive."""
    console.print("1. One answer, streamed\n", style="bold")
    console.print(QUESTION, style="dim", markup=False, highlight=False)
    stream = client.chat.completions.stream(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        stream_options={"include_usage": True},
    )
    started = time.perf_counter()
    async with stream:
        async for piece in stream.text():
            sys.stdout.write(piece)
            sys.stdout.flush()
        completion = await stream.completion()
    elapsed = time.perf_counter() - started
    first = stream.time_to_first_token or 0.0
    tokens = completion.usage.completion_tokens if completion.usage else 0
    pace = f"{(tokens - 1) / (elapsed - first):.0f} tokens/s after it" if tokens > 1 else ""
    console.print(f"\n\n{tokens} tokens; the first after {first:.2f} s, {pace}\n", style="dim")


async def summarise_all(
    client: AsyncKonko, model: str, documents: list[Document], console: Console
) -> None:
    """Summarise all documents at once; the client keeps the limits."""
    console.print(
        f"2. {len(documents)} documents, {AT_ONCE} requests at once, "
        f"at most {REQUESTS_PER_MINUTE} per minute\n",
        style="bold",
    )
    columns = (TextColumn("summarising"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    on_terminal = console.is_terminal
    with Progress(*columns, console=console, disable=not on_terminal, transient=True) as progress:
        bar = progress.add_task("", total=len(documents))
        done = 0

        async def summarise(document: Document) -> None:
            nonlocal done
            await summarise_one(client, model, document)
            done += 1
            progress.advance(bar)
            if not on_terminal and (done % 8 == 0 or done == len(documents)):
                console.print(f"{done} of {len(documents)} done")

        async with asyncio.TaskGroup() as group:
            for document in documents:
                group.create_task(summarise(document))


async def summarise_one(client: AsyncKonko, model: str, document: Document) -> None:
    """Fill in the summary of a document, or what prevented it."""
    stream = client.chat.completions.stream(
        model=model,
        messages=summary_messages(document.text),
        stream_options={"include_usage": True},
        **SUMMARY_OPTIONS,
    )
    try:
        async with stream:
            completion = await stream.completion()
    except KonkoError as error:
        document.problem = f"{type(error).__name__}: {error.message}"
        return
    document.summary = (completion.choices[0].message.content or "").strip()
    if not document.summary:
        document.problem = "the model answered without text"


# -- what came of it ------------------------------------------------------------------------------


def print_summaries(documents: list[Document], console: Console) -> None:
    """Print document and summary: a table, or in a pipe tab-separated lines."""
    if not console.is_terminal:
        for document in documents:
            print(f"{document.name}\t{document.summary or 'FAILED: ' + document.problem}")
        print()
        return
    table = Table("document", "summary", row_styles=("", "dim"), border_style="dim")
    for document in documents:
        failed = Text(document.problem, style="red")
        table.add_row(Text(document.name), Text(document.summary) if document.summary else failed)
    console.print(table)


def print_figures(
    documents: list[Document], records: Records, seconds: float, console: Console
) -> None:
    """Print what the run cost and how fast it was."""
    calls, attempts = records.calls, records.attempts
    good = [attempt for attempt in attempts if attempt.first_token is not None]
    served = [attempt.first_token - attempt.queued for attempt in good]  # type: ignore[operator]
    seen = [call.time_to_first_token for call in calls if call.time_to_first_token is not None]
    answered = sum(call.completion_tokens or 0 for call in calls)
    asked = sum(call.prompt_tokens or 0 for call in calls)
    failed = sum(bool(document.problem) for document in documents)
    rows = [
        ("documents", f"{len(documents) - failed} summarised, {failed} failed"),
        ("time", f"{seconds:.1f} s"),
        ("requests", f"{len(attempts)}, of them {len(attempts) - len(calls)} retries"),
        ("tokens", f"{asked} read, {answered} written (as the server counted)"),
        ("throughput", f"{answered / seconds:.0f} tokens/s written, all calls together"),
        ("time to first token", f"{percentiles(served)}, from sending (the server queues too)"),
        ("", f"{percentiles(seen)}, with the wait for the client's limits"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"{name:<{width}}  {value}", highlight=False, soft_wrap=True)


def percentiles(values: list[float]) -> str:
    """Return the 50th and 95th percentile as text."""
    if len(values) < 2:  # noqa: PLR2004 - what quantiles() needs
        return "not measured"
    steps = statistics.quantiles(values, n=20, method="inclusive")
    return f"p50 {steps[9]:.2f} s, p95 {steps[18]:.2f} s"


async def main(wanted: int) -> int:
    """Run the demo; return its exit code."""
    console = Console()
    documents = find_documents(wanted)
    if len(documents) < min(wanted, AT_LEAST):
        console.print(f"only {len(documents)} documents were found on this machine")
        return 1
    console.print("Starting a small model on this machine ...", style="dim")
    records = Records()
    limit = RateLimit(requests_per_minute=REQUESTS_PER_MINUTE, max_concurrency=AT_ONCE)
    async with (
        LocalServer(n_parallel=SLOTS) as server,
        AsyncKonko(server.api_key, server.base_url, rate_limit=limit) as client,
    ):
        console.print(f"{server.model} is served at {server.base_url}\n", style="dim")
        await stream_one(client, server.model, console)
        started = time.perf_counter()
        observed = client.with_options(observers=[records])
        await summarise_all(observed, server.model, documents, console)
        seconds = time.perf_counter() - started
    print_summaries(documents, console)
    print_figures(documents, records, seconds, console)
    return 1 if any(document.problem for document in documents) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help="how many to summarise")
    try:
        code = asyncio.run(main(parser.parse_args().documents))
    except KonkoError as error:
        sys.stderr.write(f"demo: {error.message}\n")
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
