"""Checks and answers requests to ``/v1/completions`` and ``/v1/embeddings``."""

from __future__ import annotations

import base64
import struct
from collections.abc import Collection
from typing import Any, Final, Literal

import msgspec

from konko_async import ChunkBatch, Completion, CreateEmbeddingResponse
from konko_async.relay._errors import RefusalError
from konko_async.relay._formats.openai import ANSWER_FIELDS, OpenAIFormat, kept_fields
from konko_async.relay._policy import RelayOptions, capped

__all__ = ["CompletionFormat", "TextCall", "completion_json", "embeddings_json", "parse_text_call"]

TextEndpoint = Literal["completions", "embeddings"]

# What each endpoint takes at all; a completion's must also be on the relay's own list.
_TAKEN: Final[dict[TextEndpoint, frozenset[str]]] = {
    "completions": frozenset({
        "temperature", "top_p", "max_tokens", "stop", "seed", "presence_penalty",
        "frequency_penalty", "stream_options",
    }),
    "embeddings": frozenset({"dimensions", "encoding_format"}),
}  # fmt: skip
_TEXT: Final[dict[TextEndpoint, str]] = {"completions": "prompt", "embeddings": "input"}
_MOST_INPUTS: Final = 2048  # of one call: OpenAI's own limit
_encode = msgspec.json.Encoder().encode


class TextCall(msgspec.Struct, frozen=True, kw_only=True):
    """A browser's request, checked.

    Attributes:
        endpoint: which.
        model: one of those allowed.
        params: the prompt or the inputs, and the optional parameters.
        stream: whether a completion is to be streamed.
        as_base64: whether vectors are to be sent as base64, as openai's clients request it.
    """

    endpoint: TextEndpoint
    model: str
    params: dict[str, Any]
    stream: bool = False
    as_base64: bool = False


def parse_text_call(body: Any, endpoint: TextEndpoint, options: RelayOptions) -> TextCall:
    """Read and check a body.

    Raises:
        RefusalError: it is not allowed.
    """
    if not isinstance(body, dict):
        raise RefusalError(400, "the body must be a JSON object")
    params = {name: value for name, value in body.items() if value is not None}
    model = params.pop("model", options.default_model)
    if not isinstance(model, str):
        raise RefusalError(400, "model: must be a text", param="model")
    options.upstream_model(model)
    name = _TEXT[endpoint]
    text = _checked_text(params.pop(name, None), endpoint)
    stream = params.pop("stream", False) if endpoint == "completions" else False
    if not isinstance(stream, bool):
        raise RefusalError(400, "stream: must be true or false", param="stream")
    taken = _TAKEN[endpoint]
    allowed = taken & set(options.params) if endpoint == "completions" else taken
    for given in params:
        if given not in allowed:
            raise RefusalError(400, "a parameter is not allowed here", param=given[:100])
    # Not passed on: the client requests vectors in its own way; this is how they are written.
    form = params.pop("encoding_format", "float")
    if form not in {"float", "base64"}:
        raise RefusalError(400, "encoding_format: must be float or base64", param="encoding_format")
    if endpoint == "completions":
        # The endpoint is older than max_completion_tokens, which it does not know.
        params = capped(params, options.max_tokens, ("max_tokens",))
    return TextCall(
        endpoint=endpoint,
        model=model,
        params={**params, name: text},
        stream=stream,
        as_base64=form == "base64",
    )


def _checked_text(text: Any, endpoint: TextEndpoint) -> Any:
    """Return a prompt or inputs: a text, tokens, or several of either where that costs no more."""
    name = _TEXT[endpoint]
    if isinstance(text, str) and text:
        return text
    if not isinstance(text, list) or not text:
        raise RefusalError(400, f"{name}: must be a text or a list", param=name)
    if all(isinstance(token, int) and not isinstance(token, bool) for token in text):
        return text
    # Each prompt may use the whole cap, so several would multiply the cost as "n" does.
    most = 1 if endpoint == "completions" else _MOST_INPUTS
    if len(text) > most:
        raise RefusalError(400, f"{name}: at most {most} are allowed", param=name)
    return text


class CompletionFormat(OpenAIFormat):
    """Writes ``text_completion`` events: the fields that browsers get to see, one by one."""

    def take(self, batch: ChunkBatch[Any]) -> list[bytes]:
        """Return the payloads of chunks."""
        return [_encode(_public(chunk, self.fields, self.model)) for chunk in batch.chunks()]


def _public(answer: Completion, fields: Collection[str], model: str | None) -> dict[str, Any]:
    allowed = {*fields, "text"}
    whole = kept_fields(msgspec.to_builtins(answer), allowed)
    if model is not None and "model" in whole:
        whole["model"] = model
    if "choices" in whole:
        whole["choices"] = [kept_fields(choice, allowed) for choice in whole["choices"]]
    return whole


def completion_json(
    completion: Completion,
    *,
    fields: Collection[str] = ANSWER_FIELDS,
    model: str | None = None,
) -> bytes:
    """Return a whole text completion as JSON."""
    return _encode(_public(completion, fields, model))


def embeddings_json(
    answer: CreateEmbeddingResponse, *, model: str | None = None, as_base64: bool = False
) -> bytes:
    """Return vectors as JSON: as numbers, or as base64 of 32-bit floats, the lowest byte first."""
    data = [
        {
            "object": "embedding",
            "index": one.index,
            "embedding": _packed(one.embedding) if as_base64 else one.embedding,
        }
        for one in answer.data
    ]
    whole: dict[str, Any] = {
        "object": "list",
        "data": data,
        "model": answer.model if model is None else model,
    }
    if answer.usage is not None:
        usage = answer.usage
        whole["usage"] = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total}
    return _encode(whole)


def _packed(vector: Any) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
