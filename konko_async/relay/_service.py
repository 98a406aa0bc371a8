"""The relay's endpoints, for no framework in particular."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from konko_async.relay._source import Source

__all__ = ["RelayReply", "RelayRequest", "RelayService"]


class RelayRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as an adapter hands it in.

    Attributes:
        method: in upper case.
        path: below the prefix, decoded, beginning with a slash.
        query: the last value of each name.
        headers: names in lower case; of several of one name, joined by ``, ``.
        body: a function that returns an iterator over the body's bytes; called once at most, after
            everything else has been checked.
        gone: whether the browser has left; cheap.
        peer: the browser's address, if known.
        native: the framework's own request, for auth hooks.
    """

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: Callable[[], AsyncIterator[bytes]]
    gone: Callable[[], bool]
    peer: str | None = None
    native: Any = None


class RelayReply:
    """What an adapter sends.

    Attributes:
        status: HTTP status.
        headers: all of them but Content-Length and Date.
        body: where there is no source.
        source: to be given to ``pump()``, or None.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    source: Source | None

    async def close(self) -> None:
        """Free the place it takes, and its source; to be called in any case. Idempotent."""
        raise NotImplementedError


class RelayService:
    """Endpoints of a relay.

    Attributes:
        draining: while True, new calls are answered with 503.
        live: sources that are being read.
    """

    draining: bool
    live: set[Source]

    async def handle(self, request: RelayRequest) -> RelayReply:
        """Answer a request; waits for the first delta of streams (unless ``open_early``).

        Raises:
            ReaderGoneError: the browser left meanwhile; there is nobody to answer.
        """
        raise NotImplementedError

    async def until_idle(self) -> None:
        """Wait until nothing is being read."""
        raise NotImplementedError

    async def close(self) -> None:
        """End everything that is still running."""
        raise NotImplementedError
