"""A terminal that shows what a person would see: pyte draws what the program writes."""

import asyncio
import contextlib
import fcntl
import os
import struct
import termios

import pyte
from cli_kit import Terminal, terminal

_PATIENCE = 60.0
_HISTORY = 100_000


def new_screen(width, height):
    return pyte.HistoryScreen(width, height, history=_HISTORY, ratio=1e-9)


def row_text(row, width):
    # The second half of a wide character is an empty cell.
    return "".join(row[column].data for column in range(width)).rstrip()


def screen_lines(screen):
    """What has scrolled away and what is on the screen, without empty lines at the end."""
    rows = [*screen.history.top, *(screen.buffer[y] for y in range(screen.lines))]
    lines = [row_text(row, screen.columns) for row in rows]
    while lines and not lines[-1]:
        lines.pop()
    return lines


class Shown(Terminal):
    """A running command, and the screen that it draws on."""

    def __init__(self, process, master, width, height):
        super().__init__(process, master)
        self.screen = new_screen(width, height)
        # Where is the cursor? The screen knows.
        self.screen.write_process_input = lambda text: os.write(master, text.encode())
        self._stream = pyte.ByteStream(self.screen)

    def heard(self, data):
        self._stream.feed(data)

    @property
    def lines(self):
        return screen_lines(self.screen)

    @property
    def text(self):
        return "\n".join(self.lines)

    @property
    def bottom(self):
        return row_text(self.screen.buffer[self.screen.lines - 1], self.screen.columns)

    @property
    def current(self):
        """The line that the cursor is in."""
        return row_text(self.screen.buffer[self.screen.cursor.y], self.screen.columns).strip()

    def cells(self, text):
        """The cells of the first place on the screen where a text stands."""
        for y in range(self.screen.lines):
            row = self.screen.buffer[y]
            at = row_text(row, self.screen.columns).find(text)
            if at >= 0:
                return [row[at + offset] for offset in range(len(text))]
        raise AssertionError(f"{text!r} is not on the screen:\n{self.text}")

    async def see(self, what):
        """Wait until the screen shows a text, or fulfils a condition."""
        holds = what if callable(what) else lambda: what in self.text
        try:
            async with asyncio.timeout(_PATIENCE):
                while not holds():
                    assert await self._read(), f"the command ended; it showed\n{self.text}"
        except TimeoutError:
            raise AssertionError(f"not seen: {what!r}; the screen:\n{self.text}") from None

    def resize(self, width):
        height = self.screen.lines
        self.screen.resize(height, width)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


@contextlib.asynccontextmanager
async def shown(*arguments, env, width=80, height=24):
    def make(process, master):
        return Shown(process, master, width, height)

    async with terminal(*arguments, env=env, width=width, height=height, make=make) as running:
        yield running
