"""Reads the settings of a client: from its arguments, then from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from konko_async._core.key_source import KeySource
from konko_async._core.loopback import is_loopback
from konko_async._core.not_given import given_or, is_marker
from konko_async._core.secret import Secret, check_header_value, masked
from konko_async.errors import ConfigurationError

__all__ = [
    "DEFAULT_BASE_URL",
    "KeepAlive",
    "Settings",
    "check_headers",
    "check_query",
    "clean_base_url",
    "environment_key",
    "masked_values",
    "parse_base_url",
    "read_keepalive",
    "resolve",
]

DEFAULT_BASE_URL = "https://api.konko.ai/v1"
# RFC 9110, 5.6.2: what a header's name may consist of.
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = "konko.ai"
# Not "/models": Azure AI has base URLs that end with it.
_ENDPOINT = re.compile(r"/+(?:chat/completions|completions|embeddings)/*\Z")
# "%" is among them, so that a path that is escaped already is not escaped twice.
_PATH_SAFE = "!$%&'()*+,-./:;=@_~"
_NO_URL = SplitResult("", "", "", "", "")
# What urlsplit() takes for a host can hold nearly anything, and libraries differ in what they make
# of it. A host that ends with ".konko.ai" has to be one below konko.ai for all of them.
_NETLOC = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?\])(?::[0-9]*)?")


class KeepAlive(msgspec.Struct, frozen=True, kw_only=True):
    """When the operating system probes a connection on which nothing moves (TCP keep-alive).

    NAT boxes and load balancers forget a silent connection after 60 to 350 seconds and tell nobody;
    an answer that takes a model longer than that to write would never arrive. Probes keep the
    connection known on the way, and end it where the peer is gone. Linux alone would send the
    first one after two hours. Options that the platform does not have are left out.

    Attributes:
        idle: seconds of silence before the first probe, 1 to 32767. Default 60.
        interval: seconds between probes, 1 to 32767. Default 60.
        count: probes without an answer after which the connection is lost, 1 to 127. Default 5.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    idle: int = 60
    interval: int = 60
    count: int = 5

    def __post_init__(self) -> None:
        for name, highest in (("idle", 32767), ("interval", 32767), ("count", 127)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= highest:
                raise ConfigurationError(
                    f"KeepAlive: {name} must be an integer from 1 to {highest}, not {value!r:.40}"
                )


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go and what identifies us there.

    Attributes:
        base_url: origin and path, without a slash at the end.
        api_key: sent as ``Authorization: Bearer``; or what obtains it; None: not sent.
        openai_api_key: sent as ``X-OpenAI-Api-Key``; None: not sent.
        headers: further headers on each request.
        query: query parameters of each request.
        keepalive: when silent connections are probed; None: never.
        trust_env: whether proxies and logins of the environment are used.
    """

    base_url: str
    api_key: Secret | KeySource | None
    openai_api_key: Secret | None = None
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    keepalive: KeepAlive | None = KeepAlive()
    trust_env: bool = False

    @property
    def fingerprint(self) -> str:
        """What tells the key apart from others in limits; empty without one."""
        return "" if self.api_key is None else self.api_key.fingerprint


def environment_key() -> str | None:
    """Return ``KONKO_API_KEY`` of the environment, its repr redacted; None: there is none."""
    return masked(_first("KONKO_API_KEY"))


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
    # A password in a URL would appear in logs, records and error messages.
    if "@" in url.netloc:
        raise ConfigurationError(
            "base_url holds a user name or password; pass the key as api_key= instead"
        )
    if not text.lower().startswith(("http://", "https://")):
        raise ConfigurationError(
            f"base_url must begin with http:// or https://, as {DEFAULT_BASE_URL} does"
        )
    if not host or _NETLOC.fullmatch(url.netloc) is None:
        raise ConfigurationError(
            f"base_url is not an http(s) address such as {DEFAULT_BASE_URL} (host names beyond "
            "ASCII are to be given in their xn-- form)"
        )
    if "?" in text or "#" in text:
        raise ConfigurationError(
            "base_url must not hold a query or fragment; pass default_query={...} for parameters "
            "of every request"
        )
    if any(c.isspace() for c in text):
        raise ConfigurationError("base_url holds white space")
    # RFC 6761, 6.3: names below localhost never leave the machine.
    own = host.endswith(".localhost") or is_loopback(host)
    if url.scheme == "http" and not allow_http and not own:
        raise ConfigurationError(
            f"base_url would send the key over plain http to another machine, {host[:253]}; use "
            "https, or pass allow_http=True if the network between is yours"
        )
    return url


def clean_base_url(text: str, *, allow_http: bool = False) -> str:
    """Return a base URL as it is used: checked, in ASCII, without a slash at its end.

    One that ends with an endpoint's path, copied from an example, is taken for what it means.

    Args:
        text: such as ``https://api.konko.ai/v1``.
        allow_http: whether plain http may leave this machine.

    Raises:
        ConfigurationError: see :func:`parse_base_url`.
    """
    url = parse_base_url(text, allow_http=allow_http)
    path = _ENDPOINT.sub("", url.path)
    # RFC 3986, 2.5: as UTF-8, percent-encoded. Escapes that are there already stay.
    return url._replace(path=quote(path, safe=_PATH_SAFE)).geturl().rstrip("/")


def _first(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _openai_key(argument: str | None, url: SplitResult) -> Secret | None:
    """Read the second key: from the environment only for Konko's own hosts.

    konko 0.5.0 sent ``OPENAI_API_KEY`` to whatever base URL it was given.
    """
    host = url.hostname or ""
    if argument is None and url.scheme == "https" and (host == _OURS or host.endswith("." + _OURS)):
        argument = masked(_first("OPENAI_API_KEY"))
    return None if argument is None else Secret(argument, name="openai_api_key")


def resolve(
    *,
    api_key: str | Secret | KeySource | None,
    base_url: str | None,
    openai_api_key: str | None,
    default_headers: Mapping[str, str] | None,
    allow_http: bool,
    organization: str | None = None,
    project: str | None = None,
    default_query: Mapping[str, Any] | None = None,
    keepalive: object = None,
    trust_env: bool | None = None,
    key_optional: bool = False,
) -> Settings:
    """Read the arguments of a client, and the environment for what they leave open.

    Args:
        api_key: the key, or what obtains it.
        base_url: where the API is.
        openai_api_key: the second key.
        default_headers: further headers.
        allow_http: whether plain http may leave this machine.
        organization: sent as ``OpenAI-Organization``.
        project: sent as ``OpenAI-Project``.
        default_query: query parameters of each request.
        keepalive: see :func:`read_keepalive`.
        trust_env: whether proxies and logins of the environment are used.
        key_optional: whether there may be no key; then the environment's is not used either.

    Raises:
        ConfigurationError: there is no key, or a value cannot be used.
    """
    # First of all: any later exception may be shown with the locals of this frame.
    api_key, openai_api_key = masked(api_key), masked(openai_api_key)
    default_headers = masked_values(default_headers)
    # KONKO_API_BASE is the older name.
    text = base_url or _first("KONKO_BASE_URL", "KONKO_API_BASE") or DEFAULT_BASE_URL
    if not isinstance(text, str):
        raise ConfigurationError(f"base_url must be a string, not {type(text).__name__}")
    url = parse_base_url(text, allow_http=allow_http)
    key = api_key
    if key is None and not key_optional:
        key = environment_key()
    if key is None and not key_optional:
        raise ConfigurationError(
            "no API key: pass AsyncKonko(api_key=...) or set the environment variable KONKO_API_KEY"
        )
    if trust_env is not None and not isinstance(trust_env, bool):
        raise ConfigurationError(f"trust_env must be True or False, not {trust_env!r:.40}")
    account = {"OpenAI-Organization": organization, "OpenAI-Project": project}
    named = {name: value for name, value in account.items() if value is not None}
    return Settings(
        base_url=clean_base_url(text, allow_http=allow_http),
        api_key=Secret(key) if isinstance(key, str) else key,
        openai_api_key=_openai_key(openai_api_key, url),
        # In this order, so that headers of the user's own win over organization and project.
        headers=check_headers({**named, **default_headers}),
        query=masked_values(check_query("default_query", default_query)),
        keepalive=read_keepalive(keepalive),
        trust_env=bool(trust_env),
    )


def read_keepalive(value: object) -> KeepAlive | None:
    """Read the ``keepalive`` argument of a client.

    Args:
        value: a :class:`KeepAlive`; seconds of silence before the first probe; those, the seconds
            between probes and their number as a tuple; True or None for the default; False for no
            probes.

    Raises:
        ConfigurationError: anything else.
    """
    # Before the integers, as True is one.
    if value is None or value is True:
        return KeepAlive()
    if value is False:
        return None
    if isinstance(value, KeepAlive):
        return value
    if isinstance(value, int):
        return KeepAlive(idle=value)
    if isinstance(value, tuple) and len(value) == len(KeepAlive.__struct_fields__):
        idle, interval, count = value
        return KeepAlive(idle=idle, interval=interval, count=count)
    raise ConfigurationError(
        "keepalive must be a KeepAlive, seconds, (idle, interval, count), True or False, not "
        f"{value!r:.40}"
    )


def check_query(name: str, query: object) -> dict[str, str | float]:
    """Check query parameters.

    Args:
        name: of the argument.
        query: a mapping of names to texts or numbers; None: none.

    Raises:
        ConfigurationError: names the parameter, never its value.
    """
    if query is None:
        return {}
    if not isinstance(query, Mapping):
        raise ConfigurationError(f"{name} must be a mapping, not {type(query).__name__}")
    query = {key: value for key, value in query.items() if given_or(value, None) is not None}
    for key, value in query.items():
        if not isinstance(key, str) or isinstance(value, bool):
            raise ConfigurationError(f"{name}: {key!r:.40} needs a text or a number")
        if not isinstance(value, (str, int, float)):
            raise ConfigurationError(
                f"{name}: {key!r:.40} is a {type(value).__name__}, not a text or a number"
            )
    return dict(query)


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Check extra headers: names are tokens (RFC 9110, 5.6.2), values hold no line breaks.

    Raises:
        ConfigurationError: names the header, never its value.
    """
    headers = masked_values(headers)
    checked = {}
    for name, value in headers.items():
        if value is None or is_marker(value):
            continue  # not given, which each header may be for itself
        if not _is_token(name):
            raise ConfigurationError("a header's name must be letters, digits and -_.!#$%&'*+^`|~")
        checked[name] = check_header_value(f"header {name}", value)
    return checked


def masked_values(headers: Mapping[str, Any] | None) -> dict[str, Any]:
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
