"""The base of all answer structs: unknown fields never fail, and stay reachable."""

from __future__ import annotations

import copy
import functools
import re
import typing
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

import msgspec

from konko_async._records import HTTPResponse
from konko_async.errors import ResponseDecodeError
from konko_async.wire._json import decode_json

__all__ = ["Answered", "Received", "Wire", "extended", "with_unknown"]

_NOT_A_NAME = re.compile(r'["\\\x00-\x1f\x7f]')  # what msgspec takes in no field's name
_MOST = 128  # unknown fields per struct; only a hostile server sends more
_CLASSES = 512  # kept for the next struct with the same fields


_OK = 200
_EMPTY: Mapping[str, str] = {}


class Received:
    """The JSON of an answer and the head that it came with.

    Args:
        text: the JSON; None where it was put together from a stream.
        headers: the answer's.
        redactor: masks the secrets in them (a ``Redactor``).
    """

    __slots__ = ("headers", "redactor", "text")

    def __init__(self, text: Any, headers: Mapping[str, str], redactor: Any) -> None:
        self.text = text
        self.headers = headers
        self.redactor = redactor


class Dumps:
    """Turns a struct into dicts and JSON; names are those of the API, methods those of ``openai``.

    ``exclude_unset`` leaves out what the server did not send; where that is not known, as for a
    struct inside another, what is None. ``exclude_defaults`` leaves out what is None. Fields that
    this package has no name for are kept.
    """

    __slots__ = ()

    shown: ClassVar[tuple[str, ...]] = ()
    """What :func:`rich.print` shows even where it is None: the fields that ``openai``'s class has;
    others are shown where they say something. Empty: all fields."""

    put_right: ClassVar[frozenset[str]] = frozenset()
    """Fields that are not always as the server sent them, but that are dumped so."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        struct: Any = self
        names = {*struct.__struct_encode_fields__, *self.shown}
        # By name: the order then is the same whatever a server adds.
        fields = [(name, _field(struct, name)) for name in sorted(names) if name[0] != "_"]
        return [
            (name, value)
            for name, value in fields
            if value is not msgspec.UNSET
            and (value is not None or not self.shown or name in self.shown)
        ]

    def model_dump(
        self,
        *,
        mode: Literal["python", "json"] = "python",
        include: Collection[str] | None = None,
        exclude: Collection[str] | None = None,
        by_alias: bool | None = None,  # noqa: ARG002 - there is one name for each field
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
    ) -> dict[str, Any]:
        """Return the fields as a dict, down to plain values.

        Args:
            mode: ``json`` turns what JSON cannot carry (in ``parsed``) into what it can.
            include: names of fields to keep; None: all.
            exclude: names of fields to leave out.
            by_alias: taken for compatibility; without effect.
            exclude_unset: leave out what the server did not send.
            exclude_defaults: leave out what is None.
            exclude_none: leave out what is None.
        """
        without_none = exclude_unset or exclude_defaults or exclude_none
        found: dict[str, Any]
        if exclude_unset and not (exclude_defaults or exclude_none):
            found = _plain_set(self, _sent(self))
        else:
            found = _plain(self, without_none)
        kept = {
            name: value
            for name, value in found.items()
            if (include is None or name in include) and (exclude is None or name not in exclude)
        }
        return msgspec.to_builtins(kept) if mode == "json" else kept

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """Return the fields as JSON.

        Args:
            indent: spaces per level; None: on one line.
            **options: as for :meth:`model_dump`.
        """
        return _json(self.model_dump(**options), indent)

    def to_dict(
        self,
        *,
        mode: Literal["json", "python"] = "python",
        use_api_names: bool = True,  # noqa: ARG002 - there is one name for each field
        exclude_unset: bool = True,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
    ) -> dict[str, Any]:
        """Return the fields that the server sent as a dict.

        Args:
            mode: as for :meth:`model_dump`.
            use_api_names: taken for compatibility; without effect.
            exclude_unset: False: all fields.
            exclude_defaults: as for :meth:`model_dump`.
            exclude_none: as for :meth:`model_dump`.
        """
        # The default differs from model_dump()'s: openai's to_dict() leaves out what was not sent.
        return self.model_dump(
            mode=mode,
            exclude_unset=exclude_unset,
            exclude_defaults=exclude_defaults,
            exclude_none=exclude_none,
        )

    def to_json(self, *, indent: int | None = 2, **options: Any) -> str:
        """Return the fields that the server sent as JSON.

        Args:
            indent: spaces per level; None: on one line. Default 2.
            **options: as for :meth:`to_dict`.
        """
        return _json(self.to_dict(**options), indent)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy.

        Args:
            update: fields with other values.
            deep: whether what is in it is copied, too.
        """
        made = copy.deepcopy(self) if deep else copy.copy(self)
        for name, value in (update or {}).items():
            setattr(made, name, value)
        return made


