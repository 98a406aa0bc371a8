"""Works out the numbers and words of a report; how they look is decided elsewhere."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from konko_async.batch import BatchReport, Sample
from konko_async.cli._number_format import count, duration, money
from konko_async.cli._output import clean, redact

__all__ = ["BAD", "GOOD", "INK", "MUTED", "Speeds", "key_figures", "speeds", "subtitle"]

INK, MUTED, GOOD, BAD = "#18212f", "#677284", "#12805c", "#cf3f3f"
# Points of a curve: at most, and at least however few the rows are.
_POINTS: Final = 80
_FEW: Final = 6
_ROWS: Final = 3  # to a point at least, or all that is seen is single rows
_REASONS: Final = {
    "stopped": "stopped",
    "cancelled": "cancelled",
    "limit": "ended at its limit of rows",
    "max_cost": "ended at its limit of cost",
    "max_tokens_total": "ended at its limit of tokens",
    "max_failures": "ended, as too many rows failed",
    "ended": "ended early",
}


class Speeds(msgspec.Struct, frozen=True):
    """What was done per second, over a run.

    Attributes:
        seconds: since its beginning.
        rows: finished per second.
        tokens_in: of prompts, per second.
        tokens_out: of answers, per second.
    """

    seconds: list[float]
    rows: list[float]
    tokens_in: list[float]
    tokens_out: list[float]


def speeds(report: BatchReport) -> Speeds:
    """Return the speeds over a run, at no more moments than a plot can show."""
    found = Speeds([], [], [], [])
    kept = _thinned([sample for sample in report.history if sample.seconds >= 0])
    for then, now in pairwise(kept):
        seconds = now.seconds - then.seconds
        # A step: a point at each of its ends would draw edges that nobody measured.
        found.seconds.append((then.seconds + now.seconds) / 2)
        found.rows.append((now.done - then.done) / seconds)
        found.tokens_in.append((now.prompt_tokens - then.prompt_tokens) / seconds)
        found.tokens_out.append((now.completion_tokens - then.completion_tokens) / seconds)
    if found.seconds:
        for values in (found.rows, found.tokens_in, found.tokens_out):
            # The points lie in the middle of their steps: one more at
            # each end lets the curve span the run.
            values[:] = [values[0], *values, values[-1]]
        found.seconds[:] = [0.0, *found.seconds, kept[-1].seconds]
    # A line at 0 shows nothing; without points, the plot says so in words.
    return found if any(found.rows) else Speeds([], [], [], [])


def _thinned(samples: list[Sample]) -> list[Sample]:
    """Keep samples at least one step apart, and the last one."""
    if not samples or samples[-1].seconds <= 0:
        return []
    end = samples[-1].seconds
    step = end / min(max(samples[-1].done // _ROWS, _FEW), _POINTS)
    kept = [samples[0]]
    for sample in samples[1:-1]:
        # None shortly before the last one: a speed over so short a time would be a spike.
        if step <= sample.seconds - kept[-1].seconds and end - sample.seconds >= step / 2:
            kept.append(sample)
    return [*kept, samples[-1]] if end > kept[-1].seconds else kept


def key_figures(report: BatchReport) -> list[tuple[str, str, str]]:
    """Return name, value and colour of the figures that come first."""
    median = report.latency.percentile(0.5)
    cost = money(report.cost, report.currency)
    if report.cost is not None and report.unpriced:
        cost += "+"  # rows without a price are not in it
    return [
        ("answered", count(report.answered), INK),
        ("failed", count(report.failed), BAD if report.failed else INK),
        ("time of this run", duration(report.elapsed), INK),
        ("per second", f"{report.rows_per_second:.3g}", INK),
        ("tokens in", _short(report.prompt_tokens), INK),
        ("tokens out", _short(report.completion_tokens), INK),
        ("cost", cost, MUTED if report.cost is None else INK),
        ("median latency", duration(median) if median is not None else "none", INK),
    ]


def _short(number: int) -> str:
    for size, name in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            return f"{number / (1000 if name == 'k' else size):.3g} {name}"
    return count(number)


def subtitle(report: BatchReport) -> str:
    """Return the line below the title: from where to where, and how it ended."""
    parts = [f"{_name(report.input)}  →  {_name(report.output)}"]
    if report.rows is not None:
        parts.append(f"{count(report.done)} of {count(report.rows)} done")
    if report.resumed:
        parts.append(f"{count(report.resumed)} by earlier runs")
    if report.stopped:
        parts.append(_REASONS[report.stopped])
    if report.retried or report.rate_limited:
        parts.append(
            f"{count(report.retried)} retries, {count(report.rate_limited)} answers with 429"
        )
    return "   ·   ".join(clean(redact(part)) for part in parts)


def _name(path: str) -> str:
    return {"-": "pipe"}.get(path, Path(path).name)
