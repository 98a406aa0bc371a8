"""What consecutive chunks of a stream have in common, so that only their text need be decoded.

The chunks of an answer differ in their text and in nothing else, nearly always. Where a read begins
with such chunks, one ``split`` and one decode of all the texts do the work of a decode per chunk;
the structs are made from the first one's values, when and if somebody asks for them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from konko_async.wire import ChatCompletionChunk, ChoiceDelta
from konko_async.wire._chat import ChunkChoice

__all__ = ["Alike", "DeltaTemplate"]


class Alike(msgspec.Struct):
    """What chunks bring that differ in nothing but their text.

    Attributes:
        texts: a text of each.
        strings: the same as the JSON strings that they were on the wire.
    """

    texts: list[str]
    strings: list[bytes]


_decode = msgspec.json.Decoder(list[str]).decode
_decode_one = msgspec.json.Decoder(str).decode
_CONTENT = re.compile(rb'"content": ?("[^"\\]*(?:\\.[^"\\]*)*")')


class DeltaTemplate:
    """Reads chunks that differ from a known one in their text only.

    Args:
        before: the known chunk's JSON up to its text.
        after: the rest of it.
        chunk: the known chunk.

    Attributes:
        index: the choice that all of them are for.
    """

    __slots__ = ("_example", "_fields", "_head", "_model", "_tail", "index")

    def __init__(self, before: bytes, after: bytes, chunk: ChatCompletionChunk) -> None:
        # One per stream, of which there may be thousands: it keeps no more than it must.
        self._head = b"data: " + before
        self._tail = after + b"\n\n"
        choice = chunk.choices[0]
        self.index = choice.index
        self._fields = (
            chunk.id, chunk.created, chunk.model, chunk.object, chunk.system_fingerprint,
            chunk.service_tier, choice.index, choice.delta.role,
        )  # fmt: skip
        self._example: ChatCompletionChunk | None = None
        # The known chunk, where it has unknown fields: then all others have them, too.
        plain = type(chunk) is ChatCompletionChunk and type(choice) is ChunkChoice
        self._model: ChatCompletionChunk | None = None if plain else chunk

    @property
    def example(self) -> ChatCompletionChunk:
        """A chunk like all of them, with an empty text; always the same."""
        if self._example is None:
            (self._example,) = self.build([""], [b'""'])
        return self._example

    def json(self, string: bytes) -> bytes:
        """Return the JSON of the chunk whose text is this JSON string."""
        return self._head[len(b"data: ") :] + string + self._tail[:-2]

    @classmethod
    def learn(cls, payload: Any, chunk: Any) -> DeltaTemplate | None:
        """Make the template of a chunk; None if it brings more than text, or other than once.

        Args:
            payload: its JSON as it came.
            chunk: the same, decoded.
        """
        if not isinstance(chunk, ChatCompletionChunk) or type(payload) is not bytes:
            return None
        places = list(_CONTENT.finditer(payload)) if len(chunk.choices) == 1 else []
        if len(places) != 1 or chunk.usage is not None or _grows(chunk.choices[0]):
            return None
        start, end = places[0].span(1)
        template = cls(payload[:start], payload[end:], chunk)
        alike = template.read_all(b"data: %b\n\n" % payload)
        # What it makes must be the same in every field, also in those it knows nothing of.
        return (
            template
            if alike is not None and template.build(alike.texts, alike.strings) == [chunk]
            else None
        )

    def read(self, data: bytes) -> tuple[Alike | None, int]:
        """Return the texts of the events at the start of ``data`` that are as the template.

        Args:
            data: whole events.

        Returns:
            The texts, or None if already the first differs; and how many bytes those events were.
        """
        alike = self.read_all(data)
        return self._read_some(data) if alike is None else (alike, len(data))

    def read_all(self, data: bytes) -> Alike | None:
        """Return the texts of whole events all of which are as the template, else None."""
        head, tail = self._head, self._tail
        if not (data.startswith(head) and data.endswith(tail)):
            return None
        start, after = len(head), 2 - len(tail)
        if len(data) < 2 * start:  # one chunk, which is what a read brings at a talker's pace
            part = data[start : after - 2]
            try:
                return Alike([_decode_one(part)], [part])
            except (msgspec.DecodeError, UnicodeDecodeError):
                return None
        # Cut at single line feeds: a search for one byte is many times quicker than for two.
        parts = [event[start:after] for event in data.split(b"\n")[:-1:2]]
        # Putting them together again proves it, and costs less than a look at each.
        if head + (tail + head).join(parts) + tail != data:
            return None
        texts = _texts(parts)
        return None if texts is None else Alike(texts, parts)

    def _read_some(self, data: bytes) -> tuple[Alike | None, int]:
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
        texts = _texts(parts) if parts else None
        return (None, 0) if texts is None else (Alike(texts, parts), at)

    def build_one(self, text: str, string: bytes) -> ChatCompletionChunk:
        """Return the chunk of one text: a list of one costs a twentieth of a read more."""
        if self._model is not None:
            return self._like_model(text, string)
        name, created, model, kind, fingerprint, tier, index, role = self._fields
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
        chunk._raw = self, string  # noqa: SLF001 - the slot of Wire
        return chunk

    def _like_model(self, text: str, string: bytes) -> ChatCompletionChunk:
        """Return the chunk of one text, with the known chunk's unknown fields."""
        model: Any = self._model
        choice = copy.copy(model.choices[0])
        choice.delta = ChoiceDelta(text, choice.delta.role)
        chunk: ChatCompletionChunk = msgspec.structs.replace(model, choices=[choice])
        chunk._raw = self, string  # noqa: SLF001 - the slot of Wire
        return chunk

    def build(self, texts: Iterable[str], strings: Iterable[bytes]) -> list[ChatCompletionChunk]:
        """Return the chunks, with their JSON as received beside them.

        All in one loop, and all fields at once: calls and looks at attributes would be a third of
        what a chunk costs.
        """
        if self._model is not None:
            return [self._like_model(*pair) for pair in zip(texts, strings, strict=True)]
        name, created, model, kind, fingerprint, tier, index, role = self._fields
        chunks = []
        for text, string in zip(texts, strings, strict=True):
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
            chunk._raw = self, string  # noqa: SLF001 - the slot of Wire
            chunks.append(chunk)
        return chunks


def _grows(choice: ChunkChoice) -> bool:
    """Whether a choice says more than text, or something that means more each time it comes."""
    unknown = choice.unknown
    if choice.finish_reason is not None or choice.logprobs is not None or "usage" in unknown:
        return True
    return any(isinstance(value, (str, list)) for value in unknown.values())


def _texts(parts: list[bytes]) -> list[str] | None:
    """Decode JSON strings; None if one of them is none.

    The line feeds make malformed JSON of a string that runs over the end of its part.
    """
    try:
        texts = _decode(b"[" + b",\n".join(parts) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return texts if len(texts) == len(parts) else None
