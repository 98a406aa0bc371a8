"""Writes what a tool returned as text for the model, of any type and of bounded size."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from konko_async.wire._codec import encode

__all__ = ["drained", "drained_async", "output_of", "shown_error"]

_MAX_ERROR: Final = 1000  # characters of an exception's message


def output_of(value: Any, limit: int) -> str:
    """Return a value as the model gets it: text as it is, anything else as JSON.

    Args:
        value: what a tool returned.
        limit: characters; of what is longer, it gets the beginning and a remark that it was cut.

    Raises:
        Exception: it has no form in JSON, or its own code raised.
    """
    if isinstance(value, str):
        return _within(str.__str__(value), limit)  # the text, whatever a subclass shows
    hook = _hook(limit)
    try:
        data = msgspec.json.encode(value, enc_hook=hook)
    except UnicodeEncodeError:
        # A lone surrogate, which UTF-8 cannot carry: our own encoder replaces it.
        data = encode(msgspec.to_builtins(value, enc_hook=hook))
    return _within(data.decode(), limit)


def _within(text: str, limit: int) -> str:
    # A lone surrogate cannot be sent; by way of UTF-16 the halves of a pair are one character.
    shown = text[:limit].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if len(text) <= limit:
        return shown
    return f"{shown}\n[The result was cut here: it is longer than {limit} characters.]"


def drained(values: Iterable[Any], limit: int) -> list[Any]:
    """Return what an iterator yields, until that is more than ``limit``; then it is closed."""
    found, left = [], limit
    try:
        for item in values:
            found.append(item)
            left -= _size(item, left)
            if left < 0:
                break
    finally:
        # A generator that is left early holds its files or cursors open until it is closed.
        if isinstance(values, Iterator) and hasattr(values, "close"):
            values.close()
    return found


async def drained_async(values: AsyncIterable[Any], limit: int) -> list[Any]:
    """Return what an async iterator yields, until that is over ``limit``; then it is closed."""
    found, left = [], limit
    try:
        async for item in values:
            found.append(item)
            left -= _size(item, left)
            if left < 0:
                break
    finally:
        close = getattr(values, "aclose", None)
        if close is not None:
            await close()
    return found


def _size(item: Any, limit: int) -> int:
    """Return about how many characters an item takes; never nothing, so that all ends."""
    if isinstance(item, (str, bytes)):
        return len(item) + 3
    # What has no form in JSON is found out when all of it is written.
    with suppress(Exception):
        return len(msgspec.json.encode(item, enc_hook=_hook(limit))) + 1
    return 2


def _hook(limit: int) -> Callable[[Any], Any]:
    """Return what makes JSON of types that msgspec does not know."""

    def plain(value: Any) -> Any:
        # First: subclasses of plain types may have methods of the names looked for below.
        simple = _simple(value)
        if simple is not None:
            return simple
        if isinstance(value, type):
            raise TypeError(f"the class {value.__name__} has no form in JSON")
        # By their methods, as none of these packages is a dependency.
        if callable(getattr(value, "model_dump", None)):  # pydantic
            return value.model_dump(mode="json")
        for name in ("tolist", "to_dict"):  # numpy, pandas
            if callable(getattr(value, name, None)):
                return getattr(value, name)()
        if isinstance(value, BaseException):
            return shown_error(value)
        if isinstance(value, Iterable):
            return drained(value, limit)
        raise TypeError(f"what it returned has no form in JSON ({type(value).__name__})")

    return plain


def _simple(value: Any) -> Any:
    """Return a subclass of a plain type as that type, and a path as its text; None for others."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__add__(value, 0)
    if isinstance(value, float):
        return float.__add__(value, 0.0)
    if isinstance(value, Mapping):
        return dict(value)
    return os.fsdecode(value) if isinstance(value, os.PathLike) else None


def shown_error(error: BaseException) -> str:
    """Return an exception's class and message, no more: a traceback is not the model's business."""
    name = type(error).__name__
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - code of the exception's own, which may do anything
        return name
    text = f"{name}: {text[:_MAX_ERROR]}" if text else name
    return _within(text[:_MAX_ERROR], _MAX_ERROR)
