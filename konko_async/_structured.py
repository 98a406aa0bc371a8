"""``response_format=`` a type: what is sent for it, and the answer read as it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, overload

import msgspec

from konko_async._schema import make_schema, schema_name
from konko_async.errors import ConfigurationError, StructuredOutputError
from konko_async.wire import (
    ChatCompletion,
    Choice,
    ParsedChatCompletion,
    ParsedChoice,
    ParsedMessage,
)
from konko_async.wire._misfit import MisfitError, decoder_of, read_as

__all__ = ["ResponseFormat", "format_of"]

T = TypeVar("T")

_BODY_SHOWN = 4096
_MAX_DESCRIPTION = 1024
# Some servers wrap JSON in a code fence, as models do in prose; an end that was cut off is missing.
_FENCE = re.compile(r"[\s\ufeff]*```[\w+-]*")
_WHY = {
    "refusal": "the model refused: message.refusal says why",
    "content_filter": "the answer was stopped by a content filter",
    "length": "the answer was cut by max_tokens before it was complete",
    "empty": "the answer is empty",
}


class ResponseFormat(Generic[T]):
    """A type that an answer shall have, and how it is asked for.

    The type itself does where its defaults are right: ``response_format=Invoice``. This is for
    other names, for leaving strict mode, and for types that are no class, such as ``A | B``.

    Args:
        kind: a msgspec.Struct, a dataclass, a TypedDict, or any type that msgspec decodes. What is
            no object (a list, a union) is sent as the only property, ``value``, of one.
        name: what the schema is called. Default: the type's name.
        description: what the answer is for. Default: the type's docstring.
        strict: whether the server is to enforce the schema. Default: wherever OpenAI's strict mode
            can express the type.

    Attributes:
        kind: as given.
        name: as sent.
        strict: as sent.
        wrapped: whether the value stands in an object, as its ``value``.

    Raises:
        ConfigurationError: msgspec does not know the type, or strict mode cannot express it and
            ``strict=True`` was given.
    """

    kind: Any
    name: str
    strict: bool
    wrapped: bool

    @overload
    def __init__(
        self,
        kind: type[T],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self: ResponseFormat[Any],
        kind: Any,
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
    ) -> None: ...

    def __init__(
        self,
        kind: Any,
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
    ) -> None:
        made = make_schema(kind)
        if strict and not made.strict:
            raise ConfigurationError(
                f"strict mode cannot express {made.loose}: an object with keys of any name, a "
                "value of any type, or a tuple whose members differ; name its fields, or leave "
                "strict out"
            )
        self.kind = kind
        self.name = schema_name(name or getattr(kind, "__name__", None) or "answer")
        self.strict = made.strict if strict is None else strict
        self.wrapped = made.wrapped
        said = made.description if description is None else description
        self._target: Any = msgspec.defstruct("Value", [("value", kind)]) if made.wrapped else kind
        self._decode = decoder_of(self._target)
        self._wire = {
            "type": "json_schema",
            "json_schema": {
                "name": self.name,
                **({"description": said[:_MAX_DESCRIPTION]} if said else {}),
                "strict": self.strict,
                "schema": made.schema,
            },
        }

    @property
    def wire(self) -> dict[str, Any]:
        """What is sent as ``response_format``."""
        return self._wire

    @property
    def target(self) -> Any:
        """The type of the whole JSON: ``kind``, or the object that it is wrapped in."""
        return self._target

    def __repr__(self) -> str:
        return f"ResponseFormat({self.name}, strict={self.strict})"

    def read(self, text: str) -> T:
        """Return a text as the type; a code fence around it is taken off.

        Raises:
            ValueError: it does not fit, or is no JSON.
        """
        fence = _FENCE.match(text)
        if fence:
            text = text[fence.end() :].rstrip().removesuffix("```")
        value: Any = read_as(text, self._target, self._decode)
        return value.value if self.wrapped else value  # type: ignore[no-any-return]  # it is T

    def parse(self, completion: ChatCompletion) -> ParsedChatCompletion[T]:
        """Return an answer with its values; a choice that calls tools has none.

        Raises:
            StructuredOutputError: a choice does not fit; ``.completion`` holds those that do.
        """
        parsed: ParsedChatCompletion[T] = _copied(ParsedChatCompletion, completion)
        parsed.choices = [_parsed_choice(choice) for choice in completion.choices]
        failures = [self._fill(choice, parsed) for choice in parsed.choices]
        for failure in failures:
            if failure is not None:
                raise failure
        return parsed

    def _fill(
        self, choice: ParsedChoice[T], completion: ParsedChatCompletion[T]
    ) -> StructuredOutputError | None:
        """Read a choice's text; return what is wrong with it."""
        message = choice.message
        if message.tool_calls or message.function_call:
            return None
        text = message.content or ""
        reason: Any = "invalid"
        problem = MisfitError("there is no text", None)
        if not text.strip():
            reason = "empty"
        else:
            try:
                message._value = self.read(text)  # type: ignore[attr-defined]  # noqa: SLF001 - where it is kept
            except MisfitError as error:
                problem = error
            else:
                return None
        if message.refusal:
            reason = "refusal"
        elif choice.finish_reason in {"length", "content_filter"}:
            reason = choice.finish_reason
        where = f"choice {choice.index}: " if len(completion.choices) > 1 else ""
        return StructuredOutputError(
            where + _WHY.get(reason, f"the answer is no {self.name}: {problem}"),
            completion=completion,
            reason=reason,
            path=problem.path,
            expected=problem.problem,
            index=choice.index,
            body=text.encode("utf-8", "replace")[:_BODY_SHOWN],
        )


def _copied(kind: Any, struct: Any) -> Any:
    """Return the fields of an answer, and its JSON as received, as a narrower kind of answer."""
    made = kind(*[getattr(struct, name) for name in struct.__struct_fields__])
    raw = getattr(struct, "_raw", None)
    if raw is not None:
        made._raw = raw  # noqa: SLF001 - the slot of Wire
    return made


def _parsed_choice(choice: Choice) -> ParsedChoice[Any]:
    made: ParsedChoice[Any] = _copied(ParsedChoice, choice)
    made.message = _copied(ParsedMessage, choice.message)
    return made


_of_type = functools.lru_cache(256)(ResponseFormat)


def format_of(value: Any) -> ResponseFormat[Any] | None:
    """Return the format that a ``response_format=`` asks for; None for None and for a dict.

    Raises:
        ConfigurationError: it is none of these, nor a type that msgspec knows.
    """
    if value is None or isinstance(value, Mapping):
        return None
    if isinstance(value, ResponseFormat):
        return value
    if isinstance(value, str):
        raise ConfigurationError(
            "response_format must be a type, a ResponseFormat or a dict such as "
            f'{{"type": "json_object"}}, not {value!r:.40}'
        )
    try:
        return _of_type(value)
    except TypeError:  # cannot be hashed
        return ResponseFormat(value)
