"""Cuts a growing Markdown text into pieces that stay as they are, each as soon as it is certain.

The whole text is never parsed again: a piece is a top-level block, an item of a top-level list, or
a line of a fenced code block, and only what comes after the last certain one is looked at twice. No
terminal is known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from markdown_it.token import Token

__all__ = ["Block", "CodeEnd", "CodeLine", "CodeStart", "Item", "Markdown", "Piece"]

_FENCE = re.compile(r"( {0,3})(`{3,}|~{3,})[ \t]*([^`\n]*)")
# CommonMark: four spaces are indented code, not a fence.
_MOST_INDENT = 3

# Raw HTML is shown as it was written, not left out. Definitions of links too: one that comes late
# would change what has been shown.
_PARSER = (
    MarkdownIt("commonmark", {"html": False})
    .enable(["table", "strikethrough"])
    .disable("reference")
)


@dataclass(slots=True)
class Block:
    """A whole block that is neither a list nor fenced code."""

    tokens: list[Token]


@dataclass(slots=True)
class Item:
    """An item of a list at the top level.

    Attributes:
        tokens: what is in it.
        number: of an ordered list's item, else None.
        first: whether it begins the list.
    """

    tokens: list[Token]
    number: int | None
    first: bool


@dataclass(slots=True)
class CodeStart:
    """Fenced code begins."""

    language: str


@dataclass(slots=True)
class CodeLine:
    """One line of fenced code, without its line feed."""

    text: str


@dataclass(slots=True)
class CodeEnd:
    """Fenced code ends."""


Piece = Block | Item | CodeStart | CodeLine | CodeEnd


@dataclass(slots=True)
class _Fence:
    """The open fence as it was written: decides what closes it, and how far lines are indented."""

    mark: str
    indent: int

    def closed_by(self, line: str) -> bool:
        indent = len(line) - len(line.lstrip(" "))
        text = line[indent:].rstrip(" \t")
        mark = self.mark
        return indent <= _MOST_INDENT and len(text) >= len(mark) and not text.strip(mark[0])

    def stripped(self, line: str) -> str:
        return line[min(self.indent, len(line) - len(line.lstrip(" "))) :]


@dataclass(slots=True)
class _Group:
    """The tokens of one top-level block, and the lines that it takes."""

    tokens: list[Token]
    start: int
    end: int


@dataclass(slots=True)
class _List:
    """The list that the open part goes on with."""

    number: int | None = None
    started: bool = False


@dataclass
class Markdown:
    """A text that grows.

    :meth:`feed` it, and take what has become certain with :meth:`settle`. For any way of cutting
    the text, the pieces are the same.
    """

    _lines: list[str] = field(default_factory=list)
    """The complete lines that are not certain yet."""
    _begun: list[str] = field(default_factory=list)
    """What follows them, in the parts in which it came."""
    _fence: _Fence | None = None
    _list: _List = field(default_factory=_List)
    _unseen: bool = False

    def feed(self, text: str) -> None:
        """Add to the text."""
        head, *lines = text.split("\n")
        self._begun.append(head)
        if lines:
            # Only whole lines can make a block certain: without a line feed settle() has nothing to
            # parse.
            self._lines.append("".join(self._begun))
            self._lines += lines[:-1]
            self._begun = lines[-1:]
            self._unseen = True

    def settle(self) -> list[Piece]:
        """Return what has become certain since the last call."""
        pieces: list[Piece] = []
        while self._unseen:
            self._unseen = False
            pieces += self._settled_code() if self._fence else self._settled_blocks()
        return pieces

    def rest(self) -> list[Piece]:
        """Return what is not certain yet, as it looks by now."""
        begun = "".join(self._begun)
        fence = self._fence
        if fence is None:
            lines = [*self._lines, begun]
            return list(_pieces(_groups(lines), lines, self._list))
        # A fence on its way is not shown as code for a moment.
        hidden = not begun or fence.mark.startswith(begun.strip())
        return [CodeEnd()] if hidden else [CodeLine(fence.stripped(begun)), CodeEnd()]

    def finish(self) -> list[Piece]:
        """Return the rest; there is no more to come."""
        if any(self._begun):
            self.feed("\n")
        pieces = [*self.settle(), *self.rest()]
        self.__init__()  # type: ignore[misc]  # all of it
        return pieces

    def _settled_code(self) -> list[Piece]:
        """Take complete lines up to the one that closes the fence."""
        fence, lines = self._fence, self._lines
        assert fence is not None  # noqa: S101 - asked by settle()
        pieces: list[Piece] = []
        for place, line in enumerate(lines):
            if fence.closed_by(line):
                self._fence = None
                del lines[: place + 1]
                self._unseen = bool(lines)
                return [*pieces, CodeEnd()]
            pieces.append(CodeLine(fence.stripped(line)))
        lines.clear()
        return pieces

    def _settled_blocks(self) -> list[Piece]:
        """Take the complete blocks but for the last one, which the next line may still change."""
        lines = self._lines
        groups = _groups(lines)
        if not groups:
            return []
        # The next line may turn a paragraph into a heading or a table, or belong to it.
        last = groups.pop()
        pieces = list(_pieces(groups, lines, self._list))
        if groups:
            self._list = _List()
        kept = last.start
        if last.tokens[0].type == "fence":
            pieces.append(_code_start(lines[kept]))
            self._fence = _fence(lines[kept])
            self._list = _List()
            self._unseen = True
            kept += 1
        elif _is_list(last):
            items = _items(last)
            kept = items.pop().start
            pieces += _list_pieces(last, items, self._list)
            if items:
                self._list = _List(_number(last, len(items), self._list), started=True)
        del lines[:kept]
        return pieces


def _groups(lines: list[str]) -> list[_Group]:
    """Parse lines and put the tokens of each top-level block together."""
    groups: list[_Group] = []
    tokens: list[Token] = []
    for token in _PARSER.parse("\n".join(lines)):
        tokens.append(token)
        if token.level == 0 and token.nesting <= 0:
            start, end = tokens[0].map or (0, 0)
            groups.append(_Group(tokens, start, end))
            tokens = []
    return groups


def _is_list(group: _Group) -> bool:
    return group.tokens[0].type in {"bullet_list_open", "ordered_list_open"}


def _items(group: _Group) -> list[_Group]:
    """Return the items of a list, without the tokens that open and close them."""
    items: list[_Group] = []
    tokens: list[Token] = []
    for token in group.tokens[1:-1]:
        if token.level == 1 and token.nesting == 1:
            tokens = []
            start, end = token.map or (0, 0)
            items.append(_Group(tokens, start, end))
        elif token.level > 1:
            tokens.append(token)
    return items


def _number(group: _Group, offset: int, goes_on: _List) -> int | None:
    """Return the number of a list's item; None where items have bullets."""
    first = group.tokens[0]
    if first.type == "bullet_list_open":
        return None
    # The rest of a list that was cut is parsed as if it began here, so its own start does not
    # count.
    if goes_on.number is not None:
        return goes_on.number + offset
    return int(first.attrs.get("start", 1)) + offset


