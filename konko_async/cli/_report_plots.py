"""The plots of a report, by matplotlib (extra ``plot``)."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from konko_async.batch import BatchReport, Histogram
from konko_async.cli._figures import count, duration
from konko_async.cli._report_numbers import BAD, GOOD, INK, MUTED, key_figures, speeds, subtitle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PANELS", "picture", "svg"]

_BLUE, _TEAL, _PALE, _LINE = "#2f6bde", "#0f9d8a", "#dfe5ee", "#c3ccd8"
_KINDS: Final = 8
_LARGE: Final = 8  # characters of a figure in large print
_DECADE: Final = 20  # buckets of a Histogram
# Any: to matplotlib's annotations, the keys are one literal of 300 names.
_STYLE: Any = {
    # The page's own font where a browser draws; matplotlib measures with the last one.
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "konko-async",
    "text.color": INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _PALE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "xtick.major.width": 0.8,
}


def _latency(axes: Axes, report: BatchReport) -> None:
    axes.set_title("Latency")
    _histogram(axes, report.latency, _BLUE, "no call was answered")


def _first_token(axes: Axes, report: BatchReport) -> None:
    axes.set_title("Time to first token")
    _histogram(axes, report.first_token, _TEAL, "the calls were not streamed")


def _throughput(axes: Axes, report: BatchReport) -> None:
    found = speeds(report)
    if not found.seconds:
        axes.set_title("Throughput")
        _nothing(axes, "nothing was finished", MUTED)
        return
    if any(found.tokens_out):
        axes.set_title("Throughput, tokens per second")
        lines = [("in", found.tokens_in, _LINE, MUTED), ("out", found.tokens_out, _BLUE, _BLUE)]
    else:  # the server tells of no tokens
        axes.set_title("Throughput, rows per second")
        lines = [("rows", found.rows, _BLUE, _BLUE)]
    for name, values, colour, label in lines:
        axes.fill_between(found.seconds, values, color=colour, alpha=0.14, linewidth=0)
        axes.plot(found.seconds, values, color=colour, linewidth=1.8, solid_capstyle="round")
        place = (found.seconds[-1], values[-1])
        axes.annotate(
            name, place, (5, 0), textcoords="offset points", va="center", color=label, fontsize=9
        )
    axes.set_xlim(0, found.seconds[-1])
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
        _nothing(axes, "no row failed", GOOD)
        return
    found = sorted(report.errors.items(), key=lambda item: item[1])
    kinds = found[-_KINDS:]
    if rest := sum(number for _, number in found[:-_KINDS]):
        kinds.insert(0, ("other", rest))
    numbers = [number for _, number in kinds]
    bars = axes.barh(range(len(kinds)), numbers, color=BAD, height=0.3)
    axes.bar_label(bars, [count(number) for number in numbers], padding=5, color=INK, fontsize=9)
    for place, (kind, _) in enumerate(kinds):
        axes.annotate(kind.replace("_", " ")[:60], (0, place + 0.24), va="bottom", color=MUTED)
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
        _nothing(axes, empty, MUTED)
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
    for share, name, height in ((0.5, "median", 0.9), (0.99, "99 %", 0.99)):
        _mark(axes, histogram.percentile(share) or histogram.edge(0), name, height=height)
    subs = (1.0, 2.0, 5.0) if last - first < 2 * _DECADE else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.set_ylabel("calls", fontsize=9)


def _mark(axes: Axes, seconds: float, name: str, *, height: float) -> None:
    """Draw a line at a percentile, with its label beside the upper end."""
    axes.axvline(seconds, ymax=height, color=INK, linewidth=1, linestyle=(0, (3, 3)))
    low, high = axes.get_xlim()
    # On the side where there is room.
    left = math.log(seconds / low) > 0.7 * math.log(high / low)
    axes.annotate(
        f"{name} {duration(seconds)}",
        (seconds, height),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if left else 5, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        fontsize=9,
        color=INK,
    )


def _nothing(axes: Axes, text: str, colour: str) -> None:
    axes.grid(visible=False)
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["bottom"].set_visible(False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=colour, fontsize=11)


def svg(report: BatchReport, panel: str) -> str:
    """Return one plot as an SVG element, with a transparent background."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.6, 3.1), layout="constrained")
        PANELS[panel](figure.subplots(), report)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def picture(report: BatchReport, title: str) -> bytes:
    """Return the whole report as a PNG."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(12, 9), facecolor="white")
        _heading(figure, report, title)
        grid = figure.add_gridspec(
            2, 2, left=0.06, right=0.955, top=0.735, bottom=0.06, hspace=0.42, wspace=0.17
        )
        for place, draw in enumerate(PANELS.values()):
            axes = figure.add_subplot(grid[place // 2, place % 2])
            draw(axes, report)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


def _heading(figure: Figure, report: BatchReport, title: str) -> None:
    left, right = 0.06, 0.955
    figure.text(left, 0.945, title, fontsize=20, fontweight="bold", va="center")
    figure.text(left, 0.908, subtitle(report), fontsize=10.5, color=MUTED, va="center")
    figures = key_figures(report)
    step = (right - left) / len(figures)
    for place, (name, value, colour) in enumerate(figures):
        x = left + place * step
        size = 16 if len(value) <= _LARGE else 12.5
        figure.text(x, 0.853, value, fontsize=size, fontweight="bold", color=colour, va="center")
        figure.text(x, 0.823, name, fontsize=9.5, color=MUTED, va="center")
    # A rule between the figures and the plots.
    line = mpl.lines.Line2D([left, right], [0.795, 0.795], color=_PALE, linewidth=1)
    figure.add_artist(line)
