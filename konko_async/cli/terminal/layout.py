"""Lays pieces of Markdown out in lines of a terminal, with rich."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from markdown_it.token import Token
from rich.cells import cell_len
from rich.console import COLOR_SYSTEMS, Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, ListItem, Markdown, MarkdownElement
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from konko_async.cli._output import clean
from konko_async.cli.terminal.code_highlighter import Code
from konko_async.cli.terminal.markdown import Block, CodeEnd, CodeLine, CodeStart, Item, Piece

__all__ = ["Layout", "ScreenLine"]

_NUMBER_WIDTH = 2  # digits for which an ordered list leaves room, so that its items stand in line
_DIM = Style(dim=True)


@dataclass(frozen=True, slots=True)
class ScreenLine:
    """A line as it is written to the terminal.

    Attributes:
        text: with the terminal's codes for its colours.
        width: in columns.
    """

    text: str
    width: int


class _Heading(Heading):
    """A heading that is on the left at every level."""

    LEVEL_ALIGN: ClassVar = dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "left")


class _ListItem(ListItem):
    """A list item whose number is aligned without knowing how many will follow."""

    def render_number(
        self,
        console: Console,
        options: ConsoleOptions,
        number: int,
        last_number: int,  # noqa: ARG002 - rich's signature
    ) -> RenderResult:
        digits = max(len(str(number)), _NUMBER_WIDTH)
        yield from super().render_number(console, options, number, 10**digits - 1)


class _InnerCode(CodeBlock):
    """Code within a list or a quotation, or indented: in the colours of all code."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = Code(self.lexer_name)
        for line in str(self.text).rstrip().split("\n"):
            yield from code.add(line)
        yield from code.take()


class _Rule(MarkdownElement):
    """A horizontal rule over the whole width."""

    new_line = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = "-" if options.ascii_only else "─"
        yield Text(line * options.max_width, style=console.get_style("markdown.hr"))


class _Tokens(Markdown):
    """Renders tokens that were parsed elsewhere."""

    elements: ClassVar = {
        **Markdown.elements,
        "heading_open": _Heading,
        "list_item_open": _ListItem,
        "hr": _Rule,
        "fence": _InnerCode,
        "code_block": _InnerCode,
    }

    def __init__(self, tokens: list[Token]) -> None:
        # rich's constructor parses its text; the tokens take the place of that.
        super().__init__("")
        self.inlines = {*Markdown.inlines, "link", "link_url"}
        self.parsed = [_told(token) for token in tokens]


def _told(token: Token) -> Token:
    """Return the token with line breaks kept, and links with the address that they lead to.

    A terminal's own links would hide it.
    """
    if token.children:
        children = list(_shown(token.children))
        return token.copy(children=children, content=token.content)
    return token


def _shown(tokens: list[Token]) -> Iterator[Token]:
    label, address = "", ""
    for token in tokens:
        if token.type == "softbreak":
            # CommonMark would join the lines; models break them on purpose.
            yield Token("hardbreak", "br", 0)
        elif token.type == "link_open":
            label, address = "", str(token.attrs.get("href", ""))
            yield Token("link_text", "link", 1)
        elif token.type == "link_close":
            yield Token("link_text", "link", -1)
            if label not in {address, address.removeprefix("mailto:")}:
                yield from _address(address)
        elif token.type == "image":
            yield Token("text", "", 0, content=f"[{token.content}]")
            yield from _address(str(token.attrs.get("src", "")))
        else:
            label += token.content
            yield token


def _address(address: str) -> Iterator[Token]:
    yield Token("text", "", 0, content=" (")
    yield Token("link_text", "link_url", 1)
    yield Token("text", "", 0, content=address)
    yield Token("link_text", "link_url", -1)
    yield Token("text", "", 0, content=")")


