"""Checks a JSON value against a JSON Schema. No I/O.

What the structured output of servers knows (draft 2020-12 without remote references): ``type``,
``enum``, ``const``, ``properties``, ``required``, ``additionalProperties``, ``items``,
``prefixItems``, lengths, bounds, ``pattern``, ``uniqueItems``, ``anyOf``, ``oneOf``, ``allOf``,
``not``, and ``$ref`` into the schema itself. Other keywords say nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = ["check_schema", "first_problem"]

_DEEPEST: Final = 64
_SHOWN: Final = 60
_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    # 1.0 is an integer (JSON Schema, 6.1.1).
    "integer": lambda value: (
        not isinstance(value, bool)
        and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))
    ),
}
_BOUNDS: Final[dict[str, tuple[Callable[[Any, Any], bool], str]]] = {
    "minimum": (lambda value, bound: value >= bound, "at least"),
    "maximum": (lambda value, bound: value <= bound, "at most"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "above"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "below"),
}
_LENGTHS: Final[dict[str, tuple[Any, Any, str]]] = {
    "minLength": (str, min, "characters or more"),
    "maxLength": (str, max, "characters at most"),
    "minItems": (list, min, "items or more"),
    "maxItems": (list, max, "items at most"),
    "minProperties": (dict, min, "properties or more"),
    "maxProperties": (dict, max, "properties at most"),
}


def first_problem(value: Any, schema: Any) -> str | None:
    """Return where a value does not fit a schema, and why; None if it fits."""
    return next(_problems(value, schema, schema, "$", 0), None)


def check_schema(schema: Any) -> str | None:
    """Return what is wrong with a schema; None if it can be used."""
    if not isinstance(schema, dict):
        return "a schema is a JSON object"
    for place, part in _parts(schema, "$", 0):
        wanted = part.get("type")
        names = wanted if isinstance(wanted, list) else [wanted]
        unknown = [name for name in names if name is not None and name not in _TYPES]
        if unknown:
            return f"{place}: {unknown[0]!r:.60} is no type of JSON Schema"
        if isinstance(part.get("pattern"), str):
            try:
                re.compile(part["pattern"])
            except re.error as error:
                return f"{place}: the pattern cannot be read: {error}"
        if "$ref" in part and _referred(part["$ref"], schema) is None:
            return f"{place}: {part['$ref']!r:.60} refers to nothing in this schema"
    return None


def _parts(schema: Any, place: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all schemas in one, each with where it stands."""
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return
    yield place, schema
    for name in ("properties", "$defs", "definitions", "patternProperties"):
        found = schema.get(name)
        for key, part in found.items() if isinstance(found, dict) else ():
            yield from _parts(part, f"{place}.{key}", depth + 1)
    for name in ("items", "additionalProperties", "not"):
        yield from _parts(schema.get(name), f"{place}.{name}", depth + 1)
    for name in ("anyOf", "oneOf", "allOf", "prefixItems"):
        found = schema.get(name)
        for part in found if isinstance(found, list) else ():
            yield from _parts(part, f"{place}.{name}", depth + 1)


