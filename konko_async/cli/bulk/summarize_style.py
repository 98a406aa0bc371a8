"""Turns the command line's options into the style of summaries."""

from __future__ import annotations

from typing import Any

from konko_async import AsyncKonko, ConfigurationError
from konko_async.cli._output import note
from konko_async.local import SUMMARY_OPTIONS, summary_messages
from konko_async.summarize import Kind, Style, context_of, default_style

__all__ = ["choose_style"]

_CONTEXT = 4096
_TEMPERATURE = 0.0
_LOCAL_CONTEXT = 2048  # of LocalServer
_EXAMPLES = 1024  # tokens of it that the worked examples and the answer take
_BYTES = 3  # for a token, as konko_async.summarize counts


async def choose_style(
    client: AsyncKonko,
    model: str,
    *,
    local: bool,
    context: int | None,
    max_tokens: int | None,
    temperature: float | None,
    **wanted: Any,
) -> Style:
    """Return the style for a server's model, or for the local one.

    Args:
        client: reads the context from the model list, if none is given.
        model: its id.
        local: whether it is the local model.
        context: tokens that it takes.
        max_tokens: maximum output tokens of a summary.
        temperature: 0 to 2, or None.
        **wanted: instructions, language, length, shape and seed.

    Raises:
        ConfigurationError: the context is too small.
    """
    given = {"max_tokens": max_tokens, "temperature": temperature}
    params = {name: value for name, value in given.items() if value is not None}
    if local:
        return _local_style(model, context, {**SUMMARY_OPTIONS, **params})
    if context is None:
        context = await context_of(client, model)
    if context is None:
        note(f"the model list has no context length for {model}: {_CONTEXT} tokens are assumed")
    return default_style(
        model,
        context=context or _CONTEXT,
        max_tokens=max_tokens,
        temperature=_TEMPERATURE if temperature is None else temperature,
        form=wanted.pop("shape"),
        **wanted,
    )


def _local_style(model: str, context: int | None, params: dict[str, object]) -> Style:
    """Return the style for the local model: one sentence, after examples that show it how."""
    if context is not None and context > _LOCAL_CONTEXT:
        raise ConfigurationError(f"the local model's context is {_LOCAL_CONTEXT} tokens")
    room = (context or _LOCAL_CONTEXT) - _EXAMPLES

    def messages(_kind: Kind, text: str) -> list[dict[str, str]]:
        if context is None:
            return summary_messages(text)
        return summary_messages(text, max_chars=_BYTES * room)

    return Style(
        model=model,
        room=room,
        messages=messages,
        params=params,
        polish=_sentence,
        # The small model gets worse with longer texts: all is read only if --context says so.
        opening=context is None,
    )


def _sentence(text: str) -> str:
    """End it as a sentence: the model is stopped before its full stop."""
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?" else f"{text}."
