"""What a streamed answer is where it is no answer: error events, other bodies, too little of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from konko_async._server_errors import find_error, stream_error
from konko_async.errors import KonkoError, ResponseDecodeError, StreamTruncatedError
from konko_async.wire._codec import decode_json

if TYPE_CHECKING:
    from konko_async._transport import Answer

__all__ = ["ended_early", "not_a_stream", "sent_error"]

_BODY_SHOWN = 4096


def not_a_stream(body: bytes, answer: Answer) -> KonkoError:
    """Return the error for a 200 whose body holds no events; ``body`` is its beginning."""
    try:
        value = decode_json(body)
    except ResponseDecodeError:
        value = None
    if value is not None and find_error(value) is not None:
        return stream_error(value, answer.headers, answer.request_id, delivered=False)
    kind = answer.headers.get("content-type", "no content type")[:100]
    return ResponseDecodeError(
        f"a stream was asked for, but the server answered with {kind!r} and no events",
        body=body[:_BODY_SHOWN],
        request_id=answer.request_id,
    )


def sent_error(text: str, value: Any, answer: Answer, *, delivered: bool) -> KonkoError:
    """Return the error that an event carries.

    Args:
        text: the event's data.
        value: the same decoded; None if that has not been tried.
        answer: it came in.
        delivered: whether a delta had come before it.
    """
    if value is None:
        try:
            value = decode_json(text)
        except ResponseDecodeError:
            value = text
    return stream_error(value, answer.headers, answer.request_id, delivered=delivered)


def ended_early(how: str, answer: Answer) -> StreamTruncatedError:
    """Return the error for a stream that is not whole: ``how`` it ended."""
    return StreamTruncatedError(f"the stream {how}", request_id=answer.request_id)
