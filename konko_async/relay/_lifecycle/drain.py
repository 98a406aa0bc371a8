"""Graceful shutdown: refuse what is new, let streams finish, then end those that are left."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from konko_async.errors import ConfigurationError
from konko_async.relay._errors import RefusalError

if TYPE_CHECKING:
    from konko_async.relay._service import RelayService
    from konko_async.relay._streams.source import Source

__all__ = ["Drain"]

_log = logging.getLogger("konko_async.relay")

# Seconds for readers to take the final events: the 5 s by which ``seconds`` has to stay below the
# time until the process is killed.
_FINAL: Final = 5.0


class Drain:
    """Ends an application's streams when it is shut down.

    From :meth:`start` on new calls are refused with 503 and ``Retry-After``. Streams that are being
    read may finish for ``seconds``; each of those that are left then gets the final event of its
    format that says so, and ends. The adapters' ``lifespan()`` and ``drained()`` call :meth:`run`
    when the process gets its signal to end; it may be called at any other moment, too.

    Args:
        seconds: that streams may continue. Below the time that the process is given until it is
            killed, by 5 s or more: Kubernetes gives 30, systemd 90, Docker 10. Default 20.
        retry_after: seconds, for those that are refused: by then another process answers here.
            Default 5.

    Attributes:
        draining: whether it has begun.

    Raises:
        ConfigurationError: not a number of seconds.
    """

    __slots__ = (
        "_final", "_live", "_nothing", "_services", "_task", "draining", "retry_after", "seconds",
    )  # fmt: skip

    def __init__(self, seconds: float = 20.0, *, retry_after: float = 5.0) -> None:
        for value in (seconds, retry_after):
            given: Any = value
            number = isinstance(given, (int, float)) and not isinstance(given, bool)
            if not number or not 0 <= value < math.inf:
                raise ConfigurationError("Drain: seconds and retry_after must be numbers from 0 on")
        self.seconds = seconds
        self.retry_after = retry_after
        self.draining = False
        self._final = False
        self._live: set[Source] = set()
        self._services: list[RelayService] = []
        self._nothing = asyncio.Event()
        self._nothing.set()
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> int:
        """How many streams are being read, those of the services included."""
        return len(self._live) + sum(len(service.live) for service in self._services)

    @property
    def finished(self) -> bool:
        """Whether :meth:`run` has finished."""
        return self._task is not None and self._task.done()

    def add(self, service: RelayService) -> None:
        """Drain a relay's service as well; it is closed in the end."""
        if service not in self._services:
            self._services.append(service)
        # A service that was closed by itself stays so, and one that is added late drains at once.
        service.draining = service.draining or self.draining
        service.retry_after = self.retry_after

    def check(self) -> None:
        """Refuse a new call while it drains.

        Raises:
            RefusalError: 503, with ``retry_after``; it is draining.
        """
        if self.draining:
            raise RefusalError(
                503, "the server is restarting", type="overloaded", retry_after=self.retry_after
            )

    @contextmanager
    def watch(self, source: Source) -> Iterator[None]:
        """Count a stream for as long as it is being read; adapters do."""
        self._live.add(source)
        self._nothing.clear()
        # Its request came in before the drain, and the other final events are out already.
        if self._final:
            source.stop("shutdown")
        try:
            yield
        finally:
            self._live.discard(source)
            if not self._live:
                self._nothing.set()

    def reopen(self) -> None:
        """Begin anew if it has finished: an application may be started again, as tests do."""
        if not self.finished:
            return
        self.draining = self._final = False
        self._task = None
        # Made anew, as an Event belongs to the loop that first waited for it, and the application
        # may be started again on another. Streams of the former run do not count in this one.
        self._live = set()
        self._nothing = asyncio.Event()
        self._nothing.set()
        for service in self._services:
            service.draining = False

    def start(self) -> None:
        """Refuse what is new from now on; idempotent."""
        self.draining = True
        for service in self._services:
            service.draining = True

    async def run(self) -> None:
        """Drain to the end. May be called several times and by several tasks: it happens once."""
        self.start()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._drain())
        # A caller that is cancelled while it waits does not stop the drain for the others.
        await asyncio.shield(self._task)

    async def _drain(self) -> None:
        if not await self._idle_within(self.seconds):
            _log.warning("shutting down: %d streams are cut after %g s", self.active, self.seconds)
        # Before any is stopped: services take time to close, and a stream that is first watched
        # meanwhile has to be stopped as well.
        self._final = True
        for source in list(self._live):
            source.stop("shutdown")
        for service in self._services:
            await service.close()
        if not await self._idle_within(_FINAL):
            _log.warning("shutting down: %d readers did not take their last event", self.active)

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle()
        except TimeoutError:
            return False
        return True

    async def _idle(self) -> None:
        while True:
            await self._nothing.wait()
            for service in self._services:
                await service.until_idle()
            # While a service became idle, a handler's own stream may have begun.
            if self._nothing.is_set():
                return
