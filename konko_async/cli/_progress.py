"""Showing how a run goes: on a terminal, in a log, to a program, or not at all."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Final, Protocol

import click
import msgspec

from konko_async.batch import Progress
from konko_async.cli._bulk import Bulk
from konko_async.cli._figures import count, duration, money
from konko_async.cli._output import is_terminal, note

__all__ = [
    "SAMPLING",
    "Display",
    "JsonDisplay",
    "NoDisplay",
    "PlainDisplay",
    "open_display",
    "state",
]

SAMPLING: Final = 0.25
"""Seconds between the states that a run is asked for; its plots are made of them too."""

# Not for a line of progress: the report has them.
_LEFT_OUT = {"history", "latency", "first_token"}


class Display(Protocol):
    """Shows the progress of a run on standard error."""

    stage: str
    """What is being done, if there is more than one thing."""

    def update(self, progress: Progress) -> None:
        """Take a state; it is shown if the last one was shown long enough ago."""

    def say(self, text: str) -> None:
        """Show a line among them."""


class NoDisplay:
    """Shows no progress, only what must be said."""

    def __init__(self) -> None:
        self.stage = ""

    def update(self, progress: Progress) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Write a line."""
        note(text)


class _Paced(NoDisplay):
    """Shows a state now and then, and always the last one.

    Args:
        interval: seconds between two.
    """

    def __init__(self, interval: float) -> None:
        super().__init__()
        self._interval = interval
        self._shown: tuple[str, float] | None = None
        self._waiting: tuple[str, Progress] | None = None

    def update(self, progress: Progress) -> None:
        """Show it, or keep it for later."""
        shown = self._shown
        if shown is None or shown[0] != self.stage or progress.elapsed < shown[1]:
            self.finish()  # of the stage before
        elif progress.elapsed - shown[1] < self._interval:
            self._waiting = (self.stage, progress)
            return
        self._waiting = None
        self._shown = (self.stage, progress.elapsed)
        self._show(self.stage, progress)

    def finish(self) -> None:
        """Show the last state, if it was not shown."""
        if self._waiting is not None:
            stage, progress = self._waiting
            self._waiting = None
            self._show(stage, progress)

    def _show(self, stage: str, progress: Progress) -> None:
        raise NotImplementedError


class PlainDisplay(_Paced):
    """A line now and then, for logs."""

    def _show(self, stage: str, progress: Progress) -> None:
        line = _line(progress)
        note(f"{stage}: {line}" if stage else line)


class JsonDisplay(_Paced):
    """A line of JSON for each state, for programs."""

    def say(self, text: str) -> None:
        """Write a line with nothing but a message."""
        self._write({"message": text})

    def _show(self, stage: str, progress: Progress) -> None:
        self._write(state(progress, stage))

    @staticmethod
    def _write(entry: dict[str, Any]) -> None:
        click.echo(msgspec.json.encode(entry), err=True)


def state(progress: Progress, stage: str = "") -> dict[str, Any]:
    """Return a state as builtins, without the history."""
    names = [name for name in progress.__struct_fields__ if name not in _LEFT_OUT]
    found = {name: msgspec.to_builtins(getattr(progress, name)) for name in names}
    for name in ("latency", "first_token"):
        histogram = getattr(progress, name)
        found[f"{name}_p50"] = histogram.percentile(0.5)
    return {"stage": stage, **found} if stage else found


def _line(progress: Progress) -> str:
    rows = "" if progress.rows is None else f"/{count(progress.rows)}"
    parts = [
        f"{count(progress.done)}{rows} done",
        f"{count(progress.failed)} failed",
        f"{count(progress.retried)} retried",
        f"{count(progress.in_flight)} in flight",
        f"{count(progress.prompt_tokens_per_second)} tokens/s in",
        f"{count(progress.completion_tokens_per_second)} out",
        f"{count(progress.rate_limited)} x 429",
        f"cost {cost_text(progress)}",
        f"eta {eta_text(progress)}",
    ]
    return ", ".join(parts)


def cost_text(progress: Progress) -> str:
    """Return the cost so far and the projected one."""
    so_far = money(progress.cost, progress.currency)
    if progress.cost is None:
        return so_far
    more = "+" if progress.unpriced else ""  # rows without a price are not in it
    return f"{so_far}{more} of {money(progress.projected_cost, progress.currency)}"


def eta_text(progress: Progress) -> str:
    """Return how long it will take yet."""
    if progress.rows is not None and progress.done >= progress.rows:
        return "done"
    if progress.stopping:
        return "stopping"
    return "unknown" if progress.eta is None else duration(progress.eta)


@contextlib.contextmanager
def open_display(bulk: Bulk) -> Iterator[Display]:
    """Give the display that the options ask for; whatever it drew is finished at the end."""
    kind = bulk.progress or ("rich" if is_terminal(sys.stderr) else "plain")
    if bulk.dry_run:
        kind = "none"
    if kind == "rich":
        from konko_async.cli._progress_rich import rich_display  # noqa: PLC0415 - slow to import

        with rich_display(bulk.progress_interval or 0.25) as drawn:
            yield drawn
    elif kind == "none":
        yield NoDisplay()
    else:
        plain = PlainDisplay(bulk.progress_interval or 5.0)
        paced = JsonDisplay(bulk.progress_interval or 1.0) if kind == "json" else plain
        try:
            yield paced
        finally:
            paced.finish()
