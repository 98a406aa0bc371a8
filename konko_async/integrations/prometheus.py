"""Prometheus: the metrics of calls that an operator graphs.

Needs the extra ``prometheus``: ``pip install 'konko-async[prometheus]'``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, overload
from weakref import WeakSet

from konko_async import (
    AsyncKonko,
    Attempt,
    CallRecord,
    ConfigurationError,
    Handler,
    Middleware,
    Request,
    Response,
    StoreRecord,
)

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError:  # pragma: no cover - said in words
    raise ConfigurationError(
        "this needs the extra `prometheus`: pip install 'konko-async[prometheus]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

__all__ = ["PrometheusObserver"]

_CALLS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_FIRST: Final = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60, 120)
_WAITS: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_OTHER: Final = "other"
_RATE_LIMITED: Final = 429
_TRIES: Final = 5
_OPEN: Final = {"closed": 0.0, "half_open": 0.5, "open": 1.0}
_STATES: Final = {
    "limit_waiting": ("Attempts that wait for the local limits", ["model"]),
    "limit_in_flight": ("Attempts that the local limits have let through", ["model"]),
    "limit_used_ratio": ("Share of a limit that is used", ["model", "quantity"]),
    "limit_paused_seconds": ("Time until the cool-down after a rejection ends", ["model"]),
    "circuit_open": ("1 open, 0.5 half open, 0 closed", ["origin", "model"]),
    "connections": ("Connections to servers", ["state"]),
}
# Name, labels, value, and how those of several clients are put together.
_Value = tuple[str, tuple[str, ...], float, "Callable[[float, float], float]"]


class PrometheusObserver:
    """Counts and measures the calls of clients.

    ```python
    metrics = PrometheusObserver()
    client = AsyncKonko(observers=[metrics], middleware=[metrics])
    metrics.watch(client)
    ```

    As an observer it counts what has ended; as a middleware also what is in flight (leave it out,
    and that gauge stays 0); ``watch()`` adds the state of limits and circuits at each scrape.

    =============================================  =========  =====================================
    Metric                                         Labels     What it counts
    =============================================  =========  =====================================
    ``konko_calls_total``                          a, outcome Calls; outcome as in the record.
    ``konko_call_errors_total``                    a, error   Calls that failed, by exception.
    ``konko_attempts_total``                       a, status  Attempts, by HTTP status or exception.
    ``konko_retries_total``                        a          Attempts after a call's first.
    ``konko_hedges_total``                         a          Second attempts beside a slow first.
    ``konko_rate_limited_total``                   a          Attempts that were answered with 429.
    ``konko_call_duration_seconds``                a          To the end of the answer or stream.
    ``konko_time_to_first_token_seconds``          a          Of streams.
    ``konko_limiter_wait_seconds``                 a          Waits of attempts for local limits.
    ``konko_connect_seconds``                      (none)     Making new connections.
    ``konko_tokens_total``                         a, kind    Kind: prompt, completion, cached,
                                                              reasoning, or estimated_prompt and
                                                              estimated_completion of streams whose
                                                              usage the server did not report.
    ``konko_in_flight``                            a          Calls under way.
    ``konko_limit_waiting``                        model      Attempts that wait for the limits.
    ``konko_limit_in_flight``                      model      Attempts that they have let through.
    ``konko_limit_used_ratio``                     model,     Share of a limit that is used;
                                                   quantity   quantity: requests or tokens.
    ``konko_limit_paused_seconds``                 model      Until a cool-down after a 429 ends.
    ``konko_circuit_open``                         origin,    1 open, 0.5 half open, 0 closed.
                                                   model
    ``konko_connections``                          state      State: in_use or idle.
    ``konko_limit_store_up``                       (none)     0 while the store of shared limits is
                                                              away.
    =============================================  =========  =====================================

    Here *a* is ``operation`` and ``model``. Labels stay few: models beyond the first
    ``max_models`` are counted as ``other``, so that ids which come from users cannot fill a server
    with time series. Keys, prompts and tenants are in no label.

    Args:
        registry: where the metrics are registered; None: the global one of ``prometheus_client``.
        namespace: how names begin. Default ``konko``.
        models: the models that have a label of their own; None: the first ``max_models`` that are
            called.
        max_models: see above. Default 50.
        call_buckets: upper bounds of the histogram of calls, in seconds.
        first_token_buckets: of that to the first token, in seconds.

    Raises:
        ConfigurationError: an argument cannot be used.
        ValueError: the registry has metrics of this name; use one observer for all clients.
    """

    wants_estimates = True

    def __init__(
        self,
        *,
        registry: CollectorRegistry | None = None,
        namespace: str = "konko",
        models: Iterable[str] | None = None,
        max_models: int = 50,
        call_buckets: Sequence[float] = _CALLS,
        first_token_buckets: Sequence[float] = _FIRST,
    ) -> None:
        if max_models < 1:
            raise ConfigurationError("PrometheusObserver: max_models must be at least 1")
        self.registry = REGISTRY if registry is None else registry
        self._models = set() if models is None else set(models)
        self._room = max_models if models is None else 0
        self._make(namespace, call_buckets, first_token_buckets)
        self._states = _States(namespace, self._label)
        self.registry.register(self._states)

    def _make(self, namespace: str, calls: Sequence[float], first: Sequence[float]) -> None:
        about = ("operation", "model")
        common: dict[str, Any] = {"namespace": namespace, "registry": self.registry}

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(name, text, (*about, *more), **common)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, text, about, buckets=buckets, **common)

        self._calls = counter("calls", "Calls that have ended", "outcome")
        self._errors = counter("call_errors", "Calls that failed, by exception", "error")
        self._attempts = counter("attempts", "Attempts, by HTTP status or exception", "status")
        self._retries = counter("retries", "Attempts after a call's first")
        self._hedges = counter("hedges", "Second attempts beside a slow first one")
        self._limited = counter("rate_limited", "Attempts that were answered with status 429")
        self._tokens = counter("tokens", "Tokens of prompts and answers", "kind")
        self._duration = histogram(
            "call_duration_seconds", "Duration of calls, to the end of the answer", calls
        )
        self._first = histogram(
            "time_to_first_token_seconds", "Time to the first token of streams", first
        )
        self._waits = histogram(
            "limiter_wait_seconds", "Time that attempts waited for the local limits", _WAITS
        )
        self._connect = Histogram(
            "connect_seconds", "Time that new connections took", buckets=_WAITS, **common
        )
        self._in_flight = Gauge("in_flight", "Calls under way", about, **common)
        self._store = Gauge(
            "limit_store_up", "Whether the store of shared limits answers", **common
        )
        self._store.set(1)

    def watch(self, client: AsyncKonko) -> None:
        """Show the limits and circuits of a client, read at each scrape; held by a weak reference.

        Copies share them: watch the original only.
        """
        self._states.clients.add(client)

    def _label(self, model: str | None) -> str:
        if model is None:
            return ""
        if model not in self._models:
            if len(self._models) >= self._room:
                return _OTHER
            self._models.add(model)
        return model

    # -- as an observer ------------------------------------------------------------------------

    @overload
    def __call__(self, record: CallRecord | Attempt | StoreRecord, /) -> None: ...

    @overload
    def __call__(self, request: Request, call_next: Handler) -> Coroutine[Any, Any, Response]: ...

    def __call__(self, request: Any, call_next: Any = None) -> Any:
        """Count a record (as an observer), or a call under way (as a middleware)."""
        if call_next is not None:
            return self._around(request, call_next)
        record = request
        if isinstance(record, CallRecord):
            self._call(record)
        elif isinstance(record, StoreRecord):
            self._store.set(record.state == "back")
        return None

    def _call(self, record: CallRecord) -> None:
        about = (record.operation, self._label(record.model))
        self._calls.labels(*about, record.outcome).inc()
        if record.outcome == "error":
            self._errors.labels(*about, record.error_type or _OTHER).inc()
        self._duration.labels(*about).observe(record.duration)
        if record.stream and record.time_to_first_token is not None:
            self._first.labels(*about).observe(record.time_to_first_token)
        for kind in ("prompt", "completion", "cached", "reasoning"):
            self._count(about, kind, getattr(record, f"{kind}_tokens"))
        for kind in ("estimated_prompt", "estimated_completion"):
            self._count(about, kind, getattr(record, f"{kind}_tokens"))
        # Not as they come: an attempt does not say of which kind of call it is.
        for attempt in record.attempts:
            self._attempt((record.operation, self._label(attempt.model)), attempt)

    def _count(self, about: tuple[str, str], kind: str, tokens: int | None) -> None:
        if tokens:
            self._tokens.labels(*about, kind).inc(tokens)

    def _attempt(self, about: tuple[str, str], attempt: Attempt) -> None:
        status = attempt.status_code
        what = attempt.error_type if status is None else str(status)
        self._attempts.labels(*about, what or _OTHER).inc()
        if attempt.hedge:
            self._hedges.labels(*about).inc()
        elif attempt.number > 1:
            self._retries.labels(*about).inc()
        if status == _RATE_LIMITED:
            self._limited.labels(*about).inc()
        self._waits.labels(*about).observe(attempt.queued)
        if attempt.connect is not None:
            self._connect.observe(attempt.connect)

    # -- as a middleware -----------------------------------------------------------------------

    def layers(self, base_url: str) -> tuple[Middleware, None]:  # noqa: ARG002 - Instrumentation's
        """Return what goes around each call; attempts are counted by their records."""
        return self._around, None

    async def _around(self, request: Request, call_next: Handler) -> Response:
        gauge = self._in_flight.labels(request.operation.name, self._label(request.model))
        gauge.inc()
        try:
            response = await call_next(request)
        except BaseException:
            gauge.dec()
            raise
        response.on_close(lambda _: gauge.dec())
        return response


class _States(Collector):
    """The state of clients at each scrape.

    Args:
        namespace: how names begin.
        label: makes a label of a model's id.
    """

    def __init__(self, namespace: str, label: Callable[[str | None], str]) -> None:
        self._namespace = namespace
        self._label = label
        self.clients: WeakSet[AsyncKonko] = WeakSet()

    def describe(self) -> Iterable[Metric]:
        """Return the families without values."""
        return self._families().values()

    def collect(self) -> Iterable[Metric]:
        """Read the clients."""
        found: dict[tuple[str, tuple[str, ...]], float] = {}
        for client in list(self.clients):
            for name, labels, value, how in _state_of(client, self._label):
                key = name, labels
                found[key] = how(found[key], value) if key in found else value
        families = self._families()
        for (name, labels), value in found.items():
            families[name].add_metric(labels, value)
        return families.values()

    def _families(self) -> dict[str, GaugeMetricFamily]:
        return {
            name: GaugeMetricFamily(f"{self._namespace}_{name}", text, labels=labels)
            for name, (text, labels) in _STATES.items()
        }


def _state_of(client: AsyncKonko, label: Callable[[str | None], str]) -> list[_Value]:
    """Read a client; the scrape may come from a thread, while the client's loop runs."""
    for _ in range(_TRIES):
        try:
            limits, circuits, pool = client.limits, client.circuits, client.pool
        except RuntimeError:  # a model was called for the first time meanwhile
            continue
        break
    else:
        return []
    values: list[_Value] = [
        ("connections", ("in_use",), pool.in_use, _sum),
        ("connections", ("idle",), pool.idle, _sum),
    ]
    for lane in limits.lanes:
        model = (label(lane.model),)
        values += [
            ("limit_waiting", model, lane.waiting.interactive + lane.waiting.batch, _sum),
            ("limit_in_flight", model, lane.in_flight, _sum),
            ("limit_paused_seconds", model, lane.paused_for, max),
        ]
        for quantity, state in (("requests", lane.requests), ("tokens", lane.tokens)):
            if state.limit:
                share = state.used / state.limit
                values.append(("limit_used_ratio", (*model, quantity), share, max))
    for circuit in circuits:
        where = (circuit.origin, label(circuit.model))
        values.append(("circuit_open", where, _OPEN[circuit.state], max))
    return values


def _sum(one: float, other: float) -> float:
    return one + other
