"""Validates schemas as OpenAI's strict mode does, with its error messages."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

Place = tuple[str, ...]

_KEYWORDS: Final = frozenset(
    [
        "$defs",
        "$ref",
        "additionalProperties",
        "anyOf",
        "const",
        "description",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "items",
        "maximum",
        "maxItems",
        "minimum",
        "minItems",
        "multipleOf",
        "pattern",
        "properties",
        "required",
        "title",
        "type",
    ]
)
_FORMATS: Final = frozenset(
    ["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"]
)
_DEPTH: Final = 30


def strict_problem(schema: Any) -> str | None:
    """Return why strict mode refuses a schema; `None` if it accepts it."""
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        kind = schema.get("type") if isinstance(schema, Mapping) else None
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    # The first problem only, as OpenAI reports one at a time.
    for place, problem in _problems(schema, ()):
        return f"In context={place}, {problem}"
    return None


def _problems(schema: Any, place: Place) -> Iterator[tuple[Place, str]]:
    # The depth counts keys of the path, two for each nested object. It also ends a schema that a
    # test has nested without end.
    if not isinstance(schema, Mapping) or len(place) > _DEPTH:
        yield place, "schema must be an object."
        return
    for key in schema:
        if key not in _KEYWORDS:
            yield place, f"'{key}' is not permitted."
    if "$ref" in schema:
        # Strict mode takes no keyword beside `$ref`, not even a description.
        if len(schema) > 1:
            yield place, f"$ref cannot have keywords {sorted(schema.keys() - {'$ref'})}."
        return
    if not schema.keys() & {"type", "anyOf", "enum", "const"}:
        yield place, "schema must have a 'type' key."
    if schema.get("format", "date") not in _FORMATS:
        yield place, f"'{schema['format']}' is not a valid format."
    yield from _object_problems(schema, place)
    if schema.get("type") == "array" and "items" not in schema:
        yield place, "array schema missing items."
    for where, part in _parts(schema):
        yield from _problems(part, (*place, *where))


def _object_problems(schema: Mapping[str, Any], place: Place) -> Iterator[tuple[Place, str]]:
    kinds = schema.get("type")
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
        return
    if schema.get("additionalProperties") is not False:
        yield place, "'additionalProperties' is required to be supplied and to be false."
    missing = [
        name for name in schema.get("properties", {}) if name not in schema.get("required", ())
    ]
    # Each property must be required; an optional one is written as a union with null.
    if missing or "required" not in schema:
        problem = "'required' is required to be supplied and to be an array including every key in"
        yield place, f"{problem} properties. Missing {str(missing)[1:-1]}."


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    for key in ("properties", "$defs"):
        for name, part in (schema.get(key) or {}).items():
            yield (key, name), part
    for number, part in enumerate(schema.get("anyOf") or ()):
        yield ("anyOf", str(number)), part
    if "items" in schema:
        yield ("items",), schema["items"]
