"""Draws the progress of a run on a terminal, as a bar with figures below."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from konko_async.batch import Progress
from konko_async.cli._number_format import count, duration, money
from konko_async.cli._output import clean, redact
from konko_async.cli.bulk.progress import eta_text

__all__ = ["RichDisplay", "rich_display"]

_PAIR = 24  # columns that a name and its value take


@contextlib.contextmanager
def rich_display(interval: float) -> Iterator[RichDisplay]:
    """Draw within the block; the last state stays on the screen."""
    console = Console(stderr=True, highlight=False)
    # States are drawn as they come, so no thread has to; and what goes to standard output (answers,
    # perhaps) must not pass through rich.
    with Live(console=console, auto_refresh=False, redirect_stdout=False) as live:
        drawn = RichDisplay(live, interval)
        try:
            yield drawn
        finally:
            drawn.finish()


class RichDisplay:
    """A bar, and the figures below it.

    Args:
        live: draws.
        interval: seconds between two states.
    """

    def __init__(self, live: Live, interval: float) -> None:
        self.stage = ""
        self._interval = interval
        self._live = live
        self._shown = -math.inf
        self._last: Progress | None = None
        self._spinner = Spinner("dots", style="cyan")

    def update(self, progress: Progress) -> None:
        """Draw a state, unless the last one is too young."""
        self._last = progress
        # Below 0 another run has begun, with a clock of its own.
        if not 0 <= progress.elapsed - self._shown < self._interval:
            self._draw(progress)

    def finish(self) -> None:
        """Draw the last state."""
        if self._last is not None:
            self._draw(self._last)

    def _draw(self, progress: Progress) -> None:
        self._shown = progress.elapsed
        width = self._live.console.width
        body = _figures(progress, pairs=max(width // _PAIR, 1))
        self._live.update(Group(self._head(progress), body), refresh=True)

    def say(self, text: str) -> None:
        """Write a line above the drawing."""
        # Notices quote what the server said, which may hold keys and control characters.
        self._live.console.print(Text(clean(redact(text)), style="yellow"))

    def _head(self, progress: Progress) -> RenderableType:
        head = Table.grid(padding=(0, 1), expand=True)
        head.add_column(width=1)
        head.add_column(no_wrap=True)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        over = progress.rows is not None and progress.done >= progress.rows
        rows = "" if progress.rows is None else f" / {count(progress.rows)}"
        # A pipe has no known end: its bar pulses, and must never look finished.
        total = progress.rows if progress.rows is not None else max(progress.done, 1) * 2
        bar = ProgressBar(
            total=max(total, 1),
            completed=progress.done,
            pulse=progress.rows is None,
            complete_style="yellow" if progress.failed else "cyan",
            finished_style="yellow" if progress.failed else "green",
        )
        head.add_row(
            Text("✓", style="green") if over else self._spinner,
            Text(self.stage, style="bold"),
            bar,
            Text(f"{count(progress.done)}{rows}", style="bold"),
        )
        return head


def _figures(progress: Progress, *, pairs: int) -> Table:
    """Lay the figures out in pairs of name and value, so many to a line."""
    failed = Text(count(progress.failed), style="bold red" if progress.failed else "")
    limited = Text(count(progress.rate_limited), style="yellow" if progress.rate_limited else "")
    more = "+" if progress.unpriced and progress.cost is not None else ""
    cells: list[tuple[str, Text]] = [
        ("failed", failed),
        ("in flight", Text(count(progress.in_flight))),
        ("tokens/s in", Text(count(progress.prompt_tokens_per_second))),
        ("cost", Text(money(progress.cost, progress.currency) + more)),
        ("retried", Text(count(progress.retried))),
        ("429", limited),
        ("tokens/s out", Text(count(progress.completion_tokens_per_second))),
        ("projected", Text(money(progress.projected_cost, progress.currency))),
        ("rows/s", Text(f"{progress.rows_per_second:.3g}")),
        ("elapsed", Text(duration(progress.elapsed))),
        ("eta", Text(eta_text(progress))),
    ]
    # The order of the cells is made for four to a line: figures that go together are in one column.
    pairs = min(pairs, 4)
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(pairs):
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", no_wrap=True, min_width=8)
    for start in range(0, len(cells), pairs):
        row: list[Text] = []
        for name, value in cells[start : start + pairs]:
            row += (Text(f"  {name}"), value)
        table.add_row(*row)
    return table
