"""Sends the requests of a load: back to back with some concurrency, or at a rate."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Final

import msgspec

from konko_async import AsyncKonko, ConfigurationError
from konko_async.bench._arrivals import arrivals
from konko_async.bench._call import BenchCaller
from konko_async.bench._plan import Plan
from konko_async.bench._prompts import Prompt, RandomPrompts
from konko_async.bench._record import RequestTimes
from konko_async.bench._result import BenchResult, result_of
from konko_async.bench._watch import ProcessWatch

__all__ = ["BenchProgress", "run_bench"]

# Latest answers whose median time to first token the progress shows: enough not to jump about.
_RECENT: Final = 256
_INPUT_TOKENS: Final = 256  # of a random prompt, where the caller brings none


class BenchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run, for a display of its progress.

    Attributes:
        warming_up: whether these requests are not counted yet.
        elapsed: seconds since it began.
        requests: to be sent; None if a duration ends it.
        duration: seconds in which they are begun; None if their number ends it.
        completed: answers so far.
        failed: requests that failed so far.
        in_flight: requests being answered.
        chunks: received so far.
        ttft: median time to first token of the latest answers, in seconds; None: none came.
    """

    warming_up: bool
    elapsed: float
    requests: int | None
    duration: float | None
    completed: int
    failed: int
    in_flight: int
    chunks: int
    ttft: float | None


