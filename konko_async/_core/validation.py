"""Validates arguments before anything is sent; messages say what is wrong, where, what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from konko_async._core.not_given import is_marker
from konko_async.errors import ConfigurationError
from konko_async.wire._codec import is_finite
from konko_async.wire._json import plain_object

__all__ = [
    "check_input",
    "check_messages",
    "check_model",
    "check_sampling",
    "check_stream",
    "known_keywords",
    "model_path",
]

ROLES = ("system", "user", "assistant", "tool", "developer", "function")
_MAX_STOPS = 4
# The ranges of OpenAI's API reference; min_p, repetition_penalty and top_k are of vLLM.
_RANGES = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.0, math.inf),
}
_AT_LEAST = {
    "max_tokens": 1,
    "max_completion_tokens": 1,
    "n": 1,
    "top_logprobs": 0,
    "best_of": 1,
    "dimensions": 1,
    "top_k": -1,  # vLLM: -1 is all
}
_NO_JSON = "NaN or an infinity, which JSON cannot carry"
_ELSEWHERE = "; a server with other rules can be given the value by extra_body="


def check_model(model: object) -> None:
    """Check a model id.

    Raises:
        ConfigurationError: not a string, empty, or with control characters; it is not echoed.
    """
    if not isinstance(model, str):
        raise ConfigurationError(f"model must be a model's id, not {_named(model)}")
    if not model:
        raise ConfigurationError("Expected a non-empty value for `model` but received ''")
    if not model.isprintable() and any(c < " " or c == "\x7f" for c in model):
        raise ConfigurationError("model holds a control character (a line break, perhaps?)")


def check_messages(messages: Any) -> Any:
    """Check a conversation; an empty one is the server's to judge.

    Returns:
        The same, with objects of other packages (pydantic's, openai's) as dicts.

    Raises:
        ConfigurationError: names the index of the message at fault.
    """
    # A list first: whether something is a Sequence is a slow question.
    if type(messages) is not list and (
        not isinstance(messages, Sequence) or isinstance(messages, (str, bytes))
    ):
        raise ConfigurationError(
            f"messages must be a list of messages, not {_named(messages)}; one question is "
            '[{"role": "user", "content": "..."}]'
        )
    for index, message in enumerate(messages):
        if type(message) is dict or isinstance(message, Mapping):  # which is a slow check
            role, content = message.get("role"), message.get("content")
            if role == "user" and type(content) is str:  # the common message, the short way
                continue
            calls = message.get("tool_calls") or message.get("function_call")
        elif isinstance(message, msgspec.Struct) and hasattr(message, "role"):
            role, content = message.role, getattr(message, "content", None)
            calls = getattr(message, "tool_calls", None) or getattr(message, "function_call", None)
        else:
            plain = [
                each if plain_object(each) is None else plain_object(each) for each in messages
            ]
            if plain[index] is not message:
                return check_messages(plain)
            raise ConfigurationError(
                f"messages[{index}] must be a dict or a message struct, not {_named(message)}"
            )
        _check_message(f"messages[{index}]", role, content, calls)
    return messages


def _check_message(where: str, role: object, content: object, calls: object) -> None:
    if role is None:
        raise ConfigurationError(f"{where} has no role; it must be one of {', '.join(ROLES)}")
    if role not in ROLES:
        raise ConfigurationError(
            f"{where}: no role {role!r:.60}; it must be one of {', '.join(ROLES)}"
        )
    if isinstance(content, str):
        return
    if content is None:
        # null stands beside tool calls, and where the model refused.
        if role in {"assistant", "function"} or calls:
            return
        raise ConfigurationError(f"{where} ({role}) has no content")
    if not isinstance(content, (list, tuple)):
        raise ConfigurationError(
            f"{where}: content must be text or a list of parts, not {_named(content)}"
        )
    _check_parts(where, content)


def _check_parts(where: str, content: Sequence[object]) -> None:
    if not content:
        raise ConfigurationError(f"{where}: content is an empty list")
    for number, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else getattr(part, "type", None)
        if not isinstance(kind, str):
            raise ConfigurationError(
                f"{where}: content[{number}] must be a part such as "
                f'{{"type": "text", "text": "..."}}, not {_named(part)}'
            )
        if not is_finite(part):
            raise ConfigurationError(f"{where}: content[{number}] holds {_NO_JSON}")


def check_sampling(params: Mapping[str, Any]) -> None:
    """Check the optional parameters of a call: types, ranges, and no NaN, which JSON cannot carry.

    Raises:
        ConfigurationError: names the parameter.
    """
    for name, value in params.items():
        if value is None:
            continue
        if name in _RANGES:
            _check_range(name, value, *_RANGES[name])
        elif name in _AT_LEAST:
            least = _AT_LEAST[name]
            if type(value) is not int or value < least:  # which says what is wrong
                _check_integer(name, value, least)
        elif name == "seed":
            _check_integer(name, value, None)
        elif name == "stop":
            _check_stop(value)
        elif not is_finite(value):
            raise ConfigurationError(f"{name} holds {_NO_JSON}")


def _check_range(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationError(f"{name} must be a number, not {_named(value)}")
    # Written so that NaN fails as well: every comparison with it is false.
    if not low <= value <= high or value == math.inf:
        raise ConfigurationError(
            f"{name} must be between {low:g} and {high:g}, not {value!r}{_ELSEWHERE}"
        )


def _check_integer(name: str, value: object, low: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be an integer, not {_named(value)}")
    if low is not None and value < low:
        raise ConfigurationError(f"{name} must be at least {low}, not {value}{_ELSEWHERE}")


def _check_stop(value: object) -> None:
    if isinstance(value, str):
        return
    if not isinstance(value, (list, tuple)) or not all(isinstance(s, str) for s in value):
        raise ConfigurationError(f"stop must be a string or a list of strings, not {_named(value)}")
    if len(value) > _MAX_STOPS:
        raise ConfigurationError(
            f"stop takes at most {_MAX_STOPS} strings, not {len(value)}{_ELSEWHERE}"
        )


def check_input(name: str, value: object) -> None:
    """Check a prompt or an embeddings input: a text, texts, tokens, or lists of tokens.

    Raises:
        ConfigurationError: names the argument.
    """
    kinds = {type(item) for item in value} if isinstance(value, (list, tuple)) else {type(value)}
    if not kinds:
        raise ConfigurationError(f"{name} is empty")
    if len(kinds) > 1 or not kinds <= {str, int, list} or isinstance(value, (int, dict)):
        raise ConfigurationError(
            f"{name} must be a text, a list of texts, a list of tokens or a list of such lists"
        )


def check_stream(stream: object) -> bool | None:
    """Check the ``stream`` argument; one that says nothing is None.

    Raises:
        ConfigurationError: neither True nor False.
    """
    if isinstance(stream, bool):
        return stream
    if stream is not None and not is_marker(stream):
        raise ConfigurationError(f"stream must be True or False, not {type(stream).__name__}")
    return None


def known_keywords(call: str, params: Mapping[str, Any], known: frozenset[str]) -> None:
    """Check that every keyword is one that the call takes.

    Raises:
        TypeError: as Python does for any function; says how to pass what we do not know.
    """
    if known.issuperset(params):  # in one call of C
        return
    import difflib  # noqa: PLC0415 - only who misspells a name loads it

    name = next(name for name in params if name not in known)
    near = difflib.get_close_matches(name, sorted(known), 1)
    meant = f"Did you mean {near[0]!r}? " if near else ""
    raise TypeError(
        f"{call} got an unexpected keyword argument {name!r}. {meant}Parameters that this client "
        f"does not know go into extra_body={{{name!r}: ...}}"
    )


def _named(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def model_path(model: str) -> str:
    """Return the path of a model; ids hold slashes, but must not walk the server's tree.

    Raises:
        ConfigurationError: not a usable id; it is not echoed.
    """
    check_model(model)
    if any(part in {"", ".", ".."} for part in model.split("/")):
        raise ConfigurationError("the model id holds an empty, '.' or '..' path segment")
    return "/models/" + quote(model, safe="/:@-._~")