class Layout:
    """Turns pieces into lines; remembers what came before only as far as it shows.

    Args:
        console: says which colours there are.
        width: in columns, of every line.
    """

    def __init__(self, console: Console, width: int) -> None:
        self.width = max(width, 1)
        """Columns; may be changed, and then holds for the lines that come."""
        self._console = console
        name = console.color_system if not console.no_color else None
        self._colors = COLOR_SYSTEMS[name] if name else None
        self._plain = console.color_system is None
        self._code: Code | None = None
        self._begun = False

    def lines(self, pieces: list[Piece]) -> list[ScreenLine]:
        """Return the lines of pieces that stay."""
        return [line for piece in pieces for line in self._piece(piece)]

    def draft(self, pieces: list[Piece]) -> list[ScreenLine]:
        """Return the lines of pieces that may still change, after those that wait for others."""
        code, begun = self._code, self._begun
        try:
            if code is None:
                return self.lines(pieces)
            self._code = None
            lines = [piece.text for piece in pieces if isinstance(piece, CodeLine)]
            waiting = code.draft(lines[0] if lines else None)
            return [*self._code_lines(waiting), self._fence("")]
        finally:
            # A draft is laid out many times, and must leave no trace in what stays.
            self._code, self._begun = code, begun

    def text(self, text: str, style: Style = _DIM) -> list[ScreenLine]:
        """Return lines of plain text."""
        return self._rendered(Text(clean(text), style=style))

    def _piece(self, piece: Piece) -> Iterator[ScreenLine]:
        match piece:
            case CodeLine(text) if self._code:
                yield from self._code_lines(self._code.add(text))
            case CodeStart(language):
                yield from self.apart()
                self._code = Code(language)
                yield self._fence(language)
            case CodeEnd() if self._code:
                yield from self._code_lines(self._code.take())
                self._code = None
                yield self._fence("")
            case Block(tokens):
                yield from self.apart()
                yield from self._block(tokens)
            case Item(tokens, number, first):
                if first:
                    yield from self.apart()
                yield from self._block(_as_list(tokens, number))

    def apart(self) -> list[ScreenLine]:
        """Return what sets a block apart from the one before."""
        begun, self._begun = self._begun, True
        return [ScreenLine("", 0)] if begun else []

    def _fence(self, language: str) -> ScreenLine:
        line = "-" if self._console.options.ascii_only else "─"
        name = f"{line * 2} {language} " if language else ""
        name = clean(name) if cell_len(name) < self.width else ""
        return self._line([Segment(name + line * (self.width - cell_len(name)), _DIM)])

    def _code_lines(self, lines: list[Text]) -> Iterator[ScreenLine]:
        for line in lines:
            # At the edge, not between words: spaces count.
            parts = line.divide(_edges(line.plain, self.width))
            for part in parts:
                yield from self._rendered(part, no_wrap=True)

    def _rendered(self, what: RenderableType, *, no_wrap: bool = False) -> list[ScreenLine]:
        options = self._console.options.update(width=self.width, no_wrap=no_wrap, height=None)
        rows = self._console.render_lines(what, options, pad=False)
        return [self._line(row) for row in rows]

    def _block(self, tokens: list[Token]) -> list[ScreenLine]:
        """Return the lines of a block without the empty ones around it, which rich adds to some."""
        lines = self._rendered(_Tokens(tokens))
        full = [place for place, line in enumerate(lines) if line.width]
        return lines[full[0] : full[-1] + 1] if full else []

    def _line(self, row: list[Segment]) -> ScreenLine:
        text, width = "", 0
        for segment in _stripped(row):
            # The parser makes characters of entities: cleaned again, at the last moment.
            part = clean(segment.text)
            width += cell_len(part)
            style = segment.style
            if self._plain or style is None:
                text += part
            else:
                style = style if self._colors else style.without_color
                text += style.render(part, color_system=self._colors or COLOR_SYSTEMS["standard"])
        return ScreenLine(text, width)


def _as_list(tokens: list[Token], number: int | None) -> list[Token]:
    kind = "bullet_list" if number is None else "ordered_list"
    attributes: dict[str, str | int | float] = {} if number is None else {"start": number}
    return [
        Token(f"{kind}_open", "ul", 1, attrs=attributes),
        Token("list_item_open", "li", 1),
        *tokens,
        Token("list_item_close", "li", -1),
        Token(f"{kind}_close", "ul", -1),
    ]


def _edges(text: str, width: int) -> list[int]:
    """Return the places at which a text has to be cut to fit."""
    if text.isascii():
        return list(range(width, len(text), width))
    places, used = [], 0
    for place, character in enumerate(text):
        size = cell_len(character)
        if used + size > width:
            places.append(place)
            used = 0
        used += size
    return places


def _stripped(row: list[Segment]) -> list[Segment]:
    """Leave out the spaces at the end, which would wrap when the terminal becomes narrower."""
    row = [segment for segment in row if not segment.control]
    while row and not row[-1].text.rstrip():
        row.pop()
    if row:
        row[-1] = Segment(row[-1].text.rstrip(), row[-1].style)
    return row
