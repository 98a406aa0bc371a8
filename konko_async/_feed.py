"""A streamed answer to decoded chunks: reading, deadlines, and all the ways a stream may end."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from msgspec import UNSET

from konko_async._accumulate import Accumulator, brings
from konko_async._foreign import FOREIGN, translate
from konko_async._framing import ErrorEvent, Framer
from konko_async._refusals import not_a_stream, sent_error
from konko_async._server_errors import find_error
from konko_async._template import Template
from konko_async._transport import Answer
from konko_async.errors import (
    APIError,
    APITimeoutError,
    KonkoError,
    ResponseDecodeError,
    StreamError,
    StreamStalledError,
    StreamTruncatedError,
)
from konko_async.wire._codec import Codec, decode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from konko_async._pipeline import Call, Request

__all__ = ["Feed"]

C = TypeVar("C")
R = TypeVar("R")

DRAIN = 0.1  # seconds to wait for the body's end after [DONE], so that the connection is reused
GRACE = 5.0  # seconds for usage or [DONE] to follow once every choice has its finish_reason
_LESSONS = 8  # templates in a row that may fit nothing, before no more are tried
_DONE = "[DONE]"
_RAISED = (asyncio.CancelledError, KonkoError, *FOREIGN)  # by a read


class Feed(Generic[C, R]):
    """Reads one streamed answer.

    Attributes:
        ready: chunks that have arrived and wait for the consumer; of a tuple ``build`` makes one.
        accumulated: all that has arrived, put together.
        template: what the tuples in ``ready`` have in common, once there were chunks alike.
        ended: whether the stream has ended well and everything has been read.
    """

    __slots__ = (
        "_answer", "_call", "_codec", "_done", "_failure", "_framer", "_idle", "_lessons",
        "_loop", "_n", "_name", "_on_end", "_read", "_reading", "_silent", "_since", "_strict",
        "_timer", "accumulated", "build", "ended", "ready", "template",
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
        self.ready: deque[Any] = deque()
        self.accumulated = accumulated
        self.ended = False
        self._answer = answer
        self._read = answer.read
        self._call: Call = request.call
        self._name = f"{request.operation.name} ({request.model})"
        self._codec = codec
        self._strict = codec.strict
        self._idle = request.timeout.idle
        self._n = choices
        self._framer = Framer(answer.headers.get("content-type", ""))
        self._lessons = _LESSONS
        self.template: Template | None = None
        self.build: Any = None  # the template's
        self._done = False
        self._failure: KonkoError | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._since: float | None = None  # when the wait for a token began; None: nobody waits
        self._silent = 0.0  # seconds waited since the last token, before the consumer went away
        self._reading = False
        self._on_end: Callable[[str, str | None], object] | None = None

    # -- what the layers above call ------------------------------------------------------------

    async def prime(self) -> None:
        """Read until the first delta has come; only then does the answer count as opened.

        A failure that arrives in one read with the first delta comes after it, as it does when
        the two arrive apart.

        Raises:
            APIError: the stream failed before that; nothing has reached the caller.
        """
        while not self.accumulated.has_delta and await self.fill():
            pass

    def start_deadlines(self, on_end: Callable[[str, str | None], object]) -> None:
        """Watch the idle and total deadlines from now on.

        Args:
            on_end: called once, with the outcome and the name of the error's class or None.
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
        if self._failure is not None:  # also again: a failed stream never looks like an ended one
            raise self._failed()
        if self._reading:
            raise RuntimeError("this stream is already being read by another task")
        self._reading = True
        self._since = self._loop.time() - self._silent
        try:
            while not self.ended:
                if self._done:
                    await self._drain()
                    self._finish("ok")
                    break
                try:
                    data = await self._read()
                except _RAISED as error:
                    data = self._lost(error)
                if data:
                    self._take(data)
                elif self._failure is None:
                    self._at_end()
                if self.ready:
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
        return StreamTruncatedError(
            f"the stream was cut: {cause.message}", request_id=self._answer.request_id
        )

    def _take(self, data: bytes) -> None:
        framer = self._framer
        try:
            payloads = framer.feed(data)
            if not payloads and framer.refused:
                self._at_end()
        except ResponseDecodeError as error:
            self._failure = error
            return
        if payloads:
            framer.confirm()
            if type(payloads[0]) is tuple:
                self._take_items(payloads)
            else:
                self._decode(payloads)

    def _take_items(self, items: list[Any]) -> None:
        """Take in chunks that are as the template says; nobody may ever ask for them as chunks."""
        text = items[0][0] if len(items) == 1 else "".join([text for text, _ in items])
        self.ready.extend(items)
        self.accumulated.add_text(self.template.index, text)  # type: ignore[union-attr]  # its items
        self._lessons = _LESSONS
        if text:
            self._since, self._silent = None, 0.0

    def _decode(self, payloads: list[Any]) -> None:
        """Decode payloads, in order; what follows the end or a fault is not looked at."""
        place = self._decode_plain(payloads)
        while place < len(payloads):
            self._decode_odd(payloads[place])
            if self._done or self._failure is not None:
                return
            place += 1
            if place < len(payloads):
                place += self._decode_plain(islice(payloads, place, None))

    def _decode_plain(self, payloads: Iterable[Any]) -> int:
        """Decode as long as nothing is special; return how many payloads that were."""
        chunks: list[Any] = []
        strict = self._strict
        try:
            for payload in payloads:
                chunk: Any = strict(payload)
                if chunk.error is not UNSET or not chunk.choices:
                    break
                chunk._raw = payload  # noqa: SLF001 - the slot of Wire
                chunks.append(chunk)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            pass  # TypeError: an ErrorEvent, as msgspec reads no subclass of str
        if chunks:
            self.accumulated.add(chunks)
            self.ready.extend(chunks)
            if any(map(brings, chunks)):
                self._since, self._silent = None, 0.0
            if self._lessons:
                self._learn(chunks[-1])
        return len(chunks)

    def _learn(self, chunk: Any) -> None:
        """Expect more chunks like this one. All items made by the last template are gone by now."""
        delta = getattr(chunk.choices[0], "delta", None)
        if delta is None or not delta.content:
            return
        self._lessons -= 1
        template = Template.learn(chunk._raw, chunk)  # noqa: SLF001 - the slot of Wire
        if template is not None:
            self._framer.template = self.template = template
            self.build = template.build

    def _decode_odd(self, payload: Any) -> None:
        """Decode a payload that is the end, an error, or in need of the forgiving way."""
        if isinstance(payload, ErrorEvent):
            self._fail_by_server(str(payload))
            return
        text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else payload
        if text.strip() == _DONE:
            self._done = True
            self._check_choices()
            return
        try:
            value = decode_json(payload)
            if find_error(value) is not None:
                self._fail_by_server(text, value)
                return
            chunk: Any = self._codec.decode(payload)
        except ResponseDecodeError as error:
            self._failure = error
            return
        self.accumulated.add([chunk])
        self.ready.append(chunk)
        if brings(chunk):
            self._since, self._silent = None, 0.0

    # -- ends and failures ---------------------------------------------------------------------

    def _at_end(self) -> None:
        """The body has ended: well, cut short, or it never was a stream."""
        if self._done or self.accumulated.finished(self._n) or self._framer.said_done:
            self._done = True
            self._check_choices()
        elif not self._framer.is_stream:
            self._failure = not_a_stream(self._framer.head or b"", self._answer)
        else:
            self._failure = StreamTruncatedError(
                "the stream ended without [DONE] and without a finish_reason",
                request_id=self._answer.request_id,
            )

    def _check_choices(self) -> None:
        if not self.accumulated.has_choices:
            self._failure = StreamTruncatedError(
                "the stream said [DONE] without a single choice", request_id=self._answer.request_id
            )

    def _fail_by_server(self, text: str, value: Any = None) -> None:
        delivered = self.accumulated.has_delta
        self._failure = sent_error(text, value, self._answer, delivered=delivered)

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

    async def _drain(self) -> None:
        """Read what follows [DONE], 0.1 s at most: undrained connections are not reused."""
        if self._answer.at_eof:
            return
        try:
            async with asyncio.timeout(DRAIN):
                while await self._answer.read():
                    pass
        except (TimeoutError, KonkoError, *FOREIGN):
            pass

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
            on_end(outcome, type(self._failure).__name__ if outcome == "error" else None)

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
            self._failure = error
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
