"""Lays out one growing answer: its reasoning, its text, and which lines are final."""

from __future__ import annotations

from typing import TYPE_CHECKING

from konko_async.cli._output import clean
from konko_async.cli.terminal.layout import Layout, ScreenLine
from konko_async.cli.terminal.markdown import Markdown

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Pane"]


class Pane:
    """Lays out one answer.

    Args:
        console: says which colours there are.
        width: in columns.
    """

    def __init__(self, console: Console, width: int) -> None:
        self._console = console
        self._layout = Layout(console, width)
        self._markdown = Markdown()
        self._thought: list[str] = []
        self._ready: list[ScreenLine] = []

    @property
    def width(self) -> int:
        """Columns; a change holds for what is not certain yet, and what comes."""
        return self._layout.width

    @width.setter
    def width(self, width: int) -> None:
        """Lay out in another width from here on."""
        self._layout.width = max(width, 1)

    def think(self, text: str) -> None:
        """Add to the reasoning."""
        if not self._thought:
            # Reasoning may follow text, of which nothing can change then.
            self._ready += self._layout.lines(self._markdown.finish())
            self._ready += self._layout.apart()
        self._thought.append(clean(text))

    def add(self, text: str) -> None:
        """Add to the answer."""
        self._end_thought()
        # Cleaned before it is parsed, so that widths are those of what is shown.
        self._markdown.feed(clean(text))

    def say(self, text: str) -> None:
        """Add a line about the answer, below what there is of it."""
        self._end_thought()
        self._ready += self._layout.lines(self._markdown.finish())
        self._ready += [*self._layout.apart(), *self._layout.text(text)]

    def settle(self) -> list[ScreenLine]:
        """Return the lines that have become certain."""
        if self._thought:
            # The last line that is not empty is kept, and what follows: empty ones at the end
            # are not shown.
            thought = "".join(self._thought)
            end = thought.rstrip("\n").rfind("\n") + 1
            self._thought = [thought[end:]]
            self._ready += self._thought_lines(thought[: end - 1] if end else "")
        ready, self._ready = self._ready, []
        return [*ready, *self._layout.lines(self._markdown.settle())]

    def draft(self) -> list[ScreenLine]:
        """Return the lines that may still change."""
        if self._thought:
            return self._thought_lines("".join(self._thought).rstrip("\n"))
        return self._layout.draft(self._markdown.rest())

    def finish(self) -> list[ScreenLine]:
        """Return all the lines that were not returned yet."""
        self._end_thought()
        return [*self.settle(), *self._layout.lines(self._markdown.finish())]

    def _end_thought(self) -> None:
        self._ready += self._thought_lines("".join(self._thought).rstrip("\n"))
        self._thought = []

    def _thought_lines(self, text: str) -> list[ScreenLine]:
        lines = text.split("\n") if text else []
        return [line for text in lines for line in self._layout.text(text)]
