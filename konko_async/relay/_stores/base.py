"""The Protocol of stores that keep streams for readers who come back: memory, Redis, others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec

__all__ = ["Page", "StreamInfo", "StreamStore", "Watched"]

State = Literal["active", "finished", "expired"]


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a stream apart from its events.

    Attributes:
        id: not to be guessed.
        owner: the identity whose call it is; nobody else may read or stop it.
        key: what the owner calls it (a chat's id), or None.
        format: name of its format.
        headers: of its HTTP answer.
        state: ``expired`` when it was there and has been thrown away.
    """

    id: str
    owner: str
    key: str | None = None
    format: str = "openai"
    headers: Mapping[str, str] = {}
    state: State = "active"


class Page(msgspec.Struct, frozen=True):
    """Events of a stream, in order.

    Attributes:
        first: the number of the first of them; the stream's first has 1.
        payloads: their data.
        finished: whether nothing can follow them.
    """

    first: int
    payloads: Sequence[bytes]
    finished: bool


class Watched(msgspec.Struct, frozen=True):
    """What a store reports to the writer of a stream.

    Attributes:
        stop: whether somebody stopped the stream.
        unread: seconds since the last reader left (or since the stream began, if none ever came);
            0 while there are readers.
    """

    stop: bool
    unread: float


class StreamStore(Protocol):
    """Logs of streams: written by one, read by many, perhaps in other processes.

    ``check_store()`` of this package checks whether an implementation keeps to it.
    """

    async def create(self, info: StreamInfo, *, lease: float) -> str | None:
        """Begin a stream.

        Args:
            info: of an id that is new.
            lease: seconds after which the writer counts as dead unless it calls :meth:`watch`.

        Returns:
            The id of the owner's active stream that had this key until now, so that a new question
            in a chat can end the answer before; None if there is none.

        Raises:
            StoreFullError: there are too many.
        """

    async def append(self, stream_id: str, payloads: Sequence[bytes]) -> int:
        """Add events; all readers that wait are woken.

        Returns:
            The number of the last event.

        Raises:
            StreamTooLongError: it would be longer than is kept; nothing was added.
            StreamLostError: there is no such stream, or it is finished.
        """

    async def finish(self, stream_id: str, payloads: Sequence[bytes]) -> None:
        """Add the last events, in spite of any cap, and end the stream; idempotent.

        From now on it is kept for as long as the store keeps streams, and its key is free.
        """

    async def watch(self, stream_id: str, *, wait: float, lease: float) -> Watched:
        """Wait, as its writer, until somebody stops the stream; renews the lease.

        Args:
            stream_id: which.
            wait: seconds, at most.
            lease: seconds, as in :meth:`create`.

        Raises:
            StreamLostError: there is no such stream any more.
        """

    async def info(self, stream_id: str) -> StreamInfo | None:
        """Return what is known of a stream; None if it never was, or was long ago."""

    async def find(self, owner: str, key: str) -> str | None:
        """Return the id of the owner's latest active stream of that key."""

    async def read(self, stream_id: str, after: int, *, wait: float) -> Page:
        """Return the events after number ``after``, waiting for one if there is none.

        Args:
            stream_id: which.
            after: 0 for all.
            wait: seconds to wait, at most; then the page is empty.

        Raises:
            StreamLostError: there is no such stream any more, or its writer died.
        """

    async def attend(self, stream_id: str, reader: str, *, lease: float) -> None:
        """Note that a reader is there, for ``lease`` seconds from now unless renewed."""

    async def leave(self, stream_id: str, reader: str) -> None:
        """Note that a reader has left; one that is not known is ignored."""

    async def request_stop(self, stream_id: str) -> None:
        """Ask the writer, wherever it is, to end the stream."""
