"""From a coroutine to an exit code: the event loop, signals and errors of every command."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from konko_async.cli._output import is_terminal, report
from konko_async.errors import ConfigurationError, KonkoError

__all__ = ["on_interrupt", "on_terminate", "run"]

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
# The code by which shells report a process that a signal has ended.
_TERMINATED = 128 + signal.SIGTERM
_terminators: list[Callable[[], object]] = []  # the innermost comes last


def run(
    work: Coroutine[Any, Any, int], *, debug: bool = False, terminated: int = _TERMINATED
) -> int:
    """Run a command's coroutine, on uvloop where it is installed.

    Args:
        work: returns the exit code.
        debug: whether errors are shown with their traceback.
        terminated: the exit code after SIGTERM.

    Returns:
        The exit code; all that the coroutine held has been let go by then.
    """
    # Runner, not run(): it takes the loop of uvloop on Python 3.11, too.
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            return runner.run(_until_terminated(work, terminated))
        except KonkoError as error:
            report(error, debug=debug)
            return _USAGE if isinstance(error, ConfigurationError) else _FAILED
        except KeyboardInterrupt:
            if is_terminal(sys.stderr):  # leave the line on which the terminal wrote ^C
                sys.stderr.write("\n")
            return _INTERRUPTED


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    # uvloop does not exist for Windows; elsewhere it comes with the extra `speed`.
    if sys.platform == "win32" or find_spec("uvloop") is None:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    return factory


async def _until_terminated(work: Coroutine[Any, Any, int], code: int) -> int:
    """Cancel ``work`` on SIGTERM, so that it cleans up: the default action would not let it."""
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def terminate() -> None:
        # A command with an orderly end of its own, such as a batch, is not cancelled.
        if _terminators:
            _terminators[-1]()
            return
        received.append(signal.SIGTERM)
        task.cancel()

    with contextlib.suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await task
    except asyncio.CancelledError:
        # Else it is Ctrl-C, which the runner turns into a KeyboardInterrupt.
        if received:
            return code
        raise


@contextlib.contextmanager
def on_interrupt(callback: Callable[[], object]) -> Iterator[None]:
    """Within the block, Ctrl-C calls ``callback`` on the running loop and does nothing else."""
    loop = asyncio.get_running_loop()
    # Not loop.add_signal_handler: its removal would put Python's default in the place of the
    # runner's own handler.
    previous = signal.signal(signal.SIGINT, lambda *_: loop.call_soon_threadsafe(callback))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def on_terminate(callback: Callable[[], object]) -> Iterator[None]:
    """Within the block, SIGTERM calls ``callback`` on the running loop, and cancels nothing."""
    _terminators.append(callback)
    try:
        yield
    finally:
        _terminators.remove(callback)
