"""Finds what some servers put elsewhere: usage outside of ``usage``, deltas called ``message``."""

from __future__ import annotations

from typing import Any

from konko_async.wire import _lenient
from konko_async.wire._base import with_unknown
from konko_async.wire._chat import ChatCompletion, ChoiceDelta, ChunkChoice, Usage

__all__ = ["added_up", "usage_of_choice", "usage_of_vendor", "with_delta", "with_usage"]


def usage_of_vendor(answer: Any) -> Usage | None:
    """Return the usage in an answer's or a chunk's ``x_groq`` (Groq)."""
    vendor = answer.unknown.get("x_groq")
    return _usage(vendor.get("usage")) if isinstance(vendor, dict) else None


def usage_of_choice(choice: Any) -> Usage | None:
    """Return the usage in a choice (Moonshot)."""
    return _usage(choice.unknown.get("usage"))


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    usage: Usage = _lenient.convert(value, Usage)
    return usage if usage.known else None


def added_up(usages: list[Usage]) -> Usage | None:
    """Return the usage of several choices, each of which reports its own; the prompt is shared."""
    if len(usages) < 2:  # noqa: PLR2004 - nothing to add up
        return usages[0] if usages else None
    # Each choice reports the whole prompt, which was read once.
    prompt = max(usage.prompt_tokens for usage in usages)
    answer = sum(usage.completion_tokens for usage in usages)
    return Usage(prompt, answer, prompt + answer)


def with_usage(answer: Any) -> None:
    """Give a whole answer without a usage the one that stands elsewhere in it."""
    if not isinstance(answer, ChatCompletion) or (answer.usage is not None and answer.usage.known):
        return
    of_choices = [usage for choice in answer.choices if (usage := usage_of_choice(choice))]
    answer.usage = usage_of_vendor(answer) or added_up(of_choices) or answer.usage


def with_delta(choice: ChunkChoice) -> ChunkChoice:
    """Return a chunk's choice with its ``message`` or ``text`` as the delta, if it has no other."""
    unknown = choice.unknown
    # Taken out in any case: it must not appear beside the delta that it became.
    message = unknown.pop("message", None) or unknown.pop("text", None)
    if isinstance(message, str):
        message = {"content": message}
    if not isinstance(message, dict) or choice.delta != ChoiceDelta():
        return choice
    delta: ChoiceDelta = _lenient.convert(message, ChoiceDelta)
    made = ChunkChoice(choice.index, delta, choice.finish_reason, choice.logprobs)
    return with_unknown(made, unknown)
