"""The progress of a benchmark on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from konko_async.bench import BenchProgress
from konko_async.cli.bench.progress import BenchDisplay, figures

__all__ = ["rich_bench"]


@contextlib.contextmanager
def rich_bench() -> Iterator[BenchDisplay]:
    """Give a display that draws a bar for each run, within the block."""
    columns = (
        SpinnerColumn(style="cyan"),
        TextColumn("{task.fields[load]}", style="bold", markup=False),
        BarColumn(bar_width=24, complete_style="cyan", finished_style="green"),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    console = Console(stderr=True, highlight=False)
    # Drawn when there is something new and never beside it: each drawing holds up what is timed.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as drawn:
        yield _Drawn(drawn)


class _Drawn:
    """Draws a line for each run."""

    def __init__(self, drawn: Progress) -> None:
        self._drawn = drawn
        self._task: TaskID | None = None

    def begin(self, load: str, number: int, runs: int) -> None:
        """Add a line; that of the last run stays as it is."""
        name = f"{load} ({number}/{runs})" if runs > 1 else load
        self._task = self._drawn.add_task("", total=1, load=name, figures="")
        self._drawn.refresh()

    def update(self, progress: BenchProgress) -> None:
        """Draw a state."""
        if self._task is None:
            return
        text = f"warming up: {figures(progress)}" if progress.warming_up else figures(progress)
        self._drawn.update(self._task, completed=_share(progress), figures=text, refresh=True)


def _share(progress: BenchProgress) -> float:
    """Return the share of the run that is over, 0 to 1."""
    if progress.warming_up:
        return 0.0
    shares = [0.0]
    if progress.requests:
        shares.append((progress.completed + progress.failed) / progress.requests)
    if progress.duration:
        shares.append(progress.elapsed / progress.duration)
    return min(max(shares), 1.0)
