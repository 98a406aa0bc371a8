"""Builds a small value that a JSON schema accepts: tool arguments, and structured answers."""

from collections.abc import Mapping
from typing import Any, Final

# Schemas may refer to themselves: below this depth, what may be left out is left out.
_DEPTH: Final = 12
_VALUES: Final = 10_000
_FORMATS: Final = {
    "date": "2024-01-01",
    "date-time": "2024-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "user@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example(schema: Any, name: str = "value") -> Any:
    """A value that fits the schema: only required properties, and a string is its property's name.

    Args:
        schema: A JSON schema. `$ref` inside the document, `const`, `enum`, `default`, `anyOf`,
            `oneOf`, `allOf`, `type`, `required`, `properties`, `minItems`, `prefixItems`, bounds of
            numbers, lengths and formats of strings are understood; `pattern` is not.
        name: What a string says.

    Returns:
        Plain JSON data.

    Raises:
        ValueError: If the schema asks for more than ten thousand values.
        TypeError: If it makes no sense; or whatever else its nonsense leads to.
    """
    # Without a schema, or with one that allows everything, a string will do.
    root = {} if schema is None or schema is True else schema
    return _Example(root).of(root, name, 0)


class _Example:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._values = 0

    def of(self, schema: Any, name: str, depth: int) -> Any:
        # A schema of a few lines can ask for exponentially many values through `$ref`.
        self._values += 1
        if self._values > _VALUES:
            raise ValueError("it asks for too many values")
        if depth > _DEPTH:
            return None
        if not isinstance(schema, Mapping):
            if schema is True:
                return name
            raise TypeError("a schema must be an object")
        schema = self._resolve(schema)
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        if schema.get("enum"):
            return schema["enum"][0]
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                base = {k: v for k, v in schema.items() if k != key}
                member = self._member(schema[key], depth)
                return self.of(_merge(base, self._resolve(member)), name, depth + 1)
        return self._by_type(schema, name, depth)

    def _member(self, members: Any, depth: int) -> Any:
        """Choose the first member; deep down null if it is one, which ends recursive schemas."""
        null = {"type": "null"}
        # Well before the depth limit: below that, even values that may not be null become null, and
        # the result does not fit the schema.
        return null if depth > _DEPTH // 3 and null in members else members[0]

    def _resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema with its `$ref` followed and its `allOf` merged in."""
        # Bounded, as a `$ref` may lead back to itself.
        for _ in range(_DEPTH):
            if "$ref" in schema:
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = _merge(self._lookup(str(schema["$ref"])), rest)
            elif schema.get("allOf"):
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                for part in schema["allOf"]:
                    rest = dict(_merge(rest, part))
                schema = rest
            else:
                break
        return schema

    def _lookup(self, reference: str) -> Mapping[str, Any]:
        found: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            # In this order, as RFC 6901 says: the other way "~01" would become "/".
            key = step.replace("~1", "/").replace("~0", "~")
            if step and isinstance(found, Mapping):
                found = found.get(key)
        return found if isinstance(found, Mapping) else {}

    def _by_type(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            # By convention null comes last, as in `["string", "null"]`.
            kind = kind[0] if kind else None
        if kind is None:
            kind = (
                "object" if "properties" in schema else "array" if "items" in schema else "string"
            )
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, name, depth)
        if kind in ("integer", "number"):
            return _number(schema, integer=kind == "integer")
        if kind == "string":
            return _string(schema, name)
        return True if kind == "boolean" else None

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = schema.get("required") or ()
        # Required ones only: an optional property of a recursive schema has no end.
        return {key: self.of(properties.get(key, {}), key, depth + 1) for key in required}

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        prefix = schema.get("prefixItems") or ()
        items = [self.of(part, name, depth + 1) for part in prefix]
        item = schema.get("items", {})
        while len(items) < int(schema.get("minItems") or 0):
            items.append(self.of(item, name, depth + 1))
        return items


def _merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> Mapping[str, Any]:
    """Merge two schemas that both apply, with their properties and required names."""
    merged = {**first, **second}
    if "properties" in first and "properties" in second:
        merged["properties"] = {**first["properties"], **second["properties"]}
    if "required" in first and "required" in second:
        merged["required"] = list(dict.fromkeys([*first["required"], *second["required"]]))
    return merged


def _number(schema: Mapping[str, Any], *, integer: bool) -> float:
    step = schema.get("multipleOf") or 1
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None:
        # The lowest multiple of the step that is not below (or not at) the bound.
        value = -(-low // step) * step
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            # Half the rest where a whole step would pass the upper bound, as in 0 < x < 1.
            value += step if high is None or value + step < high else (high - value) / 2
    elif high is not None:
        value = min(high // step * step, step)
        if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"]:
            value -= step
    else:
        value = step
    if high is not None and value > high:
        value = low if low is not None else high
    return int(value) if integer else value


def _string(schema: Mapping[str, Any], name: str) -> str:
    text = _FORMATS.get(str(schema.get("format")), name)
    shortest = int(schema.get("minLength") or 0)
    if shortest > _VALUES:
        raise ValueError("it asks for too long a string")
    text = text.ljust(shortest, "x")
    return text[: schema["maxLength"]] if "maxLength" in schema else text
