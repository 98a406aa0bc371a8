"""Runs the workers of a batch as actors of a Ray cluster."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import Callable
from typing import Any, Final

from konko_async.batch import BatchError, Worker, WorkerLostError
from konko_async.errors import ConfigurationError, KonkoError
from konko_async.integrations._ray_import import ray, start_ray

__all__ = ["RayWorkers"]

# Seconds for an actor to start: a cluster may have to make room, or a node, for it first.
_PATIENCE: Final = 60.0
Message = tuple[Any, ...]


class _Actor:
    """Runs a worker; messages come in calls, and leave as answers to calls that wait for them."""

    def __init__(self) -> None:
        self._out: list[Message] = []
        self._some = asyncio.Event()
        self._worker = Worker(self._send)

    def _send(self, message: Message) -> None:
        self._out.append(message)
        self._some.set()

    async def tell(self, messages: bytes) -> None:
        """Take in messages of the run."""
        self._worker.hear(pickle.loads(messages))  # noqa: S301 - Ray carries pickles anyway

    async def listen(self) -> bytes:
        """Return messages for the run, once there are some."""
        await self._some.wait()
        await asyncio.sleep(0)  # one iteration more, for what is sent together with the first
        self._some.clear()
        out, self._out = self._out, []
        return pickle.dumps(out, pickle.HIGHEST_PROTOCOL)


class _Link:
    """One actor, seen from the run."""

    def __init__(
        self, actor: Any, heard: Callable[[list[Message]], None], lost: Callable[[str], None]
    ) -> None:
        self._actor = actor
        self._heard = heard
        self._lost = lost
        self._out: list[Message] = []
        self._some = asyncio.Event()
        self._closed = False
        self._tasks = [
            asyncio.ensure_future(self._guard(work)) for work in (self._tell, self._listen)
        ]

    def send(self, message: Message) -> None:
        """Send a message, with those that wait."""
        self._out.append(message)
        self._some.set()

    async def _tell(self) -> None:
        # One call at a time: an async actor does not keep the order of several.
        while True:
            await self._some.wait()
            self._some.clear()
            out, self._out = self._out, []
            await self._actor.tell.remote(pickle.dumps(out, pickle.HIGHEST_PROTOCOL))

    async def _listen(self) -> None:
        while True:
            told = await self._actor.listen.remote()
            self._heard(pickle.loads(told))  # noqa: S301 - pickled by our own driver

    async def _guard(self, work: Callable[[], Any]) -> None:
        try:
            await work()
        except ray.exceptions.RayError as error:
            if not self._closed:
                self._closed = True
                self._lost(type(error).__name__)

    async def close(self) -> None:
        """Kill the actor: what it had in flight is cut off."""
        self._closed = True
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._actor)
        # Called from a task of its own when the actor was lost: a task cannot wait for itself.
        me = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not me]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


class RayWorkers:
    """Workers of :func:`~konko_async.batch.run_batch` that are actors of a Ray cluster.

    The run itself (input, limits, output, journal) stays in this process, with the same files as
    ever: an actor or a node that dies costs what it had in flight. The client's keys go to the
    actors over Ray's connections, which are encrypted only with ``RAY_USE_TLS``.

    Connects to the cluster of ``RAY_ADDRESS``, or of ``ray.init()`` if that was called; else it
    starts one on this machine.

    Args:
        count: how many actors. Default: one per CPU of the cluster.
        num_cpus: that each reserves. Default 0, so that it never waits for one.

    Raises:
        ConfigurationError: not a number of at least 1.
    """

    def __init__(self, count: int | None = None, *, num_cpus: float = 0.0) -> None:
        if count is not None and (type(count) is not int or count < 1):
            raise ConfigurationError(
                f"RayWorkers: count must be an integer of at least 1, not {count!r}"
            )
        self._count = count
        self._num_cpus = num_cpus

    @property
    def count(self) -> int:
        """How many actors there are to be."""
        if self._count is None:
            start_ray()
            self._count = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        return self._count

    async def start(
        self, heard: Callable[[list[Message]], None], lost: Callable[[str], None]
    ) -> _Link:
        """Start an actor; see :class:`~konko_async.batch.Workers`."""
        start_ray()
        # Two calls wait at the same time; a third may be the health check of a later version.
        options = {
            "num_cpus": self._num_cpus,
            # An actor that Ray restarted would have forgotten its work; a loss is to be reported.
            "max_restarts": 0,
            "max_concurrency": 8,
            "scheduling_strategy": "SPREAD",
        }
        actor = ray.remote(_Actor).options(**options).remote()
        try:
            async with asyncio.timeout(_PATIENCE):
                # An empty message returns once the actor runs; until then it may only be queued.
                await actor.tell.remote(pickle.dumps([]))
        except TimeoutError:
            failure: KonkoError = BatchError(
                f"an actor did not start within {_PATIENCE:.0f} s (is there room for it?)"
            )
        except ray.exceptions.RayError as error:
            failure = WorkerLostError(f"an actor died while it started: {type(error).__name__}")
        else:
            return _Link(actor, heard, lost)
        ray.kill(actor)
        raise failure
