"""What the user holds of a streamed answer."""

from __future__ import annotations

import asyncio
import copy
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from konko_async._core.misuse import AsyncContextOnly, AsyncIterableOnly
from konko_async._records import HTTPResponse
from konko_async._streaming.stages import ChunksIterator, EventsIterator
from konko_async.errors import KonkoError
from konko_async.wire import ChatCompletion, ChatCompletionChunk, Completion

if TYPE_CHECKING:
    from types import TracebackType

    from konko_async._core.pipeline import Call, Response
    from konko_async._records import Attempt
    from konko_async._streaming.chunk_decoder import ChunkDecoder
    from konko_async._streaming.delta_template import DeltaTemplate
    from konko_async._streaming.reader import StreamReader
    from konko_async._streaming.stages import EventSource
    from konko_async.wire import ParsedChatCompletion, Usage
    from konko_async.wire._events import ChatCompletionStreamEvent

__all__ = ["ChatStream", "ChunkBatch", "CompletionStream", "Stream"]

C = TypeVar("C")
R = TypeVar("R", ChatCompletion, Completion)

Opener = Callable[[], Awaitable["tuple[Response, Call]"]]


class ChunkBatch(Generic[C]):
    """Chunks that arrived together, decoded no further than was needed; see :meth:`Stream.read`.

    For code that hands an answer on: where chunks differ in nothing but their text, which is nearly
    always, :attr:`strings` and :attr:`shape` say all that there is, without a struct per chunk.
    """

    __slots__ = ("_items", "_strings", "_template")

    def __init__(
        self,
        items: list[Any],
        strings: list[bytes] | None = None,
        template: DeltaTemplate | None = None,
    ) -> None:
        self._items = items
        self._strings = strings or []
        self._template = template

    def __len__(self) -> int:
        return len(self._items)

    @property
    def shape(self) -> C | None:
        """A chunk like each of these, with an empty text; None if they differ in more.

        It is the same object from batch to batch as long as the chunks stay alike.
        """
        shape: Any = None if self._template is None else self._template.example
        return shape  # type: ignore[no-any-return]  # templates are of chat chunks

    @property
    def strings(self) -> list[bytes]:
        """The texts, where :attr:`shape` is given, as the JSON strings that were on the wire."""
        return self._strings

    def texts(self) -> list[str]:
        """Return the texts where :attr:`shape` is given."""
        return self._items

    def chunks(self) -> list[C]:
        """Return the chunks."""
        if self._template is None:
            return self._items
        chunks: list[Any] = self._template.build(self._items, self._strings)
        return chunks


