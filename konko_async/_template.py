"""What consecutive chunks of a stream have in common, so that only their text need be decoded.

The chunks of an answer differ in their text and in nothing else, nearly always. Where a read begins
with such chunks, one ``split`` and one decode of all the texts do the work of a decode per chunk;
the structs are made from the first one's values, when and if somebody asks for them.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from konko_async.wire import ChatCompletionChunk, ChoiceDelta
from konko_async.wire._chat import ChunkChoice

__all__ = ["Template"]

Item = tuple[str, bytes]
"""The text of one chunk, and the JSON string it was on the wire."""

_decode = msgspec.json.Decoder(list[str]).decode
_decode_one = msgspec.json.Decoder(str).decode
_CONTENT = re.compile(rb'"content": ?("[^"\\]*(?:\\.[^"\\]*)*")')


class Template:
    """Reads chunks that differ from a known one in their text only.

    Args:
        before: the known chunk's JSON up to its text.
        after: the rest of it.
        chunk: the known chunk.

    Attributes:
        index: the choice that all of them are for.
        example: a chunk like all of them, with an empty text.
    """

    __slots__ = ("_after", "_fields", "_head", "_sep", "_tail", "example", "index")

    def __init__(self, before: bytes, after: bytes, chunk: ChatCompletionChunk) -> None:
        self._after = after
        self._head = b"data: " + before
        self._tail = after + b"\n\n"
        self._sep = self._tail + self._head
        choice = chunk.choices[0]
        self.index = choice.index
        self._fields = (
            chunk.id, chunk.created, chunk.model, chunk.object, chunk.system_fingerprint,
            chunk.service_tier, choice.index, choice.delta.role, before, after,
        )  # fmt: skip
        self.example = self.build(("", b'""'))

    @classmethod
    def learn(cls, payload: Any, chunk: Any) -> Template | None:
        """Make the template of a chunk; None if it brings more than text, or other than once.

        Args:
            payload: its JSON as it came.
            chunk: the same, decoded.
        """
        if type(chunk) is not ChatCompletionChunk or type(payload) is not bytes:
            return None
        places = list(_CONTENT.finditer(payload)) if len(chunk.choices) == 1 else []
        if len(places) != 1:
            return None
        start, end = places[0].span(1)
        template = cls(payload[:start], payload[end:], chunk)
        items, _ = template.read(b"data: %b\n\n" % payload)
        # What it makes must be the same in every field, also in those it knows nothing of.
        return template if items and template.build(items[0]) == chunk else None

    def read(self, data: bytes) -> tuple[list[Item], int]:
        """Return the texts of the events at the start of ``data`` that are as the template.

        Args:
            data: whole events.

        Returns:
            One item per event, and how many bytes those events were.
        """
        items = self.read_all(data)
        return self._read_events(data) if items is None else (items, len(data))

    def read_all(self, data: bytes) -> list[Item] | None:
        """Return the texts of whole events all of which are as the template, else None."""
        head, tail, after = self._head, self._tail, -len(self._after)
        if not (data.startswith(head) and data.endswith(tail)):
            return None
        start = len(head)
        if len(data) < 2 * start:  # one chunk, which is what a read brings at a talker's pace
            part = data[start : after - 2]
            try:
                return [(_decode_one(part), part)]
            except (msgspec.DecodeError, UnicodeDecodeError):
                return None
        # Cut at single line feeds: a search for one byte is many times quicker than for two.
        parts = [event[start:after] for event in data.split(b"\n")[:-1:2]]
        # Putting them together again proves it, and costs less than a look at each.
        if head + self._sep.join(parts) + tail != data:
            return None
        texts = _texts(parts)
        return None if texts is None else list(zip(texts, parts, strict=True))

    def _read_events(self, data: bytes) -> tuple[list[Item], int]:
        """Do what :meth:`read` does, with a look at each event: the last of a stream differ."""
        head, tail = self._head, self._tail
        parts: list[bytes] = []
        at = 0
        while data.startswith(head, at):
            start = at + len(head)
            end = data.find(b"\n\n", start) + 2 - len(tail)
            if end < start or not data.startswith(tail, end):
                break
            parts.append(data[start:end])
            at = end + len(tail)
        texts = _texts(parts)
        return ([], 0) if texts is None else (list(zip(texts, parts, strict=True)), at)

    def build(self, item: Item) -> ChatCompletionChunk:
        """Return the chunk of an item, its JSON as received beside it."""
        text, part = item
        # All at once: a look at each attribute would be a tenth of what a chunk costs.
        name, created, model, kind, fingerprint, tier, index, role, before, after = self._fields
        chunk = ChatCompletionChunk(
            name,
            [ChunkChoice(index, ChoiceDelta(text, role))],
            created,
            model,
            kind,
            None,
            fingerprint,
            tier,
        )
        chunk._raw = before, part, after  # noqa: SLF001 - the slot of Wire
        return chunk


def _texts(parts: list[bytes]) -> list[str] | None:
    """Decode JSON strings; None if one of them is none.

    The line feeds make malformed JSON of a string that runs over the end of its part.
    """
    try:
        texts = _decode(b"[" + b",\n".join(parts) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return texts if len(texts) == len(parts) else None
