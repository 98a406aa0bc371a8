"""Estimates how many tokens a call will use before it is sent, in a few additions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

import msgspec

from konko_async.errors import ConfigurationError

__all__ = ["answer_tokens", "estimate_tokens", "estimate_with", "prompt_tokens"]

_BYTES_PER_TOKEN: Final = 4
# Servers generate up to the model's maximum where no limit is given; to reserve that much would
# block a token limit with a few calls. What was really used is settled afterwards.
_DEFAULT_ANSWER: Final = 256
# The longest tokens that streams of prose or code have on average; a server whose chunks are longer
# puts several tokens into one.
_BYTES_PER_CHUNK: Final = 8
# What a high-detail image of common size costs on OpenAI's vision models.
_IMAGE: Final = 765
# Role and separators of one message.
_PER_MESSAGE: Final = 4
# Of a struct with these names, which is what nearly all calls are made with: one call, not five.
_CHAT: Final = attrgetter("messages", "tools", "max_completion_tokens", "max_tokens", "n")


def estimate_tokens(params: Mapping[str, Any]) -> int:
    """Guess the tokens of a call: UTF-8 bytes / 4, plus its maximum output tokens.

    Four bytes per token is OpenAI's rule of thumb for English; other scripts have more tokens per
    character, and more bytes too. The answer counts as ``max_completion_tokens`` or ``max_tokens``,
    or 256 where neither is given, times ``n``. An image counts 765; embeddings have no answer.

    Args:
        params: what the call is made with (a dict of ``create()``'s arguments, or a struct).

    Returns:
        Tokens, at least 1.
    """
    try:
        messages, tools, answer, old_answer, choices = _CHAT(params)
    except AttributeError:
        get = _getter(params)
        if (given := get("input")) is not None:
            return max(_prompt(given), 1)
        messages, tools, choices = get("messages"), get("tools"), get("n")
        answer, old_answer = get("max_completion_tokens"), get("max_tokens")
    prompt = _prompt(_getter(params)("prompt")) if not messages else _messages(messages)
    if tools:
        prompt += _bytes(tools) // _BYTES_PER_TOKEN
    answer = answer or old_answer
    if not isinstance(answer, int):
        answer = _DEFAULT_ANSWER
    if choices is not None and isinstance(choices, int) and choices > 0:
        answer *= choices
    return prompt + answer if prompt + answer > 0 else 1


def prompt_tokens(params: Any) -> int:
    """Guess the tokens of a call's prompt alone, as :func:`estimate_tokens` counts them.

    Args:
        params: what the call is made with (a dict of ``create()``'s arguments, or a struct).
    """
    get = _getter(params)
    messages, tools = get("messages"), get("tools")
    if messages:
        return _messages(messages) + _bytes(tools) // _BYTES_PER_TOKEN
    return _prompt(get("prompt") if get("input") is None else get("input"))


def answer_tokens(chunks: int, size: int) -> int:
    """Guess the tokens of a streamed answer from what has come of it.

    Nearly every server sends one token a chunk. Where the chunks are too long for that, four bytes
    count as one token.

    Args:
        chunks: how many have come; the first as a rule brings the role and no text.
        size: UTF-8 bytes of their text.
    """
    return min(chunks, size) if size <= _BYTES_PER_CHUNK * chunks else size // _BYTES_PER_TOKEN


def estimate_with(function: Callable[[dict[str, Any]], int], params: Any) -> int:
    """Estimate with the user's own function.

    Raises:
        ConfigurationError: it failed, or returned something else than a count.
    """
    if isinstance(params, msgspec.Struct):
        params = msgspec.to_builtins(params)
    try:
        tokens: object = function(params)
    except Exception as error:
        raise ConfigurationError(
            f"estimate_tokens failed: {type(error).__name__}: {error}"
        ) from error
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise ConfigurationError(f"estimate_tokens must return a count of tokens, not {tokens!r}")
    return tokens


def _getter(params: Any) -> Callable[[str], Any]:
    if type(params) is dict or isinstance(params, Mapping):
        return params.get

    def get(name: str) -> Any:
        value = getattr(params, name, None)
        return None if value is msgspec.UNSET else value

    return get


def _messages(messages: Any) -> int:
    size = 0
    for message in messages:
        content = message.get("content") if type(message) is dict else _getter(message)("content")
        # The usual one needs no call.
        size += len(content) if type(content) is str and content.isascii() else _bytes(content)
    return size // _BYTES_PER_TOKEN + _PER_MESSAGE * len(messages)


def _prompt(given: Any) -> int:
    """Tokens of a prompt: text, tokens, or lists of either."""
    if isinstance(given, list | tuple):
        if all(isinstance(item, int) for item in given):
            return len(given)
        return sum(map(_prompt, given))
    return _bytes(given) // _BYTES_PER_TOKEN


def _bytes(value: Any) -> int:
    """UTF-8 bytes of all text in a value."""
    if isinstance(value, str):
        # isascii() is a look at a flag; encoding copies.
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, Mapping):
        if value.get("type") == "image_url":
            return _IMAGE * _BYTES_PER_TOKEN
        return sum(_bytes(item) + _bytes(key) for key, item in value.items() if key != "type")
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    if isinstance(value, msgspec.Struct):
        return _bytes(msgspec.to_builtins(value))
    return 0
