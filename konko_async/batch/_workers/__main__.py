"""``python -m konko_async.batch._workers``: a worker process. Its pipe is standard input."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from importlib import import_module
from typing import Any, Final

from konko_async.batch._workers.subprocess import Pipe
from konko_async.batch._workers.worker import Worker

__all__ = ["main"]

_YOUNG: Final = 10_000  # new objects after which the collector looks; by default 700


def _pipe() -> socket.socket:
    """Take the pipe away from standard input, which is for nobody to read."""
    descriptor = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return socket.socket(fileno=descriptor)


def _gone() -> None:
    """End at once: the run has ended, or died. Nothing here is worth a clean-up."""
    os._exit(0)


def _collect_seldom() -> None:
    """Have the garbage collector look less often: calls in flight are no garbage, and many."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])


async def _serve() -> None:
    # heard() needs the worker, which needs the pipe, which needs heard().
    worker: Worker
    loop = asyncio.get_running_loop()
    begun = False

    def heard(messages: list[tuple[Any, ...]]) -> None:
        nonlocal begun
        worker.hear(messages)
        if not begun:  # the first is the hello, which loads the client
            begun = True
            _collect_seldom()

    pipe = Pipe(heard, _gone)
    worker = Worker(pipe.send)
    await loop.create_unix_connection(lambda: pipe, sock=_pipe())
    # Never done: _gone() ends the process.
    await loop.create_future()


def main(loop_module: str) -> None:
    """Serve until the other end hangs up, on the kind of loop that the run has."""
    try:
        # uvloop has such a function; for asyncio's own loops it is
        # None, and the Runner makes the default.
        factory = getattr(import_module(loop_module), "new_event_loop", None)
    except ImportError:
        factory = None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main(sys.argv[1])
