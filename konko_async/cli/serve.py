"""``konko-async serve``: serves the emulator or the local model."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

_COUNT = click.IntRange(1)


@click.command("serve")
@click.option("--local", is_flag=True, help="Serve the local model instead of the emulator.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port to listen on; 0 picks a free one.  [default: 0]",
)
@click.option("--allow-remote", is_flag=True, help="Allow a --host that other machines can reach.")
@click.option(
    "--latency",
    type=click.FloatRange(0),
    default=0.0,
    metavar="S",
    help="Seconds to the first byte of an answer.",
)
@click.option(
    "--tokens-per-second",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="Speed of each answer.  [default: no limit]",
)
@click.option("--answer-tokens", type=_COUNT, metavar="N", help="Tokens of each answer.")
@click.option(
    "--capacity", type=_COUNT, metavar="N", help="Calls served at the same time; see --overload."
)
@click.option(
    "--overload",
    type=click.Choice(["reject", "queue"]),
    default="reject",
    show_default=True,
    help="What happens to calls beyond --capacity.",
)
@click.option(
    "--rpm", "requests_per_minute", type=_COUNT, metavar="N", help="Requests a minute, per key."
)
@click.option(
    "--tpm", "tokens_per_minute", type=_COUNT, metavar="N", help="Tokens a minute, per key."
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def command(context: click.Context, /, *, local: bool, debug: bool, **emulator: Any) -> int:
    """Serve the API on this machine until Ctrl-C or SIGTERM.

    The emulator answers with made-up text, at the speed and with the limits that you choose. With
    --local, a small real model answers. Both listen on loopback only. To let other machines reach
    the emulator, give --host, --allow-remote, and a key of your own in $KONKO_SERVE_KEY.
    """
    if local:
        _refuse_emulator_options(context, emulator)
    from konko_async.cli._runner import run  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli._serving import serve_emulator, serve_local  # noqa: PLC0415 - keeps --help fast

    work = serve_local() if local else serve_emulator(**emulator)
    # 0, as SIGTERM is how a service is meant to end.
    return run(work, debug=debug, terminated=0)


def _refuse_emulator_options(context: click.Context, emulator: dict[str, Any]) -> None:
    for parameter in context.command.params:
        name = parameter.name or ""
        # By source, not by value: `--port 0` equals the default, and --local would ignore it all
        # the same.
        given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if given and name in emulator:
            raise click.UsageError(f"{parameter.opts[0]} is for the emulator, not for --local")
