"""From documents to requests, and from answers to further requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec

from konko_async import ConfigurationError
from konko_async.documents import Document, DocumentError, split_text
from konko_async.summarize._style import Kind, Style, tokens_in
from konko_async.summarize._summary import Summary

__all__ = ["Answer", "Entry", "Request", "advance", "enter", "first_requests", "rough_rest"]

_GLUE: Final = "\n\n"
_SMALLEST: Final = 32  # tokens; a part that is cut further says nothing
_OVERFLOW: Final = "context_length_exceeded"
_canonical = msgspec.json.Encoder(order="sorted").encode


class Answer(msgspec.Struct, gc=False):
    """What a call brought: a text, or an error's code and message."""

    text: str | None = None
    code: str = ""
    message: str = ""

    @property
    def overflowed(self) -> bool:
        """Whether the text was longer than the model's context after all."""
        return self.code == _OVERFLOW or "context length" in self.message


class Request(msgspec.Struct, gc=False):
    """A row of a round: named by its content, so that the same text is sent once.

    Attributes:
        key: the name.
        body: of the call.
    """

    key: str
    body: dict[str, Any]


class Entry(msgspec.Struct):
    """A document on its way to its summary.

    Attributes:
        result: what will be told of it.
        room: tokens of text in a call; halved when the model's context proves smaller.
        keys: of the requests that are waited for; none: it is finished, or has to be read again.
        reread: whether it is to be read again, to be split into smaller parts.
        largest: tokens of the longest text that is asked about.
        texts: the summaries of its parts, while these are being merged.
    """

    result: Summary
    room: int
    keys: list[str] = []
    reread: bool = False
    largest: int = 0
    texts: list[str] = []


def enter(found: Document | DocumentError, style: Style) -> Entry:
    """Return the entry of a document; one that could not be read is finished already."""
    if isinstance(found, DocumentError):
        error = {"code": found.code, "message": found.message}
        return Entry(Summary(document=found.name, error=error), 0)
    result = Summary(
        document=found.name,
        title=found.title,
        format=found.format,
        characters=len(found.text),
        read="opening" if style.opening else "all",
    )
    return Entry(result, style.room)


def first_requests(entry: Entry, text: str, style: Style) -> Iterator[Request]:
    """Split a document, and yield what is asked about it."""
    parts = [text] if style.opening else split_text(text, entry.room, tokens_in)
    entry.result.parts = len(parts)
    entry.reread = False
    entry.texts = []
    kind: Kind = "whole" if len(parts) == 1 else "part"
    yield from _requests(entry, kind, parts, style)


def _requests(entry: Entry, kind: Kind, texts: Iterable[str], style: Style) -> Iterator[Request]:
    entry.keys, entry.largest = [], 0
    for text in texts:
        entry.largest = max(entry.largest, tokens_in(text))
        body = style.body(kind, text)
        key = blake2b(_canonical(body), digest_size=16).hexdigest()
        entry.keys.append(key)
        yield Request(key, body)


def advance(entry: Entry, answers: Mapping[str, Answer], style: Style) -> Iterator[Request]:
    """Take the answers that a document waits for, and yield what is to be asked next.

    Nothing is done while one of them is missing. A document that is finished has no keys.
    """
    found = [answers.get(key) for key in entry.keys]
    if not found or None in found:
        return
    told = [answer for answer in found if answer is not None]
    problem = next((answer for answer in told if answer.text is None), None)
    half = min(entry.room, entry.largest) // 2
    if problem is not None and problem.overflowed and half >= _SMALLEST and not style.opening:
        entry.room = half
        if entry.texts:
            yield from _merged(entry, style)
        else:
            entry.reread, entry.keys = True, []
    elif problem is not None:
        place = f"part {told.index(problem) + 1} of {len(told)}: " if len(told) > 1 else ""
        _fail(entry, problem.code, f"{place}{problem.message}")
    elif len(told) == 1:
        entry.result.summary = style.polish(told[0].text or "")
        entry.keys = []
        if not entry.result.summary:
            _fail(entry, "empty_answer", "the model answered with nothing")
    else:
        entry.texts = [(answer.text or "").strip() for answer in told]
        yield from _merged(entry, style)


def _merged(entry: Entry, style: Style) -> Iterator[Request]:
    """Yield requests for fewer summaries than there are."""
    groups = split_text(_GLUE.join(entry.texts), entry.room, tokens_in)
    if len(groups) >= len(entry.texts):
        _fail(entry, "no_progress", "the summaries of its parts do not fit into fewer calls")
        return
    yield from _requests(entry, "merge", groups, style)


def _fail(entry: Entry, code: str, message: str) -> None:
    entry.result.summary = None
    entry.result.error = {"code": code, "message": message}
    entry.keys = []


def rough_rest(entries: Iterable[Entry], style: Style) -> int:
    """Return about how many calls follow the first round, if answers are as long as they may be."""
    longest = style.params.get("max_tokens")
    if not isinstance(longest, int) or longest < 1:
        raise ConfigurationError("a style needs max_tokens among its params")
    each = max(style.room // longest, 2)
    total = 0
    for entry in entries:
        waiting = len(entry.keys)
        while waiting > 1:
            waiting = -(-waiting // each)
            total += waiting
    return total
