"""The options that the commands with many calls share: limits, progress, report."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import click

__all__ = ["Bulk", "bulk_options"]

Kind = Literal["rich", "plain", "json", "none"]
_PLOTTED = (".html", ".htm", ".png")
_SUFFIXES = (".json", *_PLOTTED)


def _amount(value: str) -> int | Literal["auto"]:
    """Read a number, or ``auto``: what the server tells or shows."""
    if value == "auto":
        return "auto"
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise click.BadParameter(f"{value!r} is neither a number of at least 1 nor auto")
    return number


@dataclass(frozen=True, slots=True)
class Bulk:
    """How many calls are made.

    Attributes:
        rpm: requests a minute; None or ``auto``: what the server tells.
        tpm: tokens a minute; likewise.
        max_concurrency: calls in flight; ``auto``: found by watching the server.
        max_cost: of the whole output.
        max_tokens_total: likewise.
        retry_failed: whether failed rows are done again.
        restart: whether what an earlier run wrote is dropped.
        dry_run: whether to estimate only.
        progress: how it is shown; None: rich on a terminal, else plain.
        progress_interval: seconds between two states; None: what suits the display.
        report: where the report goes.
    """

    rpm: int | Literal["auto"] | None = None
    tpm: int | Literal["auto"] | None = None
    max_concurrency: int | Literal["auto"] | None = None
    max_cost: float | None = None
    max_tokens_total: int | None = None
    retry_failed: bool = False
    restart: bool = False
    dry_run: bool = False
    progress: Kind | None = None
    progress_interval: float | None = None
    report: str | None = None


_OPTIONS = (
    click.option("--rpm", type=_amount, metavar="N|auto", help="Requests a minute."),
    click.option("--tpm", type=_amount, metavar="N|auto", help="Tokens a minute."),
    click.option(
        "--max-concurrency",
        type=_amount,
        metavar="N|auto",
        help="Calls in flight; auto finds what the server serves.  [default: 256, --local: 4]",
    ),
    click.option(
        "--max-cost", type=click.FloatRange(0), metavar="X", help="Of all runs of this output."
    ),
    click.option(
        "--max-tokens-total", type=click.IntRange(1), metavar="N", help="Likewise, in and out."
    ),
    click.option("--retry-failed", is_flag=True, help="Do again what failed in an earlier run."),
    click.option("--restart", is_flag=True, help="Drop what an earlier run wrote."),
    click.option("--dry-run", is_flag=True, help="Only estimate: calls, tokens, cost, time."),
    click.option(
        "--progress",
        type=click.Choice(["rich", "plain", "json", "none"]),
        help="How it is shown.  [default: rich on a terminal, else plain]",
    ),
    click.option(
        "--progress-interval",
        type=click.FloatRange(0.05),
        metavar="S",
        help="Seconds between two states.  [default: 0.25 rich, 5 plain, 1 json]",
    ),
    click.option(
        "--report", metavar="FILE", help="Write a report too: FILE.json, FILE.html or FILE.png."
    ),
)


def bulk_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of a :class:`Bulk`, as its argument ``bulk``."""

    @functools.wraps(function)
    def collect(**values: Any) -> int:
        fields = {name: values.pop(name) for name in Bulk.__dataclass_fields__}
        bulk = Bulk(**fields)
        if bulk.report is not None:
            _check_report(Path(bulk.report))
        return function(bulk=bulk, **values)

    decorated: Callable[..., int] = collect
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _check_report(path: Path) -> None:
    """Find out now, not after hours of work, that the report could not be written."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise click.UsageError(f"--report: {path.name} must end with .json, .html or .png")
    if suffix in _PLOTTED and find_spec("matplotlib") is None:
        raise click.UsageError(
            f"--report {path.name} needs the extra `plot`: pip install 'konko-async[plot]'"
        )
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.UsageError(f"--report: {path} cannot be written")
