"""Splits text into parts that fit a model: between paragraphs, lines, sentences, words, characters.

Parts are slices of the text: indentation, the columns of tables and scripts without spaces stay as
they are. Only white space at the cuts is lost.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

__all__ = ["split_text"]

_FENCE = re.compile(r"[ \t]{0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"[ \t]{0,3}#{1,6}[ \t]")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t:|-]*-[ \t:|-]*\Z")
# After a full stop and the like, with quotes and brackets that close; CJK needs no space.
_SENTENCE = re.compile(
    r"[.!?\u2026][\"'\u201d\u2019)\]]*(?=\s)\s*"
    r"|[\u3002\uff01\uff1f][\u300d\u300f\u201d\u2019\uff09]*\s*"
)
_WORD = re.compile(r"\s+")
_ZERO_WIDTH_JOINER = "\u200d"
# Letters that belong to the one before, though their category does not say so: Thai and Lao AM.
_SPACING_VOWELS = "\u0e33\u0eb3"
_REGIONAL = range(0x1F1E6, 0x1F200)
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_CONJOINING_JAMO = range(0x1160, 0x1200)
# A cluster longer than this is an attack, or a joke; it is cut anyway.
_LONGEST_CLUSTER = 64

Measure = Callable[[str], int]
_Span = tuple[int, int]


def split_text(text: str, limit: int, measure: Measure = len) -> list[str]:
    """Split a text into parts no longer than a limit, of about the same length.

    Nothing is lost: the parts together are the text, but for white space at the cuts. A fenced
    block of code and a table are kept whole where they fit; a Markdown table that does not is cut
    between its rows, and its header is repeated. A heading stays with what follows it. No
    character as it is seen (a letter with its accents, an emoji of several code points) is cut.

    Args:
        text: the text.
        limit: the length of a part, at least 1.
        measure: the length of a text. That of two texts together must be no more than the sum
            of theirs, and no less than that of either. Default: characters.

    Returns:
        The parts; none if the text is blank.

    Raises:
        ValueError: the limit is below 1.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    text = text.strip()
    if not text:
        return []
    if measure(text) <= limit:
        return [text]
    return _TextSplitter(text, limit, measure).parts()


