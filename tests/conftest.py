"""Every test leaves no task, socket or thread behind."""

import asyncio
import gc
import inspect
import os
import signal
import threading

import command_server
import hypothesis_profiles  # noqa: F401 - to be imported is all it has to do
import pytest

# Tests that share a costly thing (a browser, a Redis, a cluster, a built site) stay in one worker, so
# that it is made once. They mostly wait, and the other workers compute meanwhile.
TOGETHER = {
    "tests/web/": "browser",
    "tests/ray/": "ray",
    "tests/redis/": "redis",
    "tests/test_site.py": "site",
    "tests/test_packaging.py": "packaging",
    "tests/test_typing.py": "mypy",
    "tests/local/": "local model",
    "tests/foreign/": "llama.cpp",
    "tests/frameworks/": "frameworks",
    "tests/relay/test_ui_message_sdk.py": "node",
}
# What takes longest begins first, the longest of all before the others: at the end there are only
# short tests left, and no worker waits long for another.
FIRST = (
    "tests/ray/",
    "tests/web/",
    "tests/local/",
    "tests/test_site.py",
    "tests/test_packaging.py",
    "tests/frameworks/",
    "tests/relay/test_ui_message_sdk.py",
    "tests/foreign/",
    # Not with the first: its times would be those of a machine that starts a browser and a cluster.
    "tests/redis/",
    "tests/batch/test_batch_faults.py",
    "tests/test_",
    "tests/soak/",
    "tests/proof/",
    "tests/cli/",
    "tests/batch/",
    # Late, as it is quick with what mypy has found out by then for `make types`, which runs beside.
    "tests/test_typing.py",
)
# Files whose tests are so short that sending them one by one to the workers costs as much, or that
# share what the first of them reads.
WHOLE_FILES = ("tests/unit/", "tests/test_architecture.py")
# Files with functions of which the same holds: all cases of one go to one worker.
WHOLE_FUNCTIONS = ("tests/emulated/", "tests/relay/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config):
    if not config.getoption("cov_source", None):
        command_server.fork_workers(config.args)


def pytest_xdist_make_scheduler(config, log):
    """Spread single tests over the workers; groups and the files of short tests go whole.

    The marks of ``--dist loadgroup`` have no effect with pytest 9.2 and pytest-xdist 3.8: xdist
    writes them into an attribute that items no longer have.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            found = (group for start, group in TOGETHER.items() if nodeid.startswith(start))
            end = "::" if nodeid.startswith(WHOLE_FILES) else "["
            cut = nodeid.startswith(WHOLE_FILES + WHOLE_FUNCTIONS)
            return next(found, nodeid.partition(end)[0] if cut else nodeid)

        def mark_test_complete(self, node, item_index, duration=0):
            super().mark_test_complete(node, item_index, duration)
            # With each test, xdist goes through all that the worker was ever given.
            scope = self._split_scope(self.registered_collections[node][item_index])
            if all(self.assigned_work[node][scope].values()):
                del self.assigned_work[node][scope]

    # As they were collected, see below; by default what has most tests goes first.
    config.option.loadscopereorder = False
    return Grouped(config, log)


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):  # one of several workers of xdist
        items.sort(key=rank)
    for item in items:
        if inspect.iscoroutinefunction(getattr(item, "function", None)):
            # Not autouse: each of the many tests without a loop would get one for it.
            names = item.fixturenames
            names.insert(names.index("nothing_left_behind") + 1, "no_task_left_behind")


def rank(item):
    """The place of a test in the order in which workers begin them."""
    starts = [start for start in FIRST if item.nodeid.startswith(start)]
    return FIRST.index(max(starts, key=len)) if starts else len(FIRST)


def pytest_sessionstart():
    """Nothing that is collected is garbage: looking for it takes a tenth of the time."""
    gc.disable()


def keep_out_of_collections():
    gc.collect()
    gc.freeze()


def pytest_collection_finish():
    """Keep what the imports of all test modules made out of every later collection of garbage.

    It is over a million objects. Tests that count what is kept call the collector hundreds of times.
    """
    keep_out_of_collections()
    gc.enable()


def pytest_runtest_teardown(item, nextitem):
    """The same after each file, as its tests may have imported as much again."""
    if nextitem is None or nextitem.path != item.path:
        keep_out_of_collections()


# aiohttp reads all certificates of the system when it is imported, a fifth of the CPU of what tests
# start in an interpreter of its own. No test calls a server that one of them has signed.
os.environ.setdefault("SSL_CERT_FILE", os.devnull)
os.environ.setdefault("SSL_CERT_DIR", os.devnull)

command_server.install()

# A shell that starts us in the background lets us, and all that we start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _sockets() -> set[str]:
    """The socket inodes this process holds open, from /proc (Linux); empty elsewhere."""
    found = set()
    # With os, and not pathlib: this runs twice for each of thousands of tests.
    try:
        descriptors = os.listdir("/proc/self/fd")  # noqa: PTH208 - see above
    except FileNotFoundError:
        return found
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - see above
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
        # it has told. konko_async: the loop of a blocking client that was collected, and a sync tool
        # that was left behind, end by themselves. AnyIO's end a moment after the task that asked.
        if thread.name.startswith(
            ("asyncio_", "asyncio-waitpid", "ThreadPoolExecutor", "konko_async", "AnyIO worker")
        ):
            thread.join(30)
    assert not {t for t in new_threads if t.is_alive()}, "threads were left behind"
    if _sockets() - sockets:
        gc.collect()
    assert not _sockets() - sockets, "sockets were left behind"


@pytest.fixture
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
