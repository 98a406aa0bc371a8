"""The options of how calls are judged, and what they cost: of ``batch`` and ``summarize``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from konko_async.cli._options import decorated

__all__ = ["judging_options", "read_judging"]

# Named again here, and not taken from konko_async.batch: its import takes aiohttp
# with it, and --help does without.
FAIL_ON = ("empty", "length", "content_filter", "refusal")
_PRICE = click.FloatRange(0)


def _reasons(_context: Any, _option: Any, value: str) -> tuple[str, ...]:
    """Read a list such as ``length,empty``; "error" always counts."""
    found = {part.strip() for part in value.split(",")} - {"", "error"}
    unknown = found - set(FAIL_ON)
    if unknown:
        raise click.BadParameter(f"choose from {', '.join(FAIL_ON)}, not {', '.join(unknown)}")
    return tuple(sorted(found))


def _failures(_context: Any, _option: Any, value: str | None) -> str | None:
    """Check a number, or a share such as ``5%``."""
    number = "" if value is None else value.strip().removesuffix("%").strip()
    share = value is not None and value.strip().endswith("%")
    try:
        good = value is None or 0 <= float(number) <= (100 if share else math.inf)
    except ValueError:
        good = False
    # run_batch() takes the text as it is; only this message is the command line's own.
    if not good or (not share and value is not None and not number.isdecimal()):
        raise click.BadParameter(f"{value!r} is neither a number of rows nor a share such as 5%")
    return value


_OPTIONS = (
    click.option(
        "--max-outage",
        type=click.FloatRange(0),
        metavar="S",
        default=600.0,
        show_default=True,
        help="Seconds to wait for a server while no row is answered; then the run ends, resumable.",
    ),
    click.option(
        "--max-failures",
        metavar="N|P%",
        callback=_failures,
        help="End the run once more than N rows, or P percent of them, have failed.",
    ),
    click.option(
        "--max-failures-in-a-row",
        type=click.IntRange(0),
        metavar="N",
        default=100,
        show_default=True,
        help="End the run after N failed rows without an answer between them; 0: never.",
    ),
    click.option(
        "--max-attempts",
        type=click.IntRange(1),
        metavar="N",
        help="Write a row as failed after N attempts.  [default: retry while the run goes on]",
    ),
    click.option(
        "--fail-on",
        metavar="REASONS",
        default="",
        callback=_reasons,
        help="Count these answers as failed: empty,length,content_filter,refusal.",
    ),
    click.option(
        "--price-in", type=_PRICE, metavar="X", help="Price of a million prompt tokens, in dollars."
    ),
    click.option("--price-out", type=_PRICE, metavar="X", help="Price of a million output tokens."),
    click.option(
        "--price-cached",
        type=_PRICE,
        metavar="X",
        help="Price of a million cached prompt tokens.  [default: --price-in]",
    ),
    click.option(
        "--prices",
        metavar="FILE",
        help='JSON file with prices by model: {"MODEL": {"in": 1, "out": 2, "cached": 0.5}}.',
    ),
)


def judging_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; :func:`read_judging` reads them."""
    return decorated(function, _OPTIONS)


def read_judging(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options out of ``options``; returns arguments of ``run_batch``.

    Raises:
        click.UsageError: the prices cannot be read.
    """
    from konko_async.cli.bulk.batches.prices import read_prices  # noqa: PLC0415 - imports aiohttp

    prices = [options.pop(f"price_{kind}") for kind in ("in", "out", "cached")]
    names = ("max_outage", "max_attempts", "max_failures", "fail_on")
    return {
        **{name: options.pop(name) for name in names},
        # 0 is the command line's word for "never".
        "max_failures_in_a_row": options.pop("max_failures_in_a_row") or None,
        "prices": read_prices(options.pop("prices"), *prices),
    }
