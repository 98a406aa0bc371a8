"""Several answers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from rich.style import Style

from konko_async.cli.chat.turns import Side
from konko_async.cli.terminal.layout import Layout, ScreenLine
from konko_async.cli.terminal.live import Refresh, screen_console
from konko_async.cli.terminal.pane import Pane
from konko_async.cli.terminal.screen_region import Region

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["GAP", "Columns"]

GAP = " │ "
_BOLD = Style(bold=True)


class _Column(Side):
    """One of the answers that stand side by side."""

    def __init__(self, owner: Columns, console: Console, title: str, width: int) -> None:
        self.pane = Pane(console, width)
        self.lines = [*Layout(console, width).text(title, _BOLD), ScreenLine("", 0)]
        self.ended = False
        self._owner = owner

    def begin(self) -> None:
        """Its heading is shown with the others."""

    def think(self, text: str) -> None:
        """Show more of the reasoning."""
        self.pane.think(text)
        self._owner.changed()

    def add(self, text: str) -> None:
        """Show more of the answer."""
        self.pane.add(text)
        self._owner.changed()

    def end(self, said: Sequence[str] = ()) -> None:
        """Finish."""
        for line in said:
            self.pane.say(line)
        self.lines += self.pane.finish()
        self.ended = True
        self._owner.changed()


class Columns:
    """Shows answers side by side; a row stays when it is certain in all of them.

    Args:
        stream: of the terminal.
        titles: one for each.
        region: where they are drawn; default: at the cursor.
    """

    def __init__(
        self, stream: IO[str], titles: Sequence[str], region: Region | None = None
    ) -> None:
        self._region = region or Region(stream)
        self._refresh = Refresh(self._paint)
        self._console = screen_console(stream)
        self._count = len(titles)
        self._columns = [_Column(self, self._console, title, self._width()) for title in titles]
        self.sides: list[Side] = [*self._columns]

    def begin(self) -> None:
        """Show the headings."""
        self.changed()

    def changed(self) -> None:
        """Draw, soon."""
        self._refresh.changed()

    def end(self) -> None:
        """Show all that there is, and leave the cursor below."""
        self._refresh.stop()
        for column in self._columns:
            column.lines += column.pane.finish()
            column.ended = True
        self._paint()
        self._region.close()

    def _width(self) -> int:
        free = self._region.columns - 1 - len(GAP) * (self._count - 1)
        return max(free // self._count, 1)

    def _paint(self) -> None:
        width = self._width()
        drafts = []
        for column in self._columns:
            # For each state, as the terminal may have changed its size.
            column.pane.width = width
            if not column.ended:
                column.lines += column.pane.settle()
            drafts.append([] if column.ended else column.pane.draft())
        # A column that has ended adds no more lines, so it holds none of the others back.
        growing = [len(column.lines) for column in self._columns if not column.ended]
        certain = min(growing, default=max(len(column.lines) for column in self._columns))
        final = self._rows([column.lines[:certain] for column in self._columns], width)
        for column in self._columns:
            del column.lines[:certain]
        # Each column shows its own newest lines.
        newest = [
            [*column.lines, *draft][-self._region.rows :]
            for column, draft in zip(self._columns, drafts, strict=True)
        ]
        self._region.paint(final, self._rows(newest, width))

    def _rows(self, columns: list[list[ScreenLine]], width: int) -> list[ScreenLine]:
        """Put the lines of columns next to each other."""
        rows = []
        for place in range(max(map(len, columns))):
            text, used = "", 0
            for number, lines in enumerate(columns):
                line = lines[place] if place < len(lines) else ScreenLine("", 0)
                wanted = number * (width + len(GAP))
                gap = f"\x1b[2m{GAP}\x1b[0m" if number else ""
                text += " " * (wanted - len(GAP) * bool(number) - used) + gap + line.text
                # Lines laid out before the terminal became narrower may be wider than their column.
                used = max(wanted, used) + line.width
            rows.append(ScreenLine(text, used))
        return rows
