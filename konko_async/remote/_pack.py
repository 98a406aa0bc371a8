"""Packs a client's settings and policies for another process, and unpacks them there."""

from __future__ import annotations

import io
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from konko_async._balance.build import balancer_elsewhere
from konko_async._client import AsyncKonko
from konko_async._core.secret import Secret, masked
from konko_async._engine.balanced_engine import BalancedEngine
from konko_async._engine.engine import Engine
from konko_async._http.session import Transport
from konko_async.errors import ConfigurationError
from konko_async.remote._limiter import RemoteLimiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from konko_async._records import Observer
    from konko_async.remote._limiter import Send

__all__ = ["pack_client", "unpack_client"]

_MASKED = type(masked(""))


class _Packer(pickle.Pickler):
    """Pickles secrets, which refuse that elsewhere: the bytes are for a process of ours."""

    def reducer_override(self, value: Any) -> Any:
        # Secret refuses to be pickled, so that no key gets into a file by mistake; here it is on
        # purpose.
        if isinstance(value, Secret):
            return Secret, (str(value.header()),)
        if isinstance(value, _MASKED):
            return masked, (str(value),)
        return NotImplemented


def pack_client(client: AsyncKonko) -> bytes:
    """Return a client's settings and policies as bytes; **its keys are in them, in clear**.

    They are meant for a pipe to a process of one's own, never for a file, an argument or the
    environment. Observers stay behind.

    Raises:
        ConfigurationError: it has something that cannot be sent to another process: a session, or
            middleware or a function that pickle cannot carry (it must be importable there).
    """
    engine = client._get_engine()  # noqa: SLF001 - this is its face in other processes
    if not engine.transport._own:  # noqa: SLF001 - not public, and needed only here
        raise ConfigurationError(
            "a client with a session= of its own cannot be used in other processes"
        )
    # Only the process that keeps the limits talks to the store.
    limit = msgspec.structs.replace(engine.policies.rate_limit, store=None)
    # Observers belong to this process (files, exporters); unpack_client() takes others.
    policies = msgspec.structs.replace(engine.policies, observers=(), rate_limit=limit)
    buffer = io.BytesIO()
    try:
        _Packer(buffer, pickle.HIGHEST_PROTOCOL).dump(
            (engine.settings, policies, _endpoints(engine))
        )
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        problem = str(error)
    else:
        return buffer.getvalue()
    raise ConfigurationError(
        "this client cannot be used in other processes, as one of its options (middleware, "
        f"on_retry, estimate_tokens) cannot be sent there: {problem}"
    )


def unpack_client(
    data: bytes, send: Send, observers: Sequence[Observer] = ()
) -> tuple[AsyncKonko, RemoteLimiter]:
    """Return the client that was packed, and what asks for its permits.

    Args:
        data: what :func:`pack_client` returned. Only from a process of one's own: it is a pickle.
        send: sends a message to the process that keeps the limits.
        observers: of this client.

    Raises:
        ConfigurationError: what it holds cannot be found here.
    """
    try:
        settings, policies, several = pickle.loads(data)  # noqa: S301 - made by pack_client()
    except (ImportError, AttributeError) as error:
        problem = str(error)
    else:
        policies = msgspec.structs.replace(policies, observers=tuple(observers))
        limiter = RemoteLimiter(send, policies.rate_limit)
        # Not by __init__: it would read the environment of this process, which may be another.
        client = object.__new__(AsyncKonko)
        engine = _engine_of(settings, policies, several, limiter)
        client._use(engine, owner=True)
        return client, limiter
    raise ConfigurationError(
        "an option of the client cannot be used in other processes: what it is made of must be "
        f"importable there, so not in the script that is run ({problem})"
    )


def _endpoints(engine: Engine) -> tuple[Any, ...] | None:
    """Return what another process needs of the endpoints; None: there is one server."""
    balancer = engine.balancer
    if balancer is None:
        return None
    nodes = [(node.endpoint, node.name, node.transport.settings) for node in balancer.nodes]
    return nodes, balancer.balance, balancer.affinity


def _engine_of(
    settings: Any, policies: Any, several: tuple[Any, ...] | None, limiter: RemoteLimiter
) -> Engine:
    """Return the engine of a client whose limits are kept elsewhere."""
    transport = Transport(settings, None)
    if several is None:
        return Engine(settings, policies, transport, limiter=limiter)
    balancer = balancer_elsewhere(
        *several,
        transport=partial(Transport, secrets=transport.secrets),
        limiter=limiter,
        breaker=policies.circuit_breaker,
    )
    return BalancedEngine(settings, policies, transport, limiter=limiter, balancer=balancer)
