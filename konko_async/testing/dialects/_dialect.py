"""Rewrites OpenAI's chunks as another server sends them: fields, framing and the stream's end."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

import msgspec

__all__ = ["DONE", "Chunk", "ServerDialect", "UsageCount"]

Chunk: TypeAlias = dict[str, Any]
UsageCount: TypeAlias = tuple[int, int]
"""Tokens of the prompt and of the answer."""

DONE: Final = b"data: [DONE]\n\n"
_encode: Final = msgspec.json.Encoder().encode
_SURROGATE: Final = 0x10000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerDialect:
    r"""A way in which a server bends OpenAI's format; the meaning stays the same.

    `write()` takes an answer's chunks as OpenAI would send them and returns what this server sends.
    Every field can be set by itself; the defaults are OpenAI's way.

    Attributes:
        name: What it is called.
        delta: The key of a chunk's delta. `"text"` is for deltas that are nothing but text; others
            are called `"message"` then.
        index: The `index` of the only choice: 0, 1, or the number of the chunk. Several choices
            are always counted from 0.
        role: Whether the role is in the first delta, in each, or in none.
        finish: Whether the finish reason is in the last chunk of a choice, `"stop"` in every one
            before that, or null everywhere.
        empty_content: What content is where a delta has none: left out, null, or an empty text.
        reasoning: The field of what the model thought.
        tools: Whether a tool call is streamed in pieces, or each comes in one.
        tool_index: Whether tool calls have an index, all the index 0, or none.
        tool_id: Whether the first piece of a tool call has its id, every piece another one, or
            the ids are empty or missing.
        tool_name: Whether the first piece of a tool call has the name, or each.
        signature: A thought signature (`extra_content`) on each tool call.
        usage: Where the usage is reported: in a chunk of its own without choices, in the last chunk
            with one, in `x_groq` or in the choice; the prompt's in the first chunk and the answer's
            in the last; the running total in each chunk; what a chunk took in each; or nowhere.
        extra: More fields of each chunk.
        extra_delta: More fields of each delta; null or empty ones, that say nothing.
        padding: Whether each chunk has random padding (OpenAI's `obfuscation`).
        ascii: Whether the JSON escapes all that is not ASCII.
        halves: Whether a character outside of the basic plane may be cut into two chunks.
        newline: The line end.
        gap: Whether an empty line stands between events; `False` for line ends only.
        space: Whether a space follows `data:`.
        bom: Whether the stream begins with a byte order mark.
        comment: A comment line before each event.
        event: An event of another kind before each chunk: its name, and its data. Needs `gap`.
        done: How the stream ends: by `[DONE]`, by that without its empty line, or by nothing.
    """

    name: str = "openai"
    delta: Literal["delta", "message", "text"] = "delta"
    index: Literal["zero", "one", "counts"] = "zero"
    role: Literal["first", "each", "none"] = "first"
    finish: Literal["last", "each", "none"] = "last"
    empty_content: Literal["none", "null", "text"] = "none"
    reasoning: Literal["reasoning_content", "reasoning", "both"] = "reasoning_content"
    tools: Literal["pieces", "whole"] = "pieces"
    tool_index: Literal["right", "zero", "none"] = "right"
    tool_id: Literal["first", "changing", "empty", "none"] = "first"
    tool_name: Literal["first", "each"] = "first"
    signature: bool = False
    usage: Literal[
        "own chunk", "last chunk", "x_groq", "choice", "split", "each", "increments", "none"
    ] = "own chunk"
    extra: dict[str, Any] = field(default_factory=dict)
    extra_delta: dict[str, Any] = field(default_factory=dict)
    padding: bool = False
    ascii: bool = False
    halves: bool = False
    newline: Literal["\n", "\r\n", "\r"] = "\n"
    gap: bool = True
    space: bool = True
    bom: bool = False
    comment: str | None = None
    event: tuple[str, str] | None = None
    done: Literal["event", "line", "none"] = "event"

    @property
    def tells_calls_apart(self) -> bool:
        """Whether pieces of several tool calls may alternate."""
        return self.tool_index == "right"

    def write(
        self, chunks: Iterable[Chunk], usage: UsageCount | None, rng: random.Random
    ) -> list[bytes]:
        """Return the events of a stream, each with the lines that precede it, and the end.

        Args:
            chunks: An answer as OpenAI streams it, without usage; left as they are.
            usage: The tokens used; `None` to report none.
            rng: What is random about it: padding and ids.
        """
        made = [_copied(chunk) for chunk in chunks]
        # With several choices the index is what tells them apart: any other numbering would leave
        # nothing to understand.
        single = len({choice["index"] for chunk in made for choice in chunk["choices"]}) < 2
        # Before the bending: that would remove the ids and indices by which pieces are joined.
        if self.tools == "whole":
            made = _whole_calls(made)
        for number, chunk in enumerate(made):
            self._bend(chunk, number, single=single, rng=rng)
        if usage is not None:
            self._tell_usage(made, usage)
        events = [self.frame(chunk) for chunk in made]
        if self.done == "event":
            events.append(self._lines("data", "[DONE]"))
        elif self.done == "line":
            # A reader that waits for the empty line would lose this event at the end of the stream.
            events.append(self._lines("data", "[DONE]").rstrip(b"\r\n"))
        if self.bom and events:
            # The event stream format allows one byte order mark, at the very start of the body
            # only.
            events[0] = b"\xef\xbb\xbf" + events[0]
        return events

    def write_whole(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return an unstreamed answer as this server writes it."""
        # Callers keep theirs: the same answer is written in several dialects.
        body = copy.deepcopy(body)
        body.update(self.extra)
        for choice in body.get("choices", ()):
            if "message" in choice:
                self._bend_message(choice["message"])
            if self.finish == "none":
                choice["finish_reason"] = None
        usage = body.get("usage")
        if usage and self.usage in {"x_groq", "choice", "none"}:
            del body["usage"]
            if self.usage == "x_groq":
                body["x_groq"] = {"usage": usage}
            elif self.usage == "choice":
                body["choices"][0]["usage"] = usage
        return body

    def _bend_message(self, message: dict[str, Any]) -> None:
        for name, value in self.extra_delta.items():
            # `setdefault`: these fields are null or empty, and must not hide what the message has.
            message.setdefault(name, value)
        self._name_reasoning(message)
        for call in message.get("tool_calls") or ():
            self._sign(call)
            if self.tool_id == "empty":
                call["id"] = ""
            elif self.tool_id == "none":
                call.pop("id", None)

    def frame(self, chunk: Chunk) -> bytes:
        """Return the event of a chunk, with what this server sends before it."""
        end = "\n\n" if self.gap else "\n"
        before = b"" if self.comment is None else self._end(self.comment + end)
        if self.event is not None:
            kind, data = self.event
            # Always with an empty line, or its `event:` field would name the chunk that follows.
            before += self._end(f"event: {kind}\ndata: {data}\n\n")
        return before + self._lines("data", self._json(chunk))

    def _lines(self, name: str, value: str) -> bytes:
        space = " " if self.space else ""
        return self._end(f"{name}:{space}{value}" + ("\n\n" if self.gap else "\n"))

    def _end(self, text: str) -> bytes:
        return text.replace("\n", self.newline).encode()

    def _json(self, value: Any) -> str:
        if self.ascii or self.halves:
            # Halves of a pair, as the text was cut inside of it, exist only as escapes.
            return _escaped(value)
        return _encode(value).decode()

    # -- chunks ------------------------------------------------------------------------------------

    def _bend(self, chunk: Chunk, number: int, *, single: bool, rng: random.Random) -> None:
        chunk.update(self.extra)
        if self.padding:
            chunk["obfuscation"] = "x" * rng.randint(1, 8)
        for choice in chunk["choices"]:
            if single and self.index != "zero":
                choice["index"] = 1 if self.index == "one" else number
            # Calls before the delta, and its name last: each step finds the keys of OpenAI's
            # format.
            for call in choice["delta"].get("tool_calls", ()):
                self._bend_call(call, rng)
            self._bend_delta(choice["delta"])
            if self.finish == "each" and choice["finish_reason"] is None:
                choice["finish_reason"] = "stop"
            elif self.finish == "none":
                choice["finish_reason"] = None
            if self.delta != "delta":
                self._rename_delta(choice)

    def _bend_delta(self, delta: dict[str, Any]) -> None:
        self._name_reasoning(delta)
        if "content" not in delta and self.empty_content != "none":
            delta["content"] = None if self.empty_content == "null" else ""
        if self.role == "each":
            delta["role"] = "assistant"
        elif self.role == "none":
            delta.pop("role", None)
        for name, value in self.extra_delta.items():
            delta.setdefault(name, value)

    def _rename_delta(self, choice: dict[str, Any]) -> None:
        delta = choice.pop("delta")
        # A bare text cannot carry tool calls or reasoning; such a delta becomes a message.
        if self.delta == "text" and delta.keys() <= {"content", "role"}:
            choice["text"] = delta.get("content") or ""
        else:
            choice["message"] = delta

    def _name_reasoning(self, message: dict[str, Any]) -> None:
        if self.reasoning == "reasoning_content" or "reasoning_content" not in message:
            return
        thought = message["reasoning_content"]
        if self.reasoning == "reasoning":
            del message["reasoning_content"]
        message["reasoning"] = thought

    def _bend_call(self, call: dict[str, Any], rng: random.Random) -> None:
        # Only a call's first piece has an id in OpenAI's format; looked up before ids are changed.
        first = "id" in call
        if first:
            self._sign(call)
        elif self.tool_name == "first":
            call["function"].pop("name", None)
        if self.tool_index == "zero":
            call["index"] = 0
        elif self.tool_index == "none":
            call.pop("index", None)
        if self.tool_id == "changing":
            call["id"] = f"call_{rng.randrange(10**9)}"
        elif self.tool_id == "empty":
            call["id"] = ""
        elif self.tool_id == "none":
            call.pop("id", None)

    def _sign(self, call: dict[str, Any]) -> None:
        if self.signature:
            name = call["function"].get("name", "")
            call["extra_content"] = {"google": {"thought_signature": f"sealed-{name}"}}

    # -- usage -------------------------------------------------------------------------------------

    def _tell_usage(self, chunks: list[Chunk], usage: UsageCount) -> None:
        prompt, answer = usage
        whole = _usage(prompt, answer)
        last = chunks[-1]
        if self.usage == "own chunk":
            chunks.append({**last, "choices": [], "usage": whole})
        elif self.usage == "last chunk":
            last["usage"] = whole
        elif self.usage == "x_groq":
            last["x_groq"] = {"id": "req_1", "usage": whole}
        elif self.usage == "choice":
            for choice in last["choices"]:
                choice["usage"] = whole
        elif self.usage == "split":
            # As Anthropic does, whose first event has the input's tokens and whose last one has the
            # output's.
            chunks[0]["usage"] = {"prompt_tokens": prompt}
            chunks.append({**last, "choices": [], "usage": {"completion_tokens": answer}})
        elif self.usage == "each":
            for number, chunk in enumerate(chunks, 1):
                chunk["usage"] = _usage(prompt, answer * number // len(chunks))
        elif self.usage == "increments":
            _tell_increments(chunks, prompt, answer)


def _copied(chunk: Chunk) -> Chunk:
    """Copy a chunk as deep as it is going to be changed; cheaper than a deep copy."""
    choices = []
    for choice in chunk["choices"]:
        delta = {**choice["delta"]}
        if "tool_calls" in delta:
            delta["tool_calls"] = [
                {**call, "function": {**call["function"]}} for call in delta["tool_calls"]
            ]
        choices.append({**choice, "delta": delta})
    return {**chunk, "choices": choices}


def _usage(prompt: int, answer: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer,
    }  # fmt: skip


def _tell_increments(chunks: list[Chunk], prompt: int, answer: int) -> None:
    """Report usage per chunk with content: one token each, the rest on the first of them."""
    telling = [chunk for chunk in chunks if any(map(_brings, chunk["choices"]))]
    # No more chunks than tokens: each reports at least one, and the sum has to be the answer's.
    telling = telling[:answer] or chunks[-1:]
    for number, chunk in enumerate(telling, 1):
        # The first one reports what the others do not.
        left = answer - len(telling) + 1 if number == 1 else 1
        chunk["usage"] = {"completion_tokens": left}
    telling[0]["usage"]["prompt_tokens"] = prompt


def _brings(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta") or choice.get("message") or {"content": choice.get("text")}
    return bool(delta.get("content"))


def _whole_calls(chunks: list[Chunk]) -> list[Chunk]:
    """Join the pieces of each tool call, at the position of the first piece."""
    calls: dict[tuple[int, int], dict[str, Any]] = {}
    kept = []
    for chunk in chunks:
        for choice in chunk["choices"]:
            pieces = choice["delta"].pop("tool_calls", ())
            new = [piece for piece in pieces if _first(calls, choice["index"], piece)]
            if new:
                choice["delta"]["tool_calls"] = new
        # A chunk that held nothing but a later piece is empty now, and left out.
        if not chunk["choices"] or any(c["delta"] or c["finish_reason"] for c in chunk["choices"]):
            kept.append(chunk)
    return kept


def _first(calls: dict[tuple[int, int], dict[str, Any]], choice: int, piece: Any) -> bool:
    """Whether a piece begins a call; a later piece is appended to the call that it belongs to."""
    known = calls.get((choice, piece["index"]))
    if known is None:
        calls[choice, piece["index"]] = piece
        return True
    known["function"]["arguments"] += piece["function"].get("arguments", "")
    return False


def _escaped(value: Any) -> str:
    """Return JSON in ASCII; also of text with halves of surrogate pairs, which are its own."""
    import json  # noqa: PLC0415 - msgspec writes no lone surrogates; few dialects need it

    return json.dumps(value, separators=(",", ":"))


def halved(text: str) -> tuple[str, str] | None:
    """Return a text cut inside of its first character outside of the basic plane, if it has one."""
    for place, character in enumerate(text):
        if ord(character) >= _SURROGATE:
            pair = character.encode("utf-16-be")
            # What a server does that cuts a JavaScript or Java string, whose units are UTF-16, into
            # chunks.
            high = pair[:2].decode("utf-16-be", "surrogatepass")
            low = pair[2:].decode("utf-16-be", "surrogatepass")
            return text[:place] + high, low + text[place + 1 :]
    return None
