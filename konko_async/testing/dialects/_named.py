"""The dialects that have a name: servers that people use, and oddities that several share."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from konko_async.testing.dialects._dialect import ServerDialect

__all__ = ["DIALECTS", "dialect_named"]

_ALL: Final = (
    ServerDialect(name="openai", padding=True, extra={"service_tier": "default"}, ascii=False),
    ServerDialect(  # Google's compatible endpoint: all calls have index 0, signed thoughts
        name="gemini",
        tools="whole",
        tool_index="zero",
        tool_id="empty",
        signature=True,
        role="each",
        usage="each",
    ),
    ServerDialect(
        name="openrouter",
        comment=": OPENROUTER PROCESSING",
        reasoning="both",
        role="each",
        empty_content="text",
        extra={"provider": "Example"},
    ),
    ServerDialect(
        name="vllm", empty_content="text", extra_delta={"reasoning": None}, usage="own chunk"
    ),
    ServerDialect(name="llama.cpp", empty_content="null", extra={"timings": {"predicted_ms": 1.5}}),
    ServerDialect(
        name="ollama", role="each", empty_content="text", tools="whole", reasoning="reasoning"
    ),
    ServerDialect(name="groq", usage="x_groq", empty_content="null"),
    ServerDialect(name="moonshot", usage="choice"),
    ServerDialect(
        name="azure",
        extra={"prompt_filter_results": []},
        extra_delta={"annotations": []},
        empty_content="none",
    ),
    ServerDialect(name="deepseek", empty_content="null", role="each"),
    ServerDialect(name="mistral", tools="whole", tool_index="right", usage="last chunk"),
    ServerDialect(
        name="minimax", extra={"base_resp": {"status_code": 0, "status_msg": ""}}, role="each"
    ),
    ServerDialect(
        name="litellm", extra_delta={"audio": None, "function_call": None}, usage="own chunk"
    ),
    ServerDialect(name="anthropic-bridge", event=("ping", '{"type": "ping"}'), usage="split"),
    ServerDialect(name="counting", index="counts", usage="each"),
    ServerDialect(name="from-one", index="one", finish="each"),
    ServerDialect(name="bare-lines", gap=False, space=False, done="line"),
    ServerDialect(name="crlf", newline="\r\n", done="line"),
    ServerDialect(name="no-done", done="none", usage="increments"),
    ServerDialect(name="messages", delta="message", finish="none"),
    ServerDialect(name="texts", delta="text", role="none"),
    ServerDialect(name="restless-ids", tool_id="changing", tool_name="each", tool_index="zero"),
    ServerDialect(name="nameless-calls", tool_index="none", tool_id="none", tools="whole"),
    ServerDialect(name="konko"),
)

DIALECTS: Final[Mapping[str, ServerDialect]] = MappingProxyType({one.name: one for one in _ALL})
"""The dialects that have a name, by it."""


def dialect_named(name: str | ServerDialect) -> ServerDialect:
    """Return a dialect by its name; a dialect is returned as it is.

    Raises:
        ValueError: If there is none of that name; the message lists the names.
    """
    if isinstance(name, ServerDialect):
        return name
    if name not in DIALECTS:
        raise ValueError(f"there is no dialect {name!r}; there are: {', '.join(DIALECTS)}")
    return DIALECTS[name]
