"""Answers with ``.parsed``: the value that their text is the JSON of."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar, cast

import msgspec

from konko_async.errors import StructuredOutputError
from konko_async.wire._chat import (
    ChatCompletion,
    ChatCompletionMessage,
    Choice,
    FunctionCall,
    ToolCall,
)

__all__ = [
    "ParsedChatCompletion",
    "ParsedChatCompletionMessage",
    "ParsedChoice",
    "ParsedFunction",
    "ParsedFunctionToolCall",
    "ParsedMessage",
]

T = TypeVar("T")


def _rebuilt(rebuild: Any, values: tuple[Any, ...], value: Any) -> Any:
    message = rebuild(*values)
    message._value = value  # noqa: SLF001 - see below
    return message


# dict: the value is kept beside the fields, as it is no part of the message and never sent back.
# gc: the values are the user's, and may refer to anything.
class ParsedChatCompletionMessage(
    ChatCompletionMessage, Generic[T], dict=True, gc=True, omit_defaults=True
):
    """The model's message, and the value that its text is the JSON of.

    ``ParsedMessage`` is another name of it.
    """

    shown: ClassVar[tuple[str, ...]] = (*ChatCompletionMessage.shown, "parsed")

    @property
    def parsed(self) -> T | None:
        """The value; None where there is none: the model calls tools, or the text does not fit."""
        return cast("T | None", self.__dict__.get("_value"))

    def __copy__(self) -> Any:
        return _rebuilt(*self.__reduce__()[1])

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, values = super().__reduce__()
        return _rebuilt, (rebuild, values, self.parsed)


# The class has openai's name, as that is what is printed.
ParsedMessage = ParsedChatCompletionMessage


class ParsedFunction(FunctionCall, dict=True, gc=True):
    """A function that the model wants called, and its arguments as values."""

    shown: ClassVar[tuple[str, ...]] = ("arguments", "name", "parsed_arguments")

    @property
    def parsed_arguments(self) -> Any:
        """What the arguments are: a model where the tool is one, else a dict.

        None where the tool is not strict, as nothing was promised then.
        """
        return self.__dict__.get("_value")

    def __copy__(self) -> Any:
        return _rebuilt(*self.__reduce__()[1])

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, values = super().__reduce__()
        return _rebuilt, (rebuild, values, self.parsed_arguments)


class ParsedFunctionToolCall(ToolCall, gc=True):
    """A tool call whose arguments have been read."""

    # Narrower than in a plain answer.
    function: ParsedFunction = msgspec.field(default_factory=ParsedFunction)


class ParsedChoice(Choice, Generic[T], gc=True):
    """One of the ``n`` answers."""

    # Narrower than in a plain answer.
    message: ParsedMessage[T] = msgspec.field(default_factory=ParsedMessage)


class ParsedChatCompletion(ChatCompletion, Generic[T], gc=True):
    """A whole answer to a call with ``response_format=`` a type."""

    choices: list[ParsedChoice[T]] = []  # type: ignore[assignment]  # narrower than in the base

    @property
    def parsed(self) -> T:
        """The value of choice 0.

        Raises:
            StructuredOutputError: there is none, as the model calls tools instead.
        """
        message = self.choices[0].message if self.choices else None
        if message is None or (message.parsed is None and message.tool_calls):
            raise StructuredOutputError(
                "the answer calls tools and has no value yet: look at message.tool_calls",
                completion=self,
                reason="tool_calls",
            )
        return cast("T", message.parsed)
