"""Fallbacks: other models and servers for when all attempts at the first have failed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from konko_async._core.classification import Kind, classify
from konko_async._core.config import clean_base_url
from konko_async._core.pipeline import remaining
from konko_async._core.redaction import CREDENTIALS, CROSSING_HEADERS, CROSSING_QUERY
from konko_async._core.secret import Secret, check_header_value, masked
from konko_async.errors import (
    APIConnectionError,
    ConfigurationError,
    KonkoError,
    RateLimitStoreError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from konko_async._core.pipeline import Handler, Request, Response

__all__ = ["Fallback", "FallbackMiddleware", "may_fail_over"]

_log = logging.getLogger("konko_async.fallback")

# Not a bad request, a wrong key or a missing right: the next model would be asked the same, wrong
# question.
_MENDED_ELSEWHERE: frozenset[Kind] = frozenset({"out_of_credit", "missing_model", "not_found"})
_FIRST_SERVER_ERROR = 500


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """Where else to send a call: another model, another server, another key, or all of them.

    Attributes:
        model: the model's id; None: the one asked for.
        base_url: such as ``https://api.example.com/v1``; None: the client's. The client's own keys
            and default headers are never sent to a ``base_url`` given here. Of the headers and
            query parameters of the call, only those cross that are known to hold no credentials:
            ``Accept``, ``Accept-Language``, ``Content-Language``, ``Content-Type``,
            ``HTTP-Referer``, ``Idempotency-Key``, ``Referer``, ``Traceparent``, ``Tracestate``,
            ``User-Agent``, ``X-Client-Request-Id``, ``X-Correlation-Id``, ``X-Request-Id``,
            ``X-Title``, and ``?api-version=``.
        api_key: sent as ``Authorization: Bearer``; a string becomes a wrapper that does not show
            it. None: the client's key for the client's server, no key for another ``base_url``.
        allow_http: whether ``base_url`` may be plain http to another machine. Default False.

    Raises:
        ConfigurationError: nothing is set, or a value cannot be used.
    """

    model: str | None = None
    base_url: str | None = None
    api_key: str | Secret | None = None
    allow_http: bool = False

    def __post_init__(self) -> None:
        # First of all: a traceback of what fails below may show this frame's locals.
        msgspec.structs.force_setattr(self, "api_key", masked(self.api_key))
        if self.model is None and self.base_url is None and self.api_key is None:
            raise ConfigurationError("Fallback: set at least one of model, base_url and api_key")
        if self.model is not None and not check_header_value("Fallback: model", self.model):
            raise ConfigurationError("Fallback: model is empty")
        if self.base_url is not None:
            clean = clean_base_url(self.base_url, allow_http=self.allow_http)
            # Cleaned when the client is made: a bad address fails there, not in the middle of an
            # outage.
            msgspec.structs.force_setattr(self, "base_url", clean)
        if self.api_key is not None and not isinstance(self.api_key, Secret):
            secret = Secret(self.api_key, name="Fallback: api_key")
            msgspec.structs.force_setattr(self, "api_key", secret)


def may_fail_over(error: KonkoError, *, other_server: bool = False) -> bool:
    """Tell whether another model or server may answer where this error came back.

    Yes for connection errors and timeouts, 404, 408, 409, 410, 425, 429 and 5xx, a model that the
    server does not have and a used-up credit (whatever their status), unreadable and cut answers,
    error events that do not blame the request, an open circuit, and a refusal of the local limits,
    which are kept per model. No for ``Timeout.total``, other 400s, 401, 403, 422 and every other
    error.

    Args:
        error: what the whole retry series ended with.
        other_server: whether the next entry has a ``base_url`` of its own, so that also a bad
            certificate does not concern it.
    """
    found = classify(error)
    if isinstance(error, RateLimitStoreError):
        return False  # the store of the limits is shared by all models
    if isinstance(error, APIConnectionError) and not found.transient:
        return other_server and found.kind != "deadline"
    server_failed = found.status is not None and found.status >= _FIRST_SERVER_ERROR
    unreadable = found.kind == "unreadable"
    return found.transient or found.kind in _MENDED_ELSEWHERE or server_failed or unreadable


class FallbackMiddleware:
    """Asks the next model when all attempts at one have failed before the first delta.

    Each entry gets a retry series of its own; the total deadline is one for all. Which errors are
    passed on to the next: see :func:`may_fail_over`. If all fail, the last error is raised, with a
    note that lists what was tried; its ``attempts`` cover all of it. Calls without a model (the
    model list) have no fallback.

    Args:
        models: model ids or :class:`~konko_async.Fallback` values, in the order to be tried.

    Raises:
        ConfigurationError: one of them is neither.
    """

    __slots__ = ("_entries",)

    def __init__(self, models: Sequence[str | Fallback]) -> None:
        if isinstance(models, (str, Fallback)):
            raise ConfigurationError("fallback_models must be a sequence, such as ['a-model']")
        self._entries = tuple(_entry(place, model) for place, model in enumerate(models))

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Send ``request`` to its own model, then to the others.

        Raises:
            KonkoError: the last one's error, or the first that no other model could mend.
        """
        attempt = request
        tried: list[str] = []
        while True:
            try:
                return await call_next(attempt)
            except KonkoError as error:
                name, reason = _name(attempt), type(error).__name__
                if not self._next_may_help(len(tried), error, request):
                    if tried:
                        error.add_note(f"models tried: {', '.join(tried)}, {name} ({reason})")
                    raise
            # Outside the handler, so that errors of the next model are not chained to this one.
            attempt = _redirect(request, self._entries[len(tried)])
            tried.append(f"{name} ({reason})")
            _log.info("falling back from %s to %s after %s", name, _name(attempt), reason)
            request.call.doing = f"falling back to {_name(attempt)}"

    def _next_may_help(self, place: int, error: KonkoError, request: Request) -> bool:
        if request.model is None or place >= len(self._entries):
            return False
        left = remaining(request.call)
        # The deadline is one for all models: the next would only fail with a less useful error.
        if left is not None and left <= 0:
            return False
        return may_fail_over(error, other_server=self._entries[place].base_url is not None)


def _entry(place: int, model: object) -> Fallback:
    if isinstance(model, Fallback):
        return model
    if isinstance(model, str):
        return Fallback(model=model)
    raise ConfigurationError(
        f"fallback_models[{place}] must be a model id or a Fallback, not {type(model).__name__}"
    )


def _redirect(request: Request, entry: Fallback) -> Request:
    changes: dict[str, Any] = {}
    if entry.model is not None and entry.model != request.model:
        params = request.params
        if isinstance(params, dict):
            changes["params"] = {**params, "model": entry.model}
        else:
            changes["params"] = msgspec.structs.replace(params, model=entry.model)
        changes["model"] = entry.model
    if entry.base_url is not None:
        changes["target"] = entry
        # A list of what may cross, as credentials come under any name.
        changes["headers"] = _only(request.headers, CROSSING_HEADERS)
        changes["query"] = _only(request.query or {}, CROSSING_QUERY)
    elif entry.api_key is not None:
        changes["target"] = entry
        # It is the same server, but a key that was given with the call must not win.
        changes["headers"] = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in CREDENTIALS
        }
    return request.replace(**changes)


def _only(values: Mapping[str, Any], allowed: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name.lower() in allowed}


def _name(request: Request) -> str:
    base_url = getattr(request.target, "base_url", None)
    return f"{request.model} at {base_url}" if base_url else str(request.model)
