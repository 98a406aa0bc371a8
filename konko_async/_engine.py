"""What a client and its resources run on: the composed pipeline, and what its copies share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from konko_async._attempt import Attempt
from konko_async._exchange import Exchange
from konko_async._operations import MODELS, Endpoint
from konko_async._options import Priority, RateLimit, RetryPolicy, Timeout
from konko_async._pipeline import Call, Handler, Middleware, Request, Response, compose, split
from konko_async._settings import Settings
from konko_async._transport import Transport
from konko_async._verify import ModelIndex
from konko_async.errors import ConfigurationError
from konko_async.limits import Limiter
from konko_async.middleware import (
    CircuitBreaker,
    CircuitBreakerMiddleware,
    Fallback,
    FallbackMiddleware,
    HedgeMiddleware,
    RetryBudget,
    RetryMiddleware,
)
from konko_async.middleware._limits import AttemptLimits
from konko_async.middleware._telemetry import AttemptLog, Telemetry, notify
from konko_async.wire import Model, ModelList
from konko_async.wire._codec import is_finite

if TYPE_CHECKING:
    from konko_async._records import Observer

__all__ = ["NO_OPTIONS", "CallOptions", "Engine", "Policies"]


class Policies(msgspec.Struct, frozen=True, kw_only=True):
    """How calls are made; everything that ``with_options`` may change."""

    timeout: Timeout
    retry: RetryPolicy | None
    rate_limit: RateLimit
    middleware: Sequence[Middleware]
    observers: Sequence[Observer]
    fallback_models: Sequence[str | Fallback]
    hedge_after: float | Literal["p95"] | None
    circuit_breaker: CircuitBreaker | None
    verify_models: bool
    max_body_bytes: int


class CallOptions(msgspec.Struct, frozen=True, gc=False):
    """The keywords that every call takes beside the API's own; checked by the resources."""

    timeout: float | Timeout | None = None
    priority: Priority | None = None
    extra_headers: Mapping[str, str] | None = None
    extra_query: Mapping[str, str] | None = None
    extra_body: Mapping[str, Any] | None = None


NO_OPTIONS = CallOptions()
_NO_HEADERS: dict[str, str] = {}
_ONE_ATTEMPT = RetryPolicy(max_attempts=1)


