"""Merges the batch reports of a run's rounds into one report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from konko_async.batch import BatchReport, Histogram, Sample

__all__ = ["merge_reports", "no_report"]

_SUMS = (
    # Only fields that add up over rounds. What describes the end of the run (`stopped` and the
    # like) is that of the last report; latencies and histories are merged by functions of their
    # own.
    "done", "failed", "invalid", "resumed", "finished", "retried", "rate_limited",
    "prompt_tokens", "completion_tokens", "unpriced", "elapsed",
)  # fmt: skip


def merge_reports(reports: Sequence[BatchReport], *, output: str) -> BatchReport:
    """Return one report of runs that followed each other."""
    last = reports[-1]
    sums = {name: sum(getattr(report, name) for report in reports) for name in _SUMS}
    costs = [report.cost for report in reports if report.cost is not None]
    errors: dict[str, int] = {}
    for report in reports:
        for kind, number in report.errors.items():
            errors[kind] = errors.get(kind, 0) + number
    return msgspec.structs.replace(
        last,
        **sums,
        input="documents",
        output=output,
        rows=_total([report.rows for report in reports]),
        left=_total([report.left for report in reports]),
        # None, not 0.0, where no round has a price: a report must not say that an unpriced run was
        # free.
        cost=sum(costs) if costs else None,
        currency=next((report.currency for report in reports if report.currency), None),
        rows_per_second=sums["finished"] / sums["elapsed"] if sums["elapsed"] else 0.0,
        errors=errors,
        latency=_together([report.latency for report in reports]),
        first_token=_together([report.first_token for report in reports]),
        history=tuple(_history(reports)),
    )


def no_report(output: str, *, stopped: bool = False) -> BatchReport:
    """Return the report of a run without a call."""
    counts: dict[str, Any] = dict.fromkeys(("rows", "left", *_SUMS), 0)
    times: dict[str, Any] = {"elapsed": 0.0, "rows_per_second": 0.0}
    empty: dict[str, Any] = {"latency": Histogram(), "first_token": Histogram(), "history": ()}
    return BatchReport(
        input="documents",
        output=output,
        cost=None,
        currency=None,
        stopped="stopped" if stopped else None,
        errors={},
        **{**counts, **times, **empty},
    )


def _total(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    # One unknown number makes the total unknown; a sum of the others would look exact.
    return sum(known) if len(known) == len(numbers) else None


def _together(histograms: Sequence[Histogram]) -> Histogram:
    # A copy: the reports of the rounds stay as they are, and may be merged again after an error.
    whole = histograms[0].copy()
    for histogram in histograms[1:]:
        whole.counts = [a + b for a, b in zip(whole.counts, histogram.counts, strict=True)]
        whole.total += histogram.total
        whole.sum += histogram.sum
        whole.max = max(whole.max, histogram.max)
    return whole


def _history(reports: Sequence[BatchReport]) -> list[Sample]:
    """Concatenate the histories; counters and seconds continue from the round before."""
    whole: list[Sample] = []
    before = Sample(0.0, 0, 0, 0, 0, 0, 0)
    for report in reports:
        whole += [_after(before, sample) for sample in report.history]
        before = whole[-1] if whole else before
    return whole


def _after(before: Sample, sample: Sample) -> Sample:
    return Sample(
        before.seconds + sample.seconds,
        before.done + sample.done,
        before.failed + sample.failed,
        before.prompt_tokens + sample.prompt_tokens,
        before.completion_tokens + sample.completion_tokens,
        before.rate_limited + sample.rate_limited,
        # A gauge, not a counter: calls in flight at that moment.
        sample.in_flight,
    )
