"""Tool arguments and JSON whose values are those of the question, as a real model's would be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from konko_async.testing._emulator.content.answers import (
    PromptText,
    read_messages,
    tools_to_call,
)
from konko_async.testing._emulator.content.schema_example import example

__all__ = ["answer_from_prompt"]

_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")
# An apostrophe inside a word opens no quotation.
_QUOTED: Final = re.compile(r"(?<!\w)'([^']+)'(?!\w)|\"([^\"]+)\"")


def answer_from_prompt(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Answer with what the question says, for ``Emulator(answer=answer_from_prompt)``.

    A tool's numbers are those of the question, in their order; its strings are what stands in
    quotes, a choice of several is the one that the question names. What the question does not say
    is made up from the schema, as always. Where JSON without a schema is wanted, its keys are what
    stands in quotes. All other answers are the emulator's usual ones.

    Args:
        body: the request.

    Returns:
        An answer with tool calls or JSON; None for the usual one.
    """
    if "messages" not in body:
        return None
    prompt = read_messages(body["messages"])
    tools = tools_to_call(body, prompt)
    if tools:
        return {"content": None, "tool_calls": [_call(tool, prompt) for tool in tools]}
    quoted = list(_quotations(prompt.question))
    if (body.get("response_format") or {}).get("type") == "json_object" and quoted:
        pairs = ", ".join(f'"{_plain(key)}": "{_plain(key)} of it"' for key in quoted)
        return {"content": f"{{{pairs}}}"}
    return None


def _call(tool: Mapping[str, Any], prompt: PromptText) -> dict[str, Any]:
    schema = tool.get("parameters") or {"type": "object"}
    made = example(schema)
    properties = schema.get("properties")
    if not isinstance(made, dict) or not isinstance(properties, Mapping):
        return {"name": tool["name"], "arguments": made}
    numbers = (match.group() for match in _NUMBER.finditer(prompt.question))
    texts = _quotations(prompt.question)
    for name, kind in properties.items():
        if name in made and isinstance(kind, Mapping):
            made[name] = _value(kind, made[name], prompt.question, numbers, texts)
    return {"name": tool["name"], "arguments": made}


def _value(
    kind: Mapping[str, Any],
    made: Any,
    question: str,
    numbers: Iterator[str],
    texts: Iterator[str],
) -> Any:
    """Return a property's value as the question says it, else the one that was made up."""
    choices = kind.get("enum")
    if isinstance(choices, list):
        return next((choice for choice in choices if str(choice) in question), made)
    if kind.get("type") == "integer":
        return next((int(float(number)) for number in numbers), made)
    if kind.get("type") == "number":
        return next((float(number) for number in numbers), made)
    if kind.get("type") == "string" and not {"format", "pattern", "const"} & kind.keys():
        return next(texts, made)
    return made


def _quotations(text: str) -> Iterator[str]:
    for match in _QUOTED.finditer(text):
        yield match.group(1) or match.group(2)


def _plain(text: str) -> str:
    return re.sub(r"[\"\\\x00-\x1f]", " ", text)
