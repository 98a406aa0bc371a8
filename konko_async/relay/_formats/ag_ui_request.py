"""Turns an AG-UI client's ``RunAgentInput`` into a call of the API.

Source: the schema of AG-UI 1.0, as npm's ``@ag-ui/core`` and PyPI's ``ag-ui-protocol`` have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from konko_async.relay._formats.base import ChatCall
from konko_async.relay._formats.history import acceptable_calls
from konko_async.relay._formats.ui_request import FilePart, converted, file_part, refusal

if TYPE_CHECKING:
    from konko_async.relay._policy import RelayOptions

__all__ = ["parse_ag_ui"]

_TEXT_ROLES: Final = frozenset({"system", "developer"})
# What an application shows in between, and what another model thought: no business of the model's.
_LEFT_OUT: Final = frozenset({"activity", "reasoning"})


class _Message(msgspec.Struct, rename="camel"):
    role: str
    content: Any = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    error: str | None = None


class _Tool(msgspec.Struct):
    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None


class _Context(msgspec.Struct):
    description: str
    value: str


class _Source(msgspec.Struct, rename="camel"):
    type: str
    value: str
    mime_type: str = ""


class _Input(msgspec.Struct, rename="camel"):
    thread_id: str
    run_id: str
    messages: list[dict[str, Any]]
    tools: list[_Tool] = []
    context: list[_Context] = []
    forwarded_props: Any = None
    resume: list[Any] = []


def parse_ag_ui(body: Any, options: RelayOptions) -> ChatCall:
    """Read the body of a run.

    ``forwardedProps`` are parameters of the call, such as ``model`` or ``temperature``, which are
    checked afterwards; of another model's, or an application's own, ``state`` nothing is sent.
    ``context`` becomes a system message, and ``tools`` are those that the browser runs itself.

    Args:
        body: the decoded JSON.
        options: of the relay; its default model is used where the body names none.

    Raises:
        RefusalError: 400; names the field at fault.
    """
    if not isinstance(body, dict):
        raise refusal("the body must be a JSON object", None)
    read: _Input = converted(body, _Input, "")
    for name, value in (("threadId", read.thread_id), ("runId", read.run_id)):
        if not value:
            raise refusal(f"{name} must not be empty", name)
    if read.resume:
        raise refusal("there is no interrupted run that could be resumed", "resume")
    if not read.messages:
        raise refusal("messages must hold at least one message", "messages")
    params = _params(read.forwarded_props)
    if read.tools:
        params["tools"] = [_tool(tool) for tool in read.tools]
    model = params.pop("model", None)
    return ChatCall(
        model=model if isinstance(model, str) and model else options.default_model,
        messages=[*_context(read.context), *_messages(read.messages)],
        params=params,
        key=read.thread_id,
        message_id=read.run_id,
    )


def _params(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise refusal("must be an object of the call's parameters", "forwardedProps")
    # Whether it is streamed, and what of, is not the browser's to say here.
    return {name: value for name, value in given.items() if name not in {"messages", "stream"}}


def _tool(tool: _Tool) -> dict[str, Any]:
    parameters = tool.parameters or {"type": "object", "properties": {}}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _context(context: list[_Context]) -> list[dict[str, Any]]:
    if not context:
        return []
    lines = [f"{each.description}: {each.value}" for each in context]
    return [{"role": "system", "content": "\n".join(["Context:", *lines])}]


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    answered = {message.get("toolCallId") for message in messages if message.get("role") == "tool"}
    for number, given in enumerate(messages):
        where = f"messages[{number}]"
        message: _Message = converted(given, _Message, where)
        if message.role == "user":
            found.append({"role": "user", "content": _content(message.content, where)})
        elif message.role == "assistant":
            found += _assistant(message, answered, where)
        elif message.role == "tool":
            found.append(_result(message, where))
        elif message.role in _TEXT_ROLES:
            found.append({"role": message.role, "content": _text(message.content, where)})
        elif message.role not in _LEFT_OUT:
            raise refusal(f"there is no role {message.role!r:.40}", f"{where}.role")
    return found


def _text(content: Any, where: str) -> str:
    if not isinstance(content, str):
        raise refusal("must be a text", f"{where}.content")
    return content


def _assistant(message: _Message, answered: set[Any], where: str) -> list[dict[str, Any]]:
    # Servers refuse a history in which a call has no result; a stopped run leaves such calls.
    calls = [call for call in message.tool_calls or () if call.get("id") in answered]
    content = message.content or None
    if content is not None:
        content = _text(content, where)
    if not calls:
        return [{"role": "assistant", "content": content}] if content else []
    said = {"role": "assistant", "content": content, "tool_calls": [_call(call) for call in calls]}
    return [acceptable_calls(said)]


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: call.get(name) for name in ("id", "function")}
    return {"type": "function", **kept}


def _result(message: _Message, where: str) -> dict[str, Any]:
    if not message.tool_call_id:
        raise refusal("a tool's message needs the id of its call", f"{where}.toolCallId")
    content = message.error or _content(message.content, where)
    if not isinstance(content, str):
        raise refusal("a tool's result must be text", f"{where}.content")
    return {"role": "tool", "tool_call_id": message.tool_call_id, "content": content}


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """Return a text, or parts as the API takes them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise refusal("must be a text or a list of parts", f"{where}.content")
    parts = [_part(part, f"{where}.content[{n}]") for n, part in enumerate(content)]
    if not parts:
        raise refusal("a message needs a text or a file", f"{where}.content")
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Any, place: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind not in {"image", "document"}:
        raise refusal(f"a message cannot have a part of type {kind!r:.60} here", place)
    source: _Source = converted(part.get("source"), _Source, f"{place}.source")
    mime = source.mime_type or ("image/*" if kind == "image" else "")
    if source.type == "data":
        url = f"data:{mime};base64,{source.value}"
    elif source.type == "url":
        url = source.value
    else:
        raise refusal("files must be data or URLs", f"{place}.source.type")
    return file_part(FilePart(media_type=mime, url=url), place)
