"""Reads a streamed answer: its deadlines, its failures, and the ways in which it may end."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from konko_async._core.deadline import earliest
from konko_async._http.map_exceptions import FOREIGN, translate
from konko_async._streaming.stream_errors import ended_early
from konko_async.errors import (
    APIError,
    APITimeoutError,
    KonkoError,
    StreamError,
    StreamStalledError,
)
from konko_async.wire._base import Received

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from konko_async._core.pipeline import Request, Response
    from konko_async._http.session import OpenResponse
    from konko_async._streaming.accumulate import Accumulator
    from konko_async._streaming.chunk_decoder import ChunkDecoder

__all__ = ["StreamReader"]

C = TypeVar("C")
R = TypeVar("R")

_DRAIN = 0.1  # seconds for what follows [DONE]: undrained connections are not reused
_RAISED = (KonkoError, *FOREIGN)  # by a read


class StreamReader(Generic[C, R]):
    """Reads one streamed answer from its head on.

    It owns the answer's deadlines and reports its end, once, by :meth:`Response.finish`.

    Args:
        request: the attempt's.
        answer: its head has arrived.
        response: what the layers above hold of the answer.
        decoder: takes what arrives, and keeps what it makes of it.
        first_token_due: ``loop.time()`` by which the first delta must have come, or None.

    Attributes:
        decoder: holds the chunks that have arrived.
        ended: whether everything has been read, or the answer was given up.
        outlives_cancellation: whether a reader that is cancelled while it waits leaves the stream
            open, as somebody else (an ``async with`` block) will surely close it.
    """

    __slots__ = (
        "_answer", "_call", "_first_token_due", "_idle", "_left", "_loop", "_name", "_opened_at",
        "_read", "_reading", "_response", "_silent", "_since", "_timer", "decoder", "ended",
        "outlives_cancellation",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        answer: OpenResponse,
        response: Response,
        decoder: ChunkDecoder[C, R],
        *,
        first_token_due: float | None,
    ) -> None:
        self.decoder = decoder
        self.ended = False
        self.outlives_cancellation = False
        self._answer = answer
        self._read = answer.read
        self._response: Response | None = response
        self._call = request.call
        self._name = f"{request.operation.name} ({request.model})"
        self._idle = request.timeout.idle
        self._first_token_due = first_token_due
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._reading = False
        self._left = False  # whether chunks were given to fill_or()'s caller, who left them
        self._since: float | None = None  # when the wait for a token began; None: nobody waits
        self._silent = 0.0  # seconds waited since the last token, before the consumer went away
        self._timer: asyncio.TimerHandle | None = None
        self._arm(self._opened_at)

    @property
    def accumulated(self) -> Accumulator[C, R]:
        """All that has arrived, put together."""
        return self.decoder.accumulated

    @property
    def answer(self) -> OpenResponse:
        """The answer whose body is read."""
        return self._answer

    def received(self) -> Received:
        """Return the answer's head, as whole answers keep it."""
        return Received(None, self._answer.headers, self._answer.redactor)

    async def fill(self) -> bool:  # noqa: C901, PLR0912 - one frame per read; more would cost each token
        """Read until there is a chunk in ``decoder.ready``; False at the end of the stream.

        Raises:
            APIError: the stream failed; what had arrived is in its ``partial``.
        """
        decoder = self.decoder
        if decoder.splitter.waiting and decoder.take(None):
            self._silent, decoder.brought = 0.0, False
            return True
        if decoder.failure is not None:  # also again: a failed stream never looks like an ended one
            raise self._failed()
        if self._reading:
            raise RuntimeError("this stream is already being read by another task")
        self._reading = True
        self._since = self._loop.time() - self._silent
        try:
            while not self.ended:
                if decoder.done:
                    await self._drain()
                    self._finish("ok")
                else:
                    try:
                        data = await self._read()
                    except _RAISED as error:
                        data = self._lost(error)
                    if decoder.take_alike(data) or (
                        decoder.take(data) if data else self._left or self._end()
                    ):
                        return True
                    data = b""  # it may repeat a key, and a traceback may show this frame's locals
                if decoder.failure is not None:
                    raise self._failed()
        except asyncio.CancelledError as error:
            self._cancelled(error)
            raise
        finally:
            self._reading = False
            if decoder.brought:
                self._silent = 0.0
                decoder.brought = False
            else:
                self._silent = self._loop.time() - self._since
            self._since = None
        return False

    async def fill_or(self, at_once: Callable[[], bool]) -> bool:
        """Do what :meth:`fill` does, where there is nothing in ``decoder.ready``.

        Args:
            at_once: called when chunks alike have come while this waits; whether it has taken them,
                so that this waits on.
        """
        read = self._read
        self._read = self._tapped(at_once)
        try:
            return await self.fill()
        finally:
            self._read, self._left = read, False

    def _tapped(self, at_once: Callable[[], bool]) -> Callable[[], Awaitable[bytes]]:
        """Return what reads, and gives chunks alike to ``at_once`` in the moment they come."""
        read: Callable[[], Awaitable[bytes]] = self._read
        if read is not self._answer.read:  # watched
            return read
        decoder, clock = self.decoder, self._loop.time

        def take(data: bytes) -> bytes | None:
            if not decoder.take_alike(data):
                return data
            if decoder.brought:
                decoder.brought = False
                self._since = clock()
            self._left = not at_once()
            return b"" if self._left else None

        reading: Callable[[], Awaitable[bytes]] = self._answer.reading(take)
        return reading

    def watch(self, before_read: Callable[[float], object]) -> None:
        """Call ``before_read(when)`` before each read from now on, and at the end of the answer.

        What had arrived by then is in ``decoder.chunks``.

        Args:
            before_read: given the ``loop.time()`` at which the last read returned.
        """
        read, clock = self._read, self._loop.time
        when = clock()

        async def watched() -> bytes:
            nonlocal when
            before_read(when)
            data: bytes = await read()
            when = clock()
            return data

        self._read = watched
        if self._response is not None:
            self._response.on_close(lambda _: before_read(when))

    def close(self, outcome: str = "closed") -> None:
        """Stop reading; idempotent. What has arrived stays in ``accumulated``.

        Args:
            outcome: how the answer ended, if it was not complete.
        """
        decoder = self.decoder
        decoder.take_waiting()  # it has arrived as well, and may be the end
        complete = decoder.done or decoder.finished
        if not complete and not self.ended and decoder.failure is None:
            decoder.failure = StreamError("the stream was closed before its end")
        self._finish("ok" if complete else outcome)

    # -- ends and failures ---------------------------------------------------------------------

    @property
    def _is_framed(self) -> bool:
        """Whether HTTP says where the body ends, so that a cut one cannot look complete."""
        headers = self._answer.headers
        return "content-length" in headers or "chunked" in headers.get("transfer-encoding", "")

    def _end(self) -> bool:
        return self.decoder.end(whole=self._is_framed)

    def _cancelled(self, error: asyncio.CancelledError) -> None:
        """Let go of the connection as a cancellation passes through.

        Whoever holds the task or its exception holds the stream as well, so that the garbage
        collector may come late or never.
        """
        error.add_note(f"konko_async: {self._name} was waiting for the next token")
        if not self.outlives_cancellation:
            self.close("cancelled")

    async def _drain(self) -> None:
        """Read what follows ``[DONE]``; an error that comes so late is one all the same."""
        answer = self._answer
        if answer.at_eof:
            return
        try:
            async with asyncio.timeout(_DRAIN):
                while data := await self._read():
                    self.decoder.take(data)
        except (TimeoutError, *_RAISED):
            pass

    def _lost(self, error: BaseException) -> bytes:
        """Return what had arrived before a read failed; once that is taken, end the stream."""
        left = self._answer.leftover()
        if left:
            return left  # the next read fails again
        # No [DONE] came, but where every choice had ended, silence is an end as well.
        if not (isinstance(error, StreamStalledError) and self.decoder.finished):
            self.decoder.end(cut=self._broken(translate(error, self._answer.host)))
        return b""

    def _broken(self, cause: KonkoError) -> KonkoError:
        if isinstance(cause, (StreamError, APITimeoutError)):
            return copy.copy(cause)  # this one has been raised, and holds frames
        if not self.accumulated.has_delta:
            return cause
        return ended_early(f"was cut: {cause.message}", self._answer)

    def _failed(self) -> KonkoError:
        """End the stream by its failure; return that, with all that had arrived, to be raised."""
        failure = self.decoder.failure
        assert failure is not None  # noqa: S101 - the callers looked
        self._finish("error")
        if isinstance(failure, APIError):
            failure.request_id = failure.request_id or self._answer.request_id
            if self.accumulated.has_delta and failure.partial is None:
                partial: Any = self.accumulated.result()
                if partial is not None:  # None where bytes are handed on
                    partial.request_id = failure.request_id
                failure.partial = partial
        failure.attempts = tuple(self._call.attempts)
        if isinstance(failure, APIError) and not failure.headers:
            failure.headers = {name.lower(): value for name, value in self._answer.headers.items()}
        return self._answer.redactor.error(copy.copy(failure))

    def _finish(self, outcome: str) -> None:
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        response, self._response = self._response, None
        if response is None:
            return
        answer, decoder = self._answer, self.decoder
        if answer.at_eof or (decoder.done and answer.received_all):
            answer.release()
        else:
            answer.abort()
        error_type = type(decoder.failure).__name__ if outcome == "error" else None
        response.finish(outcome, self.accumulated.usage, error_type)

    # -- deadlines -----------------------------------------------------------------------------
    # One timer per stream, re-armed only when it fires: arming one per token would cost more than
    # decoding the token. So it is armed for the earliest time at which any deadline may pass.

    def _arm(self, now: float) -> None:
        due, since = self._call.deadline, self._since
        if not self.accumulated.has_delta:
            due = earliest(due, self._first_token_due)
            since = None  # the idle deadline begins with the first delta
        if self._idle is not None:
            due = earliest(due, (now if since is None else since) + self._idle)
        if due is not None:
            self._timer = self._loop.call_at(due, self._check)

    def _check(self) -> None:
        self._timer = None
        decoder = self.decoder
        if self.ended or decoder.done or decoder.failure is not None:
            return
        now = self._loop.time()
        error = self._expired(now)
        if error is None:
            self._arm(now)
        elif self._reading:
            self._answer.interrupt(error)
        else:
            self._fail_late(error)

    def _fail_late(self, error: APIError) -> None:
        """End a stream whose time is over while nobody reads; what has come may tell of its own."""
        self.decoder.take_waiting()
        self.decoder.failure = self.decoder.failure or error
        self._finish("error")

    def _expired(self, now: float) -> APIError | None:
        deadline, idle = self._call.deadline, self._idle
        if deadline is not None and now >= deadline:
            total = deadline - self._call.started
            return APITimeoutError(
                f"the call took longer than its total timeout of {total:g} s", phase="total"
            )
        if not self.accumulated.has_delta:
            due = self._first_token_due
            if due is None or now < due:
                return None
            return APITimeoutError(
                f"no first token came within {now - self._opened_at:.3g} s after the answer's head",
                phase="first_token",
            )
        # A consumer that takes its time is not a silent server.
        if idle is not None and self._since is not None and now - self._since >= idle:
            return StreamStalledError(f"no token came for {idle:g} s")
        return None
