"""What a growing value of a type looks like: which attributes it will have, and what may grow."""

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

from konko_async._schema import unwrapped

__all__ = ["ANYTHING", "Shape", "shape_of"]

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


class Shape:
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
    """

    __slots__ = (
        "by_attribute", "entries", "fields", "grows", "items", "make", "places", "scalar",
    )  # fmt: skip

    def __init__(self) -> None:
        self.grows = False
        self.scalar: Any = None
        self.make: Any = dict
        self.fields: dict[str, tuple[str, Shape]] | None = None
        self.by_attribute = False
        self.entries: Shape | None = None
        self.items: Shape | None = None
        self.places: tuple[Shape, ...] = ()

    def item(self, index: int) -> Shape:
        """Return what the item at ``index`` looks like."""
        if index < len(self.places):
            return self.places[index]
        return self.items or ANYTHING

    def settled(self, value: Any) -> Any:
        """Return a complete number or string as the type that it stands for, where it does."""
        if self.scalar is None or value is None:
            return value
        try:
            return msgspec.convert(value, self.scalar)
        except (msgspec.ValidationError, TypeError):  # TypeError: two tagged types differ here
            return value  # reading the whole will say what is wrong with it


ANYTHING = Shape()
ANYTHING.grows = True


class _Maker:
    """Makes shapes; a type that holds itself gets a shape that holds itself."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], Shape] = {}

    def of(self, nodes: list[mi.Type]) -> Shape:
        """Return the shape of what may be any of these types."""
        members = [member for node in nodes for member in _members(node)]
        key = tuple(id(member) for member in members)
        if key in self._known:
            return self._known[key]
        if any(isinstance(member, (mi.AnyType, mi.RawType)) for member in members):
            return ANYTHING
        shape = self._known[key] = Shape()
        self._fill(shape, members)
        return shape

    def _fill(self, shape: Shape, members: list[Any]) -> None:
        shape.grows = any(isinstance(member, mi.StrType) for member in members)
        scalars = [_SCALARS[type(m)] for m in members if type(m) in _SCALARS]
        scalars += [member.cls for member in members if isinstance(member, mi.EnumType)]
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
        objects = [m for m in members if isinstance(m, _OBJECTS) and not _is_array(m)]
        if objects:
            self._fill_fields(shape, objects)

    def _fill_fields(self, shape: Shape, objects: list[Any]) -> None:
        types: dict[str, tuple[str, list[mi.Type]]] = {}
        for node in objects:
            for field in node.fields:
                types.setdefault(field.encode_name, (field.name, []))[1].append(field.type)
            tag = getattr(node, "tag_field", None)
            if tag and tag.isidentifier():
                types.setdefault(tag, (tag, []))
        shape.fields = {
            key: (name, self.of(nodes) if nodes else Shape())
            for key, (name, nodes) in types.items()
        }
        if not isinstance(objects[0], mi.TypedDictType):
            shape.by_attribute = True
            shape.make = _partial_class(objects, types)


_OBJECTS = (mi.StructType, mi.DataclassType, mi.TypedDictType)


def _is_array(node: mi.Type) -> bool:
    return isinstance(node, mi.StructType) and node.array_like


def _members(node: mi.Type) -> list[mi.Type]:
    node = unwrapped(node)
    if isinstance(node, mi.UnionType):
        return [member for part in node.types for member in _members(part)]
    return [node]


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


_shapes = functools.lru_cache(256)(lambda kind: _Maker().of([mi.type_info(kind)]))


def shape_of(kind: Any) -> Shape:
    """Return what a growing value of a type looks like; made once per type."""
    try:
        shape: Shape = _shapes(kind)
    except TypeError:  # cannot be hashed
        shape = _Maker().of([mi.type_info(kind)])
    return shape
