"""LangChain's messages as the API's, and the API's answers as LangChain's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from konko_async.wire import ChatCompletion, ChatCompletionChunk, Choice, Usage

__all__ = ["as_chunk", "as_request", "as_result"]

PROVIDER = "konko"
# Parts that only LangChain, or another provider, knows; servers refuse them.
_FOREIGN = frozenset({"tool_use", "thinking", "reasoning"})


def as_request(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Return messages as the API takes them."""
    return [_sent(message) for message in convert_to_openai_messages(list(messages))]


def _sent(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, list):
        message["content"] = [part for part in content if part.get("type") not in _FOREIGN] or ""
    return message


def as_result(completion: ChatCompletion) -> ChatResult:
    """Return a whole answer."""
    shared = {
        "model_name": completion.model,
        "model_provider": PROVIDER,
        "system_fingerprint": completion.system_fingerprint,
        "request_id": completion.request_id,
    }
    usage = _usage(completion.usage)
    generations = [_generation(choice, completion, shared, usage) for choice in completion.choices]
    output = {**shared, "token_usage": completion.usage and completion.usage.to_dict()}
    return ChatResult(generations=generations, llm_output=output)


def _generation(
    choice: Choice, completion: ChatCompletion, shared: dict[str, Any], usage: UsageMetadata | None
) -> ChatGeneration:
    said = choice.message
    calls, invalid = [], []
    for call in said.tool_calls or ():
        raw = {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        try:
            parsed = parse_tool_call(raw, return_id=True)
        # Whatever is wrong with the arguments: the program sees them, and what is wrong.
        except Exception as error:  # noqa: BLE001 - the parser's own errors differ by version
            invalid.append(make_invalid_tool_call(raw, str(error)))
        else:
            if parsed is not None:
                calls.append(parsed)
    about = {"finish_reason": choice.finish_reason, "logprobs": _plain(choice.logprobs)}
    message = AIMessage(
        content=said.content or "",
        id=completion.id or None,
        additional_kwargs=_additional(said),
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=usage,
        response_metadata={**shared, **about},
    )
    return ChatGeneration(message=message, generation_info=about)


def as_chunk(chunk: ChatCompletionChunk, *, first: bool) -> ChatGenerationChunk | None:
    """Return a chunk of a stream; None if it says nothing.

    Args:
        chunk: what came.
        first: whether nothing came before it: what all chunks have in common is said once.
    """
    message = AIMessageChunk(content="", id=chunk.id or None, usage_metadata=_usage(chunk.usage))
    metadata: dict[str, Any] = {}
    if first:
        metadata["model_provider"] = PROVIDER
    info: dict[str, Any] = {}
    for choice in chunk.choices:
        if choice.index:  # LangChain streams one answer
            continue
        delta = choice.delta
        message.content = delta.content or ""
        message.additional_kwargs = _additional(delta)
        message.tool_call_chunks = [
            tool_call_chunk(
                name=call.function.name if call.function else None,
                args=call.function.arguments if call.function else None,
                id=call.id,
                index=call.index,
            )
            for call in delta.tool_calls or ()
        ]
        if choice.logprobs is not None:
            info["logprobs"] = _plain(choice.logprobs)
        if choice.finish_reason is not None:
            metadata |= {
                "finish_reason": choice.finish_reason,
                "model_name": chunk.model,
                "system_fingerprint": chunk.system_fingerprint,
            }
            info["finish_reason"] = choice.finish_reason
    if not (chunk.choices or message.usage_metadata):
        return None
    message.response_metadata = metadata
    return ChatGenerationChunk(message=message, generation_info=info or None)


def _additional(said: Any) -> dict[str, Any]:
    """Return what has no field in LangChain's messages: thoughts and refusals."""
    thoughts = said.reasoning_content or said.reasoning
    found = {"reasoning_content": thoughts, "refusal": said.refusal}
    return {name: value for name, value in found.items() if value}


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, "to_dict") else value


def _usage(usage: Usage | None) -> UsageMetadata | None:
    if usage is None or not usage.total_tokens:
        return None
    found = UsageMetadata(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        total_tokens=usage.total_tokens,
    )
    cached = _detail(usage.prompt_tokens_details, "cached_tokens")
    if cached is not None:
        found["input_token_details"] = InputTokenDetails(cache_read=cached)
    thought = _detail(usage.completion_tokens_details, "reasoning_tokens")
    if thought is not None:
        found["output_token_details"] = OutputTokenDetails(reasoning=thought)
    return found


def _detail(details: Any, name: str) -> int | None:
    value = details.get(name) if isinstance(details, dict) else getattr(details, name, None)
    return value if isinstance(value, int) else None
