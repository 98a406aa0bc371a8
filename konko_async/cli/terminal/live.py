"""Shows an answer on a terminal while it grows, as Markdown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import IO

from rich.console import Console
from rich.theme import Theme

from konko_async.cli.terminal.layout import ScreenLine
from konko_async.cli.terminal.pane import Pane
from konko_async.cli.terminal.screen_region import Region

__all__ = ["LiveView", "Refresh", "screen_console"]

_INTERVAL = 0.04  # seconds between two states: as often as a screen needs
_SHARE = 9  # a state that took long to draw is followed by so many times that of rest

# In the terminal's own colours, without backgrounds: for dark and light ones.
_THEME = Theme(
    {
        "markdown.block_quote": "italic",
        "markdown.code": "cyan",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "bold italic",
        "markdown.h5": "italic",
        "markdown.h6": "italic dim",
        "markdown.hr": "dim",
        "markdown.item.bullet": "blue",
        "markdown.item.number": "blue",
        "markdown.link": "underline",
        "markdown.link_url": "blue",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)


def screen_console(stream: IO[str]) -> Console:
    """Return a rich console in the colours of a terminal."""
    # Forced, as is_live() has decided; highlight would colour numbers and paths within answers.
    return Console(file=stream, theme=_THEME, force_terminal=True, highlight=False)


class Refresh:
    """Calls ``paint`` after a change: soon, but not more often than can be seen.

    Must be used on a running loop.

    Args:
        paint: draws the state.
        interval: seconds between two states.
    """

    def __init__(self, paint: Callable[[], None], interval: float = _INTERVAL) -> None:
        self._paint = paint
        self._interval = interval
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._failure: OSError | None = None

    def changed(self) -> None:
        """Draw now, or when it is time.

        Raises:
            OSError: the terminal has gone.
        """
        if self._failure is not None:
            raise self._failure
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            return
        if loop.time() >= self._due:
            self._draw()
        else:
            self._timer = loop.call_at(self._due, self._draw)

    def stop(self) -> None:
        """Draw no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _draw(self) -> None:
        self._timer = None
        began = time.perf_counter()
        try:
            self._paint()
        except OSError as error:  # raised where somebody waits for it
            self._failure = error
        took = time.perf_counter() - began
        self._due = asyncio.get_running_loop().time() + max(self._interval, took * _SHARE)


class LiveView:
    """One answer, over the whole width.

    Args:
        stream: of the terminal.
        region: where it is drawn; default: at the cursor.
    """

    def __init__(self, stream: IO[str], region: Region | None = None) -> None:
        self._region = region or Region(stream)
        self._pane = Pane(screen_console(stream), self._width)
        self._refresh = Refresh(self._paint)
        self._waiting: list[ScreenLine] = []

    @property
    def _width(self) -> int:
        # One column stays free: terminals differ in what they do after writing to the last one,
        # and in how wide they take some characters to be.
        return self._region.columns - 1

    def begin(self) -> None:
        """Show that an answer is awaited."""
        self._waiting = [ScreenLine("\x1b[2m...\x1b[0m", 3)]
        self._refresh.changed()

    def think(self, text: str) -> None:
        """Show more of the reasoning."""
        self._waiting = []
        self._pane.think(text)
        self._refresh.changed()

    def add(self, text: str) -> None:
        """Show more of the answer."""
        self._waiting = []
        self._pane.add(text)
        self._refresh.changed()

    def end(self) -> None:
        """Show all of it, and leave the cursor below."""
        # First: a timer that fires later would draw a draft below the finished answer.
        self._refresh.stop()
        self._pane.width = self._width
        self._region.paint(self._pane.finish(), [])
        self._region.close()

    def _paint(self) -> None:
        self._pane.width = self._width
        self._region.paint(self._pane.settle(), self._waiting or self._pane.draft())
