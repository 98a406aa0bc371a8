"""What a line of an output says, as the page shows it. No I/O."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from konko_async.batch import RowLatencies

__all__ = ["Facts", "custom_id", "details", "facts", "needle", "summary"]

_SHOWN: Final = 240  # characters of an answer in the list
_ID: Final = re.compile(r"batch_req_[0-9a-f]{32}_(\d{1,10})")
_CUSTOM_ID: Final = re.compile(rb'"custom_id":("(?:[^"\\]|\\.)*"|null)')
_decode: Final = msgspec.json.Decoder().decode


class Facts(msgspec.Struct, gc=False):
    """A line, read."""

    row: int | None
    custom_id: str | None
    ok: bool
    text: str
    error: str | None
    code: str | None
    model: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    latency: float | None
    cached: bool


def needle(text: str) -> bytes:
    """Return a search as it stands in a line of JSON."""
    return msgspec.json.encode(text)[1:-1]


def custom_id(line: bytes) -> bytes:
    """Return the JSON of the id that a line is for."""
    match = _CUSTOM_ID.search(line)
    return b"" if match is None else match[1]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _entry(line: bytes) -> dict[str, Any]:
    try:
        return _dict(_decode(line))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {"error": {"code": "unreadable", "message": line[:2000].decode("utf-8", "replace")}}


def facts(line: bytes) -> Facts:
    """Read a line; whatever it holds."""
    entry = _entry(line)
    response, problem = _dict(entry.get("response")), entry.get("error")
    body = _dict(response.get("body"))
    usage = _dict(body.get("usage"))
    choices = body.get("choices")
    choice = _dict(choices[0]) if isinstance(choices, list) and choices else {}
    match = _ID.fullmatch(str(entry.get("id")))
    error = _dict(problem)
    return Facts(
        row=None if match is None else int(match[1]),
        custom_id=_text(entry.get("custom_id")) or None,
        ok=problem is None,
        text=_answer(body, choice),
        error=None if problem is None else _text(error.get("message") or problem),
        code=None if problem is None else _text(error.get("code") or "error"),
        model=_text(body.get("model")) or None,
        finish_reason=_text(choice.get("finish_reason")) or None,
        prompt_tokens=_number(usage.get("prompt_tokens")),
        completion_tokens=_number(usage.get("completion_tokens")),
        latency=response.get("latency") if isinstance(response.get("latency"), float) else None,
        cached=response.get("from_cache") is True,
    )


def _answer(body: dict[str, Any], choice: dict[str, Any]) -> str:
    message = _dict(choice.get("message"))
    content = message.get("content", choice.get("text"))
    if content is None and message.get("tool_calls"):
        content = message["tool_calls"]
    if content is None and isinstance(body.get("data"), list):
        return f"{len(body['data'])} embeddings"
    return _text(content)


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return msgspec.json.encode(value).decode()


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _latency(found: Facts, latencies: RowLatencies) -> float | None:
    """Return the seconds that a row took: as its line has it, else as the journal has it."""
    if found.latency is not None or found.row is None or not found.ok or found.cached:
        return found.latency
    return latencies.of(found.row)


def summary(place: int, line: bytes) -> dict[str, Any]:
    """Return what the list shows of a line."""
    found = facts(line)
    text = found.text if found.ok else f"{found.code}: {found.error}"
    return {
        "place": place,
        "id": found.custom_id,
        "ok": found.ok,
        "text": " ".join(text[:_SHOWN].split()),
        "tokens": found.completion_tokens,
        "cut": found.finish_reason == "length",
        "cached": found.cached,
    }


def details(
    place: int, line: bytes, record: bytes | None, latencies: RowLatencies | None = None
) -> dict[str, Any]:
    """Return all of a line, with the prompt out of the input's record."""
    read = facts(line)
    if latencies is not None:
        read.latency = _latency(read, latencies)
    found = msgspec.to_builtins(read)
    raw = msgspec.json.format(line, indent=2) if _is_json(line) else line
    return {
        **found,
        "place": place,
        "prompt": None if record is None else _prompt(record),
        "raw": raw.decode("utf-8", "replace"),
    }


def _is_json(line: bytes) -> bool:
    try:
        _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _prompt(record: bytes) -> list[dict[str, str]]:
    """Return what a record asks: its messages, or all of it."""
    try:
        value = _decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [{"role": "row", "content": record.decode("utf-8", "replace")}]
    fields = _dict(value)
    body = _dict(fields.get("body")) or fields
    messages = body.get("messages")
    if isinstance(messages, list):
        return [
            {"role": _text(_dict(m).get("role")), "content": _text(_dict(m).get("content"))}
            for m in messages
        ]
    for name in ("prompt", "input"):
        if body.get(name):
            return [{"role": name, "content": _text(body[name])}]
    if fields:
        return [{"role": name, "content": _text(content)} for name, content in fields.items()]
    return [{"role": "row", "content": _text(value)}]
