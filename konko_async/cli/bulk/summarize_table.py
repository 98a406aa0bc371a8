"""Prints summaries as a table on standard error."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from konko_async.cli._output import clean, redact
from konko_async.summarize import Summary, without_common_folder

__all__ = ["print_table"]

_ROWS = 50
_LONGEST = 300


def print_table(summaries: Sequence[Summary]) -> None:
    """Print the first summaries, and those documents among the others that failed."""
    told = [entry for entry in summaries if entry.summary is not None or entry.error is not None]
    if not told:
        return
    # Documents that failed are shown wherever they stand: somebody has to look after them.
    shown = told[:_ROWS] + [entry for entry in told[_ROWS:] if entry.error is not None][:_ROWS]
    console = Console(stderr=True, highlight=False)
    table = Table(border_style="dim", header_style="bold", row_styles=("", "dim"), expand=True)
    table.add_column("document", ratio=2, overflow="fold")
    table.add_column("parts", justify="right", no_wrap=True)
    table.add_column("summary", ratio=5, overflow="fold")
    names = without_common_folder([entry.document for entry in shown])
    for name, entry in zip(names, shown, strict=True):
        parts = str(entry.parts) if entry.parts else ""
        # As Text, since rich takes [brackets] in a string for markup.
        table.add_row(Text(_safe(name)), parts, _what(entry))
    console.print(table)
    if len(shown) < len(told):
        console.print(f"[dim]and {len(told) - len(shown)} more[/dim]")


def _what(entry: Summary) -> Text:
    if entry.error is not None:
        return Text(_safe(entry.error["message"]), style="red")
    return Text(_safe(entry.summary or ""))


def _safe(text: str) -> str:
    text = " ".join(clean(redact(text)).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()} ..."
