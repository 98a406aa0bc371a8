"""Every test leaves no task, socket or thread behind."""

import asyncio
import gc
import signal
import threading
from pathlib import Path

import pytest

# A shell that starts us in the background lets us, and all that we start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _sockets() -> set[str]:
    """The socket inodes this process holds open, from /proc (Linux); empty elsewhere."""
    found = set()
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        return found
    for descriptor in descriptors.iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Fail a test after which a thread or a socket is left (the loop's own are closed by then)."""
    threads, sockets = set(threading.enumerate()), _sockets()
    yield
    new_threads = {t for t in threading.enumerate() if t not in threads and t.is_alive()}
    for thread in new_threads:
        # asyncio-waitpid: on 3.11 a subprocess is waited for in a thread, which ends a moment after
        # it has told.
        if thread.name.startswith(("asyncio_", "asyncio-waitpid", "ThreadPoolExecutor")):
            thread.join(5)
    assert not {t for t in new_threads if t.is_alive()}, "threads were left behind"
    if _sockets() - sockets:
        gc.collect()
    assert not _sockets() - sockets, "sockets were left behind"


@pytest.fixture(autouse=True)
async def no_task_left_behind(nothing_left_behind):
    """Fail a test that leaves a task running on its loop.

    Asks for the other fixture so that the loop is closed, with its executor, before that one looks.
    """
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in left:
        task.cancel()
    assert not left, f"tasks were left behind: {left}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    """No key or base URL of the person who runs the tests gets into them."""
    for name in ("KONKO_API_KEY", "KONKO_BASE_URL", "KONKO_API_BASE", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
