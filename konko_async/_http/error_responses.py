"""Maps what servers say when they fail, in all the shapes they say it, to exceptions; pure."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from konko_async._core.classification import named_status
from konko_async._http.retry_after import parse_retry_after
from konko_async.errors import APIStatusError, ResponseDecodeError, StreamServerError
from konko_async.wire._codec import decode_json

__all__ = [
    "FAILED_REASONS",
    "ErrorInfo",
    "find_error",
    "redirect_error",
    "status_error",
    "status_of_words",
    "stream_error",
    "words_of",
]

MESSAGE_LIMIT = 500
_NO_REASON = "the server sent no explanation"
_FIELD_LIMIT = 200  # of code, type and param
_WORDS_READ = 4096
# Not compiled here, as few programs need it: re keeps what it has compiled.
_TAGS = r"<[^<>]*>"
_CODE_FIELDS = ("error_code", "errcode", "err_code")
_WORD_FIELDS = ("detail", "message", "msg")
_REASON_FIELDS = (
    "message", "detail", "msg", "error_msg", "error_message", "error_description", "errmsg",
    "err_msg", "description", "reason", "title", "error",
)  # fmt: skip
# What fields hold that say in every answer that nothing failed.
_OK_CODES = frozenset({"", "0", "200", "false", "none", "null", "ok", "success", "[]", "{}"})

FAILED_REASONS = frozenset(
    {
        "abort",  # vLLM and SGLang, of a request that was given up
        "aborted",
        "cancelled",
        "error",  # OpenRouter
        "failed",
        "insufficient_system_resource",  # DeepSeek
        "internal_error",
        "network_error",  # Zhipu
        "server_error",
    }
)
"""A finish_reason that says that the answer failed, not that it ended."""

# https://platform.minimaxi.com/document/error-code and Cloudflare's list for Workers AI,
# https://developers.cloudflare.com/workers-ai/platform/errors/: numbers of their own, which come
# with HTTP 200.
_STATUS_BY_MINIMAX_CODE = {
    "1000": 500, "1001": 504, "1002": 429, "1004": 401, "1008": 402, "1013": 500, "1024": 500,
    "1026": 400, "1027": 400, "1033": 502, "1039": 429, "1041": 429, "1042": 400, "2013": 400,
    "2045": 429, "2049": 401, "2056": 429,
}  # fmt: skip
_STATUS_BY_CLOUDFLARE_CODE = {
    "3007": 408, "3036": 429, "3040": 429, "3041": 429, "5004": 400, "5005": 405, "5006": 400,
    "5007": 404, "5016": 403, "5018": 403, "10000": 401,
}  # fmt: skip
_STATUS_NUMBER = r"(?i:(?:error|http(?:/[\d.]+)?|status(?: code)?)\W*)*\b([45]\d\d)\b"
_PHRASES = {status.phrase.lower(): status.value for status in HTTPStatus if status >= 400}  # noqa: PLR2004 - where HTTP's errors begin
_CONTROLS = r"[\x00-\x09\x0b-\x1f\x7f-\x9f]+"  # all but the line feed


class ErrorInfo(msgspec.Struct, frozen=True):
    """What could be read of an error.

    Attributes:
        message: at most 500 characters.
        code: as text, whatever the server sent.
        type: the error's type.
        param: the parameter at fault.
        status: the HTTP status that it names by number or by type, or None.
    """

    message: str
    code: str | None = None
    type: str | None = None
    param: str | None = None
    status: int | None = None


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, (dict, list)) else str(value)


def _short(value: Any) -> str | None:
    text = _text(value)
    return None if text is None else text[:_FIELD_LIMIT]


def _shown(text: str) -> str:
    """Cut a text, and take out what could steer a terminal or forge a line of a log."""
    return re.sub(_CONTROLS, " ", text[: 2 * MESSAGE_LIMIT]).strip()[:MESSAGE_LIMIT]


def _json(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except RecursionError:
        return "its error is nested too deeply to be shown"


def find_error(payload: Any, *, plainly: bool = False) -> ErrorInfo | None:
    """Return the error in a decoded JSON payload, or None if it holds none.

    Known shapes: ``error`` as an object, text, list or number, at the top, in a choice or in its
    message; ``errors``; ``{"object": "error", …}``, ``{"type": "error", …}``; a finish_reason that
    stands for a failure; ``error_code``; ``base_resp`` (MiniMax); ``{"success": false}``;
    ``detail`` (FastAPI), ``message`` and ``msg`` where there is no answer beside them; and a list
    that begins with one of these (Gemini). Fields that are there in every answer and say that all
    is well are no errors.

    Args:
        payload: any JSON.
        plainly: whether only what calls itself an error counts. Events that are not chunks may have
            a ``message`` of their own.
    """
    if isinstance(payload, list) and payload:
        return find_error(payload[0], plainly=True)
    if not isinstance(payload, dict):
        return None
    inner = _named_error(payload)
    if inner is None and not plainly:
        inner = _unnamed_error(payload)
    if inner is None:
        return None
    if not isinstance(inner, dict):
        inner = {**payload, "message": _with_reason(inner, payload)}
    return _read(inner, payload)


def _named_error(payload: dict[str, Any]) -> Any:
    """Return what calls itself an error, or None."""
    choices = payload.get("choices")
    error = payload.get("error")
    if _is_error(error, answered=bool(choices or payload.get("data"))):
        return error
    for choice in choices if isinstance(choices, list) else ():
        found = _choice_error(choice) if isinstance(choice, dict) else None
        if found is not None:
            return found
    if payload.get("errors"):
        return _first_of(payload["errors"], payload)
    if payload.get("object") == "error" or payload.get("type") == "error":
        return payload
    base = payload.get("base_resp")
    if isinstance(base, dict) and not _is_ok(base.get("status_code")):
        code = base["status_code"]
        return {
            "message": base.get("status_msg"),
            "code": code,
            "status": _STATUS_BY_MINIMAX_CODE.get(str(code)),
        }
    return None if all(_is_ok(payload.get(name)) for name in _CODE_FIELDS) else payload


def _unnamed_error(payload: dict[str, Any]) -> Any:
    """Return what stands for an error in a payload that does not call it so, or None."""
    if payload.get("success") is False or payload.get("ok") is False:
        return payload
    if payload.get("choices") is None and payload.get("data") is None:
        answered = False
    else:
        answered = named_status(payload.get("code"), payload.get("status")) is None
    return None if answered else next(filter(None, map(payload.get, _WORD_FIELDS)), None)


def _is_error(error: Any, *, answered: bool) -> bool:
    """Whether the value of an ``error`` field says that something failed.

    Args:
        error: the value; some servers have the field in every answer.
        answered: whether an answer is beside it. If not, even an empty object is an error.
    """
    if error is None or error is False:
        return False
    if not answered:
        return True
    if isinstance(error, dict):
        return not all(_is_ok(value) for value in error.values())
    return bool(error)


def _is_ok(code: Any) -> bool:
    return code is None or str(code).lower() in _OK_CODES


def _choice_error(choice: dict[str, Any]) -> Any:
    """Return the error that is reported inside of a choice, or None."""
    for place in (choice, choice.get("delta"), choice.get("message")):
        error = place.get("error") if isinstance(place, dict) else None
        if _is_error(error, answered=True):
            return error
    reason = choice.get("finish_reason")
    kind = reason.get("type") if isinstance(reason, dict) else reason  # SGLang's are objects
    if not isinstance(kind, str) or kind.lower() not in FAILED_REASONS:
        return None
    if isinstance(reason, dict):
        return reason
    return {"message": f"the answer ended with finish_reason {kind!r}", "type": kind}


def _first_of(errors: Any, payload: dict[str, Any]) -> Any:
    """Return the first of several errors, with the messages of all."""
    first = errors[0] if isinstance(errors, list) else errors
    if not isinstance(first, dict):
        return errors if isinstance(errors, str) else _json(errors)
    every = errors if isinstance(errors, list) else [errors]
    found = {**first, "message": "; ".join(map(_reason, filter(None, every)))}
    if "success" in payload:
        found.setdefault("status", _STATUS_BY_CLOUDFLARE_CODE.get(str(first.get("code"))))
    return found


def _with_reason(inner: Any, payload: dict[str, Any]) -> str:
    text = inner if isinstance(inner, str) else _json(inner)
    reason = payload.get("message")
    if isinstance(reason, str) and reason and reason != text:
        return f"{text}: {reason}" if text else reason  # {"error": "Bad Request", "message": …}
    return text


def _reason(error: Any) -> str:
    """Return what an error says in words; where there are none, its JSON."""
    if not isinstance(error, dict):
        return _text(error) or _json(error)
    for name in _REASON_FIELDS:
        value = error.get(name)
        if isinstance(value, dict):  # a message within the message
            value = next((value[inner] for inner in _REASON_FIELDS if value.get(inner)), None)
        text = _text(value)
        if text:
            return text
    return _json(error)


def _read(inner: dict[str, Any], outer: dict[str, Any]) -> ErrorInfo:
    message = _reason(inner)
    details = inner.get("metadata")
    if isinstance(details, dict) and isinstance(details.get("raw"), str):
        message = f"{message}: {details['raw']}"  # what the provider behind OpenRouter said
    code = next(filter(None, map(inner.get, ("code", *_CODE_FIELDS))), inner.get("code"))
    kind = inner.get("type")
    return ErrorInfo(
        _shown(message),
        _short(code),
        _short(kind),
        _short(inner.get("param")),
        named_status(
            inner.get("status"),
            inner.get("status_code"),
            code,
            kind,
            outer.get("status"),
            outer.get("status_code"),
        ),
    )


def words_of(body: bytes) -> str:
    """Return what a body that is not JSON says, in a line; of pages, the text between the tags."""
    text = _decoded(body[:_WORDS_READ])
    if text.lstrip().startswith("<"):
        text = re.sub(_TAGS, " ", text)
    return _shown(" ".join(text.split()))


def status_of_words(text: str) -> int | None:
    """Return the error status that words begin with, by number or by HTTP's own phrase, or None."""
    number = re.match(_STATUS_NUMBER, text)
    if number is not None:
        return int(number[1])
    start = text.lower()
    return next((status for phrase, status in _PHRASES.items() if start.startswith(phrase)), None)


