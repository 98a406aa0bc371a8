"""Prints what a run has done, in a few lines on standard error."""

from __future__ import annotations

from collections.abc import Iterator

import click

from konko_async.batch import BatchReport, Estimate, Histogram
from konko_async.cli._number_format import count, duration, money
from konko_async.cli._output import clean, note, redact

__all__ = ["print_calls", "print_estimate", "print_summary"]

_REASONS = {
    "stopped": "stopped",
    "cancelled": "cancelled",
    "limit": "--limit was reached",
    "max_cost": "--max-cost was reached",
    "max_tokens_total": "--max-tokens-total was reached",
    "max_failures": "too many rows failed",
    "jobs_cancelled": "the jobs were cancelled",
    "ended": "the run was ended",
}
_ERRORS = 6


def print_summary(report: BatchReport, *, where: str) -> None:
    """Print what was done and what is left."""
    note(f"{where}: {_counts(report, 'rows')}")
    _print_lines(report, "rows")
    if report.left:
        _print("next", f"run the same command again for the {count(report.left)} rows left")


def _counts(report: BatchReport, what: str) -> str:
    """Account for every row: the numbers add up to those of the input."""
    parts = [f"{count(report.answered)} {what} answered"]
    if report.empty:
        parts.append(f"{count(report.empty)} empty")
    # Invalid rows count as failed in a report; here each row is to be counted once.
    parts.append(f"{count(report.failed - report.invalid)} failed")
    if report.invalid:
        parts.append(f"{count(report.invalid)} invalid")
    if report.left:
        parts.append(f"{count(report.left)} left")
    of = "" if report.rows is None else f" (of {count(report.rows)})"
    return ", ".join(parts) + of


def print_calls(report: BatchReport) -> None:
    """Print what the calls took, for a command whose results are something else."""
    _print("calls", _counts(report, "calls"))
    _print_lines(report, "calls")


def _print_lines(report: BatchReport, what: str) -> None:
    for name, text in _lines(report, what):
        _print(name, text)


def _print(name: str, text: str) -> None:
    # Kinds of errors are codes of the server, which may hold anything.
    click.echo(clean(redact(f"  {name:<9} {text}")), err=True)


def _lines(report: BatchReport, what: str) -> Iterator[tuple[str, str]]:
    if report.resumed:
        yield "before", f"{count(report.resumed)} of them by earlier runs"
    if report.left or report.stopped:
        # A pipe that was not read to its end: nothing says how many rows were still to come.
        left = "some" if report.left is None else count(report.left)
        yield "left", f"{left} {what} ({_REASONS.get(report.stopped or '', 'the run was ended')})"
    yield "time", f"{duration(report.elapsed)}, {report.rows_per_second:.3g} {what} a second"
    yield from _answers(report, what)
    yield "tokens", _tokens(report)
    yield "cost", _cost(report, what)
    if report.retried or report.rate_limited:
        yield "retries", f"{count(report.retried)}; answers with 429: {count(report.rate_limited)}"
    if report.endpoints:
        yield "endpoints", _endpoints(report.endpoints)
    if report.repeated:
        yield "workers", f"{count(report.repeated)} {what} were given out again, as theirs died"
    for name, histogram in (("latency", report.latency), ("1st token", report.first_token)):
        if histogram.total:
            yield name, _spread(histogram)
    if report.errors:
        yield "errors", _errors(report.errors)


def _answers(report: BatchReport, what: str) -> Iterator[tuple[str, str]]:
    if report.cut:
        yield "cut", f'{count(report.cut)} answers were cut at max_tokens (finish_reason "length")'
    if report.filtered:
        yield (
            "filtered",
            f"{count(report.filtered)} answers were cut or refused by a content filter",
        )
    if report.from_cache:
        yield "cache", f"{count(report.from_cache)} {what} were answered by it, at no cost"


def _tokens(report: BatchReport) -> str:
    ins, outs = f"{count(report.prompt_tokens)} in", f"{count(report.completion_tokens)} out"
    if report.cached_tokens:
        ins += f" ({count(report.cached_tokens)} cached)"
    if report.reasoning_tokens:
        outs += f" ({count(report.reasoning_tokens)} reasoning)"
    return f"{ins}, {outs}"


def _cost(report: BatchReport, what: str) -> str:
    if report.cost is None:
        return "unknown: the server's model list names no price; see --price-in and --price-out"
    text = money(report.cost, report.currency)
    return (
        f"{text}, and {count(report.unpriced)} {what} without a price" if report.unpriced else text
    )


def _spread(histogram: Histogram) -> str:
    shares = ((0.5, "median"), (0.9, "90 %"), (0.99, "99 %"))
    parts = [f"{name} {duration(histogram.percentile(share) or 0)}" for share, name in shares]
    return ", ".join([*parts, f"longest {duration(histogram.max)}"])


def _endpoints(endpoints: dict[str, tuple[int, int]]) -> str:
    parts = [
        f"{name} {count(made)}" + (f" ({count(failed)} failed)" if failed else "")
        for name, (made, failed) in sorted(endpoints.items())
    ]
    return ", ".join(parts)


def _errors(errors: dict[str, int]) -> str:
    by_number = sorted(errors.items(), key=lambda item: -item[1])
    parts = [f"{kind} {count(number)}" for kind, number in by_number[:_ERRORS]]
    return ", ".join([*parts, *(["..."] if len(by_number) > _ERRORS else [])])


def print_estimate(
    estimate: Estimate, *, done: int, what: str = "rows", more: str | None = None
) -> None:
    """Print what a run would take.

    Args:
        estimate: the numbers.
        done: rows that are in the output already.
        what: is counted.
        more: what the estimate leaves out.
    """
    note(f"a run would send {count(estimate.rows)} {what}; nothing was sent")
    lines = [
        ("done", f"{count(done)} {what} by earlier runs" if done else None),
        ("models", ", ".join(f"{name} ({count(n)})" for name, n in estimate.models.items())),
        (
            "tokens",
            f"about {count(estimate.prompt_tokens)} in, up to {count(estimate.max_tokens)} out",
        ),
        ("cost", _estimated_cost(estimate)),
        ("time", _estimated_time(estimate)),
        ("more", more),
    ]
    for name, text in lines:
        if text:
            _print(name, text)


def _estimated_cost(estimate: Estimate) -> str:
    if estimate.cost is not None:
        return f"up to {money(estimate.cost, estimate.currency)}"
    names = ", ".join(estimate.unpriced_models[:3])
    return f"unknown: no price is known for {names}" if names else "unknown"


def _estimated_time(estimate: Estimate) -> str:
    if estimate.seconds is None:
        return "unknown: no --rpm or --tpm limits it"
    return f"about {duration(estimate.seconds)} at the limits"
