"""The options of batches that the server runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from konko_async.cli._options import decorated

__all__ = ["read_server_side", "server_options"]

_NEEDS: Final = "goes with --server-side"

_OPTIONS = (
    click.option(
        "--server-side",
        is_flag=True,
        help="Have the server run the rows as jobs over uploaded files, at half the price where it "
        "offers that. Ctrl-C leaves the jobs running; the same command takes their answers.",
    ),
    click.option(
        "--then-live",
        is_flag=True,
        help="With --server-side: answer what expired or failed by calls, once no job is left.",
    ),
    click.option(
        "--cancel",
        is_flag=True,
        help="With --server-side: cancel the jobs of earlier runs, take what they have, and end.",
    ),
    click.option(
        "--rows-per-file",
        type=click.IntRange(1),
        metavar="N",
        help="Rows in a file for the server.  [default: 50000]",
    ),
    click.option(
        "--bytes-per-file",
        type=click.IntRange(1),
        metavar="N",
        help="Size of a file for the server.  [default: 200000000]",
    ),
    click.option(
        "--max-jobs", type=click.IntRange(1), metavar="N", help="Jobs that the server has at once."
    ),
    click.option(
        "--poll",
        type=click.FloatRange(0.01),
        metavar="S",
        help="Seconds between two looks at the jobs, at most.  [default: 60]",
    ),
    click.option(
        "--delete-files",
        is_flag=True,
        help="With --server-side: delete the files from the server once their rows are in OUT.",
    ),
)


def server_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; :func:`read_server_side` reads them."""
    return decorated(function, _OPTIONS)


def read_server_side(options: dict[str, Any]) -> Any:
    """Take the options out of ``options``; returns ``server_side=``.

    Raises:
        click.UsageError: one of them is given without ``--server-side``.
    """
    wanted = options.pop("server_side")
    poll = options.pop("poll")
    given: dict[str, Any] = {}
    for name in (
        "then_live", "cancel", "rows_per_file", "bytes_per_file", "max_jobs", "delete_files",
    ):  # fmt: skip
        value = options.pop(name)
        if value is not None and value is not False:
            given[name] = value
    if poll is not None:
        given |= {"longest_poll": poll, "first_poll": min(2.0, poll)}
    if not wanted:
        if given:
            name = "poll" if "longest_poll" in given else next(iter(given))
            raise click.UsageError(f"--{name.replace('_', '-')} {_NEEDS}")
        return False
    from konko_async.batch import ServerSide  # noqa: PLC0415 - imports aiohttp

    return ServerSide(**given)
