"""A batch from the command line: options in, progress and a summary out."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from konko_async.batch import BatchReport, Processes, Workers, run_batch
from konko_async.cli._connect import connect
from konko_async.cli._options import Connection
from konko_async.cli.bulk.batches.judging import read_judging
from konko_async.cli.bulk.batches.more import read_more
from konko_async.cli.bulk.batches.server_side import read_server_side
from konko_async.cli.bulk.batches.webhook import send_webhook
from konko_async.cli.bulk.displays import open_display
from konko_async.cli.bulk.options import Bulk
from konko_async.cli.bulk.progress import SAMPLING
from konko_async.cli.bulk.report import write_report
from konko_async.cli.bulk.stopping import (
    code_after_signal,
    ended,
    graceful,
    limited,
    spelled,
    width,
)
from konko_async.cli.bulk.summary import print_estimate, print_summary

__all__ = ["run_command"]


_YOUNG: Final = 10_000  # new objects after which the collector looks; by default 700


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Have the garbage collector look less often: calls in flight are no garbage, and many."""
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if not frozen:  # else by the process that this runs in
            gc.unfreeze()


async def run_command(
    connection: Connection,
    bulk: Bulk,
    source: str,
    output: str,
    *,
    model: str | None,
    no_learn: bool = False,
    **options: Any,
) -> int:
    """Run a batch.

    Args:
        connection: which server is used.
        bulk: the options that other commands have too.
        source: the input.
        output: the output.
        model: for rows that name none.
        no_learn: whether the limits that the server reports are ignored.
        **options: of this command.

    Returns:
        The exit code.

    Raises:
        KonkoError: the client could not be made.
    """
    webhook = options.pop("webhook")
    arguments = _arguments(bulk, options)
    async with connect(connection, model) as (client, known):
        with (
            _seldom_collected(),
            ended(debug=connection.debug) as end,
            open_display(bulk) as display,
            graceful(display) as stop,
        ):
            end.report = await run_batch(
                limited(client, bulk, local=connection.local, learn=not no_learn),
                source,
                output,
                model=known,
                max_concurrency=width(bulk, local=connection.local),
                on_progress=display.update,
                on_notice=lambda text: display.say(spelled(text)),
                progress_interval=SAMPLING,
                stop=stop,
                **arguments,
            )
    code = code_after_signal(stop, end.code)
    # After the block, which ends the display: the summary must not be drawn over.
    if end.report is not None:
        _tell(end.report, bulk, output)
        if webhook and not bulk.dry_run:
            await send_webhook(webhook, end.report, code=code)
    return code


def _arguments(bulk: Bulk, options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``run_batch`` that the options name."""
    params = {name: options.pop(name) for name in ("temperature", "max_tokens", "stream")}
    workers = _workers(options.pop("engine"), options.pop("processes"))
    server_side, more = read_server_side(options), read_more(options)
    seed, api = options.pop("seed"), options.pop("api")
    judged = read_judging(options)
    shared = ("max_cost", "max_tokens_total", "retry_failed", "restart", "dry_run")
    return {
        **options,
        "workers": workers,
        "server_side": server_side,
        **more,
        **judged,
        **{name: getattr(bulk, name) for name in shared},
        "endpoint": f"/v1/{api}",
        # An option that was not given is no parameter: a resumed run compares those that there are.
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
        # Only here, since ray is an extra that need not be installed.
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
