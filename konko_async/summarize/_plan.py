"""Plans the calls for a document: its first requests, and those that follow from answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec

from konko_async import ConfigurationError
from konko_async.documents import Document, DocumentError, split_text
from konko_async.summarize._style import Kind, Style, TextSource, tokens_in
from konko_async.summarize._summary import Summary

__all__ = [
    "CUT",
    "DocumentEntry",
    "RoundAnswer",
    "RoundRequest",
    "advance",
    "begin_digest",
    "check_digest",
    "enter",
    "first_requests",
    "rough_rest",
]

_GLUE: Final = "\n\n"
_NUMBERING: Final = 8  # tokens: a number before a summary, and the glue after it
# As llama.cpp, vLLM, TGI, Anthropic, Gemini, Mistral, Moonshot and DashScope say it.
_LIMIT: Final = re.compile(
    r"(?:context|maximum|max|limit|<=|>|length should be \[1)\D{0,40}?(\d[\d,_]{1,8}\d)"
    r"|(\d[\d,_]{1,8}\d)\s*(?:tokens? )?max",
    re.IGNORECASE,
)
_TABLES: Final = (".csv", ".tsv")
_LONGEST_NAMES: Final = 0.25  # of a part
_PROMPT: Final = 200  # tokens around the text, roughly
_LESS: Final = 0.8
_SMALLEST: Final = 32  # tokens; a part that is cut further says nothing
# "max_tokens" is what some servers send for OpenAI's "length".
CUT: Final = frozenset({"length", "max_tokens", "content_filter"})
"""The finish reasons of answers that are not whole."""
# Sorted: the key of a request is a hash of these bytes, and a resumed run finds the answers of an
# earlier one by it.
_canonical = msgspec.json.Encoder(order="sorted").encode


class RoundAnswer(msgspec.Struct, gc=False):
    """The result of a call: a text, or an error's code and message.

    Attributes:
        text: None for an error.
        code: of the error.
        message: of the error.
        finish: why the text ended, in the server's words.
        overflowed: whether the text of the request exceeds the model's context after all.
    """

    text: str | None = None
    code: str = ""
    message: str = ""
    finish: str = ""
    overflowed: bool = False


class RoundRequest(msgspec.Struct, gc=False):
    """A row of a round: named by its content, so that the same text is sent once.

    Attributes:
        key: the name.
        body: of the call.
    """

    key: str
    body: dict[str, Any]


class DocumentEntry(msgspec.Struct):
    """A document on its way to its summary.

    Attributes:
        result: what will be reported of it.
        room: tokens of text in a call; less when the model's context proves smaller: what the
            server states, else half.
        keys: of the requests that are waited for; none: it is finished, or has to be read again.
        reread: whether it is to be read again, to be split into smaller parts.
        largest: tokens of the longest text in a request.
        texts: the summaries of its parts, while these are being merged.
        enlarged: requests whose answers were cut, by their keys: they are sent again with more
            room for the answer.
        final: requests that are not sent again, whatever their answers.
        merging: what the summaries of its parts are put together to: ``merge`` or ``digest``.
    """

    result: Summary
    room: int
    keys: list[str] = []
    reread: bool = False
    largest: int = 0
    texts: list[str] = []
    enlarged: set[str] = set()
    final: set[str] = set()
    merging: Kind = "merge"


def enter(found: Document | DocumentError, style: Style) -> DocumentEntry:
    """Return the entry of a document; one that could not be read is finished already."""
    if isinstance(found, DocumentError):
        error = {"code": found.code, "message": found.message}
        return DocumentEntry(Summary(document=found.name, error=error), 0)
    result = Summary(
        document=found.name,
        title=found.title,
        format=found.format,
        characters=len(found.text),
        read="opening" if style.opening else "all",
        warnings=found.warnings,
    )
    return DocumentEntry(result, style.room)


def first_requests(entry: DocumentEntry, text: str, style: Style) -> Iterator[RoundRequest]:
    """Split a document, and yield the requests about it."""
    # With `opening`, the style's own messages cut the text, and one call is all there will be.
    parts = [text] if style.opening else _split(entry, text)
    entry.result.parts = len(parts)
    entry.reread = False
    entry.texts = []
    # Before the first request is yielded, so nothing has been paid for when it raises.
    check_merging(entry, style)
    kind: Kind = "whole" if len(parts) == 1 else "part"
    yield from _requests(entry, kind, parts, style)


def _split(entry: DocumentEntry, text: str) -> list[str]:
    """Split a text; of a table whose rows are lines, each part begins with the names of columns."""
    # Measured, not split, to see whether it has to be: a large table would be split twice.
    if entry.result.document.lower().endswith(_TABLES) and tokens_in(text.strip()) > entry.room:
        names, _, rows = text.partition("\n")
        length = tokens_in(f"{names}\n")
        # Else its first line is not a header.
        if rows and length <= entry.room * _LONGEST_NAMES:
            parts = split_text(rows, entry.room - length, tokens_in)
            return [f"{names}\n{part}" for part in parts]
    return split_text(text, entry.room, tokens_in)


def _requests(
    entry: DocumentEntry, kind: Kind, texts: list[str], style: Style
) -> Iterator[RoundRequest]:
    entry.keys, entry.largest = [], 0
    for number, text in enumerate(texts, 1):
        size = tokens_in(text)
        entry.largest = max(entry.largest, size)
        source = TextSource(
            document=entry.result.document,
            title=entry.result.title,
            part=number,
            parts=len(texts) if kind == "part" else 1,
        )
        request = _request(style.body(kind, text, source))
        # Looked up by the key of the ordinary request, which is the same in each round and each
        # run. So a resumed run repeats the enlarged request, and finds its answer, without state of
        # its own.
        if request.key in entry.enlarged:
            more = _enlarged(style, size)
            request = _request(style.body(kind, text, source, max_tokens=more))
            entry.final.add(request.key)
        entry.keys.append(request.key)
        yield request


def _request(body: dict[str, Any]) -> RoundRequest:
    return RoundRequest(blake2b(_canonical(body), digest_size=16).hexdigest(), body)


def _enlarged(style: Style, size: int) -> int:
    """Return max_tokens for an answer that was cut: twice as many, as far as the context goes."""
    longest: int = style.params["max_tokens"]
    return min(2 * longest, longest + max(style.room - size, 0))


def check_merging(entry: DocumentEntry, style: Style) -> None:
    """Refuse settings with which the summaries of parts could never be merged.

    Raises:
        ConfigurationError: two answers do not fit into one call; says what to change.
    """
    if entry.result.parts > 1 and style.room < 2 * style.answer_room:
        # What is free is room + max_tokens, and two answers take 3 * max_tokens of the room (see
        # `answer_room`): hence a quarter. The 2 covers rounding up.
        longest = max((style.room + style.params["max_tokens"] - 2) // 4, 1)
        raise ConfigurationError(
            f"{entry.result.document} has {entry.result.parts} parts, and two summaries of up to "
            f"{style.params['max_tokens']} tokens do not fit into one call together: choose a "
            f"larger context, or max_tokens of at most {longest}"
        )


def check_digest(style: Style) -> None:
    """Refuse settings with which a digest could never be made, before anything is paid.

    Raises:
        ConfigurationError: two summaries do not fit into one call, or the style reads openings.
    """
    if style.opening:
        raise ConfigurationError("a style that reads openings alone makes no digest")
    if style.room < 2 * style.answer_room:
        longest = max((style.room + style.params["max_tokens"] - 2) // 4, 1)
        raise ConfigurationError(
            f"two summaries of up to {style.params['max_tokens']} tokens do not fit into one call "
            f"for the digest: choose a larger context, or max_tokens of at most {longest}"
        )


def begin_digest(
    entries: Sequence[DocumentEntry], style: Style
) -> tuple[DocumentEntry, list[RoundRequest]]:
    """Return the entry of a digest over finished documents, and its first requests.

    It is made like a document whose parts have been summarised. Of one document alone, its summary
    is the digest; of none, there is none, and the entry says why.
    """
    told = [entry.result for entry in entries if entry.result.summary is not None]
    result = Summary(document=f"digest of {len(told)} documents", format="digest", parts=len(told))
    result.characters = sum(len(summary.summary or "") for summary in told)
    if missing := len(entries) - len(told):
        which = "document" if missing == 1 else "documents"
        verb = "is" if missing == 1 else "are"
        result.warnings = (f"{missing} {which} without a summary {verb} not in it",)
    digest = DocumentEntry(result, style.room, merging="digest")
    if not told:
        _fail(digest, "empty", "no document has a summary")
        return digest, []
    if len(told) == 1:
        result.summary = told[0].summary
        return digest, []
    digest.texts = [
        f"{' '.join((summary.title or summary.document).split())}\n{summary.summary}"
        for summary in told
    ]
    return digest, list(_merged(digest, style))


def advance(
    entry: DocumentEntry, answers: Mapping[str, RoundAnswer], style: Style
) -> Iterator[RoundRequest]:
    """Take the answers that a document waits for, and yield the requests that follow.

    Nothing is done while one of them is missing. A document that is finished has no keys.
    """
    # Answers come in any order, and from earlier runs; a document moves on when it has all of its
    # own.
    found = [answers.get(key) for key in entry.keys]
    if not found or None in found:
        return
    got = [answer for answer in found if answer is not None]
    # Errors before cut answers: with one part missing there is no summary, and asking again for
    # another part would only cost.
    problem = next((answer for answer in got if answer.text is None), None)
    overflow = next((answer for answer in got if answer.overflowed), None)
    smaller = 0 if overflow is None else _smaller_room(entry, overflow.message, style)
    if problem is not None and problem.overflowed and smaller >= _SMALLEST and not style.opening:
        entry.room = smaller
        yield from _again(entry, style)
    elif problem is not None:
        place = f"part {got.index(problem) + 1} of {len(got)}: " if len(got) > 1 else ""
        _fail(entry, problem.code, f"{place}{problem.message}")
    elif again := _cut_keys(entry, got, style):
        entry.enlarged |= again
        yield from _again(entry, style)
    else:
        yield from _take(entry, got, style)


def _smaller_room(entry: DocumentEntry, message: str, style: Style) -> int:
    """Return the room of the next try after a text was too long for the model's context."""
    # From the longest text that was sent, not from the room: half of a room that no text filled
    # would split nothing, and the same requests would be sent again.
    sent = min(entry.room, entry.largest)
    stated = stated_limit(message)
    if stated is not None:
        room = stated - style.params["max_tokens"] - _PROMPT
        # Not much smaller than what did not fit: the server counts otherwise than we do.
        if _SMALLEST <= room <= sent * _LESS:
            return int(room)
    return sent // 2


