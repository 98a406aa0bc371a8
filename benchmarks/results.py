"""The common form of what the questions find: figures, goals and curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import stats


@dataclass(frozen=True)
class Figure:
    """What one rival needed: the median of its rounds.

    Attributes:
        question: the file that asked, without ``bench_``.
        who: the rival's label.
        what: what was measured.
        unit: of the samples.
        samples: one value per round.
        extra: what else is worth keeping (loops, shares of CPU, the server's load).
    """

    question: str
    who: str
    what: str
    unit: str
    samples: Sequence[float]
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def middle(self) -> tuple[float, float, float]:
        """The median and the quartiles."""
        return stats.middle(self.samples)


@dataclass(frozen=True)
class Goal:
    """A line of the list of goals: a value that must not exceed (or fall below) a limit.

    Attributes:
        question: as for figures.
        what: the goal in words.
        samples: one value per round; ratios are those of neighbouring rounds.
        limit: what the median is held against; None: told, not judged.
        at_least: whether the limit is a lower one.
        unit: of the samples; empty for ratios.
    """

    question: str
    what: str
    samples: Sequence[float]
    limit: float | None = None
    at_least: bool = False
    unit: str = ""

    @property
    def value(self) -> float:
        """The median."""
        return stats.middle(self.samples)[0]

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Curve:
    """How a figure grows: y over x, with the exponent of the fit y = a·x^b.

    Attributes:
        question: as for figures.
        who: the rival's label.
        x: what is varied, and its unit.
        y: what is measured, and its unit.
        points: pairs of both.
    """

    question: str
    who: str
    x: str
    y: str
    points: Sequence[tuple[float, float]]

    @property
    def exponent(self) -> float:
        """0: flat; 1: linear."""
        return stats.exponent(*zip(*self.points, strict=True))

    @property
    def verdict(self) -> str:
        """Flat, at most linear, or faster than that anywhere."""
        ys = [y for _, y in self.points]
        if abs(self.exponent) <= 0.1 and max(ys) <= 1.5 * min(ys):
            return "flat"
        steps = zip(self.points, self.points[1:], strict=False)
        steepest = max(stats.exponent((x, x2), (y, y2)) for (x, y), (x2, y2) in steps)
        return "falls" if self.exponent < 0 else "at most linear" if steepest <= 1.15 else "FASTER"


@dataclass
class Results:
    """All that a run found.

    Attributes:
        unfit: questions that could not be asked to their end, and why.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    unfit: dict[str, str] = field(default_factory=dict)

    def compare(
        self, what: str, a: Figure, b: Figure, limit: float | None = None, **more: Any
    ) -> None:
        """Add the goal that the ratio of two figures be at most the limit."""
        found = stats.ratios(a.samples, b.samples)
        what = f"{a.what}: {what}"
        self.goals.append(Goal(a.question, what, found, limit, **more))

    def save(self, path: Path) -> None:
        """Write everything, every sample included."""
        whole = {
            "machine": self.machine,
            "unfit": self.unfit,
            "goals": [
                asdict(goal)
                | {"value": goal.value, "reached": goal.reached}
                | dict(zip(("low", "high"), stats.interval(goal.samples), strict=True))
                for goal in self.goals
            ],
            "figures": [
                asdict(figure) | dict(zip(("median", "q1", "q3"), figure.middle, strict=True))
                for figure in self.figures
            ],
            "curves": [
                asdict(curve) | {"exponent": curve.exponent, "verdict": curve.verdict}
                for curve in self.curves
            ],
        }
        path.write_text(json.dumps(rounded(whole), indent=1, ensure_ascii=False) + "\n")


def rounded(value: Any) -> Any:
    """Return the value with floats of six significant digits: more is noise."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def short(value: float) -> str:
    """Return a figure with three digits that count."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def tables(results: Results) -> str:
    """Return all of it as text."""
    lines = [f"{'question':10} {'what':50} {'who':40} {'median':>9}  quartiles"]
    for figure in results.figures:
        mid, low, high = figure.middle
        what = f"{figure.what}, {figure.unit}"
        lines.append(
            f"{figure.question:10} {what:50} {figure.who:40} {short(mid):>9}  "
            f"{short(low)} .. {short(high)}"
        )
    if results.curves:
        lines += [
            "",
            f"{'question':10} {'grows over':30} {'who':40} {'exponent':>9}  first .. last",
        ]
    for curve in results.curves:
        first, last = curve.points[0][1], curve.points[-1][1]
        lines.append(
            f"{curve.question:10} {curve.x:30} {curve.who:40} {curve.exponent:9.2f}  "
            f"{short(first)} .. {short(last)} {curve.y}, {curve.verdict}"
        )
    if results.goals:
        lines += [
            "",
            f"{'question':10} {'goal':62} {'median':>9} {'95 % interval':>16} {'goal':>9}",
        ]
    for goal in results.goals:
        low, high = stats.interval(goal.samples)
        limit, verdict = "", ""
        if goal.limit is not None:
            limit = f"{'≥' if goal.at_least else '≤'} {short(goal.limit)}"
            verdict = "reached" if goal.reached else "NOT REACHED"
        span, unit = f"{short(low)} .. {short(high)}", f", {goal.unit}" if goal.unit else ""
        lines.append(
            f"{goal.question:10} {goal.what + unit:62} {short(goal.value):>9} {span:>16} "
            f"{limit:>9}  {verdict}"
        )
    return "\n".join(lines)
