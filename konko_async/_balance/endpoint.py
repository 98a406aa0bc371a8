"""The values that users name endpoints by, and see of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from konko_async._core.config import check_headers, check_query, clean_base_url, masked_values
from konko_async._core.policies import RateLimit
from konko_async._core.secret import Secret, check_header_value, masked, masked_keyword
from konko_async.errors import ConfigurationError

if TYPE_CHECKING:
    from konko_async._core.key_source import KeyFunction
    from konko_async._core.pipeline import Request

__all__ = [
    "BALANCES", "Affinity", "Balance", "Endpoint", "EndpointState", "check_affinity",
    "check_balance", "named",
]  # fmt: skip

BALANCES: Final = ("least_loaded", "round_robin", "priority")

Balance = (
    Literal["least_loaded", "round_robin", "priority"]
    | Callable[["Sequence[EndpointState]", "Request"], "EndpointState | str"]
)
"""How an endpoint is chosen: by name, or by a function of those that may be chosen and the request,
which returns one of them or its name."""

Affinity = Literal["prefix"] | Callable[["Request"], "str | None"]
"""What calls are kept together by: their prompt's beginning, or what a function returns."""


class Endpoint(msgspec.Struct, frozen=True):
    """A server, or one of several keys of a server, that calls may go to.

    Attributes:
        base_url: such as ``https://api.example.com/v1``.
        api_key: sent as ``Authorization: Bearer``; or a function, sync or async, that returns it.
            A string becomes a wrapper that does not show it. None: ``AsyncKonko(api_key=)``; where
            that is not given either, the environment's ``KONKO_API_KEY`` if all endpoints without
            a key are on one host, else no key is sent.
        models: the models that it serves: a mapping of names here to names there, or a list of
            names that are the same there. ``{"*": "*"}`` among them stands for every other name.
            None: every model, by the same name.
        weight: its share beside others, above 0. Default 1.
        rate_limit: its own limits; None: those of the client, which each endpoint has for itself.
        max_concurrency: calls in flight there at most, or ``"auto"``; short for the one in
            ``rate_limit``.
        headers: sent to it with every request, after ``default_headers``; to no other endpoint.
        priority: those with the lowest number are used first; the next ones only for what the
            first cannot take now. Default 0.
        query: query parameters of each request to it, such as ``{"api-version": "..."}``.
        name: by which records, logs and :attr:`AsyncKonko.endpoints` know it. Default: its host
            and port, numbered where that is not unique.
        allow_http: whether it may be plain http to another machine. Default False.

    Raises:
        ConfigurationError: a value cannot be used.
    """

    base_url: str
    api_key: str | Secret | KeyFunction | None = None
    models: Mapping[str, str] | Sequence[str] | None = None
    weight: float = 1.0
    rate_limit: RateLimit | None = None
    max_concurrency: int | Literal["auto"] | None = None
    headers: Mapping[str, str] | None = None
    priority: int = 0
    query: Mapping[str, str | float] | None = None
    name: str | None = None
    allow_http: bool = False

    def __post_init__(self) -> None:
        put = msgspec.structs.force_setattr
        # First of all: a traceback of what fails below may show this frame's locals.
        put(self, "api_key", masked(self.api_key))
        for name in ("headers", "query"):
            put(self, name, masked_keyword(name, getattr(self, name)))
        # The client has the last word on plain http: its allow_http= holds for all endpoints.
        put(self, "base_url", clean_base_url(self.base_url, allow_http=True))
        if isinstance(self.api_key, str):
            put(self, "api_key", Secret(self.api_key, name="Endpoint: api_key"))
        elif not (
            self.api_key is None or isinstance(self.api_key, Secret) or callable(self.api_key)
        ):
            raise ConfigurationError("Endpoint: api_key must be a string or a function")
        put(self, "headers", check_headers(masked_values(self.headers)))
        put(self, "query", masked_values(check_query("Endpoint: query", self.query)))
        put(self, "models", _models(self.models))
        _check_numbers(self)
        limit = self.rate_limit
        if limit is not None and not isinstance(limit, RateLimit):
            raise ConfigurationError(
                f"Endpoint: rate_limit must be a RateLimit, not {type(limit).__name__}"
            )
        if self.max_concurrency is not None:
            # Checked by RateLimit, as it will be one of its values.
            RateLimit(max_concurrency=self.max_concurrency)
        if self.name is not None and not check_header_value("Endpoint: name", self.name).strip():
            raise ConfigurationError("Endpoint: name is empty")

    def limits(self, default: RateLimit) -> RateLimit:
        """Return the limits that hold for it.

        Args:
            default: the client's.
        """
        limit = self.rate_limit or default
        if self.max_concurrency is None:
            return limit
        return msgspec.structs.replace(limit, max_concurrency=self.max_concurrency)

    def model_there(self, model: str) -> str | None:
        """Return what a model is called there; None: it is not served there."""
        models: Any = self.models
        if models is None:
            return model
        there: str | None = models.get(model)
        return model if there is None and "*" in models else there


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint at one moment.

    Attributes:
        name: its name.
        base_url: where it is.
        state: ``ready``; ``starting`` (it gets more and more calls, after it was added or came
            back); ``ejected`` (it fails, and gets a probe now and then); ``cooling_down`` (a
            rejection of its own); ``draining`` (it gets no new calls).
        priority: its tier.
        weight: its share.
        in_flight: calls that were sent there and are not over.
        calls: calls that ended there.
        errors: how many of them failed.
        calls_per_second: calls that ended, over the last 10 s or so.
        time_to_first_token: seconds, a moving average that rises at once and falls within 5 s or
            so; None before the first.
        tokens_per_second: of one answer, a moving average; None if not known.
        retry_after: seconds until it is used again, where that is known; 0 if it is used.
        reason: name of the last failure's exception class, or None.
    """

    name: str
    base_url: str
    state: Literal["ready", "starting", "ejected", "cooling_down", "draining"]
    priority: int
    weight: float
    in_flight: int
    calls: int
    errors: int
    calls_per_second: float
    time_to_first_token: float | None
    tokens_per_second: float | None
    retry_after: float
    reason: str | None


def named(endpoints: Sequence[Endpoint], taken: frozenset[str] = frozenset()) -> list[str]:
    """Return a name for each endpoint, all different.

    Args:
        endpoints: of one client.
        taken: names that are in use.

    Raises:
        ConfigurationError: two were given one name.
    """
    names: list[str] = []
    given = [one.name for one in endpoints if one.name is not None]
    used = set(taken)
    for name in given:
        if name in used:
            raise ConfigurationError(f"two endpoints are called {name!r:.80}")
        used.add(name)
    hosts = [urlsplit(one.base_url).netloc for one in endpoints]
    for one, host in zip(endpoints, hosts, strict=True):
        name = one.name or host
        if one.name is None and (hosts.count(host) > 1 or name in used):
            name = next(n for i in range(1, 10**6) if (n := f"{host}#{i}") not in used)
        used.add(name)
        names.append(name)
    return names


def check_balance(balance: object) -> None:
    """Check ``balance=``.

    Raises:
        ConfigurationError: it is neither a known name nor a function.
    """
    if balance not in BALANCES and not callable(balance):
        known = ", ".join(map(repr, BALANCES))
        raise ConfigurationError(
            f"balance must be one of {known} or a function, not {balance!r:.40}"
        )


def check_affinity(affinity: object) -> None:
    """Check ``affinity=`` of a client.

    Raises:
        ConfigurationError: it is neither "prefix" nor a function.
    """
    if affinity is not None and affinity != "prefix" and not callable(affinity):
        raise ConfigurationError(
            f"affinity must be 'prefix' or a function of the request, not {affinity!r:.40}; the id "
            "of a conversation is given with each call: create(..., affinity=id)"
        )


def _models(models: object) -> dict[str, str] | None:
    if models is None:
        return None
    if isinstance(models, Mapping):
        found = dict(models)
    elif isinstance(models, Sequence) and not isinstance(models, str):
        found = {name: name for name in models}
    else:
        raise ConfigurationError(
            "Endpoint: models must be a mapping {name here: name there} or a list of names, not "
            f"{type(models).__name__}"
        )
    for here, there in found.items():
        if not (isinstance(here, str) and isinstance(there, str) and here and there):
            raise ConfigurationError(f"Endpoint: models holds {here!r:.40}: names must be texts")
    if found.get("*", "*") != "*":
        raise ConfigurationError(
            'Endpoint: models: "*" stands for the same name there, as "*": "*"'
        )
    if not found:
        raise ConfigurationError("Endpoint: models is empty: it would get no calls")
    return found


def _check_numbers(one: Endpoint) -> None:
    weight: Any = one.weight
    priority: Any = one.priority
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not 0 < weight < math.inf:
        raise ConfigurationError(f"Endpoint: weight must be a number above 0, not {weight!r:.40}")
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise ConfigurationError(f"Endpoint: priority must be an integer, not {priority!r:.40}")
