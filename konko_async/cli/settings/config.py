"""``konko-async config``: what the configuration file says."""

from __future__ import annotations

import click


@click.group("config", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Show the configuration file: a default model, aliases, templates.

    It is written by you, in TOML. `config init` makes one with everything explained. Without a
    COMMAND, what it says is shown, and checked.
    """
    if context.invoked_subcommand is None:
        context.invoke(show_command)


@command.command("show")
def show_command() -> int:
    """Show what the file says, and check it.

    A mistake in it is an error that names the place.
    """
    from konko_async.cli._output import clean, note  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.settings.config_file import config_path, load_config  # noqa: PLC0415 - keeps --help fast

    config = load_config()
    click.echo(f"file: {config_path()}")
    if not config_path().exists():
        note("there is no such file; `konko-async config init` writes one")
    click.echo(f"model: {clean(config.model or '(none)')}")
    click.echo(f"conversations are kept: {'yes' if config.log else 'no'}")
    for name, model in sorted(config.aliases.items()):
        click.echo(clean(f"alias {name} = {model}"))
    for name, template in sorted(config.templates.items()):
        click.echo(clean(f"template {name}: {template.prompt or '{input}'}"))
    return 0


@command.command("path")
def path_command() -> int:
    """Print where the file is, or would be."""
    from konko_async.cli.settings.config_file import config_path  # noqa: PLC0415 - keeps --help fast

    click.echo(str(config_path()))
    return 0


@command.command("init")
def init_command() -> int:
    """Write a file that explains itself.

    One that is there already is left alone.
    """
    from konko_async.cli._output import note  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli._state import private_folder  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.settings.config_file import EXAMPLE, config_path  # noqa: PLC0415 - keeps --help fast

    path = config_path()
    try:
        private_folder(path.parent)
        with path.open("x", encoding="utf-8") as file:
            file.write(EXAMPLE)
    except FileExistsError:
        raise click.UsageError(f"{path} is there already") from None
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    note(f"written: {path}")
    return 0
