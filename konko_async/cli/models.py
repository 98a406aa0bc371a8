"""``konko-async models``: lists the models of a server."""

from __future__ import annotations

import click

from konko_async.cli._options import Connection, connection_options


@click.command("models")
@click.option("--chat", "kind", flag_value="chat", help="List only models for chat completions.")
@click.option("--text", "kind", flag_value="text", help="List only models for text completions.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON with every field that the server sent."
)
@click.option("--wide", is_flag=True, help="Print all columns, even if the terminal is too narrow.")
@connection_options
def command(connection: Connection, kind: str | None, *, as_json: bool, wide: bool) -> int:
    """List the models of the server.

    Prints a table with the columns that fit on a terminal, and tab-separated text in a pipe.
    """
    from konko_async.cli._model_list import show  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli._runner import run  # noqa: PLC0415 - keeps --help fast

    work = show(connection, kind=kind, as_json=as_json, wide=wide)
    return run(work, debug=connection.debug)