class Engine:
    """Runs calls through the pipeline.

    Args:
        settings: where requests go.
        policies: how.
        transport: the pool, shared by copies.
        limiter: what limits calls, shared by copies that do not change ``rate_limit``.
        limiters: all of a client and its copies that have to be closed with it.
        budget: retries that may be made, shared likewise.
        breaker: the circuit breaker, shared likewise; None: off.
    """

    def __init__(
        self,
        settings: Settings,
        policies: Policies,
        transport: Transport,
        *,
        limiter: Limiter | None = None,
        limiters: list[Limiter] | None = None,
        budget: RetryBudget | None = None,
        breaker: CircuitBreakerMiddleware | None = None,
        index: ModelIndex | None = None,
    ) -> None:
        self.settings = settings
        self.policies = policies
        self.transport = transport
        self.limiters = [] if limiters is None else limiters
        if limiter is None:
            limiter = Limiter(policies.rate_limit, partial(notify, policies.observers))
            if policies.rate_limit.store is not None:
                self.limiters.append(limiter)
        self.limiter = limiter
        self.budget = budget or _budget(policies.retry or _ONE_ATTEMPT)
        options = policies.circuit_breaker
        if breaker is None and options is not None:
            breaker = CircuitBreakerMiddleware(options, settings.base_url)
        self.breaker = breaker
        self.index = index or ModelIndex(self._fetch_models)
        self._telemetry = Telemetry(policies.observers, settings.base_url)
        self._handle: Handler = self._composed()

    async def _fetch_models(self) -> list[Model]:
        response, _ = await self.call(MODELS, MODELS.path, None, model=None)
        listed: ModelList = response.result
        return listed.data

    def with_policies(self, changes: dict[str, Any]) -> Engine:
        """Return an engine that shares all that ``changes`` leave as it is."""
        return Engine(
            self.settings,
            msgspec.structs.replace(self.policies, **changes),
            self.transport,
            limiter=None if "rate_limit" in changes else self.limiter,
            limiters=self.limiters,
            budget=None if "retry" in changes else self.budget,
            breaker=None if "circuit_breaker" in changes else self.breaker,
            index=self.index,
        )

    async def close(self) -> None:
        """Close the pool, and leave the stores of shared limits, for all copies; idempotent."""
        await self.transport.close()
        await asyncio.gather(*(limiter.close() for limiter in self.limiters))

    def _exchange(self) -> Exchange:
        retry = self.policies.retry
        return Exchange(
            self.transport,
            max_body_bytes=self.policies.max_body_bytes,
            attempt_timeout=None if retry is None else retry.attempt_timeout,
        )

    def _composed(self) -> Handler:
        """Put the layers of a call together, outermost first."""
        policies = self.policies
        outer, inner = split(policies.middleware)
        layers: list[Middleware] = []
        if policies.fallback_models:
            layers.append(FallbackMiddleware(policies.fallback_models))
        layers += outer
        retry = policies.retry
        if retry is None and policies.hedge_after is not None:
            retry = _ONE_ATTEMPT  # hedges cost retry budget, which answers have to earn
        if retry is not None:
            layers.append(RetryMiddleware(retry, self.budget))
        if policies.hedge_after is not None:
            layers.append(HedgeMiddleware(policies.hedge_after, self.budget))
        log = AttemptLog(policies.observers)
        attempt = Attempt(
            self._exchange(),
            log=None if inner else log,
            breaker=self.breaker,
            limits=AttemptLimits(self.limiter, self.settings.api_key.fingerprint),
        )
        return compose([*layers, log, *inner] if inner else layers, attempt)

    async def call(
        self,
        endpoint: Endpoint,
        path: str,
        params: Any,
        *,
        model: str | None,
        stream: bool = False,
        options: CallOptions = NO_OPTIONS,
    ) -> tuple[Response, Call]:
        """Make one call.

        Returns:
            The response (decoded, or with its stream open) and what is known of the call.

        Raises:
            KonkoError: what went wrong, with the attempts made.
        """
        request = self._request(endpoint, path, params, model=model, stream=stream, options=options)
        call = request.call
        started_at = time.time()
        kept: Response | None = None
        try:
            response = await self._handle(request)
            kept = _usable(response, stream=stream)
            self._telemetry.answered(request, kept, started_at)
        except BaseException as error:
            self._telemetry.failed(request, error, started_at)
            raise
        finally:
            if call.open_responses:
                call.hand_on(kept)
        return kept, call

    def _request(
        self,
        endpoint: Endpoint,
        path: str,
        params: Any,
        *,
        model: str | None,
        stream: bool,
        options: CallOptions,
    ) -> Request:
        timeout = Timeout.of(options.timeout, self.policies.timeout)
        if options.extra_body:
            params = _merged(params, options.extra_body)
            model = params.get("model", model)
        return Request(
            operation=endpoint,
            path=path,
            params=params,
            model=model,
            stream=stream,
            headers=options.extra_headers or _NO_HEADERS,
            query=options.extra_query,
            timeout=timeout,
            priority=options.priority or "interactive",
            call=Call(asyncio.get_running_loop().time(), timeout.total),
        )


def _usable(response: Any, *, stream: bool) -> Response:
    """Check what came out of the user's middleware.

    Raises:
        ConfigurationError: it lost the response, or swapped it for one of another kind.
    """
    if not isinstance(response, Response):
        raise ConfigurationError(
            f"middleware returned {type(response).__name__} instead of the response: "
            "'return await call_next(request)'"
        )
    if (response.stream is None) == stream:
        kind = "a stream was asked for" if stream else "no stream was asked for"
        raise ConfigurationError(f"middleware returned a response of the wrong kind: {kind}")
    return response


def _merged(params: Any, extra: Mapping[str, Any]) -> dict[str, Any]:
    if not is_finite(dict(extra)):
        raise ConfigurationError("extra_body holds NaN or an infinity, which JSON cannot carry")
    body: dict[str, Any] = {}
    for name, wire_name in zip(
        params.__struct_fields__, params.__struct_encode_fields__, strict=True
    ):
        value = getattr(params, name)
        if value is not None and value is not False:
            body[wire_name] = value
    return {**body, **extra}


def _budget(retry: RetryPolicy) -> RetryBudget | None:
    if retry.budget_ratio is None:
        return None
    return RetryBudget(retry.budget_ratio, retry.budget_size)
