"""How one of several endpoints is chosen: ``balance=`` of a client.

``least_loaded`` is the power of two choices: of two endpoints drawn at random, the one with the
lower score (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001; the
default of Finagle and of Envoy's least request). It takes the same time for any number of
endpoints, and several clients that judge alike do not all run to the same server.
"""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Any, Protocol

from konko_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from konko_async._balance.endpoint import Balance
    from konko_async._balance.node import Node
    from konko_async._core.pipeline import Request

__all__ = ["Strategy", "strategy_of"]


class Strategy(Protocol):
    """Chooses among endpoints that are in good health."""

    def first(self, nodes: list[Node], request: Request, now: float) -> Node:
        """Return the one to try first; there is at least one."""

    def rest(self, nodes: list[Node], now: float) -> list[Node]:
        """Return all of them in the order in which they are tried if the first has no room."""


class LeastLoaded:
    """The power of two choices."""

    __slots__ = ()

    def first(self, nodes: list[Node], request: Request, now: float) -> Node:  # noqa: ARG002 - see Strategy
        """Return the less loaded of two that are drawn at random."""
        count = len(nodes)
        if count == 1:
            return nodes[0]
        # Not randrange(), which takes five times as long.
        at = int(random() * count)  # noqa: S311 - nothing secret is drawn
        other = int(random() * (count - 1))  # noqa: S311 - nothing secret is drawn
        one, two = nodes[at], nodes[other + (other >= at)]
        return one if one.score(now) <= two.score(now) else two

    def rest(self, nodes: list[Node], now: float) -> list[Node]:
        """Return them from the least loaded on."""
        return sorted(nodes, key=lambda node: node.score(now))


class RoundRobin:
    """In turn, in proportion to weights: nginx's smooth weighted round robin."""

    __slots__ = ("_current",)

    def __init__(self) -> None:
        self._current: dict[Node, float] = {}

    def first(self, nodes: list[Node], request: Request, now: float) -> Node:  # noqa: ARG002 - see Strategy
        """Return the one whose turn it is."""
        current, total = self._current, 0.0
        best = nodes[0]
        for node in nodes:
            share = node.share(now)
            total += share
            current[node] = current.get(node, 0.0) + share
            if current[node] > current[best]:
                best = node
        current[best] -= total
        if len(current) > 2 * len(nodes):  # those that were removed
            self._current = {node: current[node] for node in nodes}
        return best

    def rest(self, nodes: list[Node], now: float) -> list[Node]:
        """Return them with those first that were passed over the longest."""
        del now
        return sorted(nodes, key=lambda node: -self._current.get(node, 0.0))


class InOrder:
    """The first in the list that has room."""

    __slots__ = ()

    def first(self, nodes: list[Node], request: Request, now: float) -> Node:  # noqa: ARG002 - see Strategy
        """Return the first."""
        return nodes[0]

    def rest(self, nodes: list[Node], now: float) -> list[Node]:  # noqa: ARG002 - see Strategy
        """Return them as they are."""
        return nodes


class Chosen:
    """A function of the user's."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def first(self, nodes: list[Node], request: Request, now: float) -> Node:
        """Return what the function chooses.

        Raises:
            ConfigurationError: that is none of the endpoints that it was given.
        """
        states = [node.state(now) for node in nodes]
        found = self._function(states, request)
        name = getattr(found, "name", found)
        for node in nodes:
            if node.name == name:
                return node
        raise ConfigurationError(
            f"balance= returned {name!r:.80}, and may choose among "
            f"{', '.join(repr(node.name) for node in nodes)}"
        )

    def rest(self, nodes: list[Node], now: float) -> list[Node]:
        """Return them from the least loaded on."""
        return sorted(nodes, key=lambda node: node.score(now))


def strategy_of(balance: Balance) -> Strategy:
    """Return the strategy that ``balance=`` names."""
    if balance == "least_loaded":
        return LeastLoaded()
    if balance == "round_robin":
        return RoundRobin()
    return InOrder() if balance == "priority" else Chosen(balance)
