"""How many tokens a call will use, guessed before it is sent, at the price of a few additions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final

import msgspec

from konko_async.errors import ConfigurationError

__all__ = ["estimate_tokens", "estimate_with"]

_BYTES_PER_TOKEN: Final = 4
_DEFAULT_ANSWER: Final = 256
# What a high-detail image of common size costs on OpenAI's vision models.
_IMAGE: Final = 765
# Role and separators of one message.
_PER_MESSAGE: Final = 4
# Of a struct with these names, which is what nearly all calls are made with: one call, not five.
_CHAT: Final = attrgetter("messages", "tools", "max_completion_tokens", "max_tokens", "n")


def estimate_tokens(params: Mapping[str, Any]) -> int:
    """Guess the tokens of a call: UTF-8 bytes / 4, plus the longest answer it allows.

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
    if not messages:
        prompt = _prompt(_getter(params)("prompt"))
    else:
        prompt = sum(map(_content_bytes, messages)) // _BYTES_PER_TOKEN
        prompt += _PER_MESSAGE * len(messages)
    if tools:
        prompt += _bytes(tools) // _BYTES_PER_TOKEN
    answer = answer or old_answer
    if not isinstance(answer, int):
        answer = _DEFAULT_ANSWER
    return max(prompt + answer * (choices if isinstance(choices, int) and choices > 0 else 1), 1)


def estimate_with(function: Callable[[dict[str, Any]], int], params: Any) -> int:
    """Ask the user's function.

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


def _content_bytes(message: Any) -> int:
    """UTF-8 bytes of what a message says."""
    if type(message) is dict:  # the usual one, at a third of the price
        content = message.get("content")
        if type(content) is str and content.isascii():
            return len(content)
        return _bytes(content)
    return _bytes(_getter(message)("content"))


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
