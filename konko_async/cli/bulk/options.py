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

from konko_async.cli._options import decorated

__all__ = ["Bulk", "bulk_options"]

Kind = Literal["rich", "plain", "json", "none"]
_PLOTTED = (".html", ".htm", ".png")
_MONTH = 30 * 24 * 3600.0
_SUFFIXES = (".json", *_PLOTTED)


def _amount(value: str) -> int | Literal["auto"]:
    """Read a number, or ``auto``: what the server reports or shows."""
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
        rpm: requests a minute; None or ``auto``: what the server reports.
        tpm: tokens a minute; None or ``auto``: what the server reports.
        max_concurrency: calls in flight; ``auto``: found by watching the server.
        max_cost: of the whole output.
        max_tokens_total: of the whole output.
        retry_failed: whether failed rows are done again.
        restart: whether what an earlier run wrote is dropped.
        dry_run: whether to estimate only.
        progress: how it is shown; None: rich on a terminal, else plain.
        progress_interval: seconds between two states; None: what suits the display.
        report: where the report goes.
        cache: folder of the answer cache; None: none.
        no_cache: whether no cache is used, whatever ``KONKO_CACHE`` says.
        cache_all: whether it also serves calls whose answers are drawn at random.
        cache_max_age: seconds for which an answer is used.
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
    cache: str | None = None
    no_cache: bool = False
    cache_all: bool = False
    cache_max_age: float = _MONTH


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
        "--max-cost",
        type=click.FloatRange(0),
        metavar="X",
        help="Limit of the cost of all runs of this output.",
    ),
    click.option(
        "--max-tokens-total",
        type=click.IntRange(1),
        metavar="N",
        help="Limit of the tokens of all runs of this output, in and out.",
    ),
    click.option(
        "--retry-failed", is_flag=True, help="Process again the rows that failed in an earlier run."
    ),
    click.option(
        "--restart", is_flag=True, help="Discard what an earlier run wrote, and start anew."
    ),
    click.option("--dry-run", is_flag=True, help="Only estimate: calls, tokens, cost, time."),
    click.option(
        "--progress",
        type=click.Choice(["rich", "plain", "json", "none"]),
        help="How progress is shown.  [default: rich on a terminal, else plain]",
    ),
    click.option(
        "--progress-interval",
        type=click.FloatRange(0.05),
        metavar="S",
        help="Seconds between two reports.  [default: 0.25 rich, 5 to 60 plain, 1 json]",
    ),
    click.option(
        "--report", metavar="FILE", help="Also write a report: FILE.json, FILE.html or FILE.png."
    ),
    click.option(
        "--cache",
        metavar="DIR",
        help="Keep answers in DIR, and use them again for equal requests with temperature 0 or a "
        "seed.  [default: $KONKO_CACHE]",
    ),
    click.option("--no-cache", is_flag=True, help="Use no cache, whatever KONKO_CACHE says."),
    click.option(
        "--cache-all", is_flag=True, help="Use answers again that were drawn at random, too."
    ),
    click.option(
        "--cache-max-age",
        type=click.FloatRange(0, min_open=True),
        metavar="S",
        default=_MONTH,
        help="Seconds for which an answer is used again.  [default: 30 days]",
    ),
)


def bulk_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of a :class:`Bulk`, as its argument ``bulk``."""

    @functools.wraps(function)
    def collect(**values: Any) -> int:
        # The options and the fields of Bulk have the same names, so that neither can be forgotten.
        fields = {name: values.pop(name) for name in Bulk.__dataclass_fields__}
        bulk = Bulk(**fields)
        if bulk.report is not None:
            _check_report(Path(bulk.report))
        return function(bulk=bulk, **values)

    return decorated(collect, _OPTIONS)


def _check_report(path: Path) -> None:
    """Find out now, not after hours of work, that the report could not be written."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise click.UsageError(f"--report: {path.name} must end with .json, .html or .png")
    # find_spec() does not import matplotlib, which is slow and needed only at the end.
    if suffix in _PLOTTED and find_spec("matplotlib") is None:
        raise click.UsageError(
            f"--report {path.name} needs the extra `plot`: pip install 'konko-async[plot]'"
        )
    # A file that does not exist yet needs a folder in which it can be made.
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise click.UsageError(f"--report: {path} cannot be written")
