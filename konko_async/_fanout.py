"""Thousands of calls at once: lazy input, bounded memory, errors as results."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import msgspec

from konko_async._stream import Stream
from konko_async.errors import ConfigurationError, KonkoError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["MapResult", "MapResults", "check_concurrency", "fan_out"]

R = TypeVar("R")

Requests = Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]
_REORDER = 4  # default reorder window, in multiples of the concurrency


class MapResult(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """What became of one request; one of ``completion`` and ``error`` is None.

    Attributes:
        index: the request's place in the input, from 0.
        request: the arguments, as they were given.
        completion: the answer.
        error: why there is none, with the attempts made.
    """

    index: int
    request: Mapping[str, Any]
    completion: R | None = None
    error: KonkoError | None = None


class _State(Generic[R]):
    """The running calls and the results that wait; what the feeder and the consumer share.

    Counted as held: a request from the moment it is read until its result is handed on. At most
    ``room`` are held, which bounds memory whatever the length of the input and the speed of the
    consumer.
    """

    __slots__ = (
        "call", "consumer", "fail_fast", "failure", "feeder", "feeding", "held", "limit", "next",
        "ordered", "ready", "room", "running", "waiting", "window",
    )  # fmt: skip

    def __init__(
        self,
        call: Callable[[Mapping[str, Any]], Awaitable[R]],
        *,
        limit: int,
        ordered: bool,
        window: int,
        fail_fast: bool,
    ) -> None:
        self.call = call
        self.limit = limit
        self.ordered = ordered
        self.window = window
        self.room = window if ordered else 2 * limit
        self.fail_fast = fail_fast
        self.running: set[asyncio.Task[None]] = set()
        self.ready: deque[MapResult[R]] = deque()
        self.waiting: dict[int, MapResult[R]] = {}  # results ahead of their turn
        self.next = 0
        self.held = 0
        self.feeding = True
        self.failure: BaseException | None = None
        self.feeder: asyncio.Future[None] | None = None  # waits for room
        self.consumer: asyncio.Future[None] | None = None  # waits for a result

    # -- the feeding side ----------------------------------------------------------------------

    async def feed(self, requests: Requests) -> None:
        """Read the input as far as there is room, and start a call for each request."""
        try:
            if isinstance(requests, AsyncIterable):
                index = 0
                async for request in requests:
                    await self.start(index, request)
                    index += 1
            else:
                for index, request in enumerate(requests):
                    await self.start(index, request)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - the input's own error goes to the consumer
            self.failure = self.failure or error
        finally:
            self.feeding = False
            self.wake_consumer()

    async def start(self, index: int, request: Mapping[str, Any]) -> None:
        while len(self.running) >= self.limit or self.held >= self.room:
            self.feeder = asyncio.get_running_loop().create_future()
            await self.feeder
        self.held += 1
        task = asyncio.get_running_loop().create_task(self.run(index, request))
        self.running.add(task)
        task.add_done_callback(self.ended)

    async def run(self, index: int, request: Mapping[str, Any]) -> None:
        try:
            completion = await self.call(request)
        except KonkoError as error:
            self.deliver(MapResult(index, request, None, error))
        else:
            self.deliver(MapResult(index, request, completion, None))

    def ended(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = self.failure or error  # not one of ours: a fault in somebody's code
        self.wake_feeder()
        if not self.running:
            self.wake_consumer()

    # -- the consuming side --------------------------------------------------------------------

    def deliver(self, result: MapResult[R]) -> None:
        if result.error is not None and self.fail_fast:
            self.failure = self.failure or result.error
        elif not self.ordered:
            self.ready.append(result)
        else:
            self.waiting[result.index] = result
            while self.next in self.waiting:
                self.ready.append(self.waiting.pop(self.next))
                self.next += 1
        self.wake_consumer()

    async def take(self) -> MapResult[R] | None:
        """Return the next result, None at the end."""
        while True:
            if self.failure is not None and (self.fail_fast or not (self.ready or self.running)):
                raise self.failure
            if self.ready:
                self.held -= 1
                result = self.ready.popleft()
                self.wake_feeder()
                return result
            if not self.feeding and not self.running:
                return None
            self.consumer = asyncio.get_running_loop().create_future()
            await self.consumer

    def wake_feeder(self) -> None:
        if self.feeder is not None and not self.feeder.done():
            self.feeder.set_result(None)

    def wake_consumer(self) -> None:
        if self.consumer is not None and not self.consumer.done():
            self.consumer.set_result(None)


class MapResults(AsyncIterator[MapResult[R]]):
    """The results of a ``map()``: iterate over it; leave it whenever you like.

    Calls start with the first step of the iteration. Leaving early (``break``, an exception,
    ``async with``, :meth:`aclose`, or dropping it) cancels the calls in flight and frees their
    connections.
    """

    def __init__(self, state: _State[R], requests: Requests) -> None:
        self._state = state
        self._requests: Requests | None = requests
        self._feeder: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MapResult[R]:
        if self._requests is not None:
            self._loop = asyncio.get_running_loop()
            self._feeder = self._loop.create_task(self._state.feed(self._requests))
            self._requests = None
        if self._feeder is None:
            raise StopAsyncIteration
        try:
            result = await self._state.take()
        except BaseException:
            await self.aclose()
            raise
        if result is None:
            await self.aclose()
            raise StopAsyncIteration
        return result

    @property
    def in_flight(self) -> int:
        """Calls running now."""
        return len(self._state.running)

    async def aclose(self) -> None:
        """Cancel what is in flight and wait until it has let go; idempotent."""
        self._requests = None
        feeder, self._feeder = self._feeder, None
        tasks = _cancel(feeder, self._state)
        if tasks:
            # Its own cancellation must not leave tasks behind.
            await asyncio.shield(asyncio.gather(*tasks, return_exceptions=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        loop, feeder = self._loop, self._feeder
        if feeder is not None and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(_cancel, feeder, self._state)


def _cancel(feeder: asyncio.Task[None] | None, state: _State[Any]) -> list[asyncio.Task[None]]:
    tasks = [task for task in (feeder, *state.running) if task is not None and not task.done()]
    for task in tasks:
        task.cancel()
    return tasks


def check_concurrency(value: object) -> int:
    """Check a ``max_concurrency``.

    Raises:
        ConfigurationError: not an integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"max_concurrency must be an integer of at least 1, not {value!r}")
    return value


