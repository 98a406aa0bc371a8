"""A second, forgiving reading for answers that the strict types refuse.

Real servers send ``created`` as text, ``content`` as a list of parts, tool arguments as an object.
What carries text is turned into text; a field that makes no sense keeps its default. The strict
path is one C call; this one runs only after it has failed.
"""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any, TypeVar, Union

import msgspec

__all__ = ["convert"]

T = TypeVar("T")

_NUMBERS = (int, float, bool)


def convert(value: Any, kind: type[T]) -> T:
    """Return ``value`` (decoded JSON) as ``kind``, bending what does not fit.

    Raises:
        ValueError: there is no sensible reading, as of a list where an object must stand.
    """
    return typing.cast("T", _convert(value, kind))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _convert(value: Any, kind: Any) -> Any:
    try:
        # Text that says "1702453635" may stand for a number; text that says "null" is text.
        return msgspec.convert(value, kind, strict=kind not in _NUMBERS)
    except (msgspec.ValidationError, RecursionError):
        pass
    origin = typing.get_origin(kind)
    if origin in {Union, types.UnionType}:
        return _union(value, typing.get_args(kind))
    if origin is list:
        return _list(value, typing.get_args(kind)[0])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(value, kind)
    if kind is str:
        return _text(value)
    if kind is int and isinstance(value, float):
        return int(value)
    raise ValueError(f"no reading of {type(value).__name__} as {kind}")


def _union(value: Any, members: tuple[Any, ...]) -> Any:
    for member in members:
        if member is not type(None):
            try:
                return _convert(value, member)
            except (ValueError, OverflowError):
                continue
    raise ValueError("fits no member")


def _list(value: Any, item: Any) -> list[Any]:
    if isinstance(value, dict):  # a single object where a list should be
        value = [value]
    if not isinstance(value, list):
        raise ValueError("not a list")  # noqa: TRY004 - one kind of failure for all misfits
    found = []
    for element in value:
        try:
            found.append(_convert(element, item))
        except (ValueError, OverflowError):
            continue
    return found


def _struct(value: Any, kind: type[msgspec.Struct]) -> msgspec.Struct:
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of failure for all misfits
    hints = _hints(kind)
    found = {}
    for name, wire_name in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
        if value.get(wire_name) is not None:
            try:
                found[name] = _convert(value[wire_name], hints[name])
            except (ValueError, OverflowError):
                continue
    try:
        return kind(**found)
    except TypeError as error:  # a required field is missing
        raise ValueError(str(error)) from None


def _text(value: Any) -> str:
    """Text of a list of parts (Mistral, Anthropic style); JSON of an object; digits of a number."""
    if isinstance(value, list) and all(_part(part) is not None for part in value):
        return "".join(_part(part) or "" for part in value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _part(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        text = part.get("text", part.get("refusal"))
        return text if isinstance(text, str) else None
    return None