def _referred(reference: Any, root: Any) -> Any:
    """Return what a reference such as ``#/$defs/Item`` stands for; None if there is nothing."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found = root
    for part in filter(None, reference[1:].split("/")):
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found


def _problems(value: Any, schema: Any, root: Any, place: str, depth: int) -> Iterator[str]:
    if schema is False:
        yield f"{place}: no value is allowed here"
    if not isinstance(schema, dict):  # True, or what is no schema: any value fits
        return
    if depth > _DEEPEST:
        yield f"{place}: nested too deeply"
        return
    if "$ref" in schema:
        yield from _problems(value, _referred(schema["$ref"], root), root, place, depth + 1)
    yield from _of_type(value, schema, place)
    yield from _of_amounts(value, schema, place)
    if isinstance(value, dict):
        yield from _of_object(value, schema, root, place, depth)
    if isinstance(value, list):
        yield from _of_array(value, schema, root, place, depth)
    yield from _of_choices(value, schema, root, place, depth)


def _of_type(value: Any, schema: dict[str, Any], place: str) -> Iterator[str]:
    wanted = schema.get("type")
    names = wanted if isinstance(wanted, list) else [] if wanted is None else [wanted]
    if names and not any(_TYPES[name](value) for name in names if name in _TYPES):
        yield f"{place}: expected {' or '.join(names)}, got {_named(value)}"
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        shown = ", ".join(repr(one)[:_SHOWN] for one in schema["enum"][:10])
        yield f"{place}: expected one of {shown}, got {value!r:.60}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{place}: expected {schema['const']!r:.60}, got {value!r:.60}"


def _same(one: object, other: object) -> bool:
    # True == 1 in Python, and not in JSON.
    return (type(one) is type(other) and bool(one == other)) or (
        _TYPES["number"](one) and _TYPES["number"](other) and bool(one == other)
    )


def _named(value: Any) -> str:
    return next(name for name, fits in reversed(_TYPES.items()) if fits(value))


def _of_amounts(value: Any, schema: dict[str, Any], place: str) -> Iterator[str]:
    if _TYPES["number"](value):
        for name, (fits, words) in _BOUNDS.items():
            if name in schema and not fits(value, schema[name]):
                yield f"{place}: expected {words} {schema[name]}, got {value}"
        step = schema.get("multipleOf")
        if step and not math.isclose(value / step, round(value / step), abs_tol=1e-9):
            yield f"{place}: expected a multiple of {step}, got {value}"
    for name, (kind, keep, words) in _LENGTHS.items():
        if name in schema and isinstance(value, kind):
            size, bound = len(value), schema[name]
            if size != bound and keep(size, bound) == size:
                yield f"{place}: expected {bound} {words}, got {size}"
    pattern = schema.get("pattern")
    if pattern is not None and isinstance(value, str) and not re.search(pattern, value):
        yield f"{place}: {value!r:.60} does not fit the pattern {pattern!r:.60}"


def _of_object(
    value: dict[str, Any], schema: dict[str, Any], root: Any, place: str, depth: int
) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{place}: it has no {name!r:.60}"
    properties = schema.get("properties", {})
    more = schema.get("additionalProperties", True)
    by_pattern = schema.get("patternProperties", {})
    for name, part in value.items():
        inner = f"{place}.{name[:_SHOWN]}"
        if name in properties:
            yield from _problems(part, properties[name], root, inner, depth + 1)
            continue
        patterns = [found for text, found in by_pattern.items() if re.search(text, name)]
        if more is False and not patterns:
            yield f"{place}: there should be no {name!r:.60}"
        for wanted in patterns or ([] if more is False else [more]):
            yield from _problems(part, wanted, root, inner, depth + 1)


def _of_array(
    value: list[Any], schema: dict[str, Any], root: Any, place: str, depth: int
) -> Iterator[str]:
    first = schema.get("prefixItems", [])
    for number, part in enumerate(value):
        wanted = first[number] if number < len(first) else schema.get("items", True)
        yield from _problems(part, wanted, root, f"{place}[{number}]", depth + 1)
    if schema.get("uniqueItems"):
        for number, part in enumerate(value):
            if any(_same(part, other) for other in value[:number]):
                yield f"{place}[{number}]: it comes twice"


def _of_choices(
    value: Any, schema: dict[str, Any], root: Any, place: str, depth: int
) -> Iterator[str]:
    for part in schema.get("allOf", ()):
        yield from _problems(value, part, root, place, depth + 1)

    def fitting(name: str) -> int:
        return sum(
            next(_problems(value, part, root, place, depth + 1), None) is None
            for part in schema[name]
        )

    if "anyOf" in schema and not fitting("anyOf"):
        yield f"{place}: it fits none of {len(schema['anyOf'])} alternatives (anyOf)"
    if "oneOf" in schema and (count := fitting("oneOf")) != 1:
        yield f"{place}: it fits {count} of {len(schema['oneOf'])} alternatives (oneOf), not one"
    if "not" in schema and next(_problems(value, schema["not"], root, place, depth + 1), "") == "":
        yield f"{place}: it must not fit {schema['not']!r:.60}"
