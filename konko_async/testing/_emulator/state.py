"""The emulator's state without I/O: settings, counters, the log, and the queue for slots."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from konko_async._core.loopback import is_loopback
from konko_async.testing._emulator.content.answers import Custom
from konko_async.testing._emulator.content.catalog import catalog
from konko_async.testing._emulator.content.prefill import PREFILLS
from konko_async.testing._emulator.faults import Status
from konko_async.testing._emulator.jobs.settings import BatchSettings
from konko_async.testing._emulator.log import LoggedCall, RequestLog, loop_time
from konko_async.testing._emulator.script import FaultScript
from konko_async.testing._emulator.sliding_window import SlidingLimits
from konko_async.testing.dialects import ServerDialect, dialect_named

AnswerHook: TypeAlias = Callable[[dict[str, Any]], Custom | Awaitable[Custom | None] | None]
"""Given the decoded request body, returns the answer, or an awaitable of it."""

ANY_KEY: Final = "emulator-key"


class EmulatorState:
    """The part of an emulator that does no I/O; `Emulator` documents it."""

    def __init__(
        self,
        *,
        models: Iterable[str | Mapping[str, Any]] | None = None,
        api_keys: Iterable[str] | None = None,
        answer: AnswerHook | None = None,
        answer_tokens: int | None = None,
        latency: float = 0.0,
        tokens_per_second: float | None = None,
        chunk_tokens: int = 1,
        capacity: int | None = None,
        overload: Literal["reject", "queue"] = "reject",
        overload_status: int = 503,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        limit_window: float = 60.0,
        enforce_model_kind: bool = False,
        dialect: str | ServerDialect | None = None,
        prefill: str | None = None,
        strict_history: bool = False,
        batches: BatchSettings | None = None,
        log_limit: int | None = 10_000,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_remote: bool = False,
    ) -> None:
        self._keys = None if api_keys is None else tuple(api_keys)
        if self._keys is not None and (isinstance(api_keys, str) or not all(self._keys)):
            raise ValueError("api_keys must be a collection of strings, none of them empty")
        # Without keys anybody on the network could use the emulator as an open server.
        _check_host(host, allowed=allow_remote and bool(self._keys))
        self._host, self._port = host, port
        for name, value in (("chunk_tokens", chunk_tokens), ("limit_window", limit_window)):
            _check_positive(name, value)
        self.models = catalog(models)
        self.answer = answer
        self.answer_tokens = answer_tokens
        self.latency = latency
        self.tokens_per_second = tokens_per_second
        self.chunk_tokens = chunk_tokens
        self.overload, self.overload_status = overload, overload_status
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self.limit_window = limit_window
        self.enforce_model_kind = enforce_model_kind
        self.dialect, self.prefill = dialect, prefill
        self.strict_history = strict_history
        self.batches = batches or BatchSettings()
        self.in_flight = self.peak_in_flight = self.received = self.rejected = 0
        self._busy = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._limits: dict[tuple[str, str], SlidingLimits] = {}
        self._log: deque[LoggedCall] = deque(maxlen=log_limit)
        self._script = FaultScript()
        self._outage: Status | None = None
        self.closing = False
        self._waiters: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        # Last, as its setter admits queued calls and needs the queue.
        self.capacity = capacity

    @property
    def api_key(self) -> str:
        """A key that is accepted."""
        return self._keys[0] if self._keys else ANY_KEY

    @property
    def dialect(self) -> ServerDialect | None:
        """How chat answers are written; `None` for OpenAI's way."""
        return self._dialect

    @dialect.setter
    def dialect(self, value: str | ServerDialect | None) -> None:
        self._dialect = None if value is None else dialect_named(value)

    @property
    def prefill(self) -> str | None:
        """The server whose way of going on with the beginning of an answer is understood."""
        return self._prefill

    @prefill.setter
    def prefill(self, value: str | None) -> None:
        if value is not None and value not in PREFILLS:
            raise ValueError(f"prefill must be one of {', '.join(PREFILLS)}, not {value!r}")
        self._prefill = value

    @property
    def requests(self) -> RequestLog:
        """The log, oldest first: one frozen record for each request, as it is when looked at."""
        return RequestLog(self._log)

    @property
    def capacity(self) -> int | None:
        """How many calls are served at once; `None` for any number. Changes apply immediately."""
        return self._capacity

    @capacity.setter
    def capacity(self, value: int | None) -> None:
        if value is not None:
            _check_positive("capacity", value)
        self._capacity = value
        self._admit_queued()

    @property
    def queued(self) -> int:
        """How many calls wait for a slot, with `overload="queue"`."""
        return len(self._queue)

    @property
    def outage(self) -> Status | None:
        """The status with which every call fails; a number means `faults.Status(number)`."""
        return self._outage

    @outage.setter
    def outage(self, value: Status | int | None) -> None:
        self._outage = Status(value) if isinstance(value, int) else value

    async def wait_until(
        self,
        condition: Callable[[], object],
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 - a test wants one short line
    ) -> None:
        """Wait until a condition on this emulator is true, checked whenever something happens.

        Args:
            condition: For example `lambda: emulator.in_flight == 3`.
            timeout: Seconds; it ends a test that hangs, and costs one that passes nothing.

        Raises:
            TimeoutError: If it is not true by then.
        """
        if condition():
            return
        waiter = (condition, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter[1]
        finally:
            self._waiters.remove(waiter)

    def changed(self) -> None:
        """Wake the waiters whose condition has come true."""
        # Tested here and not by the waiters: a condition that holds for a moment only, such as
        # `in_flight == 3`, would be over when they run.
        for condition, future in self._waiters:
            if not future.done() and condition():
                future.set_result(None)

    def begin(self, method: str, path: str, headers: Mapping[str, str]) -> LoggedCall:
        """Record the arrival of a request."""
        call = LoggedCall(self.received, method, path, headers, loop_time())
        self.received += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self._log.append(call)
        self.changed()
        return call

    def end(self, call: LoggedCall) -> None:
        """Record the end of a request, however it ended, and free its slot."""
        call.finished = loop_time()
        self.in_flight -= 1
        if call.holds_slot:
            call.holds_slot = False
            self._busy -= 1
            self._admit_queued()
        self.changed()

    def knows_key(self, key: str) -> bool:
        """Whether this key is accepted."""
        return bool(key) and (self._keys is None or key in self._keys)

    async def enter(self, call: LoggedCall) -> bool:
        """Take a concurrency slot for the call.

        Returns:
            Whether there was one; always true when calls queue for it.
        """
        # Not past the queue: a free slot belongs to the call that waits for it.
        if self._capacity is None or (self._busy < self._capacity and not self._queue):
            self._take_place(call)
            return True
        if self.overload == "reject":
            self.rejected += 1
            return False
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(place)
        self.changed()
        try:
            await place
        except asyncio.CancelledError:
            if place in self._queue:
                self._queue.remove(place)
            elif not place.cancelled():
                # The slot had been given to a call that is gone: the next one may have it.
                self._busy -= 1
                self._admit_queued()
            raise
        call.holds_slot = True
        return True

    def _take_place(self, call: LoggedCall) -> None:
        self._busy += 1
        call.holds_slot = True

    def _admit_queued(self) -> None:
        """Give free slots to queued calls, first come first served."""
        while self._queue and (self._capacity is None or self._busy < self._capacity):
            place = self._queue.popleft()
            if not place.done():
                self._busy += 1
                place.set_result(None)

    def limits_of(self, call: LoggedCall) -> SlidingLimits | None:
        """The windows of the call's key and model; `None` while nothing is limited."""
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            return None
        # Per key and model, as providers count; a second key of a test has limits of its own.
        return self._limits.setdefault((call.key, call.model or ""), SlidingLimits())

    def faults_for(self, call: LoggedCall) -> list[Any]:
        """The faults that apply to the call, the outage before all others."""
        found = self._script.take(call) if self._outage is None else [self._outage]
        if found:
            call.faults = tuple(type(fault).__name__ for fault in found)
        return found


def _check_host(host: str, *, allowed: bool) -> None:
    if not allowed and not is_loopback(host):
        message = (
            f"{host!r} is not a loopback address: pass allow_remote=True and api_keys={{...}} too"
        )
        raise ValueError(message)


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name} must be above 0, not {value}")
