"""Answers with the value that their text stands for, beside what the server sent."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

import msgspec

from konko_async.errors import StructuredOutputError
from konko_async.wire._chat import ChatCompletion, ChatCompletionMessage, Choice

__all__ = ["ParsedChatCompletion", "ParsedChoice", "ParsedMessage"]

T = TypeVar("T")


def _rebuilt(rebuild: Any, values: tuple[Any, ...], value: Any) -> Any:
    message = rebuild(*values)
    message._value = value  # noqa: SLF001 - see below
    return message


# dict: the value is kept beside the fields, as it is no part of the message and never sent back.
# gc: the values are the user's, and may refer to anything.
class ParsedMessage(ChatCompletionMessage, Generic[T], dict=True, gc=True, omit_defaults=True):
    """The model's message, and the value that its text is the JSON of."""

    @property
    def parsed(self) -> T | None:
        """The value; None where there is none: the model calls tools, or the text does not fit."""
        return cast("T | None", self.__dict__.get("_value"))

    def __copy__(self) -> Any:
        return _rebuilt(*self.__reduce__()[1])

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild, values = super().__reduce__()
        return _rebuilt, (rebuild, values, self.parsed)


class ParsedChoice(Choice, Generic[T], gc=True):
    """One of the ``n`` answers."""

    # Narrower than in a plain answer.
    message: ParsedMessage[T] = msgspec.field(default_factory=ParsedMessage)


class ParsedChatCompletion(ChatCompletion, Generic[T], gc=True):
    """A whole answer to a call with ``response_format=`` a type."""

    choices: list[ParsedChoice[T]] = []  # type: ignore[assignment]  # as above

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
