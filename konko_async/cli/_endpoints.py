"""Several endpoints for a command: by options, by a file, or by the environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from konko_async import ConfigurationError, Endpoint, RateLimit

__all__ = ["EndpointSet", "endpoint_set"]

_VARIABLE = "KONKO_ENDPOINTS"
_LARGEST = 1024 * 1024  # bytes: a wrong path must not fill the memory


class _EndpointEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One endpoint of a file; keys stand in the environment, or in the file if they must."""

    base_url: str
    api_key_env: str | None = None
    api_key: str | None = None
    models: dict[str, str] | list[str] | None = None
    weight: float = 1.0
    priority: int = 0
    max_concurrency: int | Literal["auto"] | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    headers: dict[str, str] | None = None
    query: dict[str, str | int | float] | None = None
    name: str | None = None
    allow_http: bool = False

    def endpoint(self) -> Endpoint:
        key = self.api_key
        if self.api_key_env is not None:
            key = os.environ.get(self.api_key_env)
            if not key:
                raise ConfigurationError(f"the environment has no {self.api_key_env}")
        limit = None
        if self.requests_per_minute is not None or self.tokens_per_minute is not None:
            limit = RateLimit(
                requests_per_minute=self.requests_per_minute,
                tokens_per_minute=self.tokens_per_minute,
            )
        return Endpoint(
            self.base_url,
            key,
            models=self.models,
            weight=self.weight,
            rate_limit=limit,
            max_concurrency=self.max_concurrency,
            headers=self.headers,
            priority=self.priority,
            query=self.query,
            name=self.name,
            allow_http=self.allow_http,
        )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    endpoints: list[_EndpointEntry]
    balance: Literal["least_loaded", "round_robin", "priority"] = "least_loaded"
    affinity: Literal["prefix"] | None = None


class EndpointSet(msgspec.Struct, frozen=True):
    """What a command may talk to.

    Attributes:
        endpoints: the servers and keys.
        balance: how one is chosen.
        affinity: what calls are kept together by, or None.
    """

    endpoints: list[Endpoint]
    balance: Literal["least_loaded", "round_robin", "priority"] = "least_loaded"
    affinity: Literal["prefix"] | None = None


def endpoint_set(urls: Sequence[str], file: str | None) -> EndpointSet | None:
    """Return the endpoints that are named; None: there is one server.

    Args:
        urls: of ``--endpoint``.
        file: of ``--endpoints``. Without either, ``$KONKO_ENDPOINTS`` may hold URLs, separated by
            spaces or commas, or the path of a file.

    Raises:
        click.UsageError: the file cannot be read, or says something that has no meaning.
    """
    given = os.environ.get(_VARIABLE, "").strip()
    if file is None and not urls and given:
        parts = given.replace(",", " ").split()
        if all("://" in part for part in parts):
            urls = parts
        else:
            file = given
    if file is not None:
        return _read(Path(file))
    if not urls:
        return None
    try:
        return EndpointSet([Endpoint(url) for url in urls])
    except ConfigurationError as error:
        raise click.UsageError(f"--endpoint: {error}") from None


def _read(path: Path) -> EndpointSet:
    try:
        if path.stat().st_size > _LARGEST:
            raise click.UsageError(f"{path} is larger than {_LARGEST} bytes")
        found: Any = tomllib.loads(path.read_text("utf-8"))
        parsed = msgspec.convert(found, _File)
        endpoints = [entry.endpoint() for entry in parsed.endpoints]
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ConfigurationError) as error:
        raise click.UsageError(f"{path}: {error}") from None
    if not endpoints:
        raise click.UsageError(f"{path} names no endpoint: write [[endpoints]] and base_url = ...")
    return EndpointSet(endpoints, parsed.balance, parsed.affinity)
