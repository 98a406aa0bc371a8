"""``map()``: thousands of calls at once, with lazy input and bounded memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
)
from typing import Any, Generic, Self, TypeVar, cast

import msgspec

from konko_async._core.graceful_stop import Work, start_work
from konko_async._core.misuse import AsyncIterableOnly, NotAwaitable
from konko_async._core.tasks import Closing, ended
from konko_async._streaming.stream import Stream
from konko_async.errors import ConfigurationError, KonkoError

__all__ = ["MapResult", "MapResults", "check_concurrency", "fan_out"]

R = TypeVar("R")

Requests = Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]
# Default windows, in multiples of the concurrency.
_REORDER = 4
_AHEAD = 2
# Of these, those that the call takes are required in each request.
_NEEDED = frozenset({"model", "messages", "prompt", "input"})


class MapResult(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """What became of one request; one of ``completion`` and ``error`` is None.

    :meth:`unwrap` gives the answer, or raises the error.

    Attributes:
        index: the request's position in the input, from 0.
        request: the arguments, as they were given.
        completion: the answer.
        error: why there is none, with the attempts made.
    """

    index: int
    request: Any
    completion: R | None = None
    error: KonkoError | None = None

    def unwrap(self) -> R:
        """Return the answer, which type checkers then know not to be None.

        Raises:
            KonkoError: ``error``, if there is no answer.
        """
        if self.error is not None:
            raise self.error
        # None only if the call itself returned None, as functions of MapResults.over() may.
        return cast("R", self.completion)


class _MapState(Generic[R]):
    """The running calls and the results that wait; what the feeder and the consumer share.

    Counted as held: a request from the moment it is read until its result is handed on. At most
    ``room`` are held, which bounds memory whatever the length of the input and the speed of the
    consumer.
    """

    __slots__ = (
        "call", "consumer", "fail_fast", "failure", "feed_task", "feeder", "feeding", "held",
        "leaving", "limit", "next", "ordered", "ready", "room", "running", "stopping", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        call: Callable[[Any], Awaitable[R]],
        *,
        limit: int,
        window: int | None,
        ordered: bool,
        fail_fast: bool,
    ) -> None:
        self.call = call
        self.limit = limit
        self.ordered = ordered
        self.room = window or (_REORDER if ordered else _AHEAD) * limit
        self.fail_fast = fail_fast
        self.running: dict[asyncio.Task[None], Work] = {}
        self.ready: deque[MapResult[R]] = deque()
        self.waiting: dict[int, MapResult[R]] = {}  # results ahead of their turn
        self.next = 0
        self.held = 0
        self.feeding = True
        self.stopping = False  # what has sent nothing yet is given back
        self.leaving = False  # cancelled by us: tasks that end so are not a failure
        self.failure: BaseException | None = None
        self.feed_task: asyncio.Task[None] | None = None
        self.feeder: asyncio.Future[None] | None = None  # waits for room
        self.consumer: asyncio.Future[None] | None = None  # waits for a result

    # -- the feeding side ----------------------------------------------------------------------

    async def feed(self, requests: Iterable[Any] | AsyncIterable[Any]) -> None:
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
            await _close_input(requests)

    async def start(self, index: int, request: Any) -> None:
        while len(self.running) >= self.limit or self.held >= self.room:
            self.feeder = asyncio.get_running_loop().create_future()
            await self.feeder
        # Before the task exists: the loop above must not read further while this one is being
        # started.
        self.held += 1
        work = Work()
        work.task = task = asyncio.get_running_loop().create_task(self.run(index, request, work))
        self.running[task] = work
        task.add_done_callback(self.ended)

    async def run(self, index: int, request: Any, work: Work) -> None:
        # Its task was made, but had not run when stop() came: nothing was sent.
        if self.stopping:
            return
        start_work(work)
        try:
            completion = await self.call(request)
        except KonkoError as error:
            result: MapResult[R] = MapResult(index, request, None, error)
        else:
            result = MapResult(index, request, completion, None)
        # What ended() would do in the next iteration of the loop, at a tenth of the cost; it is for
        # tasks that are cancelled or fail.
        # The task's context holds the work: a work that kept the task would be a cycle per request,
        # which the garbage collector would have to find, at a fifth of a row's CPU.
        # A task that starts eagerly (from Python 3.12 on) may get here before it is known.
        task, work.task = work.task, None
        if task is not None and task.remove_done_callback(self.ended):  # pragma: no branch - 3.12
            del self.running[task]
            self.wake_feeder()
        self.deliver(result)

    def ended(self, task: asyncio.Task[None]) -> None:
        work = self.running.pop(task)
        work.task = None
        if task.cancelled():
            # A cancellation that is not ours must not look like the end of the input.
            if not self.leaving and not work.returned:
                self.fail(asyncio.CancelledError("a call of map() was cancelled from elsewhere"))
        elif (error := task.exception()) is not None:
            self.fail(error)  # not one of ours: a fault in somebody's code
        self.wake_feeder()
        if not self.running:
            self.wake_consumer()

    def fail(self, error: BaseException) -> None:
        """Note what will be raised, and read no further: more of the same would follow."""
        self.failure = self.failure or error
        self.stop_feeding()

    def stop_feeding(self) -> None:
        self.feeding = False
        task = self.feed_task
        if task is not None and not task.done():
            task.cancel()
        self.wake_consumer()

    def stop(self) -> None:
        self.stopping = True
        self.stop_feeding()
        for work in self.running.values():
            work.stop()

    # -- the consuming side --------------------------------------------------------------------

    def deliver(self, result: MapResult[R]) -> None:
        if result.error is not None and self.fail_fast:
            self.failure = self.failure or result.error
        elif not self.ordered:
            self.ready.append(result)
        else:
            self.waiting[result.index] = result
            # One late result may free many that wait for it.
            while self.next in self.waiting:
                self.ready.append(self.waiting.pop(self.next))
                self.next += 1
        self.wake_consumer()

    async def take(self) -> MapResult[R] | None:
        """Return the next result, None at the end."""
        while True:
            # Checked before results that are ready: fail_fast means that the first error is the
            # next event.
            if self.failure is not None and self.fail_fast:
                raise self.failure
            if not self.ready and not self.feeding and not self.running:
                self.skip_gaps()
            if self.ready:
                self.held -= 1
                result = self.ready.popleft()
                self.wake_feeder()
                return result
            if not self.running:
                if self.failure is not None:
                    raise self.failure
                if not self.feeding:
                    return None
            # A new future per wait: an Event would have to be cleared between two results.
            self.consumer = asyncio.get_running_loop().create_future()
            await self.consumer

    def skip_gaps(self) -> None:
        """Hand on the ordered results after one that will never come: its call was cancelled."""
        for index in sorted(self.waiting):
            self.ready.append(self.waiting.pop(index))

    def wake_feeder(self) -> None:
        if self.feeder is not None and not self.feeder.done():
            self.feeder.set_result(None)

    def wake_consumer(self) -> None:
        if self.consumer is not None and not self.consumer.done():
            self.consumer.set_result(None)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel what runs; returns the tasks to wait for."""
        self.leaving = True
        self.stop_feeding()
        feeder = [] if self.feed_task is None or self.feed_task.done() else [self.feed_task]
        for task in self.running:
            task.cancel()
        return [*feeder, *self.running]