def stated_limit(message: str) -> int | None:
    """Return the context length in tokens that a server's error states; None: none."""
    found = [re.sub(r"[,_]", "", one or other) for one, other in _LIMIT.findall(message[:1000])]
    # Where several match, the smaller is on the safe side.
    return min((int(digits) for digits in found), default=None)


def _again(entry: DocumentEntry, style: Style) -> Iterator[RoundRequest]:
    """Send the same text in another way: in smaller parts, or with more room for answers."""
    if entry.texts:
        yield from _merged(entry, style)
    else:
        entry.reread, entry.keys = True, []


def _cut_keys(entry: DocumentEntry, got: list[RoundAnswer], style: Style) -> set[str]:
    """Return the requests whose answers were cut, and may be whole with more room."""
    # Without more room the request would be the same, to the key: the journal would answer it with
    # the same cut text.
    if style.opening or _enlarged(style, entry.largest) <= style.params["max_tokens"]:
        return set()
    return {
        key
        for key, answer in zip(entry.keys, got, strict=True)
        if answer.finish in CUT and key not in entry.final
    }


def _take(entry: DocumentEntry, got: list[RoundAnswer], style: Style) -> Iterator[RoundRequest]:
    """Take answers as they are: the summary, or those of the parts."""
    for answer in got:
        if answer.finish in CUT:
            entry.result.cut = "length" if answer.finish == "length" else "content_filter"
    if len(got) > 1:
        entry.texts = [style.polish(answer.text or "") for answer in got]
        yield from _merged(entry, style)
        return
    entry.result.summary = style.polish(got[0].text or "")
    entry.keys = []
    if not entry.result.summary:
        _fail(entry, "empty_answer", "the model answered with nothing")


