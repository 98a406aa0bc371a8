"""The cache that users configure."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from konko_async.errors import ConfigurationError
from konko_async.middleware._cache.store import AnswerStore

if TYPE_CHECKING:
    from konko_async.middleware._cache.database import Entry

__all__ = ["AnswerCache", "CacheStats"]

_GIB = 1 << 30
_LEAST = 1 << 20
_MONTH = 30 * 24 * 3600.0


class CacheStats(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a cache did since it was made, in this process.

    Attributes:
        hits: calls that were answered by it.
        misses: calls that were sent, and whose answer may be kept.
        stored: answers that were kept.
        passed: calls that it does not serve: answers drawn at random, and the model list.
        skipped: answers that were not kept as the disk did not keep up or the cache has failed.
        failure: why it cannot be used; None while it can.
    """

    hits: int = 0
    misses: int = 0
    stored: int = 0
    passed: int = 0
    skipped: int = 0
    failure: str | None = None


class AnswerCache:
    """Keeps answers in a folder and gives them again to equal requests, over runs and processes.

    A request is equal to another if its body (as canonical JSON), its address, its query, its
    headers (except ids of the request and of traces) and its API key are the same. Calls are
    served whose answers are the same each time: those with ``temperature=0`` or a ``seed``, and
    embeddings. Failed, cut off, empty or filtered answers are never kept. A hit takes no slot of
    the limits, is no attempt and costs nothing: ``completion.from_cache`` is True, its record says
    ``cached``, and it has the header ``Cache-Status: konko-async; hit`` (RFC 9211) with its ``Age``
    in seconds (RFC 9111, 5.1).

    The database is SQLite in WAL mode, readable by its owner alone; it holds answers, but no
    prompts, models or keys (hashes of them, BLAKE2b). It must be on a local disk. The event loop
    never waits for the disk: it is read and written in threads, and a lookup that takes longer
    than 2 seconds counts as a miss.

    Args:
        folder: of the database; made if it does not exist.
        max_bytes: size of the database; what was used longest ago goes first. Default 1 GiB.
        max_age: seconds after which an answer is not used any more; None: never. Default 30 days.
        every_call: also serve calls whose answers are drawn at random: the first one that came is
            then the answer. Default False.
        namespace: clients that name the same one share answers, whatever their API key. Default
            None: each key has its own answers.

    Raises:
        ConfigurationError: an option cannot be used.

    Example:
        >>> async def main() -> None:
        ...     async with AsyncKonko(cache=AnswerCache("answers", max_age=3600)) as client:
        ...         ...
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_bytes: int = _GIB,
        max_age: float | None = _MONTH,
        every_call: bool = False,
        namespace: str | None = None,
    ) -> None:
        _check(folder, max_bytes, max_age, namespace)
        self.folder = os.path.abspath(os.path.expanduser(os.fspath(folder)))  # noqa: PTH100, PTH111 - a text
        self.every_call = bool(every_call)
        self.namespace = namespace
        self._options = {"max_bytes": max_bytes, "max_age": max_age}
        self._store = AnswerStore(self.folder, max_bytes=max_bytes, max_age=max_age)
        self._hits = self._misses = self._stored = self._passed = 0

    @classmethod
    def of(cls, value: Any) -> AnswerCache | None:
        """Return a cache for what ``AsyncKonko(cache=...)`` takes.

        Raises:
            ConfigurationError: it is neither a folder nor a cache.
        """
        return value if value is None or isinstance(value, AnswerCache) else cls(value)

    @property
    def stats(self) -> CacheStats:
        """What it did so far, in this process."""
        store = self._store
        return CacheStats(
            hits=self._hits, misses=self._misses, stored=self._stored, passed=self._passed,
            skipped=store.skipped, failure=store.failure,
        )  # fmt: skip

    def check(self) -> None:
        """Open the database and close it again. Blocks.

        Raises:
            ConfigurationError: it cannot be used; says why.
        """
        from konko_async.middleware._cache.database import Database  # noqa: PLC0415 - rarely asked

        try:
            Database(self.folder).close()
        except Exception as error:  # noqa: BLE001 - sqlite3's errors are not to be imported here
            problem = str(error)
        else:
            return
        raise ConfigurationError(
            f"the answer cache in {Path(self.folder)} cannot be used ({problem}); give another "
            "folder, or remove its files"
        )

    def look_up(self, key: bytes) -> Entry | asyncio.Future[Entry | None] | None:
        """Return the answer that is kept under a key, or what to await for it; None: neither."""
        return self._store.find(key)

    def count(self, *, found: bool) -> None:
        """Count what came of a look-up."""
        if found:
            self._hits += 1
        else:
            self._misses += 1

    def keep(self, key: bytes, entry: Entry) -> None:
        """Keep an answer."""
        self._stored += self._store.keep(key, entry)

    def pass_by(self) -> None:
        """Count a call that it does not serve."""
        self._passed += 1

    async def close(self) -> None:
        """Write what waits, and end the threads; idempotent. Later use starts them again."""
        if self._store.started:
            await asyncio.to_thread(self._store.stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<AnswerCache {self.folder!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the same database.
        options = {**self._options, "every_call": self.every_call, "namespace": self.namespace}
        return _remade, (self.folder, options)


def _remade(folder: str, options: dict[str, Any]) -> AnswerCache:
    return AnswerCache(folder, **options)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check(folder: Any, max_bytes: Any, max_age: Any, namespace: Any) -> None:
    if not isinstance(folder, (str, os.PathLike)) or not str(folder):
        raise ConfigurationError(
            f"cache must be a folder or an AnswerCache, not {type(folder).__name__}"
        )
    if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < _LEAST:
        raise ConfigurationError(f"max_bytes must be at least {_LEAST}, not {max_bytes!r:.40}")
    if max_age is not None and not (_is_number(max_age) and max_age > 0):
        raise ConfigurationError(f"max_age must be seconds above 0, not {max_age!r:.40}")
    if namespace is not None and not isinstance(namespace, str):
        raise ConfigurationError(f"namespace must be a string, not {type(namespace).__name__}")
