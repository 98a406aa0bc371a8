"""What the stores in Redis share: connections that belong to a loop, scripts, and patience."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from konko_async.errors import ConfigurationError

try:
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.client import NEVER_DECODE
    from redis.exceptions import NoScriptError
except ImportError:  # pragma: no cover - said in words
    raise ConfigurationError(
        "stores in Redis need the extra `redis`: pip install 'konko-async[redis]'"
    ) from None

if TYPE_CHECKING:
    from redis.asyncio.cluster import RedisCluster

__all__ = ["MOST_TIMEOUT", "Script", "Server", "patience"]

MOST_TIMEOUT: Final = 0.5
"""Seconds; a server that has not answered by then is away."""

_LATE: Final = 0.02
_LONGEST_NAME: Final = 64


class Script:
    """A Lua script beside this module.

    Args:
        name: of its file.
    """

    __slots__ = ("sha", "text")

    def __init__(self, name: str) -> None:
        self.text = Path(__file__).with_name(name).read_text(encoding="utf-8")
        # Not for safety: it is how a server names its scripts.
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Server:
    """A server of Redis or Valkey, and how its keys are named.

    Args:
        owner: the class in whose name errors are raised.
        server: a URL, or a client of ``redis.asyncio``, which is then never closed here.
        namespace: begins the names of the keys.
        timeout: seconds, above 0 and at most 0.5.

    Raises:
        ConfigurationError: an argument is not usable.
    """

    __slots__ = ("_client", "_given", "_loop", "namespace", "timeout", "url")

    def __init__(
        self, owner: str, server: str | redis.asyncio.Redis | RedisCluster, *,
        namespace: str, timeout: float,
    ) -> None:  # fmt: skip
        if not 0 < timeout <= MOST_TIMEOUT:
            raise ConfigurationError(f"{owner}: timeout must be above 0 and at most 0.5 seconds")
        if not 0 < len(namespace) <= _LONGEST_NAME or set(namespace) & set("{}"):
            raise ConfigurationError(
                f"{owner}: namespace must be 1 to 64 characters, without braces"
            )
        self.url = server if isinstance(server, str) else None
        self.namespace = namespace
        self.timeout = float(timeout)
        self._given: Any = None if isinstance(server, str) else server
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        if self.url is not None:
            try:
                _connect(self.url)  # says at once that a URL is wrong; connects to nothing
            except (ValueError, TypeError):
                # It may hold a password.
                raise ConfigurationError(
                    f"{owner}: not a URL of Redis, such as redis://localhost:6379/0"
                ) from None
        elif not callable(getattr(server, "execute_command", None)):
            raise ConfigurationError(
                f"{owner}: a URL or a redis.asyncio client, not {type(server).__name__}"
            )

    def keys(self, name: str, parts: Sequence[str]) -> list[str]:
        """The keys of one thing: all with one hash tag, and so on one node of a cluster."""
        return [f"{self.namespace}:{{{name}}}:{part}" for part in parts]

    async def command(self, *words: Any) -> Any:
        """Run a command; its answer is bytes, also from a client that decodes what it is sent."""
        options: dict[str, Any] = {NEVER_DECODE: []}
        return await self._connected().execute_command(*words, **options)

    async def run(self, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        """Run a script, sent in full only to a server that does not know it yet."""
        words = len(keys), *keys, *arguments
        try:
            return await self.command("EVALSHA", script.sha, *words)
        except NoScriptError:  # a server that was restarted, or another node of a cluster
            return await self.command("EVAL", script.text, *words)

    def _connected(self) -> Any:
        """The client of the running loop: connections belong to a loop."""
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            assert self.url is not None  # noqa: S101  (one of both is there)
            self._client, self._loop = _connect(self.url), loop
        return self._client

    async def close(self) -> None:
        """Close the connections made here; idempotent, and a later use opens new ones."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()


def _connect(url: str) -> Any:
    return redis.asyncio.Redis.from_url(
        url,
        # A server that was stopped takes commands and never answers: the callers' patience ends
        # first, and this is for what nobody waits for. Blocking commands bring their own time.
        socket_timeout=None,
        socket_connect_timeout=MOST_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Give up after so long; but where this loop stood still, look first what came meanwhile.

    Raises:
        TimeoutError: the block did not end.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    async with asyncio.timeout_at(end + _LATE) as scope:

        def look() -> None:
            late = loop.time() - end
            if late > _LATE:
                scope.reschedule(loop.time() + min(late, MOST_TIMEOUT))

        timer = loop.call_at(end, look)
        try:
            yield
        finally:
            timer.cancel()
