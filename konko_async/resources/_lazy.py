"""Typed answers and tools, imported on first use: most calls need neither."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from konko_async._core.not_given import is_marker
from konko_async._core.pipeline import Call
from konko_async._streaming.stream import ChatStream
from konko_async.errors import ConfigurationError, KonkoError, StructuredOutputError
from konko_async.wire import ChatCompletion

if TYPE_CHECKING:
    from konko_async._streaming.stages import EventSource
    from konko_async._structured.response_format import ResponseFormat
    from konko_async.resources._responses import PreparedCall
    from konko_async.resources._resume import Resumption
    from konko_async.wire import ParsedChatCompletion

__all__ = [
    "check_strict", "corrected", "form_of", "gives_events", "listed_tools", "make_stream",
    "parse_whole", "prepared_call", "read_answer", "refine", "take_reasks", "take_resumption",
    "wire_tools", "with_usage",
]  # fmt: skip


def prepared_call() -> type[PreparedCall]:
    """Return the class of calls that are sent with the HTTP around them."""
    from konko_async.resources._responses import PreparedCall  # noqa: PLC0415 - most calls show no HTTP

    return PreparedCall


def form_of(response_format: Any) -> ResponseFormat[Any] | None:
    """Return the format of a ``response_format=``; None for a dict, and where there is none."""
    # A plain dict is known without the import; format_of() recognises the other mappings.
    if response_format is None or type(response_format) is dict or is_marker(response_format):
        return None
    from konko_async._structured.response_format import format_of  # noqa: PLC0415 - most calls have no type

    return format_of(response_format)


def make_stream(
    opened: Callable[[], Any], form: ResponseFormat[Any] | None, *, events: bool = False
) -> ChatStream:
    """Return the stream of an answer, parsed if it has a format.

    Args:
        opened: opens it.
        form: its format.
        events: whether one with a format will give events.
    """
    if form is None:
        made = ChatStream(opened)
        made._eventing = _plain_events  # noqa: SLF001 - set in this module only
        made._refine = _unparsed  # noqa: SLF001 - set in this module only
        return made
    from konko_async._structured.parsed_stream import ParsedChatStream, ParsedEventStream  # noqa: PLC0415 - for typed streams only

    kind = ParsedEventStream if events else ParsedChatStream
    return _with_events(kind(opened, form), form, ())


def _unparsed(whole: ChatCompletion) -> ChatCompletion:
    from konko_async._structured.parse_answer import unparsed  # noqa: PLC0415 - for few streams only

    return unparsed(whole)


def _plain_events(expected: int | None) -> EventSource:
    return _events_of(None, (), expected)


def _events_of(form: Any, tools: Sequence[Any], expected: int | None) -> EventSource:
    from konko_async._structured.stream_events import ChatEvents  # noqa: PLC0415 - for few streams only

    return ChatEvents(form, tools, expected)


def _with_events(stream: ChatStream, form: Any, tools: Sequence[Any]) -> ChatStream:
    stream._eventing = functools.partial(_events_of, form, tools)  # noqa: SLF001 - set in this module only
    return stream


def gives_events(form: ResponseFormat[Any] | None, tools: Sequence[Any]) -> bool:
    """Whether ``stream()`` gives events: pydantic models are in it, as ``openai``'s users write."""
    return (form is not None and form.is_model) or any(_is_model_tool(tool) for tool in tools)


def _is_model_tool(tool: Any) -> bool:
    from konko_async._structured.models import is_model  # noqa: PLC0415 - most calls have no tools

    # openai.pydantic_function_tool() keeps the model beside the schema.
    function = tool.get("function") if isinstance(tool, dict) else None
    return is_model(tool) or is_model(getattr(function, "model", None))


def read_answer(form: ResponseFormat[Any], whole: ChatCompletion, call: Call) -> ChatCompletion:
    """Parse the values of a whole answer."""
    try:
        return form.parse(whole)
    except StructuredOutputError as error:
        # parse() sees the answer only, and every error that leaves a call has its attempts.
        error.attempts = tuple(call.attempts)
        raise


