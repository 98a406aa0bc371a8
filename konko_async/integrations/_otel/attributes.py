"""The attributes of the GenAI semantic conventions, read off requests and answers."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

__all__ = [
    "Names",
    "answer_attributes",
    "endpoint_attributes",
    "error_name",
    "provider_of",
    "request_attributes",
    "server_attributes",
]

Names = dict[str, Any]

_HTTPS = 443
_HTTP = 80
# The conventions' well-known values of gen_ai.provider.name, by the host that serves the API.
_PROVIDERS: Final = {
    "anthropic.com": "anthropic",
    "cohere.com": "cohere",
    "deepseek.com": "deepseek",
    "googleapis.com": "gcp.gemini",
    "groq.com": "groq",
    "mistral.ai": "mistral_ai",
    "moonshot.ai": "moonshot_ai",
    "openai.azure.com": "azure.ai.openai",
    "openai.com": "openai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
}
_SAME: Final = (
    "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed",
)  # fmt: skip
_JSON: Final = frozenset({"json_object", "json_schema"})


def provider_of(base_url: str) -> str:
    """Return the provider's name; ``konko`` for Konko, and for servers that have no known name."""
    host = urlsplit(base_url).hostname or ""
    for ending, name in _PROVIDERS.items():
        if host == ending or host.endswith("." + ending):
            return name
    return "konko"


def server_attributes(base_url: str) -> Names:
    """Return where a server is; the port only where it is not the scheme's own."""
    parts = urlsplit(base_url)
    found: Names = {} if parts.hostname is None else {"server.address": parts.hostname}
    usual = _HTTPS if parts.scheme == "https" else _HTTP
    if parts.port is not None and parts.port != usual:
        found["server.port"] = parts.port
    return found


def endpoint_attributes(request: Any) -> Names:
    """Return which of several endpoints an attempt went to; empty where there is one server."""
    endpoint = request.times.endpoint
    if endpoint is None:
        return {}
    return {"konko_async.endpoint": endpoint.name, **server_attributes(endpoint.base_url)}


def _get(params: Any, name: str) -> Any:
    return params.get(name) if isinstance(params, dict) else getattr(params, name, None)


def request_attributes(params: Any, *, stream: bool, newest: bool) -> Names:
    """Return what a request says beside its prompt.

    Args:
        params: its body, as a struct or dict.
        stream: whether a stream is requested.
        newest: whether attributes that came with the newest conventions are wanted.
    """
    found: Names = {f"gen_ai.request.{name}": _get(params, name) for name in _SAME}
    longest = _get(params, "max_completion_tokens")
    found["gen_ai.request.max_tokens"] = _get(params, "max_tokens") if longest is None else longest
    stop, choices = _get(params, "stop"), _get(params, "n")
    if stop is not None:
        found["gen_ai.request.stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    if choices != 1:
        found["gen_ai.request.choice.count"] = choices
    wanted = _get(params, "response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    found["gen_ai.output.type"] = "json" if kind in _JSON else kind
    tier = _get(params, "service_tier")
    found["openai.request.service_tier"] = None if tier == "auto" else tier
    found["gen_ai.embeddings.dimension.count"] = _get(params, "dimensions")
    encoding = _get(params, "encoding_format")
    if encoding not in {None, "base64"}:  # which is how embeddings travel unless told otherwise
        found["gen_ai.request.encoding_formats"] = [encoding]
    if stream:
        found["gen_ai.request.stream"] = True
    if newest:
        found["gen_ai.request.reasoning.level"] = _get(params, "reasoning_effort")
    return _given(found)


def answer_attributes(result: Any, *, stream: bool) -> tuple[Names, Names]:
    """Return what an answer says: for spans, and of that for measurements.

    Args:
        result: the struct of a whole answer, or what has come of a stream.
        stream: whether it was streamed. As with OpenTelemetry's own instrumentation, a stream's
            fingerprint is left out, and its tier is of the span only.
    """
    measured: Names = {"gen_ai.response.model": getattr(result, "model", None) or None}
    tier = {"openai.response.service_tier": getattr(result, "service_tier", None)}
    if not stream:
        fingerprint = getattr(result, "system_fingerprint", None)
        measured |= {**tier, "openai.response.system_fingerprint": fingerprint}
    measured = _given(measured)
    choices = getattr(result, "choices", None)
    found: Names = {**tier, "gen_ai.response.id": getattr(result, "id", None) or None}
    if choices:
        reasons = [choice.finish_reason for choice in choices]
        known = (
            [reason for reason in reasons if reason] if stream else [r or "error" for r in reasons]
        )
        found["gen_ai.response.finish_reasons"] = known or None
    vectors = getattr(result, "data", None)
    if vectors and getattr(vectors[0], "embedding", None):
        found["gen_ai.embeddings.dimension.count"] = len(vectors[0].embedding)
    usage = getattr(result, "usage", None)
    if usage is not None:
        found["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        found["gen_ai.usage.output_tokens"] = getattr(usage, "completion_tokens", None)
        came = getattr(usage, "prompt_tokens_details", None)
        spent = getattr(usage, "completion_tokens_details", None)
        # 0 says nothing that its absence would not.
        found["gen_ai.usage.cache_read.input_tokens"] = getattr(came, "cached_tokens", 0) or None
        found["gen_ai.usage.reasoning.output_tokens"] = (
            getattr(spent, "reasoning_tokens", 0) or None
        )
    return {**_given(found), **measured}, measured


def error_name(error: BaseException | str) -> str:
    """Return ``error.type``: the public name of an exception class.

    Args:
        error: an exception, or the name of one of this package.
    """
    if isinstance(error, str):
        return f"konko_async.{error}"
    kind = type(error)
    room = "konko_async" if kind.__module__.startswith("konko_async.") else kind.__module__
    return kind.__qualname__ if room == "builtins" else f"{room}.{kind.__qualname__}"


def _given(values: Names) -> Names:
    return {name: value for name, value in values.items() if value is not None}
