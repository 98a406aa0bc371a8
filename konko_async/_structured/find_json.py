"""Finds the JSON in a text, between thoughts, code fences, remarks and end tokens; pure.

A text whose first sign, after thoughts and an opening fence, begins a JSON value is *direct*: that
is where its value is, and a value that grows can be shown from there on. If prose comes first, the
value is only looked for once the whole text is there, as anything in the prose may look like one.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final, Literal, NamedTuple

__all__ = ["CLOSING", "Lead", "Step", "closing_tag", "end_of", "skip_lead", "values_in"]

_THOUGHT: Final = r"think|thinking|thought|thoughts|reasoning|reason"
_OPENING: Final = re.compile(rf"<({_THOUGHT})>", re.IGNORECASE)
CLOSING: Final = re.compile(rf"</(?:{_THOUGHT})>", re.IGNORECASE)
# Tokens of chat templates that a server left in the text: <|im_start|>, <s>, <bos>.
_TOKEN: Final = re.compile(r"<\|[\w.-]{1,40}\|>|<(?:s|bos)>")
_TOKEN_BEGUN: Final = re.compile(r"<(?:\|[\w.-]{0,40}\|?|[a-z]{0,10})$", re.IGNORECASE)
_FENCE: Final = re.compile(r"```(?:(?!(?:null|true|false)\b)[a-zA-Z][\w+-]*)?[ \t]*")
_SPACE: Final = re.compile(r"[\s\ufeff]*")
_LONGEST_FENCE: Final = 40  # signs that a fence may have before the JSON
# What ends a string or a bracket; a string is taken in one step, so brackets in it do not count.
_SIGN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[{}\[\]]|"', re.DOTALL)
# How a JSON object or list begins; "{name}" and "[see below]" are none.
_BEGINS: Final = re.compile(r"\{(?=\s*[\"}])|\[(?=\s*[\[\]{\"\dtfn-])")
_CUT: Final = re.compile(r"\{\s*\"")
# How often a text may be gone through: one of brackets only would be read once for each of them.
_MAX_PASSES: Final = 8

Step = Literal["value", "more", "thought", "prose"]


class Lead(NamedTuple):
    """What stands before a value.

    Attributes:
        step: ``value``: the value begins at ``place``; ``more``: what is left from ``place`` on
            cannot be told yet; ``thought``: thoughts begin at ``place``, and end with ``closing``;
            ``prose``: what begins there is no JSON object or list.
        place: an index of the text.
        closing: the tag that ends the thoughts, in lower case.
    """

    step: Step
    place: int
    closing: str = ""


def skip_lead(text: str, place: int, *, whole: bool, opening: str = "{") -> Lead:
    """Return what follows white space, fences and tokens of templates.

    Args:
        text: the text, from ``place`` on.
        place: where to begin.
        whole: whether no more text will come.
        opening: the signs that a value may begin with.
    """
    fenced = False
    while True:
        place = _SPACE.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing, too
        if place == len(text):
            return Lead("prose" if whole else "more", place)
        if text[place] in opening:
            return Lead("value", place)
        found: Lead | Step | int
        if text[place] == "<":
            found = _tag(text, place, whole=whole)
        else:
            found = "prose" if fenced else _fence(text, place, whole=whole)
            fenced = True
        if isinstance(found, Lead):
            return found
        if isinstance(found, str):
            return Lead(found, place)
        place = found


def _tag(text: str, place: int, *, whole: bool) -> Lead | Step | int:
    """Return where a token of a template ends, or what begins there instead."""
    thought, token = _OPENING.match(text, place), _TOKEN.match(text, place)
    if thought is not None:
        return Lead("thought", thought.end(), f"</{thought[1].lower()}>")
    if token is not None:
        return token.end()
    return "more" if not whole and _TOKEN_BEGUN.match(text, place) else "prose"


def _fence(text: str, place: int, *, whole: bool) -> Step | int:
    """Return where an opening fence ends, or what begins there instead."""
    fence = _FENCE.match(text, place)
    if fence is None:
        return "more" if not whole and "```".startswith(text[place:]) else "prose"
    if fence.end() - place > _LONGEST_FENCE:
        return "prose"
    return fence.end() if whole or fence.end() < len(text) else "more"


def closing_tag(text: str, closing: str, place: int) -> tuple[bool, int]:
    """Find the end of thoughts.

    Returns:
        Whether it is there, and the place after it; else the place from which to look again.
    """
    found = re.compile(re.escape(closing), re.IGNORECASE).search(text, place)
    if found is None:
        # The tag may be cut at the end of what has come: as much as it is long is looked at again.
        return False, max(place, len(text) - len(closing) + 1)
    return True, found.end()


def end_of(text: str, start: int) -> int | None:
    """Return the place after the bracket that closes the one at ``start``; None if none does."""
    depth = 0
    for match in _SIGN.finditer(text, start):
        sign = match[0]
        if sign in "{[":
            depth += 1
        elif sign in "}]":
            depth -= 1
            if depth == 0:
                return match.end()
        elif sign == '"':  # a string that does not end
            return None
    return None


def values_in(
    text: str, place: int, opening: str
) -> Generator[tuple[int, int | None], bool | None, None]:
    """Yield where a text has brackets that may be JSON, outermost first; no end for a cut one.

    Send True if it was JSON: what is in it is then not looked at.
    """
    budget = _MAX_PASSES * len(text)
    while budget >= 0:
        found = _BEGINS.search(text, place)
        if found is None:
            return
        place = found.end()
        start = found.start()
        if text[start] not in opening:
            continue
        end = end_of(text, start)
        # A bracket that is never closed had the whole text read.
        budget -= (len(text) if end is None else end) - start
        if end is not None:
            is_json = yield start, end
            place = end if is_json else place
        elif _CUT.match(text, start):
            yield start, None
