"""Shapes of growing values: which attributes a type's value will have, and which may grow."""

from __future__ import annotations

import datetime as dt
import decimal
import functools
import operator
import uuid
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec import inspect as mi

from konko_async.wire._repair import OBJECTS, allows_null, members_of, wants_whole, whole_number

__all__ = ["ANYTHING", "ValueShape", "shape_of"]

_SCALARS: dict[Any, Any] = {
    mi.IntType: int,
    mi.FloatType: float,
    mi.DateTimeType: dt.datetime,
    mi.DateType: dt.date,
    mi.TimeType: dt.time,
    mi.TimeDeltaType: dt.timedelta,
    mi.UUIDType: uuid.UUID,
    mi.DecimalType: decimal.Decimal,
    mi.BytesType: bytes,
    mi.ByteArrayType: bytearray,
    mi.MemoryViewType: memoryview,
}
_LISTS = (mi.ListType, mi.SetType, mi.FrozenSetType, mi.VarTupleType)


class ValueShape:
    """What may stand in one place; the members of a union are merged into one.

    Attributes:
        grows: whether a string shows as it grows; else it shows once it is complete.
        scalar: the type that complete numbers and strings are turned into; None: as they are.
        make: makes the object.
        fields: its properties by their names in JSON, and what their values look like; None: any
            names, values like ``entries``.
        by_attribute: whether properties are attributes of it, not entries.
        entries: what entries of a dict look like; None: anything.
        items: what items of a list look like; None: anything.
        places: what the first items look like, where each is another (a tuple).
        whole: whether a number can only be an integer, so that ``3.0`` is 3.
        defaults: the properties for which ``null`` can only mean their default: they stay unset.
    """

    __slots__ = (
        "by_attribute", "defaults", "entries", "fields", "grows", "items", "make", "places",
        "scalar", "whole",
    )  # fmt: skip

    def __init__(self) -> None:
        self.grows = False
        self.scalar: Any = None
        self.make: Any = dict
        self.fields: dict[str, tuple[str, ValueShape]] | None = None
        self.by_attribute = False
        self.entries: ValueShape | None = None
        self.items: ValueShape | None = None
        self.places: tuple[ValueShape, ...] = ()
        self.whole = False
        self.defaults: frozenset[str] = frozenset()

    def item(self, index: int) -> ValueShape:
        """Return what the item at ``index`` looks like."""
        if index < len(self.places):
            return self.places[index]
        return self.items or ANYTHING

    def settled(self, value: Any) -> Any:
        """Return a complete number or string as the type that it stands for, where it does."""
        if self.whole:
            value = whole_number(value)
        if self.scalar is None or value is None:
            return value
        try:
            return msgspec.convert(value, self.scalar)
        except (msgspec.ValidationError, TypeError):  # TypeError: two tagged types differ here
            return value  # reading the whole will say what is wrong with it


ANYTHING = ValueShape()
ANYTHING.grows = True


class _ShapeMaker:
    """Makes shapes; a type that holds itself gets a shape that holds itself."""

    def __init__(self) -> None:
        # By the identity of msgspec's nodes, which is the same wherever a type occurs again.
        self._known: dict[tuple[int, ...], ValueShape] = {}

    def of(self, nodes: list[mi.Type]) -> ValueShape:
        """Return the shape of what may be any of these types."""
        members = list(members_of(nodes))
        key = tuple(id(member) for member in members)
        if key in self._known:
            return self._known[key]
        if any(isinstance(member, (mi.AnyType, mi.RawType)) for member in members):
            return ANYTHING
        # Known before it is filled, or a type that holds itself would never end.
        shape = self._known[key] = ValueShape()
        self._fill(shape, members)
        return shape

    def _fill(self, shape: ValueShape, members: list[Any]) -> None:
        shape.whole = wants_whole(members)
        shape.grows = any(isinstance(member, mi.StrType) for member in members)
        scalars = [_SCALARS[type(m)] for m in members if type(m) in _SCALARS]
        scalars += [member.cls for member in members if isinstance(member, mi.EnumType)]
        # Where any string may stand, "2024-01-01" is a string as well as a date: it is shown as it
        # grows.
        if scalars and not shape.grows:
            scalars += [bool] if any(isinstance(m, mi.BoolType) for m in members) else []
            shape.scalar = functools.reduce(operator.or_, scalars) if scalars else None
        for member in members:
            if isinstance(member, _LISTS):
                shape.items = self.of([member.item_type])
            elif isinstance(member, mi.TupleType):
                shape.places = tuple(self.of([node]) for node in member.item_types)
            elif isinstance(member, mi.NamedTupleType) or _is_array(member):
                shape.places = tuple(self.of([field.type]) for field in member.fields)
            elif isinstance(member, mi.DictType):
                shape.entries = self.of([member.value_type])
        objects = [m for m in members if isinstance(m, OBJECTS) and not _is_array(m)]
        if objects:
            self._fill_fields(shape, objects)

    def _fill_fields(self, shape: ValueShape, objects: list[Any]) -> None:
        types: dict[str, tuple[str, list[mi.Type]]] = {}
        optional = set()
        for node in objects:
            for field in node.fields:
                types.setdefault(field.encode_name, (field.name, []))[1].append(field.type)
                if not field.required:
                    optional.add(field.encode_name)
            tag = getattr(node, "tag_field", None)
            if tag and tag.isidentifier():
                types.setdefault(tag, (tag, []))
        shape.defaults = frozenset(
            key for key in optional if not allows_null(list(members_of(types[key][1])))
        )
        shape.fields = {
            key: (name, self.of(nodes) if nodes else ValueShape())
            for key, (name, nodes) in types.items()
        }
        # A TypedDict is a dict to the user, and so is what grows.
        if not isinstance(objects[0], mi.TypedDictType):
            shape.by_attribute = True
            shape.make = _partial_class(objects, types)


def _is_array(node: mi.Type) -> bool:
    return isinstance(node, mi.StructType) and node.array_like


def _partial_class(objects: list[Any], types: dict[str, tuple[str, Any]]) -> Any:
    """Make the struct whose attributes are UNSET until their values begin to arrive."""
    classes = [getattr(node.cls, "__origin__", node.cls) for node in objects]
    names = [cls.__name__ for cls in classes]
    fields = [
        (name, Any, msgspec.field(default=UNSET, name=key)) for key, (name, _) in types.items()
    ]
    return msgspec.defstruct(
        "Partial" + "Or".join(names), fields, module=classes[0].__module__, kw_only=True
    )


_shapes = functools.lru_cache(256)(lambda kind: _ShapeMaker().of([mi.type_info(kind)]))


def shape_of(kind: Any) -> ValueShape:
    """Return what a growing value of a type looks like; made once per type."""
    try:
        shape: ValueShape = _shapes(kind)
    except TypeError:  # cannot be hashed
        shape = _ShapeMaker().of([mi.type_info(kind)])
    return shape
