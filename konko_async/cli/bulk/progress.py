"""Shows the progress of a run as lines of a log, as JSON for programs, or not at all."""

from __future__ import annotations

from typing import Any, Final, Protocol

import click
import msgspec

from konko_async.batch import Progress
from konko_async.cli._number_format import count, duration, money
from konko_async.cli._output import json_text, note

__all__ = [
    "SAMPLING",
    "Display",
    "JsonDisplay",
    "NoDisplay",
    "PlainDisplay",
    "state",
]

SAMPLING: Final = 0.25
"""Seconds between the states that a run is asked for; its plots are made of them too."""

_SHORT: Final = 5.0
_LONG: Final = 60.0
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
        # A clock that went back is that of another run: summaries make one for each round.
        if shown is None or shown[0] != self.stage or progress.elapsed < shown[1]:
            self.finish()  # of the stage before
        elif progress.elapsed - shown[1] < self._pause(progress.elapsed):
            self._waiting = (self.stage, progress)
            return
        self._waiting = None
        self._shown = (self.stage, progress.elapsed)
        self._show(self.stage, progress)

    def _pause(self, elapsed: float) -> float:
        """Seconds until the next state is due."""
        del elapsed
        return self._interval

    def finish(self) -> None:
        """Show the last state, if it was not shown."""
        if self._waiting is not None:
            stage, progress = self._waiting
            self._waiting = None
            self._show(stage, progress)

    def _show(self, stage: str, progress: Progress) -> None:
        raise NotImplementedError


class PlainDisplay(_Paced):
    """A line now and then, for logs: less often the longer the run lasts.

    Args:
        interval: seconds between two lines; None: 5, growing to 60 within an hour.
    """

    def __init__(self, interval: float | None = None) -> None:
        super().__init__(_SHORT if interval is None else interval)
        self._grows = interval is None

    def _pause(self, elapsed: float) -> float:
        # A sixtieth of the time so far, which is a minute after
        # an hour: logs of long runs stay short.
        return max(_SHORT, min(elapsed / 60, _LONG)) if self._grows else self._interval

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
        # Standard output may carry the answers.
        click.echo(json_text(entry), err=True)


def state(progress: Progress, stage: str = "") -> dict[str, Any]:
    """Return a state as builtins, without the history."""
    names = [name for name in progress.__struct_fields__ if name not in _LEFT_OUT]
    found = {name: msgspec.to_builtins(getattr(progress, name)) for name in names}
    # The medians stand for the histograms, whose buckets would make each line long.
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
    # A run that begins no new rows does not get to the end that the speed would foretell.
    if progress.stopping:
        return "stopping"
    return "unknown" if progress.eta is None else duration(progress.eta)
