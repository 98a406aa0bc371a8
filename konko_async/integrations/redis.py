"""Limits that several processes keep together, in Redis or Valkey (extra ``redis``).

    RateLimit(requests_per_minute=600, store=RedisStore("redis://localhost:6379/0"))

**Why a script of our own.** A call needs a request *and* its tokens, or neither; it must be served
first come first served whatever its size, people before batches; what was estimated too high must
be given back where it was counted; and the clock must be one that no process can skew. No library
does these together, looked at in November 2026: limits 5.8 has weights, but on the clients' clocks
(a weight of n is n entries of a list), no queue and no refund; pyrate-limiter 4.5 likewise, with
members of a sorted set, and says that it leaves the server's clock alone on purpose; throttled-py
3.5 has GCRA on the server's clock, with one limit per call, no order among those who wait, and no
refund; steindamm 0.11 reserves in order, of one bucket, without settlement or priorities. Queue,
window, settlement and pauses on top of any of them are this script, so it is written out in
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
from konko_async.limits import Reply, Turn

if TYPE_CHECKING:
    import redis.asyncio
    from redis.asyncio.cluster import RedisCluster

__all__ = ["RedisStore"]

_SCRIPT: Final = Script("redis_lane.lua")
_PARTS: Final = ("state", "window", "processes")


class RedisStore:
    """Keeps limits in Redis or Valkey, for all processes that name the same server and namespace.

    Makes no connection before it is asked, and one or two per process. It may be given to several
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

    async def exchange(self, lane: str, turn: Turn) -> Reply:
        """Take what a process tells, and answer, in one atomic step; see :class:`Store`.

        Raises:
            RateLimitStoreError: the server did not answer in time, or refused.
        """
        server = self._server
        keys = server.keys(lane, _PARTS)
        try:
            async with patience(server.timeout):
                try:
                    answer = await server.run(_SCRIPT, keys, msgspec.json.encode(turn))
                except (LostConnectionError, OSError) as error:
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


def _again(turn: Turn) -> Turn:
    settled = [(slot, max(requests, 0), max(tokens, 0)) for slot, requests, tokens in turn.settled]
    return msgspec.structs.replace(turn, reset=True, settled=settled)


def _told(answer: bytes) -> Reply:
    """Read the script's answer: ``numbers|ticket:tokens ...|ticket ...``."""
    head, granted, standing = answer.decode().split("|")
    epoch, *rest = head.split()
    numbers = [int(text) for text in rest]
    return Reply(
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
