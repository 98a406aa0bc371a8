"""Reading a streamed answer: deadlines, failures, and all the ways in which it may end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from konko_async._arrivals import Arrivals
from konko_async._foreign import FOREIGN, translate
from konko_async._refusals import ended_early
from konko_async.errors import (
    APIError,
    APITimeoutError,
    KonkoError,
    StreamError,
    StreamStalledError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from konko_async._accumulate import Accumulator
    from konko_async._pipeline import Call, Request
    from konko_async._transport import Answer
    from konko_async.wire import Usage
    from konko_async.wire._codec import Codec

__all__ = ["Feed"]

C = TypeVar("C")
R = TypeVar("R")

GRACE = 5.0  # seconds for usage or [DONE] to follow once every choice has its finish_reason
_RAISED = (asyncio.CancelledError, KonkoError, *FOREIGN)  # by a read


class Feed(Arrivals[C, R]):
    """Reads one streamed answer.

    Attributes:
        ended: whether the stream has ended well and everything has been read.
    """

    __slots__ = (
        "_call", "_idle", "_loop", "_name", "_on_end", "_read", "_reading", "_timer", "ended",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        answer: Answer,
        codec: Codec[C],
        accumulated: Accumulator[C, R],
        *,
        choices: int,
    ) -> None:
        super().__init__(answer, codec, accumulated, choices=choices)
        self.ended = False
        self._read = answer.read
        self._call: Call = request.call
        self._name = f"{request.operation.name} ({request.model})"
        self._idle = request.timeout.idle
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._reading = False
        self._on_end: Callable[[str, Usage | None, str | None], object] | None = None

    # -- what the layers above call ------------------------------------------------------------

    def start_deadlines(self, on_end: Callable[[str, Usage | None, str | None], object]) -> None:
        """Watch the idle and total deadlines from now on.

        Args:
            on_end: called once, with the outcome, the usage as far as known, and the name of the
                error's class or None.
        """
        self._on_end = on_end
        if self.ended:
            self._finish("ok")
        else:
            self._arm()

    async def fill(self) -> bool:  # noqa: C901 - one frame per read; more would cost each token
        """Read until there is a chunk in ``ready``; False at the end of the stream.

        Raises:
            APIError: the stream failed; what had arrived is in its ``partial``.
        """
        if self._framer.waiting:
            self._take(None)
            if self.ready:
                return True
        if self._failure is not None:  # also again: a failed stream never looks like an ended one
            raise self._failed()
        if self._reading:
            raise RuntimeError("this stream is already being read by another task")
        self._reading = True
        self._since = self._loop.time() - self._silent
        try:
            while not self.ended:
                if self._done:
                    await self._answer.drain()
                    self._finish("ok")
                    break
                try:
                    data = await self._read()
                except _RAISED as error:
                    data = self._lost(error)
                if self._came_alike(data) or self._came(data):
                    return True
                if self._failure is not None:
                    raise self._failed()
            return False
        finally:
            self._reading = False
            if self._since is not None:
                self._silent, self._since = self._loop.time() - self._since, None

    def close(self, outcome: str = "closed") -> None:
        """Stop reading; idempotent. What has arrived stays in ``accumulated``."""
        self._take_waiting()  # it has arrived as well, and may be the end
        complete = self._done or self.accumulated.finished(self._n)
        if not complete and not self.ended and self._failure is None:
            self._failure = StreamError("the stream was closed before its end")
        self._finish("ok" if complete else outcome)

    # -- reading -------------------------------------------------------------------------------

    def _lost(self, error: BaseException) -> bytes:
        """Return what had arrived before a read failed; once that is taken, note the failure."""
        if isinstance(error, asyncio.CancelledError):
            error.add_note(f"konko_async: {self._name} was waiting for the next token")
            raise error
        left = self._answer.leftover()
        if left:
            return left  # the next read fails again
        if self._failure is None and not self.accumulated.finished(self._n):
            # A KonkoError was put there by a deadline.
            self._failure = self._broken(translate(error, self._answer.host))
        # Else nothing that matters was lost: every choice had its finish_reason.
        return b""

    def _broken(self, cause: KonkoError) -> KonkoError:
        if isinstance(cause, (StreamError, APITimeoutError)):
            return cause
        if not self.accumulated.has_delta:
            return cause
        return ended_early(f"was cut: {cause.message}", self._answer)

    # -- ends and failures ---------------------------------------------------------------------

    def _failed(self) -> KonkoError:
        """End the stream by its failure and return it, with all that had arrived."""
        failure = self._failure
        assert failure is not None  # noqa: S101 - the callers looked
        self._finish("error")
        if isinstance(failure, APIError):
            failure.request_id = failure.request_id or self._answer.request_id
            if self.accumulated.has_delta and failure.partial is None:
                partial: Any = self.accumulated.result()
                partial.request_id = failure.request_id
                failure.partial = partial
        failure.attempts = tuple(self._call.attempts)
        return failure

    def _finish(self, outcome: str) -> None:
        if not self.ended:
            self.ended = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._answer.at_eof or (self._done and self._answer.received_all):
                self._answer.release()
            else:
                self._answer.abort()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            error_type = type(self._failure).__name__ if outcome == "error" else None
            on_end(outcome, self.accumulated.usage, error_type)

    # -- deadlines -----------------------------------------------------------------------------
    # One timer per stream, re-armed only when it fires: arming one per token would cost more than
    # decoding the token.

    def _arm(self) -> None:
        now = self._loop.time()
        due = self._next_deadline(now)
        if due is not None:
            self._timer = self._loop.call_at(due, self._check)

    def _next_deadline(self, now: float) -> float | None:
        dues = [] if self._call.deadline is None else [self._call.deadline]
        idle = self._patience()
        if idle is not None:
            dues.append((now if self._since is None else self._since) + idle)
            dues.append(now + GRACE)  # patience is less once every choice has ended
        return min(dues, default=None)

    def _patience(self) -> float | None:
        if self._idle is not None and self.accumulated.finished(self._n):
            return min(self._idle, GRACE)
        return self._idle

    def _check(self) -> None:
        self._timer = None
        if self.ended or self._done or self._failure is not None:
            return
        now = self._loop.time()
        error = self._expired(now)
        if error is None:
            self._arm()
        elif self._reading:
            self._answer.interrupt(error)
        else:
            self._fail_late(error)

    def _fail_late(self, error: APIError) -> None:
        """End a stream whose time is over while nobody reads; what has come may tell of its own."""
        self._take_waiting()
        self._failure = self._failure or error
        self._finish("error")

    def _expired(self, now: float) -> APIError | None:
        deadline, idle = self._call.deadline, self._patience()
        if deadline is not None and now >= deadline:
            total = deadline - self._call.started
            return APITimeoutError(
                f"the call took longer than its total timeout of {total:g} s", phase="total"
            )
        # A consumer that takes its time is not a silent server.
        if idle is not None and self._since is not None and now - self._since >= idle:
            return StreamStalledError(f"no token came for {idle:g} s")
        return None
