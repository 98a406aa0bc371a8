"""What a client is set to: arguments first, then the environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import msgspec

from konko_async._secret import Secret, check_header_value
from konko_async.errors import ConfigurationError

__all__ = ["DEFAULT_BASE_URL", "Settings", "parse_base_url", "resolve"]

DEFAULT_BASE_URL = "https://api.konko.ai/v1"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go and what identifies us there.

    Attributes:
        base_url: origin and path, without a slash at the end.
        api_key: sent as ``Authorization: Bearer``.
        openai_api_key: sent as ``X-OpenAI-Api-Key``; None: not sent.
        headers: further headers on each request.
    """

    base_url: str
    api_key: Secret
    openai_api_key: Secret | None = None
    headers: Mapping[str, str] = {}


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_base_url(text: str, *, allow_http: bool = False) -> SplitResult:
    """Check a base URL.

    Args:
        text: such as ``https://api.konko.ai/v1``.
        allow_http: whether plain http may leave this machine.

    Raises:
        ConfigurationError: it has no http(s) scheme or host, holds a user, query or fragment, or
            is plain http to another machine.
    """
    check_header_value("base_url", text)
    try:
        url = urlsplit(text.strip())
        host, _ = url.hostname, url.port
    except ValueError:
        url, host = SplitResult("", "", "", "", ""), None
    if url.username is not None or url.password is not None:
        raise ConfigurationError(
            "base_url holds a user name or password; pass the key as api_key= instead"
        )
    if url.scheme not in {"http", "https"} or not host or " " in text.strip():
        raise ConfigurationError(
            f"base_url {text!r} is not an http(s) address such as {DEFAULT_BASE_URL}"
        )
    if url.query or url.fragment:
        raise ConfigurationError("base_url must not hold a query or fragment; see extra_query=")
    if url.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ConfigurationError(
            f"base_url {text!r} would send the key over plain http to another machine; use https, "
            "or pass allow_http=True if the network between is yours"
        )
    return url


def _first(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _openai_key(argument: str | None, host: str | None) -> Secret | None:
    """The second key goes to another host only if the caller says so: see konko 0.5.0's leak."""
    if argument is None and host is not None and (host == "konko.ai" or host.endswith(".konko.ai")):
        argument = _first("OPENAI_API_KEY")
    return None if argument is None else Secret(argument, name="openai_api_key")


def resolve(
    *,
    api_key: str | None,
    base_url: str | None,
    openai_api_key: str | None,
    default_headers: Mapping[str, str] | None,
    allow_http: bool,
) -> Settings:
    """Read the arguments of a client, and the environment for what they leave open.

    Raises:
        ConfigurationError: there is no key, or a value cannot be used.
    """
    text = base_url or _first("KONKO_BASE_URL", "KONKO_API_BASE") or DEFAULT_BASE_URL
    if not isinstance(text, str):
        raise ConfigurationError(f"base_url must be a string, not {type(text).__name__}")
    url = parse_base_url(text, allow_http=allow_http)
    key = api_key if api_key is not None else _first("KONKO_API_KEY")
    if key is None:
        raise ConfigurationError(
            "no API key: pass AsyncKonko(api_key=...) or set the environment variable KONKO_API_KEY"
        )
    return Settings(
        base_url=url._replace(path=url.path.rstrip("/")).geturl(),
        api_key=Secret(key),
        openai_api_key=_openai_key(openai_api_key, url.hostname),
        headers=check_headers(default_headers),
    )


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Check extra headers: names are tokens (RFC 9110, 5.6.2), values hold no line breaks.

    Raises:
        ConfigurationError: names the header, never its value.
    """
    checked = {}
    for name, value in (headers or {}).items():
        if not name or not _is_token(name):
            raise ConfigurationError("a header's name must be letters, digits and -_.!#$%&'*+^`|~")
        checked[name] = check_header_value(f"header {name}", value)
    return checked


def _is_token(name: str) -> bool:
    return str(name).isascii() and all(c.isalnum() or c in "-_.!#$%&'*+^`|~" for c in name)