def take_reasks(params: Any, form: ResponseFormat[Any] | None, *, stream: bool) -> int:
    """Take ``max_reasks`` out of a call's parameters.

    Raises:
        ConfigurationError: it is not a count, or there is no answer that could be requested again.
    """
    value = params.pop("max_reasks", None)
    if value is None or is_marker(value):
        return 0
    # A bool is an int: True would pass for one repetition.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"max_reasks must be an integer of at least 0, not {value!r:.40}")
    if value and form is None:
        raise ConfigurationError("max_reasks needs a type as response_format")
    if value and stream:
        raise ConfigurationError(
            "max_reasks is for whole answers: what was streamed cannot be taken back"
        )
    return value


def corrected(messages: Sequence[Any], error: StructuredOutputError) -> list[Any]:
    """Return the conversation with the answer of the wrong type, and what is wrong with it."""
    said = error.completion.choices[error.index].message if error.completion.choices else None
    # An answer without text (reason `empty`) holds nothing that could be corrected.
    answer = [said] if said is not None and said.content else []
    ask = f"{error.message[0].upper()}{error.message[1:]}. Answer again, with nothing but the JSON."
    return [*messages, *answer, {"role": "user", "content": ask}]


def take_resumption(params: Any, form: Any, *, stream: bool) -> Resumption | None:
    """Take ``resume`` and ``continue_on_length`` out of a call's parameters.

    Raises:
        ConfigurationError: a value cannot be used, or there is no stream.
    """
    from konko_async.resources._resume import resumption_of  # noqa: PLC0415 - for few calls only

    return resumption_of(params, form, stream=stream)


def listed_tools(params: Any) -> list[Any]:
    """Return a call's tools as a list, which is put back: they may be an iterator."""
    tools = params.get("tools")
    if tools is None or is_marker(tools) or isinstance(tools, (str, bytes, dict)):
        return []  # a mistake is named where tools are made ready to be sent
    params["tools"] = found = list(tools) if isinstance(tools, Iterable) else tools
    return found if isinstance(found, list) else []


def check_strict(tools: Sequence[Any]) -> None:
    """Check that the arguments of all tools can be read; see ``parse_answer.check_strict``."""
    from konko_async._structured.parse_answer import check_strict as check  # noqa: PLC0415 - most calls have no tools

    check(tools)


def parse_whole(
    whole: ChatCompletion, form: Any, tools: Sequence[Any], attempts: Any
) -> ParsedChatCompletion[Any]:
    """Return an answer with its values, and the arguments of its tool calls."""
    from konko_async._structured.parse_answer import parse_answer  # noqa: PLC0415 - for parse() only

    try:
        return parse_answer(whole, form, tools)
    except KonkoError as error:
        # It is made after the call has ended, and every error that leaves one has its attempts.
        error.attempts = tuple(attempts)
        raise


def refine(stream: ChatStream, form: Any, tools: Sequence[Any]) -> ChatStream:
    """Tell a stream how its whole answer is parsed by ``get_final_completion()``."""
    if form is not None or tools:
        stream._refine = lambda whole: parse_whole(whole, form, tools, stream.attempts)  # noqa: SLF001 - set here only
        _with_events(stream, form, tools)
    return stream


def wire_tools(params: dict[str, Any]) -> None:
    """Replace functions among the tools by what is sent for them."""
    from konko_async.tools._tool import wired_choice, wired_tools  # noqa: PLC0415 - most calls have no tools

    if params.get("tools") is not None:
        params["tools"] = wired_tools(params["tools"])
    params["tool_choice"] = wired_choice(params.get("tool_choice"))


def with_usage(params: dict[str, Any]) -> dict[str, Any]:
    """Request the token usage of streams, unless the caller set ``stream_options``."""
    if params.get("stream_options") is not None:
        return params
    return {**params, "stream_options": {"include_usage": True}}
