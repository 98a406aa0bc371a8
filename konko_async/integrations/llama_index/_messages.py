"""LlamaIndex' messages as the API's, and the API's answers as LlamaIndex'."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from konko_async.errors import ConfigurationError
from konko_async.wire import ChatCompletion, ToolCall, Usage

__all__ = ["as_request", "as_response", "message_of", "tokens_of"]

# Tool calls of a message that was made by hand, or by LlamaIndex' OpenAI class.
_PASSED = ("tool_calls", "tool_call_id", "name", "refusal")


def as_request(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return messages as the API takes them.

    Raises:
        ConfigurationError: a message has a part that the API has no form for.
    """
    return [_sent(message) for message in messages]


def _sent(message: ChatMessage) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in message.blocks:
        if isinstance(block, ToolCallBlock):
            calls.append(_call(block))
        elif not isinstance(block, ThinkingBlock):  # its own model's alone
            parts.append(_part(block))
    texts = [part["text"] for part in parts if part["type"] == "text"]
    # Servers that know no parts know plain text.
    content: Any = "\n".join(texts) if len(texts) == len(parts) else parts
    found: dict[str, Any] = {
        "role": message.role.value,
        "content": content or (None if calls else ""),
    }
    for name in _PASSED:
        value = message.additional_kwargs.get(name)
        if value is not None:
            found[name] = value
    if calls:
        found["tool_calls"] = calls
    return found


def _call(block: ToolCallBlock) -> dict[str, Any]:
    given = block.tool_kwargs
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    function = {"name": block.tool_name, "arguments": arguments}
    return {"id": block.tool_call_id, "type": "function", "function": function}


def _part(block: Any) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    if isinstance(block, ImageBlock):
        if block.url:
            url = str(block.url)
        else:
            data = base64.b64encode(block.resolve_image().read()).decode()
            url = f"data:{block.image_mimetype or 'image/png'};base64,{data}"
        image = {"url": url} | ({"detail": block.detail} if block.detail else {})
        return {"type": "image_url", "image_url": image}
    if isinstance(block, AudioBlock):
        data = base64.b64encode(block.resolve_audio().read()).decode()
        return {"type": "input_audio", "input_audio": {"data": data, "format": block.format}}
    raise ConfigurationError(f"a message has a {type(block).__name__}, which the API cannot take")


def message_of(text: str | None, calls: Iterable[ToolCall] | None, thoughts: str | None) -> Any:
    """Return the assistant's message."""
    blocks: list[Any] = []
    if thoughts:
        blocks.append(ThinkingBlock(content=thoughts))
    if text:
        blocks.append(TextBlock(text=text))
    blocks += (
        ToolCallBlock(
            tool_call_id=call.id,
            tool_name=call.function.name or "",
            tool_kwargs=call.function.arguments or "{}",
        )
        for call in calls or ()
    )
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)


def as_response(completion: ChatCompletion, delta: str | None = None) -> ChatResponse:
    """Return an answer, or what there is of it."""
    message = ChatMessage(role=MessageRole.ASSISTANT, blocks=[])
    if completion.choices:
        said = completion.choices[0].message
        thoughts = said.reasoning_content or said.reasoning
        message = message_of(said.content, said.tool_calls, thoughts)
    return ChatResponse(
        message=message,
        raw=completion.to_dict(),
        delta=delta,
        additional_kwargs=tokens_of(completion.usage),
    )


def tokens_of(usage: Usage | None) -> dict[str, Any]:
    """Return the token counts by the names that LlamaIndex' counters look for."""
    if usage is None:
        return {}
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {name: getattr(usage, name) for name in names}
