"""Formats counts, amounts and durations for people."""

from __future__ import annotations

import math

__all__ = ["count", "duration", "money", "plural"]

_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def count(number: float) -> str:
    """Return a whole number with its thousands set apart."""
    return f"{round(number):,}"


def plural(number: float, noun: str) -> str:
    """Return a count with its noun: ``1 document``, ``2 documents``."""
    return f"{count(number)} {noun}{'' if round(number) == 1 else 's'}"


def money(amount: float | None, currency: str | None) -> str:
    """Return an amount; below 1 it keeps three significant digits, an unknown one says so."""
    if amount is None:
        return "unknown"
    digits = 2
    if 0 < amount < 1:
        # A call may cost far less than a cent, and 0.00 would look as if it were free.
        digits = min(2 - math.floor(math.log10(amount)), 9)
    text = f"{amount:,.{digits}f}"
    symbol = _SYMBOLS.get(currency or "")
    if symbol:
        return f"{symbol}{text}"
    return f"{text} {currency}" if currency else text


def duration(seconds: float) -> str:
    """Return a duration in the units that fit it."""
    # Where rounding to three digits reaches the next unit, the next unit it is: 1 s, not 1e+03 ms.
    if seconds < 0.9995:  # noqa: PLR2004 - 999.5 ms
        return f"{seconds * 1000:.3g} ms"
    if seconds < _MINUTE - 0.05:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < _HOUR:
        rest = whole % _MINUTE
        return f"{whole // _MINUTE} min {rest:02d} s" if rest else f"{whole // _MINUTE} min"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR:02d} h"
