"""Per-tenant limits over one shared client, for backends with many customers."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from konko_async import (
    AsyncKonko,
    CallRecord,
    Handler,
    Observer,
    Priced,
    RateLimit,
    Request,
    Response,
)
from konko_async.errors import (
    APIConnectionError,
    APIStatusError,
    CircuitOpenError,
    ConfigurationError,
    RateLimitTimeoutError,
)
from konko_async.limits import LaneLimits, Limiter, Outcome, Permit
from konko_async.relay._errors import RefusalError

__all__ = ["TenantRecord", "Tenants"]

_log = logging.getLogger("konko_async.relay")

_LOOKED_AT: Final = 64  # of those idle for longest, how many are looked at to make room
_SWEPT: Final = 2  # and how many with every newcomer, so that the table follows the demand
_SOON: Final = 1.0  # seconds, where it is not known when a slot will be free
_LONGEST_ID: Final = 256
_OUTCOMES: Final[dict[str, Outcome]] = {
    "ok": "ok",
    "error": "error",
    "cancelled": "cancelled",
    "closed": "cancelled",
}
_NOT_SENT: Final = (CircuitOpenError, RateLimitTimeoutError, RefusalError)


class TenantRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call of one tenant, when its answer has been read or left.

    Attributes:
        tenant: the tenant's id.
        call: what the call did; for a stream whose usage the server did not report, as when its
            reader left, it holds the chunks that came, and estimates of its tokens.
        cost: in the currency of the price, by the server's count of tokens or by those estimates;
            None where there is no price for the model.
    """

    tenant: str
    call: CallRecord
    cost: float | None = None


class _Tenant:
    """One tenant: its lane, and the client that goes through it."""

    __slots__ = ("client", "lane", "limiter", "max_wait")

    def __init__(
        self,
        name: str,
        limit: RateLimit,
        base: AsyncKonko,
        max_wait: float,
        observers: Sequence[Observer],
    ) -> None:
        self.limiter = Limiter(limit)
        self.lane = self.limiter.lane(None, name)
        self.max_wait = max_wait
        # In front of the user's own middleware: that sees only what the tenant may spend.
        self.client = base.with_options(
            middleware=(self.admit, *base.middleware), observers=(*base.observers, *observers)
        )

    async def admit(self, request: Request, call_next: Handler) -> Response:
        """Let a call through the tenant's own limits, then through those of the client."""
        if request.model is None:  # the list of models costs nothing
            return await call_next(request)
        tokens = self.limiter.estimate(request.params) if self.lane.counts_tokens else 0
        # Where there is room, the call needs neither a deadline nor a switch of tasks.
        permit = self.lane.try_admit(tokens, request.priority)
        if permit is None:
            permit = await self._wait(request, tokens)
        try:
            response = await call_next(request)
        except BaseException as error:
            _give_back(permit, error)
            raise

        # When the answer has been read or left, not now: a stream's tokens are known at its end.
        def settle(ended: Response) -> None:
            permit.settle(None if ended.usage is None else ended.usage.total)
            permit.release(outcome=_OUTCOMES[ended.outcome])

        response.on_close(settle)
        return response

    async def _wait(self, request: Request, tokens: int) -> Permit:
        # A call that waits longer is better refused: a browser would only wait, and 429 says when
        # to come back.
        deadline = asyncio.get_running_loop().time() + self.max_wait
        if request.call.deadline is not None:
            deadline = min(deadline, request.call.deadline)
        try:
            return await self.lane.admit(tokens, request.priority, deadline)
        except RateLimitTimeoutError as error:
            wait = error.would_have_waited
        if not 0 < wait < math.inf:
            wait = _SOON
        raise RefusalError(
            429,
            f"your limit is reached; try again in {math.ceil(wait)} s",
            type="rate_limited",
            retry_after=wait,
        )


def _give_back(permit: Permit, error: BaseException) -> None:
    """Settle a call that failed: what did not reach a model costs its tenant nothing."""
    unsent = isinstance(error, APIConnectionError) and not error.request_sent
    if unsent or isinstance(error, _NOT_SENT):
        permit.refund()
    elif isinstance(error, APIStatusError):
        # It counts as a request, so that mistakes cannot be repeated forever.
        permit.settle_refused()
    else:
        # Sent, with no word of what it used: the estimate stands.
        permit.settle(None)
    permit.release(outcome="cancelled" if isinstance(error, asyncio.CancelledError) else "error")


