"""Turns what ``useChat`` posts into a call of the API.

Source: ``HttpChatTransport``, ``UIMessage`` and ``convertToModelMessages`` of the npm package
``ai`` (versions 5 to 7).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from konko_async.relay._errors import RefusalError
from konko_async.relay._formats.base import ChatCall
from konko_async.tools import history_arguments

if TYPE_CHECKING:
    from konko_async.relay._policy import RelayOptions

__all__ = ["FilePart", "converted", "file_part", "model_messages", "parse_ui_chat", "refusal"]

_OWN: Final = frozenset({"id", "messages", "trigger", "messageId", "model", "stream"})
_NOT_PARAMS: Final = frozenset({"body", "headers", "metadata"})
_SHOWN: Final = 1000  # characters of what the model wrote
_encode = msgspec.json.encode


class _UIMessage(msgspec.Struct):
    role: Literal["system", "user", "assistant"]
    parts: list[dict[str, Any]]
    id: str = ""


class _ChatBody(msgspec.Struct, rename="camel"):
    messages: list[_UIMessage]
    id: str
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: str | None = None
    model: str = ""


class _TextPart(msgspec.Struct):
    text: str


class FilePart(msgspec.Struct, rename="camel"):
    """A file as browsers send it."""

    media_type: str
    url: str
    filename: str | None = None


class _UITool(msgspec.Struct, rename="camel"):
    tool_call_id: str
    state: str
    input: Any = None
    raw_input: Any = None
    output: Any = None
    error_text: str = ""
    tool_name: str = ""
    provider_executed: bool | None = None
    preliminary: bool | None = None
    approval: dict[str, Any] | None = None


def parse_ui_chat(body: Any, options: RelayOptions) -> ChatCall:
    """Read the body of ``POST /api/chat``.

    Fields that ``useChat`` does not send itself (those of its ``body`` option, such as ``model`` or
    ``temperature``) are taken as parameters of the call, which are checked afterwards.

    Args:
        body: the decoded JSON.
        options: of the relay; its default model is used where the body names none.

    Raises:
        RefusalError: 400; names the field at fault.
    """
    if not isinstance(body, dict):
        raise refusal("the body must be a JSON object", None)
    messages = body.get("messages")
    if isinstance(messages, list):
        messages = [_without_nulls(message, _UIMessage) for message in messages]
    given = {**body, "messages": messages} if "messages" in body else body
    read: _ChatBody = converted(given, _ChatBody, "")
    if not read.id:
        raise refusal("id must not be empty: it is the chat's", "id")
    if not read.messages:
        raise refusal("messages must hold at least one message", "messages")
    last = read.messages[-1]
    return ChatCall(
        model=read.model or options.default_model,
        messages=model_messages(read.messages),
        params={n: v for n, v in body.items() if n not in _OWN and n not in _NOT_PARAMS},
        key=read.id,
        # Tool results continue the message whose calls they answer; else the answer is a new one.
        message_id=(last.id or None) if last.role == "assistant" else None,
    )


def model_messages(messages: list[Any]) -> list[dict[str, Any]]:
    """Return UI messages as the API's.

    Texts of a message are joined. Images (``data:`` or ``https:`` URLs) of a user become
    ``image_url`` parts, text files given as ``data:`` URLs become texts, other files are refused.
    Tool calls with a result become ``tool_calls`` and a ``tool`` message each; those without (left
    when the user stopped the answer), reasoning, sources, step marks, tools that the provider ran
    and ``data-*`` parts are left out.

    Raises:
        RefusalError: 400; names the field at fault.
    """
    found: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if message.role == "assistant":
            found += _assistant(message.parts, where)
        elif message.role == "user":
            found.append({"role": "user", "content": _user(message.parts, where)})
        else:
            found.append({"role": "system", "content": _system(message.parts, where)})
    return found


# -- users and systems ---------------------------------------------------------------------------


def _system(parts: list[dict[str, Any]], where: str) -> str:
    return "".join(
        converted(part, _TextPart, f"{where}.parts[{number}]").text
        for number, part in enumerate(parts)
        if _kind(part, f"{where}.parts[{number}]") == "text"
    )


def _user(parts: list[dict[str, Any]], where: str) -> str | list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        place = f"{where}.parts[{number}]"
        kind = _kind(part, place)
        if kind == "text":
            content.append({"type": "text", "text": converted(part, _TextPart, place).text})
        elif kind == "file":
            content.append(file_part(converted(part, FilePart, place), place))
        elif not kind.startswith("data-"):  # those are the application's own
            raise refusal(f"a user's message cannot have a part of type {kind!r:.60}", place)
    if not content:
        raise refusal("a user's message needs a text or a file", where)
    if all(part["type"] == "text" for part in content):
        return "\n".join(part["text"] for part in content)
    return content


def file_part(file: FilePart, place: str) -> dict[str, Any]:
    """Return a file as a part of the API's message.

    Raises:
        RefusalError: 400; the model cannot be given it.
    """
    kind = file.media_type.partition(";")[0].strip().lower()
    scheme = file.url.partition(":")[0].lower()
    if scheme not in {"data", "https"}:
        raise refusal("files must be data: or https: URLs", f"{place}.url")
    if kind.startswith("image/"):
        # media_type is not sent on, so the URL itself has to say what it holds.
        if scheme == "data" and not file.url[5:].lower().startswith("image/"):
            raise refusal("the data: URL of an image must say that it is one", f"{place}.url")
        return {"type": "image_url", "image_url": {"url": file.url}}
    if scheme == "data" and (kind.startswith("text/") or kind == "application/json"):
        name = f"{file.filename}:\n" if file.filename else ""
        return {"type": "text", "text": name + _text_of(file.url, f"{place}.url")}
    raise refusal(
        f"files of type {kind!r:.60} cannot be given to the model; images and texts can", place
    )


def _text_of(url: str, place: str) -> str:
    """Return the text of a ``data:`` URL (RFC 2397)."""
    head, comma, data = url.partition(",")
    if not comma:
        raise refusal("not a data: URL", place)
    raw = unquote_to_bytes(data)
    try:
        if head.lower().endswith(";base64"):
            raw = base64.b64decode(raw, validate=True)
        # Some editors put a byte order mark at the beginning of a file.
        return raw.decode("utf-8-sig")
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise refusal("the file's text is not UTF-8", place)


# -- assistants ----------------------------------------------------------------------------------


def _assistant(parts: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """Return the messages of an answer: two or more where tools were called on the way."""
    found: list[dict[str, Any]] = []
    texts: list[str] = []
    tools: list[tuple[str, _UITool]] = []
    for number, part in enumerate(parts):
        place = f"{where}.parts[{number}]"
        kind = _kind(part, place)
        # Each step is a message of its own, as the results of its calls have to follow them.
        if kind == "step-start":
            found += _step(texts, tools)
            texts, tools = [], []
        elif kind == "text":
            texts.append(converted(part, _TextPart, place).text)
        elif kind == "dynamic-tool" or kind.startswith("tool-"):
            tool = converted(part, _UITool, place)
            name = tool.tool_name if kind == "dynamic-tool" else kind.removeprefix("tool-")
            if not name or not tool.tool_call_id:
                raise refusal("a tool part needs a name and a toolCallId", place)
            if _is_over(tool):
                tools.append((name, tool))
        # What else there is (reasoning, sources, files, data) is shown, but no model's business.
    return found + _step(texts, tools)


def _is_over(tool: _UITool) -> bool:
    if tool.provider_executed or tool.preliminary:
        return False
    # Servers refuse a history in which a call has no result; a stopped answer leaves such calls.
    return tool.state in {"output-available", "output-error", "output-denied"}


def _step(texts: list[str], tools: list[tuple[str, _UITool]]) -> list[dict[str, Any]]:
    text = "".join(texts)
    if not tools:
        return [{"role": "assistant", "content": text}] if text else []
    message = {
        "role": "assistant",
        "content": text or None,
        "tool_calls": [
            {
                "id": tool.tool_call_id,
                "type": "function",
                "function": {"name": name, "arguments": _arguments(tool)},
            }
            for name, tool in tools
        ],
    }
    results = [
        {"role": "tool", "tool_call_id": tool.tool_call_id, "content": _result(tool)}
        for _, tool in tools
    ]
    return [message, *results]


def _given(tool: _UITool) -> Any:
    return tool.raw_input if tool.input is None else tool.input


def _arguments(tool: _UITool) -> str:
    given = _given(tool)
    # A text is arguments that were no JSON, as the model wrote them.
    return history_arguments(given if isinstance(given, str) else _encode(given).decode())


def _result(tool: _UITool) -> str:
    if tool.state == "output-error":
        told = tool.error_text or "The tool failed."
        given = _given(tool)
        if given is None or isinstance(given, dict):
            return told
        wrote = given if isinstance(given, str) else _encode(given).decode()
        if wrote.strip() in {"", "null"} or history_arguments(wrote) == wrote:
            return told
        return f"{told} You wrote: {wrote[:_SHOWN]}"  # the model sees {} as its arguments
    if tool.state == "output-denied":
        reason = (tool.approval or {}).get("reason")
        return reason if isinstance(reason, str) and reason else "The user denied this tool call."
    return tool.output if isinstance(tool.output, str) else _encode(tool.output).decode()


# -- reading -------------------------------------------------------------------------------------


def _kind(part: Mapping[str, Any], place: str) -> str:
    kind = part.get("type")
    if not isinstance(kind, str) or not kind:
        raise refusal("a part needs a type", f"{place}.type")
    return kind


def converted(value: Any, kind: Any, where: str) -> Any:
    """Return a JSON value as a struct.

    Raises:
        RefusalError: 400; names the field at fault.
    """
    try:
        return msgspec.convert(_without_nulls(value, kind), kind)
    except (msgspec.ValidationError, RecursionError) as error:
        problem = str(error)
    # msgspec ends with "- at `$.messages[0].role`".
    what, _, place = problem.partition(" - at `$")
    param = f"{where}{place.rstrip('`')}".lstrip(".") or None
    at = f"{param}: " if param else ""
    raise refusal(f"{at}{what[:200]}", param)


def _without_nulls(value: Any, kind: Any) -> Any:
    """Leave out fields that are null and may be left out: some clients write all that there are."""
    if not isinstance(value, dict):
        return value
    needed = {field.encode_name for field in msgspec.structs.fields(kind) if field.required}
    return {name: item for name, item in value.items() if item is not None or name in needed}


def refusal(message: str, param: str | None) -> RefusalError:
    """Return the error of a request that cannot be understood."""
    at = f"{param}: " if param and not message.startswith(param) else ""
    return RefusalError(400, at + message, param=param)
