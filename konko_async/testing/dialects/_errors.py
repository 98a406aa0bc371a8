"""The shapes in which servers send an error inside of a 200 stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

__all__ = ["ERROR_SHAPES"]


def _event(value: Any) -> Callable[[str], bytes]:
    """Return a function that writes an error as an event's data; `%` stands for the reason."""

    def write(reason: str) -> bytes:
        # The reason is escaped as it is inside of a JSON string; its quotes are there already.
        text = json.dumps(value).replace("%", json.dumps(reason)[1:-1])
        return f"data: {text}\n\n".encode()

    return write


def _named(reason: str) -> bytes:
    return f"event: error\ndata: {json.dumps({'message': reason})}\n\n".encode()


def _named_text(reason: str) -> bytes:
    return f"event: error\ndata: {reason}\n\n".encode()


def _field(reason: str) -> bytes:
    return f"error: {json.dumps({'code': 500, 'message': reason})}\n\n".encode()


def _bare_line(reason: str) -> bytes:
    return json.dumps({"error": {"message": reason, "type": "server_error"}}).encode() + b"\n\n"


ERROR_SHAPES: Final[Mapping[str, Callable[[str], bytes]]] = MappingProxyType(
    {
        "error object": _event({"error": {"message": "%", "type": "server_error", "code": 500}}),
        "error text": _event({"error": "%"}),
        "error event": _named,
        "error event of text": _named_text,
        "object error": _event({"object": "error", "message": "%", "code": 500}),
        "field": _field,
        "bare line": _bare_line,
        "in the choice": _event(
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {},
                        "finish_reason": "error",
                        "error": {"code": 502, "message": "%"},
                    }
                ]
            }
        ),
        # Baidu's API.
        "error_code": _event({"error_code": 17, "error_msg": "%"}),
        # MiniMax; with status_code 0 the same field is in each good chunk (see the dialect
        # "minimax").
        "base_resp": _event({"base_resp": {"status_code": 1002, "status_msg": "%"}}),
        # Cloudflare's API.
        "errors": _event({"errors": [{"message": "%", "code": 10000}]}),
        "success": _event({"success": False, "message": "%"}),
        # FastAPI's validation errors, and below the text of its HTTPException.
        "detail": _event({"detail": [{"loc": ["body"], "msg": "%", "type": "value_error"}]}),
        "detail text": _event({"detail": "%"}),
    }
)
"""By name, what writes an error: given the server's reason, the bytes."""
