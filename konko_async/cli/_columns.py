"""Several answers at once: side by side, or one after the other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING

from rich.style import Style

from konko_async.cli._answer import PlainView, View
from konko_async.cli._layout import Layout, Line
from konko_async.cli._live import LiveView, Refresh, screen_console
from konko_async.cli._output import clean, is_terminal
from konko_async.cli._pane import Pane
from konko_async.cli._region import Region

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Columns", "Side", "Turns", "is_live", "side_by_side", "single_view"]

_NARROWEST = 36  # columns that an answer needs to be read
_GAP = " │ "
_BOLD = Style(bold=True)


def is_live(stream: IO[str]) -> bool:
    """Whether a stream can be drawn on: a terminal that knows how to move its cursor."""
    return is_terminal(stream) and os.environ.get("TERM", "dumb") not in {"", "dumb", "unknown"}


def single_view(stream: IO[str], *, plain: bool = False) -> View:
    """Return what shows one answer."""
    return LiveView(stream) if is_live(stream) and not plain else PlainView(stream)


class Side(View):
    """Shows one of several answers."""

    def end(self, said: Sequence[str] = ()) -> None:
        """Finish, with lines about the answer below it."""


def side_by_side(stream: IO[str], titles: Sequence[str], *, plain: bool = False) -> Columns | Turns:
    """Return what shows several answers: in columns where they fit."""
    if plain or not is_live(stream):
        return Turns(stream, titles, lambda: PlainView(stream))
    columns = shutil.get_terminal_size().columns
    if (columns - 1 + len(_GAP)) // len(titles) - len(_GAP) >= _NARROWEST:
        return Columns(stream, titles)
    return Turns(stream, titles, lambda: LiveView(stream))


class _Turn(Side):
    """One of the answers that are shown one after the other; waits for its turn."""

    def __init__(self, owner: Turns, title: str) -> None:
        self.title = title
        self.said: Sequence[str] | None = None
        self.waiting: list[tuple[Callable[[View, str], None], str]] = []
        self._owner = owner
        self._view: View | None = None

    def begin(self) -> None:
        """Nothing is shown before it is its turn."""

    def think(self, text: str) -> None:
        """Show more of the reasoning."""
        if self._view is None:
            self.waiting.append((lambda view, text: view.think(text), text))
        else:
            self._view.think(text)

    def add(self, text: str) -> None:
        """Show more of the answer."""
        if self._view is None:
            self.waiting.append((lambda view, text: view.add(text), text))
        else:
            self._view.add(text)

    def end(self, said: Sequence[str] = ()) -> None:
        """Finish."""
        self.said = said
        self._owner.advance()

    def show(self, view: View) -> None:
        """It is its turn."""
        self._view = view
        view.begin()
        for show, text in self.waiting:
            show(view, text)
        self.waiting.clear()


class Turns:
    """Shows answers in their order; those that are not shown yet grow unseen.

    Args:
        stream: where headings and figures are written.
        titles: one for each.
        make: returns the view of an answer.
    """

    def __init__(self, stream: IO[str], titles: Sequence[str], make: Callable[[], View]) -> None:
        self._stream = stream
        self._make = make
        self._now = -1
        self._view: View | None = None
        self.sides: list[Side] = []
        self._turns = [_Turn(self, title) for title in titles]
        self.sides += self._turns

    def begin(self) -> None:
        """Show the first."""
        self._next()

    def advance(self) -> None:
        """Go on to the next answer, and past those that have ended, if the one shown has."""
        while self._now < len(self._turns) and (said := self._turns[self._now].said) is not None:
            assert self._view is not None  # noqa: S101 - begin() made it
            self._view.end()
            self._write("".join(f"-- {line}\n" for line in said))
            self._next()

    def end(self) -> None:
        """Nothing is left to finish."""

    def _next(self) -> None:
        self._now += 1
        if self._now < len(self._turns):
            turn = self._turns[self._now]
            self._write(("\n" if self._now else "") + f"== {turn.title} ==\n")
            self._view = self._make()
            turn.show(self._view)

    def _write(self, text: str) -> None:
        styled = clean(text)
        if is_live(self._stream) and text.strip():
            styled = f"\x1b[2m{styled.rstrip(chr(10))}\x1b[0m\n"
        self._stream.write(styled)
        self._stream.flush()


class _Column(Side):
    """One of the answers that stand side by side."""

    def __init__(self, owner: Columns, console: Console, title: str, width: int) -> None:
        self.pane = Pane(console, width)
        self.lines = [*Layout(console, width).text(title, _BOLD), Line("", 0)]
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
        free = self._region.columns - 1 - len(_GAP) * (self._count - 1)
        return max(free // self._count, 1)

    def _paint(self) -> None:
        width = self._width()
        drafts = []
        for column in self._columns:
            column.pane.width = width
            if not column.ended:
                column.lines += column.pane.settle()
            drafts.append([] if column.ended else column.pane.draft())
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

    def _rows(self, columns: list[list[Line]], width: int) -> list[Line]:
        """Put the lines of columns next to each other."""
        rows = []
        for place in range(max(map(len, columns))):
            text, used = "", 0
            for number, lines in enumerate(columns):
                line = lines[place] if place < len(lines) else Line("", 0)
                wanted = number * (width + len(_GAP))
                gap = f"\x1b[2m{_GAP}\x1b[0m" if number else ""
                text += " " * (wanted - len(_GAP) * bool(number) - used) + gap + line.text
                used = max(wanted, used) + line.width
            rows.append(Line(text, used))
        return rows
