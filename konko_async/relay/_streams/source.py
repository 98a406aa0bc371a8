"""Sources of frames for one reader, and the log lines of their failures."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Mapping
from typing import Protocol

from konko_async import ChatCompletionChunk, ChatStream, ChunkBatch, KonkoError
from konko_async.relay._errors import RefusalError, described
from konko_async.relay._formats.base import Format, StopReason, StreamStats
from konko_async.relay._formats.sse_frames import frames
from konko_async.relay._streams.cancel_scope import Scope

__all__ = [
    "RESTART",
    "DirectSource",
    "Source",
    "StreamSource",
    "Timing",
    "note_failure",
    "note_fault",
    "stopped_early",
]

_log = logging.getLogger("konko_async.relay")
RESTART = 5.0  # seconds until another process answers


class Source(Protocol):
    """Frames of one stream, pulled by one reader.

    Attributes:
        headers: of the HTTP answer: the format's, and ``X-Stream-Id`` where there is one.
    """

    headers: Mapping[str, str]

    async def read(self) -> bytes | None:
        """Wait for frames, ready to be written; None at the end.

        Raises nothing but CancelledError: failures are frames.
        """

    def stop(self, reason: StopReason) -> None:
        """End the stream: the reader gets the final event that says why. Idempotent."""

    async def close(self) -> None:
        """Release everything; a direct source cancels its upstream call. Idempotent."""


class Timing:
    """When a call began, by the loop's clock."""

    __slots__ = ("_clock", "_started")

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._started = self._clock()

    def passed(self) -> float:
        """Return the seconds since then."""
        return self._clock() - self._started

    def stats(self, stream: ChatStream) -> StreamStats:
        """Return the figures of a stream that has ended."""
        return StreamStats(
            time_to_first_token=stream.time_to_first_token,
            duration=self.passed(),
            usage=stream.usage,
        )


def note_failure(error: KonkoError, request_id: str | None) -> None:
    """Log a failure: its kind and the server's request id, nothing of what was said."""
    status, public = described(error)
    _log.warning(
        "stream failed: %s (%s, %d), request id %s",
        type(error).__name__,
        public.type,
        status,
        request_id,
    )


def note_fault(error: Exception) -> None:
    """Log where something failed that should not; its message may hold what users said."""
    where = traceback.extract_tb(error.__traceback__)
    # extract_tb() begins with the outermost call; the log line begins where it failed.
    places = " <- ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(where))
    _log.error("%s at %s", type(error).__name__, places)


def stopped_early(reason: StopReason | None) -> RefusalError:
    """Return the error of a call that was stopped before there was anything to read."""
    if reason == "stopped":
        return RefusalError(409, "the call was stopped before it was answered", type="stopped")
    return RefusalError(503, "the server is shutting down", type="overloaded", retry_after=RESTART)


class Outlet(Protocol):
    """Where frames can be written in the moment in which they come, by no task."""

    def writable(self) -> bool:
        """Whether a write now would overtake nothing and wait for nothing."""

    def write_now(self, frames: bytes) -> None:
        """Write frames; after :meth:`writable` has said so. Raises nothing."""


