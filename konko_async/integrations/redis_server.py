"""Shared by the stores in Redis: connections per event loop, scripts, and time-outs."""

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

# Seconds that a timer may be late on a busy loop without anything having stood still.
_LATE: Final = 0.02
_LONGEST_NAME: Final = 64
_CONNECTIONS: Final = 2**20  # the server's maxclients is the limit, and says so


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
        timeout: seconds, above 0 and at most ``longest``.
        longest: what ``timeout`` may be at most. Default 0.5.

    Raises:
        ConfigurationError: an argument is not usable.
    """

    __slots__ = ("_client", "_given", "_loop", "namespace", "timeout", "url")

    def __init__(
        self, owner: str, server: str | redis.asyncio.Redis | RedisCluster, *,
        namespace: str, timeout: float, longest: float = MOST_TIMEOUT,
    ) -> None:  # fmt: skip
        if not 0 < timeout <= longest:
            raise ConfigurationError(
                f"{owner}: timeout must be above 0 and at most {longest:g} seconds"
            )
        # Braces are the hash tag's (see keys()): a second pair would put keys on another node.
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
                _connect(self.url, timeout)  # says at once that a URL is wrong; connects to nothing
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
        # A client with decode_responses=True would return text where bytes are expected.
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
            self._client, self._loop = _connect(self.url, self.timeout), loop
        return self._client

    async def close(self) -> None:
        """Close the connections made here; idempotent, and a later use opens new ones."""
        client, self._client = self._client, None
        # Connections of a loop that is gone cannot be closed on this one.
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()


def _connect(url: str, seconds: float) -> Any:
    return redis.asyncio.Redis.from_url(
        url,
        # A server that was stopped takes commands and never answers: the callers' patience ends
        # first, and this is for what nobody waits for. Blocking commands bring their own time.
        socket_timeout=None,
        socket_connect_timeout=max(seconds, MOST_TIMEOUT),
        retry=Retry(NoBackoff(), 0),
        # redis-py's own is 100 from release 8 on, and each reader that waits holds one: the 101st
        # would fail as if the server were away. A URL's ?max_connections= goes before this.
        max_connections=_CONNECTIONS,
    )


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Time out; but if the event loop stood still, first read what arrived meanwhile.

    Raises:
        TimeoutError: the block did not end.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    # Later than `end`, so that look() runs first and can move it.
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
