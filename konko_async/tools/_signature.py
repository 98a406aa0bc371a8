"""Turns a function's signature and docstring into a JSON Schema and a struct of its arguments."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Union
from weakref import WeakKeyDictionary

import msgspec
from msgspec import UNSET, UnsetType

from konko_async._structured.docstring import read_docstring
from konko_async._structured.json_schema import Schema, make_schema, schema_name
from konko_async.errors import ConfigurationError

__all__ = ["Signature", "read_signature", "signature_of"]

_KINDS = inspect.Parameter
_WITH_DEFAULT = 3  # a field's name, type and default


class Signature(msgspec.Struct, frozen=True):
    """What a model has to know about a function.

    Attributes:
        name: the function's.
        description: its docstring up to the first section.
        schema: of its arguments.
        arguments: the struct that they are read as; those not given are UNSET.
        optional: the names of those that have a default.
    """

    name: str
    description: str
    schema: Schema
    arguments: Any
    optional: frozenset[str]


# Runs start again and again with the same functions. Of functions alone: bound methods come and go,
# and partials are new each time. Weak, so that functions made inside others can go.
_known: WeakKeyDictionary[types.FunctionType, Signature] = WeakKeyDictionary()


def signature_of(function: Callable[..., Any], name: str | None = None) -> Signature:
    """Read a function's signature as :func:`read_signature` does, but once per function."""
    if name is not None or not isinstance(function, types.FunctionType):
        return read_signature(function, name)
    known = _known.get(function)
    if known is None:
        known = _known[function] = read_signature(function)
    return known


def read_signature(function: Callable[..., Any], name: str | None = None) -> Signature:
    """Read a function's signature.

    Args:
        function: the function.
        name: what it is called. Default: by its own name.

    Raises:
        ConfigurationError: a model cannot call it; says why, and what to do.
    """
    given: Any = function
    if not callable(given) or inspect.isclass(given):
        raise ConfigurationError(
            f"a tool must be a function, a Tool or a dict, not {_kind_of(function)}"
        )
    inner, bound = _unbound(function)
    own = getattr(inner, "__name__", "")
    name = name or (type(function).__name__ if own == "__call__" else own)
    if not name or name == "<lambda>":
        raise ConfigurationError(f"{name or 'a tool'} has no name: give Tool(..., name=...)")
    parameters = _parameters(function, inner, bound, name)
    fields = [_field(parameter, hint) for parameter, hint in parameters]
    try:
        arguments = msgspec.defstruct(
            schema_name(name), fields, kw_only=True, forbid_unknown_fields=True
        )
        schema = make_schema(arguments)
    except (ConfigurationError, TypeError, ValueError) as error:
        problem = getattr(error, "message", str(error))
        raise ConfigurationError(f"the arguments of the tool {name}: {problem}") from None
    text, parts = read_docstring(inspect.getdoc(inner))
    for parameter, hint in parameters:
        _describe(schema.schema["properties"], parameter, hint, parts.get(parameter.name))
    optional = frozenset(field[0] for field in fields if len(field) == _WITH_DEFAULT)
    return Signature(name, text, schema, arguments, optional)


def _unbound(function: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    """Return the function with the annotations, and the arguments that partial() gives it."""
    inner: Any = function
    bound: dict[str, Any] = {}
    while isinstance(inner, functools.partial):
        # The outer partial wins, as it does in the call.
        bound = {**inner.keywords, **bound}
        inner = inner.func
    return (inner if inspect.isroutine(inner) else type(inner).__call__), bound


def _kind_of(value: object) -> str:
    return f"the class {value.__name__}" if inspect.isclass(value) else f"a {type(value).__name__}"


def _parameters(
    function: Callable[..., Any], inner: Any, bound: dict[str, Any], name: str
) -> list[tuple[inspect.Parameter, Any]]:
    """Return the parameters that a model gives, with their types."""
    try:
        parameters = inspect.signature(function).parameters.values()
        # Annotations may be strings: under ``from __future__ import annotations`` all of them are.
        hints = typing.get_type_hints(inner, include_extras=True)
    except (NameError, TypeError, ValueError) as error:
        problem = str(error)
    else:
        found = []
        for parameter in parameters:
            if parameter.name not in bound:  # what a partial() gives is not the model's to give
                _check(parameter, hints, name)
                found.append((parameter, hints[parameter.name]))
        return found
    raise ConfigurationError(
        f"the signature of the tool {name} cannot be read ({problem[:200]}); the types that its "
        "annotations name must be found in its module"
    )


def _check(parameter: inspect.Parameter, hints: dict[str, Any], name: str) -> None:
    shown = f"the tool {name} takes {parameter}"
    if parameter.kind in {_KINDS.VAR_POSITIONAL, _KINDS.VAR_KEYWORD}:
        raise ConfigurationError(
            f"{shown}, but a model can only give arguments that it knows of: name each of them"
        )
    if parameter.kind is _KINDS.POSITIONAL_ONLY:
        raise ConfigurationError(
            f"{shown} by position only, but a model gives arguments by name: remove the '/'"
        )
    if parameter.name not in hints:
        more = "; pass a bound method" if parameter.name in {"self", "cls"} else ""
        raise ConfigurationError(
            f"{shown} without an annotation, so that a model cannot know its type: "
            f"write '{parameter.name}: str', or what it is{more}"
        )


def _field(parameter: inspect.Parameter, hint: Any) -> Any:
    """Return the struct's field; one that has a default may be left out."""
    # UNSET rather than the default itself, which need not have a form in JSON: the function's own
    # default takes effect when the argument is not passed.
    if parameter.default is _KINDS.empty:
        return (parameter.name, hint)
    return (parameter.name, Union[hint, UnsetType], UNSET)  # noqa: UP007 - a hint may be anything


def _describe(
    properties: dict[str, Any], parameter: inspect.Parameter, hint: Any, said: str | None
) -> None:
    """Describe an argument by its annotation or the docstring, and by its default."""
    known = properties[parameter.name]
    words = next(
        (word for word in getattr(hint, "__metadata__", ()) if isinstance(word, str)), said
    )
    parts = [known.get("description") or words or ""]
    default = None if parameter.default is _KINDS.empty else _shown(parameter.default)
    if default is not None:
        parts.append(f"Default: {default}.")
    text = " ".join(p if p.endswith((".", "!", "?")) else f"{p}." for p in parts if p)
    if text and "$ref" in known:  # nothing may stand beside a reference
        known = properties[parameter.name] = {"anyOf": [known]}
    if text:
        known["description"] = text


def _shown(default: Any) -> str | None:
    """Return a default as JSON; None where it has no form in JSON, or is None."""
    # A default of None says no more than that the argument may be left out.
    if default is None:
        return None
    try:
        return msgspec.json.encode(default).decode()
    except (TypeError, ValueError, RecursionError):
        return None
