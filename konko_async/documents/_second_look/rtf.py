"""Reads RTF by its control words: what a person sees, in the order of the file.

kreuzberg 4.10 drops paragraphs of code and of lists. Source: Rich Text Format specification 1.9.1.
"""

from __future__ import annotations

import codecs
import re
from typing import Final, NamedTuple

__all__ = ["rtf_text"]

_TOKEN: Final = re.compile(
    rb"\\(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})?[ ]?|\\'(?P<hex>[0-9a-fA-F]{2})"
    rb"|\\(?P<symbol>[^a-zA-Z])|(?P<brace>[{}])|(?P<text>[^\\{}\r\n]+)|.",
    re.DOTALL,
)
# Groups that hold no text of the page. What repeats on each page counts as none.
_UNSEEN: Final = frozenset(
    b"fonttbl colortbl stylesheet info pict object generator listtable listoverridetable rsidtbl "
    b"themedata datastore latentstyles xmlnstbl fldinst bkmkstart bkmkend filetbl revtbl "
    b"header headerl headerr headerf footer footerl footerr footerf annotation atnid atnauthor "
    b"atnref atndate nonshppict shprslt".split()
)
_CHARACTERS: Final = {
    b"tab": "\t", b"emdash": "—", b"endash": "\u2013", b"bullet": "•", b"lquote": "\u2018",
    b"rquote": "\u2019", b"ldblquote": "“", b"rdblquote": "”", b"emspace": " ", b"enspace": " ",
    b"line": "\n", b"softline": "\n", b"nestcell": " ", b"nestrow": " ",
}  # fmt: skip
_SYMBOLS: Final = {b"~": "\u00a0", b"_": "-", b"{": "{", b"}": "}", b"\\": "\\", b"\t": "\t"}
# Character sets of fonts (\fcharset) that are not the document's own.
_CHARSETS: Final = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 134: "gb18030", 136: "big5hkscs", 161: "cp1253",
    162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251",
    222: "cp874", 238: "cp1250",
}  # fmt: skip
_DEEPEST_HEADING: Final = 6


class _State(NamedTuple):
    """What a group inherits, and its end restores."""

    seen: bool = True
    hidden: bool = False
    fallback: int = 1  # characters after \u for readers without Unicode
    codec: str | None = None


