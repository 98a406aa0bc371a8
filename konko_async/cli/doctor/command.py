"""``konko-async doctor``: its options."""

from __future__ import annotations

import click

from konko_async.cli._options import Connection, connection_options, model_option


@click.command("doctor")
@model_option
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON document.")
@connection_options
def command(connection: Connection, model: str | None, *, as_json: bool) -> int:
    """Find out why calls do not work, and what to do about it.

    Checks versions, the key's form, the address, proxy variables, the name server, the connection,
    the certificate, the models, a small call, how a stream arrives, and the limits that the server
    reports. It makes two small calls, which cost a few tokens. No key is printed. The exit code is
    1 if calls cannot work, and 0 if there are warnings only.
    """
    if connection.endpoint or connection.endpoints:
        raise click.UsageError("doctor looks at one server: give each endpoint as --base-url")
    from konko_async.cli._runner import run  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.doctor.run import run_doctor  # noqa: PLC0415 - keeps --help fast

    return run(run_doctor(connection, model, as_json=as_json), debug=connection.debug)
