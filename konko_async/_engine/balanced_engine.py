"""The engine of a client with endpoints; apart, so that others need not even import it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from konko_async._balance.build import build, rebalanced
from konko_async._balance.factory import EndpointLimiters
from konko_async._balance.handler import BalancedHandler
from konko_async._core.redaction import SecretsInUse
from konko_async._engine.engine import CallOptions, Engine, Policies
from konko_async._http.session import Transport
from konko_async.limits import Limiter
from konko_async.middleware._telemetry import notify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from konko_async._balance.balancer import Balancer
    from konko_async._balance.endpoint import Affinity, Balance, Endpoint
    from konko_async._core.config import Settings
    from konko_async._core.pipeline import Handler, Request
    from konko_async._engine.attempt import Exchange
    from konko_async.middleware import CircuitBreakerMiddleware
    from konko_async.middleware._retry import MayMove
    from konko_async.middleware._telemetry import AttemptLog

__all__ = ["BalancedEngine"]


class BalancedEngine(Engine):
    """Runs calls through the pipeline, each attempt at one of several endpoints.

    Args:
        settings: where requests go that need no endpoint.
        policies: how.
        transport: of requests that have a target of their own.
        balancer: the endpoints, shared by copies.
        **shared: what an :class:`Engine` shares with its copies.
    """

    balancer: Balancer

    def __init__(
        self,
        settings: Settings,
        policies: Policies,
        transport: Transport,
        *,
        balancer: Balancer,
        **shared: Any,
    ) -> None:
        self.balancer = balancer
        super().__init__(settings, policies, transport, **shared)

    @classmethod
    def of(
        cls,
        endpoints: Sequence[Endpoint],
        shared: dict[str, Any],
        policies: Policies,
        session: Any,
        *,
        balance: Balance,
        affinity: Affinity | None,
    ) -> Engine:
        """Return the engine of a client with endpoints.

        Args:
            endpoints: where calls may go.
            shared: settings that all of them have in common.
            policies: how calls are made.
            session: the user's own, or None.
            balance: how an endpoint is chosen.
            affinity: what calls are kept together by.

        Raises:
            ConfigurationError: an option cannot be used.
        """
        secrets = SecretsInUse()
        balancer = build(
            endpoints,
            shared,
            balance=balance,
            affinity=affinity,
            rate_limit=policies.rate_limit,
            breaker=policies.circuit_breaker,
            transport=lambda settings: Transport(settings, session, secrets=secrets),
            limiter=lambda limit: Limiter(limit, partial(notify, policies.observers)),
        )
        limiter = EndpointLimiters(policies.rate_limit, lambda: balancer.nodes)
        settings = balancer.nodes[0].transport.settings
        # A pool of its own for the targets of fallbacks, which are servers beside the endpoints.
        transport = Transport(settings, session, secrets=secrets)
        return cls(
            settings, policies, transport, limiter=limiter, limiters=[limiter], balancer=balancer
        )

    def with_policies(self, changes: dict[str, Any]) -> Engine:
        """Return an engine that shares all that ``changes`` leave as it is."""
        policies = msgspec.structs.replace(self.policies, **changes)
        balancer, limiter = rebalanced(
            self.balancer, self.limiter, policies, changes, self.limiters
        )
        return BalancedEngine(
            self.settings,
            policies,
            self.transport,
            balancer=balancer,
            limiter=limiter,
            **self._kept(changes),
        )

    async def _close_pools(self) -> None:
        await super()._close_pools()
        await self.balancer.close()

    @property
    def transports(self) -> list[Transport]:
        """All pools of the client."""
        return [*super().transports, *(node.transport for node in self.balancer.nodes)]

    @property
    def breakers(self) -> list[CircuitBreakerMiddleware]:
        """All circuit breakers of the client."""
        ours = [node.breaker for node in self.balancer.nodes]
        return [*super().breakers, *(breaker for breaker in ours if breaker is not None)]

    @property
    def _may_move(self) -> MayMove | None:
        return self.balancer.may_move

    def _attempts(self, exchange: Exchange, log: AttemptLog | None) -> Handler:
        return BalancedHandler(
            self.balancer,
            super()._attempts(exchange, log),
            self._exchange,
            log=log,
            use_breaker=self.policies.circuit_breaker is not None,
        )

    def _request(self, *args: Any, options: CallOptions, **facts: Any) -> Request:
        request = super()._request(*args, options=options, **facts)
        request.call.affinity = options.affinity
        return request
