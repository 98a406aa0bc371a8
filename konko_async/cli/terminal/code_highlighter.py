"""Highlights code that comes line by line, at a cost per line that does not grow with the block."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pygments.lexers import get_lexer_by_name
from pygments.token import (
    Comment,
    Generic,
    Keyword,
    Name,
    Number,
    Operator,
    String,
    Token,
    _TokenType,
)
from pygments.util import ClassNotFound
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text

if TYPE_CHECKING:
    from pygments.lexer import Lexer

__all__ = ["Code"]

_BATCH = 8  # lines that are highlighted together
_WINDOW = 48  # lines that a highlighter looks back at, in search of where it is
_LONGEST = 2000  # characters of a line, beyond which it is a file rather than code to be read
_TAB = 4

# The terminal's own colours, so that it can be read on dark and on light ones.
_STYLES: dict[_TokenType, Style] = {
    Token: Style(),
    Comment: Style(dim=True, italic=True),
    Keyword: Style(color="magenta"),
    Operator.Word: Style(color="magenta"),
    Name.Function: Style(color="blue"),
    Name.Class: Style(color="blue", bold=True),
    Name.Decorator: Style(color="blue"),
    Name.Builtin: Style(color="cyan"),
    Name.Tag: Style(color="blue"),
    Name.Attribute: Style(color="cyan"),
    String: Style(color="green"),
    Number: Style(color="cyan"),
    Generic.Deleted: Style(color="red"),
    Generic.Inserted: Style(color="green"),
    Generic.Heading: Style(bold=True),
}
_THEME = ANSISyntaxTheme({tuple(kind): style for kind, style in _STYLES.items()})


@cache
def _lexer(language: str) -> Lexer | str:
    try:
        # pygments strips empty lines at the beginning by default, and lines are counted here.
        return get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return ""


class Code:
    """A code block that grows.

    Args:
        language: as the fence names it; one that is not known is not highlighted.
    """

    def __init__(self, language: str) -> None:
        self._syntax = Syntax("", _lexer(language), theme=_THEME)
        self._lines: list[str] = []
        self._taken = 0
        self._waiting: list[Text] = []  # the lines that were not taken yet, as last highlighted

    def add(self, line: str) -> list[Text]:
        """Take a line; return those that are ready, which is decided by their number alone."""
        self._lines.append(line.expandtabs(_TAB))
        return self.take() if len(self._lines) - self._taken >= _BATCH else []

    def take(self) -> list[Text]:
        """Return what was not returned yet; then more may follow."""
        lines = self._complete()
        self._taken, self._waiting = len(self._lines), []
        if self._taken > _WINDOW:
            # Older lines are dropped, so that the cost of a line does not grow with the block.
            start = self._landmark()
            del self._lines[:start]
            self._taken -= start
        return lines

    def draft(self, begun: str | None) -> list[Text]:
        """Return what was not returned yet, and a line that has only begun."""
        lines = self._complete()
        if begun is None:
            return lines
        # A few lines for context: this is drawn with each token.
        near = [*self._lines[-_BATCH:], begun.expandtabs(_TAB)]
        return [*lines, *self._highlighted(near, len(near) - 1)]

    def _complete(self) -> list[Text]:
        if len(self._waiting) != len(self._lines) - self._taken:
            self._waiting = self._highlighted(self._lines, self._taken)
        return self._waiting

    def _highlighted(self, lines: list[str], start: int) -> list[Text]:
        if not self._syntax.lexer or max(map(len, lines)) > _LONGEST:
            return [Text(line) for line in lines[start:]]
        found = list(self._syntax.highlight("\n".join(lines)).split("\n", allow_blank=True))
        missing = len(lines) - len(found)  # a highlighter may drop empty lines at the end
        return [*found, *(Text() for _ in range(missing))][start : len(lines)]

    def _landmark(self) -> int:
        """Return the line from which to read on: where something new begins, if there is such."""
        lines = self._lines
        half = len(lines) // 2
        after_blank = [n for n in range(half, len(lines)) if lines[n].strip() and not lines[n - 1]]
        flush = [n for n in after_blank if not lines[n][0].isspace()]
        return next(iter(flush or after_blank or [half]))
