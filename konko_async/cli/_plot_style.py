"""The style of plots in reports: colours, fonts, and the parts that they share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.ticker import NullLocator

from konko_async.cli._number_format import duration
from konko_async.cli.bulk.report_numbers import INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLUE", "LINE", "PALE", "STYLE", "TEAL", "heading", "mark", "nothing", "share_of"]

BLUE, TEAL, PALE, LINE = "#2f6bde", "#0f9d8a", "#dfe5ee", "#c3ccd8"
_LARGE: Final = 8  # characters of a figure in large print
# Any: to matplotlib's annotations, the keys are one literal of 300 names.
STYLE: Any = {
    # The page's own font where a browser draws; matplotlib measures with the last one.
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Segoe UI", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10,
    "svg.fonttype": "none",
    # matplotlib's ids are random without it: the same results are to give the same file.
    "svg.hashsalt": "konko-async",
    # "$" in a path or in a server's words begins no formula.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": LINE,
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
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "xtick.major.width": 0.8,
}


def mark(axes: Axes, seconds: float, name: str, *, height: float, left: bool | None = None) -> None:
    """Draw a line at a percentile, with its label beside the upper end.

    Args:
        axes: where; its limits along x must stand.
        seconds: the percentile.
        name: of it.
        height: of the line, as a share of the axes.
        left: on which side the label goes; None: where there is room.
    """
    axes.axvline(seconds, ymax=height, color=INK, linewidth=1, linestyle=(0, (3, 3)))
    if left is None:
        left = share_of(axes, seconds) > 0.7  # noqa: PLR2004 - a label takes about 0.3
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


def share_of(axes: Axes, value: float) -> float:
    """Return how far from left to right a value is, 0 to 1."""
    low, high = axes.get_xlim()
    if axes.get_xscale() == "log":
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def nothing(axes: Axes, text: str, colour: str) -> None:
    """Write a text in the place of a plot that has no data."""
    axes.grid(visible=False)
    axes.xaxis.set_major_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())
    axes.spines["bottom"].set_visible(False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=colour, fontsize=11)


def heading(
    figure: Figure, title: str, under: str, figures: Sequence[tuple[str, str, str]]
) -> None:
    """Write the title of a picture, a line below it, and the figures that come first."""
    left, right = 0.06, 0.955
    figure.text(left, 0.945, title, fontsize=20, fontweight="bold", va="center")
    figure.text(left, 0.908, under, fontsize=10.5, color=MUTED, va="center")
    step = (right - left) / len(figures)
    for place, (name, value, colour) in enumerate(figures):
        x = left + place * step
        size = 16 if len(value) <= _LARGE else 12.5
        figure.text(x, 0.853, value, fontsize=size, fontweight="bold", color=colour, va="center")
        figure.text(x, 0.823, name, fontsize=9.5, color=MUTED, va="center")
    # A rule between the figures and the plots.
    line = mpl.lines.Line2D([left, right], [0.795, 0.795], color=PALE, linewidth=1)
    figure.add_artist(line)
