"""Checks every request before it costs anything: Host, Origin, preflights, bodies."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import msgspec

from konko_async.relay._errors import RefusalError
from konko_async.relay._http import RelayReply, RelayRequest
from konko_async.relay._policy import RelayOptions

__all__ = ["check_host", "check_origin", "cross_origin_headers", "preflight", "read_json"]

_HEADER_NAME = re.compile(r"[a-z0-9-]{1,64}")
_METHODS = "GET, POST, DELETE, OPTIONS"
# Scripts of other origins can read no other headers than these and a few harmless ones.
_SHOWN = "X-Stream-Id, Retry-After, X-Request-Id"
# Seconds. Without it browsers repeat a preflight after 5 s, the default of the Fetch standard.
_PREFLIGHT_AGE = "600"
_MOST_HEADERS = 100  # of a preflight that are looked at; no client has so many
_DEEPEST = 64  # levels of a body's JSON
# Escapes in JSON: a surrogate pair, half of one, or anything else. JavaScript writes half of a pair
# for text that was cut inside an emoji; it would be in every request of that chat from then on.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _split_host(value: str) -> tuple[str, str] | None:
    """Return host (IPv6 in brackets) and port ("" if none) of a Host header; None if it is none."""
    # With any of these, two parsers may disagree on where the host ends.
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
    # The final dot is the DNS root: the same name.
    return host.removesuffix("."), port


def check_host(request: RelayRequest, options: RelayOptions) -> None:
    """Refuse hosts that are not ours (DNS rebinding: a page elsewhere points its name at us).

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
    # Sandboxed frames and files send ``null``; extensions have schemes of their own.
    if parts.scheme not in {"http", "https"}:
        return False
    # Behind a proxy that ends TLS our own scheme is unknown, so the origin's stands for both.
    # Browsers leave out its default port, in Origin as in Host.
    default = {"http": "80", "https": "443"}[parts.scheme]
    ours, theirs = _split_host(host), _split_host(parts.netloc)
    if ours is None or theirs is None:
        return False
    return ours[0] == theirs[0] and (ours[1] or default) == (str(port) if port else default)


def check_origin(request: RelayRequest, options: RelayOptions) -> str | None:
    """Return the allowed foreign origin that calls, None if it is our own or not a browser's.

    Raises:
        RefusalError: 403, another origin.
    """
    origin = request.headers.get("origin")
    if origin is None:
        # Browsers of today say where a request comes from even where they send no Origin.
        # "same-site" is another origin, too: a subdomain, or another port.
        site = request.headers.get("sec-fetch-site", "none")
        # A GET changes nothing, its answer cannot be read across origins, and a link from another
        # site has to open the page.
        if site not in {"none", "same-origin"} and request.method != "GET":
            raise RefusalError(403, "this origin may not call", type="forbidden")
        return None
    if origin in options.origins:
        return origin
    if _same_origin(origin, request.headers.get("host", "")):
        return None
    raise RefusalError(403, "this origin may not call", type="forbidden")


def cross_origin_headers(origin: str | None, options: RelayOptions) -> dict[str, str]:
    """Return the headers that let a page of an allowed origin read the answer."""
    # On answers to our own pages, too: a cache must not give them to another origin's.
    headers = {"Vary": "Origin"} if options.origins else {}
    if origin is not None:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = _SHOWN
        if options.credentials:
            headers["Access-Control-Allow-Credentials"] = "true"
    return headers


def preflight(
    origin: str | None, options: RelayOptions, request: Mapping[str, str] = MappingProxyType({})
) -> RelayReply:
    """Answer a preflight, which a browser sends before a call from another origin.

    Args:
        origin: an allowed foreign one, or None.
        options: of the relay.
        request: the headers of the preflight; names in lower case.
    """
    headers = cross_origin_headers(origin, options)
    if origin is not None:
        headers["Access-Control-Allow-Methods"] = _METHODS
        headers["Access-Control-Allow-Headers"] = ", ".join(
            _allowed_headers(options, request.get("access-control-request-headers", ""))
        )
        headers["Access-Control-Max-Age"] = _PREFLIGHT_AGE
    return RelayReply(204, headers)


def _allowed_headers(options: RelayOptions, asked: str) -> list[str]:
    """Return the listed names, and the requested ones that match an entry with a ``*``.

    A ``*`` of the protocol's own would not do: it stands for nothing where cookies are sent, and
    never for ``Authorization``.
    """
    names = [name for name in options.cors_headers if not name.endswith("*")]
    begins = tuple(name[:-1].lower() for name in options.cors_headers if name.endswith("*"))
    wanted = [name.strip().lower() for name in asked.split(",", _MOST_HEADERS)[:_MOST_HEADERS]]
    return [*names, *(n for n in wanted if n.startswith(begins) and _HEADER_NAME.fullmatch(n))]


def _whole_escape(match: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if match["half"] else match[0]


async def _read(request: RelayRequest, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    too_large = RefusalError(
        413, f"the body is larger than {limit} bytes", type="request_too_large"
    )
    # A number of more digits than the limit has is above it; int() takes time for millions of them.
    digits = declared.lstrip("0") if declared.isascii() and declared.isdigit() else ""
    if digits and (len(digits) > len(str(limit)) or int(digits) > limit):
        raise too_large
    # Counted all the same: chunked bodies declare no length.
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
        try:
            # Repaired only after it failed: nearly all bodies are valid, and pay nothing for it.
            value = msgspec.json.decode(body)
        except msgspec.DecodeError:
            value = msgspec.json.decode(_ESCAPE.sub(_whole_escape, body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RefusalError(400, "the body is not valid JSON") from None
    if _depth_exceeds(value, _DEEPEST):
        raise RefusalError(400, "the body is nested too deep")
    return value


def _depth_exceeds(value: Any, limit: int) -> bool:
    # Level by level, as recursion could fail on what it is to refuse. The checks of schemas and
    # parts, which do recurse, rely on this limit.
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
