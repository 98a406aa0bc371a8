"""A streamed answer's bytes to chunks: what each read brought, and how the answer ended; no I/O."""

from __future__ import annotations

from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET

from konko_async._accumulate import Accumulator, brings
from konko_async._framing import BLOCK, ErrorEvent, Framer
from konko_async._refusals import ended_early, not_a_stream, sent_error
from konko_async._server_errors import find_error
from konko_async._template import Alike, Template
from konko_async.errors import KonkoError, ResponseDecodeError
from konko_async.wire._codec import Codec, decode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from konko_async._transport import Answer

__all__ = ["Arrivals"]

C = TypeVar("C")
R = TypeVar("R")

_LESSONS = 8  # templates in a row that may fit nothing, before no more are tried
_DONE = "[DONE]"


class Arrivals(Generic[C, R]):
    """What has arrived of one streamed answer.

    Attributes:
        ready: chunks that wait for the consumer, the next one last; a text is one that
            :meth:`built` has to make. A list, as an empty deque takes 0.7 kB of each open stream.
        accumulated: all that has arrived, put together.
        template: what the texts in ``ready`` have in common, once there were chunks alike.
    """

    __slots__ = (
        "_answer", "_codec", "_done", "_failure", "_framer", "_keep", "_lessons", "_mixed",
        "_n", "_silent", "_since", "_specimen", "_strict", "_strings", "accumulated", "ready",
        "template",
    )  # fmt: skip

    def __init__(
        self, answer: Answer, codec: Codec[C], accumulated: Accumulator[C, R], *, choices: int
    ) -> None:
        self.ready: list[Any] = []
        self.accumulated = accumulated
        self._answer = answer
        self._codec = codec
        self._strict = codec.strict
        self._n = choices
        self._framer = Framer(answer.headers.get("content-type", ""))
        self._lessons = _LESSONS
        self._specimen: Any = None  # the chunk to learn from when more comes
        self.template: Template | None = None
        self._keep: Callable[[str], None]  # what the template read
        self._strings: list[bytes] = []  # as the last texts were on the wire
        self._mixed = False  # whether there may be texts and chunks in `ready`
        self._done = False
        self._failure: KonkoError | None = None
        self._since: float | None = None  # when the wait for a token began; None: nobody waits
        self._silent = 0.0  # seconds waited since the last token, before the consumer went away

    def built(self, text: str) -> Any:
        """Return the chunk of the text that was taken from ``ready``; those behind it follow."""
        template = self.template
        assert template is not None  # noqa: S101 - it read the text
        if not self.ready:
            return template.build_one(text, self._strings[-1])
        self.ready.append(text)
        chunks = template.build(*self.take_texts())
        self.ready.extend(chunks[:0:-1])
        return chunks[0]

    def take_texts(self) -> tuple[list[str], list[bytes]]:
        """Take the texts at the front of ``ready``; return them with what they were on the wire."""
        ready, strings = self.ready, self._strings
        if not self._mixed:
            texts: list[str] = ready[::-1]
            ready.clear()
            return texts, strings[len(strings) - len(texts) :]
        texts = list(takewhile(_is_text, reversed(ready)))
        del ready[len(ready) - len(texts) :]
        end = len(strings) - sum(map(_is_text, ready))  # of the texts behind other chunks
        return texts, strings[end - len(texts) : end]

    def take_chunks(self) -> list[Any]:
        """Take the chunks at the front of ``ready``, up to the first text."""
        ready = self.ready
        if not self._mixed:
            chunks = ready[::-1]
            ready.clear()
            return chunks
        chunks = list(takewhile(lambda item: type(item) is not str, reversed(ready)))
        del ready[len(ready) - len(chunks) :]
        return chunks

    def _came(self, data: bytes) -> bool:
        """Take in what a read brought, nothing at the end; whether that gave chunks."""
        if data:
            self._take(data)
        elif self._failure is None:
            self._at_end()
        while self._framer.waiting and not self.ready:
            self._take(None)
        return bool(self.ready)

    def _came_alike(self, data: bytes) -> bool:
        """Take in a read of nothing but chunks that are as the template says; whether it is one.

        At a talker's pace that is nearly every read, and the long way costs a tenth of a read.
        """
        if self.template is None or not self._framer.clean or len(data) > BLOCK:
            return False
        alike = self.template.read_all(data)
        if alike is None:
            return False
        self._take_alike(alike)
        return True

    def _take(self, data: bytes | None) -> None:
        """Take in bytes; None: more of what has come."""
        framer = self._framer
        if self._specimen is not None:
            self._learn()
        try:
            payloads = framer.more() if data is None else framer.feed(data)
            if not payloads and framer.refused:
                self._at_end()
        except ResponseDecodeError as error:
            self._failure = error
            framer.drop()
            return
        if payloads:
            framer.confirm()
            if type(payloads[0]) is Alike:
                self._take_alike(payloads[0])
                payloads = payloads[1:]
            self._decode(payloads)
            if self._done or self._failure is not None:
                framer.drop()  # what follows the end or a fault is not looked at

    def _take_waiting(self) -> None:
        while self._framer.waiting:
            self._take(None)

    def _take_alike(self, alike: Alike) -> None:
        """Take in chunks that are as the template says; nobody may ever ask for them as chunks."""
        texts = alike.texts
        text = texts[0] if len(texts) == 1 else "".join(texts)
        if self.ready:
            self._mixed = True
            self._strings = self._strings + alike.strings
            self.ready[:0] = texts[::-1]
        else:
            self._mixed = False
            self._strings = alike.strings
            self.ready.extend(reversed(texts))
        self._keep(text)
        self._lessons = _LESSONS
        if text:
            self._since, self._silent = None, 0.0

    def _decode(self, payloads: list[Any]) -> None:
        """Decode payloads, in order; what follows the end or a fault is not looked at."""
        place = self._decode_plain(payloads)
        while place < len(payloads):
            self._decode_odd(payloads[place])
            if self._done or self._failure is not None:
                return
            place += 1
            if place < len(payloads):
                place += self._decode_plain(islice(payloads, place, None))

    def _decode_plain(self, payloads: Iterable[Any]) -> int:
        """Decode as long as nothing is special; return how many payloads that were."""
        chunks: list[Any] = []
        strict = self._strict
        try:
            for payload in payloads:
                chunk: Any = strict(payload)
                if chunk.error is not UNSET or not chunk.choices:
                    break
                chunk._raw = payload  # noqa: SLF001 - the slot of Wire
                chunks.append(chunk)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            pass  # TypeError: an ErrorEvent, as msgspec reads no subclass of str
        if chunks:
            self.accumulated.add(chunks)
            self._mixed = bool(self.ready)
            self.ready[:0] = chunks[::-1]
            if any(map(brings, chunks)):
                self._since, self._silent = None, 0.0
            if self._lessons:
                self._specimen = chunks[-1]
        return len(chunks)

    def _learn(self) -> None:
        """Expect more chunks like the last one; not at once, as that one may be the first token."""
        chunk, self._specimen = self._specimen, None
        delta = getattr(chunk.choices[0], "delta", None)
        if delta is None or not delta.content:
            return
        if any(map(_is_text, self.ready)):
            return  # they are of the template that there is
        self._lessons -= 1
        template = Template.learn(chunk._raw, chunk)  # noqa: SLF001 - the slot of Wire
        if template is not None:
            self._framer.template = self.template = template
            self._keep = self.accumulated.text_sink(template.index)

    def _decode_odd(self, payload: Any) -> None:
        """Decode a payload that is the end, an error, or in need of the forgiving way."""
        if isinstance(payload, ErrorEvent):
            self._fail_by_server(str(payload))
            return
        text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else payload
        if text.strip() == _DONE:
            self._done = True
            self._check_choices()
            return
        try:
            value = decode_json(payload)
            if find_error(value) is not None:
                self._fail_by_server(text, value)
                return
            chunk: Any = self._codec.decode(payload)
        except ResponseDecodeError as error:
            self._failure = error
            return
        self.accumulated.add([chunk])
        self._mixed = bool(self.ready)
        self.ready.insert(0, chunk)
        if brings(chunk):
            self._since, self._silent = None, 0.0

    def _at_end(self) -> None:
        """The body has ended: well, cut short, or it never was a stream."""
        if self._done or self.accumulated.finished(self._n) or self._framer.said_done:
            self._done = True
            self._check_choices()
        elif not self._framer.is_stream:
            self._failure = not_a_stream(self._framer.head or b"", self._answer)
        else:
            self._failure = ended_early("ended without [DONE] and finish_reason", self._answer)

    def _check_choices(self) -> None:
        if not self.accumulated.has_choices:
            self._failure = ended_early("said [DONE] without a single choice", self._answer)

    def _fail_by_server(self, text: str, value: Any = None) -> None:
        delivered = self.accumulated.has_delta
        self._failure = sent_error(text, value, self._answer, delivered=delivered)


def _is_text(item: Any) -> bool:
    return type(item) is str
