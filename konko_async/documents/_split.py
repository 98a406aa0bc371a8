"""Text in parts that fit a model: at paragraph borders, then sentences, then words, then hard."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

__all__ = ["split_text"]

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_LINE = re.compile(r"\n")
# After a full stop and the like, with quotes and brackets that close; CJK needs no space.
_SENTENCE = re.compile(r"(?<=[.!?\u2026])[\"'\u201d\u2019)\]]*\s+|(?<=[\u3002\uff01\uff1f])\s*")
_WORD = re.compile(r"\s+")
# What a level sets its pieces apart with when they are put together again.
_LEVELS = ((_PARAGRAPH, "\n\n"), (_LINE, "\n"), (_SENTENCE, " "), (_WORD, " "))

Measure = Callable[[str], int]


def split_text(text: str, limit: int, measure: Measure = len) -> list[str]:
    """Split a text into parts no longer than a limit, of about the same length.

    Nothing is lost: the parts together are the text, but for white space at the cuts.

    Args:
        text: to be split.
        limit: of a part.
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
    whole = measure(text)
    if whole <= limit:
        return [text]
    return list(_packed(_atoms(text, "", limit, measure, 0), whole, limit, measure))


def _packed(
    atoms: Iterator[tuple[str, str]], whole: int, limit: int, measure: Measure
) -> Iterator[str]:
    """Put atoms together to parts of about the same length: a last one of three lines is none."""
    part: list[str] = []
    used, left = 0, whole
    target = _target(left, limit)
    for glue, atom in atoms:
        length = measure(glue) + measure(atom)
        over, under = used + length - target, target - used
        if part and (used + length > limit or over > under):
            yield "".join(part)
            left -= used
            part, used, target = [], 0, _target(left, limit)
        part += (glue, atom) if part else (atom,)
        used += length
    if part:
        yield "".join(part)


def _target(left: int, limit: int) -> int:
    """The length of a part, if what is left is to be shared out evenly."""
    return -(-left // max(-(-left // limit), 1))


def _atoms(
    text: str, glue: str, limit: int, measure: Measure, level: int
) -> Iterator[tuple[str, str]]:
    """Yield pieces that fit, each after what stands before it."""
    if measure(text) <= limit:
        yield glue, text
    elif level == len(_LEVELS):
        for piece in _hard(text, limit, measure):
            yield glue, piece
            glue = ""
    else:
        pattern, own = _LEVELS[level]
        for piece in _pieces(text, pattern):
            yield from _atoms(piece, glue, limit, measure, level + 1)
            glue = own


def _pieces(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    """Cut at the pattern; what closes a sentence stays with it."""
    start = 0
    for match in pattern.finditer(text):
        cut = match.start() + len(match[0].rstrip())
        if piece := text[start:cut].strip():
            yield piece
        start = match.end()
    if piece := text[start:].strip():
        yield piece


def _hard(text: str, limit: int, measure: Measure) -> Iterator[str]:
    """Cut a word that is longer than the limit: as much as fits, by halving."""
    while text:
        low, high = 1, min(len(text), 4 * limit)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if measure(text[:middle]) <= limit else (low, middle - 1)
        yield text[:low]
        text = text[low:]
