"""Reads a request's deadline and priority from its headers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec

from konko_async import Priority, Timeout
from konko_async.relay._errors import RefusalError

if TYPE_CHECKING:
    from konko_async.relay._policy import RelayOptions

__all__ = ["PRIORITY_HEADER", "TIMEOUT_HEADER", "CallKeywords", "as_asked", "call_keywords"]

TIMEOUT_HEADER: Final = "x-request-timeout"
PRIORITY_HEADER: Final = "x-request-priority"


class CallKeywords(TypedDict, total=False):
    """Keywords for ``create()`` and ``stream()``."""

    timeout: float
    priority: Priority


def call_keywords(
    headers: Mapping[str, str],
    *,
    max_timeout: float,
    timeout: float | None = None,
    priority: Priority = "interactive",
) -> CallKeywords:
    """Read a request's deadline and priority from its headers.

    ``X-Request-Timeout`` is the total in seconds, stream included; more than ``max_timeout`` is
    reduced to that. ``X-Request-Priority: batch`` lets a call yield to others; nobody gets
    ahead by it: ``interactive`` is granted only where it is the default.

    Args:
        headers: case-insensitive, or names in lower case.
        max_timeout: seconds, the most that is granted.
        timeout: seconds where the caller names none. Default ``max_timeout``.
        priority: where the caller names none. Default ``interactive``.

    Returns:
        Keywords: ``await client.chat.completions.create(..., **call_keywords(request.headers,
        max_timeout=120))``.

    Raises:
        RefusalError: 400; a header has no meaning.
    """
    seconds = max_timeout if timeout is None else min(timeout, max_timeout)
    asked = headers.get(TIMEOUT_HEADER)
    if asked is not None:
        seconds = min(_seconds(asked), max_timeout)
    wanted = headers.get(PRIORITY_HEADER, priority).strip().lower()
    if wanted not in {"interactive", "batch"}:
        raise RefusalError(
            400, "X-Request-Priority must be interactive or batch", param="X-Request-Priority"
        )
    # Never from batch to interactive: a header must not get anybody ahead of others.
    return {"timeout": seconds, "priority": "batch" if wanted == "batch" else priority}


def as_asked(
    params: Mapping[str, Any], headers: Mapping[str, str], options: RelayOptions
) -> dict[str, Any]:
    """Return a call's parameters with the deadline and the priority of its request's headers.

    Args:
        params: checked already.
        headers: of the request, names in lower case.
        options: of the relay; without ``max_timeout`` the headers are ignored.

    Raises:
        RefusalError: 400; a header has no meaning.
    """
    most, given = options.max_timeout, options.timeout
    if most is None:
        return dict(params)
    usual = given.total if isinstance(given, Timeout) else given
    found = call_keywords(
        headers, max_timeout=most, timeout=usual, priority=options.priority or "interactive"
    )
    asked: dict[str, Any] = {**params, **found}
    # Only the total is the caller's to choose; connecting and silence stay as configured.
    if isinstance(given, Timeout):
        asked["timeout"] = msgspec.structs.replace(given, total=found["timeout"])
    return asked


def _seconds(text: str) -> float:
    try:
        value = float(text) if text.isascii() and len(text) < 32 else math.nan  # noqa: PLR2004 - no number is longer
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise RefusalError(
            400, "X-Request-Timeout must be a number of seconds above 0", param="X-Request-Timeout"
        )
    return value
