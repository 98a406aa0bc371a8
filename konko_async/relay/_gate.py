"""Who may call: Host, Origin, preflights, bodies; before anything costs."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import msgspec

from konko_async.relay._errors import RefusalError
from konko_async.relay._http import RelayReply, RelayRequest
from konko_async.relay._policy import RelayOptions

__all__ = ["check_host", "check_origin", "cross_origin_headers", "preflight", "read_json"]

_METHODS = "GET, POST, DELETE, OPTIONS"
_ASKED = "Content-Type, Authorization, Last-Event-ID, X-Resumable"
_SHOWN = "X-Stream-Id, Retry-After, X-Request-Id"
_PREFLIGHT_AGE = "600"  # seconds
_DEEPEST = 64  # levels of a body's JSON


def _split_host(value: str) -> tuple[str, str] | None:
    """Return host (IPv6 in brackets) and port ("" if none) of a Host header; None if it is none."""
    if any(c in value for c in "/\\@?#, \t") or not value.isascii():
        return None
    value = value.lower()
    if value.startswith("["):
        host, bracket, port = value.partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        host, port = host + "]", port[1:]
    else:
        host, _, port = value.partition(":")
    if not host or (port and not port.isdigit()):
        return None
    return host.removesuffix("."), port


def check_host(request: RelayRequest, options: RelayOptions) -> None:
    """Refuse names that are not ours: a page elsewhere can make its name point at us.

    Raises:
        RefusalError: 421.
    """
    found = _split_host(request.headers.get("host", ""))
    if found is not None:
        for allowed in options.hosts:
            wanted = _split_host(allowed)
            if wanted is not None and wanted[0] == found[0] and wanted[1] in {"", found[1]}:
                return
    raise RefusalError(421, "this host is not served here", type="wrong_host")


def _same_origin(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in {"http", "https"}:
        return False
    default = {"http": "80", "https": "443"}[parts.scheme]
    ours, theirs = _split_host(host), _split_host(parts.netloc)
    if ours is None or theirs is None:
        return False
    return ours[0] == theirs[0] and (ours[1] or default) == (str(port) if port else default)


def check_origin(request: RelayRequest, options: RelayOptions) -> str | None:
    """Return the allowed foreign origin that calls, None if it is our own or no browser's.

    Raises:
        RefusalError: 403, another origin.
    """
    origin = request.headers.get("origin")
    if origin is None:
        # Browsers of today say where a request comes from even where they send no Origin.
        if request.headers.get("sec-fetch-site") == "cross-site" and request.method != "GET":
            raise RefusalError(403, "this origin may not call", type="forbidden")
        return None
    if origin in options.origins:
        return origin
    if _same_origin(origin, request.headers.get("host", "")):
        return None
    raise RefusalError(403, "this origin may not call", type="forbidden")


def cross_origin_headers(origin: str | None, options: RelayOptions) -> dict[str, str]:
    """Return the headers that let a page of an allowed origin read the answer."""
    headers = {"Vary": "Origin"} if options.origins else {}
    if origin is not None:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = _SHOWN
        if options.credentials:
            headers["Access-Control-Allow-Credentials"] = "true"
    return headers


def preflight(origin: str | None, options: RelayOptions) -> RelayReply:
    """Answer what a browser asks before it calls from another origin."""
    headers = cross_origin_headers(origin, options)
    if origin is not None:
        headers["Access-Control-Allow-Methods"] = _METHODS
        headers["Access-Control-Allow-Headers"] = _ASKED
        headers["Access-Control-Max-Age"] = _PREFLIGHT_AGE
    return RelayReply(204, headers)


async def _read(request: RelayRequest, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    too_large = RefusalError(
        413, f"the body is larger than {limit} bytes", type="request_too_large"
    )
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):  # noqa: PLR2004 - 10^18 is too many
        raise too_large
    pieces, size = [], 0
    async for piece in request.body():
        size += len(piece)
        if size > limit:
            raise too_large
        pieces.append(piece)
    return b"".join(pieces)


async def read_json(request: RelayRequest, options: RelayOptions) -> Any:
    """Read a request's body.

    Raises:
        RefusalError: 415 not declared as JSON (which lets no page of another origin send it
            unasked); 413 too large; 408 too slow; 400 not JSON, or nested too deep.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusalError(415, "the body must be application/json")
    try:
        async with asyncio.timeout(options.body_timeout):
            body = await _read(request, options.max_body)
    except TimeoutError:
        raise RefusalError(408, "the body did not arrive in time", type="timeout") from None
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RefusalError(400, "the body is not valid JSON") from None
    if _depth_exceeds(value, _DEEPEST):
        raise RefusalError(400, "the body is nested too deep")
    return value


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