def _field(struct: Any, name: str) -> Any:
    """Return a field by its name on the wire, or what else has that name."""
    try:
        place = struct.__struct_encode_fields__.index(name)
    except ValueError:
        return getattr(struct, name)
    return getattr(struct, struct.__struct_fields__[place])


def _json(value: Any, indent: int | None) -> str:
    text = msgspec.json.encode(value)
    return (text if indent is None else msgspec.json.format(text, indent=indent)).decode()


def _plain(value: Any, without_none: bool) -> Any:
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        items = {name: getattr(value, field) for name, field in names}
        return {
            name: _plain(item, without_none)
            for name, item in items.items()
            # Of ours, such as the id of the request: it is not in the answer's JSON.
            if not name.startswith("_")
            and item is not msgspec.UNSET
            and not (without_none and item is None)
        }
    if isinstance(value, (list, tuple)):
        return [_plain(item, without_none) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item, without_none) for name, item in value.items()}
    return value


def _sent(struct: Any) -> Any:
    """Return the JSON that a struct was read from; None where it was not, or was no JSON."""
    text = struct._text() if isinstance(struct, _Raw) else None  # noqa: SLF001 - of this module
    try:
        return None if text is None else decode_json(text)
    except ResponseDecodeError:  # it was put right when it was read
        return None


@functools.lru_cache(_CLASSES)
def _defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        each.name: each.default
        if each.default_factory is msgspec.NODEFAULT
        else each.default_factory()
        for each in msgspec.structs.fields(kind)
    }


def _plain_set(value: Any, sent: Any) -> Any:
    """Return a struct as :func:`_plain`, with the fields that were sent, null or not.

    Args:
        value: the struct, or a part of it.
        sent: the JSON that it was read from; None where that is not known.
    """
    if isinstance(value, list) and isinstance(sent, list) and len(sent) == len(value):
        return [_plain_set(*pair) for pair in zip(value, sent, strict=True)]
    if not (isinstance(value, msgspec.Struct) and isinstance(sent, dict)):
        return _plain(value, without_none=True)
    # What was not sent has its default, unless the user has set it since.
    defaults = _defaults(type(value))
    found = {}
    for name, field in zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True):
        item = getattr(value, field)
        if name.startswith("_") or item is msgspec.UNSET:
            continue
        if name in sent and name in getattr(value, "put_right", ()):
            found[name] = sent[name]
        elif name in sent or item != defaults[field]:
            found[name] = _plain_set(item, sent.get(name))
    return found


