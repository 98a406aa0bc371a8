"""The engine of a client: the composed pipeline, and the state that its copies share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec.structs import astuple

from konko_async._core.config import Settings
from konko_async._core.pipeline import (
    Call,
    Handler,
    Middleware,
    Operation,
    Request,
    Response,
    compose,
    split,
)
from konko_async._core.policies import Priority, RateLimit, RetryPolicy, Timeout, TimeoutLike
from konko_async._engine.attempt import AttemptHandler, Exchange
from konko_async._engine.model_index import ModelIndex
from konko_async._engine.operations import MODELS
from konko_async._http.session import Transport
from konko_async.errors import ConfigurationError
from konko_async.limits import Limiter
from konko_async.middleware import (
    CircuitBreaker,
    CircuitBreakerMiddleware,
    Fallback,
    FallbackMiddleware,
    RetryBudget,
    RetryMiddleware,
)
from konko_async.middleware._limits import AttemptLimits
from konko_async.middleware._telemetry import AttemptLog, Telemetry, notify
from konko_async.wire import Model, ModelList
from konko_async.wire._codec import is_finite

if TYPE_CHECKING:
    from konko_async._balance.balancer import Balancer
    from konko_async._records import Observer
    from konko_async.middleware import AnswerCache
    from konko_async.middleware._retry import MayMove

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
    cache: AnswerCache | None = None
    headers: Mapping[str, str] = {}  # of a copy, beside those of the settings
    query: Mapping[str, Any] | None = None


class CallOptions(msgspec.Struct, frozen=True, gc=False):
    """The keywords that every call takes beside the API's own; checked by the resources."""

    timeout: TimeoutLike | None = None
    priority: Priority | None = None
    extra_headers: Mapping[str, str] | None = None
    extra_query: Mapping[str, str] | None = None
    extra_body: Mapping[str, Any] | None = None
    affinity: str | None = None


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
        caches: all of a client and its copies that have to be closed with it.
        budget: retries that may be made, shared by copies.
        breaker: the circuit breaker, shared by copies; None: off.
        index: the model list, shared by copies.

    Attributes:
        balancer: the endpoints; None: there is one server.
    """

    balancer: Balancer | None = None

    def __init__(
        self,
        settings: Settings,
        policies: Policies,
        transport: Transport,
        *,
        limiter: Limiter | None = None,
        limiters: list[Limiter] | None = None,
        caches: list[AnswerCache] | None = None,
        budget: RetryBudget | None = None,
        breaker: CircuitBreakerMiddleware | None = None,
        index: ModelIndex | None = None,
    ) -> None:
        self.settings = settings
        self.policies = policies
        self.transport = transport
        # One list for all copies: closing any of them closes the stores of all.
        self.limiters = [] if limiters is None else limiters
        self.caches = [] if caches is None else caches
        if policies.cache is not None and policies.cache not in self.caches:
            self.caches.append(policies.cache)
        if limiter is None:
            limiter = Limiter(policies.rate_limit, partial(notify, policies.observers))
            # Only a store holds connections; a limiter of its own has nothing to close.
            if policies.rate_limit.store is not None:
                self.limiters.append(limiter)
        self.limiter = limiter
        # Also without retries, as hedges are paid from it.
        self.budget = budget or _budget(policies.retry or _ONE_ATTEMPT)
        options = policies.circuit_breaker
        if breaker is None and options is not None:
            breaker = CircuitBreakerMiddleware(options, settings.base_url)
        self.breaker = breaker
        self.index = index or ModelIndex(self._fetch_models)
        self._telemetry = Telemetry(policies.observers, settings.base_url)
        keys = (getattr(each, "api_key", None) for each in policies.fallback_models)
        transport.secrets.put(self, [key.header() for key in keys if key is not None])
        self._handle: Handler = self._composed()

    async def _fetch_models(self) -> list[Model]:
        response, _ = await self.call(MODELS, MODELS.path, None, model=None)
        listed: ModelList = response.result
        return listed.data

    def with_policies(self, changes: dict[str, Any]) -> Engine:
        """Return an engine that shares all that ``changes`` leave as it is."""
        policies = msgspec.structs.replace(self.policies, **changes)
        limiter = None if "rate_limit" in changes else self.limiter
        return Engine(
            self.settings, policies, self.transport, limiter=limiter, **self._kept(changes)
        )

    def _kept(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Return what a copy shares: what was learned stays wherever its policy is the same."""
        return {
            "limiters": self.limiters,
            "caches": self.caches,
            "budget": None if "retry" in changes else self.budget,
            "breaker": None if "circuit_breaker" in changes else self.breaker,
            "index": self.index,
        }

    async def close(self) -> None:
        """Close the pool, and leave the stores of shared limits, for all copies; idempotent."""
        # The pool first: calls that are still open end by it, and their permits settle before
        # stores close.
        await self._close_pools()
        closing = [limiter.close() for limiter in self.limiters]
        await asyncio.gather(*closing, *(cache.close() for cache in self.caches))

    async def _close_pools(self) -> None:
        await self.transport.close()

    @property
    def transports(self) -> list[Transport]:
        """All pools of the client."""
        return [self.transport]

    @property
    def breakers(self) -> list[CircuitBreakerMiddleware]:
        """All circuit breakers of the client."""
        return [] if self.breaker is None else [self.breaker]

    @property
    def _may_move(self) -> MayMove | None:
        """Whether a retry may go to another server, at once."""
        return None

    def _attempts(self, exchange: Exchange, log: AttemptLog | None) -> Handler:
        """Return the innermost handler."""
        return AttemptHandler(
            exchange,
            log=log,
            breaker=self.breaker,
            limits=AttemptLimits(self.limiter, self.settings.fingerprint),
        )

    def _exchange(self, transport: Transport) -> Exchange:
        retry = self.policies.retry
        return Exchange(
            transport,
            max_body_bytes=self.policies.max_body_bytes,
            attempt_timeout=None if retry is None else retry.attempt_timeout,
        )

    def _composed(self) -> Handler:
        """Put the layers of a call together, outermost first."""
        policies = self.policies
        layers, outer, inner = split(policies.middleware, self.settings.base_url)
        if policies.headers or policies.query:
            layers.append(_Additions(policies.headers, policies.query))
        if policies.fallback_models:
            layers.append(FallbackMiddleware(policies.fallback_models))
        layers += outer
        exchange = self._exchange(self.transport)
        if policies.cache is not None:
            from konko_async.middleware._cache.layer import CacheMiddleware  # noqa: PLC0415 - few keep answers

            layers.append(
                CacheMiddleware(
                    policies.cache,
                    self.settings,
                    base_url=self.transport.base_url,
                    redactor=self.transport.redactor,
                    replay=exchange.replay,
                )
            )
        retry = policies.retry
        if retry is None and policies.hedge_after is not None:
            retry = _ONE_ATTEMPT  # hedges cost retry budget, which answers have to earn
        if retry is not None:
            layers.append(RetryMiddleware(retry, self.budget, may_move=self._may_move))
        if policies.hedge_after is not None:
            from konko_async.middleware import HedgeMiddleware  # noqa: PLC0415 - few clients hedge

            layers.append(HedgeMiddleware(policies.hedge_after, self.budget))
        log = AttemptLog(policies.observers, self.settings.base_url)
        # With per_attempt middleware in between, the log has to be outside of it, to count its
        # time.
        attempt = self._attempts(exchange, None if inner else log)
        return compose([*layers, log, *inner] if inner else layers, attempt)

    async def call(
        self,
        endpoint: Operation,
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
        # For records only; everything that is measured uses the loop's clock.
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
        endpoint: Operation,
        path: str,
        params: Any,
        *,
        model: str | None,
        stream: bool,
        options: CallOptions,
    ) -> Request:
        timeout = self.policies.timeout
        if options.timeout is not None:
            timeout = Timeout.of(options.timeout, timeout)
        loop, total = asyncio.get_running_loop(), timeout.total
        started = loop.time()
        if options.extra_body:
            # Merged before the request is made, so that limits, breaker and records know the model
            # that is sent.
            params = _merged(params, options.extra_body)
            model = params.get("model", model)
        request = Request(
            endpoint,
            path,
            params,
            model,
            stream,
            options.extra_headers or _NO_HEADERS,
            options.extra_query,
            timeout,
            options.priority or "interactive",
            Call(started, None if total is None else started + total, loop),
        )
        if options.extra_body:
            _check_finite(request.content, options.extra_body)
        return request


