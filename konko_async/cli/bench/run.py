"""Runs a benchmark or a sweep for the command line."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from konko_async import AsyncKonko
from konko_async.bench import BenchResult, Plan, Prompt, Slo, calibrated, read_dataset, run_bench
from konko_async.cli._connect import connect, default_model
from konko_async.cli._options import Connection
from konko_async.cli._output import json_text, note
from konko_async.cli._runner import on_interrupt
from konko_async.cli.bench.displays import open_bench_display
from konko_async.cli.bench.table import label, print_results

__all__ = ["run_command"]

_FAILED, _INTERRUPTED = 1, 130
_REQUESTS = 100
_OUTPUT_TOKENS = 128
_TIMEOUT = 600.0  # seconds: a request of an overloaded server is to be measured, not cut


async def run_command(connection: Connection, *, model: str | None, **options: Any) -> int:
    """Run the benchmark, or the sweep.

    Returns:
        The exit code.

    Raises:
        KonkoError: the server cannot be asked at all.
    """
    rows = None if options["dataset"] is None else read_dataset(options["dataset"])
    async with connect(connection, model) as (client, known):
        chosen = await default_model(client, known)
        plans = _plans(chosen, connection, rows, options)
        prompts = await _prompts(client, chosen, rows, options)
        results = await _sweep(client, plans, prompts, options)
    _tell(results, options)
    # A sweep that was stopped between two runs has no interrupted one, but fewer than planned.
    if any(result.interrupted for result in results) or len(results) < len(plans):
        return _INTERRUPTED
    return _FAILED if any(result.failed or not result.completed for result in results) else 0


def _plans(
    model: str, connection: Connection, rows: Sequence[Prompt] | None, options: dict[str, Any]
) -> list[Plan]:
    """Return a plan for each run."""
    requests, output_tokens = options["requests"], options["output_tokens"]
    if requests is None and options["duration"] is None:
        requests = _REQUESTS if rows is None else len(rows)
    if output_tokens is None and rows is None:
        output_tokens = _OUTPUT_TOKENS
    params = {"temperature": options["temperature"], "extra_body": options["extra_body"]}
    rates = options["request_rate"] or (math.inf,)
    places = options["concurrency"] or ((1,) if rates == (math.inf,) else (None,))
    return [
        Plan(
            model=model,
            requests=requests,
            duration=options["duration"],
            concurrency=place,
            request_rate=rate,
            burstiness=options["burstiness"],
            seed=options["seed"],
            warmup=options["warmup"] if options["warmup"] is not None else place or 1,
            stream=options["stream"],
            ask_usage=options["usage"],
            output_tokens=output_tokens,
            ignore_eos=options["ignore_eos"],
            params={name: value for name, value in params.items() if value is not None},
            timeout=connection.timeout or _TIMEOUT,
            percentiles=options["percentiles"],
            slo=Slo(**options["goodput"]),
        )
        for place in places
        for rate in rates
    ]


async def _prompts(
    client: AsyncKonko, model: str, rows: Sequence[Prompt] | None, options: dict[str, Any]
) -> Iterator[Prompt]:
    if rows is not None:
        # One iterator for the whole sweep: each run continues where the last one stopped.
        return itertools.cycle(rows)
    found, told = await calibrated(client, model, options["input_tokens"], seed=options["seed"])
    if not told:
        note("the server reports no prompt tokens: each word counts as one")
    elif found.overhead >= found.input_tokens:
        note(f"prompts are longer: this server adds {found.overhead:.0f} tokens to each")
    return found


async def _sweep(
    client: AsyncKonko, plans: Sequence[Plan], prompts: Iterator[Prompt], options: dict[str, Any]
) -> list[BenchResult]:
    stop, results = asyncio.Event(), list[BenchResult]()
    # What was made until now stays: looking for garbage in it would only cost time in the run.
    frozen_before = gc.get_freeze_count()  # by the process that this runs in: stays frozen after it
    gc.collect()
    gc.freeze()
    try:
        with open_bench_display(options["progress"]) as display, on_interrupt(stop.set):
            for place, plan in enumerate(plans):
                display.begin(label(plan), place + 1, len(plans))
                result = await run_bench(
                    client, plan, prompts=prompts, on_progress=display.update, stop=stop
                )
                results.append(result)
                # The event stays set, and would stop each further run at once.
                if stop.is_set():
                    break
    finally:
        if not frozen_before:
            gc.unfreeze()
    return results


def _tell(results: Sequence[BenchResult], options: dict[str, Any]) -> None:
    found = [result.to_dict(detailed=options["detailed"]) for result in results]
    if options["as_json"]:
        for entry in found:
            click.echo(json_text(entry))
        for result in results:
            for warning in result.warnings:
                note(f"{label(result.plan)}: {warning}")
    else:
        print_results(results)
    if options["output"] is not None:
        text = json.dumps(found[0] if len(found) == 1 else found, indent=2, ensure_ascii=False)
        _write(options["output"], f"{text}\n".encode())
    if options["plot"] is not None:
        from konko_async.cli.bench.plots import picture  # noqa: PLC0415 - slow to import

        _write(options["plot"], picture(results, Path(options["plot"]).suffix[1:].lower()))


def _write(path: str, data: bytes) -> None:
    try:
        Path(path).write_bytes(data)
    except OSError as error:
        # Not an error: the figures were printed, and the other file can still be written.
        note(f"{path} could not be written: {error.strerror}")