def _merged(entry: DocumentEntry, style: Style) -> Iterator[RoundRequest]:
    """Yield requests for fewer summaries than there are."""
    groups = _grouped(entry.texts, entry.room)
    if len(groups) >= len(entry.texts):
        # The server ignores max_tokens. What is paid is not thrown away: each summary is cut to
        # what lets two of them fit into a call, and the result says so.
        share = max(entry.room // 2 - _NUMBERING, 1)
        entry.texts = [_first_part(text, share) for text in entry.texts]
        entry.result.cut = "length"
        groups = _grouped(entry.texts, entry.room)
    # Each round must have fewer texts than the one before, or a run might go on, and cost, forever.
    if len(groups) >= len(entry.texts):
        _fail(entry, "no_progress", "the summaries of its parts do not fit into fewer calls")
        return
    yield from _requests(entry, entry.merging, groups, style)


def _grouped(texts: list[str], room: int) -> list[str]:
    # Numbered, as the prompt for merging says: the model knows in which order they belong.
    numbered = (f"{number}. {text}" for number, text in enumerate(texts, 1))
    return split_text(_GLUE.join(numbered), room, tokens_in)


def _first_part(text: str, room: int) -> str:
    parts = split_text(text, room, tokens_in)
    return parts[0] if parts else ""


def _fail(entry: DocumentEntry, code: str, message: str) -> None:
    entry.result.summary = None
    entry.result.error = {"code": code, "message": message}
    entry.keys = []


def rough_rest(entries: Sequence[DocumentEntry], style: Style, *, digest: bool = False) -> int:
    """Return about how many calls follow the first round, if answers are as long as they may be."""
    # At least two to a call: `check_merging` has refused smaller rooms, and with one the loop below
    # would not end.
    each = max(style.room // style.answer_room, 2)
    total = 0
    together = [len(entry.keys) for entry in entries]
    if digest:
        together.append(sum(map(bool, together)))
    for waiting in together:
        while waiting > 1:
            waiting = -(-waiting // each)  # noqa: PLW2901 - counted down
            total += waiting
    return total
