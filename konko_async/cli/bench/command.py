"""``konko-async bench``: its options, and the checks before a run."""

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
            raise click.BadParameter(f"{text!r} is not a list of {what}") from None

    # click names the type by it in its messages.
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
        raise click.BadParameter(f"{text!r} is not a number above 0") from None


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise click.BadParameter("needs a JSON object")
    return found


_COUNT = click.IntRange(1)


@click.command("bench")
@model_option
@click.option(
    "-c",
    "--concurrency",
    "--max-concurrency",
    "concurrency",
    type=_listed(_place, "numbers of at least 1"),
    metavar="N,…",
    help="Requests in flight at most; several: a sweep.  [default: 1; no limit with a rate]",
)
@click.option(
    "--request-rate",
    type=_listed(_positive, "rates"),
    metavar="R,…",
    help="Requests per second, sent however fast the server answers.  [default: inf, no rate]",
)
@click.option(
    "--burstiness",
    type=_number,
    default=1.0,
    metavar="X",
    help="Spread of arrivals: 1 is Poisson, less comes in bursts, inf evenly.  [default: 1]",
)
@click.option(
    "-n", "--requests", type=_COUNT, metavar="N", help="Number of requests.  [default: 100]"
)
@click.option(
    "--duration",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Seconds during which new requests are sent.",
)
@click.option(
    "--warmup",
    type=click.IntRange(0),
    metavar="N",
    help="Requests sent first and not counted.  [default: the concurrency; 1 with a rate]",
)
@click.option(
    "--input-tokens",
    type=_COUNT,
    default=256,
    show_default=True,
    help="Tokens of each random prompt.",
)
@click.option(
    "--output-tokens", type=_COUNT, metavar="N", help="Maximum output tokens.  [default: 128]"
)
@click.option("--ignore-eos", is_flag=True, help="Generate exactly --output-tokens (vLLM, SGLang).")
@click.option(
    "--dataset",
    metavar="FILE.jsonl",
    help="Take prompts from a file: JSON lines with prompt or messages.",
)
@click.option(
    "--stream/--no-stream", default=True, help="Whether answers are streamed.  [default: stream]"
)
@click.option(
    "--usage/--no-usage",
    default=True,
    help="Whether the server reports token counts.  [default: usage]",
)
@click.option("-t", "--temperature", type=click.FloatRange(0, 2), help="Sampling temperature.")
@click.option(
    "--extra-body", type=_object, metavar="JSON", help="Further fields of each request's body."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed of random prompts and arrivals."
)
@click.option(
    "--percentiles",
    type=_listed(_percent, "percentiles"),
    default="90,95,99",
    show_default=True,
    help="Percentiles to report for each latency.",
)
@click.option(
    "--goodput",
    multiple=True,
    metavar="NAME:MS…",
    help="Latency objectives in milliseconds, such as ttft:500 tpot:50 e2el:5000.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each run.")
@click.option("--output", metavar="FILE.json", help="Also write the results to a file.")
@click.option("--detailed", is_flag=True, help="Include the times of each request.")
@click.option("--plot", metavar="FILE.png", help="Also draw the results.")
@click.option(
    "--progress",
    type=click.Choice(["rich", "plain", "none"]),
    help="How progress is shown.  [default: rich on a terminal, else none]",
)
@click.argument("more", nargs=-1, metavar="")
@connection_options
def command(connection: Connection, *, more: tuple[str, ...], **options: Any) -> int:
    """Benchmark a server: throughput, time to first token, inter-token latency, errors.

    Metrics are defined as in "vllm bench serve", and --json uses its names. Several concurrencies
    or rates are a sweep, with one run for each. Nothing is retried, and no client-side limit
    applies. Ctrl-C prints the results so far.
    """
    # Spelled as in vLLM (`--goodput ttft:500 tpot:50`), all but the first reach click as arguments.
    if more and not options["goodput"]:
        raise click.UsageError(f"unexpected argument {more[0]!r}")
    options["goodput"] = _goodput((*options["goodput"], *more))
    _check(options)
    from konko_async.cli._runner import run  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.bench.run import run_command  # noqa: PLC0415 - keeps --help fast

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
            raise click.UsageError(f"--goodput: {pair!r} is not ttft:MS, tpot:MS or e2el:MS")
        found[name] = milliseconds / 1000
    return found


def _check(options: dict[str, Any]) -> None:
    """Check now, rather than after the run, that its results can be written."""
    rates, places = options["request_rate"] or (), options["concurrency"] or ()
    if len(rates) > 1 and len(places) > 1:
        raise click.UsageError("a sweep varies --concurrency or --request-rate, not both")
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
