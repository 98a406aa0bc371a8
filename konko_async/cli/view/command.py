"""``konko-async view``: shows the output of a batch in a browser."""

from __future__ import annotations

from typing import Any

import click


@click.command("view")
@click.argument("output", metavar="OUT", type=click.Path(exists=True, dir_okay=False))
@click.argument(
    "compare", metavar="[OTHER]", required=False, type=click.Path(exists=True, dir_okay=False)
)
@click.option(
    "--input",
    "source",
    metavar="IN",
    type=click.Path(exists=True, dir_okay=False),
    help="JSON lines with the prompts.  [default: the input that the journal names]",
)
@click.option(
    "--price-in", type=click.FloatRange(0), metavar="X", help="Price of a million prompt tokens."
)
@click.option(
    "--price-out", type=click.FloatRange(0), metavar="X", help="Price of a million output tokens."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port; 0 picks a free one.  [default: 0]",
)
@click.option("--open/--no-open", "show", default=True, help="Open the page in a browser.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(*, debug: bool, **options: Any) -> int:
    """Show the output of a batch in a browser, also while it is written.

    Rows with their prompts, answers, errors, tokens and latencies; search, filters, charts. With
    OTHER, two outputs side by side, with their differences. It listens on this machine only, until
    Ctrl-C, and changes nothing.
    """
    from konko_async.cli._runner import run  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.view.serve import view  # noqa: PLC0415 - keeps --help fast

    # 0, as SIGTERM is how a service is meant to end.
    return run(view(**options), debug=debug, terminated=0)
