"""Parses Retry-After and its variants; pure."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["parse_retry_after"]

# ASCII digits only: float() would also take "1_000", "nan", "infinity" and digits of other scripts.
# Not compiled here, as few programs need it: re keeps what it has compiled.
_DECIMAL = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\Z"
# The longest HTTP date has 33 characters; what is far longer is garbage and not worth parsing.
_LONGEST_VALUE = 64


def parse_retry_after(headers: Mapping[str, str], now_wall: float) -> float | None:
    """Return the wait that ``retry-after-ms`` or ``retry-after`` asks for.

    ``retry-after-ms`` (milliseconds, an OpenAI extension) wins where both are readable.
    ``retry-after`` is seconds, with decimals allowed, or an HTTP date in any of its three forms
    (RFC 9110, 5.6.7 and 10.2.3). A date is compared with the answer's own ``date`` header where
    there is one, so that a wrong clock on this machine does not matter. Garbage (``inf``, ``nan``,
    negative numbers, years after 9999) counts as not given.

    Args:
        headers: the answer's headers, names in lower case or case-insensitive.
        now_wall: ``time.time()``, seconds since 1970, for dates without a ``date`` header.

    Returns:
        Seconds, finite and at least 0 (a date that has passed gives 0.0), or None.
    """
    milliseconds = _decimal(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _decimal(value)
    if seconds is not None:
        return seconds
    until = _timestamp(value)
    if until is None:
        return None
    served = _timestamp(headers.get("date"))
    return max(0.0, until - (now_wall if served is None else served))


def _decimal(value: str | None) -> float | None:
    if value is None:
        return None
    text = value.strip()
    if len(text) > _LONGEST_VALUE or re.match(_DECIMAL, text) is None:
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def _timestamp(value: str | None) -> float | None:
    if value is None or len(value) > _LONGEST_VALUE:
        return None
    try:
        moment = parsedate_to_datetime(value)
        # "GMT" gives an aware datetime, the zoneless asctime form a naive one; both mean UTC.
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return aware.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
