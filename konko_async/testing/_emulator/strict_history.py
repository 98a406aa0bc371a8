"""Validates conversations with tool calls as the strictest servers do."""

import json
import re
from typing import Any, Final, NoReturn

from konko_async.testing._emulator.errors import ApiError

__all__ = ["check_history"]

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # as OpenAI has it


def check_history(messages: list[Any]) -> None:
    """Raise a 400 if a conversation with tool calls is invalid.

    vLLM, SGLang and llama.cpp read the arguments of earlier calls again, OpenAI matches results
    with calls by their ids, and all of them refuse an assistant's message that says nothing.

    Args:
        messages: as in the request; each is a mapping with a role.
    """
    waiting: dict[str, str] = {}  # ids of calls without a result, and where they are asked for
    for index, message in enumerate(messages):
        where = f"messages.[{index}]"
        if message.get("role") == "tool":
            # Results may come in any order, but each once: a second one finds its call gone.
            if waiting.pop(message.get("tool_call_id"), None) is None:
                _refuse(f"{where}.tool_call_id", "it answers no call of the message before")
            continue
        _check_answered(waiting)
        if message.get("role") != "assistant":
            continue
        calls = message.get("tool_calls") or []
        if not calls and message.get("content") is None and not message.get("refusal"):
            _refuse(where, "it has neither content nor tool_calls")
        for number, call in enumerate(calls):
            place = f"{where}.tool_calls.[{number}]"
            if call.get("type") != "function" or not call.get("id") or call["id"] in waiting:
                _refuse(place, "a call needs type 'function' and an id of its own")
            _check_function(f"{place}.function", call["function"])
            waiting[call["id"]] = place
    _check_answered(waiting)


def _check_answered(waiting: dict[str, str]) -> None:
    for place in waiting.values():
        _refuse(place, "no tool message answers it")


def _check_function(where: str, function: dict[str, Any]) -> None:
    name: Any = function.get("name")
    arguments: Any = function.get("arguments")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        _refuse(f"{where}.name", "it is no name of a function")
    try:
        # Python's reader accepts NaN and Infinity without this hook, and lone surrogates in any
        # case: those fail in the next line.
        value = json.loads(arguments, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        _refuse(f"{where}.arguments", "it is not the text of a JSON object")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(param: str, problem: str) -> NoReturn:
    raise ApiError(400, f"Invalid '{param}': {problem}.", param=param, code="invalid_value")
