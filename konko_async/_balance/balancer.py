"""Chooses the endpoint of each attempt, and keeps what is known of them."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, Final

from konko_async._balance.affinity import Placement, prefix_keys
from konko_async._balance.endpoint import named
from konko_async._balance.line import EndpointLine
from konko_async._balance.node import ALL_OUT, EndpointChoice
from konko_async._balance.sharing import SharedLoads
from konko_async._balance.strategies import strategy_of
from konko_async._core.classification import classify
from konko_async.errors import CircuitOpenError, ConfigurationError
from konko_async.middleware._breaker import origin_of
from konko_async.middleware._fallback import may_fail_over

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from konko_async._balance.endpoint import Affinity, Balance, Endpoint
    from konko_async._balance.factory import NodeFactory
    from konko_async._balance.node import Node
    from konko_async._balance.sharing import LoadStore
    from konko_async._core.pipeline import Request
    from konko_async.errors import KonkoError

__all__ = ["Balancer"]

# Models may be named by a user's users: the oldest groups are forgotten beyond this.
_MOST_MODELS: Final = 1024
_NOWHERE: Final = frozenset({"circuit_open", "local_limit", "deadline"})


class _Tier:
    """The endpoints of one priority for one model."""

    __slots__ = ("forced", "nodes")

    def __init__(self, nodes: list[Node], *, forced: bool = False) -> None:
        self.nodes = nodes
        # All have been put out, so that none is: some of them may answer (Envoy's panic).
        self.forced = forced


class Balancer:
    """The endpoints of a client and its copies.

    Args:
        make: makes the inside of an endpoint of a name.
        endpoints: that there are at first.
        balance: how one is chosen.
        affinity: what calls are kept together by; None: nothing but what a call names itself.
        store: by which processes share their loads, or None.

    Attributes:
        nodes: its endpoints.
        balance: as given.
        strategy: what that means.
        affinity: as given.
        one_origin: whether all of them are one server.
        loop: the event loop that uses it.
        time: its clock.
    """

    def __init__(
        self,
        make: NodeFactory,
        endpoints: Sequence[Endpoint],
        *,
        balance: Balance,
        affinity: Affinity | None,
        store: LoadStore | None = None,
    ) -> None:
        self.make = make
        self.balance = balance
        self.strategy = strategy_of(balance)
        self.affinity = affinity
        self.nodes: list[Node] = [
            make(one, name) for one, name in zip(endpoints, named(endpoints), strict=True)
        ]
        self._shared = None if store is None else SharedLoads(store, lambda: self.nodes)
        self._tiers: dict[str | None, list[_Tier]] = {}
        self._lines: dict[str, EndpointLine] = {}
        self._placement: Placement | None = None
        # When the next of those that are put out is due for a probe.
        self._probe_at = math.inf
        self.loop: asyncio.AbstractEventLoop | None = None
        self.time: Callable[[], float] = time.monotonic
        self.one_origin = True
        self._reshaped()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work on another event loop."""
        if self.loop is not None:
            for node in self.nodes:
                node.forget_flight()
            self._lines.clear()
        self.loop, self.time = loop, loop.time

    # -- choosing ------------------------------------------------------------------------------

    def choose(self, request: Request, now: float, *, breaks: bool = True) -> EndpointChoice | None:
        """Give an attempt an endpoint that admits it now.

        Returns:
            The choice; None: all that serve the model are full, and it has to :meth:`wait`.

        Raises:
            CircuitOpenError: the circuits of all of them are open; nothing was sent.
            ConfigurationError: none serves the model.
        """
        if self._shared is not None and now >= self._shared.due:
            self._shared.renew(now)
        tiers = self._tiers.get(request.model) or self._group(request.model)
        line = self._lines.get(request.model)  # type: ignore[arg-type]  # None has no line
        if line is not None and line.waiting.total and not line.waiting.may_pass(request.priority):
            return None
        if request.model is None:
            return self._first(request, tiers, now, breaks)
        call = request.call
        if now >= self._probe_at and (choice := self._probe(request, now, breaks)) is not None:
            return choice
        if (self.affinity is not None or call.affinity is not None) and (
            choice := self._together(request, now, breaks)
        ) is not None:
            return choice
        tier = tiers[0]
        first = self.strategy.first(tier.nodes, request, now)
        if first not in call.tried and not tier.forced:
            found = _admit(first, request, now, breaks)
            if isinstance(found, EndpointChoice):
                return found
        return self._look_further(tiers, request, now, breaks)

    def _first(
        self, request: Request, tiers: list[_Tier], now: float, breaks: bool
    ) -> EndpointChoice | None:
        """Send a call that names no model to the first endpoint: files and jobs are kept there."""
        usable = [node for node in self.nodes if not node.draining]
        usable.sort(key=lambda node: node.endpoint.priority)  # stable: in the order of the list
        # The list of models is the same elsewhere.
        anywhere = request.operation.name == "models"
        for node in usable:
            if anywhere and (node in request.call.tried or node.is_out):
                continue
            found = _admit(node, request, now, breaks, forced=True)
            if isinstance(found, EndpointChoice):
                return found
            if not anywhere and found is not None:
                raise found
        return self._look_further(tiers, request, now, breaks)

    def _look_further(
        self, tiers: list[_Tier], request: Request, now: float, breaks: bool
    ) -> EndpointChoice | None:
        """Try all endpoints: those that the call has not failed at, then the others."""
        tried, full = request.call.tried, False
        refusals: list[CircuitOpenError] = []
        for again in (False, True):
            if again and not tried:
                break
            for tier in tiers:
                for node in self.strategy.rest(tier.nodes, now):
                    if (node in tried) is not again:
                        continue
                    found = _admit(node, request, now, breaks, forced=tier.forced)
                    if isinstance(found, EndpointChoice):
                        return found
                    if found is None:
                        full = True
                    else:
                        refusals.append(found)
        if full or not refusals:
            return None
        raise min(refusals, key=lambda error: error.retry_after)

    def _together(self, request: Request, now: float, breaks: bool) -> EndpointChoice | None:
        """Send a call where those that it belongs to went."""
        own, affinity = request.call.affinity, self.affinity
        if own is not None:
            keys: Sequence[int | str] = (own,)
        elif affinity == "prefix":
            keys = prefix_keys(request)
        else:
            assert affinity is not None  # noqa: S101 - asked for only with one of the two
            found: Any = affinity(request)
            keys = () if found is None else (str(found),)
        if not keys:
            return None
        if self._placement is None:
            self._placement = Placement()
            self._placement.place([node for node in self.nodes if not node.draining])
        tried = request.call.tried
        choices: list[EndpointChoice] = []

        def usable(node: Node) -> bool:
            if node in tried or node.draining or node.is_out or not node.serves(request.model):
                return False
            choice = _admit(node, request, now, breaks)
            if not isinstance(choice, EndpointChoice):
                return False
            choices.append(choice)  # the only one: placement ends with the first yes
            return True

        self._placement.pick(keys, usable)
        return choices[0] if choices else None

    def _probe(self, request: Request, now: float, breaks: bool) -> EndpointChoice | None:
        """Send an attempt to an endpoint that was put out and is due for a probe."""
        due = math.inf
        chosen: EndpointChoice | None = None
        for node in self.nodes:
            if not node.is_out or node.draining:
                continue
            wait = node.ejection.snapshot(now).retry_after
            if wait <= 0 and chosen is None and node not in request.call.tried:
                if node.serves(request.model):
                    found = _admit(node, request, now, breaks)
                    if isinstance(found, EndpointChoice):
                        chosen = found
                        continue
                wait = 0.05
            due = min(due, now + max(wait, 0.05))
        self._probe_at = due if chosen is None else now + 0.05
        return chosen

    def _group(self, model: str | None) -> list[_Tier]:
        """Return the tiers of a model, the first to be used first."""
        serving = [node for node in self.nodes if node.serves(model)]
        if not serving:
            known = {name for node in self.nodes for name in node.endpoint.models or ()}
            raise ConfigurationError(
                f"no endpoint serves {model!r}; they serve {', '.join(sorted(known)) or 'nothing'}"
                if self.nodes
                else "this client has no endpoint: client.endpoints.add(...)"
            )
        usable = [node for node in serving if not node.draining]
        if not usable:
            raise ConfigurationError(f"all endpoints that serve {model!r} are draining")
        well = [node for node in usable if not node.is_out]
        forced = not well
        by_tier: dict[int, list[Node]] = {}
        for node in usable if forced else well:
            by_tier.setdefault(node.endpoint.priority, []).append(node)
        tiers = [_Tier(by_tier[priority], forced=forced) for priority in sorted(by_tier)]
        if len(self._tiers) >= _MOST_MODELS:
            self._tiers.clear()
        self._tiers[model] = tiers
        return tiers

    async def wait(self, request: Request, *, breaks: bool = True) -> EndpointChoice:
        """Wait for the first endpoint that admits an attempt.

        Raises:
            RateLimitTimeoutError: none does before the call's deadline.
            CircuitOpenError: the circuits of all opened meanwhile.
        """
        loop = asyncio.get_running_loop()
        model = request.model
        assert model is not None  # noqa: S101 - calls without a model have no limits to wait for
        refusals = 0
        while True:
            line = self._lines.get(model)
            if line is None:
                self._lines = {name: one for name, one in self._lines.items() if one.waiting.total}
                line = self._lines[model] = EndpointLine(model, lambda: self._open_to(model))
            tokens = self.nodes[0].limiter.estimate(request.params) if self._counts(model) else 0
            node, lane, permit = await line.wait(request, tokens)
            now = loop.time()
            sent = node.translate(request)
            entered = _enter(node, sent, now, breaks, forced=node.is_out)
            if isinstance(entered, tuple):
                return EndpointChoice(node, sent, entered[0], entered[1], lane, permit, now)
            # It was granted before a circuit opened: the others may still have room.
            permit.refund()
            permit.release(outcome="cancelled")
            refusals += 1
            if refusals > len(self.nodes):
                raise entered

    def _open_to(self, model: str) -> list[Node]:
        tiers = self._tiers.get(model) or self._group(model)
        return [node for tier in tiers for node in tier.nodes]

    def _counts(self, model: str) -> bool:
        lanes = (node.lane(model) for node in self._open_to(model))
        return any(lane is not None and lane.counts_tokens for lane in lanes)

    def may_move(self, request: Request, error: KonkoError) -> bool:
        """Whether an attempt that failed may succeed at another endpoint, at once."""
        if request.target is not None or (
            request.model is None and request.operation.name != "models"
        ):
            return False
        tried, model = request.call.tried, request.model
        others = any(
            node not in tried and not node.draining and not node.is_out and node.serves(model)
            for node in self.nodes
        )
        found = classify(error)
        if not others or found.kind in _NOWHERE:
            return False
        return may_fail_over(error, other_server=True) or found.ends_batch

    def copy(self, make: Any) -> Balancer:
        """Return one with the same endpoints and pools, and other limits or circuits.

        Args:
            make: as :class:`NodeFactory`; takes the pool of an endpoint as well.
        """
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.make = make
        copy.nodes = [make(node.endpoint, node.name, node.transport) for node in self.nodes]
        copy._tiers, copy._lines, copy._placement = {}, {}, None
        copy._shared = None
        return copy

    async def close(self) -> None:
        """Close the pools; idempotent."""
        await asyncio.gather(*(node.transport.close() for node in self.nodes))
        if self._shared is not None:
            await self._shared.close()

    # -- health --------------------------------------------------------------------------------

    def changed(self, node: Node, now: float) -> None:
        """Note that an endpoint was put out, or is used again."""
        self._tiers.clear()
        if node.is_out:
            self._probe_at = min(self._probe_at, now + node.ejection.snapshot(now).retry_after)
            for line in self._lines.values():
                line.forget(node)
        else:
            node.start_slowly(now)
        self._pump()

    def _pump(self) -> None:
        for line in self._lines.values():
            try:
                line.seek()
            except ConfigurationError as error:  # the last that served the model was removed
                line.fail(error)

    # -- coming and going ----------------------------------------------------------------------

    def find(self, name: str) -> Node:
        """Return the endpoint of a name.

        Raises:
            ConfigurationError: there is none.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(repr(node.name) for node in self.nodes)
        raise ConfigurationError(f"there is no endpoint {name!r:.80}; there are {known or 'none'}")

    def add(self, endpoint: Endpoint, now: float) -> Node:
        """Use another endpoint from now on, slowly at first."""
        (name,) = named([endpoint], frozenset(node.name for node in self.nodes))
        node = self.make(endpoint, name)
        if self.nodes:
            node.start_slowly(now)
        self.nodes.append(node)
        self._reshaped()
        return node

    def drain(self, node: Node, *, draining: bool = True) -> None:
        """Send no new calls to an endpoint, or again."""
        node.draining = draining
        for line in self._lines.values():
            line.forget(node)
        self._reshaped()

    async def remove(self, node: Node) -> None:
        """Close an endpoint: calls in flight there end by it."""
        self.drain(node)
        self.nodes.remove(node)
        self._reshaped()
        await node.transport.close()
        await node.limiter.close()

    def _reshaped(self) -> None:
        self._tiers.clear()
        self.one_origin = len({origin_of(node.endpoint.base_url) for node in self.nodes}) <= 1
        if self._placement is not None:
            self._placement.place([node for node in self.nodes if not node.draining])
        self._pump()


def _admit(
    node: Node, request: Request, now: float, breaks: bool, *, forced: bool = False
) -> EndpointChoice | CircuitOpenError | None:
    """Let an attempt through an endpoint's circuits and limits.

    Returns:
        The choice; the error of a circuit that is open; None: there is no room now.
    """
    sent = request if node.endpoint.models is None else node.translate(request)
    lane, permit = node.limits.enter(sent)
    if permit is None and lane is not None and lane.immediate:
        return None
    entered = _enter(node, sent, now, breaks, forced=forced)
    if isinstance(entered, tuple):
        return EndpointChoice(node, sent, entered[0], entered[1], lane, permit, now)
    if permit is not None:
        node.limits.unused(permit)
    return entered


def _enter(
    node: Node, sent: Request, now: float, breaks: bool, *, forced: bool = False
) -> tuple[int, Any] | CircuitOpenError:
    """Pass the circuits of an endpoint; with ``forced``, also one that was put out."""
    ticket = node.ejection.enter(now)
    if ticket is None and forced:
        ticket = ALL_OUT
    if ticket is None:
        return CircuitOpenError(f"{node.name} was put out", retry_after=0.0)
    if node.breaker is None or not breaks:
        return ticket, None
    try:
        return ticket, node.breaker.enter(sent, now)
    except CircuitOpenError as error:
        node.ejection.leave(ticket)
        return error.with_traceback(None)
