"""Streams structured output: the value as it grows, and the whole one in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Generic, Self, TypeVar, cast

from msgspec import UNSET

from konko_async._streaming.stages import Eventful
from konko_async._streaming.stream import ChatStream, Opener
from konko_async._structured.partial_json import Growing
from konko_async._structured.partial_types import shape_of
from konko_async.errors import ConfigurationError, StructuredOutputError
from konko_async.wire import ParsedChatCompletion

if TYPE_CHECKING:
    from konko_async._streaming.accumulate import ChatAccumulator
    from konko_async._structured.response_format import ResponseFormat
    from konko_async.wire._events import ChatCompletionStreamEvent

__all__ = ["ParsedChatStream", "ParsedEventStream"]

T = TypeVar("T")


class ParsedChatStream(ChatStream, Generic[T]):
    """A streamed answer to a call with ``response_format=`` a type.

    What a :class:`ChatStream` is, and the value too: :meth:`partial` while it grows, and
    ``(await stream.completion()).parsed``.
    """

    def __init__(self, opener: Opener, form: ResponseFormat[T]) -> None:
        super().__init__(opener)
        self._form = form
        # Kept, so that asking again costs nothing and never gives another result.
        self._outcome: ParsedChatCompletion[T] | StructuredOutputError | None = None

    def partial(self) -> AsyncIterator[T]:
        """Iterate over the value of choice 0 as it grows.

        What it yields looks like the type, and type checkers take it for one, so that they
        know its attributes; it is no instance of it. Attributes that have not begun to arrive are
        ``msgspec.UNSET`` (which is false: write ``if value.title:``), strings get longer, lists get
        items, nested objects are filled; numbers, enums, dates and the like are there once they are
        complete. Sets and tuples are lists, and so are structs that are arrays. It is the same
        object each time, changed in place: copy what is to be kept. One yield per read that changed
        it, however many tokens it brought. The last one holds what ``parsed`` holds. A value that
        stands after prose, or among the thoughts, is yielded in the end only, as ``parsed`` itself.

        Raises:
            ConfigurationError: the type is a pydantic model.
            StructuredOutputError: in the end, if the whole answer does not fit.
            APIError: as for iterating over the stream itself.
        """
        if self._form.is_model:
            raise ConfigurationError(
                "partial() grows values of msgspec types, dataclasses and TypedDicts: a pydantic "
                "model is made, and checked, when the answer is whole"
            )
        return _Partials(self)

    async def completion(self) -> ParsedChatCompletion[T]:
        """Read what is left and return the whole answer with its ``parsed`` value.

        May be called again; it then returns the same answer, or raises the same error.

        Raises:
            StructuredOutputError: the answer does not fit the type.
            APIError: the stream failed; ``.partial`` holds what had arrived.
        """
        if self._outcome is None:
            whole = await super().completion()
            try:
                self._outcome = self._form.parse(whole)
            except StructuredOutputError as error:
                # This error is made after the call has ended, so that no layer of the call can add
                # its history.
                error.attempts = self.attempts
                self._outcome = error
        if isinstance(self._outcome, StructuredOutputError):
            raise self._outcome
        return self._outcome


class ParsedEventStream(Eventful, ParsedChatStream[T]):
    """A streamed answer to ``stream()`` with a pydantic model as ``response_format``.

    What a :class:`ParsedChatStream` is, but iterating over it gives ``openai``'s events, as
    :meth:`ChatStream.events` does.
    """

    async def __anext__(self) -> ChatCompletionStreamEvent[T]:  # type: ignore[override]  # events, not chunks
        event: ChatCompletionStreamEvent[T] = await super().__anext__()
        return event


class _Partials(AsyncIterator[T]):
    """The growing value; holds nothing of the stream, so leaving it early loses nothing."""

    __slots__ = ("_ended", "_growing", "_stream", "_taken", "_wrapped")

    def __init__(self, stream: ParsedChatStream[T]) -> None:
        self._stream = stream
        form = stream._form  # noqa: SLF001 - the two are one thing
        bare = shape_of(form.kind) if form.wrapped else None
        self._growing = Growing(shape_of(form.target), bare, either=form.either)
        self._wrapped = form.wrapped
        self._taken = 0  # pieces of the text
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        stream = self._stream
        more = not self._ended
        while more:
            more = await stream._more()  # noqa: SLF001 - the stream's own reader, of which this is a part
            decoder = stream._decoder  # noqa: SLF001 - of the stream that this is a part of
            assert decoder is not None  # noqa: S101 - _more() opened it
            # The chunks are of no use here, and would otherwise be kept until the end.
            decoder.ready.clear()
            if self._take(cast("ChatAccumulator", decoder.accumulated).content):
                value = self._growing.value
                value = value.value if self._wrapped and not self._growing.is_bare else value
                if value is not UNSET:
                    return cast("T", value)
        completion = await stream.completion()
        if not self._ended and not self._growing.complete:
            # The JSON was not where it could be seen to grow: after a remark, among the thoughts,
            # a bare number. Now that it has been found, it is shown.
            self._ended = True
            message = completion.choices[0].message if completion.choices else None
            if message is not None and hasattr(message, "_value"):
                return cast("T", message.parsed)
        raise StopAsyncIteration

    def _take(self, pieces: list[str]) -> bool:
        """Take in what has come, also what others have read before; whether it changed anything."""
        if self._taken == len(pieces):
            return False
        text = "".join(pieces[self._taken :])
        self._taken = len(pieces)
        return self._growing.feed(text)
