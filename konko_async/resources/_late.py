"""Formats of answers and tools: loaded when they are first needed, as most calls do without."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from konko_async._pipeline import Call
from konko_async._stream import ChatStream
from konko_async.errors import StructuredOutputError
from konko_async.wire import ChatCompletion

if TYPE_CHECKING:
    from konko_async._structured import ResponseFormat

__all__ = ["form_of", "make_stream", "read_answer", "wire_tools", "with_usage"]


def form_of(response_format: Any) -> ResponseFormat[Any] | None:
    """Return the format that a ``response_format=`` asks for; None for None and dicts."""
    if response_format is None or type(response_format) is dict:
        return None
    from konko_async._structured import format_of  # noqa: PLC0415 - as all here

    return format_of(response_format)


def make_stream(opened: Callable[[], Any], form: ResponseFormat[Any] | None) -> ChatStream:
    """Return the stream of an answer, of its format if it has one."""
    if form is None:
        return ChatStream(opened)
    from konko_async._parsed_stream import ParsedChatStream  # noqa: PLC0415 - as all here

    return ParsedChatStream(opened, form)


def read_answer(form: ResponseFormat[Any], whole: ChatCompletion, call: Call) -> ChatCompletion:
    """Return a whole answer with its values."""
    try:
        return form.parse(whole)
    except StructuredOutputError as error:
        error.attempts = tuple(call.attempts)
        raise


def wire_tools(params: dict[str, Any]) -> None:
    """Put what is sent for functions in their place."""
    from konko_async.tools._tool import wired_choice, wired_tools  # noqa: PLC0415 - as all here

    if params.get("tools") is not None:
        params["tools"] = wired_tools(params["tools"])
    params["tool_choice"] = wired_choice(params.get("tool_choice"))


def with_usage(params: dict[str, Any]) -> dict[str, Any]:
    """Ask for the usage of streams too, unless the user says something of it."""
    if params.get("stream_options") is not None:
        return params
    return {**params, "stream_options": {"include_usage": True}}
