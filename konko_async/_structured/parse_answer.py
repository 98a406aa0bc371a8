"""What ``parse()`` makes of an answer: its value, and the arguments of its tool calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from konko_async._structured.models import is_model, model_schema, read_model
from konko_async._structured.response_format import copied, parsed_choice
from konko_async.errors import (
    ConfigurationError,
    ContentFilterFinishReasonError,
    LengthFinishReasonError,
    StructuredOutputError,
    ToolArgumentsError,
)
from konko_async.wire import (
    ChatCompletion,
    ParsedChatCompletion,
    ParsedFunction,
    ParsedFunctionToolCall,
    ToolCall,
)
from konko_async.wire._validation_errors import MisfitError

if TYPE_CHECKING:
    from konko_async._structured.response_format import ResponseFormat

__all__ = [
    "check_strict", "is_read", "model_tool", "named_tools", "parse_answer", "parsed_call",
    "unparsed",
]  # fmt: skip

_ENDED: dict[str, Any] = {
    "length": LengthFinishReasonError,
    "content_filter": ContentFilterFinishReasonError,
}


def model_tool(model: Any) -> dict[str, Any]:
    """Return what is sent for a pydantic model as a tool: its fields are the arguments."""
    made = model_schema(model)
    function: dict[str, Any] = {"name": model.__name__, "parameters": made.schema, "strict": True}
    if made.description:
        function["description"] = made.description
    return {"type": "function", "function": function}


def check_strict(tools: Sequence[Any]) -> None:
    """Check that the arguments of all tools can be read.

    Raises:
        ConfigurationError: one is no strict function; in the words of ``openai``.
    """
    for tool in tools:
        if not isinstance(tool, Mapping):
            continue  # a function or a model: its schema is ours
        if tool.get("type") != "function":
            raise ConfigurationError(
                "Currently only `function` tool types support auto-parsing; Received "
                f"`{tool.get('type')!s:.60}`"
            )
        function = tool.get("function") or {}
        if not function.get("strict"):
            raise ConfigurationError(
                f"`{function.get('name')!s:.80}` is not strict. Only `strict` function tools can "
                "be auto-parsed"
            )


def parse_answer(
    whole: ChatCompletion, form: ResponseFormat[Any] | None, tools: Sequence[Any]
) -> ParsedChatCompletion[Any]:
    """Return an answer with its values.

    A refusal is no failure: ``message.refusal`` says why, and ``parsed`` is None.

    Raises:
        LengthFinishReasonError: a choice was cut.
        ContentFilterFinishReasonError: a choice was stopped.
        StructuredOutputError: the text of a choice does not fit.
        ToolArgumentsError: the arguments of a call do not fit.
    """
    for choice in whole.choices:
        kind = _ENDED.get(choice.finish_reason or "")
        if kind is not None:
            said = (
                kind.says
                if whole.usage is None or kind is not LengthFinishReasonError
                else (f"{kind.says} - {whole.usage!r}")
            )
            raise kind(
                said,
                completion=unparsed(whole),
                reason=choice.finish_reason,
                index=choice.index,
            )
    if form is None:
        parsed = unparsed(whole)
    else:
        try:
            parsed = form.parse(whole)
        except StructuredOutputError as error:
            if error.reason != "refusal":
                raise
            parsed = error.completion
    known = named_tools(tools)
    for made in parsed.choices:
        calls = made.message.tool_calls
        if calls:
            made.message.tool_calls = [parsed_call(call, known) for call in calls]
    return parsed


def unparsed(whole: ChatCompletion) -> ParsedChatCompletion[Any]:
    """Return an answer as one that can hold values, without any."""
    parsed: ParsedChatCompletion[Any] = copied(ParsedChatCompletion, whole)
    parsed.choices = [parsed_choice(choice) for choice in whole.choices]
    return parsed


def _name(tool: Any) -> str | None:
    if isinstance(tool, Mapping):
        name = (tool.get("function") or {}).get("name")
    else:
        name = getattr(tool, "name", None) or getattr(tool, "__name__", None)
    return name if isinstance(name, str) else None


def named_tools(tools: Sequence[Any]) -> dict[str, Any]:
    """Return tools by the names of their functions."""
    return {name: tool for tool in tools for name in [_name(tool)] if name}


def is_read(tool: Any) -> bool:
    """Whether the arguments for a tool are read: a model's, a function's, a strict dict's."""
    if not isinstance(tool, Mapping):
        return tool is not None
    function = tool.get("function") or {}
    return bool(function.get("strict")) or getattr(function, "model", None) is not None


def parsed_call(
    call: ToolCall, known: Mapping[str, Any], value: Any = None
) -> ParsedFunctionToolCall:
    """Return a call with its arguments as values.

    Args:
        call: the call.
        known: the tools by their names.
        value: of the arguments, where the tool is not among them.

    Raises:
        ToolArgumentsError: they do not fit.
    """
    tool = known.get(call.function.name)
    function: ParsedFunction = copied(ParsedFunction, call.function)
    function._value = value if tool is None else _arguments(call, tool)  # type: ignore[attr-defined]  # noqa: SLF001 - where it is kept
    made: ParsedFunctionToolCall = copied(ParsedFunctionToolCall, call)
    made.function = function
    return made


def _arguments(call: ToolCall, tool: Any) -> Any:
    function = (tool.get("function") or {}) if isinstance(tool, Mapping) else None
    # openai.pydantic_function_tool() keeps the model beside the schema.
    model = tool if is_model(tool) else getattr(function, "model", None)
    if model is None:
        return call.function.parse(dict) if is_read(tool) else None
    try:
        return read_model(call.function.arguments, model, model.model_validate_json)
    except MisfitError as error:
        failure = ToolArgumentsError(
            f"the arguments for {call.function.name} do not fit: {error}",
            name=call.function.name,
            path=error.path,
            expected=error.problem,
            body=call.function.arguments.encode("utf-8", "replace")[:4096],
        )
    raise failure
