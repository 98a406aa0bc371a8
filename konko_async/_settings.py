"""What a client is set to: arguments first, then the environment."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import msgspec

from konko_async._secret import Secret, check_header_value, masked
from konko_async.errors import ConfigurationError

__all__ = ["DEFAULT_BASE_URL", "Settings", "masked_values", "parse_base_url", "resolve"]

DEFAULT_BASE_URL = "https://api.konko.ai/v1"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = "konko.ai"
_NO_URL = SplitResult("", "", "", "", "")
# What urlsplit() takes for a host can hold nearly anything, and libraries differ in what they make
# of it. A host that ends with ".konko.ai" has to be one below konko.ai for all of them.
_NETLOC = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\])(?::[0-9]*)?")


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
            is plain http to another machine. It is not echoed: it may hold a password, or be the
            key, given in the wrong place.
    """
    text = check_header_value("base_url", text).strip()
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        url, host = _NO_URL, None
    if "@" in url.netloc:
        raise ConfigurationError(
            "base_url holds a user name or password; pass the key as api_key= instead"
        )
    if url.scheme not in {"http", "https"} or not host or _NETLOC.fullmatch(url.netloc) is None:
        raise ConfigurationError(
            f"base_url is not an http(s) address such as {DEFAULT_BASE_URL} (host names beyond "
            "ASCII are to be given in their xn-- form)"
        )
    if "?" in text or "#" in text:
        raise ConfigurationError("base_url must not hold a query or fragment; see extra_query=")
    if any(c.isspace() for c in text):
        raise ConfigurationError("base_url holds white space")
    if url.scheme == "http" and not allow_http and not _is_loopback(host):
        raise ConfigurationError(
            f"base_url would send the key over plain http to another machine, {host[:253]}; use "
            "https, or pass allow_http=True if the network between is yours"
        )
    return url


def _first(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _openai_key(argument: str | None, url: SplitResult) -> Secret | None:
    """The second key goes to another host only if the caller says so: see konko 0.5.0's leak."""
    host = url.hostname or ""
    if argument is None and url.scheme == "https" and (host == _OURS or host.endswith("." + _OURS)):
        argument = masked(_first("OPENAI_API_KEY"))
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
    api_key, openai_api_key = masked(api_key), masked(openai_api_key)
    default_headers = masked_values(default_headers)
    text = base_url or _first("KONKO_BASE_URL", "KONKO_API_BASE") or DEFAULT_BASE_URL
    if not isinstance(text, str):
        raise ConfigurationError(f"base_url must be a string, not {type(text).__name__}")
    url = parse_base_url(text, allow_http=allow_http)
    key = api_key if api_key is not None else masked(_first("KONKO_API_KEY"))
    if key is None:
        raise ConfigurationError(
            "no API key: pass AsyncKonko(api_key=...) or set the environment variable KONKO_API_KEY"
        )
    return Settings(
        base_url=url._replace(path=url.path.rstrip("/")).geturl(),
        api_key=Secret(key),
        openai_api_key=_openai_key(openai_api_key, url),
        headers=check_headers(default_headers),
    )


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Check extra headers: names are tokens (RFC 9110, 5.6.2), values hold no line breaks.

    Raises:
        ConfigurationError: names the header, never its value.
    """
    headers = masked_values(headers)
    checked = {}
    for name, value in headers.items():
        if not _is_token(name):
            raise ConfigurationError("a header's name must be letters, digits and -_.!#$%&'*+^`|~")
        checked[name] = check_header_value(f"header {name}", value)
    return checked


def masked_values(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return headers whose values are redacted where they are shown: they hold keys, too.

    Raises:
        ConfigurationError: not a mapping.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers must be a mapping, not {type(headers).__name__}")
    return {name: masked(value) for name, value in headers.items()}


def _is_token(name: object) -> bool:
    return isinstance(name, str) and _TOKEN.fullmatch(name) is not None
