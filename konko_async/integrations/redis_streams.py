"""Streams of the relay that outlive the process that writes them, in Redis or Valkey.

    StreamHub(RedisStreamStore("redis://localhost:6379/0"))

A browser that lost its connection may come back to another process, and is served from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec
from redis.exceptions import OutOfMemoryError, RedisError

from konko_async.errors import ConfigurationError, KonkoError
from konko_async.integrations.redis_server import Script, Server, patience
from konko_async.relay import (
    Page,
    StoreFullError,
    StreamInfo,
    StreamLostError,
    StreamTooLongError,
    Watched,
)

if TYPE_CHECKING:
    import redis.asyncio
    from redis.asyncio.cluster import RedisCluster

__all__ = ["RedisStreamStore"]

MIB: Final = 1024 * 1024
_SCRIPT: Final = Script("redis_streams.lua")
_PARTS: Final = ("info", "log", "stop", "readers")
# One command waits for no longer: a server that was stopped meanwhile is noticed after it.
_SLICE: Final = 5.0
_LONGEST_TIMEOUT: Final = 5.0  # no first token should wait longer for a store
_INFO: Final = msgspec.json.Decoder(StreamInfo)


class RedisStreamStore:
    """A :class:`~konko_async.relay.StreamStore` for any number of processes.

    Each stream is a Redis Stream, its leases run on the server's clock, and all acts are one atomic
    script. A reader or writer that waits holds one connection meanwhile; set the server's
    ``maxclients`` accordingly. The server's ``maxmemory`` bounds all streams together: where it is
    reached (with ``noeviction``), new streams are refused and running ones end as too long.

    Args:
        server: a URL, or a client of ``redis.asyncio``, which is then never closed here, and must
            not time out within 5 seconds of waiting.
        namespace: begins the names of the keys. Default ``konko-streams``.
        keep: seconds that a finished stream is kept. Default 300.
        max_stream_bytes: of one stream. Default 8 MiB.
        timeout: seconds, at most 5, for what does not wait. Default 0.5. One that is missed counts
            as an outage: new answers are not resumable for the next seconds, and running ones no
            more. A first token waits for it, so it is a choice between the two.

    Raises:
        ConfigurationError: an argument is not usable.
    """

    __slots__ = ("_keep", "_keys", "_max_stream_bytes", "_server")

    def __init__(
        self,
        server: str | redis.asyncio.Redis | RedisCluster = "redis://localhost:6379/0",
        *,
        namespace: str = "konko-streams",
        keep: float = 300.0,
        max_stream_bytes: int = 8 * MIB,
        timeout: float = 0.5,
    ) -> None:
        if min(keep, max_stream_bytes) <= 0:
            raise ConfigurationError("RedisStreamStore: all limits must be above 0")
        self._server = Server(
            "RedisStreamStore", server, namespace=namespace, timeout=timeout,
            longest=_LONGEST_TIMEOUT,
        )  # fmt: skip
        self._keep = keep
        self._keys: dict[str, str] = {}  # of the active streams that this process writes
        self._max_stream_bytes = max_stream_bytes

    # --- the writer's side

    async def create(self, info: StreamInfo, *, lease: float) -> str | None:
        """Begin a stream; see :class:`~konko_async.relay.StreamStore`."""
        body = msgspec.json.encode(info)
        try:
            word, *_ = await self._do(info.id, "create", body, _millis(lease), _millis(self._keep))
            if word == b"exists":
                raise ConfigurationError("there is a stream of this id already")
            if info.key is None:
                return None
            name = self._keys[info.id] = self._key(info.owner, info.key)
            # In one step, so that of two that come at once the later learns of the earlier.
            earlier = await self._ask("GETSET", name, info.id)
            await self._ask("PEXPIRE", name, _millis(lease + self._keep))
        except _FullError:
            raise StoreFullError("there is no room for another stream") from None
        return await self._active(earlier)

    async def append(self, stream_id: str, payloads: Sequence[bytes]) -> int:
        """Add events; all readers that wait are woken."""
        try:
            word, *rest = await self._do(stream_id, "append", self._max_stream_bytes, *payloads)
        except _FullError:
            raise StreamTooLongError("the streams together are longer than is kept") from None
        if word == b"long":
            raise StreamTooLongError("the stream is longer than is kept")
        if word != b"ok":
            raise StreamLostError("there is no such stream to write to")
        return int(rest[0])

    async def finish(self, stream_id: str, payloads: Sequence[bytes]) -> None:
        """Add the last events, in spite of any cap, and end the stream."""
        # Before the command: a stream whose last write fails must not be kept here forever.
        self._keys.pop(stream_id, None)
        await self._do(stream_id, "finish", *payloads)

    async def watch(self, stream_id: str, *, wait: float, lease: float) -> Watched:
        """Wait, as its writer, until somebody stops the stream; renews the lease."""
        end = _now() + wait
        if (name := self._keys.get(stream_id)) is not None:
            # The key lasts for as long as the stream, and no longer.
            await self._ask("PEXPIRE", name, _millis(wait + lease + self._keep))
        while True:
            told = await self._known(stream_id, "watch", _millis(lease))
            over, stop, unread, last = told
            if over == b"1" or _now() >= end:
                return Watched(stop == b"1", int(unread) / 1000)
            # Half a lease at most: it is to be renewed before it runs out.
            await self._wait(stream_id, "stop", last.decode(), min(end - _now(), lease / 2))

    # --- the readers' side

    async def info(self, stream_id: str) -> StreamInfo | None:
        """Return what is known of a stream."""
        word, *rest = await self._do(stream_id, "info")
        if word != b"ok":
            return None
        return msgspec.structs.replace(_INFO.decode(rest[0]), state=rest[1].decode())

    async def find(self, owner: str, key: str) -> str | None:
        """Return the id of the owner's latest active stream of that key."""
        return await self._active(await self._ask("GET", self._key(owner, key)))

    async def _active(self, stream_id: bytes | None) -> str | None:
        info = None if stream_id is None else await self.info(stream_id.decode())
        return info.id if info is not None and info.state == "active" else None

    async def read(self, stream_id: str, after: int, *, wait: float) -> Page:
        """Return the events after number ``after``, waiting for one if there is none."""
        end = _now() + wait
        while True:
            finished, due, *payloads = await self._known(stream_id, "read", after)
            left = int(due) / 1000
            if payloads or finished == b"1":
                return Page(after + 1, payloads, finished == b"1")
            # The writer's lease ran out: its process is gone, and nobody will finish the stream.
            if left <= 0:
                raise StreamLostError("the process that wrote this stream has ended")
            if _now() >= end:
                return Page(after + 1, [], finished=False)
            await self._wait(stream_id, "log", f"{after}-0", min(end - _now(), left + 0.001))

    async def attend(self, stream_id: str, reader: str, *, lease: float) -> None:
        """Note that a reader is there, for ``lease`` seconds from now unless renewed."""
        await self._known(stream_id, "attend", reader, _millis(lease))

    async def leave(self, stream_id: str, reader: str) -> None:
        """Note that a reader has left."""
        await self._do(stream_id, "leave", reader)

    async def request_stop(self, stream_id: str) -> None:
        """Ask the writer, wherever it is, to end the stream."""
        await self._do(stream_id, "stop")

    async def close(self) -> None:
        """Close the connections made here; idempotent, and a later use opens new ones."""
        await self._server.close()

    # --- the server

    async def _known(self, stream_id: str, act: str, *arguments: Any) -> list[bytes]:
        word, *rest = await self._do(stream_id, act, *arguments)
        if word != b"ok":
            raise StreamLostError("there is no such stream")
        return rest

    async def _do(self, stream_id: str, act: str, *arguments: Any) -> list[bytes]:
        keys = self._server.keys(_hash(stream_id), _PARTS)
        try:
            async with patience(self._server.timeout):
                answer: list[bytes] = await self._server.run(_SCRIPT, keys, act, *arguments)
        except (RedisError, OSError) as error:
            _failed(error)
        return answer

    async def _ask(self, *words: Any) -> Any:
        try:
            async with patience(self._server.timeout):
                return await self._server.command(*words)
        except (RedisError, OSError) as error:
            _failed(error)

    async def _wait(self, stream_id: str, part: str, after: str, seconds: float) -> None:
        """Wait until something follows ``after``, for some seconds at most."""
        seconds = min(max(seconds, 0.001), _SLICE)
        key = self._server.keys(_hash(stream_id), (part,))[0]
        words = ("XREAD", "COUNT", 1, "BLOCK", _millis(seconds), "STREAMS", key, after)
        try:
            # Blocking commands have no socket timeout (see _connect): this is what ends a wait for
            # a dead server.
            async with asyncio.timeout(seconds + self._server.timeout):
                with suppress(TimeoutError):  # redis-py's, where a client of the user's has one
                    await self._server.command(*words)
        except (RedisError, OSError) as error:
            _failed(error)

    def _key(self, owner: str, key: str) -> str:
        return self._server.keys(_hash(f"{owner}\n{key}"), ("key",))[0]

    def __repr__(self) -> str:
        return f"<RedisStreamStore {self._server.namespace!r}>"


class _FullError(KonkoError):
    """The server has no memory left."""


def _failed(error: Exception) -> NoReturn:
    # Redis 6 wraps what happens in a script into an error of its own.
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in str(error):
        raise _FullError("the store of the streams has no memory left") from None
    raise KonkoError(f"the store of the streams cannot be asked: {type(error).__name__}") from None


def _hash(name: str) -> str:
    """What names a key: an id may hold anything, and must not be seen in a list of keys."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _millis(seconds: float) -> int:
    return max(math.ceil(min(seconds, 1e9) * 1000), 1)


def _now() -> float:
    return asyncio.get_running_loop().time()
