"""Assigns faults to calls: queued ones once each, standing ones to every call that matches."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from konko_async.testing._emulator.faults import Fault
from konko_async.testing._emulator.log import LoggedCall, RequestRecord
from konko_async.testing._emulator.quirks import Quirks

Scripted: TypeAlias = Fault | Sequence[Fault] | None
"""A fault, several for the same call, or none: that call is served as usual."""
When: TypeAlias = Callable[[RequestRecord], bool]


@dataclass(frozen=True, slots=True)
class Match:
    """Which calls are meant; what is `None` matches every call."""

    path: str | None = None
    model: str | None = None
    when: When | None = None

    def __call__(self, call: LoggedCall) -> bool:
        """Whether the call is meant."""
        if self.path is not None:
            wanted = self.path.removeprefix("/v1").rstrip("/")
            path = call.path.partition("?")[0].removeprefix("/v1")
            # With the slash: "/models" means "/models/ID" too, but not "/models-of-mine".
            if path != wanted and not path.startswith(wanted + "/"):
                return False
        if self.model is not None and call.model != self.model:
            return False
        # Last: a record is costly to make, and most calls fail one of the tests above.
        return self.when is None or self.when(call.record())


class FaultScript:
    """Faults that wait for their call, and faults that stay."""

    def __init__(self) -> None:
        self._queued: deque[tuple[Match, tuple[Fault, ...]]] = deque()
        self._standing: list[tuple[Match, tuple[Fault, ...]]] = []

    def __len__(self) -> int:
        return len(self._queued)

    def queue(self, match: Match, faults: Sequence[Scripted]) -> None:
        """Add faults, each of them for one call."""
        self._queued.extend((match, _as_faults(fault)) for fault in faults)

    def stay(self, match: Match, faults: Sequence[Scripted]) -> None:
        """Add faults for every call."""
        self._standing.extend((match, _as_faults(fault)) for fault in faults)

    def clear(self) -> None:
        """Forget all of them."""
        self._queued.clear()
        self._standing.clear()

    def take(self, call: LoggedCall) -> list[Fault]:
        """The faults for this call; the one that waited for it is used up."""
        if not self._queued and not self._standing:
            return []
        found: list[Fault] = []
        for entry in self._queued:
            match, faults = entry
            if match(call):
                # The first that matches, not the first of the queue: a fault for another path keeps
                # waiting and does not hold up those behind it.
                self._queued.remove(entry)
                found += faults
                break
        # In addition to a queued one: a server that is always slow can also fail once.
        for match, faults in self._standing:
            if match(call):
                found += faults
        # Quirks rewrite whole events, so they come before what breaks one.
        found.sort(key=lambda fault: not isinstance(fault, Quirks))
        return found


def _as_faults(scripted: Scripted) -> tuple[Fault, ...]:
    if scripted is None:
        return ()
    faults = tuple(scripted) if isinstance(scripted, Sequence) else (scripted,)
    for fault in faults:
        if not isinstance(fault, Fault):
            raise TypeError(f"not a fault: {fault!r}; see konko_async.testing.faults")
    return faults
