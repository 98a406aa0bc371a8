"""OpenAI's chunk format, passed through except for fields that are not on the list."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from konko_async import ChatCompletion, ChatCompletionChunk, ChunkBatch, KonkoError
from konko_async.relay._errors import public_error
from konko_async.relay._formats.base import StopReason, StreamStats
from konko_async.relay._formats.openai_tools import RunChunks
from konko_async.tools import ToolEvent

__all__ = ["ANSWER_FIELDS", "OpenAIFormat", "completion_json", "kept_fields"]

DONE = b"[DONE]"

ANSWER_FIELDS = frozenset({
    "id", "object", "created", "model", "choices", "usage",
    "index", "delta", "message", "finish_reason", "logprobs",
    "role", "content", "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning",
})  # fmt: skip
"""Fields of answers, of their choices and of their messages that browsers get to see."""

_SHOWN_AS_NULL = frozenset({"finish_reason"})  # in OpenAI's chunks it is null up to the last
_encode = msgspec.json.Encoder().encode


def kept_fields(fields: Mapping[str, Any], allowed: Collection[str]) -> dict[str, Any]:
    """Return the fields of an object that are on a list."""
    return {
        name: value
        for name, value in fields.items()
        if name in allowed and (value is not None or name in _SHOWN_AS_NULL)
    }


def _public(
    answer: ChatCompletion | ChatCompletionChunk, allowed: Collection[str], model: str | None
) -> dict[str, Any]:
    """Return the listed fields of an answer; those that our structs do not name are left out."""
    whole = kept_fields(msgspec.to_builtins(answer), allowed)
    if model is not None and "model" in whole:
        whole["model"] = model
    if "choices" in whole:
        choices = [kept_fields(choice, allowed) for choice in whole["choices"]]
        for choice in choices:
            for name in ("delta", "message"):
                if name in choice:
                    choice[name] = kept_fields(choice[name], allowed)
        whole["choices"] = choices
    return whole


def completion_json(
    completion: ChatCompletion,
    *,
    fields: Collection[str] = ANSWER_FIELDS,
    model: str | None = None,
) -> bytes:
    """Return a whole answer as JSON.

    Args:
        completion: the answer.
        fields: names of those that browsers get to see.
        model: what the model is called there, if not by its own name.
    """
    return _encode(_public(completion, fields, model))


class OpenAIFormat:
    """Writes ``chat.completion.chunk`` events.

    Chunks that differ in their text only, which is nearly all, are put together from the JSON
    strings that arrived: nothing is decoded or encoded for them.

    Args:
        fields: names of the fields that browsers get to see. Default :data:`ANSWER_FIELDS`.
        merge: make one chunk of those that arrived together. Default False.
        stats: report times and tokens in an event after the last chunk. Default False.
        model: what the model is called, if not by its own name.
        results: whether browsers see what the tools of ``run_tools()`` returned; else only how
            the calls ended. Default True.

    Attributes:
        headers: none.
        fields: as given.
        model: as given.
    """

    headers: Mapping[str, str] = {}

    def __init__(
        self,
        *,
        fields: Collection[str] = ANSWER_FIELDS,
        merge: bool = False,
        stats: bool = False,
        model: str | None = None,
        results: bool = True,
    ) -> None:
        self.fields = frozenset(fields)
        self._results = results
        self._run: RunChunks | None = None
        self._merge = merge
        self._stats = stats
        self.model = model
        self._shape: ChatCompletionChunk | None = None
        self._before: bytes | None = None  # a chunk's JSON up to its text; None: has no text
        self._after = b""

    def begin(self, stream_id: str | None) -> list[bytes]:  # noqa: ARG002 - the headers carry it
        """Return nothing: the format begins with its first chunk."""
        return []

    def take(self, batch: ChunkBatch[ChatCompletionChunk]) -> list[bytes]:
        """Return the payloads of chunks."""
        shape = batch.shape
        if shape is None:
            return [_encode(_public(chunk, self.fields, self.model)) for chunk in batch.chunks()]
        # One object for as long as chunks differ in their text only, so identity is enough.
        if shape is not self._shape:
            self._learn(shape)
        before, after = self._before, self._after
        if before is None:
            return [after] * len(batch)
        strings = batch.strings
        if self._merge and len(strings) > 1:
            # Without their quotes, JSON strings can be joined: no escape crosses the end of one.
            text = b"".join([string[1:-1] for string in strings])
            return [b'%b"%b"%b' % (before, text, after)]
        return [before + string + after for string in strings]

    def _learn(self, shape: ChatCompletionChunk) -> None:
        """Encode all but the text of the chunks to come."""
        self._shape = shape
        public = _public(shape, self.fields, self.model)
        place = secrets.token_hex(16)  # a text that is nowhere else
        for choice in public.get("choices", ()):
            if "content" in choice.get("delta", ()):
                choice["delta"]["content"] = place
        before, found, after = _encode(public).partition(b'"%b"' % place.encode())
        self._before, self._after = (before, after) if found else (None, before)

    def tell(self, event: ToolEvent) -> list[bytes]:
        """Return the payloads of an event of a run of tools.

        All rounds are one answer of one choice. Calls are deltas, with their arguments whole;
        results are events without choices, ``{"object": "relay.tool_result", "relay": {...}}``.
        """
        if self._run is None:
            self._run = RunChunks(self.fields, self.model, results=self._results)
        return self._run.tell(event)

    def end(
        self,
        completion: ChatCompletion | None,  # noqa: ARG002 - all of it has been written
        stats: StreamStats,
    ) -> list[bytes]:
        """Return the figures, if they are wanted, and the end."""
        told = [] if self._run is None else self._run.usage(stats.usage)
        if not self._stats:
            return [*told, DONE]
        usage = stats.usage
        relay = {
            "time_to_first_token": stats.time_to_first_token,
            "duration": stats.duration,
            "usage": None if usage is None or "usage" not in self.fields else usage,
        }
        said = _encode({"object": "relay.stats", "choices": [], "relay": relay})
        return [*told, said, DONE]

    def fail(self, error: KonkoError) -> list[bytes]:
        """Return the error, as clients of this format raise it, and the end."""
        # The end marker after errors, too: a stream without it has lost its connection, nothing
        # else.
        return [_encode({"error": public_error(error)}), DONE]

    def stop(self, reason: StopReason) -> list[bytes]:
        """Return an event without choices that says why, and the end."""
        relay = {"reason": reason}
        return [_encode({"object": f"relay.{reason}", "choices": [], "relay": relay}), DONE]
