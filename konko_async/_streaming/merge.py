"""Many streams as one: for user interfaces that show several answers at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import msgspec

from konko_async._core.tasks import Closing, ended
from konko_async.errors import KonkoError

if TYPE_CHECKING:
    from konko_async._streaming.stream import Stream

__all__ = ["MergedChunk", "merge"]

C = TypeVar("C")


class MergedChunk(msgspec.Struct, Generic[C], frozen=True, gc=False):
    """One step of one of the merged streams.

    Attributes:
        index: the stream's place among those that were merged.
        stream: the stream itself.
        chunk: what it brought; None with its last step.
        error: why it ended, if it failed.
        done: whether this is its last step.
    """

    index: int
    stream: Any
    chunk: C | None = None
    error: KonkoError | None = None
    done: bool = False

    @property
    def text(self) -> str:
        """The text that the chunk adds to choice 0; empty if none."""
        for choice in getattr(self.chunk, "choices", ()):
            if choice.index == 0:
                return self.stream._delta(choice) or ""  # noqa: SLF001 - how its text is found
        return ""


class _Pumps(Generic[C]):
    """What the pumps and the consumer share; knows nothing of the iterator, which may be dropped.

    One chunk of each stream waits at most: its pump goes on when the consumer comes for the next.
    """

    __slots__ = ("failure", "left", "ready", "taken", "tasks", "wake")

    def __init__(self, left: int) -> None:
        self.ready: deque[tuple[MergedChunk[C], asyncio.Future[None] | None]] = deque()
        self.tasks: list[asyncio.Task[None]] = []
        self.left = left
        self.failure: BaseException | None = None
        self.wake: asyncio.Future[None] | None = None
        self.taken: asyncio.Future[None] | None = None

    async def pump(self, index: int, stream: Stream[C, Any]) -> None:
        error: KonkoError | None = None
        loop = asyncio.get_running_loop()
        try:
            # Iterating over a stream of a chat itself may give events.
            chunks = getattr(stream, "chunks", None)
            async for chunk in stream if chunks is None else chunks():
                taken = loop.create_future()
                self.hand_on(MergedChunk(index, stream, chunk), taken)
                await taken
        except KonkoError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 - a fault in somebody's code: raised there
            self.failure = self.failure or failure
        finally:
            await stream.close()
        self.hand_on(MergedChunk(index, stream, None, error, done=True), None)

    def hand_on(self, item: MergedChunk[C], taken: asyncio.Future[None] | None) -> None:
        self.ready.append((item, taken))
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)

    async def take(self) -> MergedChunk[C] | None:
        """Return the next step, None at the end."""
        if self.taken is not None and not self.taken.done():
            self.taken.set_result(None)  # the last chunk has been dealt with: its stream goes on
        while self.left and not self.ready:
            self.wake = asyncio.get_running_loop().create_future()
            await self.wake
        if self.failure is not None:
            raise self.failure
        if not self.ready:
            return None
        item, self.taken = self.ready.popleft()
        self.left -= item.done
        return item

    def cancel(self) -> list[asyncio.Task[None]]:
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            task.cancel()
        return tasks


class Merged(Closing, AsyncIterator[MergedChunk[C]]):
    """Iterates over many streams in the order in which their chunks come.

    One chunk of each stream waits at most: a slow consumer slows the servers down. Leaving early
    (``break``, an exception, ``async with``, :meth:`aclose`, or dropping it) closes all streams.
    """

    def __init__(self, streams: Iterable[Stream[C, Any]]) -> None:
        self._streams = list(streams)
        self._state: _Pumps[C] = _Pumps(len(self._streams))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MergedChunk[C]:
        if self._closed:
            raise StopAsyncIteration
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._state.tasks = [
                self._loop.create_task(self._state.pump(index, stream))
                for index, stream in enumerate(self._streams)
            ]
        try:
            item = await self._state.take()
        except BaseException:
            await self.aclose()
            raise
        if item is None:
            await self.aclose()
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Close every stream; idempotent."""
        self._closed = True
        tasks = self._state.cancel()
        await ended(tasks)
        for stream in self._streams:
            await stream.close()

    def __del__(self) -> None:
        if self._state.tasks and self._loop is not None and not self._loop.is_closed():
            # The collector may run in any thread; each pump closes its stream.
            self._loop.call_soon_threadsafe(self._state.cancel)


def merge(streams: Iterable[Stream[C, Any]]) -> Merged[C]:
    """Interleave the chunks of several streams.

    Args:
        streams: opened or not; those that are not are opened at once, side by side.

    Returns:
        An async iterator of :class:`MergedChunk`; a stream that fails ends with its error in its
        last step, and the others go on. Use it with ``async with`` to close all on leaving.
    """
    return Merged(streams)
