"""Tool calls in the histories that browsers send, in a form that servers accept."""

from __future__ import annotations

from typing import Any

from konko_async.tools import history_arguments

__all__ = ["acceptable_calls"]


def acceptable_calls(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose tool calls have JSON objects as their arguments.

    Many servers read the arguments of earlier calls again and answer 400 if they cannot: a chat in
    which a model once wrote broken ones would be refused forever.
    """
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_acceptable(call) for call in calls]}


def _acceptable(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    text = function.get("arguments")
    if isinstance(text, dict):  # some clients send the object itself
        return call
    arguments = history_arguments(text) if isinstance(text, str) else "{}"
    return {**call, "function": {**function, "arguments": arguments}}
