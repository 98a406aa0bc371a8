"""Many streams as one: for user interfaces that show several answers at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import msgspec

from konko_async.errors import KonkoError

if TYPE_CHECKING:
    from types import TracebackType

    from konko_async._stream import Stream

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


class Merged(AsyncIterator[MergedChunk[C]]):
    """Iterates over many streams in the order in which their chunks come.

    One chunk of each stream waits at most: a slow consumer slows the servers down. Leaving early
    closes all streams.
    """

    def __init__(self, streams: Iterable[Stream[C, Any]]) -> None:
        self._streams = list(streams)
        self._ready: deque[tuple[MergedChunk[C], asyncio.Future[None]]] = deque()
        self._tasks: list[asyncio.Task[None]] | None = None
        self._left = len(self._streams)
        self._wake: asyncio.Future[None] | None = None
        self._taken: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MergedChunk[C]:
        loop = asyncio.get_running_loop()
        if self._tasks is None:
            self._tasks = [
                loop.create_task(self._pump(index, stream))
                for index, stream in enumerate(self._streams)
            ]
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)  # the last chunk has been dealt with: its stream goes on
        try:
            while self._left and not self._ready:
                self._wake = loop.create_future()
                await self._wake
        except BaseException:
            await self.aclose()
            raise
        if not self._ready:
            await self.aclose()
            raise StopAsyncIteration
        item, self._taken = self._ready.popleft()
        if item.done:
            self._left -= 1
        return item

    async def _pump(self, index: int, stream: Stream[C, Any]) -> None:
        error: KonkoError | None = None
        try:
            async for chunk in stream:
                await self._hand_on(MergedChunk(index, stream, chunk))
        except KonkoError as failure:
            error = failure
        finally:
            await stream.close()
        await self._hand_on(MergedChunk(index, stream, None, error, done=True), wait=False)

    async def _hand_on(self, item: MergedChunk[C], *, wait: bool = True) -> None:
        taken = asyncio.get_running_loop().create_future()
        self._ready.append((item, taken))
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
        if wait:
            await taken

    async def aclose(self) -> None:
        """Close every stream; idempotent."""
        tasks, self._tasks = self._tasks or [], []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.shield(asyncio.gather(*tasks, return_exceptions=True))
        for stream in self._streams:
            await stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def merge(streams: Iterable[Stream[C, Any]]) -> Merged[C]:
    """Interleave the chunks of several streams.

    Args:
        streams: opened or not; those that are not are opened at once, side by side.

    Returns:
        An async iterator of :class:`MergedChunk`; a stream that fails ends with its error in its
        last step, and the others go on. Use it with ``async with`` to close all on leaving.
    """
    return Merged(streams)