class Stream(AsyncIterableOnly, AsyncContextOnly, Generic[C, R]):
    """A streamed answer: iterate over it for chunks, or over :meth:`text` for text.

    Made by ``stream(...)`` (opened by ``async with``, or on first use) and by
    ``await create(..., stream=True)`` (open already). Opening it waits for the first delta;
    until then failures are retried, afterwards they are raised with ``error.partial``.

    A task that is cancelled while it waits for a token closes the stream on its way out. Inside an
    ``async with`` block the stream stays open until the block ends, so that a wait with a timeout
    of its own can be repeated there.

    Attributes:
        usage: tokens used, once the server has told (``stream_options={"include_usage": True}``).
    """

    __slots__ = (
        "__weakref__", "_call", "_closed", "_decoder", "_failure", "_loop", "_opener", "_owned",
        "_reader", "_ready", "_response", "_spent",
    )  # fmt: skip

    def __init__(self, opener: Opener) -> None:
        self._opener: Opener | None = opener
        self._response: Response | None = None
        self._call: Call | None = None
        self._reader: StreamReader[C, R] | None = None
        self._decoder: ChunkDecoder[C, R] | None = None  # the reader's
        self._failure: KonkoError | str = "the stream was closed before it was opened"
        self._closed = False
        self._owned = False  # by an `async with` block, which will close it
        self._ready: list[Any] = []  # the decoder's
        self._loop: asyncio.AbstractEventLoop | None = None
        self._spent = False  # whether a text() has come to its end

    async def _open(self) -> Self:
        """Open the stream, unless it is open."""
        if self._opener is None:
            return self
        opener, self._opener = self._opener, None
        self._failure = "the stream is being opened by another task"
        try:
            response, call = await opener()
        except KonkoError as error:
            self._failure = copy.copy(error)  # the one that is raised holds frames
            raise
        except BaseException:
            self._failure = "opening the stream was given up; ask for another"
            raise
        self._response, self._call = response, call
        reader: StreamReader[C, R] = response.stream
        reader.outlives_cancellation = self._owned
        self._reader, self._decoder = reader, reader.decoder
        self._ready = reader.decoder.ready
        self._loop = asyncio.get_running_loop()
        if self._closed:  # by another task, meanwhile
            reader.close()
        return self

    # -- reading -------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> C:
        if not self._ready:
            reader = self._reader
            if not await (self._more() if reader is None else reader.fill()):
                raise StopAsyncIteration
        chunk = self._ready.pop()
        if type(chunk) is str:  # made only now: most are never asked for
            chunk = self._decoder.built(chunk)  # type: ignore[union-attr]  # it read the text
        return chunk  # type: ignore[no-any-return]  # the queue holds both

    def _next_chunk(self) -> Coroutine[Any, Any, C]:
        """Return the next chunk, also of a stream whose iteration gives events."""
        return Stream.__anext__(self)

    def _take_ready(self) -> C | None:
        """Return a chunk that has arrived; None if it has to be waited for.

        For the blocking client, which saves the way to the loop's thread by it.
        """
        if not self._ready:
            return None
        chunk = self._ready.pop()
        return self._decoder.built(chunk) if type(chunk) is str else chunk  # type: ignore[union-attr,no-any-return]  # as in __anext__

    async def _more(self) -> bool:
        if self._reader is None:
            await self._open()
        reader = self._reader
        if reader is None:  # also again: what was never open must not look like an empty answer
            raise self._not_open()
        return bool(self._ready) or await reader.fill()

    def _not_open(self) -> KonkoError:
        failure = self._failure
        return KonkoError(failure) if isinstance(failure, str) else copy.copy(failure)

    async def read(
        self, at_once: Callable[[ChunkBatch[C]], bool] | None = None
    ) -> ChunkBatch[C] | None:
        """Return chunks that have arrived, waiting for one if there is none.

        Args:
            at_once: for code that hands an answer on: called, while this waits, with chunks that
                arrive and differ in nothing but their text, before any task is woken. It says
                whether it has dealt with them, so that this waits on. It must neither raise nor
                touch the stream; it may not be called at all.

        Returns:
            All that have arrived, or the first of them that differ in nothing but their text;
            None at the end of the answer.

        Raises:
            APIError: as for iterating over the stream itself.
        """
        if not await (self._more() if at_once is None else self._more_or(at_once)):
            return None
        decoder: ChunkDecoder[C, R] = self._decoder  # type: ignore[assignment]  # _more() opened it
        if type(decoder.ready[-1]) is str:  # what chunks alike are kept as
            return ChunkBatch(*decoder.take_texts(), decoder.template)
        return ChunkBatch(decoder.take_chunks())

    async def _more_or(self, at_once: Callable[[ChunkBatch[C]], bool]) -> bool:
        if self._ready or self._reader is None:
            return await self._more()
        return await self._reader.fill_or(partial(self._give, at_once))

    def _give(self, at_once: Callable[[ChunkBatch[C]], bool]) -> bool:
        decoder: Any = self._decoder
        texts, strings = decoder.take_texts()
        if at_once(ChunkBatch(texts, strings, decoder.template)):
            return True
        decoder.ready.extend(reversed(texts))
        return False

    def text(self) -> AsyncIterator[str]:
        """Iterate over the text of choice 0 as it comes; empty deltas are skipped.

        Raises:
            KonkoError: a ``text()`` of this stream has been read to its end: nothing would come.
            APIError: as for iterating over the stream itself.
        """
        if self._spent:
            raise KonkoError(
                "the text of this stream has been read already, and comes only once; "
                "'await stream.completion()' returns the whole answer again"
            )
        return _TextIterator(self)

    async def completion(self) -> R:
        """Read what is left and return the whole answer, with all that came before.

        May be called again; it then returns the same answer.

        Raises:
            APIError: the stream failed; ``.partial`` holds what had arrived.
        """
        while await self._more():
            self._ready.clear()
        whole = self._decoder.accumulated.result()  # type: ignore[union-attr]  # _more() opened it
        whole.request_id = self.request_id
        if self._reader is not None:
            whole._raw = self._reader.received()  # noqa: SLF001 - the slot of Wire
        return whole

    @staticmethod
    def _delta(choice: Any) -> str | None:
        """Return the text that a chunk's choice brings."""
        raise NotImplementedError

    # -- state ---------------------------------------------------------------------------------

    @property
    def request_id(self) -> str | None:
        """The answer's ``x-request-id``; None before the stream is open or if none was sent."""
        return None if self._response is None else self._response.request_id

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, case-insensitive; empty before the stream is open."""
        if self._reader is None:
            return {}
        received = self._reader.received()
        headers: Mapping[str, str] = received.redactor.headers(received.headers)
        return headers

    @property
    def from_cache(self) -> bool:
        """Whether the answer comes from the answer cache; False before the stream is open."""
        return self._response is not None and self._response.cached

    @property
    def response(self) -> HTTPResponse:
        """The HTTP response; ``await stream.response.aclose()`` closes the stream.

        Raises:
            KonkoError: the stream is not open.
        """
        if self._response is None:
            raise self._not_open()
        return HTTPResponse(self._response.status, self.headers, close=self.close)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts made to open the stream, oldest first."""
        return () if self._call is None else tuple(self._call.attempts)

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from the call to its first delta, back-off and limits included."""
        if self._response is None or self._call is None or self._response.first_token_at is None:
            return None
        return self._response.first_token_at - self._call.started

    @property
    def usage(self) -> Usage | None:
        """Tokens used so far as the server told; None if it has not."""
        return None if self._decoder is None else self._decoder.accumulated.usage

    @property
    def resumed(self) -> int:
        """How often another call continued the answer, with ``resume=`` or after ``length``."""
        return getattr(self._reader, "resumed", 0)

    @property
    def closed(self) -> bool:
        """Whether the stream holds no connection (any more)."""
        return self._reader is None or self._reader.ended

    # -- lifetime ------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop reading and free the connection; the server sees it at once. Idempotent."""
        self._opener = None
        self._closed = True
        if self._reader is not None:
            self._reader.close()

    def __aenter__(self) -> Coroutine[Any, Any, Self]:
        self._owned = True
        if self._reader is not None:
            self._reader.outlives_cancellation = True
        return self._open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._reader is not None and isinstance(error, asyncio.CancelledError):
            self._reader.close("cancelled")
        await self.close()

    def __del__(self) -> None:
        reader = getattr(self, "_reader", None)
        if reader is None or reader.ended:
            return
        warnings.warn(
            f"unclosed {type(self).__name__}: use 'async with', or await stream.close()",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )
        loop = self._loop
        if loop is not None and not loop.is_closed():
            # The collector may run in any thread.
            loop.call_soon_threadsafe(reader.close)

    def __repr__(self) -> str:
        state = "new" if self._opener else "closed" if self.closed else "open"
        return f"<{type(self).__name__} {state}>"


