"""An event loop in a thread of its own, which other threads wait for."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from konko_async.errors import KonkoError

__all__ = ["Caller", "Home", "Portal"]

_JOIN: Final = 10.0  # seconds that closing, a fork or the interpreter's exit wait for the thread
_CLOSED = "this client is closed"
# A lock that is waited for without a timeout cannot be interrupted by Ctrl-C on Windows.
_POLL: Final = 0.1 if sys.platform == "win32" else -1


class Caller:
    """The thread that waits for a call, as the call sees it: it can run functions there.

    Users' functions and iterators are run where they were handed over: they may block, and may
    belong to that thread, as connections of sqlite3 do.
    """

    def __init__(self) -> None:
        self.posts: deque[tuple[asyncio.Future[Any] | None, Callable[..., Any], tuple[Any, ...]]]
        self.posts = deque()
        self.waiting: _Job | None = None

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function in the caller's thread, the next time that it waits, and await it."""
        future = asyncio.get_running_loop().create_future()
        self._post(future, function, args)
        return await future

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Run a function in the caller's thread; what it raises ends the call."""
        self._post(None, function, args)

    def _post(self, future: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.posts.append((future, function, args))
        # Nobody waits between two steps of an iteration: the next step begins with the posts.
        if self.waiting is not None:
            self.waiting.wake()

    def serve(self) -> None:
        """Run what was posted; in the caller's thread."""
        while self.posts:
            future, function, args = self.posts.popleft()
            if future is None:
                function(*args)
                continue
            loop = future.get_loop()
            try:
                value = function(*args)
            except StopIteration as error:  # a future cannot carry one
                loop.call_soon_threadsafe(_settle, future, None, RuntimeError(repr(error)))
            except Exception as error:  # noqa: BLE001 - raised where the function was needed
                loop.call_soon_threadsafe(_settle, future, None, error)
            else:
                loop.call_soon_threadsafe(_settle, future, value, None)


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():  # the waiting call was cancelled
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


class _Job:
    """One call on its way: begun by the loop's thread, awaited by another."""

    __slots__ = (
        "_args", "_context", "_function", "_kwargs", "_lock", "_task", "caller", "done", "error",
        "home", "value",
    )  # fmt: skip

    def __init__(
        self,
        home: Home,
        caller: Caller | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.home = home
        self.caller = caller
        self._function, self._args, self._kwargs = function, args, kwargs
        # The caller's, so that its trace context and the like hold inside the call.
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None
        # Bare, as a Future of concurrent.futures costs twice as much as all the rest.
        self._lock = threading.Lock()
        self._lock.acquire()

    # -- in the loop's thread ------------------------------------------------------------------

    def start(self) -> None:
        if self.done:  # given up before it began
            return
        try:
            value = self._context.run(self._function, *self._args, **self._kwargs)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self.finish(None, error)
            return
        # What can be iterated over as well is left to the caller to decide on.
        if hasattr(value, "__await__") and not (
            hasattr(value, "__anext__") or hasattr(value, "following")
        ):
            self._task = self.home.loop.create_task(self._run(value), context=self._context)
        else:
            self.finish(value, None)

    async def _run(self, awaitable: Awaitable[Any]) -> None:
        try:
            value = await awaitable
        # BaseException: a SystemExit that left a task would end the loop and all other calls.
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            self.finish(None, error)
        else:
            self.finish(value, None)

    def finish(self, value: Any, error: BaseException | None) -> None:
        self.home.jobs.discard(self)
        if not self.done:
            self.value, self.error, self.done = value, error, True
            self.wake()

    def wake(self) -> None:
        # Only this thread releases, so nothing comes between the question and the answer.
        if self._lock.locked():
            self._lock.release()

    def cancel(self) -> None:
        if self._task is None:
            self.finish(None, asyncio.CancelledError())
        elif not self._task.done():
            self._task.cancel()

    # -- in the caller's thread ----------------------------------------------------------------

    def wait(self) -> Any:
        """Wait until the call is done; return its value, or raise what it raised."""
        try:
            self._wait()
        except BaseException:
            # Ctrl-C, or what a function of the user's raised: the call ends with its caller.
            self._give_up()
            raise
        error, self.error = self.error, None
        try:
            if error is None:
                return self.value
            if isinstance(error, asyncio.CancelledError):
                raise KonkoError("the client was closed during this call") from None
            raise error
        finally:
            del error  # it holds this frame, which would hold it

    def _wait(self) -> None:
        caller = self.caller
        if caller is not None:
            caller.waiting = self
        try:
            while True:
                if caller is not None and caller.posts:
                    caller.serve()
                if self.home.lost:
                    raise KonkoError("the process was forked by a function of this call")
                if self.done:
                    return
                self._lock.acquire(timeout=_POLL)
        finally:
            if caller is not None:
                caller.waiting = None

    def _give_up(self) -> None:
        if self.home.lost or self.home.ended:
            return
        try:
            self.home.loop.call_soon_threadsafe(self.cancel)
        except RuntimeError:  # the loop was closed in this moment, and all tasks before it
            return
        # The end of the call is waited for, so that its connection is closed by then. A second
        # Ctrl-C is not caught, and ends the wait.
        while not self.done:
            self._lock.acquire(timeout=_POLL)
        close = getattr(self.value, "aclose", None) or getattr(self.value, "close", None)
        if self.error is None and close is not None:
            self.home.submit(close)  # it was there just before: nobody else has it


class Home:
    """The loop and its thread. The thread knows no portal, which can therefore be collected."""

    def __init__(self, closers: list[Callable[[], Awaitable[Any]]]) -> None:
        self.loop = asyncio.new_event_loop()
        self.closers = closers
        self.jobs: set[_Job] = set()
        self.held: weakref.WeakSet[Any] = weakref.WeakSet()  # streams and the like, to be closed
        self.lost = False  # left behind by a fork
        self.ended = False
        self._parked = False
        self._ending: asyncio.Task[None] | None = None
        self._exiting = False
        self._start()

    def _start(self) -> None:
        # A daemon, as Python waits for others before it runs what atexit knows.
        self.thread = threading.Thread(target=self._main, name="konko_async", daemon=True)
        self.thread.start()
        _homes.add(self)

    def _main(self) -> None:
        while True:
            try:
                self.loop.run_forever()
            except BaseException as error:  # noqa: BLE001 - a SystemExit of somebody's task
                for job in tuple(self.jobs):
                    job.finish(None, error)
                continue
            if self.ended or self._parked:
                break
        if self.ended:
            self.loop.close()
            _homes.discard(self)

    def submit(self, function: Callable[[], Any]) -> None:
        """Run something, awaitable or not, without waiting for it; nothing if it has ended.

        Without a lock: the garbage collector calls it, in any thread.
        """
        if self.lost or self.ended:
            return
        job = _Job(self, None, function, (), {})
        self.jobs.add(job)
        try:
            self.loop.call_soon_threadsafe(job.start)
        except RuntimeError:  # closed in this moment
            return

    # -- the end -------------------------------------------------------------------------------

    def end(self, *, wait: bool, exiting: bool = False) -> None:
        """Close what there is and end the thread; called once.

        Args:
            wait: whether to return only when it has ended. False where the garbage collector
                calls: it may do so in any thread, the loop's included.
            exiting: whether the interpreter is ending, and no thread can be started any more.
        """
        self.loop.call_soon_threadsafe(self._begin_end, exiting)
        if wait and threading.current_thread() is not self.thread:
            self.thread.join(_JOIN)

    def _begin_end(self, exiting: bool) -> None:
        self._exiting = self._exiting or exiting
        # The garbage collector may have begun it before the interpreter's exit does: two of them
        # would cancel and wait for each other.
        if self._ending is None:
            self._ending = self.loop.create_task(self._end())

    async def _end(self) -> None:
        loop = self.loop
        held = [each.closer for each in self.held]
        try:
            for close in (*held, *self.closers):
                try:
                    await close()
                except Exception as error:  # noqa: BLE001 - the others are closed as well
                    loop.call_exception_handler({"message": "closing failed", "exception": error})
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await loop.shutdown_asyncgens()
            if not self._exiting:  # its threads have ended by then, and this would start another
                await loop.shutdown_default_executor()
        finally:
            self.ended = True
            loop.stop()

    # -- forks ---------------------------------------------------------------------------------

    def park(self) -> None:
        """Stop the thread, not the loop: a fork of one thread leaves nothing half done."""
        if self.ended or threading.current_thread() is self.thread:
            return
        self._parked = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(_JOIN)
        if self.thread.is_alive():  # a function that blocks the loop; it goes on by itself
            self._parked = False

    def unpark(self) -> None:
        """Go on after a fork, in the process that forked."""
        if self._parked:
            self._parked = False
            self._start()

    def lose(self) -> None:
        """Give up what belongs to the process that forked; in the new one.

        The loop's selector is shared with that process, and closing the loop would change it.
        """
        self.lost = True
        for each in (self, *self.held):
            _never_collect(each)


_homes: set[Home] = set()
_portals: weakref.WeakSet[Portal] = weakref.WeakSet()


class Portal:
    """Makes calls on a loop in a thread of its own, started by the first of them.

    Args:
        closers: coroutine functions that the end awaits, such as a client's ``close``.
    """

    def __init__(self, closers: Iterable[Callable[[], Awaitable[Any]]] = ()) -> None:
        self._closers = list(closers)
        self._lock = threading.Lock()
        self._home: Home | None = None
        self._finalizer: Any = None
        self.closed = False
        _portals.add(self)

    @property
    def home(self) -> Home | None:
        """Which loop it is: another one after a fork, or after a restart."""
        return self._home

    def call(
        self, caller: Caller | None, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Call a function in the loop's thread; wait for what it returns, if that is awaitable.

        Args:
            caller: whom the call hands functions to, if any.
            function: called with the rest of the arguments.
            *args: its arguments.
            **kwargs: its keywords.

        Raises:
            KonkoError: closed, or called by the loop's own thread, which would wait for itself.
            BaseException: what the function raised.
        """
        with self._lock:  # nothing is sent to a loop that has begun to end
            home = self._home
            if home is None:
                home = self._begin()
            if home.thread is threading.current_thread():
                raise KonkoError(
                    "a blocking call was made in the client's own event loop (by a middleware, an "
                    "observer, or a tool with run_in_thread=False), where it would wait for "
                    "itself: await the same method of AsyncKonko there"
                )
            job = _Job(home, caller, function, args, kwargs)
            home.jobs.add(job)
            home.loop.call_soon_threadsafe(job.start)
        return job.wait()

    def end(self, *, final: bool = True) -> None:
        """Close all and end the thread; idempotent.

        Args:
            final: whether later calls are refused; else the next one starts another loop.
        """
        with self._lock:
            home, self._home = self._home, None
            self.closed = self.closed or final
            if self._finalizer is not None:
                self._finalizer.detach()
        if home is not None:
            home.end(wait=True)

    def _begin(self) -> Home:
        if self.closed:
            raise KonkoError(_CLOSED)
        self._home = home = Home(self._closers)
        self._finalizer = weakref.finalize(self, home.end, wait=False)
        self._finalizer.atexit = False  # _exit() waits for the end, which this would not
        return home

    def forget(self) -> None:
        """Start anew at the next call, in a process that was made by a fork."""
        self._lock = threading.Lock()  # a thread that is not here may have held it
        self._home = None
        if self._finalizer is not None:
            self._finalizer.detach()


def _never_collect(value: object) -> None:
    """Keep an object forever: its finalizers would act on what another process uses."""
    import ctypes  # noqa: PLC0415 - after a fork only

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


def _before_fork() -> None:
    for home in tuple(_homes):
        home.park()


def _after_fork_in_parent() -> None:
    for home in tuple(_homes):
        home.unpark()


def _after_fork_in_child() -> None:
    for home in tuple(_homes):
        home.lose()
    _homes.clear()
    for portal in tuple(_portals):
        portal.forget()


def _exit() -> None:
    for home in tuple(_homes):
        if not home.ended:
            home.end(wait=True, exiting=True)


atexit.register(_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
