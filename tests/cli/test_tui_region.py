"""The part of the screen that is drawn again: what it writes, and what a new width does to it."""

import io

import pyte
import pytest
from tui_kit import new_screen, screen_lines

from konko_async.cli.terminal.layout import ScreenLine
from konko_async.cli.terminal.screen_region import Region, reflows


class Screen:
    """A screen of a size that changes, and a region on it."""

    def __init__(self, width, height, *, reflow=False):
        self.size = (width, height)
        self.screen = new_screen(width, height)
        self.screen.set_mode(20)  # a line feed is a new line, as the driver of a terminal makes it
        self._out = io.StringIO()
        self._stream = pyte.Stream(self.screen)
        self.region = Region(self._out, lambda: self.size, reflow=reflow)
        self.written = ""

    def paint(self, final, draft):
        self.region.paint(lines(final), lines(draft))
        self._feed()

    def close(self):
        self.region.close()
        self._feed()

    def _feed(self):
        self.written = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        self._stream.feed(self.written)

    @property
    def lines(self):
        return screen_lines(self.screen)


def lines(texts):
    return [ScreenLine(text, len(text)) for text in texts.split()]


def test_only_what_differs_is_written():
    screen = Screen(40, 10)
    screen.paint("", "a b c")
    assert screen.lines == ["a", "b", "c"]
    assert screen.screen.cursor.hidden
    screen.paint("", "a b c")
    assert screen.written == ""
    screen.paint("", "a b cd e")
    assert "a" not in screen.written.replace("\x1b[A", "")
    assert screen.lines == ["a", "b", "cd", "e"]
    screen.paint("", "a b")
    assert screen.lines == ["a", "b"]
    screen.paint("a", "b c")
    assert screen.lines == ["a", "b", "c"]
    screen.paint("b c", "")
    screen.paint("", "d")
    screen.close()
    assert screen.lines == ["a", "b", "c"], "what could still change is taken away"
    assert not screen.screen.cursor.hidden
    assert (screen.screen.cursor.y, screen.screen.cursor.x) == (3, 0)


def test_each_state_is_one_write_that_terminals_show_at_once():
    screen = Screen(40, 10)
    screen.paint("x y", "a b")
    assert screen.written.startswith("\x1b[?2026h")
    assert screen.written.endswith("\x1b[?2026l")


def test_what_is_taller_than_the_screen_shows_its_end():
    screen = Screen(40, 4)
    screen.paint("", "a b c d e f")
    assert screen.lines == ["d", "e", "f"]
    screen.paint("a b", "c d e f g")
    assert screen.lines == ["a", "b", "e", "f", "g"]
    screen.paint("c d e f g", "")
    screen.close()
    assert screen.lines == list("abcdefg")


@pytest.mark.parametrize("before", [30, 50])
def test_a_terminal_that_does_not_wrap_anew(before):
    screen = Screen(before, 10)
    screen.paint("first second", f"{'x' * 25} {'y' * 12}")
    screen.size = (20, 10)
    screen.screen.resize(10, 20)
    screen.paint("", f"{'x' * 19} {'x' * 6} {'y' * 12}")
    assert screen.lines == ["first", "second", "x" * 19, "x" * 6, "y" * 12]


def test_a_terminal_that_wraps_anew():
    screen = Screen(30, 10, reflow=True)
    screen.paint("first second", f"{'x' * 25} {'y' * 12}")
    # pyte does not: what such a terminal shows at 20 columns is written to it anew.
    before, screen.size = screen.lines, (20, 10)
    screen.screen.resize(10, 20)
    screen.screen.erase_in_display(2)
    screen.screen.cursor_position()
    screen._stream.feed("\n".join(before))
    assert screen.lines == ["first", "second", "x" * 20, "x" * 5, "y" * 12]
    screen.paint("", f"{'x' * 19} {'x' * 6} {'y' * 12}")
    assert screen.lines == ["first", "second", "x" * 19, "x" * 6, "y" * 12]


def test_which_terminals_wrap_anew():
    assert reflows({"TERM": "xterm-256color"})
    assert reflows({"TERM": "screen-256color", "TMUX": "there"})
    assert not reflows({"TERM": "xterm-256color", "XTERM_VERSION": "XTerm(390)"})
    assert not reflows({"TERM": "linux"})
    assert not reflows({"TERM": "screen"})
