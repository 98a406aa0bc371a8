"""A streamed answer whose text is the JSON of a value: the value as it grows, and in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

from msgspec import UNSET

from konko_async._growing import Growing
from konko_async._shapes import shape_of
from konko_async._stream import ChatStream, Opener
from konko_async.errors import StructuredOutputError
from konko_async.wire import ParsedChatCompletion

if TYPE_CHECKING:
    from konko_async._accumulate import ChatAccumulator
    from konko_async._structured import ResponseFormat

__all__ = ["ParsedChatStream"]

T = TypeVar("T")


class ParsedChatStream(ChatStream, Generic[T]):
    """A streamed answer to a call with ``response_format=`` a type.

    What a :class:`ChatStream` is, and the value too: :meth:`partial` while it grows, and
    ``(await stream.completion()).parsed``.
    """

    def __init__(self, opener: Opener, form: ResponseFormat[T]) -> None:
        super().__init__(opener)
        self._form = form
        self._outcome: ParsedChatCompletion[T] | StructuredOutputError | None = None

    def partial(self) -> AsyncIterator[Any]:
        """Iterate over the value of choice 0 as it grows.

        What it yields looks like the type: attributes that have not begun to arrive are
        ``msgspec.UNSET`` (which is false), strings get longer, lists get items, nested objects are
        filled; numbers, enums, dates and the like are there once they are complete. Sets and tuples
        are lists, and so are structs that are arrays. It is the same object each time, changed in
        place: copy what is to be kept. One yield per read that changed it, however many tokens it
        brought. The last one holds what ``parsed`` holds.

        Raises:
            StructuredOutputError: in the end, if the whole answer does not fit.
            APIError: as for iterating over the stream itself.
        """
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
                error.attempts = self.attempts
                self._outcome = error
        if isinstance(self._outcome, StructuredOutputError):
            raise self._outcome
        return self._outcome


class _Partials(AsyncIterator[Any]):
    """The growing value; holds nothing of the stream, so leaving it early loses nothing."""

    __slots__ = ("_growing", "_stream", "_taken", "_wrapped")

    def __init__(self, stream: ParsedChatStream[Any]) -> None:
        self._stream = stream
        form = stream._form  # noqa: SLF001 - the two are one thing
        self._growing = Growing(shape_of(form.target))
        self._wrapped = form.wrapped
        self._taken = 0  # pieces of the text

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        stream = self._stream
        more = True
        while more:
            more = await stream._more()  # noqa: SLF001 - as above
            feed = stream._feed  # noqa: SLF001 - as above
            assert feed is not None  # noqa: S101 - _more() opened it
            feed.ready.clear()
            if self._take(cast("ChatAccumulator", feed.accumulated).content):
                value = self._growing.value
                value = value.value if self._wrapped else value
                if value is not UNSET:
                    return value
        await stream.completion()
        raise StopAsyncIteration

    def _take(self, pieces: list[str]) -> bool:
        """Take in what has come, also what others have read before; whether it changed anything."""
        if self._taken == len(pieces):
            return False
        text = "".join(pieces[self._taken :])
        self._taken = len(pieces)
        return self._growing.feed(text)
