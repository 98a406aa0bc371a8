"""The commands, and the exit code of each way in which one can end."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from konko_async import __version__

__all__ = ["execute"]

FAILED, USAGE, INTERRUPTED = 1, 2, 130

# Each command is `command` in the module of its name; a new one needs a line here and its module.
COMMANDS = {
    "models": "List the models of the server.",
    "chat": "Ask a model; with no prompt, talk with it.",
    "batch": "Make the calls of a file; resumable at any time.",
    "summarize": "Summarise documents, long ones in parts.",
    "bench": "Measure a server: throughput, latencies, errors.",
    "serve": "Serve the emulator, or a real small model, on this machine.",
    "relay": "Serve a chat page for browsers, on this machine.",
}

_EPILOG = """
\b
Environment:
  KONKO_API_KEY    the key; never an argument, which others could see
  KONKO_BASE_URL   another server that speaks OpenAI's chat API
  KONKO_MODEL      the model to ask where --model is not given

Exit codes: 0 done, 1 a request failed, 2 usage or configuration, 130 interrupted.
"""


class _Commands(click.Group):
    """Loads a command's module when that command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"konko_async.cli.{cmd_name}").command
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def root() -> None:
    """Talk to the Konko chat API, or to any server that speaks OpenAI's."""


def execute(arguments: Sequence[str]) -> int:
    """Run a command.

    Args:
        arguments: the command line, without the program's name.

    Returns:
        The exit code.
    """
    try:
        code: Any = root.main(list(arguments), prog_name="konko-async", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return USAGE if isinstance(error, click.UsageError) else error.exit_code
    except click.Abort:  # click's word for Ctrl-C
        return INTERRUPTED
    return code if isinstance(code, int) else 0
