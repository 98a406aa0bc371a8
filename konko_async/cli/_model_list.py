"""The model list as a table, as tab-separated text and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from konko_async import Model, ModelList
from konko_async.cli._connect import connect
from konko_async.cli._options import Connection
from konko_async.cli._output import clean, is_terminal, json_text, note

__all__ = ["show"]

_YES_NO = {True: "yes", False: "no", None: ""}
_PADDING = 3  # what a column costs beside its text

# In the order in which they are left out where a terminal is too narrow: the last one goes first.
_COLUMNS = (
    ("id", "id"),
    ("chat", "is_chat"),
    ("text", "is_text"),
    ("context", "max_context_length"),
    ("public price", "public_endpoint_pricing"),
    ("creator", "creator"),
    ("private price", "private_endpoint_pricing"),
    ("category", "category"),
    ("licence", "license_name"),
    ("censorship", "censorship"),
    ("owner", "owned_by"),
)


async def show(connection: Connection, *, kind: str | None, as_json: bool, wide: bool) -> int:
    """Fetch the list and print it.

    Args:
        connection: the server.
        kind: ``chat`` or ``text``: leave out the models that say they are not of this kind.
        as_json: print JSON, with all fields.
        wide: leave no column out.

    Returns:
        The exit code.
    """
    async with connect(connection) as (client, _):
        page = await client.models.list()
    models = [model for model in page.data if _is(kind, model)]
    if as_json:
        click.echo(json_text(_as_sent(page, models), indent=2))
    elif is_terminal(sys.stdout):
        _print_table(models, wide=wide)
    else:
        _print_lines(models)
    return 0


def _is(kind: str | None, model: Model) -> bool:
    # Servers other than Konko do not say: a model that may be of the kind is listed.
    return kind is None or getattr(model, f"is_{kind}") is not False


def _as_sent(page: ModelList, models: Sequence[Model]) -> Any:
    """Return the list as it was received, with only these models in it."""
    # From the raw JSON, as servers send fields that Model does not have.
    listed, names = page.raw, {model.id for model in models}
    kept = [model for model in listed["data"] if model.get("id") in names]
    return {**listed, "data": kept}


def _cell(model: Model, field: str) -> str:
    value = getattr(model, field)
    if value is None or isinstance(value, bool):
        return _YES_NO[value]
    return " ".join(clean(str(value)).split())


def _print_lines(models: Sequence[Model]) -> None:
    click.echo("\t".join(title for title, _ in _COLUMNS))
    for model in models:
        click.echo("\t".join(_cell(model, field) for _, field in _COLUMNS))


def _print_table(models: Sequence[Model], *, wide: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.table import Table  # noqa: PLC0415 - rich: a pipe needs none of it
    from rich.text import Text  # noqa: PLC0415 - rich: a pipe needs none of it

    # Columns that no model fills are left out: many servers send ids only.
    columns = [
        (title, cells)
        for title, field in _COLUMNS
        if any(cells := [_cell(model, field) for model in models])
    ]
    width = {title: max(map(len, [title, *cells])) + _PADDING for title, cells in columns}
    console = Console()
    kept = columns if wide else _fitting(columns, width, console.width - 1)
    if wide:
        console.width = max(console.width, sum(width.values()) + 1)
    table = Table(header_style="bold", row_styles=("", "dim"), border_style="dim")
    for title, _ in kept:
        right = title == "context"
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for row in zip(*(cells for _, cells in kept), strict=True):
        # Text, as rich would take square brackets in a str for markup.
        table.add_row(*map(Text, row))
    # soft_wrap keeps rich from cropping a table that is wider than the terminal on purpose.
    console.print(table, soft_wrap=wide)
    left_out = [title for title, _ in columns if title not in dict(kept)]
    if left_out:
        note(f"not shown: {', '.join(left_out)} (--wide or --json shows all)")


def _fitting(
    columns: list[tuple[str, list[str]]], width: dict[str, int], room: int
) -> list[tuple[str, list[str]]]:
    """Return the most columns, from the left, that fit; the first one always stays."""
    while len(columns) > 1 and sum(width[title] for title, _ in columns) > room:
        columns = columns[:-1]
    return columns
