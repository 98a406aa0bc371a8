"""A streamed answer's bytes to chunks, and what they say about its end; no I/O.

The plain way decodes each event strictly, in one C call. The template's way decodes only the texts
of events that differ in nothing else. Whatever is special (an error, the end, an event that bends
the format) takes the careful way, one event at a time. All three give the same chunks.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET

from konko_async._http.error_responses import FAILED_REASONS, find_error
from konko_async._streaming.accumulate import Accumulator, brings
from konko_async._streaming.chunk_repair import ChunkRepair
from konko_async._streaming.delta_template import Alike, DeltaTemplate
from konko_async._streaming.event_splitter import BLOCK, EventSplitter
from konko_async._streaming.loose_sse import NamedEvent, is_done
from konko_async._streaming.stream_errors import (
    AnswerHead,
    ended_early,
    is_keep_alive,
    is_progress,
    names_error,
    not_a_stream,
    sent_error,
)
from konko_async.errors import KonkoError, ResponseDecodeError
from konko_async.wire._codec import Codec, decode_json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ChunkDecoder"]

C = TypeVar("C")
R = TypeVar("R")

_LESSONS = 8  # templates in a row that may fit nothing, before no more are tried
_BROUGHT_FIELDS = frozenset({"choices", "usage"})
_CHUNK_FIELDS = _BROUGHT_FIELDS | {"created", "id", "model", "object"}


class ChunkDecoder(Generic[C, R]):
    """Decodes one streamed answer; feed it what each read brought.

    Attributes:
        ready: chunks that wait for the consumer, the next one last; a text is one that
            :meth:`built` has to make. A list, as an empty deque takes 0.7 kB of each open stream.
        accumulated: all that has arrived, put together.
        template: what the texts in ``ready`` have in common, once there were chunks alike.
        done: whether the answer has ended well.
        failure: why it has not. Never raised itself, only copies of it: a raised exception holds
            the frames that it went through, and would hold them as long as the stream lives.
        splitter: cuts what comes into events; knows whether some are waiting.
        brought: whether anything but empty chunks has come since somebody set this to False.
    """

    __slots__ = (
        "_alike", "_choices", "_closes", "_codec", "_finishes", "_goes_on", "_head", "_keep",
        "_learned_at", "_lessons", "_loose", "_mixed", "_others", "_repair", "_specimen",
        "_spoke", "_strict", "_strings", "accumulated", "brought", "done", "failure", "ready",
        "splitter", "template",
    )  # fmt: skip

    def __init__(
        self, head: AnswerHead, codec: Codec[C], accumulated: Accumulator[C, R], *, choices: int
    ) -> None:
        self.ready: list[Any] = []
        self.accumulated = accumulated
        accumulated.expected = choices
        self.template: DeltaTemplate | None = None
        self.done = False
        self.failure: KonkoError | None = None
        self.brought = False
        # Some servers put a finish_reason into every chunk. Once anything has come after the last
        # that was due, a finish_reason on this stream proves nothing. One that comes once and alone
        # behind all text, as with most servers, proves that the text is whole.
        self._finishes = 0
        self._spoke = False
        self._goes_on = False
        self._closes = False
        self._loose = False  # whether a finish_reason came together with text or a call
        self._head = head
        self._codec = codec
        self._strict = codec.strict
        self._choices = choices
        self.splitter = EventSplitter(head.headers.get("content-type", ""))
        self._repair: ChunkRepair | None = None
        self._alike = self._others = 0  # chunks that have come, by a template and otherwise
        self._lessons = _LESSONS
        self._learned_at = 0  # how many had come by templates when the last was learned
        self._specimen: Any = None  # the chunk to learn from when more comes
        self._keep: Callable[[str], None]  # what the template read
        self._strings: list[bytes] = []  # as the last texts were on the wire
        self._mixed = False  # whether there may be texts and chunks in `ready`

    # -- what the reader calls -----------------------------------------------------------------

    @property
    def chunks(self) -> int:
        """How many chunks have come."""
        return self._alike + self._others

    @property
    def finished(self) -> bool:
        """Whether every choice has a finish_reason that can be believed."""
        return not self._goes_on and self.accumulated.finished(self._choices)

    def take_alike(self, data: bytes) -> bool:
        """Take in a read of nothing but chunks that are as the template says; whether it is one.

        At a talker's pace that is nearly every read, and the long way costs a tenth of a read.
        """
        splitter = self.splitter
        template = splitter.template
        if template is None or not splitter.clean or len(data) > BLOCK:
            return False
        alike = template.read_all(data)
        if alike is None:
            return False
        return self._take_alike(alike)

    def take(self, data: bytes | None) -> bool:
        """Take in what a read brought; None: more of what has come. Whether that gave chunks."""
        self._take(data)
        while self.splitter.waiting and not self.ready:
            self._take(None)
        return bool(self.ready)

    def take_waiting(self) -> None:
        """Decode all that has come and waits."""
        while self.splitter.waiting:
            self._take(None)

    def end(self, *, whole: bool = True, cut: KonkoError | None = None) -> bool:
        """Take in the end of the body; whether that gave chunks.

        Args:
            whole: whether the body is known to be complete, and not cut where it ends.
            cut: why it is not. Before the first delta this is all that counts, as the attempt can
                be repeated.
        """
        if not self.done and self.failure is None and (cut is None or self.accumulated.has_delta):
            self.take_waiting()
            try:
                payloads = self.splitter.finish()
            except ResponseDecodeError as error:
                self.failure = error
            else:
                self._decode(payloads)
        if not self.done and self.failure is None:
            if cut is None or (self.finished and self._closes):
                self._judge_end(whole=whole)
            else:
                self.failure = cut
        return bool(self.ready)

    # -- what has come -------------------------------------------------------------------------

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
        self._mixed = bool(ready)
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
        self._mixed = bool(ready)
        return chunks

    # -- events --------------------------------------------------------------------------------

    def _take(self, data: bytes | None) -> None:
        """Take in bytes; None: more of what has come."""
        splitter = self.splitter
        if self._specimen is not None:
            self._learn()
        try:
            payloads = splitter.more() if data is None else splitter.feed(data)
            if not payloads and splitter.refused:
                self._judge_end(whole=True)
        except ResponseDecodeError as error:
            self.failure = error
            splitter.drop()
            return
        if payloads:
            if type(payloads[0]) is Alike:
                splitter.confirm()
                if not self.done:
                    self._take_alike(payloads[0])
                payloads = payloads[1:]
            self._decode(payloads)
            if self.failure is not None:
                splitter.drop()  # what follows a fault is not looked at

    def _take_alike(self, alike: Alike) -> bool:
        """Take in chunks that are as the template says; nobody may ever ask for them as chunks.

        Returns:
            True: they are taken in.
        """
        texts = alike.texts
        count = len(texts)
        self._alike += count
        if self.ready:
            text = "".join(texts)
            self._mixed = True
            self._strings = self._strings + alike.strings
            self.ready[:0] = texts[::-1]
        else:
            self._strings = alike.strings
            if count == 1:
                text = texts[0]
                self.ready.append(text)
            else:
                text = "".join(texts)
                self.ready.extend(reversed(texts))
        self._keep(text)
        if text:
            self.brought = True
        return True

    def _decode(self, payloads: list[Any]) -> None:
        """Decode payloads, in order; after the end only for errors, after a fault no more."""
        place = self._decode_plain(payloads)
        while place < len(payloads):
            try:
                self._decode_carefully(payloads[place])
            except RecursionError:  # what was read takes more of the stack to be looked at
                self.failure = ResponseDecodeError(
                    "the server's JSON cannot be read: nested too deeply"
                )
            if self.failure is not None:
                return
            place += 1
            if place < len(payloads):
                place += self._decode_plain(payloads[place:])

    def _decode_plain(self, payloads: list[Any]) -> int:
        """Decode as long as nothing is special; return how many payloads that were."""
        if self.done or (self._repair is not None and self._repair.holds):
            return 0
        chunks, ends = self._read_plain(payloads)
        if chunks:
            # What has unknown fields is read the careful way, which keeps them, and finds what
            # they say of a failure.
            del chunks[self._codec.count_plain(payloads, len(chunks)) :]
        if chunks:
            self.splitter.confirm()
            if ends:
                for chunk in chunks:
                    self._look_beyond(chunk)
            self.accumulated.add_plain(chunks)
            self._hand_on(chunks)
            if self._lessons or self._alike > self._learned_at:
                self._specimen = chunks[-1]
        return len(chunks)

    def _read_plain(self, payloads: list[Any]) -> tuple[list[Any], bool]:
        """Return the plain chunks at the front, and whether an end has come or comes with them."""
        chunks: list[Any] = []
        strict = self._strict
        ends = self._finishes > 0
        try:
            for payload in payloads:
                chunk: Any = strict(payload)
                if chunk.error is not UNSET or not chunk.choices:
                    break
                reason = chunk.choices[0].finish_reason
                if reason is not None:
                    if reason in FAILED_REASONS:
                        break
                    ends = True
                chunk._raw = payload  # noqa: SLF001 - the slot of Wire
                chunks.append(chunk)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            pass  # TypeError: an event that has a name
        return chunks, ends

    def _hand_on(self, chunks: list[Any]) -> None:
        self._others += len(chunks)
        self._mixed = bool(self.ready)
        self.ready[:0] = chunks[::-1]
        if any(map(brings, chunks)):
            self.brought = True
            if not self._finishes:
                self._spoke = True

    def _look_beyond(self, chunk: Any) -> None:
        """Note what a chunk says about the end: its own finish_reason, or more after one."""
        closing = any(choice.finish_reason is not None for choice in chunk.choices)
        if not (closing or self._finishes):
            return
        bare = [msgspec.structs.replace(each, finish_reason=None) for each in chunk.choices]
        says_more = brings(msgspec.structs.replace(chunk, choices=bare))
        if says_more:
            self._spoke = True
            self._goes_on |= self._finishes >= self._choices
        if closing:
            self._finishes += 1
            # Of several choices, too: with a finish_reason in every chunk, the last choice's first
            # chunk may be empty.
            self._loose |= says_more
            self._closes = self._spoke and not self._loose and self._finishes <= self._choices
            self.splitter.template = None  # from now on each chunk is looked at

    def _learn(self) -> None:
        """Expect more chunks like the last one; not at once, as that one may be the first token."""
        chunk, self._specimen = self._specimen, None
        delta = getattr(chunk.choices[0], "delta", None)
        if delta is None or not delta.content:
            return
        if self._finishes or any(map(_is_text, self.ready)):
            return  # texts that wait are of the template that there is
        # Of templates in a row that fit nothing, there are only so many.
        self._lessons = (_LESSONS if self._alike > self._learned_at else self._lessons) - 1
        self._learned_at = self._alike
        template = DeltaTemplate.learn(chunk._raw, chunk)  # noqa: SLF001 - the slot of Wire
        if template is not None:
            self.splitter.template = self.template = template
            self._keep = self.accumulated.text_sink(template.index)

    # -- the careful way -----------------------------------------------------------------------

    def _decode_carefully(self, payload: bytes | NamedEvent) -> None:
        """Decode a payload that is the end, an error, no chunk, or one that bends the format."""
        named: NamedEvent | None = None
        if isinstance(payload, NamedEvent):
            named, data = payload, payload.data
        else:
            data = payload
        if named is not None:
            if named.is_stray and not self.splitter.is_stream:
                return  # no event stream at all, as the end of the body will tell
            if names_error(named.name):
                self._fail_by_server(data)
                return
        if is_done(data):
            self.splitter.confirm()
            self._finish_repair()
            self.done = True
            if not self.accumulated.has_choices:
                self.failure = ended_early("said [DONE] without a single choice", self._head)
        elif not is_keep_alive(data):
            self._decode_value(data, named)

    def _decode_value(self, data: bytes, named: NamedEvent | None) -> None:
        """Decode a payload that says something.

        Under a name of its own, and after the end, it may be anything: only chunks count there, and
        what is plainly an error. Words where JSON is due come from something between the model and
        here that failed.
        """
        aside = named is not None or self.done
        try:
            value = decode_json(data)
        except ResponseDecodeError as error:
            words = not data.lstrip().startswith((b"{", b"["))
            if not self.done and (named.is_stray if named else words):
                self._fail_by_server(data)
            elif not aside:
                self.failure = error
            return
        if find_error(value, plainly=aside or is_progress(value)) is not None:
            self._take_last_words(data, value)
            self._fail_by_server(data, value)
        elif isinstance(value, str) and not aside:
            self._fail_by_server(data, value)
        elif not self.done and _may_be_chunk(value, aside=aside):
            self._take_chunk(data, value)

    def _take_chunk(self, data: bytes, value: Any) -> None:
        if self._repair is None:
            self._repair = ChunkRepair(self._codec.kind, self._choices)
        mended = self._repair.mend(data, value)
        try:
            chunk: Any = self._codec.decode(data if mended is None else mended)
        except ResponseDecodeError as error:
            self.failure = error
            return
        chunk.error = UNSET  # null, or empty
        self.splitter.confirm()
        self.accumulated.add([chunk])  # which finds deltas that have another name
        self._look_beyond(chunk)
        self._hand_on([chunk])
        # Fields that say nothing (such as "error": null) bring every chunk here, until a template
        # takes over.
        goes_on = self._lessons or self._alike > self._learned_at
        if goes_on and mended is None and chunk.choices:
            self._specimen = chunk

    def _take_last_words(self, data: bytes, value: Any) -> None:
        """Keep the text that came together with an error, if other text came before it."""
        if self.accumulated.has_delta and not self.done and _may_be_chunk(value, aside=True):
            self._take_chunk(data, value)

    def _finish_repair(self) -> None:
        """Give out what was kept back for a next chunk that has not come."""
        rest = None if self._repair is None else self._repair.rest()
        if rest is not None:
            chunk: Any = self._codec.decode(rest)
            self.accumulated.add([chunk])
            self._hand_on([chunk])

    # -- ends ----------------------------------------------------------------------------------

    def _judge_end(self, *, whole: bool) -> None:
        """Say how the answer ended with its body: well, cut short, or it never was a stream."""
        self._finish_repair()
        if self.accumulated.finished(self._choices) and (whole or not self._goes_on):
            self.done = True
        elif not self.splitter.is_stream:
            self.failure = not_a_stream(self.splitter.head or b"", self._head)
        else:
            self.failure = ended_early("ended without [DONE] and finish_reason", self._head)

    def _fail_by_server(self, data: bytes, value: Any = None) -> None:
        delivered = self.accumulated.has_delta
        self.failure = sent_error(data, value, self._head, delivered=delivered)


def _is_text(item: Any) -> bool:
    return type(item) is str


def _may_be_chunk(value: Any, *, aside: bool) -> bool:
    """Whether JSON without an error is worth a reading as a chunk; anything else is passed over."""
    if isinstance(value, dict):
        known = _BROUGHT_FIELDS if aside else _CHUNK_FIELDS
        return not known.isdisjoint(value)
    return isinstance(value, list) and not aside  # which fails, and says so
