"""Validates requests: refuses what a real server refuses, in its words."""

from collections.abc import Mapping
from typing import Any, Final

from konko_async.testing._emulator.errors import ApiError
from konko_async.testing._emulator.strict_schema import strict_problem

Body = dict[str, Any]

_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_MAX_LOGPROBS: Final = 20
# OpenAI's limits: four stop strings, and 2048 inputs in one request.
_MAX_STOPS: Final = 4
_MAX_INPUTS: Final = 2048
_MAX_DIMENSIONS: Final = 16_384

# Name, and the lowest and the highest value (None for no limit).
_NUMBERS: Final = (
    ("temperature", 0, 2),
    ("top_p", 0, 1),
    ("min_p", 0, 1),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("repetition_penalty", 0, None),
)
_INTEGERS: Final = (
    ("n", 1, 128),
    ("max_tokens", 1, None),
    ("max_completion_tokens", 1, None),
    ("top_logprobs", 0, _MAX_LOGPROBS),
    ("seed", -(2**63), 2**63 - 1),
    ("top_k", None, None),
    ("best_of", 1, 128),
)
_FLAGS: Final = ("stream", "echo", "parallel_tool_calls")


def check_chat(body: Body) -> None:
    """Raise a 400 if a chat request is invalid."""
    _check_sampling(body)
    messages = body.get("messages")
    if messages is None:
        raise _missing("messages")
    if not isinstance(messages, list):
        raise _wrong("messages", "an array of messages")
    if not messages:
        raise _invalid("messages", "[] is too short - 'messages'")
    # The path is written as OpenAI writes it, with a dot before the bracket: `messages.[0].role`.
    for index, message in enumerate(messages):
        _check_message(f"messages.[{index}]", message)
    if not isinstance(body.get("logprobs"), bool | None):
        raise _wrong("logprobs", "a boolean")
    _check_tools(body.get("tools"))
    _check_tool_choice(body)
    _check_format(body.get("response_format"))


def check_completion(body: Body) -> None:
    """Raise a 400 if a text completion request is invalid."""
    _check_sampling(body)
    if body.get("prompt") is None:
        raise _missing("prompt")
    _check_texts("prompt", body["prompt"])
    _check_range("logprobs", body.get("logprobs"), 0, _MAX_LOGPROBS, integer=True)


def check_embedding(body: Body) -> None:
    """Raise a 400 if an embedding request is invalid."""
    if body.get("input") is None:
        raise _missing("input")
    _check_texts("input", body["input"])
    _check_range("dimensions", body.get("dimensions"), 1, _MAX_DIMENSIONS, integer=True)
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise _invalid("encoding_format", "'encoding_format' must be 'float' or 'base64'.")


def _check_sampling(body: Body) -> None:
    for name, low, high in _NUMBERS:
        if name in body:
            _check_range(name, body[name], low, high, integer=False)
    for name, lowest, highest in _INTEGERS:
        if name in body:
            _check_range(name, body[name], lowest, highest, integer=True)
    for name in _FLAGS:
        if body.get(name) is not None and not isinstance(body[name], bool):
            raise _wrong(name, "a boolean")
    if body.get("stop") is not None:
        _check_stop(body["stop"])
    if body.get("stream_options") is not None:
        _check_stream_options(body)


def _check_stream_options(body: Body) -> None:
    if not isinstance(body["stream_options"], dict):
        raise _wrong("stream_options", "an object")
    if not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise _invalid("stream_options", message)


def _check_range(
    name: str, value: Any, low: float | None, high: float | None, *, integer: bool
) -> None:
    if value is None:
        return
    # bool first: in Python `True` is an int, and servers refuse it as a number.
    if isinstance(value, bool) or not isinstance(value, int if integer else (int, float)):
        raise _wrong(name, "an integer" if integer else "a number")
    if low is not None and value < low:
        raise _invalid(name, f"{value} is less than the minimum of {low} - '{name}'")
    if high is not None and value > high:
        raise _invalid(name, f"{value} is greater than the maximum of {high} - '{name}'")


def _check_stop(stop: Any) -> None:
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(item, str) and item for item in stops):
        raise _wrong("stop", "a string or an array of strings, none of them empty")
    if len(stops) > _MAX_STOPS:
        raise _invalid("stop", f"{stops} is too long - 'stop': at most {_MAX_STOPS} are allowed")