class Tenants:
    """Gives each tenant a client with limits of its own, all on one pool and one set of limits.

    The limits hold over all models of a tenant; those of the base client hold over all tenants, as
    they do without. A call passes its tenant's limits first, so that one tenant's crowd waits (or
    is turned away) before it is in anybody else's way. Tokens are reserved by estimate and settled
    with what the answer really used, when it has been read or given up. A call that is turned away
    raises :class:`~konko_async.relay.RefusalError` with status 429 and ``retry_after``.

    Where :attr:`RateLimit.burst` is not given, half of a limit may be used at once, as people come
    in bursts: a limit of 60 requests a minute then is 30 at once, and one every two seconds.

    Args:
        client: the base client; its options, middleware included, hold for the tenants' too.
        rate_limit: of each tenant; or a function of the tenant's id, asked when it is first seen
            (and again after it was forgotten), which may return None for no limit.
        max_wait: seconds that a call may wait for its tenant's limits. Default 1.
        max_tenants: how many are kept. Ones that have done nothing for a window (a minute) are
            forgotten as others come; if there is none, a new one is refused with status 503.
            Default 10,000, of about 10 kB each.
        observers: called with a :class:`TenantRecord` for each call of a tenant; quick, as those of
            a client are. What one of them raises is logged.
        prices: of models, by the id that was asked for; ``"*"`` is every other model's. Such as
            ``{"my-model": konko_async.batch.Price(prompt=2e-7, completion=6e-7)}``.

    Raises:
        ConfigurationError: an argument cannot be used.
    """

    __slots__ = (
        "_base", "_limit", "_max_tenants", "_max_wait", "_observers", "_prices", "_tenants",
    )  # fmt: skip

    def __init__(
        self,
        client: AsyncKonko,
        rate_limit: RateLimit | Callable[[str], RateLimit | None],
        *,
        max_wait: float = 1.0,
        max_tenants: int = 10_000,
        observers: Sequence[Callable[[TenantRecord], object]] = (),
        prices: Mapping[str, Priced] | None = None,
    ) -> None:
        if not isinstance(rate_limit, RateLimit) and not callable(rate_limit):
            raise ConfigurationError("Tenants: rate_limit must be a RateLimit or a function")
        if not 0 <= max_wait < math.inf or max_tenants < 1:
            raise ConfigurationError("Tenants: max_wait must be finite, max_tenants at least 1")
        if not all(map(callable, observers)):
            raise ConfigurationError("Tenants: observers must be callables")
        self._observers = tuple(observers)
        self._prices = dict(prices or {})
        self._base = client
        self._limit = rate_limit
        self._max_wait = max_wait
        self._max_tenants = max_tenants
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tenants)

    def client(self, tenant_id: str) -> AsyncKonko:
        """Return the client of a tenant: the same one as long as the tenant is not forgotten.

        Cheap for one that is known, about 40 µs for a new one. Use it for one request of a browser
        and ask again for the next.

        Args:
            tenant_id: names who is to be limited: a customer, a user, an API key's id (not the key:
                it is shown by :meth:`limits`). At most 256 characters.

        Raises:
            ConfigurationError: not usable as an id.
            RefusalError: 503, there are ``max_tenants`` already, and all of them are busy.
        """
        tenant = self._tenants.get(tenant_id)
        if tenant is not None:
            self._tenants.move_to_end(tenant_id)
            return tenant.client
        given: Any = tenant_id
        if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_ID:
            raise ConfigurationError("a tenant's id must be a string of 1 to 256 characters")
        # Before room is made: a tenant without a limit takes no place in the table.
        limit = self._limit if isinstance(self._limit, RateLimit) else self._limit(tenant_id)
        if limit is None and not self._observers:
            return self._base
        self._make_room()
        observers = (_Billing(self, tenant_id),) if self._observers else ()
        limit = _in_bursts(limit or RateLimit())
        tenant = _Tenant(tenant_id, limit, self._base, self._max_wait, observers)
        self._tenants[tenant_id] = tenant
        return tenant.client

    def limits(self, tenant_id: str) -> LaneLimits | None:
        """Return what a tenant has used and may use; None if it is not known (any more)."""
        tenant = self._tenants.get(tenant_id)
        return None if tenant is None else tenant.lane.snapshot()

    def forget(self, tenant_id: str) -> None:
        """Forget a tenant, so that its limits are looked up anew after a change of its plan.

        What it spent is forgotten, too. Calls under way end as they began.
        """
        self._tenants.pop(tenant_id, None)

    def bill(self, tenant_id: str, record: CallRecord) -> None:
        """Give the observers the record of a tenant's call."""
        # The model that answered was asked for by this name; a fallback may have changed it.
        model = record.attempts[-1].model if record.attempts else record.model
        price = self._prices.get(model or "") or self._prices.get("*")
        cost = None if price is None or model is None else record.cost(price)
        told = TenantRecord(tenant=tenant_id, call=record, cost=cost)
        for observer in self._observers:
            try:
                observer(told)
            except Exception:  # noqa: BLE001 - an observer must not break the call it observes
                _log.exception("an observer of tenants failed")

    def _make_room(self) -> None:
        full = len(self._tenants) >= self._max_tenants
        # A bounded look, as this happens within a request: the least recently used come first, and
        # busy ones move to the end, so that the next newcomer looks at others.
        for _ in range(min(_LOOKED_AT if full else _SWEPT, len(self._tenants))):
            name = next(iter(self._tenants))
            if self._tenants[name].lane.idle():
                del self._tenants[name]
                if full:
                    return
            else:
                self._tenants.move_to_end(name)
        if full:
            raise RefusalError(
                503, "too many tenants at once", type="overloaded", retry_after=_SOON
            )


class _Billing:
    """The observer of one tenant's calls."""

    wants_estimates = True  # a bill needs a number, whatever the server reports

    __slots__ = ("_tenant", "_tenants")

    def __init__(self, tenants: Tenants, tenant_id: str) -> None:
        self._tenants = tenants
        self._tenant = tenant_id

    def __call__(self, record: object) -> None:
        if isinstance(record, CallRecord):
            self._tenants.bill(self._tenant, record)


def _in_bursts(limit: RateLimit) -> RateLimit:
    if limit.burst is not None:
        return limit
    requests = limit.requests_per_minute
    if requests is None:
        if limit.tokens_per_minute is None:
            return limit
        # A burst is counted in requests, and holds for tokens by its share; no call is below one.
        requests = limit.tokens_per_minute
    burst = max(math.floor(requests / 2), 1)
    changed: Any = msgspec.structs.replace(limit, requests_per_minute=requests, burst=burst)
    return changed  # type: ignore[no-any-return]  # replace() of an unknown type returns Any
