"""Encodes answers: JSON bodies, and the events of a stream.

The events of a plain answer differ in one string only, so what is around it is encoded once.
"""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, Final

import msgspec

from konko_async.testing._emulator.content.answers import GeneratedAnswer, GeneratedChoice
from konko_async.testing._emulator.content.logprobs import chat_logprobs, completion_logprobs
from konko_async.testing._emulator.content.text import digest, pieces
from konko_async.testing._emulator.reply import DONE, Events

_encode = msgspec.json.Encoder().encode
_AFTER_TEXT: Final = b',"logprobs":null,"finish_reason":null}'


class Meta(msgspec.Struct):
    """What every body and every chunk of one answer repeats."""

    id: str
    created: int
    model: str


def fingerprint(model: str) -> str:
    """The `system_fingerprint`: one for each model."""
    return f"fp_{digest(model).hex()[:10]}"


def chat_body(meta: Meta, answer: GeneratedAnswer, body: dict[str, Any]) -> bytes:
    """A `chat.completion`."""
    return _encode(
        {
            "id": meta.id,
            "object": "chat.completion",
            "created": meta.created,
            "model": meta.model,
            "system_fingerprint": fingerprint(meta.model),
            "choices": [
                {
                    "index": index,
                    "message": _message(choice),
                    "logprobs": _chat_logprobs(choice.tokens, body),
                    "finish_reason": choice.finish_reason,
                }
                for index, choice in enumerate(answer.choices)
            ],
            "usage": answer.usage,
        }
    )


def completion_body(meta: Meta, answer: GeneratedAnswer, body: dict[str, Any]) -> bytes:
    """A `text_completion`."""
    return _encode(
        {
            "id": meta.id,
            "object": "text_completion",
            "created": meta.created,
            "model": meta.model,
            "system_fingerprint": fingerprint(meta.model),
            "choices": [
                {
                    "index": index,
                    "text": "".join(choice.tokens),
                    "logprobs": _text_logprobs(choice.tokens, body),
                    "finish_reason": choice.finish_reason,
                }
                for index, choice in enumerate(answer.choices)
            ],
            "usage": answer.usage,
        }
    )


def chat_events(
    meta: Meta, answer: GeneratedAnswer, body: dict[str, Any], chunk_tokens: int
) -> Events:
    """The events of a streamed `chat.completion`."""
    frame = _EventWriter("chat.completion.chunk", meta, body)
    lead = [frame.delta(i, _first_delta(choice)) for i, choice in enumerate(answer.choices)]
    content = _interleave(
        _chat_content(frame, index, choice, body, chunk_tokens)
        for index, choice in enumerate(answer.choices)
    )
    ends = [frame.delta(i, {}, c.finish_reason) for i, c in enumerate(answer.choices)]
    return frame.whole(lead, content, ends, answer)


def completion_events(
    meta: Meta, answer: GeneratedAnswer, body: dict[str, Any], chunk_tokens: int
) -> Events:
    """The events of a streamed `text_completion`."""
    frame = _EventWriter("text_completion", meta, body)
    content = _interleave(
        _text_content(frame, index, choice, body, chunk_tokens)
        for index, choice in enumerate(answer.choices)
    )
    ends = [
        frame.choice({"index": i, "text": "", "logprobs": None, "finish_reason": c.finish_reason})
        for i, c in enumerate(answer.choices)
    ]
    return frame.whole([], content, ends, answer)


