"""The plots of a report, by matplotlib (extra ``plot``)."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from konko_async.batch import BatchReport, Histogram
from konko_async.cli._number_format import count, duration
from konko_async.cli._output import clean, redact
from konko_async.cli._plot_style import BLUE, LINE, STYLE, TEAL, heading, mark, nothing
from konko_async.cli.bulk.report_numbers import BAD, GOOD, INK, MUTED, key_figures, speeds, subtitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PANELS", "picture", "svg"]

_KINDS: Final = 8
_DECADE: Final = 20  # buckets of a Histogram


def _latency(axes: Axes, report: BatchReport) -> None:
    axes.set_title("Latency")
    _histogram(axes, report.latency, BLUE, "no call was answered")


def _first_token(axes: Axes, report: BatchReport) -> None:
    axes.set_title("Time to first token")
    _histogram(axes, report.first_token, TEAL, "the calls were not streamed")


def _throughput(axes: Axes, report: BatchReport) -> None:
    found = speeds(report)
    if not found.seconds:
        axes.set_title("Throughput")
        nothing(axes, "nothing was finished", MUTED)
        return
    if any(found.tokens_out):
        axes.set_title("Throughput, tokens per second")
        lines = [("in", found.tokens_in, LINE, MUTED), ("out", found.tokens_out, BLUE, BLUE)]
    else:  # the server reports no tokens
        axes.set_title("Throughput, rows per second")
        lines = [("rows", found.rows, BLUE, BLUE)]
    for name, values, colour, label in lines:
        axes.fill_between(found.seconds, values, color=colour, alpha=0.14, linewidth=0)
        axes.plot(found.seconds, values, color=colour, linewidth=1.8, solid_capstyle="round")
        place = (found.seconds[-1], values[-1])
        axes.annotate(
            name, place, (5, 0), textcoords="offset points", va="center", color=label, fontsize=9
        )
    axes.set_xlim(0, found.seconds[-1])
    # ``or 1``: matplotlib warns of an axis from 0 to 0.
    axes.set_ylim(0, max(max(values) for _, values, _, _ in lines) * 1.12 or 1)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: duration(value) if value else "0")
    )


def _errors(axes: Axes, report: BatchReport) -> None:
    axes.set_title("Errors by kind")
    axes.grid(visible=False)
    if not report.errors:
        nothing(axes, "no row failed", GOOD)
        return
    found = sorted(report.errors.items(), key=lambda item: item[1])
    kinds = found[-_KINDS:]
    # The rarest kinds share a bar, since the panel has room for few.
    if rest := sum(number for _, number in found[:-_KINDS]):
        kinds.insert(0, ("other", rest))
    numbers = [number for _, number in kinds]
    bars = axes.barh(range(len(kinds)), numbers, color=BAD, height=0.3)
    axes.bar_label(bars, [count(number) for number in numbers], padding=5, color=INK, fontsize=9)
    for place, (kind, _) in enumerate(kinds):
        # The server's word, as a rule; matplotlib repeats in a warning what it has no glyph for.
        label = clean(redact(kind)).replace("_", " ")[:60]
        axes.annotate(label, (0, place + 0.24), va="bottom", color=MUTED)
    # Room for five bars at least, or a single one would fill the panel.
    axes.set_ylim(min(len(kinds) - 5, 0) - 0.4, len(kinds) - 0.3)
    axes.set_xlim(0, max(numbers) * 1.15)
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["bottom"].set_visible(False)


PANELS: Final[Mapping[str, Callable[[Axes, BatchReport], None]]] = {
    "latency": _latency,
    "first_token": _first_token,
    "throughput": _throughput,
    "errors": _errors,
}
"""The plots, in their order."""


def _histogram(axes: Axes, histogram: Histogram, colour: str, empty: str) -> None:
    if not histogram.total:
        nothing(axes, empty, MUTED)
        return
    filled = [place for place, number in enumerate(histogram.counts) if number]
    first, last = max(filled[0] - 2, 0), filled[-1] + 3
    # Over many decades, bars of two buckets each are easier to read.
    step = 2 if last - first > 2 * _DECADE else 1
    places = range(first, last, step)
    edges = [histogram.edge(place) for place in places]
    widths = [histogram.edge(place + step) - histogram.edge(place) for place in places]
    numbers = [sum(histogram.counts[place : place + step]) for place in places]
    axes.set_xscale("log")
    axes.bar(edges, numbers, widths, align="edge", color=colour, alpha=0.85, edgecolor="white",
             linewidth=0.7)  # fmt: skip
    top = max(numbers)
    axes.set_ylim(0, top * 1.3)
    axes.set_xlim(histogram.edge(first), histogram.edge(last))
    # At two heights: where the times are close, the labels would lie on each other.
    for share, name, height in ((0.5, "median", 0.9), (0.99, "99 %", 0.99)):
        mark(axes, histogram.percentile(share) or histogram.edge(0), name, height=height)
    # Over more than two decades, labels at 2 and 5 would run into each other.
    subs = (1.0, 2.0, 5.0) if last - first < 2 * _DECADE else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.set_ylabel("calls", fontsize=9)


def svg(report: BatchReport, panel: str) -> str:
    """Return one plot as an SVG element, with a transparent background."""
    with mpl.rc_context(STYLE):
        # A Figure of its own, without pyplot: no window system, and no state that others share.
        figure = Figure(figsize=(5.6, 3.1), layout="constrained")
        PANELS[panel](figure.subplots(), report)
        file = io.StringIO()
        # Without the date, the same report gives the same page.
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    # What stands before it, an XML declaration, is not allowed within HTML.
    return text[text.index("<svg") :]


def picture(report: BatchReport, title: str) -> bytes:
    """Return the whole report as a PNG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 9), facecolor="white")
        heading(figure, title, subtitle(report), key_figures(report))
        grid = figure.add_gridspec(
            2, 2, left=0.06, right=0.955, top=0.735, bottom=0.06, hspace=0.42, wspace=0.17
        )
        for place, draw in enumerate(PANELS.values()):
            axes = figure.add_subplot(grid[place // 2, place % 2])
            draw(axes, report)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
