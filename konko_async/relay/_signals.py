"""The signal that ends a process, held back until its streams are drained.

Servers stop listening as soon as they get SIGTERM, and tell the application last: uvicorn waits for
all open connections first, for ever by default, and calls the lifespan's end when the streams are
over that it should have ended. So the signal is taken here first: the streams are drained while the
server goes on, refusing what is new with 503 and ``Retry-After``, and gets the signal then. A
second signal is passed on at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from konko_async.relay._drain import Drain

__all__ = ["holding_loop_signals", "holding_signals"]

_log = logging.getLogger("konko_async.relay")
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class _Held:
    """Signals that wait for a drain; the second one does not."""

    def __init__(self, drain: Drain) -> None:
        self._drain = drain
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._passed_on = False

    def begin(self, pass_on: Callable[[], object]) -> None:
        """Drain, then pass on; at once if that was under way. Called on the loop."""
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

    Does nothing outside the main thread, and leaves signals alone that nobody handles.

    Args:
        drain: is run first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, held = asyncio.get_running_loop(), _Held(drain)
    with ExitStack() as undo:
        for number in _SIGNALS:
            before = signal.getsignal(number)
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
        # Python calls this between any two steps of anything: only the loop may look further.
        loop.call_soon_threadsafe(held.begin, lambda: before(number, frame))

    signal.signal(number, handle)
    return handle


def _restore(number: signal.Signals, before: Any, ours: Any) -> None:
    if signal.getsignal(number) is ours:  # else somebody has taken it over
        signal.signal(number, before)


@contextmanager
def holding_loop_signals(
    drain: Drain, end: Callable[[], object], *, instead_of: str
) -> Iterator[None]:
    """Hold back signals that the loop handles, as those of ``aiohttp.web.run_app`` are.

    Does nothing if the loop's handlers are of another module, or cannot be looked at: then the
    signal comes first, and the drain with the application's ``on_shutdown``.

    Args:
        drain: is run first.
        end: what the loop's own handler does.
        instead_of: name of the module that this handler comes from.
    """
    loop, held = asyncio.get_running_loop(), _Held(drain)
    # There is no public way to ask who handles a signal.
    handlers = getattr(loop, "_signal_handlers", None) or {}
    taken = []
    for number in _SIGNALS:
        callback = getattr(handlers.get(number), "_callback", None)
        if getattr(callback, "__module__", None) == instead_of:
            loop.add_signal_handler(number, held.begin, end)
            taken.append(number)
    try:
        yield
    finally:
        for number in taken:  # the runner removes them, at the latest
            if getattr(handlers.get(number), "_callback", None) == held.begin:
                loop.add_signal_handler(number, end)
