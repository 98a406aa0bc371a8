"""Checks the arguments that models write: usable for a call, and fit to be sent back; pure."""

from __future__ import annotations

import copy
import re
from typing import Any, Final

import msgspec

from konko_async.errors import ConfigurationError, ResponseDecodeError
from konko_async.wire import ChatCompletionMessage, ToolCall
from konko_async.wire._codec import decode_json, encode

__all__ = ["are_missing", "arguments_problem", "ended_well", "history_arguments", "sendable"]

# Finish reasons of answers that are whole, as servers spell them. Any other (length, max_tokens,
# content_filter, error, abort, insufficient_system_resource ...) may have cut a call anywhere, so
# an unknown one counts as a cut: a call that is made wrongly costs more than one that is not made.
_WHOLE: Final = frozenset({
    "stop", "tool_calls", "tool_call", "function_call", "function_calls", "tool_use", "end_turn",
    "eos", "eos_token", "stop_sequence", "complete", "completed",
})  # fmt: skip
_NOTHING: Final = frozenset({"", "null"})
_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def ended_well(finish_reason: str | None, *, said: bool = False) -> bool:
    """Whether an answer with this finish reason is whole.

    Args:
        finish_reason: as the server sent it.
        said: whether it has to be said: some servers send none, which is good enough for
            arguments that are whole by themselves. Default False.
    """
    if not finish_reason:
        return not said
    return finish_reason.lower() in _WHOLE


def are_missing(text: str) -> bool:
    """Whether the model gave no arguments: nothing, white space or ``null``."""
    return text.strip() in _NOTHING


def arguments_problem(text: str) -> str | None:
    """Return why arguments cannot be those of a call; None if they are a JSON object."""
    if are_missing(text):
        return "there are none"
    try:
        value = decode_json(text)
    except ResponseDecodeError as error:
        problem = error.message.removeprefix("the server's JSON cannot be read: ")
        return f"it is no JSON: {problem}"
    if isinstance(value, dict):
        return None
    # Some models encode twice; the message tells them what to change, rather than only that it is a
    # string.
    if isinstance(value, str) and _object_in(value) is not None:
        return "they are JSON in a JSON string: give the object itself"
    return f"they are no JSON object, but {_kind(value)}"


def history_arguments(text: str) -> str:
    """Return the arguments of a call as every server takes them in a conversation.

    Many read the arguments of earlier calls again, and refuse the whole request if they are not
    a JSON object. An object stays as the model wrote it; one in a JSON string is taken out of it;
    of anything else, ``{}`` is left.
    """
    found = _object_in(text, strict=True)
    return text if found is not None else _written(_object_in(text))


def _written(value: Any) -> str:
    try:
        return "{}" if value is None else encode(value).decode()
    except ConfigurationError:  # nested too deeply
        return "{}"


def _object_in(text: str, *, strict: bool = False) -> dict[str, Any] | None:
    try:
        value = msgspec.json.decode(text) if strict else decode_json(text)
        # Strict means as a server would read it: neither repaired nor unpacked.
        if isinstance(value, str) and not strict:
            value = decode_json(value)
    except (ResponseDecodeError, msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", list: "a list", str: "a string"}
    return names.get(type(value), "a number")


def sendable(message: ChatCompletionMessage, calls: list[ToolCall]) -> ChatCompletionMessage:
    """Return the model's message as it can be sent back: the same one where nothing is wrong.

    The struct is copied rather than made anew, so that fields that we do not know stay in it.

    Args:
        message: the message.
        calls: its calls, with the ids by which they are answered.
    """
    made = [_sendable_call(call) for call in calls]
    empty = not calls and message.content is None and message.refusal is None
    if not empty and all(new is old for new, old in zip(made, calls, strict=True)):
        return message
    # The caller's completion, and the events that show it, keep what the model really wrote.
    message = copy.copy(message)
    message.tool_calls = made or None
    if empty:  # neither text nor calls: servers refuse such a message
        message.content = ""
    return message


def _sendable_call(call: ToolCall) -> ToolCall:
    function = call.function
    arguments = history_arguments(function.arguments)
    # OpenAI refuses a name that no tool could have, such as one with a dot in it.
    named = _NAME.fullmatch(function.name) is not None
    if arguments == function.arguments and named and call.type:
        return call
    call = copy.copy(call)
    call.type = call.type or "function"
    call.function = copy.copy(function)
    call.function.arguments = arguments
    if not named:
        call.function.name = re.sub(r"[^a-zA-Z0-9_-]", "_", function.name)[:64] or "unknown"
    return call
