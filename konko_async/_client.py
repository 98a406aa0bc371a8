"""The client: wiring and lifetime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from konko_async._engine import Engine, Policies
from konko_async._options import RateLimit, RetryPolicy, Timeout
from konko_async._records import PoolStats
from konko_async._secret import masked
from konko_async._settings import masked_values, resolve
from konko_async._transport import Transport
from konko_async.errors import ConfigurationError
from konko_async.middleware import CircuitBreaker, Fallback
from konko_async.resources import Chat, Completions, Embeddings, Models

if TYPE_CHECKING:
    from types import TracebackType

    import aiohttp

    from konko_async._pipeline import Middleware
    from konko_async._records import Observer
    from konko_async.limits import Limits
    from konko_async.middleware import CircuitState

__all__ = ["AsyncKonko"]

_UNSET: Any = msgspec.UNSET
_DEFAULT_TIMEOUT = Timeout()
_DEFAULT_RETRY = RetryPolicy()
_DEFAULT_LIMIT = RateLimit()
_DEFAULT_BREAKER = CircuitBreaker()
_MAX_BODY = 256 * 1024 * 1024


class AsyncKonko:
    """A client of the Konko API, or of any server that speaks OpenAI's chat API.

    Creating one does no I/O and needs no running event loop. Use ``async with``, or call
    :meth:`close` at the end. One client serves any number of calls at once.

    Args:
        api_key: else the environment's ``KONKO_API_KEY``.
        base_url: else ``KONKO_BASE_URL``, then ``KONKO_API_BASE``, then
            ``https://api.konko.ai/v1``.
        openai_api_key: for OpenAI models that Konko proxies. The environment's ``OPENAI_API_KEY``
            is used only where the base URL's host is konko.ai or below it.
        timeout: deadlines; a number is the total in seconds.
        retry: what is tried again and when; None: nothing.
        rate_limit: what this client may ask of a server, per model and key.
        middleware: the user's own, outermost first; see :func:`~konko_async.per_attempt`.
        observers: called with one frozen record per call and per attempt.
        fallback_models: model ids, or :class:`Fallback` values with another server, tried in turn
            when all attempts at the first have failed before the first token.
        hedge_after: seconds (or ``"p95"`` of what was seen) without a first token after which a
            second attempt is started beside the first; None: never.
        circuit_breaker: when to stop asking a server that keeps failing; None: never.
        verify_models: check ids and kinds against the model list, fetched once, before a call.
        default_headers: sent with every request.
        session: an ``aiohttp.ClientSession`` of the user's, which is then never closed here.
        max_body_bytes: cap of a whole answer after decompression. Default 256 MiB.
        allow_http: whether plain http may leave this machine. Default False.

    Raises:
        ConfigurationError: no key, or an option that cannot be used.

    Example:
        >>> async def main() -> None:
        ...     async with AsyncKonko() as client:
        ...         completion = await client.chat.completions.create(
        ...             model="codellama/codellama-13b-instruct",
        ...             messages=[{"role": "user", "content": "Write a haiku about sockets."}],
        ...         )
        ...         print(completion.choices[0].message.content)
    """

    chat: Chat
    completions: Completions
    embeddings: Embeddings
    models: Models

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        openai_api_key: str | None = None,
        *,
        timeout: float | Timeout | None = None,
        retry: RetryPolicy | None = _DEFAULT_RETRY,
        rate_limit: RateLimit | None = _DEFAULT_LIMIT,
        middleware: Sequence[Middleware] = (),
        observers: Sequence[Observer] = (),
        fallback_models: Sequence[str | Fallback] = (),
        hedge_after: float | Literal["p95"] | None = None,
        circuit_breaker: CircuitBreaker | None = _DEFAULT_BREAKER,
        verify_models: bool = False,
        default_headers: Mapping[str, str] | None = None,
        session: aiohttp.ClientSession | None = None,
        max_body_bytes: int = _MAX_BODY,
        allow_http: bool = False,
    ) -> None:
        # At once: a traceback of whatever fails below may show the locals of this frame.
        api_key, openai_api_key = masked(api_key), masked(openai_api_key)
        default_headers = masked_values(default_headers)
        settings = resolve(
            api_key=api_key,
            base_url=base_url,
            openai_api_key=openai_api_key,
            default_headers=default_headers,
            allow_http=allow_http,
        )
        policies = Policies(
            timeout=Timeout.of(timeout, _DEFAULT_TIMEOUT),
            retry=_checked("retry", retry, RetryPolicy),
            rate_limit=_checked("rate_limit", rate_limit, RateLimit) or _DEFAULT_LIMIT,
            middleware=tuple(middleware),
            observers=_observers(observers),
            fallback_models=_models(fallback_models),
            hedge_after=hedge_after,
            circuit_breaker=_checked("circuit_breaker", circuit_breaker, CircuitBreaker),
            verify_models=verify_models,
            max_body_bytes=_body_cap(max_body_bytes),
        )
        self._use(Engine(settings, policies, Transport(settings, session)), owner=True)

    def _use(self, engine: Engine, *, owner: bool) -> None:
        self._engine = engine
        self._owner = owner
        self.chat = Chat(self._get_engine)
        self.completions = Completions(self._get_engine)
        self.embeddings = Embeddings(self._get_engine)
        self.models = Models(self._get_engine)

    def _get_engine(self) -> Engine:
        return self._engine

    def with_options(
        self,
        *,
        timeout: float | Timeout | None = _UNSET,
        retry: RetryPolicy | None = _UNSET,
        rate_limit: RateLimit | None = _UNSET,
        middleware: Sequence[Middleware] = _UNSET,
        observers: Sequence[Observer] = _UNSET,
        fallback_models: Sequence[str | Fallback] = _UNSET,
        hedge_after: float | Literal["p95"] | None = _UNSET,
        circuit_breaker: CircuitBreaker | None = _UNSET,
        verify_models: bool = _UNSET,
    ) -> AsyncKonko:
        """Return a cheap copy with these options changed.

        The copy shares the connection pool, and the limits, retry budget and circuit breaker
        unless it is given others. Closing the copy leaves the pool open; closing the original
        closes it for both.

        Raises:
            ConfigurationError: an option cannot be used.
        """
        engine = self._engine
        changes: dict[str, Any] = {}
        if timeout is not _UNSET:
            changes["timeout"] = Timeout.of(timeout, _DEFAULT_TIMEOUT)
        if retry is not _UNSET:
            changes["retry"] = _checked("retry", retry, RetryPolicy)
        if rate_limit is not _UNSET:
            limit = _checked("rate_limit", rate_limit, RateLimit)
            changes["rate_limit"] = limit or _DEFAULT_LIMIT
        if middleware is not _UNSET:
            changes["middleware"] = tuple(middleware)
        if observers is not _UNSET:
            changes["observers"] = _observers(observers)
        if fallback_models is not _UNSET:
            changes["fallback_models"] = _models(fallback_models)
        if hedge_after is not _UNSET:
            changes["hedge_after"] = hedge_after
        if circuit_breaker is not _UNSET:
            changes["circuit_breaker"] = _checked(
                "circuit_breaker", circuit_breaker, CircuitBreaker
            )
        if verify_models is not _UNSET:
            changes["verify_models"] = verify_models
        copy = object.__new__(type(self))
        copy._use(engine.with_policies(changes), owner=False)
        return copy

    @property
    def base_url(self) -> str:
        """Where requests go, without a slash at the end."""
        return self._engine.settings.base_url

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is told of calls and attempts."""
        return tuple(self._engine.policies.observers)

    @property
    def rate_limit(self) -> RateLimit:
        """The limits that this client was given."""
        return self._engine.policies.rate_limit

    @property
    def limits(self) -> Limits:
        """What of the limits is used, waiting and learned, per model."""
        return self._engine.limiter.snapshot()

    @property
    def middleware(self) -> tuple[Middleware, ...]:
        """The user's own layers, as they were given."""
        return tuple(self._engine.policies.middleware)

    @property
    def pool(self) -> PoolStats:
        """The connections there are now; those of a ``session=`` with all that it is used for."""
        in_use, idle = self._engine.transport.connections
        return PoolStats(in_use=in_use, idle=idle)

    @property
    def circuits(self) -> tuple[CircuitState, ...]:
        """The circuits that calls have used: one per origin, and one per model there."""
        breaker = self._engine.breaker
        return () if breaker is None else breaker.states()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has been called (on this client or on the original of a copy)."""
        return self._engine.transport.closed

    async def close(self) -> None:
        """Close the pool: streams still open are cut. Idempotent; a copy closes nothing."""
        if self._owner:
            await self._engine.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        engine = getattr(self, "_engine", None)  # a traceback may show one that was never made
        where = "not made" if engine is None else f"base_url={engine.settings.base_url!r}"
        return f"<{type(self).__name__} {where}>"


def _checked(name: str, value: Any, kind: type) -> Any:
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
    return value


def _observers(observers: Sequence[Observer]) -> tuple[Observer, ...]:
    for observer in observers:
        if not callable(observer):
            raise ConfigurationError(f"observer {type(observer).__name__} is not callable")
    return tuple(observers)


def _models(models: Sequence[str | Fallback]) -> tuple[str | Fallback, ...]:
    if isinstance(models, str):
        raise ConfigurationError("fallback_models must be a list of model ids, not one string")
    return tuple(models)


def _body_cap(value: Any) -> Any:
    if not isinstance(value, int) or value < 1:
        raise ConfigurationError("max_body_bytes must be an integer of at least 1")
    return value
