"""``konko-async relay``: serves a chat page for browsers."""

from __future__ import annotations

from typing import Any

import click

from konko_async.cli._options import Connection, connection_options


@click.command("relay")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="ID",
    help="A model that the page offers; repeatable. Default: all chat models of the server.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port; 0 picks a free one.  [default: 0]",
)
@click.option("--allow-remote", is_flag=True, help="Allow a --host that other machines can reach.")
@click.option(
    "--allow-name",
    "names",
    multiple=True,
    metavar="NAME",
    help="A further host name that browsers may use; repeatable.",
)
@click.option("--token", is_flag=True, help="Require a token on this machine, too.")
@click.option("--open/--no-open", "show", default=False, help="Open the page in a browser.")
@click.option(
    "--drain",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds that answers may take to finish after Ctrl-C.",
)
@connection_options
def command(connection: Connection, **options: Any) -> int:
    """Serve a chat page on this machine until Ctrl-C or SIGTERM.

    The page talks to the server of --base-url with your key, which browsers never see, or with
    --local to a real small model. It listens on loopback only. For others to reach it, give --host
    and --allow-remote: it then asks for a token, which is a part of the address that is printed.
    """
    from konko_async.cli._relay_run import relay  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli._runner import run  # noqa: PLC0415 - keeps --help fast

    # 0, as SIGTERM is how a service is meant to end.
    return run(relay(connection, **options), debug=connection.debug, terminated=0)
