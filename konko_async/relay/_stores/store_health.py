"""Tracks whether a store of streams works: checked before each use, logged once per outage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine
from typing import Final, TypeVar

from konko_async.errors import ConfigurationError, KonkoError
from konko_async.relay._errors import (
    StoreFullError,
    StoreUnavailableError,
    StreamLostError,
    StreamTooLongError,
)

__all__ = ["StreamStoreHealth"]

T = TypeVar("T")

_log = logging.getLogger("konko_async.relay")
# Raised by a store that works: they are answers, not outages.
_ANSWERS: Final = (StoreFullError, StreamLostError, StreamTooLongError, ConfigurationError)


class StreamStoreHealth:
    """Notes whether a store works.

    While it does not, it is tried every few seconds only: each try may cost its time-out.

    Attributes:
        away: whether the last use failed.
    """

    __slots__ = ("_next", "away")

    def __init__(self) -> None:
        self.away = False
        self._next = 0.0  # when it is tried again

    async def use(self, asked: Awaitable[T]) -> T:
        """Wait for what a store returns.

        Raises:
            StoreUnavailableError: it failed, or has failed just now.
        """
        if self.away and self._now() < self._next:
            if isinstance(asked, Coroutine):
                asked.close()  # Python warns of coroutines that are never awaited
            raise StoreUnavailableError("the store of streams is not available")
        try:
            found = await asked
        except _ANSWERS:
            self.worked()
            raise
        except Exception as error:  # noqa: BLE001 - a store's own; whatever it is, it is away
            self.failed(error)
            raise StoreUnavailableError("the store of streams is not available") from None
        self.worked()
        return found

    def failed(self, error: Exception) -> None:
        """Note a failure; the first of an outage is logged with its reason."""
        # After every failure, not only the first: callers get this as their Retry-After.
        self._next = self._now() + StoreUnavailableError.retry_after
        if not self.away:
            self.away = True
            _log.warning(
                "the store of streams is not available (%s); answers are not resumable",
                # The messages of other libraries' exceptions may hold users' text.
                error.message if isinstance(error, KonkoError) else type(error).__name__,
            )

    def worked(self) -> None:
        """Note that it works; the end of an outage is logged."""
        if self.away:
            self.away = False
            _log.warning("the store of streams is available again")

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
