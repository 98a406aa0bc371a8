"""``konko-async log``: the conversations that are kept."""

from __future__ import annotations

import sys
from pathlib import Path

import click

_FORMATS = click.Choice(["md", "json"])
_DAY = 86400.0


@click.group("log", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """List, show, search, export and delete the conversations that are kept.

    `konko-async chat` keeps conversations in a file that only you can read. `log off` ends that,
    `log on` begins it again; --no-log or KONKO_LOG=0 keep nothing of one chat. Without a COMMAND,
    the latest conversations are listed.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_command)


@command.command("list")
@click.option(
    "-n", "limit", type=click.IntRange(1), default=20, show_default=True, help="At most so many."
)
@click.option("--all", "everything", is_flag=True, help="List all conversations.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each.")
def list_command(limit: int = 20, *, everything: bool = False, as_json: bool = False) -> int:
    """List the conversations, the latest first."""
    from konko_async.cli.log import output  # noqa: PLC0415 - keeps --help fast

    with output.failures():
        return output.listed(limit=None if everything else limit, as_json=as_json)


@command.command("show")
@click.argument("id", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON with OpenAI's messages.")
def show_command(id: str | None, *, as_json: bool) -> int:
    """Print a conversation.

    The latest, or that of an ID or the beginning of one.
    """
    from konko_async.cli.log import output  # noqa: PLC0415 - keeps --help fast

    with output.failures():
        return output.shown(id, as_json=as_json)


@command.command("search")
@click.argument("text")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each.")
def search_command(text: str, *, as_json: bool) -> int:
    """List the conversations that contain TEXT.

    Upper and lower case are the same. The exit code is 1 if there is none.
    """
    from konko_async.cli.log import output  # noqa: PLC0415 - keeps --help fast

    with output.failures():
        return output.found(text, as_json=as_json)


@command.command("export")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Export all conversations.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="FOLDER",
    help="Where the files go.  [default: here]",
)
@click.option("--format", "kind", type=_FORMATS, default="md", show_default=True)
def export_command(ids: tuple[str, ...], folder: Path, kind: str, *, everything: bool) -> int:
    """Write conversations into files.

    They are those of /save, and /load reads them again. They are named after the ID, and none is
    overwritten. Without an ID, the latest conversation is written.
    """
    from konko_async.cli.log import output  # noqa: PLC0415 - keeps --help fast

    if ids and everything:
        raise click.UsageError("give IDs or --all")
    with output.failures():
        return output.exported(None if everything else ids, folder, kind)


@command.command("delete")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="Delete all conversations.")
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Delete all whose last answer is older.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete_command(ids: tuple[str, ...], days: float | None, *, everything: bool, yes: bool) -> int:
    """Delete conversations for good."""
    from konko_async.cli.log import output  # noqa: PLC0415 - keeps --help fast

    if bool(ids) + everything + (days is not None) != 1:
        raise click.UsageError("say what to delete: IDs, or --older-than DAYS, or --all")
    if not ids and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("this deletes several conversations: confirm it with --yes")
        what = "all conversations" if days is None else f"all older than {days:g} days"
        click.confirm(f"Delete {what}?", abort=True, err=True)
    with output.failures():
        return output.deleted(
            list(ids) if ids else None, older_than=None if days is None else days * _DAY
        )


@command.command("status")
def status_command() -> int:
    """Print whether and where they are kept."""
    from konko_async.cli.log import output  # noqa: PLC0415 - keeps --help fast

    with output.failures():
        return output.status()


@command.command("on")
def on_command() -> int:
    """Keep conversations from now on."""
    from konko_async.cli.log import output  # noqa: PLC0415 - keeps --help fast

    return output.switched(keep=True)


@command.command("off")
def off_command() -> int:
    """Keep no conversations from now on.

    Those that are kept stay until they are deleted.
    """
    from konko_async.cli.log import output  # noqa: PLC0415 - keeps --help fast

    return output.switched(keep=False)
