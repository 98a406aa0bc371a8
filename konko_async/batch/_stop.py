"""A handle by which a run is ended before its end."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Stop"]


class Stop:
    """Ends a batch gracefully: ask once and no new row begins, ask twice and all are given back.

    Rows that are given back are not in the output; the next run does them. Call it in the loop's
    thread, for example from a signal handler of the loop::

        stop = Stop()
        loop.add_signal_handler(signal.SIGINT, stop.request)
        report = await run_batch(client, "in.jsonl", "out.jsonl", stop=stop)

    Attributes:
        level: how often it was asked: 0 go on, 1 begin nothing new, 2 cancel what is in flight.
    """

    def __init__(self) -> None:
        self.level = 0
        self._listeners: list[Callable[[int], object]] = []

    @property
    def requested(self) -> bool:
        """Whether it was asked at all."""
        return self.level > 0

    def request(self) -> None:
        """Ask; a third time and more change nothing."""
        self.level = min(self.level + 1, 2)
        for listener in tuple(self._listeners):
            listener(self.level)

    def listen(self, listener: Callable[[int], object]) -> Callable[[], None]:
        """Call ``listener(level)`` at each request; at once if there was one.

        Returns:
            A function that ends it.
        """
        self._listeners.append(listener)
        if self.level:
            listener(self.level)
        return lambda: self._listeners.remove(listener)
