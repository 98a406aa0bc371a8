"""An event loop whose time jumps when idle, to test timers without waiting for them."""

import asyncio
import functools
import math
import selectors
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, Final, ParamSpec, TypeVar, TypeVarTuple, Unpack

_T = TypeVar("_T")
_P = ParamSpec("_P")
_Ts = TypeVarTuple("_Ts")

_RESOLUTION: Final = time.get_clock_info("monotonic").resolution
_TASKS_SHOWN: Final = 10


class DeadlockError(RuntimeError):
    """Nothing is ready, no timer is set, no I/O is pending: the loop would wait forever."""


class TimeJumpingLoop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock: when all tasks wait, it jumps to the next timer.

    `loop.time()` starts at 0.0 (seconds) and moves only by such jumps, so what runs between two
    timers takes no time at all, and an hour of `asyncio.sleep` is over at once. Everything that
    asks the loop for the time follows: `asyncio.sleep`, `asyncio.timeout`, `asyncio.wait_for`,
    `loop.call_at`, aiolimiter, and tenacity's waits between attempts. What asks the operating
    system instead (`time.monotonic`, `time.sleep`, tenacity's `stop_after_delay`) does not.

    It is for tests without sockets: pure timers, limiters, the timing of retries. While a socket is
    watched, or a call of `run_in_executor` (`asyncio.to_thread`) runs, it waits in real time,
    because nobody can say how long that would have taken, and the clock goes on as it really does.

    When it would wait forever it raises `DeadlockError`, which names the waiting tasks. A thread
    of yours that means to call `call_soon_threadsafe` later is unknown to it, and does not count.
    """

    def __init__(self) -> None:
        self._selector_of_time = _JumpingSelector(self._describe_tasks)
        super().__init__(self._selector_of_time)
        # What the loop watches for its own sake, to be woken by threads and signals.
        # Counted, not assumed to be one: the number of self-pipes and the like is asyncio's affair.
        self._selector_of_time.own = len(self._selector_of_time.get_map())

    def time(self) -> float:
        """The virtual time in seconds."""
        return self._selector_of_time.now

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[Unpack[_Ts]], _T],
        *args: *_Ts,
    ) -> asyncio.Future[_T]:
        """Run a function in a thread; time does not jump until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._selector_of_time.threads += 1
        # By the callback, not in the thread: it runs on the loop, after the result has arrived
        # there. If the count fell earlier, time could jump between the end of the thread and its
        # result.
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the threads of the default executor, in real time."""
        self._selector_of_time.threads += 1
        try:
            # asyncio joins the threads from a thread of its own, which `run_in_executor` above
            # never sees; without the count the loop would take the wait for a deadlock.
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._selector_of_time.threads -= 1

    def _thread_done(self, future: asyncio.Future[Any]) -> None:
        del future
        self._selector_of_time.threads -= 1

    def _describe_tasks(self) -> str:
        # A set has no order; by name, two runs of a failing test print the same message.
        tasks = sorted(asyncio.all_tasks(self), key=asyncio.Task.get_name)
        lines = [f"  {task!r}" for task in tasks[:_TASKS_SHOWN]]
        if len(tasks) > _TASKS_SHOWN:
            lines.append(f"  and {len(tasks) - _TASKS_SHOWN} more")
        return "\n".join(lines)


class _JumpingSelector(selectors.BaseSelector):
    """The loop's selector and its clock: where the loop would sleep, the clock is moved."""

    def __init__(self, describe_tasks: Callable[[], str]) -> None:
        self.now = 0.0
        self.own = 0
        self.threads = 0
        self._real = selectors.DefaultSelector()
        self._describe_tasks = describe_tasks

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # More than the loop's own sockets: somebody watches one, and its peer lives in real time.
        if self.threads or len(self._real.get_map()) > self.own:
            return self._wait(timeout)
        # Threads and signals may have woken the loop.
        events = self._real.select(0)
        if events:
            return events
        # asyncio passes None if no callback is ready and no timer is set.
        if timeout is None:
            raise DeadlockError(
                "every task waits, and there is no timer and no I/O that could wake one:\n"
                + self._describe_tasks()
            )
        self._pass(max(timeout, 0.0))
        return []

    def _wait(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        start = time.monotonic()
        events = self._real.select(timeout)
        passed = time.monotonic() - start
        if timeout is not None:
            # A selector rounds up; the clock must not pass the next timer, or it would fire late.
            passed = min(passed, timeout) if events else timeout
        self._pass(passed)
        return events

    def _pass(self, seconds: float) -> None:
        self.now += seconds
        if seconds and self.now + _RESOLUTION == self.now:
            # After some months a float has no nanoseconds left, and the loop, which runs the timers
            # that are due *before* now plus its resolution, would never find this one due.
            self.now = math.nextafter(self.now, math.inf)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


def run_with_jumping_time(coro: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """Run a coroutine as `asyncio.run` does, on a loop whose time jumps when it is idle.

    For tests without sockets; see `TimeJumpingLoop`. Inside, `asyncio.get_running_loop().time()` is
    the virtual time, which starts at 0.0.

    Args:
        coro: What to run.
        debug: asyncio's debug mode; by default what the environment says.

    Returns:
        Its result.

    Raises:
        DeadlockError: It waits for something that cannot happen.
    """
    with asyncio.Runner(debug=debug, loop_factory=TimeJumpingLoop) as runner:
        return runner.run(coro)


def jumping_time(test: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, _T]:
    """Make an `async def` test a plain one that runs by `run_with_jumping_time`.

    Any test runner takes it, and pytest sees the test's parameters, so fixtures work (those that
    are async belong to another loop, though)::

        @jumping_time
        async def test_an_hour_is_nothing():
            await asyncio.sleep(3600)
            assert asyncio.get_running_loop().time() == 3600

    Args:
        test: The coroutine function.

    Returns:
        A plain function with its name and parameters.
    """

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return run_with_jumping_time(test(*args, **kwargs))

    return run
