"""Types to JSON Schemas that servers can follow: OpenAI's strict mode, llama.cpp's grammars; pure.

msgspec makes the schema. What is changed after it: every object is closed and requires all of its
properties, and keywords that strict mode refuses become words of the
description; msgspec still checks them when the answer is read.
"""

from __future__ import annotations

import itertools
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect as mi

from konko_async._structured.docstring import read_docstring
from konko_async._structured.portable_pattern import portable_pattern
from konko_async.errors import ConfigurationError

__all__ = ["Schema", "finished", "make_schema", "schema_name", "type_name", "unwrapped"]

_REF = "#/$defs/"
# Keywords that go into the description: how they are said there.
_SAID = {
    "default": "Default: {}.",
    "minLength": "Minimum length: {}.",
    "maxLength": "Maximum length: {}.",
    "contentEncoding": "In {}.",
    "minProperties": "Minimum of entries: {}.",
    "maxProperties": "Maximum of entries: {}.",
}
# Refused by strict mode, and left out without a word: a model can do without them.
_DROPPED = ("discriminator", "uniqueItems", "propertyNames", "examples", "title")
# Those that OpenAI's strict mode takes; any other becomes part of the description.
_FORMATS = frozenset(
    ["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"]
)
_OBJECTS = (mi.StructType, mi.TypedDictType, mi.DataclassType, mi.NamedTupleType)


class Schema(msgspec.Struct, frozen=True):
    """A JSON Schema made of a type.

    Attributes:
        schema: an object schema, with ``$defs`` where types are named.
        description: the type's docstring, without its sections; "" if it has none.
        strict: whether strict mode can express it: no ``dict`` with keys of any name, no ``Any``,
            no tuple whose members differ.
        loose: where it cannot, the part that is to blame.
        wrapped: whether the type is no object, and so stands in one as ``value``.
    """

    schema: dict[str, Any]
    description: str
    strict: bool
    loose: str | None
    wrapped: bool


