"""Requests and replies as the service sees them, independent of any web framework."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from konko_async.errors import KonkoError
from konko_async.relay._errors import described
from konko_async.relay._streams.source import Source

__all__ = [
    "SAFE_HEADERS",
    "STREAM_HEADERS",
    "RelayReply",
    "RelayRequest",
    "error_reply",
    "json_reply",
]

SAFE_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store, no-transform",  # a proxy that compresses would hold tokens back
    "X-Accel-Buffering": "no",  # nginx would collect chunks before it passes them on
    "X-Content-Type-Options": "nosniff",
}


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
        local: our own address of the connection, None if that is not known.
        peer: the browser's address, if known.
        native: the framework's own request, for auth hooks.
    """

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: Callable[[], AsyncIterator[bytes]]
    gone: Callable[[], bool]
    local: str | None = None
    peer: str | None = None
    native: Any = None


class RelayReply:
    """What an adapter sends.

    Attributes:
        status: HTTP status.
        headers: all of them but Content-Length and Date.
        body: where there is no source.
        source: to be given to ``pump()``, or None.
        early: as ``pump()`` takes it.
    """

    __slots__ = ("_on_close", "body", "early", "headers", "source", "status")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        source: Source | None = None,
        early: bool = False,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        base = SAFE_HEADERS if source is None else {**STREAM_HEADERS, **source.headers}
        self.status = status
        self.headers = {**base, **(headers or {})}
        self.body = body
        self.source = source
        self.early = early
        self._on_close = on_close

    async def close(self) -> None:
        """Free the slots that it holds, and its source; to be called in any case. Idempotent."""
        on_close, self._on_close = self._on_close, None
        # The source first: a slot is free only once the call that took it has ended.
        try:
            if self.source is not None:
                await self.source.close()
        finally:
            if on_close is not None:
                on_close()


def json_reply(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> RelayReply:
    """Return a reply with a JSON body; ``value`` may be JSON already, as bytes."""
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return RelayReply(status, {"Content-Type": "application/json", **(headers or {})}, body)


def error_reply(error: KonkoError) -> RelayReply:
    """Return the reply for a failure: its status, its error object, Retry-After."""
    status, public = described(error)
    headers = {}
    if public.retry_after is not None:
        # Whole seconds (RFC 9110, 10.2.3); rounded down, clients would come back too early.
        headers["Retry-After"] = str(math.ceil(public.retry_after))
    if status == 401:  # noqa: PLR2004 - RFC 9110, 15.5.2 requires the header
        headers["WWW-Authenticate"] = "Bearer"
    return json_reply({"error": public}, status, headers)
