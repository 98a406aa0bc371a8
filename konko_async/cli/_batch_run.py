"""A batch from the command line: options in, progress and a summary out."""

from __future__ import annotations

import os
from typing import Any

from konko_async.batch import BatchReport, Processes, Workers, run_batch
from konko_async.cli._bulk import Bulk
from konko_async.cli._connect import connect
from konko_async.cli._options import Connection
from konko_async.cli._progress import SAMPLING, open_display
from konko_async.cli._report import write_report
from konko_async.cli._stopping import ended, graceful, limited, width
from konko_async.cli._summary import print_estimate, print_summary

__all__ = ["run_command"]


async def run_command(
    connection: Connection,
    bulk: Bulk,
    source: str,
    output: str,
    *,
    model: str | None,
    **options: Any,
) -> int:
    """Run a batch.

    Args:
        connection: whom to ask.
        bulk: the options that other commands have too.
        source: the input.
        output: the output.
        model: for rows that name none.
        **options: of this command.

    Returns:
        The exit code.

    Raises:
        KonkoError: the client could not be made.
    """
    arguments = _arguments(bulk, options)
    async with connect(connection, model or os.environ.get("KONKO_MODEL")) as (client, known):
        with (
            ended(debug=connection.debug) as end,
            open_display(bulk) as display,
            graceful(display) as stop,
        ):
            end.report = await run_batch(
                limited(client, bulk, local=connection.local),
                source,
                output,
                model=known,
                max_concurrency=width(bulk, local=connection.local),
                on_progress=display.update,
                progress_interval=SAMPLING,
                stop=stop,
                **arguments,
            )
    if end.report is not None:
        _tell(end.report, bulk, output)
    return end.code


def _arguments(bulk: Bulk, options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``run_batch`` that the options name."""
    params = {name: options.pop(name) for name in ("temperature", "max_tokens", "stream")}
    workers = _workers(options.pop("engine"), options.pop("processes"))
    seed = options.pop("seed")
    shared = ("max_cost", "max_tokens_total", "retry_failed", "restart", "dry_run")
    return {
        **options,
        "workers": workers,
        **{name: getattr(bulk, name) for name in shared},
        "endpoint": f"/v1/{options['endpoint']}",
        "params": {
            name: value
            for name, value in params.items()
            if value is not None and value is not False
        },
        "shuffle": seed if seed is not None else options["shuffle"],
    }


def _workers(engine: str, count: int | None) -> Workers | None:
    """Return where the calls are to be made."""
    if engine == "ray":
        from konko_async.integrations.ray import RayWorkers  # noqa: PLC0415 - takes its time

        return RayWorkers(count)
    return None if count is None else Processes(count)


def _tell(report: BatchReport, bulk: Bulk, output: str) -> None:
    if report.estimate is not None:
        print_estimate(report.estimate, done=report.done)
    else:
        print_summary(report, where="standard output" if output == "-" else output)
    if bulk.report is not None:
        write_report(bulk.report, report)