def make_schema(kind: Any) -> Schema:
    """Return the schema of a type that msgspec knows.

    Raises:
        ConfigurationError: msgspec does not know it; says what to do.
    """
    try:
        info = mi.type_info(kind)
        classes = list(_classes(info))
        (root, *refs), components = msgspec.json.schema_components(
            [kind, *(node.cls for node in classes)], ref_template=_REF + "{name}"
        )
    except KeyError as error:  # pragma: no cover - msgspec before 0.23, see below
        problem = f"two types in it have one name: {error}"
    except (TypeError, NameError, ValueError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[-1]
    else:
        # Since 0.23 msgspec tells types of one name apart by their modules and a number; before, it
        # raised. Dots are not taken by all servers, so such definitions get plain names.
        names = _plain_names(components)
        root, refs = _renamed([root, refs], names)
        components = {
            names.get(name, name): _renamed(part, names) for name, part in components.items()
        }
        for node, ref in zip(classes, refs, strict=True):
            _describe(node, components[ref["$ref"].removeprefix(_REF)])
        wrapped = not isinstance(unwrapped(info), _OBJECTS[:3]) or _is_array(unwrapped(info))
        return finished(root, components, wrapped=wrapped)
    raise ConfigurationError(
        f"{_name(kind)} cannot be described as a JSON Schema ({problem[:200]}); use a "
        "msgspec.Struct, a dataclass, a TypedDict, what else msgspec knows, or a pydantic model"
    )


def _plain_names(components: dict[str, Any]) -> dict[str, str]:
    """Return a name of letters, digits, ``_`` and ``-`` for each definition that has another."""
    taken = {name for name in components if name == schema_name(name)}
    found: dict[str, str] = {}
    for name in sorted(components.keys() - taken):
        base = schema_name(name.rpartition(".")[2])
        free = next(
            candidate
            for number in itertools.count(1)
            if (candidate := base if number == 1 else f"{base[:60]}_{number}") not in taken
        )
        taken.add(free)
        found[name] = free
    return found


def _renamed(part: Any, names: dict[str, str]) -> Any:
    """Return schemas whose references name the definitions by their new names."""
    if not names:
        return part
    if isinstance(part, dict):
        ref = part.get("$ref")
        if isinstance(ref, str):
            name = ref.removeprefix(_REF)
            part = {**part, "$ref": _REF + names.get(name, name)}
        return {key: _renamed(value, names) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [_renamed(value, names) for value in part]
    return part


def unwrapped(node: mi.Type) -> mi.Type:
    """Return a type without the ``Annotated`` around it."""
    while isinstance(node, mi.Metadata):
        node = node.type
    return node


def type_name(kind: Any) -> str | None:
    """Return the name of a type; None where it has none, such as a union.

    A union's ``__name__`` is "Union" or "Optional" (``typing``), or "Union" (``A | B`` on Python
    3.14), which says nothing of what it is.
    """
    if typing.get_origin(kind) in {typing.Union, types.UnionType}:
        return None
    return getattr(kind, "__name__", None)


def _name(kind: Any) -> str:
    return type_name(kind) or f"a {type(kind).__name__}"


def _is_array(node: mi.Type) -> bool:
    return isinstance(node, mi.StructType) and node.array_like


def _children(node: mi.Type) -> Iterator[mi.Type]:
    if isinstance(node, _OBJECTS):
        yield from (field.type for field in node.fields)
    elif isinstance(node, mi.CollectionType):
        yield node.item_type
    elif isinstance(node, mi.TupleType):
        yield from node.item_types
    elif isinstance(node, mi.DictType):
        yield from (node.key_type, node.value_type)
    elif isinstance(node, mi.UnionType):
        yield from node.types


def _classes(root: mi.Type) -> Iterator[Any]:
    """Yield the types with fields, each once."""
    # A type may hold itself.
    seen: set[Any] = set()
    left = [root]
    while left:
        node = unwrapped(left.pop())
        if isinstance(node, _OBJECTS):
            if node.cls in seen:
                continue
            seen.add(node.cls)
            yield node
        left.extend(_children(node))


def _describe(node: Any, schema: dict[str, Any]) -> None:
    """Add descriptions of fields from the docstring, and the formats that msgspec leaves out."""
    cls = getattr(node.cls, "__origin__", node.cls)
    if schema.get("description"):
        text, parts = read_docstring(cls.__doc__)
        schema["description"] = text
        if not text:
            del schema["description"]
    else:
        parts = {}
    for field in node.fields:
        known = schema.get("properties", {}).get(field.encode_name)
        if known is None:
            continue
        if parts.get(field.name):
            known.setdefault("description", parts[field.name])
        _add_formats(unwrapped(field.type), known)


def _add_formats(node: mi.Type, schema: dict[str, Any]) -> None:
    """Name the form of times: msgspec does only where it insists on a time zone, or on none."""
    if isinstance(node, mi.DateTimeType):
        schema.setdefault("format", "date-time")
    elif isinstance(node, mi.TimeType):
        schema.setdefault("format", "time")
    elif isinstance(node, mi.CollectionType) and isinstance(schema.get("items"), dict):
        _add_formats(unwrapped(node.item_type), schema["items"])
    elif isinstance(node, mi.UnionType):
        for member, part in zip(node.types, schema.get("anyOf", ()), strict=False):
            _add_formats(unwrapped(member), part)


def finished(root: dict[str, Any], components: dict[str, Any], *, wrapped: bool) -> Schema:
    """Close the schema, and put its root, an object, where servers look for it."""
    closer = _Closer()
    if wrapped:
        root = {"type": "object", "properties": {"value": root}, "required": ["value"]}
    definitions = {name: closer.closed(part, name) for name, part in components.items()}
    root = closer.closed(root, "$")
    if "anyOf" in root and len(root["anyOf"]) == 1:  # an Annotated reference
        root = {**{k: v for k, v in root.items() if k != "anyOf"}, **root["anyOf"][0]}
    said = root.pop("description", None)
    if "$ref" in root:
        root = dict(definitions[root["$ref"].removeprefix(_REF)])
    description = said or root.pop("description", "")
    root.pop("description", None)
    used = _references(root, definitions)
    # Only those that are still referred to: the root's own definition may have been taken out.
    if used:
        root["$defs"] = {name: definitions[name] for name in definitions if name in used}
    return Schema(root, description, closer.loose is None, closer.loose, wrapped)


def _references(schema: Any, definitions: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    left = [schema]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            ref = part.get("$ref")
            name = ref.removeprefix(_REF) if isinstance(ref, str) else None
            if name in definitions and name not in found:
                found.add(name)
                left.append(definitions[name])
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
    return found


class _Closer:
    """Rewrites schemas.

    Attributes:
        loose: the first place that strict mode cannot express.
    """

    def __init__(self) -> None:
        self.loose: str | None = None

    def closed(self, schema: dict[str, Any], place: str) -> dict[str, Any]:
        """Return the schema as strict mode wants it."""
        made = {key: value for key, value in schema.items() if key not in _DROPPED}
        if made.get("type") == "array":
            self._array(made, place)
        elif made.get("type") == "object":
            self._object(made, place)
        elif "anyOf" in made:
            made["anyOf"] = [self.closed(part, place) for part in made["anyOf"]]
        # A schema without a type allows anything, which strict mode cannot.
        elif not made.keys() & {"type", "$ref", "enum", "const"}:
            self.loose = self.loose or place
        if "enum" in made:
            made["type"] = _types(made["enum"])
        _say(made)
        if "$ref" in made and len(made) > 1:  # nothing may stand beside a reference
            made = {"anyOf": [{"$ref": made.pop("$ref")}], **made}
        return made

    def _object(self, made: dict[str, Any], place: str) -> None:
        properties = made.get("properties")
        if properties is None:
            self.loose = self.loose or place
            values = made.get("additionalProperties")
            if isinstance(values, dict):
                made["additionalProperties"] = self.closed(values, f"{place}[...]")
            return
        made["properties"] = {
            name: self.closed(part, f"{place}.{name}") for name, part in properties.items()
        }
        # Strict mode requires every property to be listed, those with a default too.
        made["required"] = list(properties)
        made["additionalProperties"] = False

    def _array(self, made: dict[str, Any], place: str) -> None:
        prefix = made.pop("prefixItems", None)
        if prefix is not None:  # a tuple
            if any(part != prefix[0] for part in prefix):
                self.loose = self.loose or place
                made["prefixItems"] = [self.closed(part, f"{place}[]") for part in prefix]
                made.pop("items", None)
                return
            made["items"] = prefix[0] if prefix else None
        items = made.get("items")
        if not isinstance(items, dict):
            self.loose = self.loose or place
            made.pop("items", None)
            return
        made["items"] = self.closed(items, f"{place}[]")


def _types(values: list[Any]) -> str | list[str]:
    names = {str: "string", bool: "boolean", int: "integer", type(None): "null"}
    found = list(dict.fromkeys(names[type(value)] for value in values))
    return found[0] if len(found) == 1 else found


def _say(made: dict[str, Any]) -> None:
    """Move what no server takes as a keyword into the description."""
    if "default" in made and made["default"] is None:
        del made["default"]  # null is among the values, which says it
    words = [
        form.format(msgspec.json.encode(made.pop(key)).decode().strip('"'))
        for key, form in _SAID.items()
        if key in made
    ]
    if made.get("format", "") not in _FORMATS and "format" in made:
        words.append(f"A {made.pop('format')}.")
    if "pattern" in made:
        portable = portable_pattern(made["pattern"])
        if portable is None:
            words.append(f"Matches the regular expression {made.pop('pattern')}")
        else:
            made["pattern"] = portable
    if words:
        before = made.get("description", "")
        if before and before[-1] not in ".!?":
            before += "."
        made["description"] = " ".join([before, *words]).strip()


def schema_name(text: str) -> str:
    """Return a name that servers take: letters, digits, ``_`` and ``-``, at most 64 of them."""
    # OpenAI's rule for the name of a response format.
    return re.sub(r"[^a-zA-Z0-9_-]", "_", text)[:64] or "answer"
