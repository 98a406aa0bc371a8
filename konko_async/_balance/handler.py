"""One attempt at one of several endpoints: chosen, admitted, sent, and learned from."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from konko_async._core.graceful_stop import current_work, resting
from konko_async._core.redaction import CROSSING_HEADERS, CROSSING_QUERY
from konko_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from konko_async._balance.balancer import Balancer
    from konko_async._balance.node import EndpointChoice, Node
    from konko_async._core.pipeline import Handler, Request, Response
    from konko_async._http.session import Transport
    from konko_async.middleware._telemetry import AttemptLog

__all__ = ["BalancedHandler"]


class BalancedHandler:
    """The innermost handler of a client with endpoints.

    It stands where a client of one server has its ``AttemptHandler``, and does what that does with
    the circuit and the limits of the endpoint that it chooses. The choice is made for each attempt,
    so that a retry or a hedge goes elsewhere.

    Args:
        balancer: chooses.
        elsewhere: makes attempts that have a target of their own, such as those of a fallback.
        sender: returns what makes requests over an endpoint's pool.
        log: writes attempts down; None where that is done outside the user's own layers.
        use_breaker: whether the circuits of the endpoints hold for this client or copy.
    """

    __slots__ = ("_balancer", "_breaks", "_elsewhere", "_log", "_sender", "_senders")

    def __init__(
        self,
        balancer: Balancer,
        elsewhere: Handler,
        sender: Callable[[Transport], Handler],
        *,
        log: AttemptLog | None,
        use_breaker: bool,
    ) -> None:
        self._balancer = balancer
        self._elsewhere = elsewhere
        self._sender = sender
        self._senders: dict[Node, Handler] = {}
        self._log = log
        self._breaks = use_breaker

    async def __call__(self, request: Request) -> Response:
        """Return the answer.

        Raises:
            CircuitOpenError: the circuits of all endpoints are open; nothing was sent.
            RateLimitTimeoutError: no endpoint admits the attempt before its deadline.
            ConfigurationError: no endpoint serves the model.
            APIError: it failed.
        """
        if request.target is not None:
            return await self._elsewhere(request)
        loop = asyncio.get_running_loop()
        started = loop.time()
        if loop is not self._balancer.loop:
            self._balancer.attach(loop)
        times, log, balancer = request.times, self._log, self._balancer
        times.queued, times.connect, times.endpoint = 0.0, None, None
        if request.headers or request.query:
            self._check_crossing(request)
        choice: EndpointChoice | None = None
        try:
            choice = balancer.choose(request, started, breaks=self._breaks)
            if choice is None:
                choice = await self._wait(request)
            node = choice.node
            load = choice.load
            load.in_flight += 1
            times.endpoint = node
            request.call.tried += (node,)
            lane = choice.lane
            if lane is not None and choice.permit is None:
                choice.permit = await node.limits.wait(choice.request, lane)
                choice.sent_at = loop.time()
            load.sent(choice, choice.sent_at, stream=request.stream)
            send = self._senders.get(node) or self._sender_of(node)
            response = await send(choice.request)
        except BaseException as error:
            now = loop.time()
            if choice is not None:
                self._failed(choice, error, now)
            if log is not None:
                sent = request if choice is None else choice.request
                log.write(sent, started, now, None, error, times.endpoint)
            raise
        now = loop.time()
        self._answered(choice, response, now)
        if log is not None:
            log.write(choice.request, started, now, response, None, choice.node)
        return response

    async def _wait(self, request: Request) -> EndpointChoice:
        """Wait until an endpoint admits the attempt."""
        call, loop = request.call, asyncio.get_running_loop()
        call.doing = "waiting for an endpoint with room"
        call.waiting += 1
        since = loop.time()
        try:
            with resting():
                choice = await self._balancer.wait(request, breaks=self._breaks)
        finally:
            call.waiting -= 1
            request.times.queued += loop.time() - since
        current_work().begin()
        return choice

    def _answered(self, choice: EndpointChoice, response: Response, now: float) -> None:
        node = choice.node
        # A stream is not over: limits settle at its end, while circuits count its first delta.
        if choice.lane is not None and choice.permit is not None:
            node.limits.answered(choice.lane, choice.permit, response)
        if node.breaker is not None and choice.passed is not None:
            node.breaker.answered(choice.passed, now)
        if node.answered(choice, now):
            self._balancer.changed(node, now)
        if response.closed:
            _ended(choice, now, response)
        else:
            response.on_close(partial(_ended_later, choice, self._balancer.time))

    def _failed(self, choice: EndpointChoice, error: BaseException, now: float) -> None:
        node = choice.node
        choice.load.in_flight -= 1
        node.landed()
        # Without a permit nothing was sent, and there is nothing to settle.
        if choice.lane is not None and choice.permit is not None:
            node.limits.failed(choice.lane, choice.permit, error)
        if node.breaker is not None and choice.passed is not None:
            node.breaker.failed(choice.passed, error, now)
        if node.failed(choice, error, now):
            self._balancer.changed(node, now)

    def _sender_of(self, node: Node) -> Handler:
        # Those of endpoints that were removed go with the next that is added.
        nodes = self._balancer.nodes
        self._senders = {one: send for one, send in self._senders.items() if one in nodes}
        send = self._senders[node] = self._sender(node.transport)
        return send

    def _check_crossing(self, request: Request) -> None:
        """Refuse to show one server what was meant for another.

        Raises:
            ConfigurationError: the endpoints are of several origins, and a header or parameter of
                the call may be a credential.
        """
        if self._balancer.one_origin:
            return
        for name in request.headers:
            if name.lower() not in CROSSING_HEADERS:
                raise ConfigurationError(
                    f"the header {name} may hold a credential, and this client's endpoints are "
                    "different servers: give it in Endpoint(headers=...) of the one it is for"
                )
        for name in request.query or ():
            if name.lower() not in CROSSING_QUERY:
                raise ConfigurationError(
                    f"the query parameter {name} may hold a credential, and this client's "
                    "endpoints are different servers: give it in Endpoint(query=...)"
                )


def _ended_later(choice: EndpointChoice, time: Callable[[], float], response: Response) -> None:
    _ended(choice, time(), response)


def _ended(choice: EndpointChoice, now: float, response: Response) -> None:
    """Learn from an answer that has been read or given up."""
    load = choice.load
    load.in_flight -= 1
    choice.node.landed()
    load.ended(choice, now, failed=response.outcome == "error")
    if response.outcome == "ok" and response.first_token_at is not None:
        usage = response.usage
        tokens = None if usage is None else getattr(usage, "completion_tokens", None)
        choice.node.sample(choice, tokens, now, response.first_token_at)
