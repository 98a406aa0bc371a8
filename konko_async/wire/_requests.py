"""The bodies that are sent. None means "not given" and is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import msgspec

__all__ = [
    "ChatParams",
    "ChatRequest",
    "CompletionParams",
    "CompletionRequest",
    "EmbeddingParams",
    "EmbeddingRequest",
    "ToolParams",
]


# Any for what is passed on as it is: msgspec checks no types on encoding, and the resources have
# checked what can be checked (see _core/validation.py).
class _Sampling(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stop: Any = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Any = None
    seed: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stream_options: Any = None
    user: str | None = None
    stream: bool | None = None  # a False is sent: some servers stream unless they are asked not to


class ChatRequest(_Sampling, kw_only=True, omit_defaults=True, gc=False):
    """Body of ``POST /chat/completions``."""

    model: str
    messages: Any
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: Any = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    metadata: Any = None
    modalities: Any = None
    moderation: Any = None
    prediction: Any = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Any = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    verbosity: str | None = None
    web_search_options: Any = None


class CompletionRequest(_Sampling, kw_only=True, omit_defaults=True, gc=False):
    """Body of ``POST /completions``."""

    model: str
    prompt: Any
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None
    logprobs: int | None = None


class EmbeddingRequest(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """Body of ``POST /embeddings``."""

    model: str
    input: Any
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


# The same parameters as _Sampling, for type checkers: a struct cannot be unpacked as keywords.
class _SamplingParams(TypedDict, total=False):
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    n: int | None
    stop: str | list[str] | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: dict[str, float] | None
    seed: int | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    stream_options: dict[str, Any] | None
    user: str | None


class ChatParams(_SamplingParams, total=False):
    """Optional keywords of a chat call, as type checkers see them."""

    max_completion_tokens: int | None
    logprobs: bool | None
    top_logprobs: int | None
    tool_choice: str | Mapping[str, Any] | Callable[..., Any] | None
    parallel_tool_calls: bool | None
    reasoning_effort: str | None
    audio: Mapping[str, Any] | None
    function_call: str | Mapping[str, Any] | None
    functions: Sequence[Mapping[str, Any]] | None
    metadata: Mapping[str, str] | None
    modalities: Sequence[str] | None
    moderation: Mapping[str, Any] | None
    prediction: Mapping[str, Any] | None
    prompt_cache_key: str | None
    prompt_cache_options: Mapping[str, Any] | None
    prompt_cache_retention: str | None
    safety_identifier: str | None
    service_tier: str | None
    store: bool | None
    verbosity: str | None
    web_search_options: Mapping[str, Any] | None


class ToolParams(TypedDict, total=False):
    """Optional keywords of those chat calls that can do without tools."""

    tools: Sequence[Callable[..., Any] | Mapping[str, Any]] | None


class CompletionParams(_SamplingParams, total=False):
    """Optional keywords of a text completion, as type checkers see them."""

    suffix: str | None
    echo: bool | None
    best_of: int | None
    logprobs: int | None


class EmbeddingParams(TypedDict, total=False):
    """Optional keywords of an embeddings call, as type checkers see them."""

    encoding_format: Literal["float", "base64"] | None
    dimensions: int | None
    user: str | None
