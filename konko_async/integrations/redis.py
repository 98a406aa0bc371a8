"""Limits that several processes keep together, in Redis or Valkey (extra ``redis``).

    RateLimit(requests_per_minute=600, store=RedisStore("redis://localhost:6379/0"))

**Why a script of our own.** A call needs a request *and* its tokens, or neither; it must be served
first come first served whatever its size, interactive before batch; what was estimated too high
must be given back where it was counted; and the clock must be one that no process can skew. No
library does these together (November 2026): limits 5.8 has weights, but on the clients' clocks
(a weight of n is n entries of a list), no queue and no refund; pyrate-limiter 4.5 is like it, with
members of a sorted set, and says that it leaves the server's clock alone on purpose; throttled-py
3.5 has GCRA on the server's clock, with one limit per call, no order among those who wait, and no
refund; steindamm 0.11 reserves in order, of one bucket, without settlement or priorities. Queue,
window, settlement and cool-downs on top of any of them are this script, so it is written out in
``redis_lane.lua``.

The script runs on Redis 6.2 to 8 and on Valkey: ``TIME`` inside a script that writes has been
allowed since Redis 5. All keys of a lane share a hash tag, so that a cluster keeps them on one
node, and hold a hash instead of model and key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from redis.exceptions import ConnectionError as LostConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from konko_async.errors import RateLimitStoreError
from konko_async.integrations.redis_server import Script, Server, patience
from konko_async.limits import StoreReply, StoreRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis.asyncio
    from redis.asyncio.cluster import RedisCluster

    from konko_async.integrations.redis_streams import RedisStreamStore

__all__ = ["RedisStore", "RedisStreamStore"]

_SCRIPT: Final = Script("redis_lane.lua")
_LOADS: Final = Script("redis_loads.lua")
_PARTS: Final = ("state", "window", "processes")
# Milliseconds after which the calls in flight of a process that says nothing are forgotten.
_SILENT: Final = 3000


def __getattr__(name: str) -> Any:
    # On first use: sharing limits does not need the relay.
    if name != "RedisStreamStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from konko_async.integrations.redis_streams import (  # noqa: PLC0415 - see above
        RedisStreamStore,
    )

    return RedisStreamStore


class RedisStore:
    """Keeps limits in Redis or Valkey, for all processes that name the same server and namespace.

    Makes no connection before its first use, and one or two per process. It may be given to several
    clients, and sent to other processes (pickled), if it was made of a URL.

    Args:
        server: a URL (``redis://``, ``rediss://``, ``unix://``), or a client of redis-py's
            ``redis.asyncio`` (``Redis``, ``RedisCluster``, one made by a ``Sentinel``), which is
            then never closed here. A client's ``retry`` should be off: redis-py repeats three times
            with pauses of a second by default, which is cut short here and so only costs.
        namespace: begins the names of the keys; those that share a server but no limits need
            different ones.
        timeout: seconds, at most 0.5, after which a server that does not answer counts as away.

    Raises:
        ConfigurationError: a URL that redis-py cannot read, or another argument that is not usable.
    """

    __slots__ = ("_server",)

    def __init__(
        self,
        server: str | redis.asyncio.Redis | RedisCluster = "redis://localhost:6379/0",
        *,
        namespace: str = "konko",
        timeout: float = 0.4,
    ) -> None:
        self._server = Server("RedisStore", server, namespace=namespace, timeout=timeout)

    async def exchange(self, lane: str, turn: StoreRequest) -> StoreReply:
        """Take in what a process reports, and reply, in one atomic step; see :class:`Store`.

        Raises:
            RateLimitStoreError: the server did not answer in time, or refused.
        """
        server = self._server
        keys = server.keys(lane, _PARTS)
        try:
            # Around both tries: callers wait behind this, and half a second is what a Store is
            # allowed.
            async with patience(server.timeout):
                try:
                    answer = await server.run(_SCRIPT, keys, msgspec.json.encode(turn))
                except (LostConnectionError, OSError) as error:
                    # A TimeoutError is an OSError, but a second try has no time left.
                    if isinstance(error, TimeoutError):
                        raise
                    # A connection of the pool that broke while nobody looked, most often. It may
                    # have been taken nevertheless: nothing is given back twice.
                    answer = await server.run(_SCRIPT, keys, msgspec.json.encode(_again(turn)))
            return _told(answer)
        except (TimeoutError, RedisTimeoutError):
            raise RateLimitStoreError(
                f"the store of the limits did not answer within {server.timeout:g} s"
            ) from None
        except (RedisError, OSError, ValueError) as error:
            raise RateLimitStoreError(
                f"the store of the limits cannot be asked: {type(error).__name__}: {error}"
            ) from None

    async def share_loads(self, process: str, mine: Mapping[str, int]) -> dict[str, int]:
        """Report a process's calls in flight by endpoint; return the sums of all others.

        A client with ``endpoints=`` whose limits are kept here does this by itself.

        Args:
            process: an id of its own.
            mine: calls in flight by endpoint.

        Raises:
            RateLimitStoreError: the server did not answer in time, or refused.
        """
        server = self._server
        keys = server.keys("endpoints", ["loads"])
        try:
            async with patience(server.timeout):
                answer = await server.run(
                    _LOADS, keys, process, msgspec.json.encode(mine), str(_SILENT)
                )
            total: dict[str, int] = {}
            for one in answer:
                for name, count in msgspec.json.decode(one, type=dict[str, int]).items():
                    total[name] = total.get(name, 0) + count
        except (TimeoutError, RedisError, OSError, msgspec.DecodeError) as error:
            raise RateLimitStoreError(
                f"the store of the loads cannot be reached: {type(error).__name__}"
            ) from None
        return total

    async def close(self) -> None:
        """Close the connections made here; idempotent, and a later use opens new ones."""
        await self._server.close()

    def __reduce__(self) -> tuple[Any, ...]:
        server = self._server
        if server.url is None:
            raise TypeError("a RedisStore of a client cannot be pickled; make it of a URL")
        return _rebuild, (server.url, server.namespace, server.timeout)

    def __repr__(self) -> str:
        return f"<RedisStore {self._server.namespace!r}>"  # a URL may hold a password


def _rebuild(url: str, namespace: str, timeout: float) -> RedisStore:
    return RedisStore(url, namespace=namespace, timeout=timeout)


def _again(turn: StoreRequest) -> StoreRequest:
    # What was given back may have been taken in already; twice would let more through than allowed.
    settled = [(slot, max(requests, 0), max(tokens, 0)) for slot, requests, tokens in turn.settled]
    return msgspec.structs.replace(turn, reset=True, settled=settled)


def _told(answer: bytes) -> StoreReply:
    """Read the script's answer: ``numbers|ticket:tokens ...|ticket ...``."""
    head, granted, standing = answer.decode().split("|")
    epoch, *rest = head.split()
    numbers = [int(text) for text in rest]
    return StoreReply(
        epoch=epoch,
        slot=numbers[0],
        wait=numbers[1],
        paused=numbers[2],
        strikes=numbers[3],
        episode=numbers[4],
        used_requests=numbers[5],
        used_tokens=numbers[6],
        learned_requests=numbers[7],
        learned_tokens=numbers[8],
        share=numbers[9],
        processes=numbers[10],
        granted=[
            (int(ticket), int(tokens))
            for ticket, _, tokens in (pair.partition(":") for pair in granted.split())
        ],
        standing=[int(ticket) for ticket in standing.split()],
    )
