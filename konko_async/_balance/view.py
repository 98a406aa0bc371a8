"""``client.endpoints``: what can be seen of endpoints, and done with them while calls run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, overload

from konko_async.errors import ConfigurationError

if TYPE_CHECKING:
    from konko_async._balance.balancer import Balancer
    from konko_async._balance.endpoint import Endpoint, EndpointState

__all__ = ["Endpoints"]


class Endpoints(Sequence["EndpointState"]):
    """The endpoints of a client: a sequence of their states now, and how to change them.

    A client that was made without ``endpoints=`` has none here.

    Args:
        balancer: whose endpoints they are; None: the client has one server.
    """

    __slots__ = ("_balancer",)

    def __init__(self, balancer: Balancer | None) -> None:
        self._balancer = balancer

    def _states(self) -> tuple[EndpointState, ...]:
        if self._balancer is None:
            return ()
        now = self._balancer.time()
        return tuple(node.state(now) for node in self._balancer.nodes)

    @overload
    def __getitem__(self, index: int | str) -> EndpointState: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[EndpointState, ...]: ...

    def __getitem__(self, index: int | str | slice) -> EndpointState | tuple[EndpointState, ...]:
        """Return the state of an endpoint, by its place or its name."""
        if isinstance(index, str):
            for state in self._states():
                if state.name == index:
                    return state
            raise KeyError(index)
        return self._states()[index]

    def __len__(self) -> int:
        return 0 if self._balancer is None else len(self._balancer.nodes)

    def __iter__(self) -> Iterator[EndpointState]:
        return iter(self._states())

    def __repr__(self) -> str:
        states = ", ".join(f"{one.name}: {one.state}" for one in self._states())
        return f"<Endpoints {states or 'none'}>"

    def add(self, endpoint: Endpoint) -> EndpointState:
        """Use another endpoint from now on: slowly at first, fully after 3 seconds.

        Returns:
            Its state; its ``name`` is what the other methods take.

        Raises:
            ConfigurationError: the client was made without ``endpoints=``, or it cannot be used.
        """
        balancer = self._its()
        now = balancer.time()
        return balancer.add(endpoint, now).state(now)

    def drain(self, name: str) -> None:
        """Send no new calls to an endpoint; those in flight go on.

        Raises:
            ConfigurationError: there is none of that name.
        """
        balancer = self._its()
        balancer.drain(balancer.find(name))

    def resume(self, name: str) -> None:
        """Send calls to an endpoint again that was drained.

        Raises:
            ConfigurationError: there is none of that name.
        """
        balancer = self._its()
        balancer.drain(balancer.find(name), draining=False)

    async def remove(self, name: str, *, patience: float | None = None) -> None:
        """Drain an endpoint, wait for its calls, and close its connections.

        Args:
            name: of the endpoint.
            patience: seconds after which calls that still run are cut; None: wait for all.

        Raises:
            ConfigurationError: there is none of that name.
        """
        balancer = self._its()
        node = balancer.find(name)
        balancer.drain(node)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await node.idle()
        await balancer.remove(node)

    def _its(self) -> Balancer:
        if self._balancer is None:
            raise ConfigurationError(
                "this client was made for one server: AsyncKonko(endpoints=[Endpoint(...), ...])"
            )
        return self._balancer