class Answered:
    """Mixin of whole answers: the HTTP headers that they came with."""

    __slots__ = ()

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, case-insensitive; empty for a struct that was made by hand.

        Secrets that a server repeats in them are masked. Copies and pickles do not keep them.
        """
        received = getattr(self, "_raw", None)
        if not isinstance(received, Received):
            return _EMPTY
        shown: Mapping[str, str] = received.redactor.headers(received.headers)
        return shown

    @property
    def from_cache(self) -> bool:
        """Whether the answer came from the answer cache, and not from a server."""
        received = getattr(self, "_raw", None)
        return isinstance(received, Received) and getattr(received.headers, "from_cache", False)

    @property
    def response(self) -> HTTPResponse:
        """The HTTP response: headers and body; the status is 200, as for every result.

        Raises:
            AttributeError: this struct did not come from a server.
        """
        received = getattr(self, "_raw", None)
        if not isinstance(received, Received):
            raise AttributeError("it did not come from a server, and has no response")  # noqa: TRY004 - as for a name that is not there
        text = received.text
        body = text.encode() if isinstance(text, str) else text or b""
        return HTTPResponse(_OK, self.headers, body)

    @property
    def _request_id(self) -> str | None:
        """``x-request-id``, as ``openai`` names it; None if the server sent none."""
        return self.headers.get("x-request-id")


class _JsonMaker(Protocol):
    """Knows the JSON of structs that differ in one string only."""

    def json(self, string: bytes) -> bytes:
        """Return the JSON of the struct that has this JSON string in it."""


class _Raw:
    """Keeps the JSON as received beside a struct's fields: one slot, not a field.

    A slot is not compared or encoded with the struct, and costs 8 bytes; copies and pickles keep
    it. The JSON is decoded only when somebody asks.
    """

    __slots__ = ("_raw",)

    _raw: bytes | str | tuple[_JsonMaker, bytes] | Received

    @property
    def raw(self) -> Any:
        """The JSON as received, decoded: with the fields that this package has no name for.

        For a struct that did not come off the wire itself (made by hand, or put together from a
        stream), its own fields.
        """
        text = self._text()
        return msgspec.to_builtins(self) if text is None else decode_json(text)

    def __copy__(self) -> Any:
        return _rebuilt(type(self), self._values(), self._text())

    def __reduce__(self) -> tuple[Any, ...]:
        # A class that was made at run time cannot be found by pickle: its base and the names can.
        kind, names = self._extended or (type(self), ())
        return _unpickled, (kind, names, self._values(), self._text())

    # For a class that was made for unknown fields: the class without them, and their names.
    _extended: ClassVar[tuple[type, tuple[str, ...]] | None] = None

    @property
    def unknown(self) -> dict[str, Any]:
        """The fields that this package has no name for, by their names on the wire.

        They are attributes as well: ``message.reasoning_details``. A field whose value is null
        says nothing and is left out.
        """
        if self._extended is None:
            return {}
        names = self._extended[1]
        return dict(zip(names, self._values()[-len(names) :], strict=True))

    def _text(self) -> bytes | str | None:
        """Return the JSON as received, None where there is none."""
        raw: Any = getattr(self, "_raw", None)
        if isinstance(raw, Received):
            raw = raw.text
        # A chunk that was made from a template: its JSON is put together only if somebody reads it.
        if isinstance(raw, tuple):
            maker, string = raw
            text: bytes = maker.json(string)
            return text
        return raw  # type: ignore[no-any-return]  # what the slot is declared to hold

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__struct_fields__)  # type: ignore[attr-defined]  # mixed into structs only


def _rebuilt(kind: Any, values: tuple[Any, ...], raw: Any) -> Any:
    struct = kind(*values)
    if raw is not None:
        struct._raw = raw  # noqa: SLF001 - the slot above
    return struct


# gc=False: answers hold strings, numbers and lists of such structs; no cycle can form.
class Wire(Dumps, _Raw, msgspec.Struct, gc=False):
    """Base of the answer structs."""

    keeps_unknown: ClassVar[bool] = False
    """Whether fields that this package has no name for are kept as fields."""
    is_piece: ClassVar[bool] = False
    """Whether it is a piece of something, to which an empty unknown field adds nothing."""


T = TypeVar("T", bound=Wire)


# A struct with unknown fields is of a subclass made for just their names, so that they are
# attributes, are encoded, compared and copied like all others, and go back to the server with the
# message that they belong to, in any encoder.
@functools.lru_cache(_CLASSES)
def extended(kind: type[T], names: tuple[str, ...]) -> type[T]:
    """Return the subclass of a struct that has these fields, too.

    Args:
        kind: the struct.
        names: as on the wire. Where one cannot be an attribute, or is one of ``kind`` already,
            the attribute is ``field_0``, ``field_1``, …; the wire's name stays.
    """
    taken = set(kind.__struct_fields__)
    fields = []
    for number, name in enumerate(names):
        usable = (
            name.isidentifier()
            and name not in taken
            and not name.startswith(("_", "field_"))
            # Well-known ones are class attributes that say None (see _chat.py).
            and getattr(kind, name, None) is None
        )
        attribute = name if usable else f"field_{number}"
        fields.append((attribute, Any, msgspec.field(default=None, name=name)))
    made = msgspec.defstruct(
        kind.__name__,
        fields,
        bases=(kind,),
        module=kind.__module__,
        namespace={"__doc__": kind.__doc__, "_extended": (kind, names)},
    )
    return typing.cast("type[T]", made)


def with_unknown(struct: T, unknown: Mapping[str, Any]) -> T:
    """Return a struct that has these fields, too.

    Args:
        struct: without unknown fields of its own; left as it is.
        unknown: their values by their names on the wire. Null says nothing and is left out, as
            are fields that the struct knows (a chunk may have what only a whole answer should).
    """
    kind = type(struct)
    known = kind.__struct_encode_fields__
    said = (name for name, value in unknown.items() if value is not None and name not in known)
    # Sorted, so that two answers with the same fields in another order share one class.
    names = sorted(name for name in said if not _NOT_A_NAME.search(name))[:_MOST]
    if not names:
        return struct
    values = [getattr(struct, name) for name in kind.__struct_fields__]
    made: T = extended(kind, tuple(names))(*values, *[unknown[name] for name in names])
    raw = getattr(struct, "_raw", None)
    if raw is not None:
        made._raw = raw  # noqa: SLF001 - the JSON as received goes with the struct
    return made


def _unpickled(kind: Any, names: tuple[str, ...], values: tuple[Any, ...], raw: Any) -> Any:
    return _rebuilt(extended(kind, names) if names else kind, values, raw)
