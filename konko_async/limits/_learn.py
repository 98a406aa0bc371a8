"""What a server tells of its limits: the ``x-ratelimit-*`` headers, read and never trusted."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Reported", "parse_duration", "read_headers"]

_LONGEST: Final = 366 * 86_400.0
_MOST: Final = 1e12
# Longer values are not numbers that a server means.
_TEXT_LIMIT: Final = 32
_NUMBER: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15}", re.ASCII)
_PARTS: Final = re.compile(
    r"(?:(?P<d>[0-9]{1,6}(?:\.[0-9]{0,9})?)d)?"
    r"(?:(?P<h>[0-9]{1,6}(?:\.[0-9]{0,9})?)h)?"
    r"(?:(?P<m>[0-9]{1,8}(?:\.[0-9]{0,9})?)m(?!s))?"
    r"(?:(?P<s>[0-9]{1,9}(?:\.[0-9]{0,12})?)s)?"
    r"(?:(?P<ms>[0-9]{1,12}(?:\.[0-9]{0,9})?)ms)?",
    re.ASCII,
)
_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Reported(msgspec.Struct, frozen=True):
    """What one answer said of one limit; None where it said nothing usable.

    Attributes:
        limit: what the server allows in its window.
        remaining: what is left of it.
        reset: seconds until all of it is there again.
    """

    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None


def parse_duration(text: str) -> float | None:
    """Read a duration: ``17ms``, ``59.977s``, ``6m0s``, ``1h2m``, or plain seconds.

    Returns:
        Seconds, or None for what is not a duration between 0 and 366 days.
    """
    text = text.strip() if len(text) <= _TEXT_LIMIT else ""
    if not text:
        return None
    if _NUMBER.fullmatch(text):
        seconds = float(text)
    else:
        found = _PARTS.fullmatch(text)
        if found is None:
            return None
        parts = found.groupdict(default="0")
        seconds = sum(float(parts[unit]) * size for unit, size in _SECONDS.items())
    return seconds if seconds <= _LONGEST else None


def read_headers(headers: Mapping[str, str], kind: str) -> Reported | None:
    """Read the ``x-ratelimit-{limit,remaining,reset}-<kind>`` headers of an answer.

    Args:
        headers: names in lower case, or a case-insensitive mapping.
        kind: ``requests`` or ``tokens``.

    Returns:
        What they say, or None if they say nothing usable.
    """
    limit = headers.get(f"x-ratelimit-limit-{kind}")
    remaining = headers.get(f"x-ratelimit-remaining-{kind}")
    if limit is None and remaining is None:
        return None
    reset = headers.get(f"x-ratelimit-reset-{kind}")
    found = Reported(
        limit=None if limit is None else _amount(limit, low=1.0),
        remaining=None if remaining is None else _amount(remaining, low=0.0),
        reset=None if reset is None else parse_duration(reset),
    )
    return None if found.limit is None and found.remaining is None else found


def _amount(text: str, low: float) -> float | None:
    """A number of requests or tokens; None for what is not one."""
    text = text.strip() if len(text) <= _TEXT_LIMIT else ""
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if low <= value <= _MOST and math.isfinite(value) else None
