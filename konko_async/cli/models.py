"""``konko-async models``."""

from __future__ import annotations

import click

from konko_async.cli._options import Connection, connection_options


@click.command("models")
@click.option("--chat", "kind", flag_value="chat", help="Only models for chat completions.")
@click.option("--text", "kind", flag_value="text", help="Only models for text completions.")
@click.option("--json", "as_json", is_flag=True, help="Every field, as the server sent it.")
@click.option("--wide", is_flag=True, help="All columns, however narrow the terminal.")
@connection_options
def command(connection: Connection, kind: str | None, *, as_json: bool, wide: bool) -> int:
    """List the models of the server.

    A table on a terminal, with the columns that fit; tab-separated text in a pipe.
    """
    # aiohttp and rich take their time to import: --help does without them.
    from konko_async.cli._model_list import show  # noqa: PLC0415 - see above
    from konko_async.cli._run import run  # noqa: PLC0415 - see above

    work = show(connection, kind=kind, as_json=as_json, wide=wide)
    return run(work, debug=connection.debug)
