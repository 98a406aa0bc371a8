"""Maps failed streams to exceptions: error events, other bodies, answers that are cut; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

from konko_async._http.error_responses import find_error, status_of_words, stream_error, words_of
from konko_async.errors import KonkoError, ResponseDecodeError, StreamTruncatedError
from konko_async.wire._codec import decode_json

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AnswerHead",
    "ended_early",
    "is_keep_alive",
    "is_progress",
    "names_error",
    "not_a_stream",
    "sent_error",
]

_BODY_SHOWN = 4096
_WORDS_SHOWN = 200
_KEEP_ALIVE = frozenset({b"", b"heartbeat", b"keep-alive", b"keepalive", b"ok", b"ping", b"pong"})
_PROGRESS = frozenset(
    {"heartbeat", "info", "keep-alive", "keepalive", "ping", "progress", "status"}
)
# Not compiled here, as few programs need it: re keeps what it has compiled.
_ERROR_NAME = r"(?i:(?:^|[^a-z])(?:error|exception|fail(?:ed|ure)?|fatal)s?$)"


class AnswerHead(Protocol):
    """What errors take from the head of an answer."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Case-insensitive."""

    @property
    def request_id(self) -> str | None:
        """``x-request-id``."""


def names_error(name: str) -> bool:
    """Whether an event's type says that it is an error: ``error``, ``stream_error``, ``failed``."""
    return re.search(_ERROR_NAME, name) is not None


def is_keep_alive(data: bytes) -> bool:
    """Whether an event's data says nothing: a word, or a comment that a proxy wrapped as data."""
    text = data.strip()
    return text.startswith(b":") or text.lower() in _KEEP_ALIVE


def is_progress(value: Any) -> bool:
    """Whether JSON says of itself that it is no more than a sign of life."""
    return isinstance(value, dict) and value.get("type") in _PROGRESS


def not_a_stream(body: bytes, head: AnswerHead) -> KonkoError:
    """Return the error for a 200 whose body holds no events; ``body`` is its beginning."""
    for text in (body, body.partition(b"\n")[0]):  # errors may have [DONE] behind them
        try:
            value = decode_json(text)
        except ResponseDecodeError:
            continue
        if find_error(value) is not None:
            return stream_error(value, head.headers, head.request_id, delivered=False)
    kind = head.headers.get("content-type", "no content type")[:100]
    words = "" if body.lstrip().startswith((b"{", b"[")) else words_of(body)
    if status_of_words(words) is not None:
        return stream_error(words, head.headers, head.request_id, delivered=False)
    if "json" in kind:
        words = ""  # it may be part of an answer, which belongs in no message
    return ResponseDecodeError(
        f"a stream was asked for, but the server answered with {kind!r} and no events"
        + (f": {words[:_WORDS_SHOWN]}" if words else ""),
        body=body[:_BODY_SHOWN],
        request_id=head.request_id,
    )


def sent_error(data: bytes, value: Any, head: AnswerHead, *, delivered: bool) -> KonkoError:
    """Return the error that an event carries.

    Args:
        data: the event's.
        value: the same decoded; None if that has not been tried.
        head: of the answer that it came in.
        delivered: whether a delta had come before it.
    """
    if value is None:
        try:
            value = decode_json(data)
        except ResponseDecodeError:
            value = words_of(data)
    return stream_error(value, head.headers, head.request_id, delivered=delivered)


def ended_early(how: str, head: AnswerHead) -> StreamTruncatedError:
    """Return the error for a stream that is not whole: ``how`` it ended."""
    return StreamTruncatedError(f"the stream {how}", request_id=head.request_id)
