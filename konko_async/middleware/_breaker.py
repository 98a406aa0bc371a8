"""The circuit breaker: after many failures, only a few probes reach the server."""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from konko_async._core.classification import classify
from konko_async.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    APITimeoutError,
    CircuitOpenError,
    StreamServerError,
)
from konko_async.middleware._circuit import Circuit, CircuitBreaker, CircuitState

if TYPE_CHECKING:
    from konko_async._core.pipeline import Handler, Request, Response

__all__ = ["CircuitBreakerMiddleware", "Passed", "judge", "origin_of"]

_log = logging.getLogger("konko_async.breaker")

# Models' names may come from a user's users: the oldest circuits are forgotten beyond this.
_MOST_CIRCUITS = 1024
_FIRST_SERVER_ERROR = 500
_TOO_MANY = 429


class _Verdict(NamedTuple):
    """What an error says about health: True well, False ill, None nothing."""

    host: bool | None
    model: bool | None


_NOTHING = _Verdict(None, None)

Passed = tuple[Circuit, int, Circuit, int]
"""The circuits that an attempt passed, of its origin and its model, each with its ticket."""


class CircuitBreakerMiddleware:
    """Refuses attempts with :class:`~konko_async.CircuitOpenError` while a server is ill.

    There is a circuit for each origin, which opens on connections that fail (refused, reset, DNS,
    timeouts of the connect phase), and one for each model of it, which opens on 5xx, answers cut
    short or unreadable, error events of the server and timeouts of the first token. So one model's
    sick backend does not close the way to the others, which may be its fallbacks.

    4xx, 429, cancellations, refusals of the local limits and ``Timeout.total`` say nothing of the
    server's health and are not counted as failures. A stream counts at its first delta.

    Args:
        options: when to open and how to recover.
        base_url: where requests without a ``target`` of their own go.
    """

    __slots__ = ("_base_url", "_circuits", "_options", "_ways")

    def __init__(self, options: CircuitBreaker, base_url: str) -> None:
        self._options = options
        self._base_url = base_url
        self._circuits: dict[tuple[str, str | None], Circuit] = {}
        # What _find_way() found, of requests to the client's own server; emptied with any circuit.
        self._ways: dict[str, tuple[Circuit, Circuit]] = {}

    def states(self) -> tuple[CircuitState, ...]:
        """Return the state of each circuit that has been used; ``model`` is None for origins.

        Outside a running event loop the time is not known: waits are then as of the last call.
        """
        try:
            now = asyncio.get_running_loop().time()
        except RuntimeError:
            now = None
        return tuple(circuit.snapshot(now) for circuit in self._circuits.values())

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Send ``request`` unless a circuit on its way is open.

        Raises:
            CircuitOpenError: it is; nothing was sent.
        """
        loop = asyncio.get_running_loop()
        passed = self.enter(request, loop.time())
        try:
            response = await call_next(request)
        except BaseException as error:
            self.failed(passed, error, loop.time())
            raise
        self.answered(passed, loop.time())
        return response

    def enter(self, request: Request, now: float) -> Passed:
        """Let an attempt pass; :meth:`answered` or :meth:`failed` ends it.

        Raises:
            CircuitOpenError: a circuit on its way is open.
        """
        # The origin first: while it is unreachable, a probe of the model's circuit would be wasted.
        way = self._ways.get(request.model or "") if request.target is None else None
        host, model = way or self._find_way(request)
        host_ticket = host.ticket or host.enter(now)
        if host_ticket is None:
            raise self._refusal(host, now)
        model_ticket = model.ticket or model.enter(now)
        if model_ticket is None:
            # The origin's ticket goes back without a verdict, or a probe's slot would stay taken.
            host.leave(host_ticket)
            raise self._refusal(model, now)
        return host, host_ticket, model, model_ticket

    def answered(self, passed: Passed, now: float) -> None:
        """End an attempt that was answered: all is well."""
        host, host_ticket, model, model_ticket = passed
        if host.answered(host_ticket, now):
            self._changed(host.snapshot(now))
        if model.answered(model_ticket, now):
            self._changed(model.snapshot(now))

    def failed(self, passed: Passed, error: BaseException, now: float) -> None:
        """End an attempt that failed."""
        verdict, reason = _NOTHING, ""
        if isinstance(error, APIError):
            verdict, reason = judge(error), type(error).__name__
        # Also for a cancellation: a probe that ends without a verdict gives its slot back.
        host, host_ticket, model, model_ticket = passed
        self._report(host, host_ticket, verdict.host, now, reason)
        self._report(model, model_ticket, verdict.model, now, reason)

    def _find_way(self, request: Request) -> tuple[Circuit, Circuit]:
        model = request.model or ""
        base_url = getattr(request.target, "base_url", None) or self._base_url
        origin = origin_of(base_url)
        way = self._circuit(origin, None), self._circuit(origin, model)
        if request.target is None:
            self._ways[model] = way
        return way

    def _circuit(self, origin: str, model: str | None) -> Circuit:
        key = origin, model
        circuit = self._circuits.get(key)
        if circuit is None:
            if len(self._circuits) >= _MOST_CIRCUITS:
                del self._circuits[next(iter(self._circuits))]
                # It may hold the circuit that was just forgotten, which nobody would see in
                # states().
                self._ways.clear()
            circuit = self._circuits[key] = Circuit(self._options, origin, model)
        return circuit

    def _report(
        self, circuit: Circuit, ticket: int, well: bool | None, now: float, reason: str
    ) -> None:
        if well is None:
            circuit.leave(ticket)
        elif circuit.record(ticket, now, well=well, reason=reason):
            self._changed(circuit.snapshot(now))

    def _changed(self, state: CircuitState) -> None:
        level = logging.WARNING if state.state == "open" else logging.INFO
        _log.log(level, "circuit of %s is %s", state.name, state.state)
        if self._options.on_change is None:
            return
        try:
            self._options.on_change(state)
        except Exception:  # noqa: BLE001  # a hook is the user's code: whatever it raises
            _log.exception("CircuitBreaker.on_change failed; the call goes on")

    def _refusal(self, circuit: Circuit, now: float) -> CircuitOpenError:
        state = circuit.snapshot(now)
        return CircuitOpenError(
            f"not sent: the circuit of {state.name} is {state.state.replace('_', '-')} after "
            f"{state.failures} of {state.calls} attempts within {self._options.window:g} s failed, "
            f"the last with {state.reason}; next probe in {state.retry_after:.1f} s",
            retry_after=state.retry_after,
        )


def judge(error: APIError) -> _Verdict:
    """Judge the health of the origin and the model by an attempt's error."""
    # Whatever answered, even with an error, shows that the origin is there.
    host: bool | None = True
    model: bool | None = False
    if isinstance(error, APITimeoutError):
        # A slow first token is the model's, and Timeout.total is the caller's own choice.
        host = False if error.phase == "connect" else None
        model = False if error.phase == "first_token" else None
    elif isinstance(error, APIConnectionError):
        # What no retry can mend, such as a bad certificate, is better reported each time.
        host, model = False if error.retryable else None, None
    elif isinstance(error, (APIStatusError, StreamServerError)):
        found = classify(error)
        # A 4xx is an answer of a backend in good health; a 429 may come from a gateway in front of
        # it.
        if isinstance(error, APIStatusError) and error.status_code < _FIRST_SERVER_ERROR:
            model = None if found.status == _TOO_MANY else True
        # A 5xx for an input that the server cannot take: the same would happen to a healthy one.
        elif found.blames_request:
            model = None
    return _Verdict(host, model)


@lru_cache(maxsize=_MOST_CIRCUITS)
def origin_of(base_url: str) -> str:
    """Return scheme, host and port of a base URL."""
    url = urlsplit(base_url)
    return f"{url.scheme}://{url.netloc}"
