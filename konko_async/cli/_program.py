"""The commands, and the exit code of each way in which one can end."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from konko_async import __version__
from konko_async.cli._output import clean

__all__ = ["execute"]

FAILED, USAGE, INTERRUPTED = 1, 2, 130

# Each command's help line, shown without loading it; a new one needs a line here and in _MODULES.
COMMANDS = {
    "models": "List the models of the server.",
    "chat": "Ask a model; without a prompt, hold a conversation.",
    "batch": "Make a call for each row of a file; resumable at any time.",
    "merge": "Join the outputs of batch --shard.",
    "view": "Show the output of a batch in a browser: rows, search, charts, comparison.",
    "summarize": "Summarise documents of any length.",
    "bench": "Benchmark a server: throughput, latencies, errors.",
    "serve": "Serve an emulator of the API, or a small real model, on this machine.",
    "relay": "Serve a chat page for browsers on this machine.",
    "doctor": "Find out why calls do not work, and what to do about it.",
    "log": "List, show, search, export and delete the conversations that are kept.",
    "config": "Show the configuration file: a default model, aliases, templates.",
    "completion": "Print or install the completion of commands for bash, zsh or fish.",
}

# The module that defines each command, as `command`.
_MODULES = {
    "models": "models",
    "chat": "chat.command",
    "batch": "bulk.batch",
    "merge": "bulk.batches.merge",
    "view": "view.command",
    "summarize": "bulk.summarize",
    "bench": "bench.command",
    "serve": "serve",
    "relay": "relay",
    "doctor": "doctor.command",
    "log": "log.command",
    "config": "settings.config",
    "completion": "settings.completion",
}

_EPILOG = """
\b
Environment:
  KONKO_API_KEY    the API key; no option takes it, as other users can see arguments
  KONKO_BASE_URL   address of a server, if it is not Konko's
  KONKO_MODEL      the model to use when --model is not given
  KONKO_LOG        0 keeps no conversations of `chat`

Exit codes: 0 success, 1 a request failed, 2 wrong usage or configuration, 130 interrupted.
"""


class _LazyGroup(click.Group):
    """Loads the module of a command when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        # With None, click reports the unknown command itself.
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"konko_async.cli.{_MODULES[cmd_name]}")
        command: click.Command = module.command
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
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def root() -> None:
    """Use the Konko chat API, or any server that speaks OpenAI's, from the terminal."""


def execute(arguments: Sequence[str]) -> int:
    """Run a command.

    Args:
        arguments: the command line, without the program's name.

    Returns:
        The exit code.
    """
    try:
        # In standalone mode click would exit by itself, and ignore the code that a command returns.
        code: Any = root.main(list(arguments), prog_name="konko-async", standalone_mode=False)
    except click.ClickException as error:
        # Names of files and what stands in them may come from anywhere.
        error.show(said := io.StringIO())
        click.echo(clean(said.getvalue()), err=True, nl=False)
        return USAGE if isinstance(error, click.UsageError) else error.exit_code
    except click.Abort:  # click's word for Ctrl-C
        return INTERRUPTED
    return code if isinstance(code, int) else 0
