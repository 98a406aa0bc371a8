"""Prompts and answers as the GenAI semantic conventions write them; used only on request.

See "Recording content on attributes" of OpenTelemetry's semantic conventions for generative AI.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec

__all__ = ["content_of"]


def content_of(params: Any, result: Any) -> dict[str, Any]:
    """Return the attributes for what was asked and answered, as lists of messages.

    Args:
        params: the request's body, as a struct or dict.
        result: the answer as far as it has come, or None.
    """
    asked = _plain(params)
    found: dict[str, Any] = {}
    messages = asked.get("messages")
    if messages is None and asked.get("prompt") is not None:
        messages = [{"role": "user", "content": asked["prompt"]}]
    if messages:
        found["gen_ai.input.messages"] = [_message(message) for message in messages]
    tools = [tool.get("function") for tool in asked.get("tools") or [] if isinstance(tool, dict)]
    if any(tools):
        found["gen_ai.tool.definitions"] = [
            {"type": "function", **_only(tool, "name", "description", "parameters")}
            for tool in tools
            if tool
        ]
    choices = _plain(result).get("choices")
    if choices:
        found["gen_ai.output.messages"] = [_answer(choice) for choice in choices]
    return found


def _plain(value: Any) -> dict[str, Any]:
    """Return a struct, or a dict with structs in it, as plain dicts."""
    try:
        plain = msgspec.to_builtins(value)
    except (TypeError, msgspec.MsgspecError):
        return {}  # an object of somebody's own; better no content than a broken call
    return plain if isinstance(plain, dict) else {}


def _only(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value[name] for name in names if value.get(name) is not None}


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        return {"role": "user", "parts": []}
    role, content = str(message.get("role") or ""), message.get("content")
    if role == "tool":
        called = {"type": "tool_call_response", "id": message.get("tool_call_id")}
        return {"role": role, "parts": [{**called, "response": content}]}
    return {"role": role, "parts": [*_calls(message), *_parts(content)]}


def _answer(choice: dict[str, Any]) -> dict[str, Any]:
    message = choice.get("message")
    if message is None:  # of a text completion
        message = {"role": "assistant", "content": choice.get("text")}
    parts = [*_calls(message), *_parts(message.get("content")), *_parts(message.get("refusal"))]
    reason = choice.get("finish_reason")
    if reason in {"tool_calls", "function_call"}:
        reason = "tool_call"  # the conventions' own word
    role = message.get("role") or "assistant"
    return {"role": role, "parts": parts, "finish_reason": reason or "error"}


def _calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    calls = []
    for call in message.get("tool_calls") or []:
        function = call.get("function") or {}
        arguments: Any = function.get("arguments")
        with suppress(ValueError):  # what a model writes need not be JSON
            arguments = json.loads(arguments) if arguments else None
        calls.append(
            {
                "type": "tool_call", "id": call.get("id"), "name": function.get("name") or "",
                "arguments": arguments,
            }
        )  # fmt: skip
    return calls


def _parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "content": content}] if content else []
    if not isinstance(content, list):
        return []
    parts: list[dict[str, Any]] = []
    for item in content:
        if isinstance(item, str):
            parts.append({"type": "text", "content": item})
        elif isinstance(item, dict) and isinstance(item.get("text"), str):
            parts.append({"type": "text", "content": item["text"]})
        elif isinstance(item, dict) and item.get("type") == "image_url":
            parts.append(_image(item.get("image_url")))
    return parts


def _image(given: Any) -> dict[str, Any]:
    url = str((given.get("url") if isinstance(given, dict) else given) or "")
    if not url.startswith("data:"):
        return {"type": "uri", "modality": "image", "uri": url}
    head, _, data = url[len("data:") :].partition(",")
    return {"type": "blob", "modality": "image", "mime_type": head.split(";")[0], "content": data}