class _TextIterator(AsyncIterator[str]):
    """Text deltas of choice 0; holds nothing itself, so leaving it early loses nothing."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream[Any, Any]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        stream = self._stream
        while True:
            if not stream._ready:  # noqa: SLF001 - the two are one thing
                reader = stream._reader  # noqa: SLF001 - the two are one thing
                if not await (stream._more() if reader is None else reader.fill()):  # noqa: SLF001 - the two are one thing
                    stream._spent = True  # noqa: SLF001 - the two are one thing
                    raise StopAsyncIteration
            chunk = stream._ready.pop()  # noqa: SLF001 - the two are one thing
            if type(chunk) is str:
                if chunk:
                    return chunk
                continue
            for choice in chunk.choices:
                if choice.index == 0:
                    text = stream._delta(choice)  # noqa: SLF001 - the two are one thing
                    if text:
                        return text

    def _take_ready(self) -> str | None:
        """Return text that has arrived; see :meth:`Stream._take_ready`."""
        ready = self._stream._ready  # noqa: SLF001 - the two are one thing
        if ready and type(ready[-1]) is str and ready[-1]:
            text: str = ready.pop()
            return text
        return None


class ChatStream(Stream[ChatCompletionChunk, ChatCompletion]):
    """A streamed chat answer; its chunks are :class:`ChatCompletionChunk`."""

    __slots__ = ("_eventing", "_events", "_offer", "_refine")

    _refine: Callable[[ChatCompletion], ChatCompletion]
    _eventing: Callable[[int | None], EventSource]
    _events: EventSource | None
    _offer: Any  # see stages.py

    def events(self) -> AsyncIterator[ChatCompletionStreamEvent[Any]]:
        """Iterate over the events that ``openai``'s ``stream()`` gives, by their names.

        For each chunk a ``chunk``, and then what it brings: ``content.delta``, ``refusal.delta``,
        ``tool_calls.function.arguments.delta``, ``logprobs.content.delta``,
        ``logprobs.refusal.delta``; each of these has its ``.done`` where it is whole. With a type
        as ``response_format``, ``content.delta`` and ``content.done`` have what is ``parsed``. The
        events have what comes while they are iterated over, so ask for them first.

        Raises:
            LengthFinishReasonError: with a type or strict tools: the answer was cut.
            ContentFilterFinishReasonError: with a type or strict tools: it was stopped.
            StructuredOutputError: it does not fit the type.
            ToolArgumentsError: the arguments of a tool call do not fit.
            APIError: as for iterating over the stream itself.
        """
        return EventsIterator(self)

    def chunks(self) -> AsyncIterator[ChatCompletionChunk]:
        """Iterate over chunks, whatever iterating over the stream itself gives.

        Raises:
            APIError: as for iterating over the stream itself.
        """
        return ChunksIterator(self)

    @property
    def current_completion_snapshot(self) -> ParsedChatCompletion[Any]:
        """The answer as far as its events were taken, or its chunks came; as ``openai`` has it.

        Raises:
            KonkoError: the stream is not open.
        """
        if self._decoder is None:
            raise self._not_open()
        events = getattr(self, "_events", None)
        if events is not None:
            taken: ParsedChatCompletion[Any] = events.snapshot()
            return taken
        whole: Any = self._decoder.accumulated.result()
        return self._eventing(None).snapshot(whole)

    def _begin_events(self) -> EventSource:
        decoder = self._decoder
        assert decoder is not None  # noqa: S101 - chunks come from it
        self._events = self._eventing(decoder.accumulated.expected)
        return self._events

    async def get_final_completion(self) -> ChatCompletion:
        """Read what is left and return the whole answer, parsed as by ``parse()``.

        With tools, ``message.tool_calls[i].function.parsed_arguments`` are the arguments; with a
        type, ``message.parsed`` is the value, and None where the model refused.

        Raises:
            LengthFinishReasonError: with a type or tools: the answer was cut.
            ContentFilterFinishReasonError: with a type or tools: it was stopped.
            StructuredOutputError: it does not fit the type.
            APIError: the stream failed; ``.partial`` holds what had arrived.
        """
        whole = await ChatStream.completion(self)  # not that of a subclass, which parses as well
        parse = getattr(self, "_refine", None)
        return whole if parse is None else parse(whole)

    @staticmethod
    def _delta(choice: Any) -> str | None:
        content: str | None = choice.delta.content
        return content


class CompletionStream(Stream[Completion, Completion]):
    """A streamed text completion; its chunks are :class:`Completion`."""

    __slots__ = ()

    @staticmethod
    def _delta(choice: Any) -> str | None:
        text: str = choice.text
        return text
