"""Reads the usage and the flaws of an answer, as a struct or as JSON. No I/O."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from konko_async.wire import Choice

__all__ = ["Used", "flaws", "read_usage"]


class Used(msgspec.Struct, gc=False):
    """What one row used, and what its answer is like.

    Attributes:
        prompt_tokens: of the prompt.
        completion_tokens: of the answer.
        cached_tokens: of the prompt, those that the server had in its cache.
        reasoning_tokens: of the answer, those that are not in its text.
        cost: None if it is not known.
        empty: 1 if the answer has no text and calls no tool.
        cut: 1 if it was cut at ``max_tokens``.
        filtered: 1 if a content filter cut or refused it.
        reported: whether the server said what was used.
        from_cache: 1 if it came from the answer cache, and so used nothing.
        seconds: that its calls took, without the wait for local limits; 0: not known.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float | None = None
    empty: int = 0
    cut: int = 0
    filtered: int = 0
    reported: bool = False
    from_cache: int = 0
    seconds: float = 0.0


def _get(value: Any, name: str) -> Any:
    # Answers come as structs from the client, and as dicts where
    # they are read back from the output.
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _count(value: Any) -> int:
    # The usage is whatever the server sent: null, text or a negative number counts as nothing.
    return value if isinstance(value, int) and value > 0 else 0


def read_usage(usage: Any, found: tuple[str, ...] = (), *, from_cache: bool = False) -> Used:
    """Read the ``usage`` of an answer, and note its :func:`flaws`.

    An answer of the answer cache used no tokens and cost nothing.

    Cached tokens are where OpenAI (``prompt_tokens_details``), DeepSeek
    (``prompt_cache_hit_tokens``) or Anthropic (``cache_read_input_tokens``) report them.
    """
    used = Used()
    if found:
        used.empty = int("empty" in found)
        used.cut = int("length" in found)
        used.filtered = int("content_filter" in found or "refusal" in found)
    if from_cache:
        used.from_cache, used.cost = 1, 0.0
        return used
    if usage is None:
        return used
    get = usage.get if type(usage) is dict else partial(_get, usage)
    used.prompt_tokens = prompt = _count(get("prompt_tokens"))
    used.completion_tokens = answer = _count(get("completion_tokens"))
    used.reported = prompt + answer > 0  # some servers send {}
    details = get("prompt_tokens_details")
    cached = (
        (details is not None and _get(details, "cached_tokens"))
        or get("prompt_cache_hit_tokens")
        or get("cache_read_input_tokens")
    )
    if cached:
        # More cached tokens than the prompt has would make its cost negative.
        used.cached_tokens = min(_count(cached), prompt)
    details = get("completion_tokens_details")
    if details is not None:
        used.reasoning_tokens = min(_count(_get(details, "reasoning_tokens")), answer)
    return used


def flaws(url: str, answer: Any) -> tuple[str, ...]:
    """Return what is wrong with an answer: nothing, in most cases.

    Args:
        url: the endpoint.
        answer: a completion, or the body of a stored one.

    Returns:
        Any of ``no_choices``, ``error``, ``empty``, ``length``, ``content_filter``, ``refusal``.
    """
    if _went_well(answer):
        return ()
    if url == "/v1/embeddings":
        return () if _get(answer, "data") else ("no_choices",)
    choices = _get(answer, "choices")
    if not isinstance(choices, list) or not choices:
        return ("no_choices",)
    found = []
    reasons = {_get(choice, "finish_reason") for choice in choices}
    if "error" in reasons or any(_get(choice, "error") for choice in choices):
        found.append("error")
    if not any(_says_something(choice) for choice in choices):
        found.append("empty")
    found += [reason for reason in ("length", "content_filter") if reason in reasons]
    if any(_get(_get(choice, "message"), "refusal") for choice in choices):
        found.append("refusal")
    return tuple(found)


def _went_well(answer: Any) -> bool:
    """Whether it is what nearly all answers are: one choice, a text, and its end by itself."""
    try:
        (choice,) = answer.choices
        message = choice.message
        return (
            choice.finish_reason == "stop"
            # A field that this package has no name for would make it a subclass.
            and type(choice) is Choice
            and not message.refusal
            and not message.content.isspace()
            and message.content != ""
        )
    except (AttributeError, TypeError, ValueError):  # of another kind, or stored: a dict
        return False


def _says_something(choice: Any) -> bool:
    message = _get(choice, "message")
    if message is None:
        return bool((_get(choice, "text") or "").strip())
    content = _get(message, "content")
    if isinstance(content, str):
        content = content.strip()
    # An answer without text is not empty if it has one of these, such as a call of a tool.
    others = ("tool_calls", "function_call", "refusal", "audio", "images", "parsed")
    return bool(content) or any(_get(message, name) for name in others)
