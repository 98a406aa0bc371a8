"""``konko-async merge``: joins the outputs of shards."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command("merge")
@click.argument("output", metavar="OUT")
@click.argument("shards", metavar="SHARDS...", nargs=-1, required=True)
@click.option("--restart", is_flag=True, help="Discard what OUT holds.")
def command(output: str, shards: tuple[str, ...], *, restart: bool) -> int:
    """Join the outputs of `batch --shard` into one, each row once.

    SHARDS are the outputs, each with its .journal beside it. OUT gets a journal too: the same
    batch command without --shard does the rows that are missing.

    Exit codes: 0 all rows are there and were answered, 1 some failed or are missing, 2 usage.
    """
    from konko_async.batch import BatchError, merge_outputs  # noqa: PLC0415 - imports aiohttp
    from konko_async.cli._number_format import count  # noqa: PLC0415 - see above
    from konko_async.cli._output import note  # noqa: PLC0415 - see above

    try:
        report = merge_outputs(shards, output, restart=restart)
    except BatchError as error:
        note(" ".join(error.message.replace("restart=True", "--restart").split()))
        return 2
    of = "" if report.rows is None else f" (of {count(report.rows)})"
    parts = [
        f"{count(report.done - report.failed)} rows answered",
        f"{count(report.failed)} failed",
    ]
    if report.missing:
        parts.append(f"{count(report.missing)} missing")
    if report.repeated:
        parts.append(f"{count(report.repeated)} in several shards, taken once")
    note(f"{output}: {', '.join(parts)}{of}")
    return 1 if report.failed or report.missing else 0
