"""Writes payloads as frames of an event stream; pure.

What is in a payload stays in it: a line break becomes one more ``data:`` line, so that no text can
begin a field, and ids and event names that could are refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from konko_async.errors import ConfigurationError

__all__ = ["PING", "comment", "data", "frames", "numbered"]

_BETWEEN = b"\n\ndata: "


def comment(text: bytes = b"") -> bytes:
    """Return a frame that readers skip.

    Args:
        text: without line breaks.

    Raises:
        ConfigurationError: it holds one.
    """
    _check("comment", text)
    return b": %b\n\n" % text


def data(payload: bytes, *, id: bytes | None = None, event: bytes | None = None) -> bytes:
    r"""Return the frame of one event.

    Args:
        payload: its data; CR, LF and CRLF in it reach the reader as ``\n``.
        id: what a reader that lost its connection sends back; None: the last one stays in force.
        event: its type; None: ``message``.

    Raises:
        ConfigurationError: ``id`` or ``event`` holds a line break or NUL.
    """
    head = b""
    if event is not None:
        _check("event", event)
        head = b"event: %b\n" % event
    if id is not None:
        _check("id", id)
        head += b"id: %b\n" % id
    if b"\n" in payload or b"\r" in payload:
        payload = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        payload = payload.replace(b"\n", b"\ndata: ")
    return b"%bdata: %b\n\n" % (head, payload)


def frames(payloads: Sequence[bytes]) -> bytes:
    """Return the frames of events without ids, one after the other."""
    if not payloads:
        return b""
    joined = _BETWEEN.join(payloads)
    # One look at all of them costs less than one at each.
    if b"\r" in joined or joined.count(b"\n") != 2 * (len(payloads) - 1):
        return b"".join([data(payload) for payload in payloads])
    return b"data: %b\n\n" % joined


def numbered(payloads: Sequence[bytes], stream_id: str, first: int) -> bytes:
    """Return the frames of events with the ids ``<stream_id>.<first>`` and so on."""
    head = stream_id.encode("ascii")
    joined = b"".join(payloads)  # one look at all of them, as in frames()
    if b"\n" in joined or b"\r" in joined:
        return b"".join(
            [data(text, id=b"%b.%d" % (head, seq)) for seq, text in enumerate(payloads, first)]
        )
    _check("id", head)
    return b"".join(
        [b"id: %b.%d\ndata: %b\n\n" % (head, seq, text) for seq, text in enumerate(payloads, first)]
    )


def _check(name: str, value: bytes) -> None:
    if b"\n" in value or b"\r" in value or b"\0" in value:
        raise ConfigurationError(f"the {name} of a frame must not hold line breaks or NUL")


PING = comment(b"ping")
"""What is sent while there is nothing to send."""