class _Page:
    """Puts paragraphs and tables together."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._pieces: list[str] = []
        self._cells: list[str] = []
        self._rows = 0  # of the table that is being read
        self.in_table = False
        self.level: int | None = None  # of a heading

    def add(self, text: str) -> None:
        self._pieces.append(text)

    def _take(self) -> str:
        text = "".join(self._pieces)
        self._pieces.clear()
        # Of a pair of surrogates, each was a character of its own.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()

    def end_paragraph(self) -> None:
        if self.in_table:
            self._pieces.append(" ")
            return
        text = self._take()
        if text and self.level is not None and "\n" not in text:
            text = f"{'#' * min(self.level + 1, _DEEPEST_HEADING)} {text}"
        self._blocks.append(f"\n\n{text}")
        self._rows = 0

    def end_cell(self) -> None:
        self._cells.append(" ".join(self._take().replace("|", "\\|").split()))

    def end_row(self) -> None:
        cells, self._cells = self._cells, []
        if not cells:
            return
        self._blocks.append(f"{'' if self._rows else chr(10)}\n| {' | '.join(cells)} |")
        if not self._rows:
            self._blocks.append(f"\n|{' --- |' * len(cells)}")
        self._rows += 1

    def text(self) -> str:
        self.in_table = False
        if self._cells:  # the file was cut within a row
            self.end_row()
        self.end_paragraph()
        return "".join(self._blocks).strip()


class _Reader:
    """Goes through the tokens of a file, once."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._page = _Page()
        self._state = _State()
        self._outer: list[_State] = []
        self._bytes = bytearray()  # of characters that are not decoded yet
        self._codec = "cp1252"
        self._fonts: dict[int, str] = {}
        self._font = 0
        self._skip = 0

    def read(self) -> str:
        place, data = 0, self._data
        while (token := _TOKEN.match(data, place)) is not None:
            place = token.end()
            if token["word"] is not None:
                number = token["number"]
                value = None if number is None else int(number)
                if token["word"] == b"bin":
                    place += max(value or 0, 0)
                else:
                    self._word(token["word"], value)
            elif token["hex"] is not None:
                self._character(bytes.fromhex(token["hex"].decode()))
            elif token["symbol"] is not None:
                self._symbol(token["symbol"])
            elif token["brace"] is not None:
                self._brace(token["brace"])
            elif token["text"] is not None:
                self._text(token["text"])
        self._flush()
        return self._page.text()

    @property
    def _shown(self) -> bool:
        return self._state.seen and not self._state.hidden

    def _brace(self, brace: bytes) -> None:
        self._flush()
        self._skip = 0
        if brace == b"{":
            self._outer.append(self._state)
        elif self._outer:
            self._state = self._outer.pop()

    def _text(self, text: bytes) -> None:
        skipped = min(self._skip, len(text))
        self._skip -= skipped
        if self._shown:
            self._bytes += text[skipped:]

    def _character(self, character: bytes) -> None:
        if self._skip:
            self._skip -= 1
        elif self._shown:
            self._bytes += character

    def _symbol(self, symbol: bytes) -> None:
        if symbol == b"*":
            self._state = self._state._replace(seen=False)
        elif symbol in b"\r\n":
            self._word(b"par", None)
        elif self._skip and symbol in _SYMBOLS:
            self._skip -= 1
        else:
            self._add(_SYMBOLS.get(symbol, ""))

    def _add(self, text: str) -> None:
        self._flush()
        if self._shown:
            self._page.add(text)

    def _flush(self) -> None:
        if self._bytes:
            codec = self._state.codec or self._codec
            self._page.add(self._bytes.decode(codec, "replace"))
            self._bytes.clear()

    def _word(self, word: bytes, value: int | None) -> None:
        self._flush()
        if word in _CHARACTERS:
            if self._skip:
                self._skip -= 1
            else:
                self._add(_CHARACTERS[word])
        elif word == b"u":
            self._add(chr((value or 0) & 0xFFFF))
            self._skip = self._state.fallback
        elif word == b"shptxt":  # of a text box, within a group that is left out
            self._state = self._state._replace(seen=True)
        elif word in _UNSEEN:
            self._state = self._state._replace(seen=False)
        elif self._shown and word in {b"par", b"cell", b"row", b"intbl", b"outlinelevel", b"pard"}:
            self._layout(word, value)
        else:
            self._setting(word, value)

    def _layout(self, word: bytes, value: int | None) -> None:
        page = self._page
        if word == b"par":
            page.end_paragraph()
        elif word == b"cell":
            page.end_cell()
        elif word == b"row":
            page.end_row()
        elif word == b"intbl":
            page.in_table = True
        elif word == b"outlinelevel":
            page.level = value
        else:
            page.in_table, page.level = False, None

    def _setting(self, word: bytes, value: int | None) -> None:
        if word in {b"v", b"deleted"}:
            self._state = self._state._replace(hidden=value != 0)
        elif word == b"plain":
            self._state = self._state._replace(hidden=False, codec=None)
        elif word == b"uc" and value is not None:
            self._state = self._state._replace(fallback=max(value, 0))
        elif word == b"ansicpg" and value is not None:
            self._codec = _codec_of(value) or self._codec
        elif word in {b"mac", b"pc", b"pca"}:
            self._codec = {b"mac": "mac_roman", b"pc": "cp437", b"pca": "cp850"}[word]
        elif word == b"f" and value is not None:
            self._font = value
            self._state = self._state._replace(codec=self._fonts.get(value))
        elif word == b"fcharset" and value in _CHARSETS:
            self._fonts[self._font] = _CHARSETS[value]


def _codec_of(page: int) -> str | None:
    known = {932: "cp932", 936: "gb18030", 949: "cp949", 950: "big5hkscs", 65001: "utf-8"}
    codec = known.get(page, f"cp{page}")
    try:
        codecs.lookup(codec)
    except LookupError:
        return None
    return codec


def rtf_text(data: bytes) -> str:
    """Return an RTF document as Markdown: paragraphs, headings and tables.

    Takes linear time, and fails at nothing: what is damaged is left out.
    """
    return _Reader(data).read()
