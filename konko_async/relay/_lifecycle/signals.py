"""The signal that ends a process, held back until its streams are drained.

Servers stop listening as soon as they get SIGTERM, and notify the application last: uvicorn first
waits for all open connections, forever by default, and ends the lifespan only when the streams that
it should have ended are over. So the signal is taken here first: the streams are drained while the
server runs on, refusing new requests with 503 and ``Retry-After``, and only then gets the signal. A
second signal is passed on at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from konko_async.relay._lifecycle.drain import Drain

__all__ = ["holding_hypercorn", "holding_loop_signals", "holding_signals", "is_hypercorn"]

_log = logging.getLogger("konko_async.relay")
HYPERCORN: Final = "hypercorn.asyncio.run"  # the module that serves
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class _Held:
    """Signals held back until a drain is over; a second one is passed on at once."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._passed_on = False

    def begin(self, pass_on: Callable[[], object]) -> None:
        """Drain, then pass on; at once if that was under way. Called on the loop."""
        # Finished: something else has drained already, such as the handler of a preStop hook.
        if self._task is not None or self._drain.finished:
            self._passed_on = True
            pass_on()
            return
        _log.info("asked to end: draining %d streams", self._drain.active)
        self._task = self._loop.create_task(self._run(pass_on))

    async def _run(self, pass_on: Callable[[], object]) -> None:
        await self._drain.run()
        if not self._passed_on:
            # Not from within the task: what it raises is for the loop.
            self._loop.call_soon(pass_on)


@contextmanager
def holding_signals(drain: Drain) -> Iterator[None]:
    """Hold back SIGTERM and SIGINT where Python functions handle them, as uvicorn's do.

    Does nothing outside the main thread, and leaves unhandled signals alone.

    Args:
        drain: is run first.
    """
    # signal.signal() works in the main thread only; servers in other threads handle no signals.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, held = asyncio.get_running_loop(), _Held(drain)
    with ExitStack() as undo:
        for number in _SIGNALS:
            before = signal.getsignal(number)
            # SIG_DFL and SIG_IGN are not functions: there is no server behind them to pass a signal
            # to.
            if callable(before):
                undo.callback(_restore, number, before, _replace(number, before, loop, held))
        yield


def _replace(
    number: signal.Signals,
    before: Callable[[int, Any], object],
    loop: asyncio.AbstractEventLoop,
    held: _Held,
) -> Any:
    def handle(number: int, frame: Any) -> None:
        # Runs between any two bytecodes of the main thread, maybe in the middle of a change to
        # our state: the decision is left to the loop.
        loop.call_soon_threadsafe(held.begin, lambda: before(number, frame))

    signal.signal(number, handle)
    return handle


def _restore(number: signal.Signals, before: Any, ours: Any) -> None:
    if signal.getsignal(number) is ours:  # else somebody has taken it over
        signal.signal(number, before)


@contextmanager
def holding_loop_signals(
    drain: Drain, end: Callable[[], object] | None = None, *, instead_of: str
) -> Iterator[None]:
    """Hold back signals that the loop handles, as those of ``aiohttp.web.run_app`` are.

    Does nothing if the loop's handlers are of another module, or cannot be looked at: then the
    signal comes first, and the drain with the application's ``on_shutdown``.

    Args:
        drain: is run first.
        end: what the loop's own handler does. Default: that handler is called.
        instead_of: name of the module that this handler comes from.
    """
    loop, held = asyncio.get_running_loop(), _Held(drain)
    # There is no public way to find out who handles a signal. uvloop has no such attribute: there
    # the signal comes first.
    handlers = getattr(loop, "_signal_handlers", None) or {}
    taken = []
    for number in _SIGNALS:
        callback = getattr(handlers.get(number), "_callback", None)
        # Only a handler that is known: ``end`` does not do what any other one does.
        if getattr(callback, "__module__", None) == instead_of:
            own: Any = end or callback
            loop.add_signal_handler(number, held.begin, own)
            taken.append((number, own))
    try:
        yield
    finally:
        for number, before in taken:  # the runner removes them, at the latest
            # Not ``is``: each access to a bound method makes a new object.
            if getattr(handlers.get(number), "_callback", None) == held.begin:
                loop.add_signal_handler(number, before)


@contextmanager
def holding_hypercorn(drain: Drain) -> Iterator[None]:
    """Hold back the signals of a hypercorn that serves in this process (``-w 0``).

    Its worker processes, the default, hear of the end by a flag that only hypercorn looks at, and
    cut what is open after ``graceful_timeout``: then there is a warning.

    Args:
        drain: is run first.
    """
    handlers = getattr(asyncio.get_running_loop(), "_signal_handlers", None) or {}
    callback = getattr(handlers.get(signal.SIGTERM), "_callback", None)
    if getattr(callback, "__module__", None) != HYPERCORN:
        _log.warning(
            "hypercorn's worker processes cut streams --graceful-timeout seconds after SIGTERM, "
            "without a final event: run it with -w 0, one process per core under a supervisor"
        )
        yield
        return
    with holding_loop_signals(drain, instead_of=HYPERCORN):
        yield


def is_hypercorn() -> bool:
    """Whether hypercorn serves this process: it is loaded, and uvicorn's server is not."""
    return HYPERCORN in sys.modules and "uvicorn.server" not in sys.modules
