"""``konko-async serve``."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

_COUNT = click.IntRange(1)
_EMULATOR_OPTIONS = (
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option("--port", type=click.IntRange(0, 65535), default=0, help="0, the default: any."),
    click.option("--allow-remote", is_flag=True, help="Allow a --host that others can reach."),
    click.option(
        "--latency", type=click.FloatRange(0), default=0.0, metavar="S", help="To the first byte."
    ),
    click.option(
        "--tokens-per-second",
        type=click.FloatRange(0, min_open=True),
        metavar="N",
        help="The pace of each answer; default: none.",
    ),
    click.option("--answer-tokens", type=_COUNT, metavar="N", help="The length of an answer."),
    click.option("--capacity", type=_COUNT, metavar="N", help="Calls served at once."),
    click.option(
        "--overload",
        type=click.Choice(["reject", "queue"]),
        default="reject",
        show_default=True,
        help="What becomes of calls above the capacity.",
    ),
    click.option(
        "--rpm", "requests_per_minute", type=_COUNT, metavar="N", help="Requests a minute, per key."
    ),
    click.option(
        "--tpm", "tokens_per_minute", type=_COUNT, metavar="N", help="Tokens a minute, per key."
    ),
)


def _emulator_options(function: Any) -> Any:
    for option in reversed(_EMULATOR_OPTIONS):
        function = option(function)
    return function


@click.command("serve")
@click.option("--local", is_flag=True, help="Serve the real local model, not the emulator.")
@_emulator_options
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def command(context: click.Context, /, *, local: bool, debug: bool, **emulator: Any) -> int:
    """Serve the API on this machine until Ctrl-C or SIGTERM.

    The emulator answers with made-up text, at the pace and with the limits that you set; with
    --local a real small model answers. Both listen on loopback only. For others to reach the
    emulator, give --host, --allow-remote, and a key of your own in $KONKO_SERVE_KEY.
    """
    if local:
        _refuse_emulator_options(context, emulator)
    # aiohttp takes its time to import: --help does without it.
    from konko_async.cli._run import run  # noqa: PLC0415 - see above
    from konko_async.cli._serving import serve_emulator, serve_local  # noqa: PLC0415 - see above

    work = serve_local() if local else serve_emulator(**emulator)
    return run(work, debug=debug, terminated=0)


def _refuse_emulator_options(context: click.Context, emulator: dict[str, Any]) -> None:
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if given and name in emulator:
            raise click.UsageError(f"{parameter.opts[0]} is the emulator's; --local goes without")
