"""The figures of a benchmark as tables: drawn on a terminal, aligned text in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from konko_async.bench import BenchResult, Distribution, Plan
from konko_async.cli._number_format import count, duration
from konko_async.cli._output import clean, is_terminal, redact

__all__ = ["label", "milliseconds", "print_results"]

_LATENCIES = (
    ("TTFT", "time to first token", "ttft"),
    ("TPOT", "per output token, without the first", "tpot"),
    ("ITL", "between two tokens", "itl"),
    ("E2EL", "end to end", "e2el"),
    ("queued", "from due to sent", "queued"),
    ("E2EL+queued", "end to end, from when it was due", "e2el_queued"),
)
_ERRORS = 6
Rows = list[list[str]]


def label(plan: Plan) -> str:
    """Return the load in a few words."""
    parts = [f"{plan.request_rate:g} requests/s"] if plan.paced else []
    if plan.concurrency is not None:
        parts.append(f"concurrency {plan.concurrency}")
    return ", ".join(parts) or "all at once"


def milliseconds(seconds: float) -> str:
    """Return a latency in milliseconds, with as many digits as can matter."""
    return f"{seconds * 1000:,.2f}"


def print_results(results: Sequence[BenchResult]) -> None:
    """Print each run; of a sweep, a table with a line for each as well."""
    drawn = is_terminal(sys.stdout)
    for result in results:
        _print_block(result, drawn=drawn)
    if len(results) > 1:
        _print_table("Sweep", _sweep(results), drawn=drawn)


def _print_block(result: BenchResult, *, drawn: bool) -> None:
    _print_line(f"{result.plan.model}: {label(result.plan)}", style="bold", drawn=drawn)
    pairs = list(_pairs(result))
    width = max(len(name) for name, _ in pairs)
    for name, text in pairs:
        style = "red" if name == "errors" else ""
        _print_line(f"  {name:<{width}}  {text}", style=style, drawn=drawn)
    rows = _latencies(result)
    if len(rows) > 1:
        _print_table(None, rows, drawn=drawn)
    for warning in result.warnings:
        _print_line(f"warning: {warning}", style="yellow", drawn=drawn)
    click.echo()


def _pairs(result: BenchResult) -> Iterator[tuple[str, str]]:
    plan, client = result.plan, result.client
    yield "requests", f"{count(result.completed)} completed, {count(result.failed)} failed"
    if result.errors:
        by_number = sorted(result.errors.items(), key=lambda item: -item[1])[:_ERRORS]
        yield "errors", ", ".join(f"{kind} {count(number)}" for kind, number in by_number)
        yield "first error", next(iter(result.messages.values()))
    yield "time", duration(result.duration)
    source = {"usage": "by the server's usage", "chunks": "chunks", "both": "partly chunks"}
    told = source.get(result.token_source, "none")
    yield "tokens", f"{count(result.input_tokens)} in, {count(result.output_tokens)} out ({told})"
    yield "request throughput", f"{result.request_throughput:.2f} requests/s"
    yield "output throughput", f"{result.output_throughput:,.2f} tokens/s"
    yield "total throughput", f"{result.total_token_throughput:,.2f} tokens/s"
    if result.goodput is not None:
        slo = [
            f"{name} ≤ {value * 1000:g} ms"
            for name in plan.slo.__struct_fields__
            if (value := getattr(plan.slo, name)) is not None
        ]
        yield "goodput", f"{result.goodput:.2f} requests/s ({', '.join(slo)})"
    yield "in flight", f"{count(result.peak_in_flight)} at most"
    each = client.cpu_per_chunk
    chunks = "" if each is None else f", {each * 1e6:.0f} µs a chunk"
    yield (
        "this client",
        f"{client.cpu_share:.0%} of a core{chunks}, late by up to {duration(client.loop_lag)}",
    )


def _latencies(result: BenchResult) -> Rows:
    percents = [f"p{percent:g}" for percent in result.plan.percentiles]
    rows = [["ms", "mean", "median", "std", *percents, "max", ""]]
    for name, words, attribute in _LATENCIES:
        summary: Distribution | None = getattr(result, attribute)
        if summary is not None:
            values = [summary.mean, summary.median, summary.std, *summary.percentiles.values()]
            cells = [milliseconds(value) for value in (*values, summary.maximum)]
            rows.append([name, *cells, words])
    return rows


def _sweep(results: Sequence[BenchResult]) -> Rows:
    last = max(results[0].plan.percentiles, default=None)
    good = results[0].goodput is not None
    parts = [("ttft", "TTFT"), ("tpot", "TPOT"), ("e2el", "E2EL")]
    parts = [part for part in parts if any(getattr(result, part[0]) for result in results)]
    head = ["load", "requests/s", *(["good/s"] if good else []), "tokens/s"]
    for _, name in parts:
        head += [f"{name} median", *([f"p{last:g}"] if last is not None else [])]
    rows = [[*head, "failed", "client"]]
    for result in results:
        row = [label(result.plan), f"{result.request_throughput:.2f}"]
        row += [f"{result.goodput:.2f}"] if result.goodput is not None else []
        row.append(f"{result.output_throughput:,.1f}")
        for attribute, _ in parts:
            row += _middle_and_end(getattr(result, attribute), last)
        rows.append([*row, count(result.failed), f"{result.client.cpu_share:.0%}"])
    return rows


def _middle_and_end(summary: Distribution | None, last: float | None) -> list[str]:
    if summary is None:
        return ["-"] * (1 if last is None else 2)
    ends = [] if last is None else [summary.percentiles[last]]
    return [milliseconds(value) for value in (summary.median, *ends)]


def _print_line(text: str, *, style: str, drawn: bool) -> None:
    # A server's error message is among these lines.
    text = clean(redact(text))
    if not drawn:
        click.echo(text)
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.text import Text  # noqa: PLC0415 - rich: a pipe needs none of it

    Console(highlight=False).print(Text(text, style=style))


def _print_table(title: str | None, rows: Rows, *, drawn: bool) -> None:
    if drawn:
        _draw(title, rows)
        return
    if title is not None:
        click.echo(title)
    words = not rows[0][-1]  # the last column is text
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{row[0]:<{widths[0]}}"]
        cells += [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        if words:
            cells[-1] = row[-1]
        click.echo(f"  {'  '.join(cells)}".rstrip())


def _draw(title: str | None, rows: Rows) -> None:
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.table import Table  # noqa: PLC0415 - rich: a pipe needs none of it

    table = Table(
        title=title, title_justify="left", header_style="bold", border_style="dim",
        row_styles=("", "dim"),
    )  # fmt: skip
    words = not rows[0][-1]
    for place, name in enumerate(rows[0]):
        left = place == 0 or (words and place == len(rows[0]) - 1)
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in rows[1:]:
        # Plain str: the cells are figures and names of ours, without markup.
        table.add_row(*row)
    Console(highlight=False).print(table)
