"""Structured output: sends a type as ``response_format=``, and reads the answer as it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, overload

import msgspec

from konko_async._structured.find_json import (
    CLOSING,
    closing_tag,
    end_of,
    skip_lead,
    values_in,
)
from konko_async._structured.json_schema import make_schema, schema_name, type_name
from konko_async._structured.models import is_model, model_schema, read_model
from konko_async.errors import (
    ConfigurationError,
    ContentFilterFinishReasonError,
    LengthFinishReasonError,
    ResponseDecodeError,
    StructuredOutputError,
)
from konko_async.wire import (
    ChatCompletion,
    Choice,
    ParsedChatCompletion,
    ParsedChoice,
    ParsedMessage,
)
from konko_async.wire._base import with_unknown
from konko_async.wire._json import decode_json
from konko_async.wire._repair import may_be_object
from konko_async.wire._validation_errors import MisfitError, decoder_of, read_as

__all__ = ["ResponseFormat", "copied", "format_of", "parsed_choice"]

T = TypeVar("T")

_BODY_SHOWN = 4096
_MAX_DESCRIPTION = 1024
_WRAPPER = re.compile(r'\{\s*"value"')
# What models and templates leave after a value: fences, end tokens.
_AFTER = re.compile(r"(?:\s|```|<\|[\w.-]{1,40}\|>|</s>|<eos>|<end_of_turn>)+\Z")
_WHY = {
    "refusal": "the model refused: message.refusal says why",
    "content_filter": "the answer was stopped by a content filter",
    "length": "the answer was cut by max_tokens before it was complete",
    "empty": "the answer is empty",
    "thoughts": "the answer has thoughts (reasoning) and no text: there is no JSON in it",
}
_BY_REASON: dict[str, Any] = {
    "length": LengthFinishReasonError,
    "content_filter": ContentFilterFinishReasonError,
}
_TWO = "it holds more than one value of that type, and any may be meant"


class ResponseFormat(Generic[T]):
    """A type that an answer shall have, and how it is requested.

    The type itself does where its defaults are right: ``response_format=Invoice``. This is for
    other names, for leaving strict mode, and for types that are not classes, such as ``A | B``.

    Args:
        kind: a msgspec.Struct, a dataclass, a TypedDict, or any type that msgspec decodes; or a
            pydantic model. What is no object (a list, a union) is sent as the only property,
            ``value``, of one.
        name: what the schema is called. Default: the type's name.
        description: what the answer is for. Default: the type's docstring.
        strict: whether the server is to enforce the schema. Default: wherever OpenAI's strict mode
            can express the type.

    Attributes:
        kind: as given.
        name: as sent.
        strict: as sent.
        wrapped: whether the value stands in an object, as its ``value``.
        is_model: whether it is a pydantic model.

    Raises:
        ConfigurationError: msgspec does not know the type, or strict mode cannot express it and
            ``strict=True`` was given.
    """

    kind: Any
    name: str
    strict: bool
    wrapped: bool
    is_model: bool

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
        self.is_model = is_model(kind)
        made = model_schema(kind) if self.is_model else make_schema(kind)
        # Only where it was asked for: by default a type that strict mode cannot express goes
        # without it.
        if strict and not made.strict:
            raise ConfigurationError(
                f"strict mode cannot express {made.loose}: an object with keys of any name, a "
                "value of any type, or a tuple whose members differ; name its fields, or leave "
                "strict out"
            )
        self.kind = kind
        self.name = schema_name(name or type_name(kind) or "answer")
        self.strict = made.strict if strict is None else strict
        self.wrapped = made.wrapped
        said = made.description if description is None else description
        self._target: Any = msgspec.defstruct("Value", [("value", kind)]) if made.wrapped else kind
        # How text is read: strictly by a decoder, and forgivingly by a function.
        self._decode = kind.model_validate_json if self.is_model else decoder_of(self._target)
        self._decode_bare = self._decode if self.is_model else decoder_of(kind)
        self._read_as: Any = read_model if self.is_model else read_as
        self._opening = "{[" if made.wrapped else "{"
        self._either = made.wrapped and may_be_object(kind)
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

    @property
    def either(self) -> bool:
        """Whether an object in an answer may be the value itself, or the one that wraps it.

        It is the one that wraps it if ``value`` is its first property.
        """
        return self._either

    def read(self, text: str) -> T:
        """Return the value in a text.

        Thoughts (``<think>``), code fences, remarks and end tokens around the JSON are left out; a
        bare value is taken where an object with ``value`` was asked for.

        Raises:
            ValueError: there is none, it does not fit, or it is not clear which is meant.
        """
        # The usual answer is the JSON and nothing else: one C call, and no search.
        if not self._either or _WRAPPER.match(text):
            try:
                value = self._decode(text)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001, S110 - what is wrong is found out below
                pass
            else:
                return value.value if self.wrapped else value  # type: ignore[no-any-return]  # it is T
        return self._found(text)

    def _found(self, text: str, *, encoded: bool = True) -> T:
        place, direct = _start(text, self._opening)
        if direct:
            end = end_of(text, place)
            value = self._value(text[place:end])  # raises if nothing closes the bracket
            self._check_rest(text[place:end], text[end:])
            return value
        # Not an object or list: a bare number or string is the value only if nothing else is there.
        alone = _AFTER.sub("", text[place:])
        if self.wrapped and alone:
            try:
                return self._bare(alone)
            except MisfitError:
                pass
        if encoded and alone.startswith('"'):  # JSON in a JSON string
            try:
                inner: str = read_as(alone, str, decoder_of(str))
            except MisfitError:
                pass
            else:
                return self._found(inner, encoded=False)
        return self._only(text, place)

    def _value(self, text: str) -> T:
        if not self.wrapped:
            return self._read_as(text, self._target, self._decode)  # type: ignore[no-any-return]  # it is T
        if text.startswith("{") and (not self._either or _WRAPPER.match(text)):
            return self._read_as(text, self._target, self._decode).value  # type: ignore[no-any-return]  # it is T
        return self._bare(text)

    def _bare(self, text: str) -> T:
        return self._read_as(text, self.kind, self._decode_bare)  # type: ignore[no-any-return]  # it is T

    def _check_rest(self, text: str, rest: str) -> None:
        """Look for another value of the type after the first.

        Raises:
            MisfitError: there is one, so that it is not clear which is meant.
        """
        others = [other for other in self._values(rest, 0) if other[0] is not None]
        if others:
            first = decode_json(text)
            # A model that says the same value twice, as a draft and as the result, is clear enough.
            if any(decode_json(other) != first for other, _ in others if other):
                raise MisfitError(_TWO, None)

    def _only(self, text: str, place: int) -> T:
        """Return the only value of the type in prose.

        Raises:
            MisfitError: there is none, or more than one.
        """
        problem: MisfitError | None = None
        found: list[tuple[str, Any]] = []
        for part, value in self._values(text, place):
            if part is None:
                problem = problem or value
            elif not found or decode_json(part) != decode_json(found[0][0]):
                found.append((part, value))
        if len(found) == 1:
            return found[0][1]  # type: ignore[no-any-return]  # it is T
        if found:
            raise MisfitError(_TWO, None)
        if problem is None:
            return self._value(text[place:])  # raises, and says why it is no JSON
        raise problem

    def _values(self, text: str, place: int) -> Iterator[tuple[str | None, Any]]:
        """Yield the values of the type in a text with their JSON; None with what does not fit."""
        parts = values_in(text, place, self._opening)
        is_json = None
        while True:
            try:
                start, end = parts.send(is_json)
            except StopIteration:
                return
            part = text[start:end]
            if end is None:
                raise MisfitError("it is no JSON: a value in it is cut", None)
            is_json = True
            try:
                value = self._value(part)
            except MisfitError as error:
                is_json = error.path is not None
                if is_json:
                    yield None, error
            else:
                yield part, value

    def parse(self, completion: ChatCompletion) -> ParsedChatCompletion[T]:
        """Return an answer with its values; a choice that calls tools has none.

        Raises:
            StructuredOutputError: a choice does not fit; ``.completion`` holds those that do.
        """
        parsed: ParsedChatCompletion[T] = copied(ParsedChatCompletion, completion)
        parsed.choices = [parsed_choice(choice) for choice in completion.choices]
        failures = [self._fill(choice, parsed) for choice in parsed.choices]
        # All choices are read first, so that the error's completion holds every value there is.
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
        thoughts = message.reasoning_content or message.reasoning or ""
        reason: Any = "invalid"
        problem = MisfitError("there is no text", None)
        cut = choice.finish_reason in {"length", "content_filter"}
        if not text.strip():
            reason = "thoughts" if thoughts.strip() else "empty"
            # A grammar and a reasoning parser on one server: the JSON is taken for thoughts. That
            # it begins them tells it from a draft.
            text = thoughts if not cut and _begins(thoughts, self._opening) else ""
        if text.strip():
            try:
                message._value = self.read(text)  # type: ignore[attr-defined]  # noqa: SLF001 - where it is kept
            except MisfitError as error:
                problem = error
            else:
                return None
        # A text that fits counts, whatever else is said; only now may a refusal be the reason.
        if message.refusal:
            reason = "refusal"
        elif cut:
            reason = choice.finish_reason
        why = _WHY.get(reason, f"the answer is no {self.name}: {problem}")
        # The reason is public, and its values are few; the message tells the two apart.
        reason = "empty" if reason == "thoughts" else reason
        where = f"choice {choice.index}: " if len(completion.choices) > 1 else ""
        kind: type[StructuredOutputError] = _BY_REASON.get(reason, StructuredOutputError)
        return kind(
            where + why,
            completion=completion,
            reason=reason,
            path=problem.path,
            expected=problem.problem,
            index=choice.index,
            body=text.encode("utf-8", "replace")[:_BODY_SHOWN],
        )


def _start(text: str, opening: str) -> tuple[int, bool]:
    """Return where the value begins; or where prose does that it may be in, and False.

    Raises:
        MisfitError: it is all thoughts.
    """
    place = 0
    while True:
        lead = skip_lead(text, place, whole=True, opening=opening)
        if lead.step == "thought":
            ended, place = closing_tag(text, lead.closing, lead.place)
            if not ended:
                raise MisfitError(
                    "it is no JSON: its thoughts do not end, and nothing follows them", None
                )
            continue
        if lead.step == "value":
            return lead.place, True
        # Templates that begin the thoughts themselves leave only their end in the answer.
        closing = _last_closing(text, lead.place, opening)
        if closing is None:
            return lead.place, False
        place = closing


def _last_closing(text: str, place: int, opening: str) -> int | None:
    """Return the place after the last end of thoughts that is not in a JSON value."""
    closings = [match.end() for match in CLOSING.finditer(text, place)]
    if not closings:
        return None
    parts, is_json = values_in(text, place, opening), None
    while closings:
        try:
            start, end = parts.send(is_json)
        except StopIteration:
            break
        is_json = end is not None and _is_json(text[start:end])
        if is_json:
            closings = [at for at in closings if not start < at < (end or 0)]
    return closings[-1] if closings else None


def _is_json(text: str) -> bool:
    try:
        decode_json(text)
    except ResponseDecodeError:
        return False
    return True


def _begins(text: str, opening: str) -> bool:
    return skip_lead(text, 0, whole=True, opening=opening).step == "value"


def copied(kind: Any, struct: Any) -> Any:
    """Return the fields of an answer, and its JSON as received, as a narrower kind of answer."""
    made = kind(*[getattr(struct, name) for name in kind.__struct_fields__])
    raw = getattr(struct, "_raw", None)
    if raw is not None:
        made._raw = raw  # noqa: SLF001 - the slot of Wire
    return with_unknown(made, struct.unknown)


def parsed_choice(choice: Choice) -> ParsedChoice[Any]:
    """Return a choice as one that can hold a value, without one."""
    made: ParsedChoice[Any] = copied(ParsedChoice, choice)
    made.message = copied(ParsedMessage, choice.message)
    return made


# A schema takes msgspec a while; a program uses few types, and each many times.
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
    # "json" or the like is a common slip; the message says how it is written.
    if isinstance(value, str):
        raise ConfigurationError(
            "response_format must be a type, a ResponseFormat or a dict such as "
            f'{{"type": "json_object"}}, not {value!r:.40}'
        )
    try:
        return _of_type(value)
    except TypeError:  # cannot be hashed
        return ResponseFormat(value)
