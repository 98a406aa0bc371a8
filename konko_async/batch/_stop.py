"""A handle by which a run is stopped early."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Stop"]


class Stop:
    """Ends a batch gracefully: at the first request no new row begins, at the second all end.

    Rows in flight that the second request cancels are not in the output; the next run does them.
    Call it in the loop's thread, for example from a signal handler of the loop::

        stop = Stop()
        loop.add_signal_handler(signal.SIGINT, stop.request)
        report = await run_batch(client, "in.jsonl", "out.jsonl", stop=stop)

    Attributes:
        level: requests so far: 0 go on, 1 begin no new row, 2 cancel what is in flight.
    """

    def __init__(self) -> None:
        self.level = 0
        self._listeners: list[Callable[[int], object]] = []

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self.level > 0

    def request(self) -> None:
        """Request a stop; a third request and later ones change nothing."""
        self.level = min(self.level + 1, 2)
        # A copy, since a listener may end its own listening while it is called.
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