async def run_bench(
    client: AsyncKonko,
    plan: Plan,
    *,
    prompts: Iterator[Prompt] | None = None,
    on_progress: Callable[[BenchProgress], object] | None = None,
    progress_interval: float = 0.5,
    stop: asyncio.Event | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> BenchResult:
    """Measure a server under one load.

    Retries, hedges, fallbacks, the circuit breaker and all local limits are off, whatever the
    client was given: a benchmark has to show what fails.

    Args:
        client: whose server, key and connections are used.
        plan: the load.
        prompts: what to ask; it must not end before the requests do. Default: random words, 256.
        on_progress: given the state now and then.
        progress_interval: seconds between two states. Default 0.5.
        stop: when set, requests in flight are cancelled, and the result covers those before.
        clock: seconds; a test may give the loop's.

    Returns:
        The result. Requests that failed are in it, and in none of its latencies.

    Raises:
        ConfigurationError: a request could not be sent at all.
    """
    source = RandomPrompts(_INPUT_TOKENS, seed=plan.seed) if prompts is None else prompts
    run = _BenchRun(BenchCaller(client, plan, clock), plan, source, clock)

    def tell() -> None:
        if on_progress is not None:
            on_progress(run.progress())

    # Set and started here for a run that is stopped while it warms up, and again after that: what
    # the warm-up cost is not counted.
    watch = ProcessWatch(clock, tell, progress_interval)
    began_at = time.time()
    watch.start()
    async with _beside(watch.run()), _stoppable(run, stop):
        await run.warm_up()
        began_at = time.time()
        watch.start()
        run.start()
        await run.drive()
    # Before anything is summarised: that would count as CPU of the measurement.
    cost = watch.stop(run.chunks)
    tell()
    return result_of(
        plan,
        run.measured(),
        base_url=client.base_url,
        started_at=began_at,
        duration=run.duration(),
        peak_in_flight=run.peak,
        interrupted=run.stopped,
        cancelled=run.cancelled,
        client=cost,
    )


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run a coroutine as long as the block lasts."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        # Not `await task`: its CancelledError could not be told from one that cancels us.
        await asyncio.wait([task])
    if not task.cancelled():
        task.result()  # raises what the user's on_progress raised


@contextlib.asynccontextmanager
async def _stoppable(run: _BenchRun, stop: asyncio.Event | None) -> AsyncIterator[None]:
    """Leave the block when the event is set."""
    owner = asyncio.current_task()
    assert owner is not None  # noqa: S101 - this is a coroutine

    # Cancels the task that drives the run, as that is what ends the requests in flight.
    async def wait() -> None:
        assert stop is not None  # noqa: S101 - else nobody waits
        await stop.wait()
        run.stopped = True
        owner.cancel()

    if stop is None:
        yield
        return
    try:
        async with _beside(wait()):
            yield
    except asyncio.CancelledError:
        # Our own cancel() is taken back; one by somebody else on top of it goes on.
        if not run.stopped or owner.uncancel():
            raise
    else:
        if run.stopped:  # it was set as the last request ended
            owner.uncancel()


class _BenchRun:
    """The state of one run: its requests, and their results."""

    def __init__(
        self, caller: BenchCaller, plan: Plan, prompts: Iterator[Prompt], clock: Callable[[], float]
    ) -> None:
        self._caller, self._plan, self._prompts, self._clock = caller, plan, prompts, clock
        self._recent: deque[float] = deque(maxlen=_RECENT)
        caller.on_first = self._recent.append
        self._zero = clock()
        self._chunks_before = 0
        self._left = plan.requests
        self._warming_up = False
        self.records: list[RequestTimes] = []
        self.in_flight = self.peak = self.failed = self.cancelled = 0
        self.stopped = False

    @property
    def chunks(self) -> int:
        """Chunks received in the measured part."""
        return self._caller.chunks - self._chunks_before

    def measured(self) -> tuple[RequestTimes, ...]:
        """Return what counts: nothing, if it was stopped while it warmed up."""
        return () if self._warming_up else tuple(self.records)

    def start(self) -> None:
        """Begin to measure: what was before does not count."""
        self._zero = self._clock()
        self._chunks_before = self._caller.chunks
        self._recent.clear()
        self.records.clear()
        self.failed = self.peak = self.cancelled = 0
        self._left = self._plan.requests
        self._warming_up = False

    def duration(self) -> float:
        """Seconds from the beginning to the end of the last request, or to now if stopped."""
        if self.stopped or not self.records:
            return self._clock() - self._zero
        return max(record.ended for record in self.records)

    async def warm_up(self) -> None:
        """Send the requests that do not count, as many at once as the run will."""
        if self._plan.warmup:
            self._warming_up = True
            self._left = self._plan.warmup
            await self._lanes(min(self._plan.concurrency or self._plan.warmup, self._plan.warmup))

    async def drive(self) -> None:
        """Send all requests and wait for their answers.

        Raises:
            ConfigurationError: a request could not be sent at all.
        """
        plan = self._plan
        if plan.paced:
            await self._at_rate()
        else:
            await self._lanes(plan.concurrency or plan.requests or 1)

    async def _lanes(self, number: int) -> None:
        # Not more tasks than requests: a concurrency of 10,000 for ten requests makes ten.
        number = min(number, number if self._left is None else self._left)
        async with _group() as group:
            for _ in range(number):
                group.create_task(self._lane())

    async def _lane(self) -> None:
        while self._left is None or self._left > 0:
            if not self._warming_up and self._over(self._now()):
                return
            if self._left is not None:
                self._left -= 1  # before the await, so that no two lanes take the last one
            await self._one(next(self._prompts), None)

    async def _at_rate(self) -> None:
        plan = self._plan
        places = asyncio.Semaphore(plan.concurrency) if plan.concurrency else None
        times = arrivals(plan.request_rate, plan.burstiness, number=plan.requests, seed=plan.seed)
        async with _group() as group:
            for due in times:
                # By the schedule, not by the clock: how late this client is must not change the
                # number of requests.
                if self._over(due):
                    return
                # Made before the wait, so that drawing its words delays no departure.
                prompt = next(self._prompts)
                if (delay := due - self._now()) > 0:
                    await asyncio.sleep(delay)
                # Waits for a slot in a task of its own. Waiting here would delay the later
                # arrivals, too, and hide a slow server (coordinated omission).
                group.create_task(self._when_free(places, prompt, due))

    async def _when_free(
        self, places: asyncio.Semaphore | None, prompt: Prompt, due: float
    ) -> None:
        async with places or contextlib.nullcontext():
            await self._one(prompt, due)

    async def _one(self, prompt: Prompt, due: float | None) -> None:
        # Counted by hand: the client's own figures would include calls of other users.
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            record = await self._caller.send(prompt, self._zero, due)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
        self.records.append(record)
        self.failed += not record.ok

    def _now(self) -> float:
        return self._clock() - self._zero

    def _over(self, seconds: float) -> bool:
        return self._plan.duration is not None and seconds >= self._plan.duration

    def progress(self) -> BenchProgress:
        """Return the state."""
        plan, recent = self._plan, sorted(self._recent)
        return BenchProgress(
            warming_up=self._warming_up,
            elapsed=self._now(),
            requests=plan.warmup if self._warming_up else plan.requests,
            duration=None if self._warming_up else plan.duration,
            completed=len(self.records) - self.failed,
            failed=self.failed,
            in_flight=self.in_flight,
            chunks=self.chunks,
            ttft=recent[len(recent) // 2] if recent else None,
        )


@contextlib.asynccontextmanager
async def _group() -> AsyncIterator[asyncio.TaskGroup]:
    """A TaskGroup that raises a wrong configuration as itself, once."""
    wrong: ConfigurationError | None = None
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except* ConfigurationError as found:
        wrong = next(_leaves(found))
    if wrong is not None:
        # Outside of except*, which would put it into a group again.
        raise wrong


def _leaves(group: BaseExceptionGroup[ConfigurationError]) -> Iterator[ConfigurationError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
