"""Puts the balancer of a client together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs

from konko_async._balance.balancer import Balancer
from konko_async._balance.endpoint import check_affinity, check_balance
from konko_async._balance.factory import EndpointLimiters, NodeFactory, settings_of
from konko_async._balance.sharing import load_store
from konko_async.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from konko_async._balance.endpoint import Affinity, Balance, Endpoint
    from konko_async._core.config import Settings
    from konko_async._core.policies import RateLimit
    from konko_async._http.session import Transport
    from konko_async.limits import Limiter
    from konko_async.middleware import CircuitBreaker

__all__ = ["balancer_elsewhere", "build", "rebalanced"]


def build(
    endpoints: Sequence[Endpoint],
    shared: dict[str, Any],
    *,
    balance: Balance,
    affinity: Affinity | None,
    rate_limit: RateLimit,
    breaker: CircuitBreaker | None,
    transport: Callable[[Settings], Transport],
    limiter: Callable[[RateLimit], Limiter],
) -> Balancer:
    """Return the balancer of a client.

    Args:
        endpoints: where calls may go.
        shared: what :func:`~konko_async._core.config.resolve` takes, for all of them.
        balance: how one is chosen.
        affinity: what calls are kept together by.
        rate_limit: of each endpoint that has none of its own.
        breaker: of each endpoint.
        transport: makes the pool of one.
        limiter: makes the limits of one.

    Raises:
        ConfigurationError: an option cannot be used.
    """
    for name in ("base_url", "openai_api_key"):
        if shared.pop(name, None) is not None:
            raise ConfigurationError(f"{name} names one server, and endpoints several: give one")
    check_balance(balance)
    check_affinity(affinity)
    make = NodeFactory(
        settings=settings_of(endpoints, **shared),
        transport=transport,
        limiter=limiter,
        rate_limit=rate_limit,
        breaker=breaker,
    )
    stores = (one.rate_limit.store for one in endpoints if one.rate_limit is not None)
    store = load_store(rate_limit.store, *stores)
    return Balancer(make, endpoints, balance=balance, affinity=affinity, store=store)


def rebalanced(
    balancer: Balancer,
    limiter: Limiter,
    policies: Any,
    changes: Mapping[str, Any],
    limiters: list[Limiter],
) -> tuple[Balancer, Limiter]:
    """Return the endpoints of a copy of a client, and their limits as one.

    Those of the original, unless the copy has limits or a circuit breaker of its own: then they
    share the pools.

    Args:
        balancer: the original's.
        limiter: the original's.
        policies: of the copy.
        changes: what of them is new.
        limiters: all that have to be closed with the client; a new one is added.
    """
    breaker = policies.circuit_breaker
    if "rate_limit" not in changes and ("circuit_breaker" not in changes or breaker is None):
        return balancer, limiter
    make = msgspec.structs.replace(balancer.make, rate_limit=policies.rate_limit, breaker=breaker)
    copy = balancer.copy(make)
    limiter = EndpointLimiters(policies.rate_limit, lambda: copy.nodes)
    limiters.append(limiter)
    return copy, limiter


def balancer_elsewhere(
    nodes: Sequence[tuple[Endpoint, str, Settings]],
    balance: Balance,
    affinity: Affinity | None,
    *,
    transport: Callable[[Settings], Transport],
    limiter: Limiter,
    breaker: CircuitBreaker | None,
) -> Balancer:
    """Return the balancer of a client in another process, which judges endpoints by itself.

    Args:
        nodes: the endpoints, with their names and settings.
        balance: how one is chosen.
        affinity: what calls are kept together by.
        transport: makes the pool of one.
        limiter: asks for the permits of all of them, which the first process keeps.
        breaker: of each endpoint.
    """
    settings = {name: one for _, name, one in nodes}
    endpoints = [structs.replace(one, name=name) for one, name, _ in nodes]
    make = NodeFactory(
        settings=lambda endpoint: settings[endpoint.name or ""],
        transport=transport,
        limiter=lambda _: limiter,
        rate_limit=limiter.rate_limit,
        breaker=breaker,
    )
    return Balancer(make, endpoints, balance=balance, affinity=affinity)
