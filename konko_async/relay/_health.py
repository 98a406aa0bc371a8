"""A client's health as a plain structure, for readiness probes and admin pages."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from konko_async import AsyncKonko, EndpointState, PoolStats
from konko_async.limits import LaneLimits

__all__ = ["CircuitHealth", "EndpointHealth", "Health", "ModelHealth", "health"]

Status = Literal["ok", "degraded", "draining", "closed"]


class ModelHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one model at one moment, without the key's fingerprint.

    Attributes:
        model: the model's id; None for calls that name none.
        in_flight: calls that hold a concurrency slot.
        max_concurrency: slots there are; None for any number.
        waiting: calls that wait for a slot, a request or tokens.
        requests_used: in the last window.
        requests_limit: per window; None: none is known.
        tokens_used: in the last window.
        tokens_limit: per window; None: none is known.
        paused_for: seconds until the cool-down after a rejection ends; 0 if there is none.
    """

    model: str | None
    in_flight: int
    max_concurrency: int | None
    waiting: int
    requests_used: float
    requests_limit: float | None
    tokens_used: float
    tokens_limit: float | None
    paused_for: float


class CircuitHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One circuit, without the server's name.

    Attributes:
        model: the model, or None for the circuit of the server's connections.
        state: ``closed`` (all is well), ``open`` or ``half_open``.
        retry_after: seconds until the next probe.
    """

    model: str | None
    state: str
    retry_after: float


class EndpointHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One of several endpoints, by its place in the client's list, without its name.

    Attributes:
        state: ``ready``, ``starting``, ``ejected``, ``cooling_down`` or ``draining``.
        in_flight: calls there that are not over.
        calls: calls that ended there.
        errors: how many of them failed.
        time_to_first_token: seconds, on average; None before the first.
        retry_after: seconds until it is used again; 0 if it is used.
    """

    state: str
    in_flight: int
    calls: int
    errors: int
    time_to_first_token: float | None
    retry_after: float


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The health of a client.

    Attributes:
        ready: whether new calls should be sent here: not while it drains or is closed. A circuit
            that is open does not count: other processes would be no better off, and to take all of
            them out of service turns a model's outage into everything's.
        status: ``ok``; ``degraded`` where a circuit is not closed, a model is paused or an endpoint
            is put out;
            ``draining``; ``closed``.
        active_streams: streams that are being read, where that is known.
        pool: connections.
        limits: one entry per model that was called, of every key.
        circuits: one entry per circuit that was used.
        endpoints: one entry per endpoint, where the client has several.
    """

    ready: bool
    status: Status
    active_streams: int
    pool: PoolStats
    limits: tuple[ModelHealth, ...]
    circuits: tuple[CircuitHealth, ...]
    endpoints: tuple[EndpointHealth, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the same as JSON's own types."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def health(client: AsyncKonko, *, active_streams: int = 0, draining: bool = False) -> Health:
    """Return the health of a client; sends nothing, so that it may be called at any rate.

    It names models, but no server, key or tenant. Whoever may read it learns how busy you are:
    leave it to the inside of your network, or show ``.status`` alone.

    Args:
        client: any; a copy reports what it shares.
        active_streams: such as ``drain.active``.
        draining: such as ``drain.draining``.
    """
    limits = tuple(_model(lane) for lane in client.limits.lanes)
    circuits = tuple(
        CircuitHealth(model=c.model, state=c.state, retry_after=round(c.retry_after, 3))
        for c in client.circuits
    )
    endpoints = tuple(map(_endpoint, client.endpoints))
    status: Status = "ok"
    # The worst comes first: a client that is closed while it drains is closed.
    if client.closed:
        status = "closed"
    elif draining:
        status = "draining"
    elif (
        any(c.state != "closed" for c in circuits)
        or any(m.paused_for for m in limits)
        or any(one.state == "ejected" for one in endpoints)
    ):
        status = "degraded"
    return Health(
        ready=status in {"ok", "degraded"},
        status=status,
        active_streams=active_streams,
        pool=client.pool,
        limits=limits,
        circuits=circuits,
        endpoints=endpoints,
    )


def _endpoint(state: EndpointState) -> EndpointHealth:
    first = state.time_to_first_token
    return EndpointHealth(
        state=state.state,
        in_flight=state.in_flight,
        calls=state.calls,
        errors=state.errors,
        time_to_first_token=None if first is None else round(first, 3),
        retry_after=round(state.retry_after, 3),
    )


def _model(lane: LaneLimits) -> ModelHealth:
    return ModelHealth(
        model=lane.model,
        in_flight=lane.in_flight,
        max_concurrency=lane.max_concurrency,
        waiting=lane.waiting.interactive + lane.waiting.batch,
        requests_used=round(lane.requests.used, 3),
        requests_limit=lane.requests.limit,
        tokens_used=round(lane.tokens.used, 3),
        tokens_limit=lane.tokens.limit,
        paused_for=round(lane.paused_for, 3),
    )
