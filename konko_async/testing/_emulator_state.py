"""What an emulator knows: its settings, its counters, its log, who waits for a place."""

import asyncio
import ipaddress
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from konko_async.testing._emulator_answers import Custom
from konko_async.testing._emulator_catalog import catalog
from konko_async.testing._emulator_faults import Status
from konko_async.testing._emulator_log import Call, RequestLog
from konko_async.testing._emulator_script import Script
from konko_async.testing._emulator_window import Limits

AnswerHook: TypeAlias = Callable[[dict[str, Any]], Custom | Awaitable[Custom]]
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
        log_limit: int | None = 10_000,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_remote: bool = False,
    ) -> None:
        self._keys = None if api_keys is None else tuple(api_keys)
        if self._keys is not None and (isinstance(api_keys, str) or not all(self._keys)):
            raise ValueError("api_keys must be a collection of strings, none of them empty")
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
        self.overload = overload
        self.overload_status = overload_status
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self.limit_window = limit_window
        self.enforce_model_kind = enforce_model_kind
        self.in_flight = self.peak_in_flight = self.received = self.rejected = 0
        self._busy = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._limits: dict[tuple[str, str], Limits] = {}
        self._log: deque[Call] = deque(maxlen=log_limit)
        self._script = Script()
        self._outage: Status | None = None
        self.closing = False
        self._waiters: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        self.capacity = capacity

    @property
    def api_key(self) -> str:
        """A key that is accepted."""
        return self._keys[0] if self._keys else ANY_KEY

    @property
    def requests(self) -> RequestLog:
        """The log, oldest first: one frozen record for each request, as it is when looked at."""
        return RequestLog(self._log)

    @property
    def capacity(self) -> int | None:
        """How many calls are served at once; `None` for any number. A change holds at once."""
        return self._capacity

    @capacity.setter
    def capacity(self, value: int | None) -> None:
        if value is not None:
            _check_positive("capacity", value)
        self._capacity = value
        self._admit_queued()

    @property
    def queued(self) -> int:
        """How many calls wait for a place, with `overload="queue"`."""
        return len(self._queue)

    @property
    def outage(self) -> Status | None:
        """While set, every call fails with it. A number is taken as `faults.Status(number)`."""
        return self._outage

    @outage.setter
    def outage(self, value: Status | int | None) -> None:
        self._outage = Status(value) if isinstance(value, int) else value

    async def wait_until(
        self,
        condition: Callable[[], object],
        *,
        timeout: float = 5.0,  # noqa: ASYNC109 - a test wants one short line
    ) -> None:
        """Wait until a condition on this emulator is true, checked whenever something happens.

        Args:
            condition: For example `lambda: emulator.in_flight == 3`.
            timeout: Seconds.

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
        """Let those whose condition has come true go on."""
        for condition, future in self._waiters:
            if not future.done() and condition():
                future.set_result(None)

    def begin(self, method: str, path: str, headers: Mapping[str, str]) -> Call:
        """Note the arrival of a request."""
        call = Call(self.received, method, path, headers, time.monotonic())
        self.received += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self._log.append(call)
        self.changed()
        return call

    def end(self, call: Call) -> None:
        """Note the end of a request, whatever it was."""
        call.finished = time.monotonic()
        self.in_flight -= 1
        if call.holds_slot:
            call.holds_slot = False
            self._busy -= 1
            self._admit_queued()
        self.changed()

    def knows_key(self, key: str) -> bool:
        """Whether this key is accepted."""
        return bool(key) and (self._keys is None or key in self._keys)

    async def enter(self, call: Call) -> bool:
        """Take a place for the call.

        Returns:
            Whether there was one; always true when calls queue for it.
        """
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
                # The place had been given to a call that is gone: the next one may have it.
                self._busy -= 1
                self._admit_queued()
            raise
        call.holds_slot = True
        return True

    def _take_place(self, call: Call) -> None:
        self._busy += 1
        call.holds_slot = True

    def _admit_queued(self) -> None:
        """Give free places to those who wait, first come first served."""
        while self._queue and (self._capacity is None or self._busy < self._capacity):
            place = self._queue.popleft()
            if not place.done():
                self._busy += 1
                place.set_result(None)

    def limits_of(self, call: Call) -> Limits | None:
        """The windows of the call's key and model; `None` while nothing is limited."""
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            return None
        return self._limits.setdefault((call.key, call.model or ""), Limits())

    def faults_for(self, call: Call) -> list[Any]:
        """The faults that apply to the call, the outage before all others."""
        found = self._script.take(call) if self._outage is None else [self._outage]
        if found:
            call.faults = tuple(type(fault).__name__ for fault in found)
        return found


def _check_host(host: str, *, allowed: bool) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not allowed:
        message = (
            f"{host!r} is not a loopback address: pass allow_remote=True and api_keys={{...}} too"
        )
        raise ValueError(message)


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name} must be above 0, not {value}")
