"""``konko-async relay``."""

from __future__ import annotations

from typing import Any

import click

from konko_async.cli._options import Connection, connection_options

_OPTIONS = (
    click.option(
        "-m",
        "--model",
        "models",
        multiple=True,
        metavar="ID",
        help="A model that the page offers; repeatable. Default: all chat models of the server.",
    ),
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option("--port", type=click.IntRange(0, 65535), default=0, help="0, the default: any."),
    click.option("--allow-remote", is_flag=True, help="Allow a --host that others can reach."),
    click.option(
        "--allow-name",
        "names",
        multiple=True,
        metavar="NAME",
        help="A further host name that browsers may use; repeatable.",
    ),
    click.option("--token", is_flag=True, help="Ask for a token on this machine, too."),
    click.option("--open/--no-open", "show", default=False, help="Open the page in a browser."),
    click.option(
        "--drain",
        type=click.FloatRange(0),
        default=10.0,
        show_default=True,
        metavar="S",
        help="Seconds that answers may go on after Ctrl-C.",
    ),
)


def _relay_options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command("relay")
@_relay_options
@connection_options
def command(connection: Connection, **options: Any) -> int:
    """Serve a chat page on this machine until Ctrl-C or SIGTERM.

    The page talks to the server of --base-url with your key, which browsers never see, or with
    --local to a real small model. It listens on loopback only. For others to reach it, give --host
    and --allow-remote: it then asks for a token, which is a part of the address that is printed.
    """
    # aiohttp takes its time to import: --help does without it.
    from konko_async.cli._relaying import relay  # noqa: PLC0415 - see above
    from konko_async.cli._run import run  # noqa: PLC0415 - see above

    return run(relay(connection, **options), debug=connection.debug, terminated=0)
