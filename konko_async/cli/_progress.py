"""Showing how a run goes: on a terminal, in a log, to a program, or not at all."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import click
import msgspec

from konko_async.batch import Progress
from konko_async.cli._bulk import Bulk
from konko_async.cli._figures import count, duration, money
from konko_async.cli._output import is_terminal, note

__all__ = ["Display", "JsonDisplay", "NoDisplay", "PlainDisplay", "open_display", "state"]

# Not for a line of progress: the report has them.
_LEFT_OUT = {"history", "latency", "first_token"}


class Display(Protocol):
    """Shows the progress of a run on standard error."""

    interval: float
    """Seconds between two states."""
    stage: str
    """What is being done, if there is more than one thing."""

    def update(self, progress: Progress) -> None:
        """Show a state."""

    def say(self, text: str) -> None:
        """Show a line among them."""


class NoDisplay:
    """Shows no progress, only what must be said."""

    interval = 60.0
    stage = ""

    def update(self, progress: Progress) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Write a line."""
        note(text)


class PlainDisplay(NoDisplay):
    """A line now and then, for logs.

    Args:
        interval: seconds between two.
    """

    def __init__(self, interval: float = 5.0) -> None:
        self.interval = interval
        self._last = ""

    def update(self, progress: Progress) -> None:
        """Write a line, unless it would be the last one again."""
        line = _line(progress)
        if line != self._last:
            self._last = line
            note(f"{self.stage}: {line}" if self.stage else line)


class JsonDisplay(NoDisplay):
    """A line of JSON for each state, for programs.

    Args:
        interval: seconds between two.
    """

    def __init__(self, interval: float = 1.0) -> None:
        self.interval = interval

    def update(self, progress: Progress) -> None:
        """Write a line."""
        self._write(state(progress, self.stage))

    def say(self, text: str) -> None:
        """Write a line with nothing but a message."""
        self._write({"message": text})

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

        with rich_display(bulk.progress_interval or 0.25) as shown:
            yield shown
    elif kind == "none":
        yield NoDisplay()
    elif kind == "json":
        yield JsonDisplay(bulk.progress_interval or 1.0)
    else:
        yield PlainDisplay(bulk.progress_interval or 5.0)
