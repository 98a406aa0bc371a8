"""What servers say when they fail, in all the shapes they say it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from konko_async.errors import APIStatusError, ResponseDecodeError, StreamServerError
from konko_async.middleware._retry_after import parse_retry_after
from konko_async.wire._codec import decode_json

__all__ = ["ErrorInfo", "find_error", "status_error", "stream_error"]

MESSAGE_LIMIT = 500
_NO_REASON = "the server sent no explanation"
_FIELD_LIMIT = 200  # of code, type and param
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]+")  # all but the line feed
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "timeout": 408,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "tokens": 429,
    "insufficient_quota": 429,
    "too_many_requests": 429,
    "server_error": 500,
    "internal_error": 500,
    "internalservererror": 500,
    "internal_server_error": 500,
    "api_error": 500,
    "bad_gateway": 502,
    "service_unavailable": 503,
    "unavailable_error": 503,
    "overloaded": 529,
    "overloaded_error": 529,
}


class ErrorInfo(msgspec.Struct, frozen=True):
    """What could be read of an error.

    Attributes:
        message: at most 500 characters.
        code: as text, whatever the server sent.
        type: the error's type.
        param: the parameter at fault.
        status: the HTTP status that it names by number or by type, or None.
    """

    message: str
    code: str | None = None
    type: str | None = None
    param: str | None = None
    status: int | None = None


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, (dict, list)) else str(value)


def _short(value: Any) -> str | None:
    text = _text(value)
    return None if text is None else text[:_FIELD_LIMIT]


def _shown(text: str) -> str:
    """Cut a text, and take out what could steer a terminal or forge a line of a log."""
    return _CONTROLS.sub(" ", text[: 2 * MESSAGE_LIMIT]).strip()[:MESSAGE_LIMIT]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _status(*candidates: Any) -> int | None:
    for value in candidates:
        text = str(value).strip().lower()
        if text.isascii() and text.isdigit() and len(text) == len("500"):
            number = int(text)
            if 400 <= number <= 599:  # noqa: PLR2004 - the error statuses of HTTP
                return number
        if text in _STATUS_OF_TYPE:
            return _STATUS_OF_TYPE[text]
    return None


def find_error(payload: Any) -> ErrorInfo | None:
    """Return the error in a decoded JSON payload, or None if it holds none.

    Known shapes: ``{"error": {…}}``, ``{"error": "text"}``, ``{"object": "error", …}``,
    ``{"type": "error", …}``, ``{"detail": …}`` (FastAPI), ``{"message": …}``, and a list that
    begins with one of these (Gemini). An ``error`` that says nothing, beside choices or data, is
    none.
    """
    if isinstance(payload, list) and payload and isinstance(payload[0], dict):
        payload = payload[0]
        if payload.get("error") is None:
            return None
    if not isinstance(payload, dict):
        return None
    inner = payload.get("error")
    says_nothing = inner is None or inner is False
    if says_nothing or (not inner and (payload.get("choices") or payload.get("data"))):
        inner = _unnamed_error(payload)
        if inner is None:
            return None
    if not isinstance(inner, dict):
        inner = {**payload, "message": _with_reason(inner, payload)}
    return _read(inner, payload)


def _unnamed_error(payload: dict[str, Any]) -> Any:
    """Return what stands for an ``error`` in a payload without one, or None."""
    if payload.get("object") == "error" or payload.get("type") == "error":
        return payload
    if "choices" in payload or "data" in payload:
        return None
    detail = payload.get("detail")
    return payload.get("message") if detail is None else detail


def _with_reason(inner: Any, payload: dict[str, Any]) -> str:
    text = inner if isinstance(inner, str) else _json(inner)
    reason = payload.get("message")
    if isinstance(reason, str) and reason and reason != text:
        return f"{text}: {reason}" if text else reason  # {"error": "Bad Request", "message": …}
    return text


def _read(inner: dict[str, Any], outer: dict[str, Any]) -> ErrorInfo:
    message = _text(inner.get("message")) or _text(inner.get("detail")) or _json(inner)
    code, kind = inner.get("code"), inner.get("type")
    return ErrorInfo(
        _shown(message),
        _short(code),
        _short(kind),
        _short(inner.get("param")),
        _status(inner.get("status"), inner.get("status_code"), code, kind, outer.get("status")),
    )


def _plain(body: bytes) -> str:
    return _shown(" ".join(body.decode("utf-8", "replace").split()))


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, request_id: str | None
) -> APIStatusError:
    """Return the typed error of an answer with an error status.

    Args:
        status: its HTTP status.
        headers: case-insensitive.
        body: what was read of it, at most 64 KiB.
        request_id: its ``x-request-id``.
    """
    payload: Any
    try:
        payload = decode_json(body)
    except ResponseDecodeError:
        payload = body.decode("utf-8", "replace")
    info = find_error(payload) or ErrorInfo(_plain(body) or _NO_REASON)
    return APIStatusError.for_status(
        status,
        f"HTTP {status}: {info.message}"[:MESSAGE_LIMIT],
        headers={name.lower(): value for name, value in headers.items()},
        body=payload,
        code=info.code,
        type=info.type,
        param=info.param,
        retry_after=parse_retry_after(headers, time.time()),
        request_id=request_id,
    )


def redirect_error(
    status: int, headers: Mapping[str, str], request_id: str | None
) -> APIStatusError:
    """Return the error for a redirect, which is never followed: it could carry the key away."""
    place = headers.get("location", "")[:200]
    return APIStatusError.for_status(
        status,
        f"HTTP {status}: the server redirects to {place!r}; redirects are never followed, so that "
        "no key reaches another server. If that address is right, set it as base_url",
        headers={name.lower(): value for name, value in headers.items()},
        request_id=request_id,
    )


def stream_error(
    payload: Any, headers: Mapping[str, str], request_id: str | None, *, delivered: bool
) -> APIStatusError | StreamServerError:
    """Return the error that a 200 stream (or a 200 answer) carries inside.

    Args:
        payload: the event's data, decoded, or its text.
        headers: the answer's.
        request_id: the answer's.
        delivered: whether deltas have reached the caller. If not, an error that names a status is
            what it would have been as a status.
    """
    info = find_error(payload)
    if info is None:
        text = payload if isinstance(payload, str) else _json(payload)
        info = ErrorInfo(_shown(text) or _NO_REASON)
    if info.status is not None and not delivered:
        return APIStatusError.for_status(
            info.status,
            f"the server sent an error inside a 200 answer: {info.message}"[:MESSAGE_LIMIT],
            headers={name.lower(): value for name, value in headers.items()},
            body=payload,
            code=info.code,
            type=info.type,
            param=info.param,
            retry_after=parse_retry_after(headers, time.time()),
            request_id=request_id,
        )
    return StreamServerError(
        f"the server sent an error inside the stream: {info.message}"[:MESSAGE_LIMIT],
        code=info.code,
        type=info.type,
        body=payload,
        request_id=request_id,
    )