class DirectSource:
    """An answer, straight to its one reader: a slow reader slows the model's server down.

    Args:
        format: one for this answer alone.

    Attributes:
        headers: the format's.
        outlet: where what comes while :meth:`read` waits may be written past it, or None.
    """

    def __init__(self, format: Format) -> None:
        self.outlet: Outlet | None = None
        self.headers: Mapping[str, str] = format.headers
        self._format: Format = format
        self._timing = Timing()
        self._begun = self._flows = False
        self._ended = False
        self._reason: StopReason | None = None
        self._scope = Scope()

    # -- hooks: what differs between kinds of answers --------------------------------------------

    @property
    def started(self) -> bool:
        """Whether there was something to read already."""
        raise NotImplementedError

    @property
    def request_id(self) -> str | None:
        """The server's request id, if it sent one."""
        return None

    async def _start(self) -> None:
        """Wait for the first delta; raises what the call failed with."""
        raise NotImplementedError

    async def _step(self) -> list[bytes] | None:
        """Wait for what comes next and return its payloads; None at the end."""
        raise NotImplementedError

    async def _last(self) -> list[bytes]:
        """Return the payloads that end the answer."""
        raise NotImplementedError

    async def _leave(self) -> None:
        """Cancel what runs and wait until it has ended. Idempotent."""
        raise NotImplementedError

    # -- common to all kinds -----------------------------------------------------------------------

    async def open(self) -> KonkoError | None:
        """Wait for the first delta.

        Returns:
            None; or the failure, if the call failed before it or was stopped. Then there is
            nothing to read.
        """
        with self._scope:
            try:
                # A stop that came before the scope was entered has found no task to interrupt.
                if self._reason is None:
                    await self._start()
                    return None
            except KonkoError as error:
                self._ended = True
                note_failure(error, self.request_id)
                return error
        self._ended = True
        await self._leave()
        return stopped_early(self._reason)

    async def read(self) -> bytes | None:
        """Wait for what arrives, and return all of it; None at the end."""
        while not self._ended:
            self._flows = self._begun
            # Not in open(): a call that fails there is a status, and has no events at all.
            payloads = [] if self._begun else self._format.begin(None)
            self._begun = True
            payloads += await self._next()
            if payloads:
                return frames(payloads)
        return None

    async def _next(self) -> list[bytes]:
        """Return the next payloads; the last ones if this is the end."""
        with self._scope:
            try:
                # A stop between two reads found no task in the scope.
                if self._reason is None:
                    payloads = await self._step()
                    if payloads is not None:
                        return payloads
                    self._ended = True
                    return await self._last()
            except KonkoError as error:
                self._ended = True
                note_failure(error, self.request_id)
                return self._format.fail(error)
            except Exception as error:  # noqa: BLE001 - a bug becomes an event, never a cut
                self._ended = True
                note_fault(error)
                return self._format.fail(KonkoError("the relay failed"))
        self._ended = True
        # Outside the scope, so that the call has really ended before the reader gets its last
        # event.
        await self._leave()
        return self._format.stop(self._reason or "stopped")

    def stop(self, reason: StopReason) -> None:
        """End the stream: the reader gets the final event that says why. Idempotent."""
        self._reason = self._reason or reason
        self._scope.interrupt()

    async def close(self) -> None:
        """Cancel the upstream call, unless it has ended. Idempotent."""
        self._ended = True
        await self._leave()


class StreamSource(DirectSource):
    """A ChatStream, directly.

    Args:
        stream: open or not; if not, the first read opens it, and its failure is a frame.
        format: one for this stream alone.

    Attributes:
        headers: the format's.
    """

    def __init__(self, stream: ChatStream, format: Format) -> None:
        super().__init__(format)
        self._stream = stream
        self._fault: Exception | None = None  # of the format, where no task could be given it

    @property
    def started(self) -> bool:
        """Whether the first delta has come."""
        return self._stream.time_to_first_token is not None

    @property
    def request_id(self) -> str | None:
        """The server's request id, if it sent one."""
        return self._stream.request_id

    async def _start(self) -> None:
        await self._stream.__aenter__()

    async def _step(self) -> list[bytes] | None:
        # Not before what the format begins with has been written.
        at_once = None if self.outlet is None or not self._flows else self._write_now
        batch = await self._stream.read(at_once)
        if self._fault is not None:
            raise self._fault
        return None if batch is None else self._format.take(batch)

    def _write_now(self, batch: ChunkBatch[ChatCompletionChunk]) -> bool:
        outlet = self.outlet
        if outlet is None or not outlet.writable():
            return False
        try:
            payloads = self._format.take(batch)
            if payloads:
                outlet.write_now(frames(payloads))
        except Exception as error:  # noqa: BLE001 - raised where a task takes it
            self._fault = error
            return False
        return True

    async def _last(self) -> list[bytes]:
        completion = await self._stream.completion()
        return self._format.end(completion, self._timing.stats(self._stream))

    async def _leave(self) -> None:
        await self._stream.close()
