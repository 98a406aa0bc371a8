"""Tells other processes how many calls are in flight at each endpoint, and hears of theirs.

Where a client's limits are kept in a store that several processes share (``RateLimit.store``), and
that store can share loads as well, each process reports its calls in flight while it makes calls, a
few times a second, and adds those of the others to what it balances by.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from konko_async.errors import KonkoError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from konko_async._balance.node import Node

__all__ = ["LoadStore", "SharedLoads", "load_store"]

_log = logging.getLogger("konko_async.balance")

# Seconds between two reports, and after one that failed.
_EVERY: Final = 0.1
_AFTER_FAILURE: Final = 2.0


@runtime_checkable
class LoadStore(Protocol):
    """A store that several processes share their loads by."""

    async def share_loads(self, process: str, mine: Mapping[str, int]) -> dict[str, int]:
        """Report the calls in flight of one process; return the sums of all others.

        Args:
            process: an id of its own.
            mine: calls in flight by endpoint.

        Raises:
            RateLimitStoreError: the store did not answer.
        """


def load_store(*stores: Any) -> LoadStore | None:
    """Return the first store that can share loads."""
    return next((store for store in stores if isinstance(store, LoadStore)), None)


class SharedLoads:
    """What this process and others have in flight.

    Args:
        store: what they share.
        nodes: returns the endpoints of this one.

    Attributes:
        due: when the next report is due.
    """

    __slots__ = ("_names", "_nodes", "_process", "_store", "_task", "due")

    def __init__(self, store: LoadStore, nodes: Callable[[], Sequence[Node]]) -> None:
        self._store = store
        self._nodes = nodes
        self._process = secrets.token_hex(8)
        self._names: dict[Node, str] = {}
        self._task: asyncio.Task[None] | None = None
        self.due = 0.0

    def renew(self, now: float) -> None:
        """Begin a report, unless one is under way."""
        self.due = now + _EVERY
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._report())

    async def _report(self) -> None:
        nodes = self._nodes()
        mine = {self._name(node): node.load.in_flight for node in nodes}
        try:
            others = await self._store.share_loads(self._process, mine)
        except KonkoError as error:
            # Each process balances for itself meanwhile, as it does without a store.
            others = {}
            self.due = asyncio.get_running_loop().time() + _AFTER_FAILURE
            _log.debug("loads are not shared: %s", error.message)
        for node in nodes:
            node.load.elsewhere = others.get(self._name(node), 0)

    def _name(self, node: Node) -> str:
        """Return by what all processes know an endpoint; it shows neither address nor key."""
        name = self._names.get(node)
        if name is None:
            text = f"{node.endpoint.base_url}\n{node.transport.settings.fingerprint}"
            name = self._names[node] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return name

    async def close(self) -> None:
        """End a report that is under way."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])
