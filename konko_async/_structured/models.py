"""Pydantic models as types of answers; pydantic itself is not needed, nor imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from konko_async._structured.json_schema import Schema, finished
from konko_async.errors import ResponseDecodeError
from konko_async.wire._json import decode_json
from konko_async.wire._validation_errors import MisfitError

__all__ = ["PydanticModel", "is_model", "model_schema", "read_model"]


class PydanticModel(Protocol):
    """What type checkers know a pydantic model by."""

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, /) -> Any:
        """Return JSON as a model."""


def is_model(kind: object) -> bool:
    """Whether it is a pydantic model (or anything with the same methods)."""
    return isinstance(kind, type) and all(
        callable(getattr(kind, name, None))
        for name in ("model_json_schema", "model_validate", "model_validate_json")
    )


def model_schema(kind: Any) -> Schema:
    """Return the schema that a model says it has, as strict mode wants it."""
    root: dict[str, Any] = kind.model_json_schema()
    definitions = root.pop("$defs", {})
    return finished(root, definitions, wrapped=False)


def read_model(text: str, kind: Any, decode: Callable[[str], Any]) -> Any:
    """Return JSON text as a model.

    Args:
        text: the JSON; what only one reading can mean is read so.
        kind: the model.
        decode: its own strict reading.

    Raises:
        MisfitError: it does not fit, or is no JSON.
    """
    try:
        return decode(text)
    except ValueError:  # pydantic's ValidationError is one
        pass
    try:
        plain = decode_json(text)
    except ResponseDecodeError as error:
        problem = error.message.removeprefix("the server's JSON cannot be read: ")
        failure = MisfitError(f"it is no JSON: {problem}", None)
    else:
        try:
            return kind.model_validate(plain)
        except ValueError as error:
            failure = _misfit(error)
    raise failure


def _misfit(error: Any) -> MisfitError:
    problems = getattr(error, "errors", None)
    if not callable(problems):
        return MisfitError(str(error), "$")
    first = problems()[0]
    path = "$" + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]
    )
    return MisfitError(f"{first['msg']} - at `{path}`", path)
