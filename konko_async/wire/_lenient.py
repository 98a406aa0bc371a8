"""Lenient decoding: a second reading of answers that the strict types refuse.

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

from konko_async.wire._base import Wire, with_unknown
from konko_async.wire._probe import IGNORED, holds_unknown

__all__ = ["convert"]

T = TypeVar("T")

_NUMBERS = (int, float, bool)


def convert(value: Any, kind: type[T]) -> T:
    """Return ``value`` (decoded JSON) as ``kind``, bending what does not fit.

    Raises:
        ValueError: there is no sensible reading, as of a list where an object must stand.
    """
    if isinstance(value, list) and "data" in getattr(kind, "__struct_fields__", ()):
        value = {"data": value}  # a bare list of models (Together) or vectors
    return typing.cast("T", _convert(value, kind))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _convert(value: Any, kind: Any) -> Any:
    # Structs that keep unknown fields are read field by field: msgspec would drop those.
    if not holds_unknown(kind):
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
    # First, or a string member would turn null into the text "null".
    if value is None and type(None) in members:
        return None
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
            # One bad element costs itself only: the other choices or tool calls are still of use.
            found.append(_convert(element, item))
        except (ValueError, OverflowError):
            continue
    return found


def _struct(value: Any, kind: type[msgspec.Struct]) -> msgspec.Struct:
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of failure for all misfits
    if isinstance(value.get("content"), list) and "reasoning" in kind.__struct_fields__:
        value = _without_thinking(value)
    if "message" in kind.__struct_fields__ and value.get("message") is None:
        value = _with_message(value)
    hints = _hints(kind)
    found = {}
    for name, wire_name in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
        if value.get(wire_name) is not None:
            given = value[wire_name]
            if name == "arguments" and not isinstance(given, str):
                given = _json(given)  # whatever it looks like: arguments are JSON
            try:
                found[name] = _convert(given, hints[name])
            except (ValueError, OverflowError):
                continue
    try:
        struct = kind(**found)
    except TypeError as error:  # a required field is missing
        raise ValueError(str(error)) from None
    return _with_unknown(struct, value) if isinstance(struct, Wire) else struct


def _with_unknown(struct: Wire, value: dict[str, Any]) -> Wire:
    if not struct.keeps_unknown:
        return struct
    known = IGNORED.union(struct.__struct_encode_fields__)
    unknown = {name: value[name] for name in value.keys() - known}
    if struct.is_piece:  # what is empty adds nothing
        unknown = {name: one for name, one in unknown.items() if one not in ("", [], {})}
    return with_unknown(struct, unknown)


def _with_message(choice: dict[str, Any]) -> dict[str, Any]:
    """Take ``delta`` or ``text`` of a whole answer's choice for the message that it lacks."""
    delta = choice.get("delta")
    if isinstance(delta, dict) and delta:
        return {**choice, "message": delta, "delta": None}
    if isinstance(choice.get("text"), str):
        return {**choice, "message": {"content": choice["text"]}, "text": None}
    return choice


def _without_thinking(message: dict[str, Any]) -> dict[str, Any]:
    """Move the parts that say what a model thought (Mistral's ``thinking``) out of its content."""
    thoughts: list[Any] = []
    content: list[Any] = []
    for part in message["content"]:
        thought = part.get("thinking") if isinstance(part, dict) else None
        (content if thought is None else thoughts).append(part if thought is None else thought)
    if not thoughts:
        return message
    reasoning = message.get("reasoning") or "".join(map(_text, thoughts))
    return {**message, "content": content, "reasoning": reasoning}


def _text(value: Any) -> str:
    """Text of a part or of a list of parts; JSON of what else there is, digits of a number.

    Parts without text (images, references) say nothing in text and are left out, unless there are
    no others.
    """
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else [value]
    texts = [text for part in parts if (text := _part(part)) is not None]
    return "".join(texts) if texts or value == [] else _json(value)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _part(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and not part.keys().isdisjoint({"type", "text"}):
        text = part.get("text", part.get("refusal"))
        return text if isinstance(text, str) else None
    return None