def _list_pieces(group: _Group, items: list[_Group], goes_on: _List) -> Iterator[Piece]:
    for offset, item in enumerate(items):
        # An item of a list that has begun before is not set apart from the one above it.
        first = offset == 0 and not goes_on.started
        yield Item(item.tokens, _number(group, offset, goes_on), first)


def _fence(line: str) -> _Fence:
    found = _FENCE.match(line)
    assert found is not None  # noqa: S101 - the parser says that it is one
    return _Fence(found[2], len(found[1]))


def _code_start(line: str) -> CodeStart:
    found = _FENCE.match(line)
    info = found[3].split() if found else []
    return CodeStart(info[0] if info else "")


def _pieces(groups: list[_Group], lines: list[str], goes_on: _List) -> Iterator[Piece]:
    """Turn whole blocks into pieces; the first may go on with a list that has begun."""
    for place, group in enumerate(groups):
        if _is_list(group):
            yield from _list_pieces(group, _items(group), goes_on if place == 0 else _List())
        elif group.tokens[0].type == "fence":
            yield from _code(lines[group.start : group.end])
        else:
            yield Block(group.tokens)


def _code(lines: list[str]) -> Iterator[Piece]:
    fence = _fence(lines[0])
    yield _code_start(lines[0])
    for line in lines[1:]:
        if fence.closed_by(line):
            break
        yield CodeLine(fence.stripped(line))
    yield CodeEnd()