def _plain(body: bytes) -> str:
    return _shown(" ".join(_decoded(body).split()))


def _decoded(body: bytes) -> str:
    """Return a body as text: UTF-8, or UTF-16 and UTF-32 as their zeros or marks tell."""
    return body.decode(json.detect_encoding(body), "replace")


def status_error(
    status: int, headers: Mapping[str, str], body: bytes, request_id: str | None
) -> APIStatusError:
    """Return the typed error of an answer with an error status.

    Args:
        status: its HTTP status.
        headers: case-insensitive.
        body: what was read of it, at most 64 KiB.
        request_id: its ``x-request-id``.
    """
    payload: Any
    try:
        payload = decode_json(body)
    except ResponseDecodeError:
        payload = _decoded(body)
    info = find_error(payload) or ErrorInfo(_plain(body) or _NO_REASON)
    error = APIStatusError.for_status(
        status,
        f"HTTP {status}: {info.message}"[:MESSAGE_LIMIT],
        headers={name.lower(): value for name, value in headers.items()},
        body=payload,
        code=info.code,
        type=info.type,
        param=info.param,
        retry_after=parse_retry_after(headers, time.time()),
        request_id=request_id,
    )
    error.content = body
    return error


def redirect_error(
    status: int, headers: Mapping[str, str], request_id: str | None
) -> APIStatusError:
    """Return the error for a redirect, which is never followed: it could carry the key away."""
    place = headers.get("location", "")[:200]
    return APIStatusError.for_status(
        status,
        f"HTTP {status}: the server redirects to {place!r}; redirects are never followed, so that "
        "no key reaches another server. If that address is right, set it as base_url",
        headers={name.lower(): value for name, value in headers.items()},
        request_id=request_id,
    )


def stream_error(
    payload: Any, headers: Mapping[str, str], request_id: str | None, *, delivered: bool
) -> APIStatusError | StreamServerError:
    """Return the error that a 200 stream (or a 200 answer) carries inside.

    Args:
        payload: the event's data, decoded, or its text.
        headers: the answer's.
        request_id: the answer's.
        delivered: whether deltas have reached the caller. If not, an error that names a status is
            what it would have been as a status.
    """
    info = find_error(payload)
    if info is None:
        text = payload if isinstance(payload, str) else _reason(payload)
        info = ErrorInfo(_shown(text) or _NO_REASON, status=status_of_words(text))
    if info.status is not None and not delivered:
        return APIStatusError.for_status(
            info.status,
            f"the server sent an error inside a 200 answer: {info.message}"[:MESSAGE_LIMIT],
            headers={name.lower(): value for name, value in headers.items()},
            body=payload,
            code=info.code,
            type=info.type,
            param=info.param,
            retry_after=parse_retry_after(headers, time.time()),
            request_id=request_id,
        )
    return StreamServerError(
        f"the server sent an error inside the stream: {info.message}"[:MESSAGE_LIMIT],
        code=info.code,
        type=info.type,
        body=payload,
        request_id=request_id,
    )