class _EventWriter:
    """Makes the events of one stream: what they all begin and end with is encoded once."""

    def __init__(self, object: str, meta: Meta, body: dict[str, Any]) -> None:
        head = {
            "id": meta.id,
            "object": object,
            "created": meta.created,
            "model": meta.model,
            "system_fingerprint": fingerprint(meta.model),
        }
        # The closing brace is cut off: `_end` supplies it after the choice.
        self._start = b"data: " + _encode(head)[:-1] + b',"choices":['
        self._usage = bool((body.get("stream_options") or {}).get("include_usage"))
        # With include_usage every chunk but the last says that it has none, as OpenAI's do.
        self._end = b'],"usage":null}\n\n' if self._usage else b"]}\n\n"

    def choice(self, choice: dict[str, Any]) -> bytes:
        return self._start + _encode(choice) + self._end

    def delta(
        self,
        index: int,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        logprobs: Any = None,
    ) -> bytes:
        return self.choice(
            {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        )

    def texts(self, before: bytes, texts: Iterable[str], after: bytes) -> Iterator[bytes]:
        start, end = self._start + before, after + self._end
        # A generator: with a pace, a stream holds one event at a time.
        return (start + _encode(text) + end for text in texts)

    def whole(
        self,
        lead: list[bytes],
        content: Iterator[bytes],
        ends: list[bytes],
        answer: GeneratedAnswer,
    ) -> Events:
        # The last events have no text, so they come at the moment of the last token, and not one
        # interval later.
        tail = ends
        if self._usage:
            tail.append(self._start + b'],"usage":' + _encode(answer.usage) + b"}\n\n")
        tail.append(DONE)
        return Events(lead, content, tail)


def _chat_content(
    frame: _EventWriter, index: int, choice: GeneratedChoice, body: dict[str, Any], size: int
) -> Iterator[bytes]:
    """The deltas of one choice between the first and the last."""
    if choice.tool_calls:
        return (frame.delta(index, delta) for delta in _tool_deltas(choice, size))
    if not body.get("logprobs"):
        before = b'{"index":%d,"delta":{"content":' % index
        return frame.texts(before, pieces(choice.tokens, size), b"}" + _AFTER_TEXT)
    return (
        frame.delta(index, {"content": "".join(group)}, None, _chat_logprobs(group, body))
        for group in _groups(choice.tokens, size)
    )


def _text_content(
    frame: _EventWriter, index: int, choice: GeneratedChoice, body: dict[str, Any], size: int
) -> Iterator[bytes]:
    top = body.get("logprobs")
    if top is None:
        before = b'{"index":%d,"text":' % index
        return frame.texts(before, pieces(choice.tokens, size), _AFTER_TEXT)
    return _text_with_logprobs(frame, index, _groups(choice.tokens, size), top)


def _text_with_logprobs(
    frame: _EventWriter, index: int, groups: list[list[str]], top: int
) -> Iterator[bytes]:
    # `text_offset` counts from the start of the choice, not of the chunk.
    offset = 0
    for group in groups:
        text, logprobs = "".join(group), completion_logprobs(group, top, offset)
        yield frame.choice(
            {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None}
        )
        offset += len(text)


def _first_delta(choice: GeneratedChoice) -> dict[str, Any]:
    # As OpenAI: null in a message that only calls tools, else an empty text.
    content = None if choice.tool_calls and not choice.tokens else ""
    return {"role": "assistant", "content": content, "refusal": None, **choice.extra}


def _tool_deltas(choice: GeneratedChoice, size: int) -> Iterator[dict[str, Any]]:
    """Text first, if there is any; then each call: its id and name, and its arguments in pieces."""
    for text in pieces(choice.tokens, size):
        yield {"content": text}
    for index, call in enumerate(choice.tool_calls):
        # Empty arguments first, then pieces: OpenAI sends the name in a delta of its own.
        function = {"name": call.name, "arguments": ""}
        yield {
            "tool_calls": [
                {"index": index, "id": call.id, "type": "function", "function": function}
            ]
        }
        for piece in pieces(call.arguments, size):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _message(choice: GeneratedChoice) -> dict[str, Any]:
    text = "".join(choice.tokens)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if choice.tool_calls:
        message["content"] = text or None
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": "".join(call.arguments)},
            }
            for call in choice.tool_calls
        ]
    return {**message, **choice.extra} if choice.extra else message


def _chat_logprobs(tokens: list[str], body: dict[str, Any]) -> dict[str, Any] | None:
    return chat_logprobs(tokens, body.get("top_logprobs") or 0) if body.get("logprobs") else None


def _text_logprobs(tokens: list[str], body: dict[str, Any]) -> dict[str, Any] | None:
    top = body.get("logprobs")
    return None if top is None else completion_logprobs(tokens, top)


def _groups(tokens: list[str], size: int) -> list[list[str]]:
    return [tokens[at : at + size] for at in range(0, len(tokens), size)]


def _interleave(choices: Iterable[Iterator[bytes]]) -> Iterator[bytes]:
    """The first event of each choice, then the second of each, and so on, as they are generated."""
    columns = list(choices)
    if len(columns) == 1:
        return columns[0]
    # `zip_longest`: choices end at different lengths, and the longer ones go on alone.
    return (event for row in zip_longest(*columns) for event in row if event is not None)
