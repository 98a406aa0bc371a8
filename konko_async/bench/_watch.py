"""Measures the cost of the benchmark itself: CPU of this process, lag of its event loop."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable

import msgspec

from konko_async.bench._statistics import percentile

__all__ = ["ClientCost", "ProcessWatch"]

_BUSY = 0.8  # of a core: above it, waiting in our own queue shows in the latencies
_TICK = 0.05  # seconds between samples of the loop's lag
_LAG = 99.0  # percentile; the maximum would show one pause of the operating system


class ClientCost(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of a measurement to this process.

    Attributes:
        cpu_seconds: of this process, all its threads.
        cpu_share: of one core, while the run lasted; 1 is all of it.
        cpu_per_chunk: seconds for each chunk received (a whole answer is one); None: there were
            none.
        loop_lag: seconds by which the event loop was late, 99th percentile; measured times may be
            off by as much.
    """

    cpu_seconds: float
    cpu_share: float
    cpu_per_chunk: float | None
    loop_lag: float

    @property
    def is_bottleneck(self) -> bool:
        """Whether this process was busy for more than 80 % of the time: it measured itself."""
        return self.cpu_share > _BUSY


class ProcessWatch:
    """Measures the CPU time of this process and the lag of its event loop.

    Args:
        clock: the clock of the run.
        on_tick: called at each interval.
        interval: seconds between two of these calls.
    """

    def __init__(
        self, clock: Callable[[], float], on_tick: Callable[[], object], interval: float
    ) -> None:
        self._clock, self._on_tick, self._interval = clock, on_tick, interval
        self._lags = array("d")
        self._cpu = self._wall = 0.0

    def start(self) -> None:
        """Start counting anew: CPU time and lag so far are dropped."""
        # process_time() counts all threads, as DNS look-ups run in others.
        self._lags = array("d")
        # Real time even where a test brings its own clock, as CPU time is real as well.
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    async def run(self) -> None:
        """Sample the lag of the loop, and call ``on_tick``, until cancelled."""
        ticked = self._clock()
        while True:
            before = self._clock()
            await asyncio.sleep(_TICK)
            now = self._clock()
            # Loops fire a timer early by up to their clock's resolution, which is not lag.
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
