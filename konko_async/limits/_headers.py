"""Parses the ``x-ratelimit-*`` headers, in which a server reports its limits."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final, Literal

import msgspec
from multidict import istr

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Kind", "Reported", "Told", "parse_duration", "read_headers", "read_limits"]

Kind = Literal["requests", "tokens"]
"""What is limited."""

# A year at most, and 10^12 of anything: larger figures are errors or unset values, not limits.
_LONGEST: Final = 366 * 86_400.0
_MOST: Final = 1e12
# Longer values are not numbers that a server means.
_TEXT_LIMIT: Final = 32
_DIGITS: Final = 15
_NAMES: Final = {
    # As istr, which knows its lower case: the headers of each answer ask for it.
    kind: tuple(istr(f"x-ratelimit-{what}-{kind}") for what in ("limit", "remaining", "reset"))
    for kind in ("requests", "tokens")
}
_LR, _RR, _ = _NAMES["requests"]
_LT, _RT, _ = _NAMES["tokens"]
_NUMBER: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15}", re.ASCII)
_PARTS: Final = re.compile(
    r"(?:(?P<d>[0-9]{1,6}(?:\.[0-9]{0,9})?)d)?"
    r"(?:(?P<h>[0-9]{1,6}(?:\.[0-9]{0,9})?)h)?"
    r"(?:(?P<m>[0-9]{1,8}(?:\.[0-9]{0,9})?)m(?!s))?"
    r"(?:(?P<s>[0-9]{1,9}(?:\.[0-9]{0,12})?)s)?"
    r"(?:(?P<ms>[0-9]{1,12}(?:\.[0-9]{0,9})?)ms)?",
    re.ASCII,
)
_NOTHING: Final = (None, None)
_SECONDS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Reported(msgspec.Struct, frozen=True):
    """What one answer said of one limit; None where it said nothing usable.

    Attributes:
        limit: what the server allows in its window.
        remaining: what is left of it.
        reset: seconds until all of it is there again; only read where nothing remains, or where
            the caller wants it.
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


Told = tuple[Reported | None, Reported | None]
"""What an answer said of requests and of tokens."""


def read_limits(headers: Mapping[str, str], *, resets: bool = False) -> Told | None:
    """Read all ``x-ratelimit-*`` headers of an answer; None if they say nothing usable.

    Args:
        headers: names in lower case, or a case-insensitive mapping.
        resets: whether to read resets where something remains, too.
    """
    get = headers.get
    # Most servers report no limits, and this runs for every answer.
    if get(_LR) is None and get(_RR) is None and get(_LT) is None and get(_RT) is None:
        return None
    told = (
        read_headers(headers, "requests", resets=resets),
        read_headers(headers, "tokens", resets=resets),
    )
    return None if told == _NOTHING else told


def read_headers(
    headers: Mapping[str, str], kind: Kind, *, resets: bool = False
) -> Reported | None:
    """Read the ``x-ratelimit-{limit,remaining,reset}-<kind>`` headers of an answer.

    Args:
        headers: names in lower case, or a case-insensitive mapping.
        kind: ``requests`` or ``tokens``.
        resets: see :func:`read_limits`.

    Returns:
        What they say, or None if they say nothing usable.
    """
    limit_name, remaining_name, reset_name = _NAMES[kind]
    limit_text = headers.get(limit_name)
    remaining_text = headers.get(remaining_name)
    if limit_text is None and remaining_text is None:
        return None
    limit = None if limit_text is None else _amount(limit_text, low=1.0)
    remaining = None if remaining_text is None else _amount(remaining_text, low=0.0)
    if limit is None and remaining is None:
        return None
    reset = None
    # A reset takes a regular expression, and matters only where nothing remains.
    wanted = resets or (remaining is not None and remaining <= 0)
    if wanted and (text := headers.get(reset_name)) is not None:
        reset = parse_duration(text)
    return Reported(limit, remaining, reset)


def _amount(text: str, low: float) -> float | None:
    """A number of requests or tokens; None for what is not one."""
    if not (len(text) <= _DIGITS and text.isascii() and text.isdigit()):
        text = text.strip() if len(text) <= _TEXT_LIMIT else ""
        if not _NUMBER.fullmatch(text):
            return None
    value = float(text)
    return value if low <= value <= _MOST and math.isfinite(value) else None