def _check_message(where: str, message: Any) -> None:
    if not isinstance(message, dict):
        raise _wrong(where, "an object")
    role = message.get("role")
    if role is None:
        raise _missing(f"{where}.role")
    if role not in _ROLES:
        raise _invalid(f"{where}.role", f"{role!r} is not one of {list(_ROLES)} - '{where}.role'")
    content = message.get("content")
    if content is not None:
        _check_content(f"{where}.content", content)
    # Only an assistant's message may be without content: it has tool calls in its place.
    elif role != "assistant":
        raise _missing(f"{where}.content")
    calls = message.get("tool_calls")
    if calls is not None and not _are_calls(calls):
        raise _wrong(f"{where}.tool_calls", "an array of calls, each with a 'function'")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise _missing(f"{where}.tool_call_id")


def _are_calls(calls: Any) -> bool:
    return isinstance(calls, list) and all(
        isinstance(call, dict) and isinstance(call.get("function"), dict) for call in calls
    )


def _check_content(where: str, content: Any) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise _wrong(where, "a string or an array of parts")
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise _wrong(where, "an array of parts, each with a 'type'")


def _check_tools(tools: Any) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise _wrong("tools", "an array")
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _missing(f"tools.[{index}].function.name")
        if function.get("strict") is True:
            where = f"function '{function['name']}'"
            _check_strict(f"tools.[{index}].function.parameters", where, function.get("parameters"))


def _check_tool_choice(body: Body) -> None:
    choice = body.get("tool_choice")
    if choice in (None, "none", "auto"):
        return
    # `_check_tools` has run before, so each tool has a name here.
    names = [tool["function"]["name"] for tool in body.get("tools") or ()]
    if not names:
        raise _invalid("tool_choice", "'tool_choice' is only allowed when 'tools' are specified.")
    if choice == "required":
        return
    function = choice.get("function") if isinstance(choice, dict) else None
    if isinstance(choice, dict) and isinstance(choice.get("allowed_tools"), dict):
        _check_allowed_tools(choice["allowed_tools"], names)
        return
    if not isinstance(function, dict):
        raise _wrong("tool_choice", "'none', 'auto', 'required', or a function")
    if function.get("name") not in names:
        raise _invalid("tool_choice", "'tool_choice' names a function that is not in 'tools'.")


def _check_allowed_tools(allowed: dict[str, Any], names: list[str]) -> None:
    if allowed.get("mode") not in ("auto", "required"):
        raise _wrong("tool_choice.allowed_tools.mode", "'auto' or 'required'")
    # An empty list counts as one tool without a name, which is refused.
    for tool in allowed.get("tools") or [{}]:
        if (tool.get("function") or {}).get("name") not in names:
            message = "'tool_choice' names a function that is not in 'tools'."
            raise _invalid("tool_choice.allowed_tools.tools", message)


def _check_format(response_format: Any) -> None:
    if response_format is None:
        return
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        message = "'response_format.type' must be 'text', 'json_object' or 'json_schema'."
        raise _invalid("response_format.type", message)
    if kind == "json_schema" and not isinstance(response_format.get("json_schema"), Mapping):
        raise _missing("response_format.json_schema")
    if kind == "json_schema" and response_format["json_schema"].get("strict") is True:
        named = response_format["json_schema"]
        where = f"response_format '{named.get('name')}'"
        _check_strict("response_format", where, named.get("schema"))


def _check_strict(param: str, where: str, schema: Any) -> None:
    problem = strict_problem(schema)
    if problem is not None:
        raise _invalid(param, f"Invalid schema for {where}: {problem}")


def _check_texts(name: str, value: Any) -> None:
    """Refuse what is not a string, a token list, or a list of strings or token lists."""
    if isinstance(value, str):
        return
    if not isinstance(value, list) or not value:
        raise _wrong(name, "a string, or an array that is not empty")
    # A list of one kind only: a mixture of texts and tokens is refused.
    lists = all(isinstance(item, list) and item and _is_tokens(item) for item in value)
    if not (lists or _is_tokens(value) or all(isinstance(item, str) for item in value)):
        raise _wrong(name, "an array of strings, of tokens, or of arrays of tokens")
    if len(value) > _MAX_INPUTS and not _is_tokens(value):
        raise _invalid(name, f"'{name}' may have at most {_MAX_INPUTS} items.")


def _is_tokens(items: list[Any]) -> bool:
    # `type(...) is`, as JSON's `true` must not count as token 1.
    return all(type(item) is int and item >= 0 for item in items)


def _missing(param: str) -> ApiError:
    return ApiError(
        400,
        f"you must provide a {param.rpartition('.')[2]!r} parameter",
        param=param,
        code="missing_required_parameter",
    )


def _wrong(param: str, expected: str) -> ApiError:
    return ApiError(
        400,
        f"Invalid type for '{param}': expected {expected}.",
        param=param,
        code="invalid_type",
    )


def _invalid(param: str, message: str) -> ApiError:
    return ApiError(400, message, param=param, code="invalid_value")
