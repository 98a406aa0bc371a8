"""Typed rows: what is sent for a type or schema, and how an answer is read as it."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from konko_async import ConfigurationError, ResponseDecodeError, ResponseFormat
from konko_async.batch._typed.schema_check import check_schema, first_problem

__all__ = ["MisfitAnswerError", "RowType", "row_type"]

_FENCE = re.compile(r"\A\s*```[a-zA-Z]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_SHOWN: Final = 300
_COLUMN_TYPES: Final = {"integer": "int64", "number": "float64", "boolean": "bool"}


class MisfitAnswerError(ValueError):
    """An answer that is not of the type; its text says where, and why."""


class _SchemaReader:
    """Reads texts by a JSON Schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema

    def read(self, text: str) -> Any:
        """Return the value; raises ValueError."""
        fenced = _FENCE.match(text)
        try:
            value = msgspec.json.decode(text if fenced is None else fenced[1])
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise MisfitAnswerError(f"it is not JSON: {error}") from None
        problem = first_problem(value, self._schema)
        if problem is not None:
            raise MisfitAnswerError(problem)
        return value


class RowType:
    """What all answers of a run are to be.

    Attributes:
        wire: what is sent as ``response_format``.
        max_reasks: how often an answer that does not fit is requested again.
    """

    def __init__(self, wire: dict[str, Any], reader: Any, max_reasks: int) -> None:
        self.wire = wire
        self.max_reasks = max_reasks
        self._reader = reader

    def wanted(self, body: Mapping[str, Any]) -> bool:
        """Whether a request asks for it: a row may have a format of its own."""
        return bool(body.get("response_format") == self.wire)

    def columns(self) -> dict[str, str]:
        """Return a column for each field of the value, with its type in a table."""
        schema = self.wire.get("json_schema", {}).get("schema", {})
        fields = schema.get("properties", {}) if isinstance(schema, dict) else {}
        return {
            f"value.{name}": _COLUMN_TYPES.get(str(part.get("type")), "string")
            for name, part in fields.items()
            if isinstance(part, dict)
        }

    def read(self, text: str) -> Any:
        """Return the value of an answer, as plain JSON.

        Raises:
            MisfitAnswerError: it is not of the type.
        """
        try:
            value = self._reader.read(text)
        except (ResponseDecodeError, ValueError) as error:
            raise MisfitAnswerError(" ".join(str(error).split())[:_SHOWN]) from None
        return msgspec.to_builtins(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    # A pydantic model, for one.
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if callable(dump) else str(value)


def row_type(given: Any, max_reasks: int, *, portable: bool) -> RowType | None:
    """Return the type of a run's answers; None if there is none.

    Args:
        given: a type, a ResponseFormat, a JSON Schema, or what OpenAI's API takes
            (``{"type": "json_schema", "json_schema": {...}}``).
        max_reasks: how often an answer that does not fit is requested again.
        portable: whether it goes to worker processes.

    Raises:
        ConfigurationError: it cannot be used.
    """
    if type(max_reasks) is not int or max_reasks < 0:
        raise ConfigurationError(f"max_reasks must be an integer of at least 0, not {max_reasks!r}")
    if given is None:
        return None
    if isinstance(given, Mapping):
        found = _of_schema(dict(given), max_reasks)
    else:
        form = given if isinstance(given, ResponseFormat) else ResponseFormat(given)
        found = RowType(form.wire, form, max_reasks)
    if portable:
        try:
            pickle.dumps(found)
        except Exception as error:  # noqa: BLE001 - whatever somebody's type does
            raise ConfigurationError(
                f"response_format= cannot be sent to worker processes ({error}); give a JSON "
                "Schema, or run without workers="
            ) from None
    return found


def _of_schema(given: dict[str, Any], max_reasks: int) -> RowType:
    wire = given
    if given.get("type") == "json_schema":
        inner = given.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else None
    else:
        schema = given
        name = _NAME.sub("_", str(given.get("title") or "answer"))[:64]
        wire = {"type": "json_schema", "json_schema": {"name": name, "schema": given}}
    problem = check_schema(schema)
    if problem is not None or not isinstance(schema, dict):
        raise ConfigurationError(f"response_format= is no JSON Schema: {problem}")
    return RowType(wire, _SchemaReader(schema), max_reasks)
