"""Prints kept conversations, writes them into files, and deletes them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from konko_async.cli._number_format import plural
from konko_async.cli._output import clean, is_terminal, json_text, note, terminal_size
from konko_async.cli.chat.conversation import shown_text
from konko_async.cli.chat.saved_conversations import NotSaved, save, written
from konko_async.cli.log.keeper import is_kept
from konko_async.cli.log.store import ConversationStore, LogError, LogRow
from konko_async.cli.settings.config_file import load_config, write_log_setting

__all__ = [
    "deleted",
    "exported",
    "failures",
    "found",
    "listed",
    "shown",
    "status",
    "switched",
]

_ID, _TIME, _MODEL = 8, 16, 24  # columns
_NAMES = {"user": "You", "assistant": "Answer"}
_MIB = 2**20


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Turn failures of the store into one line, and wrong usage."""
    try:
        yield
    except (LogError, NotSaved) as error:
        raise click.UsageError(str(error)) from None


def listed(*, limit: int | None, as_json: bool) -> int:
    """Print the latest conversations."""
    rows = ConversationStore().rows(limit)
    if not rows and not as_json:
        note("no conversation is kept yet")
    _print(rows, as_json=as_json)
    return 0


def found(text: str, *, as_json: bool) -> int:
    """Print the conversations in which a text occurs; the exit code is 1 if there is none."""
    if not text.strip():
        raise click.UsageError("the text to search for is empty")
    rows = ConversationStore().search(text)
    if not rows and not as_json:
        note("it occurs in no conversation")
    _print(rows, as_json=as_json)
    return 0 if rows else 1


def _print(rows: Sequence[LogRow], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            click.echo(json_text(row))
        return
    width = terminal_size(sys.stdout)[0] if is_terminal(sys.stdout) else None
    for row in rows:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.updated))
        text = clean(row.excerpt or row.title)
        if width is None:
            fields = (row.id, when, clean(row.model), str(row.messages), text)
            click.echo("\t".join(" ".join(field.split()) for field in fields))
            continue
        model = clean(row.model).rpartition("/")[2][:_MODEL].ljust(_MODEL)
        line = f"{row.id}  {when}  {model}  {row.messages:>3}  {text}"
        click.echo(line if len(line) < width else f"{line[: width - 2]}…")


def shown(name: str | None, *, as_json: bool) -> int:
    """Print one conversation."""
    conversation, model = ConversationStore().read(name)
    if as_json:
        click.echo(written(model, conversation, as_json=True), nl=False)
        return 0
    kept = conversation.kept
    click.echo(f"# {kept.id if kept else ''} {clean(model)}")
    for message in conversation.messages:
        heading = _NAMES.get(message["role"], message["role"].capitalize())
        click.echo(f"\n## {heading}\n\n{clean(shown_text(message['content']))}")
    return 0


def exported(names: Sequence[str] | None, folder: Path, kind: str) -> int:
    """Write conversations into files of a folder.

    Args:
        names: ids; none: the latest; None: all.
        folder: is made if it is not there.
        kind: ``md`` or ``json``.
    """
    store = ConversationStore()
    wanted: Sequence[str | None] = names or [None]
    if names is None:
        wanted = [row.id for row in store.rows()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"{folder}: {error.strerror}") from None
    for name in wanted:
        conversation, model = store.read(name)
        assert conversation.kept is not None  # noqa: S101 - read() has set it
        path = folder / f"conversation-{conversation.kept.id}.{kind}"
        try:
            save(path, model, conversation, overwrite=False)
        except FileExistsError:
            raise click.UsageError(f"{path} is there already; nothing is overwritten") from None
        click.echo(str(path))
    return 0


def deleted(names: list[str] | None, *, older_than: float | None) -> int:
    """Delete conversations, and say how many."""
    store = ConversationStore()
    if names is None and not store.path.exists():
        note("no conversation is kept")
        return 0
    note(f"{plural(store.delete(names, older_than=older_than), 'conversation')} deleted")
    return 0


def status() -> int:
    """Print where conversations are kept, if they are."""
    store = ConversationStore()
    on = is_kept(option=None, config=load_config().log)
    click.echo(f"conversations are {'kept' if on else 'not kept'}")
    size = store.path.stat().st_size / _MIB if store.path.exists() else 0.0
    click.echo(f"{plural(len(store.rows()), 'conversation')}, {size:.2f} MiB, in {store.path}")
    return 0


def switched(*, keep: bool) -> int:
    """Write into the configuration whether conversations are kept."""
    path = write_log_setting(keep=keep)
    note(f"conversations are {'kept' if keep else 'not kept'} from now on ({path})")
    return 0
