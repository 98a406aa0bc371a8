"""``konko-async bench``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from konko_async.cli._options import Connection, connection_options, model_option

_SLOS = ("ttft", "tpot", "e2el")


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise ValueError
    return value


def _listed(read: Callable[[str], float], what: str) -> Callable[[str], tuple[float, ...]]:
    """Make a reader of comma-separated numbers."""

    def convert(text: str) -> tuple[float, ...]:
        try:
            return tuple(read(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r} is no list of {what}") from None

    convert.__name__ = what
    return convert


def _place(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _percent(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 100:  # noqa: PLR2004 - per cent
        raise ValueError
    return value


def _number(text: str) -> float:
    """Read a number above 0, or ``inf``."""
    try:
        return _positive(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number above 0") from None


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise click.BadParameter("needs a JSON object")
    return found


_COUNT = click.IntRange(1)
_LOAD = (
    click.option(
        "-c",
        "--concurrency",
        "--max-concurrency",
        "concurrency",
        type=_listed(_place, "numbers of at least 1"),
        metavar="N,…",
        help="Requests in flight at once; several are a sweep.  [default: 1; no cap with a rate]",
    ),
    click.option(
        "--request-rate",
        type=_listed(_positive, "rates"),
        metavar="R,…",
        help="Requests a second, whatever the server does; inf, the default: no rate.",
    ),
    click.option(
        "--burstiness",
        type=_number,
        default=1.0,
        metavar="X",
        help="Of arrivals: 1, the default, is Poisson; less: bursts; inf: evenly.",
    ),
    click.option("-n", "--requests", type=_COUNT, metavar="N", help="To send.  [default: 100]"),
    click.option(
        "--duration",
        type=click.FloatRange(0, min_open=True),
        metavar="S",
        help="Begin requests for so many seconds.",
    ),
    click.option(
        "--warmup",
        type=click.IntRange(0),
        metavar="N",
        help="Sent before, not counted.  [default: one for each place, 1 at a rate]",
    ),
)
_ASKED = (
    click.option(
        "--input-tokens", type=_COUNT, default=256, show_default=True, help="Of random prompts."
    ),
    click.option(
        "--output-tokens", type=_COUNT, metavar="N", help="Longest answer.  [default: 128]"
    ),
    click.option("--ignore-eos", is_flag=True, help="Ask for exactly so many (vLLM, SGLang)."),
    click.option("--dataset", metavar="FILE.jsonl", help="Prompts: lines with prompt or messages."),
    click.option("--stream/--no-stream", default=True, help="Stream answers.  [default: stream]"),
    click.option(
        "--usage/--no-usage", default=True, help="Ask the server to count.  [default: usage]"
    ),
    click.option("-t", "--temperature", type=click.FloatRange(0, 2), help="Of the answers."),
    click.option("--extra-body", type=_object, metavar="JSON", help="More of each request's body."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of prompts and arrivals."),
)
_TOLD = (
    click.option(
        "--percentiles",
        type=_listed(_percent, "percentiles"),
        default="90,95,99",
        show_default=True,
        help="To tell of each latency.",
    ),
    click.option(
        "--goodput",
        multiple=True,
        metavar="NAME:MS…",
        help="Objectives: ttft:500 tpot:50 e2el:5000, in milliseconds.",
    ),
    click.option("--json", "as_json", is_flag=True, help="A line of JSON for each run."),
    click.option("--output", metavar="FILE.json", help="Write the results too."),
    click.option("--detailed", is_flag=True, help="With the times of each request."),
    click.option("--plot", metavar="FILE.png", help="Draw them too."),
    click.option(
        "--progress",
        type=click.Choice(["rich", "plain", "none"]),
        help="How it is shown.  [default: rich on a terminal, else none]",
    ),
)


def _own_options(function: Any) -> Any:
    for option in reversed((*_LOAD, *_ASKED, *_TOLD)):
        function = option(function)
    return function


@click.command("bench")
@model_option
@_own_options
@click.argument("more", nargs=-1, metavar="")
@connection_options
def command(connection: Connection, *, more: tuple[str, ...], **options: Any) -> int:
    """Measure a server: throughput, time to first token, latencies between tokens, errors.

    Fields and definitions are those of "vllm bench serve"; --json has its names. A sweep of
    several concurrencies, or several rates, is a run for each. Nothing is retried and nothing is
    limited here. Ctrl-C prints what there is.
    """
    if more and not options["goodput"]:
        raise click.UsageError(f"what is {more[0]!r}?")
    options["goodput"] = _goodput((*options["goodput"], *more))
    _check(options)
    # aiohttp takes its time to import: --help does without it.
    from konko_async.cli._bench_run import run_command  # noqa: PLC0415 - see above
    from konko_async.cli._run import run  # noqa: PLC0415 - see above

    return run(run_command(connection, **options), debug=connection.debug)


def _goodput(pairs: tuple[str, ...]) -> dict[str, float]:
    """Read objectives as vLLM spells them; return seconds."""
    found = {}
    for pair in " ".join(pairs).replace(",", " ").split():
        name, _, value = pair.partition(":")
        try:
            milliseconds = float(value)
        except ValueError:
            milliseconds = math.nan
        if name not in _SLOS or not 0 <= milliseconds < math.inf:
            raise click.UsageError(f"--goodput: {pair!r} is none of ttft:MS, tpot:MS, e2el:MS")
        found[name] = milliseconds / 1000
    return found


def _check(options: dict[str, Any]) -> None:
    """Find out now, not after the run, what could not be done with its result."""
    rates, places = options["request_rate"] or (), options["concurrency"] or ()
    if len(rates) > 1 and len(places) > 1:
        raise click.UsageError("a sweep is over --concurrency or over --request-rate, not both")
    if options["dataset"] is not None and options["ignore_eos"] and not options["output_tokens"]:
        raise click.UsageError("--ignore-eos with --dataset needs --output-tokens")
    plot = options["plot"]
    if plot is not None and Path(plot).suffix.lower() not in {".png", ".svg", ".pdf"}:
        raise click.UsageError("--plot: the file must end with .png, .svg or .pdf")
    if plot is not None and find_spec("matplotlib") is None:
        raise click.UsageError("--plot needs the extra `plot`: pip install 'konko-async[plot]'")
    for name in ("output", "plot"):
        if options[name] is not None:
            path = Path(options[name])
            if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
                raise click.UsageError(f"--{name}: {path} cannot be written")