def _check_request(request: Any, known: frozenset[str]) -> None:
    if not isinstance(request, Mapping):
        raise ConfigurationError(
            f"a request must be a dict of create() arguments, not {type(request).__name__}"
        )
    for name in request:
        if name not in known:
            raise ConfigurationError(
                f"a request has an unknown argument {name!r:.60}; parameters that this client "
                "does not know go into extra_body"
            )
    for name in known & {"model", "messages", "prompt", "input"}:
        if name not in request:
            raise ConfigurationError(f"a request has no {name}")


def fan_out(
    call: Callable[..., Awaitable[Any]],
    requests: Requests,
    *,
    known: frozenset[str],
    max_concurrency: int,
    ordered: bool,
    window: int | None,
    fail_fast: bool,
) -> MapResults[R]:
    """Make a call for each request.

    Args:
        call: a coroutine function, given each request's items as keywords.
        requests: dicts of arguments; read lazily.
        known: the keywords that ``call`` takes.
        max_concurrency: calls in flight at once.
        ordered: whether results come in the order of the input.
        window: for ordered results, how far calls may run ahead of the oldest unfinished one;
            default four times the concurrency.
        fail_fast: raise the first error instead of handing it on as a result.

    Raises:
        ConfigurationError: an argument cannot be used.
    """
    limit = check_concurrency(max_concurrency)
    if isinstance(requests, (str, bytes, Mapping)) or not isinstance(
        requests, (Iterable, AsyncIterable)
    ):
        raise ConfigurationError(
            "requests must be an iterable or async iterable of dicts of create() arguments, not "
            f"{type(requests).__name__}"
        )
    if window is not None and window < limit:
        raise ConfigurationError(f"window ({window}) must be at least max_concurrency ({limit})")

    async def one(request: Mapping[str, Any]) -> R:
        _check_request(request, known)
        answer = await call(**{"priority": "batch", **request})
        if isinstance(answer, Stream):
            async with answer:
                whole: R = await answer.completion()
                return whole
        result: R = answer
        return result

    state: _State[R] = _State(
        one, limit=limit, ordered=ordered, window=window or _REORDER * limit, fail_fast=fail_fast
    )
    return MapResults(state, requests)