class MapResults(AsyncIterableOnly, NotAwaitable, Closing, AsyncIterator[MapResult[R]]):
    """The results of a ``map()``: iterate over it; leave it whenever you like.

    Calls start with the first step of the iteration. Leaving early (``break``, an exception,
    ``async with``, :meth:`aclose`, or dropping it) cancels the calls in flight and frees their
    connections. An input that is a generator is closed in the end.
    """

    _await_hint = "use 'async for result in client.chat.completions.map(...):'"

    def __init__(self, state: _MapState[R], requests: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._state = state
        self._requests: Iterable[Any] | AsyncIterable[Any] | None = requests
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def over(
        cls,
        call: Callable[[Any], Awaitable[R]],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        max_concurrency: int = 256,
        ordered: bool = False,
        window: int | None = None,
        fail_fast: bool = False,
    ) -> MapResults[R]:
        """Await ``call(item)`` for each item: what ``map()`` runs on, for functions of your own.

        Args:
            call: a coroutine function. A KonkoError that it raises becomes a result; any other
                exception stops the reading of items and is raised to the consumer, once the
                calls in flight have ended and their results were taken.
            items: anything; read lazily. Each is its result's ``request``.
            max_concurrency: calls in flight at once. Default 256.
            ordered: hand the results on in the order of the items; else as they come.
            window: how many items may have been read whose results have not been taken. Default
                twice ``max_concurrency``, with ``ordered`` four times.
            fail_fast: raise the first error and cancel the rest; else errors are results.

        Raises:
            ConfigurationError: an argument cannot be used.
        """
        limit = check_concurrency(max_concurrency)
        if not isinstance(items, (Iterable, AsyncIterable)):
            raise ConfigurationError(
                f"items must be an iterable or async iterable, not {type(items).__name__}"
            )
        if window is not None and window < limit:
            raise ConfigurationError(
                f"window ({window}) must be at least max_concurrency ({limit})"
            )
        state: _MapState[R] = _MapState(
            call, limit=limit, window=window, ordered=ordered, fail_fast=fail_fast
        )
        return cls(state, items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> MapResult[R]:
        if self._requests is not None:
            self._loop = asyncio.get_running_loop()
            self._state.feed_task = self._loop.create_task(self._state.feed(self._requests))
            self._requests = None
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

    def stop(self) -> None:
        """Read no more input; the calls in flight continue, and their results are handed on.

        Dropped, without a result, are requests for which nothing is on its way: those that wait for
        their turn, for the client's limits, or for their next attempt. An item whose function has
        got an answer already runs to completion. Idempotent.
        """
        if self._requests is not None:
            self._requests = ()
        self._state.stop()

    def cancel(self) -> None:
        """Read no more input and cancel the calls in flight, without waiting for their end.

        Results that are there already are still handed on; then the iteration ends.
        """
        if self._requests is not None:
            self._requests = ()
        self._state.cancel()

    async def aclose(self) -> None:
        """Cancel what is in flight and wait until it has ended; idempotent."""
        self._requests = None
        state = self._state
        tasks = state.cancel()
        state.ready.clear()
        state.waiting.clear()
        await ended(tasks)

    # Dropped without being closed, such as by `break` out of an `async for`: nobody awaits the
    # calls in flight, so they are cancelled.
    def __del__(self) -> None:
        loop, state = self._loop, self._state
        if state.feed_task is None or loop is None or loop.is_closed():
            return
        if state.running or not state.feed_task.done():
            # The collector may run in any thread.
            loop.call_soon_threadsafe(state.cancel)


async def _close_input(requests: Iterable[Any] | AsyncIterable[Any]) -> None:
    """Close a generator that was left before its end: it may hold files."""
    if isinstance(requests, AsyncGenerator):
        await requests.aclose()
    elif isinstance(requests, Generator):
        requests.close()


def check_concurrency(value: object) -> int:
    """Check a ``max_concurrency``.

    Raises:
        ConfigurationError: not an integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"max_concurrency must be an integer of at least 1, not {value!r}")
    return value


def _check_request(request: Any, known: frozenset[str], needed: frozenset[str]) -> None:
    if not isinstance(request, Mapping):
        raise ConfigurationError(
            f"a request must be a dict of create() arguments, not {type(request).__name__}"
        )
    if known.issuperset(request) and needed <= request.keys():
        return
    for name in request:
        if name not in known:
            raise ConfigurationError(
                f"a request has an unknown argument {name!r:.60}; parameters that this client "
                "does not know go into extra_body"
            )
    missing = next(name for name in needed if name not in request)
    raise ConfigurationError(f"a request has no {missing}")


def fan_out(
    call: Callable[..., Awaitable[Any]],
    requests: Requests,
    *,
    known: frozenset[str],
    **options: Any,
) -> MapResults[R]:
    """Make a call, with its items as keywords, for each request; see :meth:`MapResults.over`.

    Args:
        call: a coroutine function that takes the keywords ``known``.
        requests: dicts of arguments.
        known: the keywords that ``call`` takes.
        **options: of :meth:`MapResults.over`.

    Raises:
        ConfigurationError: an argument cannot be used.
    """
    if isinstance(requests, (str, bytes, Mapping)) or not isinstance(
        requests, (Iterable, AsyncIterable)
    ):
        raise ConfigurationError(
            "requests must be an iterable or async iterable of dicts of create() arguments, not "
            f"{type(requests).__name__}"
        )
    needed = known & _NEEDED

    async def one(request: Mapping[str, Any]) -> R:
        _check_request(request, known, needed)
        # A fan-out is batch work by default, so that it does not hold up interactive calls; a
        # request may say otherwise.
        answer = await call(**{"priority": "batch", **request})
        # A request may ask for a stream; its result is whole all the same.
        if isinstance(answer, Stream):
            async with answer:
                whole: R = await answer.completion()
                return whole
        result: R = answer
        return result

    return MapResults.over(one, requests, **options)
