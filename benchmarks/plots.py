"""The plots of the README: what a token costs everyone, and how cost grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt

from benchmarks.results import Curve, Figure, Results, short

# Okabe and Ito's palette, which colour-blind readers can tell apart; ours always in the first.
OURS, HAND, PEER, FLOOR = "#0072B2", "#E69F00", "#999999", "#009E73"
PANELS = (
    (
        "One stream, 20 tokens a write",
        "µs of CPU per chunk",
        "burst",
        ("20 a write, as fast as read", "as fast as read, beside peers"),
    ),
    (
        "1,000 streams of 50 tokens a second",
        "µs of CPU per chunk",
        "paced",
        ("whole streams", "beside peers"),
    ),
    (
        "Whole answers, 100 at once",
        "µs of CPU per request",
        "whole",
        ("100 at once", "beside peers"),
    ),
    ("1,000 open streams", "MB of memory, at the peak", "memory", ("peak, 1,000 streams",)),
)
STYLE = {
    "figure.dpi": 150, "figure.facecolor": "white", "axes.facecolor": "white", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10,
    "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.grid": True,
    "grid.color": "#e5e5e5", "axes.axisbelow": True, "legend.frameon": False,
}  # fmt: skip


def colour(who: str) -> str:
    """Return the colour of a rival."""
    if who.startswith(("konko_async", "run_batch")):
        return OURS
    if who.startswith("hand"):
        return HAND
    return FLOOR if who.startswith(("floor", "pyreqwest")) else PEER


def bars(axes: Any, figures: dict[str, Figure]) -> None:
    """Draw medians as bars, quartiles as whiskers."""
    ranked = sorted(figures.values(), key=lambda figure: -figure.middle[0])
    for at, figure in enumerate(ranked):
        mid, low, high = figure.middle
        axes.barh(at, mid, color=colour(figure.who), height=0.7)
        axes.plot([low, high], [at, at], color="black", linewidth=1)
        axes.annotate(
            short(mid), (max(mid, high), at), xytext=(4, 0), textcoords="offset points", va="center"
        )
    axes.set_yticks(range(len(ranked)), [figure.who for figure in ranked])
    # Logarithmic, as the longest bar is a hundred times the shortest. Each bar begins at a tenth of
    # the least value, so that the shortest can be seen, too.
    axes.set_xscale("log")
    least, most = ranked[-1].middle[0], ranked[0].middle[0]
    axes.set_xlim(least / 10, most * 3)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.grid(visible=False, axis="y")


def cost(results: Results, folder: Path) -> None:
    """Draw what everyone needs, as far as it was measured."""
    panels = []
    for title, unit, question, whats in PANELS:
        found: dict[str, Figure] = {}
        for figure in results.figures:
            if figure.question == question and figure.what in whats:
                found.setdefault(figure.who, figure)  # the first: that of more rounds
        if found:
            panels.append((title, unit, found))
    if not panels:
        return
    heights = [len(found) for _, _, found in panels]
    figure, axes = plt.subplots(
        len(panels), figsize=(8, 0.27 * sum(heights) + 0.95 * len(panels)),
        gridspec_kw={"height_ratios": heights}, squeeze=False,
    )  # fmt: skip
    for one, (title, unit, found) in zip(axes[:, 0], panels, strict=True):
        bars(one, found)
        one.set_title(title)
        one.set_xlabel(f"{unit} (less is better; logarithmic)")
    save(figure, folder / "cost.png")


def lines(axes: Any, curves: list[Curve]) -> None:
    """Draw curves over the same x, on logarithmic scales, with the exponents of their fits."""
    for curve in curves:
        xs, ys = zip(*curve.points, strict=True)
        label = f"{curve.who} (exponent {curve.exponent:.2f}: {curve.verdict})"
        marker = "o" if colour(curve.who) == OURS else "s"
        axes.plot(xs, ys, marker=marker, markersize=4, color=colour(curve.who), label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    tops = [y for curve in curves for _, y in curve.points]
    axes.set_ylim(min(tops) / 4, max(tops) * 6)  # so that what is flat looks flat
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        axis.set_minor_formatter("")
    axes.set_xlabel(curves[0].x)
    axes.set_ylabel(curves[0].y)
    axes.legend(fontsize=7)


def growth(results: Results, folder: Path) -> None:
    """Draw all curves."""
    groups: dict[tuple[str, str], list[Curve]] = {}
    for curve in results.curves:
        groups.setdefault((curve.x, curve.y), []).append(curve)
    if not groups:
        return
    rows = (len(groups) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(10, 3.2 * rows), squeeze=False)
    for one in axes.flat[len(groups) :]:
        one.set_visible(False)
    for one, ((x, y), curves) in zip(axes.flat, groups.items(), strict=False):
        lines(one, curves)
        one.set_title(f"{y} over {x}")
    save(figure, folder / "growth.png")


def save(figure: Any, path: Path) -> None:
    """Write a plot and forget it."""
    figure.tight_layout()
    # Without the version of the library in it, the same samples make the same file.
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw(results: Results, folder: Path) -> None:
    """Draw both plots into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(STYLE):
        cost(results, folder)
        growth(results, folder)
