"""An endpoint at work: its pool, its limits, its circuit, its load."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from konko_async._balance.endpoint import EndpointState
from konko_async._balance.load import Fleet, Load
from konko_async._core.classification import classify
from konko_async.errors import APIError
from konko_async.middleware import CircuitBreaker, CircuitBreakerMiddleware
from konko_async.middleware._breaker import judge
from konko_async.middleware._circuit import Circuit
from konko_async.middleware._limits import AttemptLimits

if TYPE_CHECKING:
    from konko_async._balance.endpoint import Endpoint
    from konko_async._core.pipeline import Request
    from konko_async._http.session import Transport
    from konko_async.limits import Lane, Limiter, Permit
    from konko_async.middleware._breaker import Passed

__all__ = ["ALL_OUT", "EndpointChoice", "Node"]

ALL_OUT: Final = 0
"""The ticket of an attempt at an endpoint that was put out, made as all others were, too."""

# Outlier ejection, as in Envoy: five failures in a row, or half of the calls, put an endpoint out;
# then a call now and then is a probe. Sooner than the circuit breaker, which is for a server that
# nobody can stand in for: here another endpoint serves the calls meanwhile.
_EJECTION: Final = CircuitBreaker(
    failure_rate=0.5, min_calls=5, min_duration=0.0, window=10.0,
    open_for=0.5, max_open_for=4.0, probes=1,
)  # fmt: skip
# Seconds over which an endpoint that came (back) gets its full share (Envoy's slow start), and the
# share with which it begins.
_SLOW_START: Final = 3.0
_FIRST_SHARE: Final = 0.1


class Node:
    """One endpoint of a balancer.

    Args:
        endpoint: what it was given.
        name: unique among those of the client.
        transport: its pool, with its own credentials.
        limiter: its limits.
        key: its lanes are known by, in ``client.limits`` and in stores.
        breaker: when to stop asking it; None: never.
        fleet: what is true of all endpoints.

    Attributes:
        load: what is in flight there, and how fast it is.
        ejection: the circuit that its failures open.
        draining: whether it gets no new calls.
        weight: its share.
    """

    __slots__ = (
        "_fleet",
        "_idle", "_slow_from", "_slow_until", "breaker", "draining", "ejection", "endpoint", "key",
        "limiter", "limits", "load", "name", "reason", "transport", "weight",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        endpoint: Endpoint,
        name: str,
        transport: Transport,
        limiter: Limiter,
        key: str,
        breaker: CircuitBreaker | None,
        fleet: Fleet,
    ) -> None:
        self.endpoint = endpoint
        self.name = name
        self.transport = transport
        self.limiter = limiter
        self.key = key
        self.limits = AttemptLimits(limiter, key)
        self.breaker = (
            None if breaker is None else CircuitBreakerMiddleware(breaker, endpoint.base_url)
        )
        self._fleet = fleet
        self.load = Load(fleet)
        self.ejection = Circuit(_EJECTION, name)
        self.draining = False
        self.weight = float(endpoint.weight)
        self.reason: str | None = None
        self._slow_from = self._slow_until = 0.0
        self._idle: asyncio.Future[None] | None = None

    @property
    def base_url(self) -> str:
        """Where it is."""
        return self.endpoint.base_url

    @property
    def is_out(self) -> bool:
        """Whether it was put out, because it failed."""
        return not self.ejection.closed

    async def idle(self) -> None:
        """Wait until no call is in flight there; it has to be draining."""
        while self.load.in_flight:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle

    def landed(self) -> None:
        """Note that a call is over."""
        if self._idle is not None and not self.load.in_flight and not self._idle.done():
            self._idle.set_result(None)

    def forget_flight(self) -> None:
        """Switch to another event loop: what was in flight on the last one went with it."""
        old, self.load = self.load, Load(self._fleet)
        self.load.calls, self.load.errors = old.calls, old.errors

    def start_slowly(self, now: float) -> None:
        """Give it more and more calls from now on, not its full share at once."""
        self._slow_from, self._slow_until = now, now + _SLOW_START

    def share(self, now: float) -> float:
        """Return its weight, and less of it while it starts."""
        if now >= self._slow_until:
            return self.weight
        grown = (now - self._slow_from) / _SLOW_START
        return self.weight * max(grown, _FIRST_SHARE)

    def score(self, now: float) -> float:
        """Return what a call is expected to cost there; lower is better."""
        return self.load.score(now) / (self.weight if now >= self._slow_until else self.share(now))

    def serves(self, model: str | None) -> bool:
        """Whether calls of a model may go there."""
        return model is None or self.endpoint.model_there(model) is not None

    def translate(self, request: Request) -> Request:
        """Return the request as it is sent there: with the model's name there."""
        model = request.model
        if model is None or self.endpoint.models is None:
            return request
        there = self.endpoint.model_there(model)
        if there is None or there == model:
            return request
        params = request.params
        if isinstance(params, dict):
            params = {**params, "model": there}
        else:
            params = msgspec.structs.replace(params, model=there)
        return request.replace(params=params, model=there)

    def lane(self, model: str | None) -> Lane | None:
        """Return the limits of a model there; None for calls without a model."""
        there = None if model is None else self.endpoint.model_there(model)
        return None if there is None else self.limiter.lane(there, self.key)

    def sample(self, choice: EndpointChoice, tokens: int | None, now: float, first: float) -> None:
        """Learn from an answer that has ended.

        Args:
            choice: the attempt.
            tokens: of the answer, if known.
            now: the time.
            first: when its first token came.
        """
        load = choice.load
        if tokens:
            load.wrote(tokens, now - (first if choice.request.stream else choice.sent_at), now)
        elif not choice.request.stream:
            load.began(choice, now - choice.sent_at, now)

    def failed(self, choice: EndpointChoice, error: BaseException, now: float) -> bool:
        """Learn from an attempt that failed.

        Returns:
            Whether it was put out by it.
        """
        load, ill = choice.load, False
        if isinstance(error, APIError):
            found = classify(error)
            verdict = judge(error)
            ill = verdict.host is False or verdict.model is False or found.ends_batch
            self.reason = type(error).__name__
        load.ended(choice, now, failed=isinstance(error, APIError))
        if not ill:
            # A cancellation, or a request that the server refused for good reasons.
            self.ejection.leave(choice.ticket)
            return False
        return self.ejection.record(choice.ticket, now, well=False, reason=self.reason)

    def answered(self, choice: EndpointChoice, now: float) -> bool:
        """Note that an attempt was answered; a stream is not over.

        Returns:
            Whether it is used again by it.
        """
        if choice.request.stream:
            choice.load.began(choice, now - choice.sent_at, now)
        if choice.ticket == ALL_OUT and self.is_out:
            self.ejection = Circuit(_EJECTION, self.name)
            return True
        return self.ejection.record(choice.ticket, now, well=True)

    def state(self, now: float) -> EndpointState:
        """Return what is to be seen from outside."""
        load, ejection = self.load, self.ejection.snapshot(now)
        paused = max((lane.paused_for for lane in self._lanes()), default=0.0)
        state: Any = "ready"
        if self.draining:
            state = "draining"
        elif ejection.state != "closed":
            state = "ejected"
        elif paused > 0:
            state = "cooling_down"
        elif now < self._slow_until:
            state = "starting"
        return EndpointState(
            name=self.name,
            base_url=self.endpoint.base_url,
            state=state,
            priority=self.endpoint.priority,
            weight=self.weight,
            in_flight=load.in_flight,
            calls=load.calls,
            errors=load.errors,
            calls_per_second=round(load.rate(now), 3),
            time_to_first_token=load.first_token.value or None,
            tokens_per_second=None if load.per_token is None else 1.0 / load.per_token,
            retry_after=ejection.retry_after if state == "ejected" else paused,
            reason=self.reason,
        )

    def _lanes(self) -> Any:
        return (lane for lane in self.limiter.snapshot().lanes if lane.key == self.key)

    def __repr__(self) -> str:
        return f"<Node {self.name}: {self.load.in_flight} in flight>"


class EndpointChoice:
    """An attempt that was given an endpoint.

    Attributes:
        node: the endpoint.
        load: its load, on the event loop of the attempt.
        request: as it is sent there.
        ticket: of its ejection circuit.
        passed: of its circuit breaker.
        lane: of its limits; None for calls without a model.
        permit: None until the lane has admitted the attempt.
        sent_at: when it was admitted.
    """

    __slots__ = ("lane", "load", "node", "passed", "permit", "request", "sent_at", "ticket")

    def __init__(  # noqa: PLR0917 - one is made per attempt: keywords would cost as much as the rest
        self,
        node: Node,
        request: Request,
        ticket: int,
        passed: Passed | None,
        lane: Lane | None,
        permit: Permit | None,
        sent_at: float,
    ) -> None:
        self.node = node
        self.load = node.load
        self.request = request
        self.ticket = ticket
        self.passed = passed
        self.lane = lane
        self.permit = permit
        self.sent_at = sent_at
