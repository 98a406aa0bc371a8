"""Reads a streamed answer over several calls: one that was cut is continued by the next."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from konko_async._core.classification import classify
from konko_async._streaming.accumulate import ChatAccumulator, brings
from konko_async._streaming.continuation import Splice, usage_of_all
from konko_async.errors import APIError, KonkoError, StreamError, StreamTruncatedError
from konko_async.wire import ChatCompletionChunk, ChoiceDelta, ChunkChoice

if TYPE_CHECKING:
    from konko_async._core.pipeline import Call, Response
    from konko_async._streaming.continuation import PrefillDialect
    from konko_async._streaming.reader import StreamReader
    from konko_async.wire import ChatCompletion, Usage
    from konko_async.wire._base import Received

__all__ = ["ResumableReader", "ResumeState"]

# Continuations in a row that brought nothing: then it is not the connection.
_BARREN: Final = 3
_RESUMABLE: Final = frozenset(
    {"connection", "cut_off", "timeout", "overloaded", "server_error", "rate_limit"}
)


class ResumeState(msgspec.Struct, frozen=True, kw_only=True):
    """What the next call has to know.

    Attributes:
        prefill: the beginning of the answer; None: it is requested again as a whole.
        tokens: how many pieces of the answer there are already, about as many as tokens.
        cut: whether the last call was cut; else it ended by its limit on tokens.
    """

    prefill: str | None
    tokens: int
    cut: bool


Continue = Callable[[ResumeState], Awaitable["tuple[Response, Call]"]]


class ResumableReader:
    """Stands where a stream has its reader and decoder, and changes the reader when it is cut.

    Text is handed on as it comes. What cannot be continued in the middle is held back until it is
    whole: tool calls, and everything where JSON was asked for. If that is cut, it is requested
    again from its beginning.

    Args:
        response: the first call's; its stream is open.
        call: the first call.
        dialect: how the server continues an answer.
        proceed: makes the next call.
        resume: whether a cut is survived; else only a limit on tokens is.
        continue_on_length: how often an answer that ended by ``length`` is continued.
        whole: whether the answer is of use only as a whole, such as JSON.

    Attributes:
        resumed: how many calls were made after the first.
        ready: chunks that wait for the consumer, the next one last.
        accumulated: the whole answer, as far as it was handed on.
        ended: whether everything has been read, or the answer was given up.
        outlives_cancellation: see :class:`StreamReader`.
        chunks: how many were handed on.
        template: None, as for a decoder that reads every chunk by itself.
    """

    __slots__ = (
        "_barren", "_call", "_dialect", "_failure", "_held", "_inner", "_left", "_length",
        "_proceed", "_resume", "_shown", "_splice", "_tail", "_thought", "_tokens",
        "_tools", "_usages", "_whole", "accumulated", "chunks", "ended", "ready", "resumed",
    )  # fmt: skip

    template = None

    def __init__(
        self,
        response: Response,
        call: Call,
        dialect: PrefillDialect,
        proceed: Continue,
        *,
        resume: bool,
        continue_on_length: int,
        whole: bool,
    ) -> None:
        self._inner: StreamReader[ChatCompletionChunk, ChatCompletion] = response.stream
        self._call = call
        self._dialect = dialect
        self._proceed = proceed
        self._resume = resume
        self._left = continue_on_length
        self._whole = whole
        self._shown: list[str] = []
        self._tokens = self._barren = 0
        self._splice: Splice | None = None
        # What cannot be continued, held back; and what came with or after the finish_reason.
        self._held: list[ChatCompletionChunk] = []
        self._tail: list[ChatCompletionChunk] = []
        self._tools = self._thought = self._length = False
        self._usages: list[Usage] = []
        self._failure: KonkoError | None = None
        self.resumed = self.chunks = 0
        self.ready: list[Any] = []
        self.accumulated = ChatAccumulator()
        self.ended = False

    # -- what a stream needs of its reader and decoder -------------------------------------------

    @property
    def decoder(self) -> ResumableReader:
        """Itself: chunks come out here."""
        return self

    @property
    def outlives_cancellation(self) -> bool:
        """Whether a cancelled reader leaves the stream open."""
        return self._inner.outlives_cancellation

    @outlives_cancellation.setter
    def outlives_cancellation(self, value: bool) -> None:
        """Set it, for this call and those that continue it."""
        self._inner.outlives_cancellation = value

    def received(self) -> Received:
        """Return the head of the last answer."""
        return self._inner.received()

    def built(self, text: str) -> Any:
        """Return a chunk of a text; there are only whole chunks here."""
        raise NotImplementedError(text)

    def take_chunks(self) -> list[Any]:
        """Take the chunks that are ready."""
        chunks = self.ready[::-1]
        self.ready.clear()
        return chunks

    def close(self, outcome: str = "closed") -> None:
        """Stop reading; idempotent."""
        if not self.ended and self._failure is None:
            self._failure = StreamError("the stream was closed before its end")
        self.ended = True
        self._inner.close(outcome)

    async def fill_or(self, at_once: object) -> bool:  # noqa: ARG002 - each chunk is looked at
        """Do what :meth:`fill` does."""
        return await self.fill()

    async def fill(self) -> bool:
        """Read until there is a chunk in ``ready``; False at the end of the answer.

        Raises:
            APIError: the answer failed, and cannot be continued; ``partial`` is all that came.
        """
        if self._failure is not None:
            raise copy.copy(self._failure)
        while not self.ended:
            try:
                # Opening a call waits for its first delta: by then all of it may have come.
                more = bool(self._inner.decoder.ready) or await self._inner.fill()
            except KonkoError as error:
                cut: KonkoError | None = error
                more = False
            else:
                cut = None
            if more:
                self._take()
            elif cut is not None:
                await self._recover(cut)
            elif self._length and self._left > 0:
                self._left -= 1
                self._end_call(keep=False)
                await self._go_on(self._progress(cut=False), None)
            else:
                self._finish()
            if self.ready:
                return True
        return False

    # -- chunks ----------------------------------------------------------------------------------

    def _take(self) -> None:
        """Take what the present call has brought."""
        decoder = self._inner.decoder
        while decoder.ready:
            item = decoder.ready.pop()
            chunk = decoder.built(item) if type(item) is str else item
            self._sort(chunk)

    def _sort(self, chunk: ChatCompletionChunk) -> None:
        """Hand a chunk on, or hold it back."""
        choice = chunk.choices[0] if chunk.choices else None
        if choice is not None:
            self._join(choice)
        # What ends an answer waits until it is known whether it is the end of the whole one.
        if (chunk.usage is not None and chunk.usage.known) or (choice and choice.finish_reason):
            self._tail.append(chunk)
        elif self._whole or self._tools:
            self._held.append(chunk)
        elif self._splice is None or brings(chunk):
            self._hand_on(chunk)

    def _join(self, choice: ChunkChoice) -> None:
        """Fit a piece of the answer to what was handed on."""
        delta = choice.delta
        if delta.tool_calls or delta.function_call:
            self._tools = True
        if choice.finish_reason is not None:
            self._length = choice.finish_reason == "length"
        if self._splice is None:
            self._thought = self._thought or bool(delta.reasoning or delta.reasoning_content)
            return
        if delta.content:
            delta.content = self._splice.feed(delta.content)
        if self._thought:  # the reader has seen how the model came to it
            delta.reasoning = delta.reasoning_content = None

    def _hand_on(self, chunk: ChatCompletionChunk) -> None:
        choice = chunk.choices[0] if chunk.choices else None
        content = None if choice is None else choice.delta.content
        if content:
            self._shown.append(content)
            self._tokens += 1
            self._barren = 0
        self.accumulated.add([chunk])
        self.chunks += 1
        self.ready.insert(0, chunk)

    def _end_call(self, *, keep: bool) -> None:
        """Take in the end of a call.

        Args:
            keep: whether it is the end of the answer as well.
        """
        tail, self._tail = self._tail, []
        held, self._held = self._held, []
        for chunk in held:
            self._hand_on(chunk)
        for chunk in tail:
            if chunk.usage is not None:
                self._usages.append(chunk.usage)
                chunk.usage = usage_of_all(self._usages) if keep else None
            for choice in chunk.choices:
                if not keep:
                    choice.finish_reason = None
            if keep or brings(chunk):
                self._hand_on(chunk)

    def _finish(self) -> None:
        if self._splice is not None and (rest := self._splice.flush()):
            self._add_rest(rest)
        if self._splice is not None and self._splice.strayed:
            # Asked again, it said something else. Its tool calls count; its text is not the one
            # that the reader has begun.
            if not self._tools:
                self._fail(StreamTruncatedError("asked again, the model gave another answer"), None)
            for chunk in (*self._held, *self._tail):
                for choice in chunk.choices:
                    choice.delta.content = None
        self._end_call(keep=True)
        self.ended = True

    def _add_rest(self, rest: str) -> None:
        """Add text that looked like a repetition and was none, before what ends the answer."""
        for chunk in self._tail:
            for choice in chunk.choices:
                choice.delta.content = rest + (choice.delta.content or "")
                return
        delta = ChoiceDelta(content=rest)  # nothing but [DONE] ended it
        self._held.append(ChatCompletionChunk(choices=[ChunkChoice(delta=delta)]))

    # -- continuing ------------------------------------------------------------------------------

    def _progress(self, *, cut: bool) -> ResumeState:
        """Return what the next call continues, and make ready to join it."""
        shown = "".join(self._shown)
        # JSON and tool calls are asked for again from the beginning, as is what has no text yet.
        again = cut and (self._whole or self._tools or not shown)
        self._splice = Splice(shown, None if again else self._dialect)
        self._whole = self._whole or (again and bool(shown))
        self._tools = self._length = False
        return ResumeState(
            prefill=None if again else self._splice.sent,
            tokens=0 if again or not cut else self._tokens,
            cut=cut,
        )

    async def _recover(self, error: KonkoError) -> None:
        """Go on after a cut.

        Raises:
            KonkoError: that is not possible.
        """
        self._tail.clear()
        self._held.clear()
        self._barren += 1
        found = classify(error)
        hopeless = self._barren > _BARREN or found.kind not in _RESUMABLE
        if not self._resume or hopeless or self.ended:
            self._fail(error, error)
        await self._go_on(self._progress(cut=True), error)

    async def _go_on(self, progress: ResumeState, cause: KonkoError | None) -> None:
        try:
            response, call = await self._proceed(progress)
        except KonkoError as error:
            self._fail(error, cause)
        reader: StreamReader[ChatCompletionChunk, ChatCompletion] = response.stream
        reader.outlives_cancellation = self.outlives_cancellation
        self._inner = reader
        self._call.attempts += call.attempts
        self.resumed += 1
        if self.ended:  # it was given up meanwhile
            self._inner.close()

    def _fail(self, error: KonkoError, cause: KonkoError | None) -> None:
        """End by an error, with all that had arrived.

        Raises:
            KonkoError: that one.
        """
        self.ended = True
        if isinstance(error, APIError) and self.accumulated.has_delta:
            partial: Any = self.accumulated.result()
            partial.request_id = error.request_id
            error.partial = partial
        if cause is not None and cause is not error:
            error.add_note(f"the stream was to be resumed after {type(cause).__name__}")
        self._failure = copy.copy(error)
        raise error
