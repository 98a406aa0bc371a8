"""Numbers as people read them."""

from __future__ import annotations

import math

__all__ = ["count", "duration", "money"]

_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def count(number: float) -> str:
    """Return a whole number with its thousands set apart."""
    return f"{round(number):,}"


def money(amount: float | None, currency: str | None) -> str:
    """Return an amount; small ones keep two significant digits, an unknown one says so."""
    if amount is None:
        return "unknown"
    digits = 2
    if 0 < amount < 1:
        digits = min(2 - math.floor(math.log10(amount)), 9)
    text = f"{amount:,.{digits}f}"
    symbol = _SYMBOLS.get(currency or "")
    if symbol:
        return f"{symbol}{text}"
    return f"{text} {currency}" if currency else text


def duration(seconds: float) -> str:
    """Return a duration in the units that fit it."""
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < _MINUTE:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < _HOUR:
        rest = whole % _MINUTE
        return f"{whole // _MINUTE} min {rest:02d} s" if rest else f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR:02d} h"