class _TextSplitter:
    """The state of splitting one text: its limit, its measure, and the table headers to repeat."""

    def __init__(self, text: str, limit: int, measure: Measure) -> None:
        self._text = text
        self._limit = limit
        self._measure = measure
        # The header of the table that a span continues, by the span's start.
        self._headers: dict[int, str] = {}

    def parts(self) -> list[str]:
        spans: list[tuple[_Span, int]] = []
        for block in _blocks(self._text):
            spans += self._fitting(block)
        whole = sum(length for _, length in spans)
        return [part for part in map(self._finished, self._packed(spans, whole)) if part]

    def _finished(self, span: _Span) -> str:
        start, end = span
        part = self._text[start:end].rstrip()
        # Blank lines at the cut are lost, the indentation of the first line is not.
        lead = len(part) - len(part.lstrip())
        cut = part.rfind("\n", 0, lead) + 1
        header = self._headers.get(start)
        part = part[cut:]
        if header is not None:
            return header + part
        return part if cut or "\n" in part or not lead else part.lstrip()

    def _packed(self, spans: Iterable[tuple[_Span, int]], whole: int) -> Iterator[_Span]:
        """Join spans to parts of about the same length, so that the last one is no mere remnant."""
        first = last = used = 0
        left, target = whole, self._target(whole)
        for (start, end), length in spans:
            # Ends the part where it is closer to the target, so that lengths even out over the
            # document.
            over, under = used + length - target, target - used
            # A repeated header stands at the start of a part; in the middle it would be lost.
            forced = start in self._headers
            if used and (forced or used + length > self._limit or over > under):
                yield first, last
                left -= used
                used, target = 0, self._target(left)
            if not used:
                first = start
            last = end
            used += length
        if used:
            yield first, last

    def _target(self, left: int) -> int:
        """The length of a part, if what is left is to be shared out evenly."""
        return -(-left // max(-(-left // self._limit), 1))

    def _fitting(self, block: _Span) -> Iterator[tuple[_Span, int]]:
        """Cut a block into spans that fit, each with its length."""
        length = self._length(block)
        if length <= self._limit:
            yield block, length
            return
        table = self._table_in(block)
        if table is None:
            yield from self._cut(block, 0)
            return
        begin, rows = table
        if self._length((block[0], rows)) > self._limit:  # too much text above it
            yield from self._cut((block[0], begin), 0)
            block = (begin, block[1])
        yield from self._table(block, begin, rows)

    def _cut(self, span: _Span, level: int) -> Iterator[tuple[_Span, int]]:
        for piece in _LEVELS[level](self._text, span):
            length = self._length(piece)
            if length <= self._limit:
                yield piece, length
            elif level + 1 < len(_LEVELS):
                yield from self._cut(piece, level + 1)
            else:
                yield from self._hard(piece)

    def _length(self, span: _Span) -> int:
        return self._measure(self._text[span[0] : span[1]])

    def _table_in(self, block: _Span) -> tuple[int, int] | None:
        """Return where a Markdown table and its rows begin, if its header is worth repeating.

        A table may have its heading, or the end of a paragraph, above it.
        """
        above: _Span | None = None
        for line in _lines(self._text, block):
            words = self._text[line[0] : line[1]].rstrip()
            if _FENCE.match(words):  # a table in code is code
                return None
            if above is not None and _TABLE_RULE.match(words):
                # A header that takes half of each part would leave too little room for the rows.
                fits = self._length((above[0], line[1])) * 2 < self._limit
                return (above[0], line[1]) if fits else None
            above = line if "|" in words else None
        return None

    def _table(self, block: _Span, begin: int, rows: int) -> Iterator[tuple[_Span, int]]:
        """Cut a table between its rows; each group of rows has the header before it."""
        words = self._text[begin:rows]
        cost = self._measure(words)
        # What stands above the table goes with its header and first rows.
        start, used = block[0], self._length((block[0], rows))
        for row in _lines(self._text, (rows, block[1])):
            length = self._length(row)
            if cost + length > self._limit:  # one row is too long: it loses the table's form
                if used:
                    yield (start, row[0]), used
                yield from self._cut(row, 1)
                start, used = row[1], 0
                continue
            if used and used + length > self._limit:
                yield (start, row[0]), used
                start, used = row[0], 0
            if not used:
                used = cost
                self._headers[start] = words
            used += length
        if used:
            yield (start, block[1]), used

    def _hard(self, span: _Span) -> Iterator[tuple[_Span, int]]:
        """Cut a word that is longer than the limit: as much as fits, by halving."""
        start, end = span
        while start < end:
            # `measure` is the caller's and may be costly, so it is called a logarithmic number of
            # times on a bounded slice: a document of one endless line would otherwise be measured
            # from end to end.
            low, high = 1, min(end - start, 4 * self._limit)
            while low < high:
                middle = (low + high + 1) // 2
                if self._length((start, start + middle)) <= self._limit:
                    low = middle
                else:
                    high = middle - 1
            cut = _boundary(self._text, start, start + low, end)
            yield (start, cut), self._length((start, cut))
            start = cut


def _blocks(text: str) -> Iterator[_Span]:
    """Yield paragraphs, each with the blank lines after it; a fenced block is one of them."""
    start, fence, heading, ended = 0, "", False, False
    for first, last in _lines(text, (0, len(text))):
        line = text[first:last]
        if ended and line.strip():  # the first line after blank ones
            yield start, first
            start, ended = first, False
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
        elif mark:
            fence = mark[1]
        elif not line.strip():
            # A heading stays with what follows it.
            ended = not heading
            continue
        heading = not fence and bool(_HEADING.match(line))
    yield start, len(text)


def _lines(text: str, span: _Span) -> Iterator[_Span]:
    start, end = span
    while start < end:
        cut = text.find("\n", start, end) + 1 or end
        yield start, cut
        start = cut


def _matched(pattern: re.Pattern[str]) -> Callable[[str, _Span], Iterator[_Span]]:
    def cut(text: str, span: _Span) -> Iterator[_Span]:
        start, end = span
        for match in pattern.finditer(text, start, end):
            if start < match.end() < end:
                yield start, match.end()
                start = match.end()
        yield start, end

    return cut


_LEVELS = (_lines, _matched(_SENTENCE), _matched(_WORD))


def _boundary(text: str, start: int, cut: int, end: int) -> int:
    """Move a cut back to a place between two characters as they are seen (UAX #29, in short)."""
    for place in range(cut, max(start, cut - _LONGEST_CLUSTER), -1):
        if place >= end or not _joins(text, start, place):
            return place
    return cut


def _joins(text: str, start: int, place: int) -> bool:
    """Whether the character at ``place`` belongs to the one before."""
    character, before = text[place], text[place - 1]
    point = ord(character)
    if _ZERO_WIDTH_JOINER in {character, before}:
        return True
    if unicodedata.category(character)[0] == "M" or character in _SPACING_VOWELS:
        return True
    if point in _SKIN_TONES or point in _CONJOINING_JAMO:
        return True
    if point not in _REGIONAL or ord(before) not in _REGIONAL:
        return False
    # Flags are pairs: an odd number of indicators before means that this one ends a pair.
    count = 0
    while place - 1 - count >= start and ord(text[place - 1 - count]) in _REGIONAL:
        count += 1
    return count % 2 == 1
