"""How much of what is measured is our own doing."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable

import msgspec

from konko_async.bench._statistics import percentile

__all__ = ["ClientCost", "Watch"]

_BUSY = 0.8
_TICK = 0.05
_LAG = 99.0


class ClientCost(msgspec.Struct, frozen=True, kw_only=True):
    """What the measuring took on this side.

    Attributes:
        cpu_seconds: of this process, all its threads.
        cpu_share: of one core, while the run lasted; 1 is all of it.
        cpu_per_chunk: seconds for each chunk received (a whole answer is one); None: there were
            none.
        loop_lag: seconds by which the event loop was late, 99th percentile: times may be wrong by
            so much.
    """

    cpu_seconds: float
    cpu_share: float
    cpu_per_chunk: float | None
    loop_lag: float

    @property
    def is_bottleneck(self) -> bool:
        """Whether this process was busy for more than 80 % of the time: it measured itself."""
        return self.cpu_share > _BUSY


class Watch:
    """Takes the time of this process, and looks how late its loop is.

    Args:
        clock: that the run is measured with.
        on_tick: called every so often.
        interval: seconds between two of these calls.
    """

    def __init__(
        self, clock: Callable[[], float], on_tick: Callable[[], object], interval: float
    ) -> None:
        self._clock, self._on_tick, self._interval = clock, on_tick, interval
        self._lags = array("d")
        self._cpu = self._wall = 0.0

    def start(self) -> None:
        """Begin to count."""
        self._lags = array("d")
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    async def run(self) -> None:
        """Look at the loop until cancelled."""
        ticked = self._clock()
        while True:
            before = self._clock()
            await asyncio.sleep(_TICK)
            now = self._clock()
            self._lags.append(max(now - before - _TICK, 0.0))
            if now - ticked >= self._interval:
                ticked = now
                self._on_tick()

    def stop(self, chunks: int) -> ClientCost:
        """Return what it took since :meth:`start`, for so many chunks."""
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        return ClientCost(
            cpu_seconds=cpu,
            cpu_share=cpu / wall if wall > 0 else 0.0,
            cpu_per_chunk=cpu / chunks if chunks else None,
            loop_lag=percentile(sorted(self._lags), _LAG) if self._lags else 0.0,
        )
