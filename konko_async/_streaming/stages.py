"""What ``stream()`` returns, before it is open and as it begins: the ways that lead to events.

A stream's class says what iterating over it gives, so that a chunk costs the same whatever else a
stream can do: its instances change their class when they are opened, and where events are wanted.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import AsyncIterator, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar

from konko_async._core.misuse import NotAwaitable
from konko_async.errors import KonkoError
from konko_async.wire._base import Received, Wire
from konko_async.wire._chat import no_event_field

if TYPE_CHECKING:
    from konko_async.wire import ChatCompletion, ChatCompletionChunk, ParsedChatCompletion

__all__ = ["ChunksIterator", "EventSource", "Eventful", "EventsIterator", "stage", "unopened"]

S = TypeVar("S")  # a stream


class EventSource(Protocol):
    """Makes events of chunks."""

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Take in the next chunk."""

    def end(self) -> None:
        """Take in that no other will come."""

    def take(self) -> Any:
        """Return the next event; None: chunks are needed."""

    def snapshot(self, whole: ChatCompletion | None = None) -> ParsedChatCompletion[Any]:
        """Return the answer as far as its chunks have been taken in, or ``whole`` as it is."""


# What answers to isawaitable() would be awaited by frameworks that take both kinds of functions; so
# only a stream that awaiting opens is awaitable, and none that is open.
class _Unopened(NotAwaitable):
    """A stream that ``stream()`` has made: awaiting it opens it, as ``async with`` does."""

    __slots__ = ()

    _await_hint = ""
    _opens_as: Any  # a class

    if not TYPE_CHECKING:  # the documented way is `async with`, which closes it as well

        def __await__(self) -> Generator[Any, Any, Self]:
            return self._opened().__await__()

    async def _opened(self: Any) -> Any:
        await self._open()
        if self._reader is None:
            raise self._not_open()
        return self

    async def _open(self) -> Any:
        opens_as = self._opens_as
        await super()._open()  # type: ignore[misc]  # mixed into streams
        if getattr(self, "_reader", None) is not None and isinstance(self, _Unopened):
            self.__class__ = opens_as
        return self


class _Offer(Received):
    """Beside the JSON of the first chunk: that events can be had in the place of chunks."""

    __slots__ = ("_state", "_stream")

    def __init__(self, text: Any, stream: Any) -> None:
        super().__init__(text, {}, None)
        # Weak, as a chunk that is kept must not keep its stream, and with it a connection.
        self._stream = weakref.ref(stream)
        self._state = "offered"

    def withdraw(self) -> None:
        if self._state == "offered":
            self._state = "withdrawn"

    def event_field(self, chunk: Any, name: str) -> Any:
        """Return a field of the event that the chunk is; from now on the stream gives events.

        Raises:
            AttributeError: the next chunk has been given already, as a chunk.
        """
        stream: Any = self._stream()
        if self._state == "withdrawn" or stream is None:
            raise no_event_field(name)
        if self._state == "offered":
            self._state = "taken"
            stream._begin_events().add(chunk)  # noqa: SLF001 - see the module's docstring
            stream._events.take()  # noqa: SLF001 - the chunk itself stands for it
            stream.__class__ = stage(_kind_of(stream), Eventful)
        fields = {"type": "chunk", "chunk": chunk}
        return fields[name] if name in fields else stream._events.snapshot()  # noqa: SLF001 - the stream has them


class _Offering:
    """An open stream none of whose chunks has been given."""

    __slots__ = ()

    async def __anext__(self) -> Any:
        stream: Any = self
        chunk = await stream._next_chunk()  # noqa: SLF001 - mixed into streams
        plain, offer = _kind_of(stream), stream._offer  # noqa: SLF001 - of the stream that this is mixed into
        if offer is None and isinstance(chunk, Wire):
            stream._offer = chunk._raw = _Offer(getattr(chunk, "_raw", None), stream)  # noqa: SLF001 - instead of the raw JSON
        elif type(stream) is not stage(plain, Eventful):
            if offer is not None:
                offer.withdraw()
            stream._offer = None  # noqa: SLF001 - the second chunk ends it
            stream.__class__ = plain
        return chunk

    def _take_ready(self) -> Any:
        return None


class Eventful:
    """A stream that gives events where others give chunks."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        stream: Any = self
        event = await _next_event(stream)
        if event is None:
            raise StopAsyncIteration
        return event

    def _take_ready(self) -> Any:
        events = self._events  # type: ignore[attr-defined]  # mixed into streams of chats
        return None if events is None else events.take()


class EventsIterator(AsyncIterator[Any]):
    """The events of a stream; holds nothing of it, so leaving it early loses nothing."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        event = await _next_event(self._stream)
        if event is None:
            raise StopAsyncIteration
        return event


class ChunksIterator(AsyncIterator[Any]):
    """The chunks of a stream, also of one that gives events; holds nothing of it."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Any]:
        chunk: Coroutine[Any, Any, Any] = self._stream._next_chunk()  # noqa: SLF001 - see the module's docstring
        return chunk


async def _next_event(stream: Any) -> Any:
    """Return the next event; None at the end."""
    events = getattr(stream, "_events", None)
    if events is None:
        await stream._more()  # noqa: SLF001 - opens it: what it says about the choices is needed
        events = stream._begin_events()  # noqa: SLF001 - iterates for the stream
    try:
        while (event := events.take()) is None:
            try:
                chunk = await stream._next_chunk()  # noqa: SLF001 - iterates for the stream
            except StopAsyncIteration:
                events.end()
                return events.take()
            events.add(chunk)
    except KonkoError as error:
        # One that is made of what has come, after the call has ended.
        error.attempts = error.attempts or stream.attempts
        raise
    return event


def _kind_of(stream: Any) -> Any:
    """Return the class that the stream would be of at no stage."""
    kind = type(stream)
    return getattr(kind, "_kind", kind)


@functools.cache
def stage(kind: Any, *mixins: type) -> Any:
    """Return a class of streams at a stage; its instances may become those of ``kind``."""
    body: dict[str, Any] = {
        "__slots__": (),
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "_kind": kind,
    }
    mixins = tuple(mixin for mixin in mixins if not issubclass(kind, mixin))
    if _Unopened in mixins:
        body["_opens_as"] = stage(kind, *mixins[1:]) if mixins[1:] else kind
    return type(kind.__name__, (*mixins, kind), body)


_WAYS: Final[dict[str, tuple[type, ...]]] = {
    "chunks": (_Unopened,),
    "offer": (_Unopened, _Offering),
    "events": (_Unopened, Eventful),
}


def unopened(stream: S, gives: str = "chunks") -> S:
    """Return a new stream as ``stream()`` gives it.

    Args:
        stream: not open.
        gives: ``chunks``; ``offer``: chunks, or events where a field of an event is read of the
            first chunk; ``events``.
    """
    made: Any = stream
    if gives != "chunks":
        made._offer = made._events = None  # noqa: SLF001 - of chats
    made.__class__ = stage(made.__class__, *_WAYS[gives])
    return stream
