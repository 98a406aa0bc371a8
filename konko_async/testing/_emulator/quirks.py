"""The ways in which real servers differ from one another without being wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from konko_async.testing._emulator.faults import Fault
from konko_async.testing._emulator.reply import DONE, JSON_TYPE, Reply, decode_event, encode_event


@dataclass(frozen=True, slots=True)
class Quirks(Fault):
    r"""Answer in another server's style. The text is the same; every field can be set by itself.

    Attributes:
        done: Whether a stream ends with `[DONE]`.
        finish_reason: Whether there is one; `False` for null.
        heartbeats: A comment line before each event of a stream, such as
            `": OPENROUTER PROCESSING"`; `None` for none.
        usage: `"each"` for the usage so far on every chunk, `"empty"` for `{}`, `"none"` for no
            such field; `None` to leave it as asked for.
        null_content: Null where the content is empty, and one more chunk whose content is null.
        missing_content: No content at all where it is empty or null.
        role_in_each: The role in each delta.
        empty_choices: One more chunk, the first, with no choices.
        tool_index: Whether the tool calls of a stream have an index.
        tool_id: Whether tool calls have an id.
        float_created: `created` as a number with a fraction.
        extra: More fields of every body and chunk, such as `{"timings": {...}}`.
        extra_delta: More fields of every message and delta, such as `{"reasoning_content": "..."}`.
        newline: The line ends of a stream: `"\n"`, `"\r\n"` or `"\r"`.
        space: Whether a space follows `data:`.
        bom: Whether a stream begins with a byte order mark.
    """

    done: bool = True
    finish_reason: bool = True
    heartbeats: str | None = None
    usage: Literal["each", "empty", "none"] | None = None
    null_content: bool = False
    missing_content: bool = False
    role_in_each: bool = False
    empty_choices: bool = False
    tool_index: bool = True
    tool_id: bool = True
    float_created: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    extra_delta: Mapping[str, Any] = field(default_factory=dict)
    newline: str = "\n"
    space: bool = True
    bom: bool = False

    def edit(self, reply: Reply) -> None:
        """Rewrite the chunks, or the body if it is no stream; errors are left alone."""
        if reply.status != 200:  # noqa: PLR2004 - an HTTP status
            return
        if not reply.sse:
            if reply.headers.get("content-type") != JSON_TYPE:
                return
            body = msgspec.json.decode(reply.body)
            self._edit_object(body, "message")
            reply.steps[:] = [msgspec.json.encode(body)]
            return
        self._edit_chunks(reply)
        if not self.done:
            reply.steps[:] = [step for step in reply.steps if step != DONE]
            reply.tail -= 1
        self._edit_lines(reply)

    def _edit_chunks(self, reply: Reply) -> None:
        chunks = [decode_event(s) for s in reply.steps if isinstance(s, bytes) and _is_chunk(s)]
        for number, chunk in enumerate(chunks):
            self._edit_object(chunk, "delta")
            # Before the events are encoded again, and after the usual edits: "each" replaces their
            # usage.
            if self.usage == "each" and reply.usage:
                chunk["usage"] = _so_far(reply.usage, (number + 1) / len(chunks))
        # Put back one for one, so that pauses and `[DONE]` between the chunks keep their places.
        events = iter([encode_event(chunk) for chunk in chunks])
        reply.steps[:] = [
            next(events) if isinstance(step, bytes) and _is_chunk(step) else step
            for step in reply.steps
        ]
        # Azure's first chunk: it carries the results of the prompt filter, and `choices` is empty.
        if self.empty_choices and chunks:
            reply.steps.insert(0, encode_event({**chunks[0], "choices": []}))
            reply.lead += 1
        if self.null_content and chunks:
            # A chunk of its own: generated deltas with text are never empty, so `null_content`
            # alone would change the first delta only.
            choices = [{"index": 0, "delta": {"content": None}, "finish_reason": None}]
            reply.steps.insert(reply.lead, encode_event({**chunks[0], "choices": choices}))

    def _edit_object(self, body: dict[str, Any], message: str) -> None:
        """Rewrite one body or chunk in place."""
        body.update(self.extra)
        if self.float_created and "created" in body:
            # A quarter is exact in binary, so a test can compare without a tolerance.
            body["created"] += 0.25
        if self.usage == "empty" and "choices" in body:
            body["usage"] = {}
        elif self.usage == "none":
            body.pop("usage", None)
        for choice in body.get("choices", ()):
            if not self.finish_reason:
                choice["finish_reason"] = None
            if message in choice:
                self._edit_message(choice[message])

    def _edit_message(self, message: dict[str, Any]) -> None:
        message.update(self.extra_delta)
        if self.role_in_each:
            message["role"] = "assistant"
        if not message.get("content") and "content" in message:
            if self.null_content:
                message["content"] = None
            if self.missing_content:
                del message["content"]
        for call in message.get("tool_calls", ()):
            if not self.tool_index:
                call.pop("index", None)
            if not self.tool_id:
                call.pop("id", None)

    def _edit_lines(self, reply: Reply) -> None:
        """Rewrite what surrounds the JSON: comments, line ends, the space, the byte order mark."""
        comment = f"{self.heartbeats}\n\n".encode() if self.heartbeats is not None else b""
        # In this order: the comment is put before the event, and then the line ends of both are
        # replaced.
        edits: list[Callable[[bytes], bytes]] = []
        if not self.space:
            edits.append(lambda event: event.replace(b"data: ", b"data:", 1))
        if comment:
            edits.append(lambda event: comment + event)
        if self.newline != "\n":
            # JSON has no raw line ends, so every one of these is the stream's own.
            edits.append(lambda event: event.replace(b"\n", self.newline.encode()))
        for edit in edits:
            reply.steps[:] = [edit(s) if isinstance(s, bytes) else s for s in reply.steps]
        if self.bom and reply.steps and isinstance(reply.steps[0], bytes):
            reply.steps[0] = b"\xef\xbb\xbf" + reply.steps[0]


def _is_chunk(step: bytes) -> bool:
    return step.startswith(b"data: {")


def _so_far(usage: dict[str, int], part: float) -> dict[str, int]:
    completion = round(usage["completion_tokens"] * part)
    prompt = usage["prompt_tokens"]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
