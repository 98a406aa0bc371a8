"""Repairs JSON values that can only mean what a type asks for, but are spelled otherwise; pure.

Models write ``3.0`` for an integer and ``null`` for a field that has a default. Neither can mean
anything else, so both are rewritten before a value is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final

from msgspec import inspect as mi

__all__ = [
    "OBJECTS", "allows_null", "may_be_object", "members_of", "repaired", "wants_whole",
    "whole_number",
]  # fmt: skip

OBJECTS: Final = (mi.StructType, mi.DataclassType, mi.TypedDictType)
_LISTS: Final = (mi.ListType, mi.SetType, mi.FrozenSetType, mi.VarTupleType)
_FRACTIONS: Final = (mi.FloatType, mi.DecimalType, mi.AnyType, mi.RawType)
# Doubles count every integer up to here (2**53); beyond it 3.0e20 may stand for many integers.
_EXACT: Final = 9_007_199_254_740_992


def whole_number(value: Any) -> Any:
    """Return a float without a fraction as the integer that it is; anything else as it is."""
    if type(value) is float and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    return value


def members_of(nodes: list[mi.Type]) -> Iterator[Any]:
    """Yield the types that a value may have, without unions and annotations around them."""
    for node in nodes:
        bare = node
        while isinstance(bare, mi.Metadata):
            bare = bare.type
        if isinstance(bare, mi.UnionType):
            yield from members_of(list(bare.types))
        else:
            yield bare


def wants_whole(members: list[Any]) -> bool:
    """Whether a number can only be an integer there."""
    integers = any(
        isinstance(member, mi.IntType)
        or (isinstance(member, mi.LiteralType) and any(type(v) is int for v in member.values))
        or (isinstance(member, mi.EnumType) and any(type(v.value) is int for v in member.cls))
        for member in members
    )
    return integers and not any(isinstance(member, _FRACTIONS) for member in members)


def allows_null(members: list[Any]) -> bool:
    """Whether ``null`` is a value there."""
    return any(
        isinstance(member, (mi.NoneType, mi.AnyType, mi.RawType, mi.CustomType))
        or (isinstance(member, mi.LiteralType) and None in member.values)
        or (isinstance(member, mi.EnumType) and any(v.value is None for v in member.cls))
        for member in members
    )


def may_be_object(kind: Any) -> bool:
    """Whether a value of the type may be an object in JSON."""
    loose = (mi.DictType, mi.AnyType, mi.RawType, mi.CustomType)
    return any(
        isinstance(member, loose)
        or (isinstance(member, OBJECTS) and not getattr(member, "array_like", False))
        for member in members_of([_info(kind)])
    )


def repaired(value: Any, kind: Any) -> Any:
    """Return a decoded JSON value as the type would have it spelled; the same object if it is so.

    Args:
        value: what was decoded; not changed.
        kind: a type that msgspec knows.
    """
    return _Repair().value(value, [_info(kind)])


def _info(kind: Any) -> mi.Type:
    try:
        return _infos(kind)
    except TypeError:  # cannot be hashed
        return mi.type_info(kind)


_infos = functools.lru_cache(256)(mi.type_info)


class _Repair:
    """Walks a value and its type together; work grows with the value, not with the type."""

    def value(self, value: Any, nodes: list[mi.Type]) -> Any:
        """Return the value as one of these types would have it spelled."""
        if isinstance(value, float):
            return whole_number(value) if wants_whole(list(members_of(nodes))) else value
        if isinstance(value, list):
            return self._list(value, list(members_of(nodes)))
        if isinstance(value, dict):
            return self._object(value, list(members_of(nodes)))
        return value

    def _list(self, value: list[Any], members: list[Any]) -> list[Any]:
        items = [m.item_type for m in members if isinstance(m, _LISTS)]
        rows = [m.item_types for m in members if isinstance(m, mi.TupleType)]
        rows += [
            tuple(field.type for field in m.fields)
            for m in members
            if isinstance(m, mi.NamedTupleType) or getattr(m, "array_like", False)
        ]
        made = []
        for place, item in enumerate(value):
            nodes = items + [row[place] for row in rows if place < len(row)]
            made.append(self.value(item, nodes) if nodes else item)
        # The same object where nothing changed: the level above compares by identity.
        return made if any(a is not b for a, b in zip(made, value, strict=True)) else value

    def _object(self, value: dict[str, Any], members: list[Any]) -> dict[str, Any]:
        entries = [m.value_type for m in members if isinstance(m, mi.DictType)]
        objects = [
            m for m in members if isinstance(m, OBJECTS) and not getattr(m, "array_like", False)
        ]
        fields = _fields(_tagged(objects, value))
        made = {}
        for key, item in value.items():
            nodes, optional = fields.get(key, ([], False))
            # Left out, so that the field gets its default: null cannot mean anything else there.
            if item is None and optional and not entries and not allows_null(nodes):
                continue
            nodes = [*(node for node in nodes), *entries]
            made[key] = self.value(item, nodes) if nodes else item
        same = len(made) == len(value) and all(made[key] is value[key] for key in made)
        return value if same else made


def _tagged(objects: list[Any], value: dict[str, Any]) -> list[Any]:
    """Return those of several object types that the value says it is."""
    for node in objects:
        field = getattr(node, "tag_field", None)
        if field is not None and field in value:
            # No match: all of them, so that msgspec's own message names the tag at fault.
            return [m for m in objects if getattr(m, "tag", None) == value[field]] or objects
    return objects


def _fields(objects: list[Any]) -> dict[str, tuple[list[Any], bool]]:
    """Return the types of each field by its name in JSON, and whether one may leave it out."""
    found: dict[str, tuple[list[Any], bool]] = {}
    for node in objects:
        for field in node.fields:
            types, optional = found.get(field.encode_name, ([], False))
            found[field.encode_name] = (
                [*types, *members_of([field.type])],
                optional or not field.required,
            )
    return found
