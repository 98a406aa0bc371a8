"""What servers say when they fail, in all the shapes they say it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from konko_async.errors import APIStatusError, ResponseDecodeError, StreamServerError
from konko_async.middleware._retry_after import parse_retry_after
from konko_async.wire._codec import decode_json

__all__ = ["ErrorInfo", "find_error", "status_error", "stream_error"]

MESSAGE_LIMIT = 500
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
    ``{"detail": …}`` (FastAPI) and ``{"message": …}``.
    """
    if not isinstance(payload, dict):
        return None
    inner = payload.get("error")
    if inner is None or inner is False:
        if payload.get("object") != "error" and payload.get("type") != "error":
            if "choices" in payload or "data" in payload:
                return None
            inner = payload.get("detail", payload.get("message"))
            if inner is None:
                return None
        else:
            inner = payload
    if not isinstance(inner, dict):
        text = inner if isinstance(inner, str) else msgspec.json.encode(inner).decode()
        inner = {**payload, "message": text}
    return _read(inner, payload)


def _read(inner: dict[str, Any], outer: dict[str, Any]) -> ErrorInfo:
    message = _text(inner.get("message")) or _text(inner.get("detail"))
    if message is None:
        message = msgspec.json.encode(inner).decode()
    code, kind = inner.get("code"), inner.get("type")
    return ErrorInfo(
        message[:MESSAGE_LIMIT],
        _text(code),
        _text(kind),
        _text(inner.get("param")),
        _status(inner.get("status"), inner.get("status_code"), code, kind, outer.get("status")),
    )


def _plain(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())[:MESSAGE_LIMIT]


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
    info = find_error(payload) or ErrorInfo(_plain(body) or "the server sent no explanation")
    return APIStatusError.for_status(
        status,
        f"HTTP {status}: {info.message}",
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
    info = find_error(payload) or ErrorInfo(str(payload)[:MESSAGE_LIMIT])
    if info.status is not None and not delivered:
        return APIStatusError.for_status(
            info.status,
            f"the server sent an error inside a 200 answer: {info.message}",
            headers={name.lower(): value for name, value in headers.items()},
            body=payload,
            code=info.code,
            type=info.type,
            param=info.param,
            retry_after=parse_retry_after(headers, time.time()),
            request_id=request_id,
        )
    return StreamServerError(
        f"the server sent an error inside the stream: {info.message}",
        code=info.code,
        type=info.type,
        body=payload,
        request_id=request_id,
    )