class _Additions:
    """Adds the headers and query parameters that a copy of a client has beside the client's.

    A layer, so that clients without any pay nothing.
    """

    __slots__ = ("_headers", "_query")

    def __init__(self, headers: Mapping[str, str], query: Mapping[str, Any] | None) -> None:
        self._headers = headers
        self._query = query

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        return await call_next(
            request.replace(
                headers=_joined(self._headers, request.headers) or _NO_HEADERS,
                query=_joined(self._query, request.query),
            )
        )


def _joined(default: Mapping[str, Any] | None, given: Mapping[str, Any] | None) -> Any:
    if not default or not given:
        return default or given
    # Names of headers know no case, and a call's own win.
    taken = {name.lower() for name in given}
    return {**{n: value for n, value in default.items() if n.lower() not in taken}, **given}


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
    # By wire names, since extra_body may override any field by the name that the server knows.
    names, values = params.__struct_encode_fields__, astuple(params)
    body = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return {**body, **extra}


def _check_finite(content: Any, extra: Mapping[str, Any]) -> None:
    """Refuse NaN and infinities in an ``extra_body``.

    Raises:
        ConfigurationError: there are some.
    """
    # The encoder writes them as null, which the body of nearly no request has: a search in C.
    if (type(content) is not bytes or b"null" in content) and not is_finite(dict(extra)):
        raise ConfigurationError("extra_body holds NaN or an infinity, which JSON cannot carry")


def _budget(retry: RetryPolicy) -> RetryBudget | None:
    if retry.budget_ratio is None:
        return None
    return RetryBudget(retry.budget_ratio, retry.budget_size)
