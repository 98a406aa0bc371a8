"""The client that users create: reads its arguments, wires the parts, owns their lifetime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from konko_async._core.config import check_headers, check_query, masked_values, resolve
from konko_async._core.key_source import KeySource
from konko_async._core.misuse import AsyncContextOnly
from konko_async._core.not_given import given_or, is_marker
from konko_async._core.policies import RateLimit, RetryPolicy, Timeout
from konko_async._core.secret import masked
from konko_async._engine.engine import Engine, Policies
from konko_async._http.session import Transport
from konko_async._records import PoolStats
from konko_async.errors import ConfigurationError
from konko_async.middleware import CircuitBreaker, Fallback
from konko_async.resources._chat import Chat

if TYPE_CHECKING:
    import aiohttp

    from konko_async._balance.endpoint import Affinity, Balance, Endpoint
    from konko_async._balance.view import Endpoints
    from konko_async._core.config import KeepAlive
    from konko_async._core.key_source import KeyFunction
    from konko_async._core.pipeline import Middleware
    from konko_async._core.policies import Priority, TimeoutLike
    from konko_async._records import Observer
    from konko_async.limits import Limits
    from konko_async.middleware import AnswerCache, CircuitState
    from konko_async.resources._batches import Batches
    from konko_async.resources._completions import Completions
    from konko_async.resources._embeddings import Embeddings
    from konko_async.resources._files import Files
    from konko_async.resources._models import Models
    from konko_async.resources._raw import RawResponse

__all__ = ["AsyncKonko"]

# For with_options(), where None is a value: retry=None switches retries off.
_UNSET: Any = msgspec.UNSET
# Frozen values, so that one of each can be the default of every client.
_DEFAULT_TIMEOUT = Timeout()
_DEFAULT_RETRY = RetryPolicy()
_DEFAULT_LIMIT = RateLimit()
_DEFAULT_BREAKER = CircuitBreaker()
# 256 MiB, counted after decompression: it bounds what a small body can unpack to.
_MAX_BODY = 256 * 1024 * 1024


class AsyncKonko(AsyncContextOnly):
    """A client of the Konko API, or of any server that speaks OpenAI's chat API.

    Creating one does no I/O and needs no running event loop. Use ``async with``, or call
    :meth:`close` at the end. One client serves any number of calls at once.

    Args:
        api_key: else the environment's ``KONKO_API_KEY``. A function, sync or async, that returns
            a key is called before the first request, and again when the server answers 401.
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
        cache: a folder, or an :class:`AnswerCache`, in which answers are kept that equal calls get
            again (with ``temperature=0`` or a ``seed``); None: none.
        verify_models: check ids and kinds against the model list, fetched once, before a call.
        default_headers: sent with every request.
        default_query: query parameters of every request, such as ``{"api-version": "..."}``.
        max_retries: attempts after the first one; ``retry=RetryPolicy(...)`` says more.
        organization: sent as ``OpenAI-Organization``.
        project: sent as ``OpenAI-Project``.
        keepalive: when the operating system probes silent connections: a :class:`KeepAlive`, the
            seconds of silence before the first probe, ``(idle, interval, count)``, or False for
            no probes. Default: after 60 s, every 60 s, 5 times.
        trust_env: whether ``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY`` and ``.netrc`` are used.
            Default False.
        endpoints: several servers, or keys, that share the calls, instead of ``base_url``: a list
            of :class:`Endpoint`. ``api_key`` is then for those that have none of their own.
        balance: how one is chosen for each attempt: ``"least_loaded"``, ``"round_robin"``,
            ``"priority"`` (in the order of the list: the next one only when the one before is
            full), or a function of their states and the request, which returns one of them.
        affinity: ``"prefix"``: calls whose prompts begin alike go to one endpoint while it is not
            overloaded, so that its KV cache serves them; or a function of the request that
            returns what calls have in common. A call may name it too: ``create(affinity=...)``.
        http_client: refused: the client sends by aiohttp.
        session: an ``aiohttp.ClientSession`` of the user's, which is then never closed here.
        max_body_bytes: cap of a whole answer after decompression. Default 256 MiB.
        allow_http: whether plain http may leave this machine. Default False.

    ``openai.NOT_GIVEN`` and ``openai.omit`` mean the default for every argument.

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

    def __init__(
        self,
        api_key: str | KeyFunction | None = None,
        base_url: str | None = None,
        openai_api_key: str | None = None,
        *,
        timeout: TimeoutLike | None = None,
        retry: RetryPolicy | None = _DEFAULT_RETRY,
        max_retries: int | None = None,
        rate_limit: RateLimit | None = _DEFAULT_LIMIT,
        middleware: Sequence[Middleware] = (),
        observers: Sequence[Observer] = (),
        fallback_models: Sequence[str | Fallback] = (),
        hedge_after: float | Literal["p95"] | None = None,
        circuit_breaker: CircuitBreaker | None = _DEFAULT_BREAKER,
        cache: str | os.PathLike[str] | AnswerCache | None = None,
        verify_models: bool = False,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, str | float] | None = None,
        organization: str | None = None,
        project: str | None = None,
        keepalive: KeepAlive | float | tuple[int, int, int] | None = None,
        trust_env: bool = False,
        session: aiohttp.ClientSession | None = None,
        http_client: None = None,
        max_body_bytes: int = _MAX_BODY,
        allow_http: bool = False,
        endpoints: Sequence[Endpoint] | None = None,
        balance: Balance = "least_loaded",
        affinity: Affinity | None = None,
    ) -> None:
        # At once: a traceback of whatever fails below may show the locals of this frame.
        _no_http_client(http_client)
        key, openai_api_key = masked(given_or(api_key, None)), masked(openai_api_key)
        api_key = None
        default_headers = masked_values(given_or(default_headers, None))
        default_query = masked_values(given_or(default_query, None))
        shared: dict[str, Any] = {
            "api_key": KeySource(key) if callable(key) else key,
            "base_url": given_or(base_url, None),
            "openai_api_key": given_or(openai_api_key, None),
            "default_headers": default_headers,
            "default_query": default_query,
            "organization": given_or(organization, None),
            "project": given_or(project, None),
            "keepalive": given_or(keepalive, None),
            "trust_env": given_or(trust_env, None),
            "allow_http": given_or(allow_http, default=False),
        }
        settings = None if endpoints is not None else resolve(**shared)
        retry = _checked("retry", retry, RetryPolicy, _DEFAULT_RETRY)
        policies = Policies(
            timeout=Timeout.of(given_or(timeout, None), _DEFAULT_TIMEOUT),
            retry=_with_retries(retry, given_or(max_retries, None)),
            rate_limit=_checked("rate_limit", given_or(rate_limit, _DEFAULT_LIMIT), RateLimit),
            middleware=tuple(given_or(middleware, ())),
            observers=_observers(given_or(observers, ())),
            fallback_models=_models(given_or(fallback_models, ())),
            hedge_after=given_or(hedge_after, None),
            circuit_breaker=_checked(
                "circuit_breaker", circuit_breaker, CircuitBreaker, _DEFAULT_BREAKER
            ),
            verify_models=given_or(verify_models, default=False),
            cache=_cache(given_or(cache, None)),
            max_body_bytes=_body_cap(given_or(max_body_bytes, _MAX_BODY)),
        )
        session = given_or(session, None)
        # Last: a client that cannot be made leaves nothing to be closed.
        if settings is not None:
            engine = Engine(settings, policies, Transport(settings, session))
        else:
            from konko_async._engine.balanced_engine import BalancedEngine  # noqa: PLC0415 - most clients have one server

            engine = BalancedEngine.of(
                endpoints or (), shared, policies, session, balance=balance, affinity=affinity
            )
        self._use(engine, owner=True)

    def _use(self, engine: Engine, *, owner: bool) -> None:
        self._engine = engine
        self._owner = owner
        # A function, as the module-level resources make their client at the first call only.
        self.chat = Chat(self._get_engine)

    def _get_engine(self) -> Engine:
        return self._engine

    # Most clients only chat: the other resources are imported when they are used first.

    @cached_property
    def completions(self) -> Completions:
        """Text completions: ``POST /completions``."""
        from konko_async.resources._completions import Completions  # noqa: PLC0415 - for few clients

        return Completions(self._get_engine)

    @cached_property
    def embeddings(self) -> Embeddings:
        """Vectors of texts: ``POST /embeddings``."""
        from konko_async.resources._embeddings import Embeddings  # noqa: PLC0415 - for few clients

        return Embeddings(self._get_engine)

    @cached_property
    def models(self) -> Models:
        """The server's model list."""
        from konko_async.resources._models import Models  # noqa: PLC0415 - for few clients

        return Models(self._get_engine)

    @cached_property
    def files(self) -> Files:
        """Uploaded files, such as the input of a batch."""
        from konko_async.resources._files import Files  # noqa: PLC0415 - for few clients

        return Files(self._get_engine)

    @cached_property
    def batches(self) -> Batches:
        """Batches that the server runs by itself."""
        from konko_async.resources._batches import Batches  # noqa: PLC0415 - for few clients

        return Batches(self._get_engine)

    def with_options(
        self,
        *,
        timeout: TimeoutLike | None = _UNSET,
        retry: RetryPolicy | None = _UNSET,
        max_retries: int | None = None,
        rate_limit: RateLimit | None = _UNSET,
        middleware: Sequence[Middleware] = _UNSET,
        observers: Sequence[Observer] = _UNSET,
        fallback_models: Sequence[str | Fallback] = _UNSET,
        hedge_after: float | Literal["p95"] | None = _UNSET,
        circuit_breaker: CircuitBreaker | None = _UNSET,
        cache: str | os.PathLike[str] | AnswerCache | None = _UNSET,
        verify_models: bool = _UNSET,
        default_headers: Mapping[str, str] | None = None,
        default_query: Mapping[str, str | float] | None = None,
        organization: str | None = None,
        project: str | None = None,
        http_client: None = None,
    ) -> AsyncKonko:
        """Return a cheap copy with these options changed.

        The copy shares the connection pool, and the limits, retry budget and circuit breaker
        unless it is given others. Closing the copy leaves the pool open; closing the original
        closes it for both. Headers and query parameters are added to those that there are. Another
        key or base URL has other limits and connections, and so needs a client of its own.

        Raises:
            ConfigurationError: an option cannot be used.
        """
        _no_http_client(http_client)
        engine = self._engine
        given: dict[str, Any] = {
            "timeout": timeout, "retry": retry, "rate_limit": rate_limit, "middleware": middleware,
            "observers": observers, "fallback_models": fallback_models, "hedge_after": hedge_after,
            "circuit_breaker": circuit_breaker, "verify_models": verify_models,
            "cache": cache,
        }  # fmt: skip
        changes = {
            name: _OPTIONS[name](value)
            for name, value in given.items()
            if value is not _UNSET and not is_marker(value)
        }
        retries = given_or(max_retries, None)
        # After the rest: with_options(retry=..., max_retries=...) changes the policy that is given
        # with it.
        if retries is not None:
            policy = changes.get("retry", engine.policies.retry)
            changes["retry"] = _with_retries(policy, retries)
        account: dict[str, Any] = {"OpenAI-Organization": organization, "OpenAI-Project": project}
        headers = check_headers({**account, **masked_values(given_or(default_headers, None))})
        if headers:
            changes["headers"] = {**engine.policies.headers, **masked_values(headers)}
        if query := check_query("default_query", given_or(default_query, None)):
            changes["query"] = {**(engine.policies.query or {}), **query}
        # Not by __init__, which would read the environment anew; type(self), as subclasses stay
        # what they are.
        copy = object.__new__(type(self))
        copy._use(engine.with_policies(changes), owner=False)
        return copy

    copy = with_options  # as openai names it

    async def request(
        self,
        method: str,
        path: str,
        body: bytes | Mapping[str, Any] | None = None,
        *,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        timeout: TimeoutLike | None = None,  # noqa: ASYNC109 - the same as of every call
        priority: Priority | None = None,
    ) -> RawResponse:
        """Call any path of the API with all that this client does for its own, and decode nothing.

        Limits, retries, breaker, fallbacks, hedging and observers act as for every call, by the
        ``model`` that the body names. Hedges are for questions to a model and for GET only.

        Args:
            method: such as ``"POST"``.
            path: below the base URL, such as ``"/responses"``.
            body: bytes are sent as they are; a mapping as JSON.
            stream: True: return when the answer has begun, to be read piece by piece.
            headers: win over the client's own.
            query: texts, numbers, or lists of them for names that stand several times.
            timeout: as for every call.
            priority: ``"interactive"`` (default) or ``"batch"``.

        Returns:
            The answer of a 2xx status; the rest is raised.

        Raises:
            ConfigurationError: an argument cannot be used; nothing was sent.
            APIError: what the server or the network did, after all attempts. ``.content`` of an
                APIStatusError holds the answer's bytes.
        """
        from konko_async.resources._raw import send_raw  # noqa: PLC0415 - for few clients

        return await send_raw(
            self._engine,
            method,
            path,
            body=body,
            stream=bool(given_or(stream, default=False)),
            headers=headers,
            query=query,
            timeout=timeout,
            priority=priority,
        )

    @property
    def base_url(self) -> str:
        """Where requests go, without a slash at the end."""
        return self._engine.settings.base_url

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Called with a record of each call and attempt."""
        return tuple(self._engine.policies.observers)

    @property
    def rate_limit(self) -> RateLimit:
        """The limits that this client was given."""
        return self._engine.policies.rate_limit

    @property
    def retry(self) -> RetryPolicy | None:
        """When and how attempts are repeated; None: never."""
        return self._engine.policies.retry

    @property
    def timeout(self) -> Timeout:
        """The deadlines of calls that bring none of their own."""
        return self._engine.policies.timeout

    @property
    def cache(self) -> AnswerCache | None:
        """Where answers are kept that equal calls get again; None: nowhere."""
        return self._engine.policies.cache

    @property
    def fallback_models(self) -> tuple[str | Fallback, ...]:
        """The models that are tried when all attempts at the first have failed."""
        return tuple(self._engine.policies.fallback_models)

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
        transports = self._engine.transports
        counts = [transport.connections for transport in transports]
        return PoolStats(
            in_use=sum(in_use for in_use, _ in counts),
            idle=sum(idle for _, idle in counts),
            fast_path=all(transport.fast_path for transport in transports),
        )

    @property
    def circuits(self) -> tuple[CircuitState, ...]:
        """The circuits that calls have used: one per origin, and one per model there."""
        return tuple(state for breaker in self._engine.breakers for state in breaker.states())

    @property
    def endpoints(self) -> Endpoints:
        """The endpoints' states, and how to add, drain and remove them while calls run."""
        from konko_async._balance.view import Endpoints  # noqa: PLC0415 - most clients have one server

        return Endpoints(self._engine.balancer)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has been called (on this client or on the original of a copy)."""
        return self._engine.transport.closed

    async def close(self) -> None:
        """Close the pool: streams still open are cut. Idempotent; a copy closes nothing."""
        # Copies share the pool: closing one must not cut the streams of the others.
        if self._owner:
            await self._engine.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        engine = getattr(self, "_engine", None)  # a traceback may show one that was never made
        where = "not made" if engine is None else f"base_url={engine.settings.base_url!r}"
        return f"<{type(self).__name__} {where}>"


def _no_http_client(value: Any) -> None:
    if given_or(value, None) is not None:
        raise ConfigurationError(
            "http_client= is of httpx, which this client does not use: proxies, certificates and "
            "the like go into session=, an aiohttp.ClientSession; to put this client under "
            "openai's own, see konko_async.integrations.openai.http_client"
        )


def _with_retries(retry: RetryPolicy | None, retries: Any) -> RetryPolicy | None:
    """Return a policy with so many retries; ``max_retries`` of None leaves it as it is."""
    if retries is None:
        return retry
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ConfigurationError(
            f"max_retries must be an integer of at least 0, not {retries!r:.40}"
        )
    # max_retries as openai counts them: without the first attempt.
    return msgspec.structs.replace(retry or _DEFAULT_RETRY, max_attempts=retries + 1)


def _checked(name: str, value: Any, kind: type, default: Any = None) -> Any:
    if is_marker(value):
        return default
    if value is not None and not isinstance(value, kind):
        raise ConfigurationError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")
    return value


def _cache(value: Any) -> AnswerCache | None:
    if value is None:
        return None
    from konko_async.middleware import AnswerCache  # noqa: PLC0415 - few keep answers

    return AnswerCache.of(value)


def _observers(observers: Sequence[Observer]) -> tuple[Observer, ...]:
    # An observer that cannot be called would fail at the end of a call, where errors are only
    # logged.
    for observer in observers:
        if not callable(observer):
            raise ConfigurationError(f"observer {type(observer).__name__} is not callable")
    return tuple(observers)


def _models(models: Sequence[str | Fallback]) -> tuple[str | Fallback, ...]:
    # A string is a sequence, too: each of its letters would be a model.
    if isinstance(models, str):
        raise ConfigurationError("fallback_models must be a list of model ids, not one string")
    return tuple(models)


def _body_cap(value: Any) -> Any:
    if not isinstance(value, int) or value < 1:
        raise ConfigurationError("max_body_bytes must be an integer of at least 1")
    return value


# How with_options() reads what it is given.
_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "timeout": lambda value: Timeout.of(value, _DEFAULT_TIMEOUT),
    "retry": lambda value: _checked("retry", value, RetryPolicy),
    "rate_limit": lambda value: _checked("rate_limit", value, RateLimit) or _DEFAULT_LIMIT,
    "middleware": tuple,
    "observers": _observers,
    "fallback_models": _models,
    "hedge_after": lambda value: value,
    "circuit_breaker": lambda value: _checked("circuit_breaker", value, CircuitBreaker),
    "verify_models": lambda value: value,
    "cache": _cache,
}
