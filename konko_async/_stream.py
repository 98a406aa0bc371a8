"""What the user holds of a streamed answer."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from konko_async.errors import KonkoError
from konko_async.wire import ChatCompletion, ChatCompletionChunk, Completion

if TYPE_CHECKING:
    from types import TracebackType

    from konko_async._feed import Feed
    from konko_async._pipeline import Call, Response
    from konko_async._records import Attempt
    from konko_async._template import Template
    from konko_async.wire import Usage

__all__ = ["ChatStream", "ChunkBatch", "CompletionStream", "Stream"]

C = TypeVar("C")
R = TypeVar("R", ChatCompletion, Completion)

Opener = Callable[[], Awaitable["tuple[Response, Call]"]]


class ChunkBatch(Generic[C]):
    """Chunks that arrived together, decoded no further than was needed; see :meth:`Stream.read`.

    For whoever hands an answer on: where chunks differ in nothing but their text, which is nearly
    always, :attr:`strings` and :attr:`shape` say all that there is, without a struct per chunk.
    """

    __slots__ = ("_items", "_strings", "_template")

    def __init__(
        self, items: list[Any], strings: list[bytes] | None = None, template: Template | None = None
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


class Stream(Generic[C, R]):
    """A streamed answer: iterate over it for chunks, or over :meth:`text` for text.

    Made by ``stream(...)`` (opened by ``async with``, or on first use) and by
    ``await create(..., stream=True)`` (open already). Opening it waits for the first delta;
    until then failures are retried, afterwards they are raised with ``error.partial``.

    Attributes:
        usage: tokens used, once the server has told (``stream_options={"include_usage": True}``).
    """

    __slots__ = (
        "__weakref__", "_call", "_closed", "_failure", "_feed", "_loop", "_opener", "_ready",
        "_response",
    )  # fmt: skip

    def __init__(self, opener: Opener) -> None:
        self._opener: Opener | None = opener
        self._response: Response | None = None
        self._call: Call | None = None
        self._feed: Feed[C, R] | None = None
        self._failure: KonkoError | str = "the stream was closed before it was opened"
        self._closed = False
        self._ready: list[Any] = []  # the feed's
        self._loop: asyncio.AbstractEventLoop | None = None

    async def _open(self) -> Self:
        """Open the stream, unless it is open."""
        if self._opener is None:
            return self
        opener, self._opener = self._opener, None
        self._failure = "the stream is being opened by another task"
        try:
            response, call = await opener()
        except KonkoError as error:
            self._failure = error
            raise
        except BaseException:
            self._failure = "opening the stream was given up; ask for another"
            raise
        self._response, self._call = response, call
        feed: Feed[C, R] = response.stream
        self._feed = feed
        self._ready = feed.ready
        self._loop = asyncio.get_running_loop()
        feed.start_deadlines(response.finish)
        if self._closed:  # by another task, meanwhile
            feed.close()
        return self

    # -- reading -------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> C:
        if not self._ready:
            feed = self._feed
            if not await (self._more() if feed is None else feed.fill()):
                raise StopAsyncIteration
        chunk = self._ready.pop()
        if type(chunk) is str:  # made only now: most are never asked for
            chunk = self._feed.built(chunk)  # type: ignore[union-attr]  # it read the text
        return chunk  # type: ignore[no-any-return]  # the queue holds both

    async def _more(self) -> bool:
        if self._feed is None:
            await self._open()
        feed = self._feed
        if feed is None:  # also again: what was never open must not look like an empty answer
            failure = self._failure
            raise KonkoError(failure) if isinstance(failure, str) else failure
        return bool(feed.ready) or await feed.fill()

    async def read(self) -> ChunkBatch[C] | None:
        """Return chunks that have arrived, waiting for one if there is none.

        Returns:
            All that have arrived, or the first of them that differ in nothing but their text;
            None at the end of the answer.

        Raises:
            APIError: as for iterating over the stream itself.
        """
        if not await self._more():
            return None
        feed = self._feed
        assert feed is not None  # noqa: S101 - _more() opened it
        if type(feed.ready[-1]) is str:  # what chunks alike are kept as
            return ChunkBatch(*feed.take_texts(), feed.template)
        return ChunkBatch(feed.take_chunks())

    def text(self) -> AsyncIterator[str]:
        """Iterate over the text of choice 0 as it comes; empty deltas are skipped.

        Raises:
            APIError: as for iterating over the stream itself.
        """
        return _Text(self)

    async def completion(self) -> R:
        """Read what is left and return the whole answer, with all that came before.

        May be called again; it then returns the same answer.

        Raises:
            APIError: the stream failed; ``.partial`` holds what had arrived.
        """
        while await self._more():
            self._feed.ready.clear()  # type: ignore[union-attr]  # _more() opened it
        whole = self._feed.accumulated.result()  # type: ignore[union-attr]  # as above
        whole.request_id = self.request_id
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
        return None if self._feed is None else self._feed.accumulated.usage

    @property
    def closed(self) -> bool:
        """Whether the stream holds no connection (any more)."""
        return self._feed is None or self._feed.ended

    # -- lifetime ------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop reading and free the connection; the server sees it at once. Idempotent."""
        self._opener = None
        self._closed = True
        if self._feed is not None:
            self._feed.close()

    def __aenter__(self) -> Coroutine[Any, Any, Self]:
        return self._open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._feed is not None and isinstance(error, asyncio.CancelledError):
            self._feed.close("cancelled")
        await self.close()

    def __del__(self) -> None:
        feed = getattr(self, "_feed", None)
        if feed is None or feed.ended:
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
            loop.call_soon_threadsafe(feed.close)

    def __repr__(self) -> str:
        state = "new" if self._opener else "closed" if self.closed else "open"
        return f"<{type(self).__name__} {state}>"


class _Text(AsyncIterator[str]):
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
                feed = stream._feed  # noqa: SLF001 - as above
                if not await (stream._more() if feed is None else feed.fill()):  # noqa: SLF001 - as above
                    raise StopAsyncIteration
            chunk = stream._ready.pop()  # noqa: SLF001 - as above
            if type(chunk) is str:
                if chunk:
                    return chunk
                continue
            for choice in chunk.choices:
                if choice.index == 0:
                    text = stream._delta(choice)  # noqa: SLF001 - as above
                    if text:
                        return text


class ChatStream(Stream[ChatCompletionChunk, ChatCompletion]):
    """A streamed chat answer; its chunks are :class:`ChatCompletionChunk`."""

    __slots__ = ()

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
