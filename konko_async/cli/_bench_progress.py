"""Showing how a benchmark goes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Literal, Protocol

from konko_async.bench import BenchProgress
from konko_async.cli._figures import count, duration
from konko_async.cli._output import is_terminal, note

__all__ = ["BenchDisplay", "open_bench_display"]

_EVERY = 5.0  # seconds between two lines


class BenchDisplay(Protocol):
    """Shows the runs of a sweep, one after the other."""

    def begin(self, load: str, number: int, runs: int) -> None:
        """A run begins."""

    def update(self, progress: BenchProgress) -> None:
        """Take a state of it."""


class _Nothing:
    def begin(self, load: str, number: int, runs: int) -> None:
        """Show nothing."""

    def update(self, progress: BenchProgress) -> None:
        """Show nothing."""


class _Plain:
    """A line now and then, for logs."""

    def __init__(self) -> None:
        self._name = ""
        self._next = 0.0

    def begin(self, load: str, number: int, runs: int) -> None:
        """Name the run."""
        self._name = f"{load} ({number} of {runs})" if runs > 1 else load
        self._next = 0.0

    def update(self, progress: BenchProgress) -> None:
        """Write a line, unless the last one is too young."""
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


@contextlib.contextmanager
def open_bench_display(kind: Literal["rich", "plain", "none"] | None) -> Iterator[BenchDisplay]:
    """Give the display that was asked for; what it drew is gone afterwards."""
    kind = kind or ("rich" if is_terminal(sys.stderr) else "none")
    if kind == "rich":
        from konko_async.cli._bench_rich import rich_bench  # noqa: PLC0415 - slow to import

        with rich_bench() as drawn:
            yield drawn
    else:
        yield _Plain() if kind == "plain" else _Nothing()
