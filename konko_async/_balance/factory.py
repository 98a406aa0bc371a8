"""Makes what is inside an endpoint: its settings, pool, limits and circuit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from konko_async._balance.load import Fleet
from konko_async._balance.node import Node
from konko_async._core.config import Settings, environment_key, resolve
from konko_async._core.key_source import KeySource
from konko_async._http.session import Transport
from konko_async.errors import ConfigurationError
from konko_async.limits import Limiter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from konko_async._balance.endpoint import Endpoint
    from konko_async._core.policies import RateLimit
    from konko_async.limits import Lane, Limits
    from konko_async.middleware import CircuitBreaker

__all__ = ["EndpointLimiters", "NodeFactory", "settings_of"]


def settings_of(endpoints: Sequence[Endpoint], **shared: Any) -> Callable[[Endpoint], Settings]:
    """Return what makes the settings of an endpoint.

    Args:
        endpoints: those that the client begins with.
        **shared: what :func:`~konko_async._core.config.resolve` takes; holds for all of them.

    Raises:
        ConfigurationError: there is no endpoint, or one that is none.
    """
    for one in endpoints:
        if not hasattr(one, "model_there"):
            raise ConfigurationError(
                f"endpoints must be a list of Endpoint(base_url, ...), not {type(one).__name__}"
            )
    if not endpoints:
        raise ConfigurationError("endpoints is empty: give at least one Endpoint(base_url, ...)")
    key = shared.pop("api_key", None)
    allow_http = shared.pop("allow_http", False)
    headers, query = shared.pop("default_headers", {}), shared.pop("default_query", {})
    if key is None:
        # The environment's key is meant for one server: which of several, nobody has said.
        hosts = {urlsplit(one.base_url).hostname for one in endpoints if one.api_key is None}
        key = environment_key() if len(hosts) == 1 else None

    def make(endpoint: Endpoint) -> Settings:
        own: Any = endpoint.api_key
        if own is None:
            own = key
        return resolve(
            api_key=KeySource(own) if callable(own) else own,
            base_url=endpoint.base_url,
            openai_api_key=None,
            default_headers={**headers, **(endpoint.headers or {})},
            default_query={**query, **(endpoint.query or {})},
            allow_http=allow_http or endpoint.allow_http,
            key_optional=True,
            **shared,
        )

    return make


class NodeFactory(msgspec.Struct, frozen=True, kw_only=True):
    """Makes nodes.

    Attributes:
        settings: of an endpoint.
        transport: makes its pool.
        limiter: makes what keeps its limits.
        rate_limit: of endpoints that have none of their own.
        breaker: of every endpoint; None: none.
        fleet: what is true of all of them.
    """

    settings: Callable[[Endpoint], Settings]
    transport: Callable[[Settings], Transport]
    limiter: Callable[[RateLimit], Limiter]
    rate_limit: RateLimit
    breaker: CircuitBreaker | None
    fleet: Fleet = msgspec.field(default_factory=Fleet)

    def __call__(self, endpoint: Endpoint, name: str, transport: Transport | None = None) -> Node:
        """Return the node of an endpoint; with ``transport``, one that shares its pool."""
        if transport is None:
            transport = self.transport(self.settings(endpoint))
        fingerprint = transport.settings.fingerprint
        return Node(
            endpoint,
            name,
            transport,
            self.limiter(endpoint.limits(self.rate_limit)),
            # The name tells apart two that have a key in common, or none.
            f"{fingerprint}@{name}",
            self.breaker,
            self.fleet,
        )


class EndpointLimiters(Limiter):
    """The limits of all endpoints as those of one client.

    Args:
        rate_limit: of the client; calls to the target of a fallback have it.
        nodes: returns the endpoints.
    """

    __slots__ = ("_nodes",)

    def __init__(self, rate_limit: RateLimit, nodes: Callable[[], Sequence[Node]]) -> None:
        super().__init__(msgspec.structs.replace(rate_limit, store=None))
        self._nodes = nodes

    def lane(self, model: str | None, key_fingerprint: str = "") -> Lane:
        """Return the lane of a model and key, of the endpoint that has the key."""
        for node in self._nodes():
            if node.key == key_fingerprint:
                return node.limiter.lane(model, key_fingerprint)
        return super().lane(model, key_fingerprint)

    async def close(self) -> None:
        """Leave the stores of all endpoints; idempotent."""
        await asyncio.gather(*(node.limiter.close() for node in self._nodes()))

    def snapshot(self) -> Limits:
        """Return what is used, waiting and learned now, everywhere."""
        own = super().snapshot()
        lanes = (lane for node in self._nodes() for lane in node.limiter.snapshot().lanes)
        return msgspec.structs.replace(own, lanes=(*own.lanes, *lanes))
