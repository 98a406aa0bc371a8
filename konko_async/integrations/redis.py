"""Limits that several processes keep together, in Redis or Valkey (extra ``redis``).

    RateLimit(requests_per_minute=600, store=RedisStore("redis://localhost:6379/0"))

**Why a script of our own.** A call needs a request *and* its tokens, or neither; it must be served
first come first served whatever its size, people before batches; what was estimated too high must
be given back where it was counted; and the clock must be one that no process can skew. No library
does these together. As of November 2026: limits (5.6) has no queue and no weights in its moving
window beyond repeated hits, and refunds nothing; pyrate-limiter (4) sends weights as that many
members of a sorted set, on the clients' clocks; throttled-py has GCRA on the server's clock, but
one limit per call, no order among waiters (each polls) and no refund; steindamm is a fair token
bucket with one limit and no settlement. Retrofitting queue, window and settlement into
any of them is this script, so it is written out in ``redis_lane.lua``.

The script runs on Redis 6.2 to 8 and on Valkey: ``TIME`` inside a script that writes has been
allowed since Redis 5. All keys of a lane share a hash tag, so that a cluster keeps them on one
node, and hold a hash instead of model and key.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from konko_async.errors import ConfigurationError, RateLimitStoreError
from konko_async.limits import Reply, Turn

try:
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.client import NEVER_DECODE
    from redis.exceptions import ConnectionError as LostConnectionError
    from redis.exceptions import NoScriptError, RedisError
    from redis.exceptions import TimeoutError as RedisTimeoutError
except ImportError:  # pragma: no cover - said in words
    raise ConfigurationError(
        "limits in Redis need the extra `redis`: pip install 'konko-async[redis]'"
    ) from None

if TYPE_CHECKING:
    from redis.asyncio.cluster import RedisCluster

__all__ = ["RedisStore"]

_SCRIPT: Final = Path(__file__).with_name("redis_lane.lua").read_text(encoding="utf-8")
# Not for safety: it is how a server names its scripts.
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
_PARTS: Final = ("state", "window", "processes")
_MOST_TIMEOUT: Final = 0.5
_LATE: Final = 0.02
_LONGEST_NAME: Final = 64


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

    __slots__ = ("_client", "_given", "_loop", "_namespace", "_timeout", "_url")

    def __init__(
        self,
        server: str | redis.asyncio.Redis | RedisCluster = "redis://localhost:6379/0",
        *,
        namespace: str = "konko",
        timeout: float = 0.4,
    ) -> None:
        if not 0 < timeout <= _MOST_TIMEOUT:
            raise ConfigurationError("RedisStore: timeout must be above 0 and at most 0.5 seconds")
        if not 0 < len(namespace) <= _LONGEST_NAME or set(namespace) & set("{}"):
            raise ConfigurationError(
                "RedisStore: namespace must be 1 to 64 characters, without braces"
            )
        self._url = server if isinstance(server, str) else None
        self._given: Any = None if isinstance(server, str) else server
        self._namespace = namespace
        self._timeout = float(timeout)
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        if self._url is not None:
            self._connect(self._url)  # says at once that a URL is wrong; connects to nothing
        elif not callable(getattr(server, "execute_command", None)):
            raise ConfigurationError(
                f"RedisStore: a URL or a redis.asyncio client, not {type(server).__name__}"
            )

    def _connect(self, url: str) -> Any:
        try:
            return redis.asyncio.Redis.from_url(
                url,
                # A server that was stopped takes commands and never answers.
                socket_timeout=_MOST_TIMEOUT,
                socket_connect_timeout=_MOST_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError):
            # It may hold a password.
            raise ConfigurationError(
                "RedisStore: not a URL of Redis, such as redis://localhost:6379/0"
            ) from None

    def _connected(self) -> Any:
        """The client of the running loop: connections belong to a loop."""
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            assert self._url is not None  # noqa: S101  (one of both is there)
            self._client, self._loop = self._connect(self._url), loop
        return self._client

    async def exchange(self, lane: str, turn: Turn) -> Reply:
        """Take what a process tells, and answer, in one atomic step; see :class:`Store`.

        Raises:
            RateLimitStoreError: the server did not answer in time, or refused.
        """
        keys = [f"{self._namespace}:{{{lane}}}:{part}" for part in _PARTS]
        try:
            async with _patience(self._timeout):
                try:
                    answer = await self._run(keys, turn)
                except (LostConnectionError, OSError) as error:
                    if isinstance(error, TimeoutError):
                        raise
                    # A connection of the pool that broke while nobody looked, most often. It may
                    # have been taken nevertheless: nothing is given back twice.
                    answer = await self._run(keys, _again(turn))
            return _told(answer)
        except (TimeoutError, RedisTimeoutError):
            raise RateLimitStoreError(
                f"the store of the limits did not answer within {self._timeout:g} s"
            ) from None
        except (RedisError, OSError, ValueError) as error:
            raise RateLimitStoreError(
                f"the store of the limits cannot be asked: {type(error).__name__}: {error}"
            ) from None

    async def _run(self, keys: list[str], turn: Turn) -> bytes:
        call = self._connected().execute_command
        arguments = len(keys), *keys, msgspec.json.encode(turn)
        # Also from a client that decodes what it is sent.
        options: dict[str, Any] = {NEVER_DECODE: []}
        try:
            answer = await call("EVALSHA", _SHA, *arguments, **options)
        except NoScriptError:  # a server that was restarted, or another node of a cluster
            answer = await call("EVAL", _SCRIPT, *arguments, **options)
        return answer if isinstance(answer, bytes) else str(answer).encode()

    async def close(self) -> None:
        """Close the connections made here; idempotent, and a later use opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._url is None:
            raise TypeError("a RedisStore of a client cannot be pickled; make it of a URL")
        return _rebuild, (self._url, self._namespace, self._timeout)

    def __repr__(self) -> str:
        return f"<RedisStore {self._namespace!r}>"  # a URL may hold a password


@asynccontextmanager
async def _patience(seconds: float) -> AsyncIterator[None]:
    """Give up after so long; but where this loop stood still, look first what came meanwhile."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with asyncio.timeout_at(end + _LATE) as scope:

        def look() -> None:
            late = loop.time() - end
            if late > _LATE:
                scope.reschedule(loop.time() + min(late, _MOST_TIMEOUT - seconds + _LATE))

        timer = loop.call_at(end, look)
        try:
            yield
        finally:
            timer.cancel()


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
