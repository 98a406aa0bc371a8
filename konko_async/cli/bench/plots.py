"""The plots of a benchmark, by matplotlib (extra ``plot``)."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from konko_async.bench import BenchResult, Distribution
from konko_async.bench import percentile as percentile_of
from konko_async.cli._number_format import count, duration
from konko_async.cli._output import clean, redact
from konko_async.cli._plot_style import BLUE, LINE, STYLE, TEAL, heading, mark, nothing, share_of
from konko_async.cli.bench.table import label
from konko_async.cli.bulk.report_numbers import BAD, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["picture"]

_BARS: Final = (12, 40)  # at least, and at most
_LABEL: Final = 0.3  # of the width, that a label takes
_NEAR: Final = 0.03
_POINTS: Final = 60
_WIDE: Final = 30.0  # greatest to least, from which on a scale is logarithmic
_FAST: Final = 1e-6  # seconds; below it two chunks came with one read
_LAST: Final = 99.0
_PURPLE: Final = "#7d4fd1"


def picture(results: Sequence[BenchResult], kind: str = "png") -> bytes:
    """Return the plots of one run, or of a sweep.

    Args:
        results: of the runs, one at least.
        kind: ``png``, ``svg`` or ``pdf``.
    """
    panels = _SWEEP if len(results) > 1 else _SINGLE
    with mpl.rc_context(STYLE):
        # Figure, not pyplot: no window system is looked for, and no global state stays behind.
        figure = Figure(figsize=(12, 9), facecolor="white")
        heading(figure, "Benchmark", _under(results), _key_figures(results))
        grid = figure.add_gridspec(
            2, 2, left=0.075, right=0.955, top=0.735, bottom=0.075, hspace=0.42, wspace=0.2
        )
        for place, draw in enumerate(panels):
            draw(figure.add_subplot(grid[place // 2, place % 2]), results)
        file = io.BytesIO()
        # An SVG would hold the time of drawing; the same results are to give the same file.
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(file, format=kind, dpi=150, metadata=metadata)
    return file.getvalue()


def _under(results: Sequence[BenchResult]) -> str:
    first = results[0]
    load = label(first.plan) if len(results) == 1 else f"{len(results)} loads"
    parts = [first.plan.model, first.base_url, load]
    if any(result.interrupted for result in results):
        parts.append("stopped early")
    return "   ·   ".join(clean(redact(part)) for part in parts)


def _key_figures(results: Sequence[BenchResult]) -> list[tuple[str, str, str]]:
    failed = sum(result.failed for result in results)
    best = max(results, key=lambda result: result.output_throughput)
    of = "at best" if len(results) > 1 else "per second"
    busy = max(result.client.cpu_share for result in results)
    warned = any(result.client.is_bottleneck for result in results)
    figures = [
        ("completed", count(sum(result.completed for result in results)), INK),
        ("failed", count(failed), BAD if failed else INK),
        (f"requests {of}", f"{max(r.request_throughput for r in results):.3g}", INK),
        (f"tokens {of}", count(best.output_throughput), INK),
    ]
    if len(results) == 1:
        for name, attribute in (("median TTFT", "ttft"), ("median TPOT", "tpot")):
            summary = getattr(best, attribute)
            figures.append((name, "none" if summary is None else duration(summary.median), INK))
    return [*figures, ("of a core, this client", f"{busy:.0%}", BAD if warned else INK)]


# -- one run ---------------------------------------------------------------------------------------


def _ttft(axes: Axes, results: Sequence[BenchResult]) -> None:
    axes.set_title("Time to first token")
    found = [r.ttft for r in results[0].records if r.ok and r.ttft is not None]
    _distribution(axes, found, TEAL, "requests", "no answer was streamed")


def _itl(axes: Axes, results: Sequence[BenchResult]) -> None:
    axes.set_title("Inter-token latency")
    found = [gap for record in results[0].records if record.ok for gap in record.itl]
    # Gaps of 0, between chunks of one read, would leave no scale for the others; their share is in
    # the title.
    apart = [gap for gap in found if gap > _FAST]
    _distribution(axes, apart, BLUE, "tokens", "no two tokens came apart")
    if apart and len(apart) < len(found):
        share = 1 - len(apart) / len(found)
        axes.set_title(f"{share:.0%} came with the one before", loc="right", fontsize=9,
                       color=MUTED, fontweight="normal")  # fmt: skip


def _e2el(axes: Axes, results: Sequence[BenchResult]) -> None:
    axes.set_title("End-to-end latency")
    found = [record.e2el for record in results[0].records if record.ok]
    _distribution(axes, found, _PURPLE, "requests", "no request was answered")


def _distribution(axes: Axes, values: Sequence[float], colour: str, what: str, empty: str) -> None:
    """Draw a histogram; over more than a decade and a half, on a logarithmic scale."""
    if not values:
        nothing(axes, empty, MUTED)
        return
    ordered = sorted(values)
    bars = min(max(round(2 * math.sqrt(len(ordered))), _BARS[0]), _BARS[1])
    low, high = ordered[0], ordered[-1]
    wide = low > 0 and high / low > _WIDE
    if wide:
        step = math.log(high * 1.05 / low) / bars
        edges = [low * math.exp(step * place) for place in range(bars + 1)]
        axes.set_xscale("log")
    else:
        room = max((high - low) * 0.05, high * 0.02, _FAST)
        low, high = max(low - room, 0.0), high + room
        edges = [low + (high - low) * place / bars for place in range(bars + 1)]
    axes.hist(ordered, bins=edges, color=colour, alpha=0.85, edgecolor="white", linewidth=0.7)
    axes.set_xlim(edges[0], edges[-1])
    # Room above the bars for the labels of the percentiles.
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    median, last = (percentile_of(ordered, percent) for percent in (50.0, _LAST))
    middle = share_of(axes, median)
    # The label must not run into the other line.
    close = share_of(axes, last) - middle < _LABEL < middle
    mark(axes, median, "median", height=0.9, left=close or None)
    mark(axes, last, "p99", height=0.99)
    _seconds(axes, wide=wide)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.set_ylabel(what, fontsize=9)


def _seconds(axes: Axes, *, wide: bool) -> None:
    if wide:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=10))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(_duration))


def _duration(value: float, _: object) -> str:
    return duration(value) if value > 0 else "0"


def _over_time(axes: Axes, results: Sequence[BenchResult]) -> None:
    """Tokens a second, and beside them the requests in flight."""
    axes.set_title("Throughput, tokens per second")
    result = results[0]
    good = [record for record in result.records if record.ok]
    if not good or result.duration <= 0:
        nothing(axes, "nothing was answered", MUTED)
        return
    width = result.duration / _POINTS
    tokens, flights = [0.0] * _POINTS, [0.0] * _POINTS
    for record in good:
        each = record.output_tokens / len(record.times)  # a chunk may bring more than one
        for seconds in record.times:
            place = int((record.started + seconds) / width)
            # The last chunk comes at the very end, which would be one interval too many.
            tokens[min(place, _POINTS - 1)] += each / width
    for record in result.records:
        for place in range(_POINTS):
            begin, end = place * width, (place + 1) * width
            share = min(record.ended, end) - max(record.started, begin)
            flights[place] += max(share, 0.0) / width
    middles = [(place + 0.5) * width for place in range(_POINTS)]
    axes.fill_between(middles, tokens, color=BLUE, alpha=0.14, linewidth=0)
    axes.plot(middles, tokens, color=BLUE, linewidth=1.8, solid_capstyle="round")
    axes.set_xlim(0, result.duration)
    axes.set_ylim(0, max(tokens) * 1.15 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.xaxis.set_major_formatter(FuncFormatter(_duration))
    _flights(axes, middles, flights)


def _flights(axes: Axes, middles: Sequence[float], flights: Sequence[float]) -> None:
    beside = axes.twinx()
    beside.plot(middles, flights, color=MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    beside.set_ylim(0, max(flights) * 1.15 or 1)
    beside.grid(visible=False)
    beside.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    beside.set_ylabel("requests in flight (dashed)", fontsize=9)


# -- a sweep ---------------------------------------------------------------------------------------


def _by_load(axes: Axes, results: Sequence[BenchResult]) -> None:
    """Output tokens a second by load."""
    paced = len({result.plan.request_rate for result in results}) > 1
    axes.set_title("Throughput by load")
    loads = [_load(result, paced=paced) for result in results]
    values = [result.output_throughput for result in results]
    _line(axes, loads, values, BLUE, "output tokens/s")
    axes.set_xlabel("requests/s asked for" if paced else "concurrency", fontsize=9)
    axes.set_ylabel("output tokens per second", fontsize=9)
    axes.set_ylim(0, max(values) * 1.18 or 1)
    if min(loads) > 0 and max(loads) / min(loads) >= 8:  # noqa: PLR2004 - as sweeps by doubling do
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(loads, [f"{load:g}" for load in loads])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _load(result: BenchResult, *, paced: bool) -> float:
    return result.plan.request_rate if paced else float(result.plan.concurrency or 0)


def _curve(attribute: str, title: str) -> Callable[[Axes, Sequence[BenchResult]], None]:
    """Make the drawing of a latency against throughput."""

    def draw(axes: Axes, results: Sequence[BenchResult]) -> None:
        axes.set_title(f"{title} by throughput")
        found: list[tuple[BenchResult, Distribution]] = []
        for result in results:
            summary = getattr(result, attribute)
            if summary is not None:
                found.append((result, summary))
        if not found:
            nothing(axes, "not measured", MUTED)
            return
        speeds = [result.output_throughput for result, _ in found]
        last = max(results[0].plan.percentiles, default=None)
        if last is not None:
            ends = [summary.percentiles[last] for _, summary in found]
            _line(axes, speeds, ends, LINE, f"p{last:g}")
        medians = [summary.median for _, summary in found]
        _line(axes, speeds, medians, TEAL, "median")
        axes.set_ylim(0, axes.get_ylim()[1] * 1.15)
        axes.set_xlim(0, max(speeds) * 1.06 or 1)
        _name_points(axes, [result for result, _ in found], speeds, medians)
        axes.legend(facecolor="white", edgecolor="none", framealpha=0.9, fontsize=9, ncols=2,
                    loc="upper left", labelcolor=MUTED, bbox_to_anchor=(-0.02, 1.03),
                    handlelength=1.4)  # fmt: skip
        axes.set_xlabel("output tokens per second", fontsize=9)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(_duration))

    return draw


def _name_points(
    axes: Axes, results: Sequence[BenchResult], across: Sequence[float], up: Sequence[float]
) -> None:
    """Write the load beside each point; those of points that fall together share a place."""
    paced = len({result.plan.request_rate for result in results}) > 1
    (left, right), (_, top) = axes.get_xlim(), axes.get_ylim()
    places: list[tuple[float, float, list[str]]] = []
    for result, x, y in zip(results, across, up, strict=True):
        name = f"{_load(result, paced=paced):g}"
        for at, height, names in places:
            if abs(at - x) < _NEAR * (right - left) and abs(height - y) < _NEAR * top:
                names.append(name)
                break
        else:
            places.append((x, y, [name]))
    for x, y, names in places:
        axes.annotate(", ".join(names), (x, y), (0, 7), textcoords="offset points", ha="center",
                      color=MUTED, fontsize=8,
                      bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6},
                      )  # fmt: skip


def _line(axes: Axes, across: Sequence[float], up: Sequence[float], colour: str, name: str) -> None:
    axes.plot(across, up, color=colour, linewidth=1.8, marker="o", markersize=5, label=name,
              markeredgecolor="white", solid_capstyle="round", clip_on=False)  # fmt: skip


_SINGLE = (_ttft, _itl, _over_time, _e2el)
_SWEEP = (
    _by_load,
    _curve("ttft", "Time to first token"),
    _curve("tpot", "Time per output token"),
    _curve("e2el", "End-to-end latency"),
)
