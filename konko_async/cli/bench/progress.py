"""Shows the progress of a benchmark, in plain lines or not at all."""

from __future__ import annotations

from typing import Protocol

from konko_async.bench import BenchProgress
from konko_async.cli._number_format import count, duration
from konko_async.cli._output import note

__all__ = ["BenchDisplay", "NoBenchDisplay", "PlainBenchDisplay", "figures"]

_EVERY = 5.0  # seconds between two lines


class BenchDisplay(Protocol):
    """Shows the runs of a sweep, one after the other."""

    def begin(self, load: str, number: int, runs: int) -> None:
        """Begin to show a run."""

    def update(self, progress: BenchProgress) -> None:
        """Show a state of the run."""


class NoBenchDisplay:
    """Shows nothing."""

    def begin(self, load: str, number: int, runs: int) -> None:
        """Show nothing."""

    def update(self, progress: BenchProgress) -> None:
        """Show nothing."""


class PlainBenchDisplay:
    """Writes a line now and then, for logs."""

    def __init__(self) -> None:
        self._name = ""
        self._next = 0.0

    def begin(self, load: str, number: int, runs: int) -> None:
        """Name the run."""
        self._name = f"{load} ({number} of {runs})" if runs > 1 else load
        self._next = 0.0

    def update(self, progress: BenchProgress) -> None:
        """Write a line, unless the last one is too young."""
        # A log holds only figures that count: none of the warm-up.
        if progress.warming_up or progress.elapsed < self._next:
            return
        self._next = progress.elapsed + _EVERY
        note(f"{self._name}: {figures(progress)}")


def figures(progress: BenchProgress) -> str:
    """Return a state in words."""
    of = "" if progress.requests is None else f"/{count(progress.requests)}"
    speed = progress.chunks / progress.elapsed if progress.elapsed > 0 else 0.0
    parts = [
        f"{count(progress.completed + progress.failed)}{of} done",
        f"{count(progress.failed)} failed",
        f"{count(progress.in_flight)} in flight",
        f"{count(speed)} chunks/s",
    ]
    if progress.ttft is not None:
        parts.append(f"first token {duration(progress.ttft)}")
    return ", ".join(parts)
